"""Makes 1 mean 1 for an option of type `int | float`, whichever of the two its type names first.

`trainer.limit_train_batches: 1` is one batch and 1.0 is all of them. typing keeps one object for both
Union[int, float] and Union[float, int], in the order in which the process made it first, and jsonargparse
tries types in order: a module that wrote Union[float, int] before Lightning was imported made 1 mean 1.0.
"""

from typing import Any

from jsonargparse import _typehints


def try_int_before_float() -> None:
    """Have every parser of this process try int first; more calls change nothing."""
    rank = getattr(_typehints, "union_subtype_sort_key", None)  # recent versions of jsonargparse
    if rank is None or getattr(rank, "int_before_float", False):
        return

    def ranked(subtype: Any) -> Any:
        return 0.5 if subtype is float else rank(subtype)

    ranked.int_before_float = True  # type: ignore[attr-defined]
    _typehints.union_subtype_sort_key = ranked
