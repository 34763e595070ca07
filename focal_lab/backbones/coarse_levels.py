"""The pooled levels of a stage: sizes, regions and hidden tokens (pure Python)."""

from dataclasses import dataclass, replace

Size = tuple[int, int]


@dataclass(frozen=True)
class CoarseLevel:
    """One pooled level of a stage; sizes are (height, width).

    Attributes:
        pool_size: s_w, tokens that one pooled token summarises.
        cells: pooled tokens per window.
        region: pooled tokens that a window sees: `focal_window` + cells - 1.
        hidden: tokens of the region, row by row, that are left out because finer levels see their area.
    """

    pool_size: Size
    cells: Size
    region: Size
    hidden: tuple[int, ...] = ()

    @property
    def keys(self) -> int:
        """Pooled tokens of the region, hidden ones and those outside the map included."""
        return self.region[0] * self.region[1]


def coarse_levels(
    stage: int, window: Size, count: int, focal_window: int, pool_sizes: tuple[int, ...] | None
) -> tuple[CoarseLevel, ...]:
    """Levels k = 1..count: s_w = floor(s_p / 2^(k-1)), 2^(k-1) cells a window, regions growing with them."""
    if pool_sizes is not None and len(pool_sizes) == 1:
        pool_sizes = pool_sizes * count
    if pool_sizes is not None and len(pool_sizes) != count:
        raise ValueError(f"pool_sizes: {len(pool_sizes)} sizes for {count} coarse levels in stage {stage}")
    levels = []
    for k in range(count):
        if pool_sizes is None:
            cells = (2**k, 2**k)
            size = (window[0] // 2**k, window[1] // 2**k)
            if min(size) < 1:
                raise ValueError(
                    f"focal_levels: level {k + 2} of stage {stage} would pool less than one token of its "
                    f"window {window[0]} x {window[1]}; use at most {k + 1} levels there"
                )
        else:
            size = (min(pool_sizes[k], window[0]), min(pool_sizes[k], window[1]))
            cells = (window[0] // size[0], window[1] // size[1])
        levels.append(CoarseLevel(size, cells, (focal_window + cells[0] - 1, focal_window + cells[1] - 1)))
    return tuple(levels)


def exclude_overlap(
    window: Size, expand: Size, levels: tuple[CoarseLevel, ...]
) -> tuple[tuple[CoarseLevel, ...], list[Size]]:
    """Hide the pooled tokens whose whole area finer levels see; levels that are hidden entirely are dropped.

    Finer are the fine level and the levels of smaller sub-windows. Areas are those of sub-windows centred in
    the window; the same tokens of the region are hidden where the map is cut otherwise.
    """
    kept, dropped = [], []
    fine = tuple((-expand[axis], window[axis] + expand[axis]) for axis in (0, 1))
    for level in levels:
        finer = [_extent(window, other) for other in levels if other.pool_size < level.pool_size]
        (top, _), (left, _) = _extent(window, level)
        height, width = level.pool_size
        hidden = []
        for i in range(level.keys):
            row, column = divmod(i, level.region[1])
            first = (top + row * height, left + column * width)
            area = ((first[0], first[0] + height), (first[1], first[1] + width))
            if any(
                all(seen[axis][0] <= area[axis][0] and area[axis][1] <= seen[axis][1] for axis in (0, 1))
                for seen in [fine, *finer]
            ):
                hidden.append(i)
        if len(hidden) < level.keys:
            kept.append(replace(level, hidden=tuple(hidden)))
        else:
            dropped.append(level.pool_size)
    return tuple(kept), dropped


def _extent(window: Size, level: CoarseLevel) -> tuple[Size, ...]:
    """Per direction, first and last (exclusive) token of a level's region, the window's first being 0."""
    extents = []
    for size, cells, region, length in zip(level.pool_size, level.cells, level.region, window, strict=True):
        first = (length - cells * size) // 2 - (region - cells) // 2 * size
        extents.append((first, first + region * size))
    return tuple(extents)
