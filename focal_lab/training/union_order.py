"""Makes jsonargparse read 1 as int for every option of type `int | float`.

`trainer.limit_train_batches: 1` is one batch and 1.0 is all of them. typing caches one object for both
Union[int, float] and Union[float, int], in the order that was created first in the process, and jsonargparse
tries types in order: a module that wrote Union[float, int] before Lightning was imported turned 1 into 1.0.
"""

from typing import Any

from jsonargparse import _typehints


def try_int_before_float() -> None:
    """Make every parser of this process try int before float; idempotent."""
    sort = getattr(_typehints, "sort_subtypes_for_union", None)  # recent versions of jsonargparse
    if sort is None or getattr(sort, "int_before_float", False):
        return

    def sorted_subtypes(*args: Any, **kwargs: Any) -> list[Any]:
        found = list(sort(*args, **kwargs))
        if int in found and float in found[: found.index(int)]:
            found.remove(int)
            found.insert(found.index(float), int)
        return found

    sorted_subtypes.int_before_float = True  # type: ignore[attr-defined]
    _typehints.sort_subtypes_for_union = sorted_subtypes
