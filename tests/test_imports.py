"""Imports go one way, from the command line down to the backbones, and in no circle. Lazy ones count."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import pytest
from support import ROOT

# highest first; `errors` and `command_line` are used by all
LAYERS = ("cli", "tools", "report", "sweep", "training", "tasks", "data", "backbones", "utils", "errors")
ANYWHERE = ("errors", "command_line", "_version", "_timm_hook", "_moved_modules")


def imports() -> dict[str, set[str]]:
    """Module -> modules of focal_lab that it imports, anywhere in its code."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "focal_lab").rglob("*.py")
    }
    return {
        name: {module for module in _imported(ast.parse(path.read_text()), paths) if module != name}
        for name, path in paths.items()
    }


def _imported(tree: ast.Module, modules: Mapping[str, object]) -> Iterator[str]:
    """Modules that are imported, but for types only."""
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "focal_lab":
            assert node.module is not None
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in modules else node.module for name in names)
        elif isinstance(node, ast.Constant) and node.value in modules:
            yield str(node.value)  # a module that is imported by its name


def layer(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def test_no_import_closes_a_circle() -> None:
    below = {name: {one for one in found if one != "focal_lab"} for name, found in imports().items()}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_packages_import_only_what_lies_below_them() -> None:
    upward = [
        f"{name} imports {one}"
        for name, found in imports().items()
        if layer(name) in LAYERS
        for one in sorted(found)
        if layer(one) in LAYERS
        and layer(one) not in ANYWHERE
        and LAYERS.index(layer(one)) < LAYERS.index(layer(name))
    ]
    assert upward == []


def test_every_package_has_a_layer() -> None:
    packages = {path.parent.name for path in (ROOT / "focal_lab").glob("*/__init__.py")}
    assert packages == set(LAYERS) - {"cli", "errors"}


@pytest.mark.parametrize(
    "module",
    [
        "focal_lab",
        "focal_lab.report.command",
        "focal_lab.sweep.commands.plan_command",
        "focal_lab.data",
        "focal_lab.tasks",
    ],
)
def test_what_must_start_at_once_imports_no_torch(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {"torch", "lightning", "timm"}.isdisjoint(json.loads(child.stdout))
