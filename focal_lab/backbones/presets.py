"""Every named backbone as its difference from Focal-Tiny (pure Python)."""

from collections.abc import Mapping
from typing import Any

from focal_lab.backbones.options import FocalOptions, make_options

# Swin is the focal backbone without focal levels: no ring, no pooled tokens, shifted windows, and the
# concatenating patch merging of Liu et al. 2021.
_SWIN: dict[str, Any] = {"focal_levels": 1, "expand_sizes": 0, "use_shift": True, "downsample": "merge"}
_SMALL: dict[str, Any] = {"depths": (2, 2, 18, 2)}
_BASE: dict[str, Any] = _SMALL | {"embed_dim": 128, "num_heads": (4, 8, 16, 32)}
# The paper's "196" is read as 192, the width of the Swin-Large weights that Focal-Large reuses.
_LARGE: dict[str, Any] = _SMALL | {"embed_dim": 192, "num_heads": (6, 12, 24, 48)}
# For the 28 px images of the digits suite: maps of 14, 7, 4 and 2 tokens. The border is masked because on a
# map of two windows per side every wrapped ring would contain the opposite edge of the image.
_MICRO: dict[str, Any] = {
    "img_size": 28,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 4, 8),
    "focal_windows": (3, 1, 1, 1),
    "border": "mask",
}
# For the grids of digits of the retrieval suite, 4 x 4 cells of 14 px: two stages without a global one, in
# which a window is a cell, 2 x 2 tokens and then 1. Pooled tokens are cells, too, and all are seen. Pooling
# starts as a mean, because few runs learn from the released noise.
_SHALLOW: dict[str, Any] = {
    "img_size": 56,
    "patch_size": 7,
    "embed_dim": 32,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": (2, 1),
    "focal_windows": 7,
    "expand_sizes": (1, 0),
    "pool_init": "mean",
    "border": "mask",
}
# The paper's geometry at 64 px: 64, 16, 4 and 1 windows in the stages, as at 224 px.
_MINI: dict[str, Any] = {
    "img_size": 64,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 4, 8),
    "window_size": 4,
    "expand_sizes": 2,
    "pool_init": "mean",
}

PRESETS: dict[str, dict[str, Any]] = {
    "focal_tiny_patch4_window7_224": {},
    "focal_small_patch4_window7_224": _SMALL,
    "focal_base_patch4_window7_224": _BASE,
    "focal_large_patch4_window7_224": _LARGE,
    "focal_conv_tiny_patch4_window7_224": {"use_conv_embed": True},
    "focal_conv_small_patch4_window7_224": _SMALL | {"use_conv_embed": True},
    "focal_conv_base_patch4_window7_224": _BASE | {"use_conv_embed": True},
    "focal_swin_tiny_patch4_window7_224": _SWIN,
    "focal_swin_small_patch4_window7_224": _SMALL | _SWIN,
    "focal_swin_base_patch4_window7_224": _BASE | _SWIN,
    "focal_micro_patch2_window7_28": _MICRO,
    "focal_swin_micro_patch2_window7_28": _MICRO | _SWIN,
    "focal_shallow_patch7_window2_56": _SHALLOW,
    "focal_swin_shallow_patch7_window2_56": _SHALLOW | _SWIN,
    "focal_mini_patch2_window4_64": _MINI,
    "focal_swin_mini_patch2_window4_64": _MINI | _SWIN,
}


def find_preset(name: str) -> str | None:
    """The full name of a preset, given that or the part before `_patch`; None if there is no such preset."""
    if name in PRESETS:
        return name
    matches = [full for full in PRESETS if full.startswith(f"{name}_patch")]
    return matches[0] if len(matches) == 1 else None


def preset_options(name: str, overrides: Mapping[str, Any] | None = None) -> FocalOptions:
    """The options of a preset with some of them changed.

    Raises:
        KeyError: no such preset.
        ValueError: an override is unknown or breaks a rule.
    """
    full = find_preset(name)
    if full is None:
        raise KeyError(name)
    return make_options(PRESETS[full] | dict(overrides or {}))
