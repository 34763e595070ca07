"""Digests of the user's own code that a configuration runs: part of a run's identity.

The user's own modules are those outside site-packages, the standard library and focal_lab. From the dotted
names in a configuration, imports are followed through the source, also inside functions. Nothing is
imported, so a plan needs no torch. Comments, docstrings, formatting and data files do not count.
"""

import ast
import hashlib
import importlib.machinery
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import focal_lab
from focal_lab.errors import UserError

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_STANDARD = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib") if sysconfig.get_path(name)
)
_OURS = Path(focal_lab.__file__).resolve().parent
# functions whose argument decides what is imported
_IMPORTERS = frozenset({"import_module", "__import__", "resolve_name", "run_module", "find_spec"})
# functions that import by other means than names: the whole package belongs to a module that calls one
_SCANNERS = frozenset(
    [
        "iter_modules",
        "walk_packages",
        "spec_from_file_location",
        "run_path",
        "SourceFileLoader",
        "load_source",
    ]
)
# a module that imports one of these may import what its string constants name
_DYNAMIC = frozenset({"importlib", "pkgutil", "runpy", "imp", "zipimport"})
# how far above its own folder a module that changes sys.path may look for others
_LEVELS_UP = 3
# fields of syntax trees that no result depends on
_NOT_CODE = frozenset({"ctx", "kind", "type_comment", "type_ignores"})

# module -> digest when this process imported it; set by the fork server
_LOADED: dict[str, str] = {}


class UserCode:
    """The user's modules; one object sees one state of the disk."""

    def __init__(self) -> None:
        self._path = list(sys.path)
        if "" not in self._path and str(Path.cwd()) not in self._path:
            self._path.append(str(Path.cwd()))
        self._found: dict[str, _Module | None] = {}
        self._closures: dict[str, frozenset[str]] = {}

    def of(self, *values: Any) -> dict[str, str]:
        """Module -> digest, by name, of all that the dotted names in plain values import."""
        roots = frozenset(text for text in _texts(values) if _DOTTED.fullmatch(text))
        return self.of_names(name for text in roots for name in _prefixes(text))

    def of_run(self, config: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, str]:
        """`of` a run: what its configuration names, and the classes behind these names."""
        return self.of(config, *(identity.get(name) for name in ("model", "data", "trainer")))

    def of_names(self, names: Iterable[str]) -> dict[str, str]:
        """`of` names of modules; those that are not the user's are left out."""
        modules = frozenset[str]().union(*(self._closure(name) for name in names))
        found = ((name, self._found[name]) for name in sorted(modules))
        return {name: module.digest for name, module in found if module is not None}

    def files(self, modules: Iterable[str]) -> list[Path]:
        """The files of modules and of all that these import; the archive of a module in one."""
        found = (self._found[name] for name in self.of_names(modules))
        return [_on_disk(module.file) for module in found if module is not None and module.file is not None]

    def _closure(self, root: str) -> frozenset[str]:
        known = self._closures.get(root)
        if known is None:
            seen: set[str] = set()
            waiting = [root]
            while waiting:
                name = waiting.pop()
                module = None if name in seen else self._find(name)
                if module is not None:
                    seen.add(name)
                    waiting.extend(self._imports(module))
            with_file = {name for name, module in self._found.items() if module and module.file}
            known = self._closures[root] = frozenset(seen & with_file)
        return known

    def _imports(self, module: "_Module") -> Iterator[str]:
        """Names that may be modules."""
        yield from _prefixes(module.name.rpartition(".")[0])
        if module.file is None or module.file.suffix != ".py":
            return
        source = _read(_bytes(module.file))
        for level, name in source.imports:
            absolute = name if level == 0 else _absolute(module, level, name)
            yield from _prefixes(absolute)
        if source.scans:
            yield from self._beside(module)
        if source.moves_path:
            self._look_in(_folders(module.file, source.texts))

    def _look_in(self, folders: Iterable[Path]) -> None:
        """Search more folders for names that are not found elsewhere."""
        new = [str(folder) for folder in folders if str(folder) not in self._path]
        if new:
            self._path += new
            self._found = {name: module for name, module in self._found.items() if module is not None}

    def _beside(self, module: "_Module") -> Iterator[str]:
        """All modules of a module's package, or of its folder if it is in no package."""
        package = module.name if module.locations else module.name.rpartition(".")[0]
        folder = module.file.parent if module.file else Path(module.locations[0])
        for path in sorted(folder.rglob("*.py") if package else folder.glob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if not _INSTALLED.intersection(parts) and all(part.isidentifier() for part in parts):
                names = parts[:-1] if parts[-1] == "__init__" else parts
                yield ".".join([*([package] if package else []), *names])

    def _find(self, name: str) -> "_Module | None":
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def _search(self, name: str) -> "_Module | None":
        parent, _, _ = name.rpartition(".")
        path: Sequence[str] | None = None
        if parent:
            package = self._find(parent)
            if package is None or not package.locations:
                return None
            path = package.locations
        spec = _spec(name, path if path is not None else self._path, top=not parent)
        if spec is None:
            return None
        locations = tuple(spec.submodule_search_locations or ())
        file = Path(spec.origin) if spec.origin and spec.has_location else None
        where = file or (Path(locations[0]) if locations else None)
        if where is None or not _is_users(where.resolve()):
            return None
        return _Module(name, file, locations, _digest(file))


@dataclass(frozen=True)
class _Module:
    """A module of the user's; `locations` are where its submodules are, a namespace package has no file."""

    name: str
    file: Path | None
    locations: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class _Source:
    """What a Python file imports.

    Attributes:
        imports: (level, name) of what it imports or may import.
        scans: whether it imports by scanning folders.
        moves_path: whether it changes `sys.path`.
        texts: its string constants.
    """

    digest: str
    imports: tuple[tuple[int, str], ...] = ()
    scans: bool = False
    moves_path: bool = False
    texts: tuple[str, ...] = ()


def changed_code(
    config: Mapping[str, Any], identity: Mapping[str, Any], code: UserCode | None = None
) -> list[str]:
    """Names of the user's modules that differ from a run's identity.

    Args:
        config: of the run.
        identity: of the run.
        code: the user's code; None to read it now.
    """
    planned = identity.get("code") or {}
    now = (code or UserCode()).of_run(config, identity)
    loaded = {name: digest for name, digest in _LOADED.items() if name in now}
    return sorted(
        name
        for name in {*planned, *now}
        if planned.get(name) != now.get(name) or loaded.get(name, now.get(name)) != now.get(name)
    )


def refuse_changed_code(config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Check that a run is trained by the code of its identity.

    Raises:
        UserError: the user's code has changed since the run was planned.
    """
    changed = changed_code(config, identity)
    if changed:
        raise UserError(code_changed(changed))


def code_changed(modules: Sequence[str]) -> str:
    """The message for modules that changed."""
    return (
        f"{', '.join(modules)}: the code changed since the sweep was planned; "
        "start focal-lab sweep again, which plans runs of the code as it is now"
    )


def note_loaded(configs: Sequence[Mapping[str, Any]]) -> None:
    """Record the code of configurations right before this process imports it."""
    _LOADED.update(UserCode().of(*configs))


def newest(files: Iterable[Path]) -> float:
    """When the last of some files was changed; 0 for no files, infinite if one is missing."""
    try:
        return max((file.stat().st_mtime for file in files), default=0.0)
    except OSError:
        return float("inf")


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """All strings in plain values, in any order."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif value is None or isinstance(value, int | float):  # most of them, and Mapping is slow to ask
            continue
        elif isinstance(value, dict | Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _prefixes(name: str) -> Iterator[str]:
    """a, a.b, a.b.c: importing the last imports all of them."""
    parts = name.split(".") if name else []
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _absolute(module: _Module, level: int, name: str) -> str:
    """What `from ..name` means in a module."""
    package = module.name if module.locations else module.name.rpartition(".")[0]
    parts = package.split(".") if package else []
    base = parts[: len(parts) - (level - 1)]
    return ".".join([*base, *([name] if name else [])])


def _spec(name: str, path: Sequence[str], *, top: bool) -> importlib.machinery.ModuleSpec | None:
    """Where Python would find a module, without importing it."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is None:
            continue
        try:
            # the path finder would search sys.path, which may lack the working directory
            default = top and finder is not importlib.machinery.PathFinder
            spec: importlib.machinery.ModuleSpec | None = find(name, None if default else path)
        except KeyError:  # a namespace package in a package that is not imported
            last = name.rpartition(".")[2]
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(Path(folder, last)) for folder in path]
        except (ImportError, AttributeError, ValueError, OSError):
            continue
        if spec is not None:
            return spec
    return None


def _is_users(path: Path) -> bool:
    if path == _OURS or _OURS in path.parents or _INSTALLED.intersection(path.parts):
        return False
    return not any(folder in path.parents for folder in _STANDARD)


def _digest(file: Path | None) -> str:
    if file is None:
        return ""
    content = _bytes(file)
    return _read(content).digest if file.suffix == ".py" else hashlib.sha256(content).hexdigest()[:16]


def _on_disk(file: Path) -> Path:
    return next((parent for parent in file.parents if parent.is_file()), file)


def _bytes(file: Path) -> bytes:
    """Content of a module's file, which may be in an archive."""
    try:
        return file.read_bytes()
    except NotADirectoryError:
        archive = _on_disk(file)
        with ZipFile(archive) as opened:
            return opened.read(file.relative_to(archive).as_posix())


def _folders(file: Path, texts: Iterable[str]) -> Iterator[Path]:
    """What a module may put on sys.path: folders and archives that its texts name, and its parent folders."""
    bases = [Path.cwd(), *file.resolve().parents[: 1 + _LEVELS_UP]]
    for text in texts:
        found = (base / text for base in bases if text and len(text) < 256 and "\0" not in text)
        yield from (path for path in found if path.is_dir() or path.suffix in (".zip", ".egg", ".whl"))
    yield from bases[1:]


@lru_cache(maxsize=1024)
def _read(content: bytes) -> _Source:
    """Analyse a file; one that is not Python counts by its bytes."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return _Source(hashlib.sha256(content).hexdigest()[:16])
    imports: dict[tuple[int, str], None] = {}
    scans = moves_path = False
    texts: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update(dict.fromkeys((0, alias.name) for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            imports[node.level, base] = None
            inner = (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
            imports.update(dict.fromkeys((node.level, name) for name in inner if not name.endswith("*")))
        elif isinstance(node, ast.Call):
            found, unknown = _dynamic(node)
            imports.update(dict.fromkeys(found))
            scans |= unknown
        elif isinstance(node, ast.Attribute):
            moves_path |= node.attr == "path" and getattr(node.value, "id", "") == "sys"
            moves_path |= node.attr == "addsitedir"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts[node.value] = None
    if any(level == 0 and name.partition(".")[0] in _DYNAMIC for level, name in imports):
        named = (text.partition(":")[0] for text in texts)
        imports.update(dict.fromkeys((0, name) for name in named if _NAME.fullmatch(name)))
    text = "".join(_words(tree)).encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(text).hexdigest()[:16]
    return _Source(digest, tuple(imports), scans, moves_path, tuple(texts))


def _dynamic(call: ast.Call) -> tuple[list[tuple[int, str]], bool]:
    """What a call imports by name, and whether it may import other modules."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name in _SCANNERS:
        return [], True
    if name not in _IMPORTERS or not call.args:
        return [], False
    first = call.args[0]
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        plain = first.value.lstrip(".")
        return [(len(first.value) - len(plain), plain)], False
    return [], True


def _words(node: Any) -> Iterator[str]:
    """A syntax tree as text that is the same in all versions of Python, without positions and docstrings."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if name in _NOT_CODE or (value is None and name != "value") or value == []:
                continue
            if name == "body" and isinstance(value, list) and _documents(node, value):
                value = value[1:]
            yield f" {name}="
            yield from _words(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for part in node:
            yield from _words(part)
            yield ","
        yield "]"
    else:
        yield f"{type(node).__name__}:{node!r}"


def _documents(node: ast.AST, body: list[Any]) -> bool:
    """Whether a body starts with a docstring."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if not isinstance(node, kinds) or not body or not isinstance(body[0], ast.Expr):
        return False
    first = body[0].value
    return isinstance(first, ast.Constant) and isinstance(first.value, str)
