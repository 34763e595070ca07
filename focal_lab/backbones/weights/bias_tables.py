"""Resizing an attention's position biases and pooling weights from one stage's sizes to another's.

Shape suffixes: N heads, T positions of a table, Q queries of a window, R keys of its ring. Keys are relative
to the attention module.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from focal_lab.backbones.options import FocalOptions, StageConfig
from focal_lab.backbones.weights import interpolate
from focal_lab.backbones.weights.formats import OWN, PER_QUERY, PER_WINDOW, RING, Shape, level_of
from focal_lab.backbones.weights.report import Change, FitReport
from focal_lab.backbones.weights.table_sizes import (
    NotSquareError,
    TableSizes,
    infer_sizes,
    size_text,
    table_side,
)


@dataclass
class Rebuilt:
    """One attention's values for the new sizes.

    Attributes:
        values: by new key; a value that cannot be resized is passed on unchanged.
        report: what was interpolated, dropped or left fresh.
        refused: why a value cannot be resized.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    report: FitReport = field(default_factory=FitReport)
    refused: dict[str, str] = field(default_factory=dict)


def level_numbers(stage: StageConfig, options: FocalOptions) -> list[int]:
    """For each coarse level of the stage its number, from 0, among those that the options ask for.

    `level_overlap="exclude"` can switch levels off.
    """
    every = replace(options, level_overlap="keep").stages[stage.stage - 1].levels
    sizes = [(level.pool_size, level.region) for level in every]
    return [sizes.index((level.pool_size, level.region)) for level in stage.levels]


def rebuild_attention(
    values: Mapping[str, Tensor],
    expected: Mapping[str, Shape],
    stage: StageConfig,
    interpolation: str,
    *,
    levels: Sequence[int],
    found: Collection[str],
    source: TableSizes | None = None,
) -> Rebuilt:
    """Position biases and pooling weights for the windows, ring, regions and sub-windows of `stage`.

    Args:
        values: the checkpoint's, for one attention.
        expected: the shapes of the model's.
        stage: the model's stage.
        interpolation: bicubic or bilinear.
        levels: the checkpoint's coarse level for each of the stage's; -1 where it has none.
        found: keys that at least one attention of the checkpoint's stage has. A key that none has stays
            fresh; a key that only this attention lacks is missing.
        source: the sizes of `values`; None to infer them from their shapes.
    """
    same = {key: tuple(value.shape) for key, value in values.items()} == dict(expected)
    own = values.get(OWN)
    comparable = own is not None and own.shape[1:] == expected[OWN][1:]  # the same heads
    for key, value in values.items():
        comparable = comparable and (key.startswith("pools.") or value.ndim == (3 if key == RING else 2))
    if not comparable or (same and source in (None, TableSizes.of(stage))):
        return Rebuilt(dict(values))
    errors: dict[str, str] = {}
    if source is None:
        try:
            source, errors = infer_sizes(values, stage, levels)
        except NotSquareError as error:
            return Rebuilt(dict(values), refused={OWN: str(error)})
    work = _Rebuilding(values, expected, stage, interpolation, found, source, errors)
    work.fine()
    for new, old in enumerate(levels):
        work.level(old, new)
    for key, value in values.items():
        number = level_of(key)
        if number is not None and number not in levels:
            work.drop(key, value, "the model's stage has fewer coarse levels")
    return work.rebuilt


@dataclass
class _Rebuilding:
    """Moves keys from `values` to `rebuilt`; `errors` has the keys of unclear size."""

    values: Mapping[str, Tensor]
    expected: Mapping[str, Shape]
    stage: StageConfig
    interpolation: str
    found: Collection[str]
    source: TableSizes
    errors: Mapping[str, str]
    rebuilt: Rebuilt = field(default_factory=Rebuilt)

    def fine(self) -> None:
        """Swin's table and the ring, whose hole the table fills."""
        old, new, table_TN, ring_NQR = (
            self.source.window,
            self.stage.window,
            self.values[OWN],
            self.values.get(RING),
        )
        why = f"window {size_text(old)} to {size_text(new)}"
        self.keep(OWN, table_TN, interpolate.resize_own_table(table_TN, old, new, self.interpolation), why)
        if ring_NQR is None:
            if RING in self.expected and RING not in self.found:
                self.leave_fresh(RING, "there is no ring to copy")
        elif RING not in self.expected:
            self.drop(RING, ring_NQR, "the model's stage has no ring")
        elif RING in self.errors:
            self.refuse(RING, RING, self.errors[RING])
        else:
            before, after = self.source.expand, self.stage.expand
            if old == new:
                why = f"ring {size_text(before)} to {size_text(after)}"
            ring = interpolate.resize_ring(ring_NQR, table_TN, old, before, new, after, self.interpolation)
            self.keep(RING, ring_NQR, ring, why)

    def level(self, old: int, new: int) -> None:
        """One coarse level: its table and its pooling."""
        tables = [name for name in (PER_QUERY, PER_WINDOW) if f"{name}.{old}" in self.values]
        if tables:
            self._table(tables[0], old, new)
        elif old not in map(level_of, self.found):
            for key in self.expected:
                if level_of(key) == new:
                    self.leave_fresh(key, "there is no such coarse level to copy")
            return
        for key, value in self.values.items():
            if key.startswith(f"pools.{old}."):
                self._pooling(key, f"pools.{new}.{key.split('.', 2)[2]}", value, old, new)

    def _table(self, name: str, old: int, new: int) -> None:
        key, table_NT = f"{name}.{old}", self.values[f"{name}.{old}"]
        wanted = PER_QUERY if f"{PER_QUERY}.{new}" in self.expected else PER_WINDOW
        target = f"{wanted}.{new}"
        if name == PER_WINDOW and wanted == PER_QUERY:
            rule = "one bias per window (coarse_bias=window) cannot become one per query (coarse_bias=query)"
            self.refuse(key, target, f"{rule}; build the model with coarse_bias=window")
            return
        if key in self.errors:
            self.refuse(key, target, self.errors[key])
            return
        before, after = self.source.regions[old], self.stage.levels[new].region
        reasons = [f"region {size_text(before)} to {size_text(after)}"]
        old_side, new_side, values_NT = before, after, table_NT
        if wanted == PER_QUERY:
            old_side, new_side = table_side(self.source.window, before), table_side(self.stage.window, after)
            if self.source.window != self.stage.window:
                reasons = [f"window {size_text(self.source.window)} to {size_text(self.stage.window)}"]
        elif name == PER_QUERY:
            values_NT = interpolate.average_over_queries(table_NT, self.source.window, before)
            averaged = "one bias per query to their average over queries"
            reasons = [averaged] if before == after else [averaged, *reasons]
        resized = interpolate.resize_coarse_table(values_NT, old_side, new_side, self.interpolation)
        self.keep(target, table_NT, resized, " and ".join(reasons))

    def _pooling(self, key: str, target: str, value: Tensor, old: int, new: int) -> None:
        if target not in self.expected or value.ndim not in (2, 4):
            self.rebuilt.values[target] = (
                value  # a bias, or another kind of pooling, which cannot be translated
            )
        elif key in self.errors:
            self.refuse(key, target, self.errors[key])
        else:
            before, after = self.source.pools[old], self.stage.levels[new].pool_size
            resized = interpolate.resize_pooling(value, before, after, self.interpolation)
            self.keep(target, value, resized, f"pool size {size_text(before)} to {size_text(after)}")

    def keep(self, key: str, before: Tensor, after: Tensor, why: str) -> None:
        """Use a value, and report it unless it is the same tensor."""
        self.rebuilt.values[key] = after
        if after is not before:
            change = Change(key, tuple(before.shape), self.expected[key], why)
            self.rebuilt.report.interpolated.append(change)

    def drop(self, key: str, value: Tensor, why: str) -> None:
        """Report a value that the model has no parameter for."""
        self.rebuilt.report.dropped.append(Change(key, tuple(value.shape), None, why))

    def leave_fresh(self, key: str, why: str) -> None:
        """Report a parameter that has no value."""
        self.rebuilt.report.fresh.append(Change(key, None, self.expected[key], why))

    def refuse(self, key: str, target: str, why: str) -> None:
        """Pass on a value that cannot be resized."""
        self.rebuilt.values[target] = self.values[key]
        self.rebuilt.refused[target] = why
