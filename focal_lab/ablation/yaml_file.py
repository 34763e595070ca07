"""Reading YAML so that a mistake is told with its line, and values are what LightningCLI takes them for."""

import re
from pathlib import Path
from typing import Any

import yaml

from focal_lab.errors import UserError

# libyaml's loader is ten times faster; PyYAML may have been built without it
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE, _TIMESTAMP, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("merge", "timestamp", "float"))
# YAML 1.1 takes 1e-3 for a word, LightningCLI for a number
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _Loader(_LOADER):  # type: ignore[misc]
    """A key that stands twice is a mistake, not a choice of the last one; a date is a word."""

    def get_single_node(self) -> Any:
        root = super().get_single_node()
        # here and not while constructing: merge keys (`<<`) then change the nodes
        waiting, done = [root], set()
        while waiting:
            node = waiting.pop()
            if id(node) in done or not isinstance(node, yaml.CollectionNode):
                continue
            done.add(id(node))
            if isinstance(node, yaml.MappingNode):
                self._refuse_twins([key for key, _ in node.value])
                waiting += [part for pair in node.value for part in pair]
            else:
                waiting += node.value
        return root

    def _refuse_twins(self, key_nodes: list[Any]) -> None:
        seen: set[Any] = set()
        for node in key_nodes:
            if not isinstance(node, yaml.ScalarNode) or node.tag == _MERGE:
                continue
            key = self.construct_object(node)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands twice", node.start_mark
                )
            seen.add(key)


class _Dumper(yaml.SafeDumper):
    """Quotes the words that the loader would take for numbers."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in _LOADER.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789"))


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


def parse_yaml(text: str, path: Path | str) -> dict[str, Any]:
    """`load_yaml` of a text already read; `path` is what an error names."""
    try:
        value = yaml.load(text, _Loader)
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
