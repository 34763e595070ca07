"""Reading YAML so that a mistake is told with its line."""

from pathlib import Path
from typing import Any

import yaml

from focal_lab.errors import UserError

# libyaml's loader is ten times faster; PyYAML may have been built without it
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeys(_LOADER):  # type: ignore[misc]
    """A key that stands twice is a mistake, not a choice of the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", key_node.start_mark)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: missing, not YAML (with line and column), or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not a text file"
        raise UserError(f"cannot be read: {reason}", file=path) from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """`load_yaml` of a text already read."""
    try:
        value = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"is not YAML: {where}{getattr(error, 'problem', error)}", file=path) from error
    if not isinstance(value, dict):
        raise UserError("must be a mapping of keys to values", file=path)
    return value


def dump_yaml(value: Any) -> str:
    """YAML in the order of the mapping."""
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=100)
