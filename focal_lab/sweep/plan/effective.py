"""The effective configuration of a focal backbone, stage by stage, as a plan prints it."""

from collections.abc import Sequence
from typing import Any

from focal_lab.backbones.options import OPTION_NAMES, FocalOptions, downsampled_size
from focal_lab.backbones.presets import preset_options
from focal_lab.sweep.plan.runs import Run


def effective_summary(run: Run, size: tuple[int, int] | None = None) -> dict[str, str]:
    """Each value stage by stage, such as `window: 7 7 4 2`; empty for other backbones.

    Args:
        size: height and width in px at which the data feed the network; None for the size it is made for.
    """
    stages = run.stages
    if stages is None:
        return {}
    maps = [stage["map_size"] for stage in stages] if size is None else _maps(run, size)
    columns = {
        "depth": [stage["depth"] for stage in stages],
        "map": maps,
        "window": [stage["window"] for stage in stages],
        "shift": [stage["shift"] for stage in stages],
        "expand": [stage["expand"] for stage in stages],
        "levels": [1 + len(stage["levels"]) for stage in stages],
        "keys": [stage["keys_per_window"] for stage in stages],
    }
    return {name: " ".join(map(_short, values)) for name, values in columns.items()}


def intended_size(run: Run) -> tuple[int, int] | None:
    """Height and width in px that a focal backbone is made for; None for other backbones."""
    if run.stages is None:
        return None
    size = _options_of(run).img_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _options_of(run: Run) -> FocalOptions:
    options = run.config["model"]["init_args"].get("backbone_options") or {}
    return preset_options(run.backbone, {name: options[name] for name in options if name in OPTION_NAMES})


def _maps(run: Run, size: tuple[int, int]) -> Sequence[list[int]]:
    """Height and width of each stage's map, in tokens."""
    options = _options_of(run)
    now = (-(-size[0] // options.patch_size), -(-size[1] // options.patch_size))
    maps = []
    for _ in run.stages or ():
        maps.append(list(now))
        now = downsampled_size(now, options)
    return maps


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return str(value[0]) if value[0] == value[1] else "x".join(map(str, value))
