"""The identity of a run: everything in its configuration that can change its result. Its hash is the run ID.

LightningCLI's conversion of values needs the classes, and so torch. Converted values are cached in
`<out>/identity.json` under keys that change with the code; the others are converted by one request to a
process that has torch loaded.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import focal_lab
from focal_lab.sweep.identity.identity_table import (
    LEFT_OUT,
    MOVED_CLASSES,
    RATES,
    normal_options,
    normal_path,
    normal_trainer,
    text_keys,
)
from focal_lab.sweep.identity.user_code import UserCode
from focal_lab.sweep.run_folder.layout import has_result
from focal_lab.sweep.run_folder.provenance import versions
from focal_lab.sweep.worker.processes import WarmProcesses
from focal_lab.utils.json_cache import add_to_cache, read_cache

# To be raised when a change of the code changes what a configuration computes: every run gets a new ID.
IDENTITY_VERSION = 2
IDENTITY_FILE = "identity.json"
_TRAINER = "lightning.pytorch.Trainer"
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=repr)
_T = TypeVar("_T")
# (class, option, value); without an option: what the options of the class are
_Question = tuple[str, str | None, Any]
# key of a question -> answer, of all that were asked in this process; None: the class or value is refused
_answers: dict[str, Any] = {}


class Identities:
    """Describes configurations; one object sees one state of the user's code.

    Args:
        out: folder of the runs, which has the cache; None for no cache.
        find_earlier: returns run ID -> folder of finished runs of earlier versions; see `earlier_runs`.
    """

    def __init__(
        self,
        out: Path | None = None,
        find_earlier: Callable[[Path, "Identities"], dict[str, str]] | None = None,
    ) -> None:
        self.out, self.code = out, UserCode()
        self._find_earlier = find_earlier
        self._open: dict[str, _Question] = {}
        self._known: dict[tuple[str, str | None, str], Any] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}
        # (owner, id) of sections that cells share -> the section, so that no other gets its id; description
        self._sections: dict[tuple[str, int], tuple[Any, dict[str, Any]]] = {}
        self._texts: dict[int, str] = {}  # id of a description that is shared -> `encoded`
        if out is not None:
            _answers.update(read_cache(out / IDENTITY_FILE))

    def settled(self, make: Callable[[], _T]) -> _T:
        """Result of a function of descriptions; it is called again while some conversions were not known."""
        made = make()
        while self._open:
            self._ask()
            made = make()
        return made

    def describe(self, config: Mapping[str, Any], task: str, network: Mapping[str, Any]) -> dict[str, Any]:
        """Everything in a configuration that can change its result, and nothing else; to be `settled`.

        Args:
            config: of a run, or what the runs of all seeds have in common.
            task: what it is trained for.
            network: identity of the resolved backbone.
        """
        self._configs.setdefault(task, config)
        model = self._section(config["model"])
        for name in ("backbone", "backbone_options"):
            model["init_args"].pop(name, None)
        if model["init_args"].get("backbone_checkpoint"):
            model["init_args"]["backbone_checkpoint"] = _content(
                str(model["init_args"]["backbone_checkpoint"])
            )
        described = {
            **{key: value for key, value in config.items() if value not in (None, {}, [])},
            "version": IDENTITY_VERSION,
            "task": task,
            "network": self._shared(network, str(config["model"]["class_path"]), self._network),
            "model": model,
            "data": self._shared(config["data"], str(config["data"]["class_path"]), self._data),
            "trainer": self._shared(config.get("trainer"), _TRAINER, self._trainer),
        }
        code = self.code.of_run(config, described)
        return described | ({"code": code} if code else {})

    def encoded(self, part: Any) -> str:
        """Canonical JSON of a part of a description."""
        return self._texts.get(id(part)) or _canonical(part)

    def folder(self, name: str) -> str:
        """Name of the folder of a run: its ID, or the one that an earlier version finished it under."""
        if self.out is None or self._open or has_result(f"{self.out}/{name}"):
            return name
        return self._earlier.get(name, name)

    @cached_property
    def _earlier(self) -> dict[str, str]:
        return {} if self.out is None or self._find_earlier is None else self._find_earlier(self.out, self)

    def _shared(self, section: Any, owner: str, describe: Callable[[str, Any], dict[str, Any]]) -> Any:
        """The description of a section; one object for all cells that have the same section."""
        key = (owner, id(section))
        if key in self._sections:
            return self._sections[key][1]
        found = describe(owner, section)
        if not self._open:  # all conversions were known
            self._sections[key] = section, found
            self._texts[id(found)] = _canonical(found)
        return found

    def _data(self, owner: str, section: Mapping[str, Any]) -> dict[str, Any]:
        found = self._section(section)
        for name in LEFT_OUT["data"]:
            found["init_args"].pop(name, None)
        return found

    def _trainer(self, owner: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
        return normal_trainer(self._options(owner, options or {}))

    def _section(self, section: Mapping[str, Any]) -> dict[str, Any]:
        owner = str(section["class_path"])
        info = self._info(owner)
        others = {key: value for key, value in section.items() if value}
        options = self._options(owner, section.get("init_args") or {})
        return others | {"class_path": owner if info is None else info["name"], "init_args": options}

    def _options(self, owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
        info = self._info(owner)
        if info is None:
            return {key: text_keys(value) for key, value in given.items()}
        converted = {key: self._value(owner, key, normal_path(key, value)) for key, value in given.items()}
        return normal_options(info, converted)

    def _network(self, owner: str, network: Mapping[str, Any]) -> dict[str, Any]:
        """1.0 becomes 1; options that are None or have their default are left out."""
        found = dict(network)
        for part, defaults in (("options", {}), ("others", RATES)):
            if part in found:
                options = self._value(owner, "backbone_options", found[part]) or {}
                found[part] = {
                    key: value
                    for key, value in options.items()
                    if value is not None and value != defaults.get(key)
                }
        plain: dict[str, Any] = _whole(found)
        return plain

    def _info(self, owner: str) -> Mapping[str, Any] | None:
        """Description of a class; None if it is not known yet or cannot be imported."""
        found: Mapping[str, Any] | None = self._answer(owner, None, None)
        return found

    def _value(self, owner: str, option: str, value: Any) -> Any:
        """A value as LightningCLI converts it; unchanged if that is not known yet or it is refused."""
        info = self._info(owner)
        if info is None:
            return text_keys(value)
        kinds = info["kinds"].get(option, "").split("|")
        kind = "None" if value is None else type(value).__name__
        if kind in kinds and (kind != "str" or set(kinds) <= {"str", "None"}):
            return value
        if kind == "int" and "float" in kinds:
            return float(value)
        answer = self._answer(owner, option, value)
        return text_keys(value) if answer is None else answer[0]

    def _answer(self, owner: str, option: str | None, value: Any) -> Any:
        short = (owner, option, _canonical(text_keys(value)) if option is not None else "")
        if short in self._known:
            return self._known[short]
        question = (MOVED_CLASSES.get(owner, owner), option, value)
        key = self._key(question)
        if key not in _answers:
            self._open[key] = question
            return None
        self._known[short] = _answers[key]
        return _answers[key]

    def _key(self, question: _Question) -> str:
        owner, option, value = question
        text = _canonical([owner, option, text_keys(value), self.code.of(owner, value)])
        return f"{_environment()} {_digest(text)[:20]}"

    def _ask(self) -> None:
        """Resolve all open requests; a class or value that is refused keeps its raw form."""
        asked, self._open = self._open, {}
        owners = list(dict.fromkeys(owner for owner, _, _ in asked.values()))
        values = [(key, question) for key, question in asked.items() if question[1] is not None]
        described, converted = _convert(owners, [question for _, question in values], self._configs)
        found = {key: described[owner] for key, (owner, option, _) in asked.items() if option is None}
        found |= {key: answer for (key, _), answer in zip(values, converted, strict=True)}
        _answers.update(found)
        if self.out is not None:
            add_to_cache(
                self.out / IDENTITY_FILE, {key: one for key, one in found.items() if one is not None}
            )


def hash_of(value: Any) -> str:
    """SHA-256 of the canonical JSON: 1.0 and 1 differ, the order of keys does not matter."""
    return _digest(_canonical(value))


def hashes_of(
    common: Mapping[str, Any],
    differing: Iterable[Mapping[str, Any]],
    encode: Callable[[Any], str] | None = None,
) -> Iterator[str]:
    """`hash_of` each of some values, that have most in common: `common | one`.

    Args:
        encode: gives the canonical JSON of a value in `common`.
    """
    shared = {key: f"{_canonical(key)}:{(encode or _canonical)(value)}" for key, value in common.items()}
    for one in differing:
        parts = shared | {key: f"{_canonical(key)}:{_canonical(value)}" for key, value in one.items()}
        yield _digest("{" + ",".join([parts[key] for key in sorted(parts)]) + "}")


def _convert(owners: list[str], questions: list[Any], configs: Mapping[str, Mapping[str, Any]]) -> Any:
    """`convert_all` in this process if it has torch loaded, else in a worker process."""
    if "lightning.pytorch" in sys.modules:
        from focal_lab.sweep.worker.convert_values import convert_all

        return convert_all(owners, questions)
    return WarmProcesses(configs.values()).convert(owners, questions)


@cache
def _environment() -> str:
    """Hash of the code that converts: our source, and the versions of packages."""
    folder = Path(focal_lab.__file__).parent
    ours = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        ours.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return hash_of([versions(), version("jsonargparse"), ours.hexdigest()])[:16]


def _content(path: str) -> str:
    """Digest of a file; its path if it does not exist yet."""
    file = Path(path)
    try:
        status = file.stat()
        return f"sha256:{_file_digest(str(file.resolve()), status.st_mtime_ns, status.st_size)}"
    except OSError:
        return path


@lru_cache(maxsize=256)
def _file_digest(path: str, modified: int, size: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _whole(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _canonical(value: Any) -> str:
    if type(value) is int:  # seeds, many times as fast
        return str(value)
    return _ENCODER.encode(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
