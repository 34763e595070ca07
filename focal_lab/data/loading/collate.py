"""Pictures with a dictionary each of what is in them, and how they become batches."""

from collections.abc import Sequence

from torch import Tensor

Target = dict[str, Tensor]
Batch = tuple[list[Tensor], list[Target]]


def as_lists(items: Sequence[tuple[Tensor, Target] | None]) -> Batch:
    """Pictures of different size, and different numbers of objects, stay apart; None is left out."""
    there = [item for item in items if item is not None]
    return [picture for picture, _ in there], [target for _, target in there]
