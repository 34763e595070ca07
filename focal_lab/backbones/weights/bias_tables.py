"""Resizing an attention's position biases and pooling weights from one stage's sizes to another's.

The sizes of the given values are those of a known stage where they fit it; others are taken to be square.

Shape suffixes: N heads, T positions of a table, Q queries of a window, R keys of its ring. Keys are relative
to the attention module.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from focal_lab.backbones.coarse_levels import CoarseLevel, Size
from focal_lab.backbones.geometry import table_side
from focal_lab.backbones.options import FocalOptions, StageConfig
from focal_lab.backbones.weights import interpolate
from focal_lab.backbones.weights.formats import OWN, PER_QUERY, PER_WINDOW, RING, Shape, level_of
from focal_lab.backbones.weights.report import Change, Fit


class UnresizableError(ValueError):
    """A value that cannot be resized, and why."""


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
    source: StageConfig | None = None,
) -> Fit:
    """Position biases and pooling weights for the windows, ring, regions and sub-windows of `stage`.

    Args:
        values: the checkpoint's, for one attention.
        expected: the shapes of the model's.
        stage: the model's stage.
        interpolation: bicubic or bilinear.
        levels: the checkpoint's coarse level for each of the stage's; -1 where it has none.
        found: keys that at least one attention of the checkpoint's stage has. A key that none has stays
            fresh; a key that only this attention lacks is missing.
        source: the stage that `values` are of; None to infer their sizes from their shapes.
    """
    own = values.get(OWN)
    comparable = own is not None and own.shape[1:] == expected[OWN][1:]  # the same heads
    for key, value in values.items():
        comparable = comparable and (key.startswith("pools.") or value.ndim == (3 if key == RING else 2))
    if not comparable:
        return Fit(dict(values))
    if source is None:
        known_levels = {old: stage.levels[new] for new, old in enumerate(levels)}
    else:
        known_levels = dict(enumerate(source.levels))
    known = source or stage
    try:
        window = _window_of(values[OWN], values.get(RING), known)
    except UnresizableError as error:
        return Fit(dict(values), refused={OWN: str(error)})
    work = _Rebuilding(values, expected, stage, interpolation, found, known, known_levels, window)
    work.fine()
    for new, old in enumerate(levels):
        work.level(old, new)
    for key in values:
        number = level_of(key)
        if number is not None and number not in levels:
            work.drop(key, "the model's stage has fewer coarse levels")
    return work.fit


@dataclass
class _Rebuilding:
    """Moves keys from `values`, whose queries have `window`, to `fit`."""

    values: Mapping[str, Tensor]
    expected: Mapping[str, Shape]
    stage: StageConfig
    interpolation: str
    found: Collection[str]
    known: StageConfig
    known_levels: Mapping[int, CoarseLevel]
    window: Size
    fit: Fit = field(default_factory=Fit)

    def fine(self) -> None:
        """Swin's table and the ring, whose hole the table fills."""
        self._move(OWN, OWN, self._own_table)
        if RING not in self.values:
            if RING in self.expected and RING not in self.found:
                self._leave_fresh(RING, "there is no ring to copy")
        elif RING not in self.expected:
            self.drop(RING, "the model's stage has no ring")
        else:
            self._move(RING, RING, self._ring)

    def level(self, old: int, new: int) -> None:
        """One coarse level: its table and its pooling."""
        tables = [name for name in (PER_QUERY, PER_WINDOW) if f"{name}.{old}" in self.values]
        if tables:
            wanted = PER_QUERY if f"{PER_QUERY}.{new}" in self.expected else PER_WINDOW
            self._move(
                f"{tables[0]}.{old}", f"{wanted}.{new}", partial(self._table, tables[0], wanted, old, new)
            )
        elif old not in map(level_of, self.found):
            for key in self.expected:
                if level_of(key) == new:
                    self._leave_fresh(key, "there is no such coarse level to copy")
            return
        for key, value in self.values.items():
            if not key.startswith(f"pools.{old}."):
                continue
            target = f"pools.{new}.{key.split('.', 2)[2]}"
            if target in self.expected and value.ndim in (2, 4):
                self._move(key, target, partial(self._pooling, value, old, new))
            else:  # a bias, or another kind of pooling, which cannot be translated
                self.fit.values[target] = value

    def drop(self, key: str, why: str) -> None:
        """Report a value that the model has no parameter for."""
        self.fit.report.dropped.append(Change(key, tuple(self.values[key].shape), None, why))

    def _leave_fresh(self, key: str, why: str) -> None:
        self.fit.report.fresh.append(Change(key, None, self.expected[key], why))

    def _move(self, key: str, target: str, resize: Callable[[], tuple[Tensor, str]]) -> None:
        """Use the resized value and report it if it is another; pass on one that cannot be resized."""
        value = self.values[key]
        try:
            resized, why = resize()
        except UnresizableError as error:
            self.fit.values[target] = value
            self.fit.refused[target] = str(error)
            return
        self.fit.values[target] = resized
        if resized is not value:
            change = Change(target, tuple(value.shape), self.expected[target], why)
            self.fit.report.interpolated.append(change)

    def _own_table(self) -> tuple[Tensor, str]:
        old, new = self.window, self.stage.window
        table = interpolate.resize_own_table(self.values[OWN], old, new, self.interpolation)
        return table, f"window {_text(old)} to {_text(new)}"

    def _ring(self) -> tuple[Tensor, str]:
        ring_NQR, table_TN = self.values[RING], self.values[OWN]
        old, new, after = self.window, self.stage.window, self.stage.expand
        before = _expand_of(ring_NQR, old, self.known)
        why = (
            f"window {_text(old)} to {_text(new)}"
            if old != new
            else f"ring {_text(before)} to {_text(after)}"
        )
        return interpolate.resize_ring(ring_NQR, table_TN, old, before, new, after, self.interpolation), why

    def _table(self, name: str, wanted: str, old: int, new: int) -> tuple[Tensor, str]:
        if name == PER_WINDOW and wanted == PER_QUERY:
            raise UnresizableError(
                "one bias per window (coarse_bias=window) cannot become one per query (coarse_bias=query); "
                "build the model with coarse_bias=window"
            )
        table_NT = self.values[f"{name}.{old}"]
        known, after = self.known_levels[old].region, self.stage.levels[new].region
        if name == PER_QUERY:
            before = _region_of(table_NT, self.window, self.known, known)
        else:
            before = _side(table_NT, known, "region")
        reasons = [f"region {_text(before)} to {_text(after)}"]
        old_side, new_side = before, after
        if wanted == PER_QUERY:
            old_side, new_side = table_side(self.window, before), table_side(self.stage.window, after)
            if self.window != self.stage.window:
                reasons = [f"window {_text(self.window)} to {_text(self.stage.window)}"]
        elif name == PER_QUERY:
            table_NT = interpolate.average_over_queries(table_NT, self.window, before)
            averaged = "one bias per query to their average over queries"
            reasons = [averaged] if before == after else [averaged, *reasons]
        resized = interpolate.resize_coarse_table(table_NT, old_side, new_side, self.interpolation)
        return resized, " and ".join(reasons)

    def _pooling(self, weight: Tensor, old: int, new: int) -> tuple[Tensor, str]:
        after = self.stage.levels[new].pool_size
        if weight.ndim == 4:
            before = (weight.shape[2], weight.shape[3])
        else:
            before = _side(weight, self.known_levels[old].pool_size, "sub-window")
        resized = interpolate.resize_pooling(weight, before, after, self.interpolation)
        return resized, f"pool size {_text(before)} to {_text(after)}"


def _window_of(table_TN: Tensor, ring_NQR: Tensor | None, known: StageConfig) -> Size:
    """The window of an own table and its ring."""
    positions = table_TN.shape[0]
    queries = None if ring_NQR is None else ring_NQR.shape[1]
    height, width = known.window
    if positions == (2 * height - 1) * (2 * width - 1) and queries in (None, height * width):
        return known.window
    side = math.isqrt(positions)
    window = (side + 1) // 2
    if side**2 != positions or side % 2 == 0 or queries not in (None, window**2):
        raise UnresizableError(
            f"shape {tuple(table_TN.shape)} belongs to no square window, and only such can be resized to "
            f"window {_text(known.window)}"
        )
    return window, window


def _expand_of(ring_NQR: Tensor, window: Size, known: StageConfig) -> Size:
    """The expansion of a ring."""
    queries = math.prod(known.window)
    if window == known.window and ring_NQR.shape[1:] == (queries, known.fine_keys - queries):
        return known.expand
    side = math.isqrt(ring_NQR.shape[2] + ring_NQR.shape[1])
    grown = side - window[0]
    if window[0] != window[1] or side**2 != sum(ring_NQR.shape[1:]) or grown % 2:
        raise UnresizableError(
            f"shape {tuple(ring_NQR.shape)} is not an even ring of a square window, which resizing needs"
        )
    return grown // 2, grown // 2


def _region_of(table_NT: Tensor, window: Size, known: StageConfig, region: Size) -> Size:
    """The region of a table with a bias for each query; `region` if that fits."""
    if window == known.window and table_NT.shape[1] == math.prod(table_side(window, region)):
        return region
    side = _side(table_NT, None, "window and region")
    region = (side[0] - window[0] + 1, side[1] - window[1] + 1)
    if min(region) < 1:
        raise UnresizableError(
            f"shape {tuple(table_NT.shape)} is too small for the window {_text(window)} of its stage"
        )
    return region


def _side(table_NT: Tensor, known: Size | None, what: str) -> Size:
    """Height and width of a table; `known` if that fits."""
    positions = table_NT.shape[1]
    if known is not None and positions == math.prod(known):
        return known
    side = math.isqrt(positions)
    if side**2 != positions:
        raise UnresizableError(
            f"shape {tuple(table_NT.shape)} belongs to no square {what}, and only such can be resized"
        )
    return side, side


def _text(size: Size) -> str:
    """`7`, or `7 x 12`."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]} x {size[1]}"
