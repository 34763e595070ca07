"""Options of a focal backbone, and what each stage computes with them at a given input size (pure Python).

The names are those of the authors' configuration files; a scalar means "every stage". `stages`
alone decides what is computed: windows cut to the map, expansion and shift switched off, and padding.
The network is built from its result, `effective_config` reports it, and run IDs are hashes of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from focal_lab.backbones.coarse_levels import CoarseLevel, coarse_levels, exclude_overlap
from focal_lab.backbones.coarse_levels import Size as Size
from focal_lab.errors import did_you_mean, one_of

POOLINGS = ("fc", "mean", "max", "conv")
BORDERS = ("wrap", "mask")
ATTENTIONS = ("fast", "reference")
_CHOICES = {
    "focal_pool": POOLINGS,
    "pool_init": ("released", "mean"),
    "coarse_bias": ("query", "window"),
    "level_overlap": ("keep", "exclude"),
    "border": BORDERS,
    "downsample": ("conv", "merge"),
    "attention": ATTENTIONS,
}


@dataclass(frozen=True)
class FocalOptions:
    """Every switch of the network; defaults are Focal-Tiny's (table 1 of the paper).

    Attributes:
        img_size: height and width in pixels that the position tables are made for; any size runs.
        patch_size: stride of the patch embedding, in pixels.
        in_chans: channels of the image.
        embed_dim: width C of the first stage; every later stage doubles it.
        depths: blocks per stage.
        num_heads: attention heads per stage; each divides its stage's width.
        window_size: s_p, side of a query window in tokens, per stage.
        focal_levels: granularities L per stage, the fine one included; 1 is window attention only.
        focal_windows: s_r of the coarse levels per stage: odd side, in pooled tokens, of the region that a
            window of one pooled token sees.
        expand_sizes: tokens that the fine level extends beyond the window on each side, per stage.
        pool_sizes: s_w of each coarse level in tokens, per stage; None for floor(s_p / 2^(k-1)).
        focal_pool: how a sub-window becomes one token: fc, mean, max or conv.
        pool_init: initial weights of fc pooling: released (truncated normal of 0.02, to which the authors'
            code resets them) or mean (1 / s_w^2, as that code sets them first).
        coarse_bias: position biases of pooled tokens: query (released code: one per query of the window) or
            window (the paper's text: shared by all queries of a window).
        level_overlap: keep (every level sees its whole region) or exclude (a pooled token is hidden where
            finer levels see all of its sub-window).
        use_shift: shift the windows of every second block by half a window, per stage.
        use_conv_embed: overlapping patch embeddings.
        use_layerscale: learned scale on both residual branches, initially `layerscale_value`.
        use_pre_norm: normalise the input of every patch embedding between stages.
        downsample: conv (the paper) or merge (Swin's concatenating patch merging) between stages.
        border: wrap (released code: rolled tokens wrap around, padding is visible, an odd last row is
            dropped between stages) or mask (only the map is visible, odd maps are padded).
        mlp_ratio: hidden width of the MLP over C.
        qkv_bias: biases in the q, k, v projection.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0.
        attention: fast or reference, two implementations of the same function.
    """

    img_size: int | Sequence[int] = 224
    patch_size: int = 4
    in_chans: int = 3
    embed_dim: int = 96
    depths: Sequence[int] = (2, 2, 6, 2)
    num_heads: int | Sequence[int] = (3, 6, 12, 24)
    window_size: int | Sequence[int] = 7
    focal_levels: int | Sequence[int] = 2
    focal_windows: int | Sequence[int] = (7, 5, 3, 1)
    expand_sizes: int | Sequence[int] = 3
    pool_sizes: int | Sequence[Any] | None = None
    focal_pool: str = "fc"
    pool_init: str = "released"
    coarse_bias: str = "query"
    level_overlap: str = "keep"
    use_shift: bool | Sequence[bool] = False
    use_conv_embed: bool = False
    use_layerscale: bool = False
    layerscale_value: float = 1e-4
    use_pre_norm: bool = False
    downsample: str = "conv"
    border: str = "wrap"
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path_rate: float = 0.0
    attention: str = "fast"

    @cached_property
    def stages(self) -> tuple["StageConfig", ...]:
        """What each stage computes at `img_size`.

        Raises:
            ValueError: an option breaks a rule; the message names the option, its value and the rule.
        """
        _check_choices(self)
        depths = _integers("depths", self.depths, None, least=1)
        stages = len(depths)
        given: dict[str, tuple[Any, ...]] = {"depths": depths}
        for name in ("num_heads", "window_size", "focal_levels", "focal_windows", "expand_sizes"):
            least = 0 if name == "expand_sizes" else 1
            given[name] = _integers(name, getattr(self, name), stages, least)
        given["use_shift"] = per_stage("use_shift", self.use_shift, stages)
        # None, or one size per coarse level (a single size stands for all of them)
        given["pool_sizes"] = tuple(
            None
            if entry is None
            else _integers("pool_sizes", entry if isinstance(entry, Sequence) else (entry,), None, 1)
            for entry in per_stage("pool_sizes", self.pool_sizes, stages)
        )
        size = image_size(self.img_size)
        map_size = (-(-size[0] // self.patch_size), -(-size[1] // self.patch_size))
        resolved = []
        for i in range(stages):
            resolved.append(
                _resolve_stage(i + 1, {name: values[i] for name, values in given.items()}, map_size, self)
            )
            map_size = downsampled_size(map_size, self)
        return tuple(resolved)


OPTION_NAMES = tuple(entry.name for entry in fields(FocalOptions))


@dataclass(frozen=True)
class StageConfig:
    """What one stage computes at the input size; sizes are (height, width) in tokens.

    Attributes:
        map_size: the stage's feature map.
        canvas_size: the map padded to whole windows.
        window: side of a query window, at most the map's.
        expand: tokens that the fine level extends beyond the window on each side.
        shift: offset of the windows in every second block.
        levels: the coarse levels, finest first.
        notes: where an option was not honoured as written, and why.
    """

    stage: int
    dim: int
    depth: int
    num_heads: int
    map_size: Size
    canvas_size: Size
    window: Size
    expand: Size
    shift: Size
    levels: tuple[CoarseLevel, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def fine_keys(self) -> int:
        """Keys of the fine level: (s_p + 2e)^2."""
        return (self.window[0] + 2 * self.expand[0]) * (self.window[1] + 2 * self.expand[1])

    @property
    def keys(self) -> int:
        """Keys over all levels, hidden ones included."""
        return self.fine_keys + sum(level.keys for level in self.levels)

    @property
    def keys_per_window(self) -> int:
        """Visible keys over all levels, as in the paper (218, 194, 178, 50 for Focal-Tiny at 224 px)."""
        return self.keys - sum(len(level.hidden) for level in self.levels)

    def as_dict(self) -> dict[str, Any]:
        """Lists and numbers for JSON, without `notes` and without an empty `hidden`."""
        described = {name: value for name, value in asdict(self).items() if name != "notes"}
        for level in described["levels"]:
            if not level["hidden"]:
                del level["hidden"]
        plain: dict[str, Any] = json.loads(json.dumps(described))  # tuples become lists
        return plain | {"keys_per_window": self.keys_per_window}


class UnknownOptionError(TypeError, ValueError):
    """An option that no focal backbone has; a TypeError because timm expects one, as Python raises."""


def make_options(values: Mapping[str, Any]) -> FocalOptions:
    """Options from a mapping.

    Raises:
        UnknownOptionError: an unknown name.
        ValueError: an option breaks a rule.
    """
    unknown = [name for name in values if name not in OPTION_NAMES]
    if unknown:
        hint = did_you_mean(unknown[0], OPTION_NAMES)
        raise UnknownOptionError(
            f"{unknown[0]} is not an option of a focal backbone (use {one_of(OPTION_NAMES)}){hint}"
        )
    options = FocalOptions(**values)
    _ = options.stages  # raises
    return options


def downsampled_size(map_size: Size, options: FocalOptions) -> Size:
    """The next stage's map. The released 2 x 2 convolution drops an odd last row; all others pad it."""
    if cuts_odd_maps(options):
        return max(1, map_size[0] // 2), max(1, map_size[1] // 2)
    return -(-map_size[0] // 2), -(-map_size[1] // 2)


def cuts_odd_maps(options: FocalOptions) -> bool:
    """Whether downsampling follows the released code, which cuts incomplete 2 x 2 patches."""
    return options.border == "wrap" and options.downsample == "conv" and not options.use_conv_embed


def identity(options: FocalOptions) -> dict[str, Any]:
    """The resolved options as JSON; two backbones with equal identities are the same network.

    Options without effect at this size are left out or neutral: the focal window of a stage without coarse
    levels, a shift that no block has, the border rule where nothing extends beyond the map.
    """
    stages = options.stages
    pooled = any(stage.levels for stage in stages)
    found: dict[str, Any] = {
        "architecture": "focal",
        "img_size": list(image_size(options.img_size)),
        "patch_size": options.patch_size,
        "in_chans": options.in_chans,
        "stages": [stage.as_dict() for stage in stages],
        "focal_pool": options.focal_pool if pooled else None,
        "use_conv_embed": options.use_conv_embed,
        "layerscale": options.layerscale_value if options.use_layerscale else None,
        "use_pre_norm": options.use_pre_norm and options.downsample == "conv" and len(stages) > 1,
        "downsample": options.downsample if len(stages) > 1 else None,
        "border": options.border if any(_border_matters(stage) for stage in stages) else None,
        "mlp_ratio": options.mlp_ratio,
        "qkv_bias": options.qkv_bias,
        "drop_path_rate": options.drop_path_rate,
        "attention": options.attention,
    }
    # newer options are included only where they are used, so that older runs keep their IDs
    if pooled and options.coarse_bias == "window":
        found["coarse_bias"] = "window"
    if pooled and (options.focal_pool, options.pool_init) == ("fc", "mean"):
        found["pool_init"] = "mean"
    return found


def _border_matters(stage: StageConfig) -> bool:
    """Whether wrap and mask differ at this size: something beyond the map is seen, or pooled differently.

    Pooled cells beyond the map are hidden by both, and so is what a rolled window alone would see.
    """
    uneven = any(
        (level.cells[0] * level.pool_size[0], level.cells[1] * level.pool_size[1]) != stage.window
        for level in stage.levels
    )
    rolls_levels = any(stage.shift) and len(stage.levels) > 0
    return stage.canvas_size != stage.map_size or any(stage.expand) or rolls_levels or uneven


def image_size(img_size: int | Sequence[int]) -> Size:
    """(height, width) in pixels.

    Raises:
        ValueError: not one or two positive integers.
    """
    if isinstance(img_size, Sequence) and not isinstance(img_size, str) and len(img_size) != 2:
        raise ValueError(f"img_size: {list(img_size)} is neither one size nor height and width")
    sizes = _integers("img_size", img_size, 2, least=1)
    return sizes[0], sizes[1]


def per_stage(name: str, value: Any, stages: int) -> tuple[Any, ...]:
    """A scalar for every stage, or one value a stage.

    Raises:
        ValueError: a list of another length.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,) * stages
    if len(value) != stages:
        raise ValueError(f"{name}: {list(value)} has {len(value)} values for {stages} stages")
    return tuple(value)


def _resolve_stage(
    stage: int, given: Mapping[str, Any], map_size: Size, options: FocalOptions
) -> StageConfig:
    """One stage, counted from 1; `given` are its values of the options per stage."""
    dim, depth, heads = options.embed_dim * 2 ** (stage - 1), given["depths"], given["num_heads"]
    window_size, expand_size, region = given["window_size"], given["expand_sizes"], given["focal_windows"]
    coarse_count, pool_sizes = given["focal_levels"] - 1, given["pool_sizes"]
    if dim % heads:
        raise ValueError(f"num_heads: {heads} heads do not divide the width {dim} of stage {stage}")
    if expand_size > window_size:
        raise ValueError(
            f"expand_sizes: {expand_size} is larger than the window {window_size} of stage {stage}"
        )
    if coarse_count and region % 2 == 0:
        raise ValueError(f"focal_windows: {region} is even in stage {stage}; a region must be odd")
    notes = []
    height, width = map_size
    window = (min(window_size, height), min(window_size, width))
    inside = (window[0] < height, window[1] < width)
    expand = (expand_size * inside[0], expand_size * inside[1])
    shifts = given["use_shift"] and depth > 1
    shift = (window[0] // 2 * inside[0], window[1] // 2 * inside[1]) if shifts else (0, 0)
    if min(window) < window_size:
        notes.append(f"window {window_size} becomes the {height} x {width} map")
    if expand_size and not all(expand):
        notes.append("expansion is off: the window covers the map")
    if given["use_shift"] and not all(shift):
        why = "the window is one token" if all(inside) else "the window covers the map"
        notes.append(f"shift is off: {'the stage has one block' if depth == 1 else why}")
    canvas = (-(-height // window[0]) * window[0], -(-width // window[1]) * window[1])
    if canvas != map_size:
        notes.append(f"map {height} x {width} is padded to {canvas[0]} x {canvas[1]}")
    levels = coarse_levels(stage, window, coarse_count, region, pool_sizes)
    if options.level_overlap == "exclude":
        levels, dropped = exclude_overlap(window, expand, levels)
        notes += [f"the level of pool size {size[0]} is off: finer levels see all of it" for size in dropped]
    for wanted in sorted({size for size in pool_sizes or () if coarse_count and size > min(window)}):
        notes.append(f"pool size {wanted} is cut to the window {window[0]} x {window[1]}")
    return StageConfig(
        stage, dim, depth, heads, map_size, canvas, window, expand, shift, levels, tuple(notes)
    )


def _check_choices(options: FocalOptions) -> None:
    for name, allowed in _CHOICES.items():
        if getattr(options, name) not in allowed:
            raise ValueError(f"{name}: {getattr(options, name)!r} is unknown (use {one_of(allowed)})")
    for name in ("embed_dim", "patch_size", "in_chans"):
        _integers(name, (getattr(options, name),), None, least=1)
    for name in ("use_shift", "use_conv_embed", "use_layerscale", "use_pre_norm", "qkv_bias"):
        value = getattr(options, name)
        for entry in value if name == "use_shift" and isinstance(value, list | tuple) else (value,):
            if not isinstance(entry, bool):
                raise ValueError(f"{name}: {entry!r} is neither true nor false")
    for name in ("mlp_ratio", "layerscale_value"):
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{name}: {value!r} is not a number above 0")
    if options.use_conv_embed and options.patch_size not in (2, 4):
        raise ValueError(f"use_conv_embed: needs patch_size 2 or 4, not {options.patch_size}")
    rate = options.drop_path_rate
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"drop_path_rate: {rate!r} is not in [0, 1)")


def _integers(name: str, value: Any, count: int | None, least: int) -> tuple[int, ...]:
    """`count` integers (any number for None), each at least `least`; a scalar stands for all."""
    if count is None and not isinstance(value, Sequence):
        raise ValueError(f"{name}: {value!r} is not a list of integers")
    values = tuple(value) if count is None else per_stage(name, value, count)
    if not values:
        raise ValueError(f"{name}: is empty")
    for entry in values:
        if isinstance(entry, bool) or not isinstance(entry, int) or entry < least:
            raise ValueError(f"{name}: {entry!r} is not an integer of at least {least}")
    return values
