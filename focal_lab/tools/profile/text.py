"""Profiles as tables for a terminal: one row a model, then one row a stage of the focal ones."""

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from focal_lab.report.formats.grid import Strip
from focal_lab.report.formats.terminal import note_text, strips_text

if TYPE_CHECKING:
    from focal_lab.tools.profile.command import Measured, Profile

_NONE = "-"
_COUNTED = (
    "GMACs: billions of multiply-accumulates of one picture, attention included. Activations: outputs of its "
    "convolutions, linear layers and attention products."
)
_RELEASED = (
    "Released: parameters by the released code's bookkeeping, which stores the position biases of doubled "
    "ring keys twice."
)
_SEEN = (
    "Sees: height x width, in pixels of the input, of what one window sees in one block, cut to the picture: "
    "its own and the ring's tokens (fine), the tokens behind its pooled ones (coarse). Pooled 7x7 of 4x4: a "
    "region of 7x7 pooled tokens, each of 4x4 tokens."
)


def profile_text(profiles: Sequence["Profile"], *, terminal: bool) -> str:
    """The tables and what their numbers mean.

    Args:
        profiles: models in the order of the rows.
        terminal: colour, and headings folded to the window; a pipe gets neither.
    """
    width = shutil.get_terminal_size((100, 24)).columns if terminal else None
    parts = [strips_text(_models(profiles), width, color=terminal)]
    settings = profiles[0].counts.options
    notes = [f"Set: {', '.join(f'{name}={value}' for name, value in settings.items())}."] if settings else []
    notes.append(_COUNTED)
    if any(_doubled(profile) for profile in profiles):
        notes.append(_RELEASED)
    focal = [profile for profile in profiles if profile.counts.stages]
    if focal:
        parts += ["\n", strips_text(_stages(focal), width, color=terminal)]
        notes.append(_SEEN)
    notes += _measuring(profiles[0])
    for profile in focal:
        notes += _given_way(profile)
    return "".join([*parts, note_text(notes, width)])


def _models(profiles: Sequence["Profile"]) -> list[Strip]:
    counts = [profile.counts for profile in profiles]
    strips = [
        _strip("Model", [profile.label for profile in profiles], "label"),
        _strip("Pixels", [_size(entry.image_size) for entry in counts]),
        _strip("Params (M)", [_significant(entry.params / 1e6, 2) for entry in counts]),
    ]
    if any(_doubled(profile) for profile in profiles):
        released = [
            _significant(profile.counts.released_params / 1e6, 2)
            if profile.counts.released_params and _doubled(profile)
            else _NONE
            for profile in profiles
        ]
        strips.append(_strip("Released (M)", released))
    strips += [
        _strip("GMACs", [_significant(entry.gmacs, 3) for entry in counts]),
        _strip("Activations (M)", [_significant(entry.activations / 1e6, 2) for entry in counts]),
    ]
    strips += _measured("", [profile.inference for profile in profiles])
    return strips + _measured("Training ", [profile.training for profile in profiles])


def _measured(what: str, measured: Sequence["Measured | None"]) -> list[Strip]:
    known = [entry for entry in measured if entry is not None]
    if not known:
        return []
    peaks = [entry.peak_memory_bytes for entry in known]
    strips = [_strip(f"{what}images/s", [f"{entry.speed.images_per_second:.4g}" for entry in known])]
    if len(known) > 1:
        strips.append(_strip("vs first", [f"{entry.speed.relative:.2f}x" for entry in known]))
    memory = [_NONE if peak is None else f"{peak / 1e6:.1f}" for peak in peaks]
    return [*strips, _strip(f"{what}memory (MB)", memory)]


def _stages(profiles: Sequence["Profile"]) -> list[Strip]:
    rows = [
        (profile.label if stage["stage"] == 1 else "", stage)
        for profile in profiles
        for stage in profile.counts.stages or ()
    ]
    stages = [stage for _, stage in rows]
    return [
        _strip("Model", [label for label, _ in rows], "label"),
        _strip("Stage", [str(stage["stage"]) for stage in stages]),
        _strip("Map", [_size(stage["map_size"]) for stage in stages]),
        _strip("Window", [_size(stage["window"]) for stage in stages]),
        _strip("Ring", [_amount(stage["expand"]) for stage in stages]),
        _strip("Shift", [_amount(stage["shift"]) for stage in stages]),
        _strip("Pooled", [_levels(stage) for stage in stages]),
        _strip("Keys per window", [str(stage["keys_per_window"]) for stage in stages]),
        _strip("Sees fine", [_size(stage["receptive_field"]["fine"]) for stage in stages]),
        _strip("Sees coarse", [_joined(map(_size, stage["receptive_field"]["coarse"])) for stage in stages]),
    ]


def _levels(stage: dict[str, Any]) -> str:
    return _joined(f"{_size(level['region'])} of {_size(level['pool_size'])}" for level in stage["levels"])


def _measuring(profile: "Profile") -> list[str]:
    machine = profile.machine
    if machine is None:
        return []
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    where = f"{machine.device}, {threads}" if machine.device == "cpu" else machine.device
    lines = [
        f"Images/s: float32 inference in batches of {machine.batch_size} on {where}; median of "
        f"{machine.rounds} rounds in which the models take turns. Memory: peak of a pass in a process of its "
        "own, beyond weights and pictures."
    ]
    if profile.training:
        lines.append("Training: forward and backward pass, gradients included, without an optimizer.")
    return lines


def _given_way(profile: "Profile") -> list[str]:
    """Where an option was not honoured as written: stages that share a note share a line."""
    stages: dict[str, list[str]] = {}
    for stage in profile.counts.stages or ():
        for note in stage["notes"]:
            stages.setdefault(note, []).append(str(stage["stage"]))
    return [
        f"{profile.label}, stage{'s' * (len(where) > 1)} {', '.join(where)}: {note}"
        for note, where in stages.items()
    ]


def _doubled(profile: "Profile") -> bool:
    """Whether the released code's bookkeeping comes to another number."""
    return profile.counts.released_params not in (None, profile.counts.params)


def _significant(value: float, digits: int) -> str:
    """Fixed decimals, and more for models so small that these would show nothing."""
    return f"{value:.{digits}f}" if value >= 1 else f"{value:.3g}"


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def _amount(size: Sequence[int]) -> str:
    """Tokens up and down, and sideways: one number where they are equal."""
    if not any(size):
        return _NONE
    return str(size[0]) if size[0] == size[1] else _size(size)


def _joined(words: Any) -> str:
    return " + ".join(words) or _NONE


def _strip(heading: str, cells: Sequence[str], kind: Literal["label", "measured"] = "measured") -> Strip:
    return Strip(heading, tuple(cells), kind)
