"""What of an attention's weights depends on sizes: position biases and pooling, from one stage to another.

Shape suffixes: N heads, T positions of a table. Keys are relative to the attention module.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from focal_lab.backbones.options import FocalOptions, Size, StageConfig, resolve_stages
from focal_lab.backbones.weights import interpolate as resizing
from focal_lab.backbones.weights.table_sizes import (
    NotSquareError,
    Source,
    expand_of,
    pool_size_of,
    region_of,
    square_side,
    table_side,
    told,
    window_of,
)

OWN, RING = "relative_position_bias_table", "ring_bias"
PER_QUERY, PER_WINDOW = "coarse_bias_tables", "window_bias_tables"

_POSITIONAL = re.compile(rf"({OWN}|{RING}|({PER_QUERY}|{PER_WINDOW})\.\d+|pools\.\d+\..+)$")
_LEVEL = re.compile(rf"({PER_QUERY}|{PER_WINDOW}|pools)\.(\d+)(\..+)?$")

Shape = tuple[int, ...]


@dataclass
class Rebuilt:
    """One attention's values for the new sizes; by old key what was dropped, by new key all else.

    Attributes:
        values: all that is known; what could not be handled is in it as it came.
        interpolated: the shape before, and from what to what.
        dropped: the shape, and why the model has no place for it.
        fresh: why the checkpoint has nothing for it.
        refused: why it cannot be resized.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    interpolated: dict[str, tuple[Shape, str]] = field(default_factory=dict)
    dropped: dict[str, tuple[Shape, str]] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def is_positional(key: str) -> bool:
    """Whether a parameter's shape depends on windows, regions or pool sizes."""
    _, attention, name = key.rpartition("attn.")
    return bool(attention) and _POSITIONAL.match(name) is not None


def level_numbers(stage: StageConfig, options: FocalOptions) -> list[int]:
    """The number of each coarse level among those that the options ask for.

    They are counted from 0, but `level_overlap="exclude"` can switch levels off.
    """
    every = resolve_stages(replace(options, level_overlap="keep"))[stage.stage - 1].levels
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
    source: Source | None = None,
) -> Rebuilt:
    """Position biases and pooling weights for the windows, ring, regions and sub-windows of `stage`.

    Args:
        values: the checkpoint's, for one attention.
        expected: the model's positional parameters.
        stage: the model's stage.
        interpolation: bicubic or bilinear.
        levels: the checkpoint's coarse level for each of the stage's; -1 where it has none.
        found: keys that at least one attention of the checkpoint's stage has. What none has, a stage of
            other sizes did not need and stays fresh; what only this one lacks is missing.
        source: the sizes of `values`; None to tell them from their shapes, which square windows allow.
    """
    same = {key: tuple(value.shape) for key, value in values.items()} == dict(expected)
    own = values.get(OWN)
    known = own is not None and own.shape[1:] == expected[OWN][1:]  # the same heads
    known = known and all(values[key].ndim == ndim for key, ndim in _dimensions(values).items())
    if (same and source in (None, Source.of(stage))) or not known:
        return Rebuilt(dict(values))
    work = _Work(values, expected, stage, interpolation, source, found)
    try:
        work.window = source.window if source else window_of(values[OWN], values.get(RING), stage)
    except NotSquareError as error:
        return Rebuilt(dict(values), refused={OWN: str(error)})
    work.own()
    work.ring()
    for new, old in enumerate(levels):
        work.level(old, new)
    work.surplus(levels)
    return work.rebuilt


def _dimensions(values: Mapping[str, Tensor]) -> dict[str, int]:
    return {key: 3 if key == RING else 2 for key in values if not key.startswith("pools.")}


@dataclass
class _Work:
    """One attention on its way; each method takes its keys from `values` to `rebuilt`."""

    values: Mapping[str, Tensor]
    expected: Mapping[str, Shape]
    stage: StageConfig
    interpolation: str
    source: Source | None
    found: Collection[str]
    window: Size = (0, 0)
    rebuilt: Rebuilt = field(default_factory=Rebuilt)

    def own(self) -> None:
        """Swin's table."""
        table_TN = self.values[OWN]
        new = resizing.resize_own_table(table_TN, self.window, self.stage.window, self.interpolation)
        self._keep(OWN, table_TN, new, f"window {told(self.window)} to {told(self.stage.window)}")

    def ring(self) -> None:
        """The ring, with the own table filling its hole."""
        ring_NQR, wanted = self.values.get(RING), RING in self.expected
        if ring_NQR is None:
            if wanted and RING not in self.found:
                self.rebuilt.fresh[RING] = "there is no ring to take it from"
            return
        if not wanted:
            self.rebuilt.dropped[RING] = (tuple(ring_NQR.shape), "the model's stage has no ring")
            return
        try:
            expand = self.source.expand if self.source else expand_of(ring_NQR, self.window, self.stage)
        except NotSquareError as error:
            self._refuse(RING, RING, str(error))
            return
        new = resizing.resize_ring(
            ring_NQR,
            self.values[OWN],
            self.window,
            expand,
            self.stage.window,
            self.stage.expand,
            self.interpolation,
        )
        why = f"window {told(self.window)} to {told(self.stage.window)}"
        if self.window == self.stage.window:
            why = f"ring {told(expand)} to {told(self.stage.expand)}"
        self._keep(RING, ring_NQR, new, why)

    def level(self, old: int, new: int) -> None:
        """One coarse level: its table and its pooling."""
        names = [name for name in (PER_QUERY, PER_WINDOW) if f"{name}.{old}" in self.values]
        if names:
            try:
                self._table(names[0], old, new)
            except NotSquareError as error:
                self._refuse(f"{names[0]}.{old}", f"{names[0]}.{new}", str(error))
        elif not any(
            key.startswith((f"{PER_QUERY}.{old}", f"{PER_WINDOW}.{old}", f"pools.{old}."))
            for key in self.found
        ):
            for key in self.expected:
                match = _LEVEL.match(key)
                if match and int(match[2]) == new:
                    self.rebuilt.fresh[key] = "there is no such coarse level to take it from"
            return
        for key, value in self.values.items():
            if key.startswith(f"pools.{old}."):
                self._pooling(key, f"pools.{new}.{key.split('.', 2)[2]}", value, old, new)

    def surplus(self, levels: Sequence[int]) -> None:
        """Drop the levels that the model has not."""
        for key, value in self.values.items():
            match = _LEVEL.match(key)
            if match and int(match[2]) not in levels:
                why = "the model's stage has fewer coarse levels"
                self.rebuilt.dropped[key] = (tuple(value.shape), why)

    def _table(self, name: str, old: int, new: int) -> None:
        key, table_NT = f"{name}.{old}", self.values[f"{name}.{old}"]
        wanted = PER_QUERY if f"{PER_QUERY}.{new}" in self.expected else PER_WINDOW
        target, region = f"{wanted}.{new}", self.stage.levels[new].region
        if name == PER_WINDOW and wanted == PER_QUERY:
            rule = "one bias per window (coarse_bias=window) cannot become one per query (coarse_bias=query)"
            self._refuse(key, target, f"{rule}; build the model with coarse_bias=window")
            return
        if name == PER_QUERY and wanted == PER_QUERY:
            if tuple(table_NT.shape) == self.expected[target] and self.window == self.stage.window:
                side = new_side = region
            else:
                side = self._side(table_NT, old)
                new_side = table_side(self.stage.window, region)
            grown = f"region {told(region_of(side, self.window))} to {told(region)}"
            if self.window != self.stage.window:
                grown = f"window {told(self.window)} to {told(self.stage.window)}"
            resized = resizing.resize_coarse_table(table_NT, side, new_side, self.interpolation)
            self._keep(target, table_NT, resized, grown)
            return
        values_NT = table_NT
        if name == PER_QUERY:
            before = region_of(self._side(table_NT, old), self.window)
            values_NT = resizing.average_over_queries(table_NT, self.window, before)
        elif tuple(table_NT.shape) == self.expected[target] and not self.source:
            before = region
        else:
            before = self.source.regions[old] if self.source else square_side(table_NT, "region")
        resized = resizing.resize_coarse_table(values_NT, before, region, self.interpolation)
        grown = f"region {told(before)} to {told(region)}"
        averaged = "one bias per query to their average over queries"
        if name == PER_QUERY:
            grown = averaged if before == region else f"{averaged} and {grown}"
        self._keep(target, table_NT, resized, grown)

    def _pooling(self, key: str, target: str, value: Tensor, old: int, new: int) -> None:
        wanted, size = self.expected.get(target), self.stage.levels[new].pool_size
        fits = wanted is None or not key.endswith(".weight") or tuple(value.shape) == wanted
        if (fits and self.source is None) or wanted is None or value.ndim not in (2, 4):
            self.rebuilt.values[target] = value  # another kind of pooling is not ours to translate
            return
        try:
            before = self.source.pools[old] if self.source else pool_size_of(value)
        except NotSquareError as error:
            self._refuse(key, target, str(error))
            return
        resized = value
        if key.endswith(".weight"):
            resized = resizing.resize_pooling(value, before, size, self.interpolation)
        self._keep(target, value, resized, f"pool size {told(before)} to {told(size)}")

    def _side(self, table_NT: Tensor, level: int) -> Size:
        """The extent of a per-query table, window + region - 1."""
        if self.source:
            return table_side(self.window, self.source.regions[level])
        side = square_side(table_NT, "window and region")
        if min(region_of(side, self.window)) < 1:
            raise NotSquareError(
                f"shape {tuple(table_NT.shape)} is too small for the window {told(self.window)} of its stage"
            )
        return side

    def _keep(self, key: str, before: Tensor, after: Tensor, why: str) -> None:
        self.rebuilt.values[key] = after
        if after is not before:
            self.rebuilt.interpolated[key] = (tuple(before.shape), why)

    def _refuse(self, key: str, target: str, why: str) -> None:
        self.rebuilt.values[target] = self.values[key]
        self.rebuilt.refused[target] = why
