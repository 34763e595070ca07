"""Lets a command that makes many objects and no cycles collect garbage rarely."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 1_000_000


@contextmanager
def rare_collection() -> Iterator[None]:
    """Look for cycles once in a million new objects: the usual rate takes a tenth of a report's time."""
    usual = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
