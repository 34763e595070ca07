"""What became of a checkpoint's weights, as data and in one line."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from focal_lab.backbones.weights.bias_tables import Rebuilt, Shape, is_positional


class Change(NamedTuple):
    """One parameter of the model or one tensor of the checkpoint, and what became of it."""

    key: str
    before: Shape | None
    after: Shape | None
    why: str


@dataclass
class FitReport:
    """What became of a checkpoint. A ring can be both folded and interpolated.

    Attributes:
        origin: whose format it was in.
        mapped: taken as they are; `why` is the name that they had, where it was another.
        folded: several values that are exactly one: keys that the released code doubles, or a normalisation's
            scale and shift in the layer that follows it.
        interpolated: resampled to another size.
        dropped: tensors of the checkpoint that the model has no place for.
        fresh: parameters of the model that the checkpoint has no values for: they stay as initialised.
        buffers: what is computed and not learned, of no interest.
    """

    origin: str
    mapped: list[Change] = field(default_factory=list)
    folded: list[Change] = field(default_factory=list)
    interpolated: list[Change] = field(default_factory=list)
    dropped: list[Change] = field(default_factory=list)
    fresh: list[Change] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)

    def add(self, prefix: str, rebuilt: Rebuilt, expected: Mapping[str, Shape]) -> None:
        """What became of one attention: `prefix` stands before its keys, `expected` are its shapes."""
        self.interpolated += [
            Change(prefix + key, before, expected[key], why)
            for key, (before, why) in rebuilt.interpolated.items()
        ]
        self.dropped += [
            Change(prefix + key, before, None, why) for key, (before, why) in rebuilt.dropped.items()
        ]
        self.fresh += [Change(prefix + key, None, expected[key], why) for key, why in rebuilt.fresh.items()]

    def summary(self) -> str:
        """One line on what is not as in the checkpoint; empty where all is."""
        told = [
            *_grouped(self.interpolated, "{} interpolated from {}"),
            *_grouped(self.dropped, "{} dropped ({})"),
            *_grouped(self.fresh, "{} left as initialised ({})"),
        ]
        return "; ".join(told)


def _grouped(changes: list[Change], form: str) -> Iterator[str]:
    """`12 position biases interpolated from window 7 to 14`, once per kind of parameter."""
    kinds: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        kinds.setdefault(_kind(change.key), []).append(change)
    for kind, members in kinds.items():
        reasons = [why for why, _ in Counter(change.why for change in members).most_common()]
        told = ", ".join(reasons[:3]) + (" and more" if len(reasons) > 3 else "")
        one, several = kind
        yield form.format(f"{len(members)} {one if len(members) == 1 else several}", told)


def _kind(key: str) -> tuple[str, str]:
    """What a parameter is, one of it and several."""
    if not is_positional(key):
        return "parameter", "parameters"
    return ("pooling weight", "pooling weights") if ".pools." in key else ("position bias", "position biases")
