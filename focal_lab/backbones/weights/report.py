"""A checkpoint's weights fitted to a model, and the report of what happened to them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from focal_lab.backbones.weights.formats import Shape, is_positional


class Change(NamedTuple):
    """What happened to one parameter of the model or one tensor of the checkpoint."""

    key: str
    before: Shape | None
    after: Shape | None
    why: str


@dataclass
class FitReport:
    """What happened to a checkpoint's weights. A ring can be both folded and interpolated.

    Attributes:
        origin: the checkpoint's format.
        mapped: used unchanged; `why` is the checkpoint's name for it.
        folded: several values replaced by one that is exactly equivalent: keys that the released code stores
            twice, or a norm's scale and shift in the layer that follows it.
        interpolated: resampled to another size.
        dropped: tensors of the checkpoint that the model has no parameter for.
        fresh: parameters of the model that the checkpoint has no values for; they stay as initialised.
        buffers: tensors of the checkpoint that are computed, not learned.
    """

    origin: str = ""
    mapped: list[Change] = field(default_factory=list)
    folded: list[Change] = field(default_factory=list)
    interpolated: list[Change] = field(default_factory=list)
    dropped: list[Change] = field(default_factory=list)
    fresh: list[Change] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)

    def add(self, prefix: str, part: "FitReport") -> None:
        """Append the report of a part of the model, whose keys lack the prefix."""
        for name in ("interpolated", "dropped", "fresh"):
            changes = [change._replace(key=prefix + change.key) for change in getattr(part, name)]
            getattr(self, name).extend(changes)

    def summary(self) -> str:
        """One line on what differs from the checkpoint; empty if nothing does."""
        return "; ".join(
            [
                *_grouped(self.interpolated, "{} interpolated from {}"),
                *_grouped(self.dropped, "{} dropped ({})"),
                *_grouped(self.fresh, "{} left as initialised ({})"),
            ]
        )


@dataclass
class Fit:
    """A partly fitted state dict; values that do not fit are unchanged.

    `misfits` and `refused` are keys with the reason why they do not fit, or cannot be resized.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    report: FitReport = field(default_factory=FitReport)
    misfits: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def _grouped(changes: list[Change], form: str) -> Iterator[str]:
    """`12 position biases interpolated from window 7 to 14`, one such phrase per kind of parameter."""
    kinds: dict[str, list[Change]] = {}
    for change in changes:
        kind = "parameter"
        if is_positional(change.key):
            kind = "pooling weight" if ".pools." in change.key else "position bias"
        kinds.setdefault(kind, []).append(change)
    for kind, members in kinds.items():
        reasons = [why for why, _ in Counter(change.why for change in members).most_common()]
        listed = ", ".join(reasons[:3]) + (" and more" if len(reasons) > 3 else "")
        plural = "" if len(members) == 1 else "es" if kind.endswith("s") else "s"
        yield form.format(f"{len(members)} {kind}{plural}", listed)
