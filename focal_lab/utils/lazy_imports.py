"""Imports by name: lazy exports of packages (PEP 562), and classes by their dotted paths."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from focal_lab.errors import UserError


def lazy_imports(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` that imports the requested name.

    Args:
        package: dotted path of the package.
        modules: exported name -> module below the package that defines it.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get


def find_class(path: str) -> Any:
    """The class at a dotted path.

    Raises:
        UserError: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (AttributeError, ImportError, ValueError) as error:
        raise UserError(f"{path} is not the dotted path of a class: {error}") from error
