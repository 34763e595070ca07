"""Reads YAML with line numbers in errors, and values as LightningCLI parses them."""

import re
from pathlib import Path
from typing import Any, NoReturn, Self

import yaml

from focal_lab.errors import UserError

# libyaml's loader is ten times faster; PyYAML may have been built without it
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE, _TIMESTAMP, _FLOAT, _INT = (
    f"tag:yaml.org,2002:{name}" for name in ("merge", "timestamp", "float", "int")
)
# More values than this are not a configuration; nested anchors write them in a few lines.
_MOST_VALUES = 1_000_000
# YAML 1.1 reads 010 as eight and 1:30 as ninety, which is never meant (007 is seven either way)
_TRAP = re.compile(r"[-+]?(0[0-7_]*[1-7][0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$")
# YAML 1.1 reads 1e-3 as a string, LightningCLI as a number
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _Loader(_LOADER):  # type: ignore[misc]
    """Refuses duplicate keys instead of using the last one; reads a date as a string."""

    def get_single_node(self) -> Any:
        root = super().get_single_node()
        # here and not while constructing: merge keys (`<<`) then change the nodes
        if root is not None and self._count(root, {}) > _MOST_VALUES:
            _refuse(f"its anchors stand for more than {_MOST_VALUES:,} values", root)
        return root

    def _count(self, node: Any, counts: dict[int, int | None]) -> int:
        """Values in a node, those of an anchor as often as it is used; visits each node once."""
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) in counts:
            known = counts[id(node)]
            return _refuse("an anchor contains itself", node) if known is None else known
        counts[id(node)] = None
        parts = values = node.value
        if isinstance(node, yaml.MappingNode):
            self._refuse_twins([key for key, _ in node.value])
            parts = [part for pair in node.value for part in pair]
            values = parts[1::2]  # a key may be a label
        for value in values:
            self._refuse_trap(value)
        counts[id(node)] = count = 1 + sum(self._count(part, counts) for part in parts)
        return count

    def _refuse_trap(self, node: Any) -> None:
        if node.tag in (_INT, _FLOAT) and not node.style and _TRAP.match(node.value):
            number = self.construct_object(node)
            _refuse(
                f"{node.value} is {plain(number)} in YAML; write that, or '{node.value}' for a text", node
            )

    def _refuse_twins(self, key_nodes: list[Any]) -> None:
        seen: set[Any] = set()
        for node in key_nodes:
            if not isinstance(node, yaml.ScalarNode) or node.tag == _MERGE:
                continue
            key = self.construct_object(node)
            forms = {("value", plain(key)), ("text", str(key))}
            if forms & seen:
                _refuse(f"the key {key} is given twice", node)
            seen |= forms


def _refuse(problem: str, node: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class Written(str):
    """A scalar as written in the file, such as `on` or `1.50`, with its parsed value."""

    value: Any

    def __new__(cls, text: str, value: Any) -> Self:
        made = super().__new__(cls, text)
        made.value = value
        return made


class _WrittenLoader(_Loader):
    def construct_object(self, node: Any, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        return Written(node.value, value) if isinstance(node, yaml.ScalarNode) else value


def plain(value: Any) -> Any:
    """The parsed value of what `load_written` returns; any other value as it is."""
    if isinstance(value, Written):
        return value.value
    if isinstance(value, dict):
        return {plain(key): plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Quotes strings that the loader would read as numbers."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in _LOADER.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789"))


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: missing, not YAML (with line and column), or not a mapping.
    """
    return parse_yaml(_read(path), path)


def load_written(path: Path) -> dict[Written, Any]:
    """`load_yaml` with every scalar, keys included, as a Written."""
    return parse_yaml(_read(path), path, _WrittenLoader)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not a text file in UTF-8"
        raise UserError(f"cannot be read: {reason}", file=path) from error


def parse_yaml(text: str, path: Path | str, loader: type[_Loader] = _Loader) -> dict[Any, Any]:
    """`load_yaml` of a text; errors name `path`."""
    try:
        value = yaml.load(text, loader)
    except RecursionError as error:
        raise UserError("is not YAML: is nested too deeply", file=path) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a tag such as !!int before a word
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"is not YAML: {where}{problem}", file=path) from error
    if not isinstance(value, dict):
        raise UserError("must be a mapping of keys to values", file=path)
    return value


def dump_yaml(value: Any) -> str:
    """YAML in the order of the mapping."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100)
