"""Classes by their dotted paths."""

import importlib
from typing import Any

from focal_lab.errors import UserError


def find_class(path: str) -> Any:
    """The class at a dotted path.

    Raises:
        UserError: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (AttributeError, ImportError, ValueError) as error:
        raise UserError(f"{path} is not the dotted path of a class: {error}") from error
