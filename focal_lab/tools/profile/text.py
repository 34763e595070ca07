"""The tables of `focal-lab profile`: one row per model, then one row per stage of the focal ones."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from focal_lab.report.formats.grid import Strip
from focal_lab.report.formats.terminal import note_text, strips_text

if TYPE_CHECKING:
    from focal_lab.tools.profile.counts import CountedModel

_NONE = "-"
_COUNTED = (
    "GMACs: billions of multiply-accumulates per image, attention included. Activations: outputs of "
    "convolutions, linear layers and attention products."
)
_COUNTED_HEADS = {
    "detection": "backbone, pyramid and heads, the box head on 1,000 regions and the mask head on 100",
    "segmentation": "backbone, decoder and classifier; the auxiliary head counts among the parameters only",
}
_RELEASED = (
    "Released: parameters as the released code counts them, which stores the position biases of doubled ring "
    "keys twice."
)
_SEEN = (
    "Sees: height x width, in input pixels, of what one window sees in one block, cut to the image: the "
    "tokens of the window and its ring (fine), the tokens behind its pooled ones (coarse). In the column "
    "Pooled, 3x3 of 7x7 means a region of 3x3 pooled tokens that each summarize 7x7 tokens."
)
_TRAINING = "Training: forward and backward pass, gradients included, without an optimizer."


def profile_text(models: Sequence["CountedModel"], *, terminal: bool) -> str:
    """The tables and what their numbers mean."""
    first = models[0].profile
    doubled = any(_released(model.profile) != _NONE for model in models)
    settings = [f"{name}={value}" for name, value in first["options"].items()]
    notes = [f"Set: {', '.join(settings)}."] if settings else []
    notes += [_COUNTED, *([_RELEASED] if doubled else [])]
    tables = [_models(models, doubled)]
    focal = [model for model in models if model.profile["stages"]]
    if focal:
        tables.append(_stages(focal))
        notes.append(_SEEN)
    if first["device"]:
        threads = f", {first['threads']} thread{'s' * (first['threads'] > 1)}"
        notes.append(
            f"Images/s: float32 inference in batches of {first['batch_size']} on {first['device']}"
            f"{threads if first['device'] == 'cpu' else ''}; median of "
            f"{len(first['images_per_second_rounds'])} rounds in which the models take turns. Memory: "
            "peak of a pass in its own process, beyond weights and images."
        )
        notes += [_TRAINING] if first["training"] else []
    for model in focal:
        notes += _stage_notes(model)
    return _text(tables, notes, terminal)


def heads_text(counted: Sequence[dict[str, Any]], *, terminal: bool) -> str:
    """The table of backbones with heads of one task, and what its numbers mean."""
    first = counted[0]
    head = "method" if first["task"] == "detection" else "decoder"
    released = [one["released_params"] for one in counted]
    table = {
        "Backbone": [one["name"] for one in counted],
        head.capitalize(): [one[head] for one in counted],
        "Params (M)": [f"{one['params'] / 1e6:.2f}" for one in counted],
        "Released (M)": [_NONE if params is None else f"{params / 1e6:.2f}" for params in released],
        "GMACs": [f"{one['gmacs']:.1f}" for one in counted],
    }
    height, width = first["image_size"]
    notes = [
        f"{height} x {width} px, {first['num_classes']} classes. GMACs: {_COUNTED_HEADS[first['task']]}."
    ]
    regions = [one["options"]["focal_windows"] for one in counted if one["released_params"] is not None]
    if regions:
        notes += [f"Focal backbones have focal_windows={regions[0]}.", _RELEASED]
    return _text([table], notes, terminal, labels=2)


def _text(
    tables: Sequence[Mapping[str, Sequence[str]]], notes: Sequence[str], terminal: bool, labels: int = 1
) -> str:
    """Tables, of which the first columns are labels, and notes."""
    width = shutil.get_terminal_size((100, 24)).columns if terminal else None
    parts = []
    for table in tables:
        columns = [
            Strip(heading, tuple(cells), "label" if i < labels else "measured")
            for i, (heading, cells) in enumerate(table.items())
        ]
        parts.append(strips_text(columns, width, color=terminal))
    return "\n".join(parts) + note_text(notes, width)


def _models(models: Sequence["CountedModel"], doubled: bool) -> dict[str, list[str]]:
    profiles = [model.profile for model in models]
    released = {"Released (M)": [_released(profile) for profile in profiles]} if doubled else {}
    return {
        "Model": [model.label for model in models],
        "Pixels": [_size(profile["image_size"]) for profile in profiles],
        "Params (M)": [_significant(profile["params"] / 1e6, 2) for profile in profiles],
        **released,
        "GMACs": [_significant(profile["gmacs"], 3) for profile in profiles],
        "Activations (M)": [_significant(profile["activations"] / 1e6, 2) for profile in profiles],
        **(_measured("", profiles) if profiles[0]["device"] else {}),
        **(
            _measured("Training ", [profile["training"] for profile in profiles])
            if profiles[0]["training"]
            else {}
        ),
    }


def _measured(prefix: str, measured: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    peaks = [entry["peak_memory_bytes"] for entry in measured]
    ratios = {f"{prefix}vs first": [f"{entry['relative_speed']:.2f}x" for entry in measured]}
    return {
        f"{prefix}images/s": [f"{entry['images_per_second']:.4g}" for entry in measured],
        **(ratios if len(measured) > 1 else {}),
        f"{prefix}memory (MB)": [_NONE if peak is None else f"{peak / 1e6:.1f}" for peak in peaks],
    }


def _released(profile: Mapping[str, Any]) -> str:
    """The released code's number of parameters if it counts another one."""
    params = profile["released_params"]
    return _NONE if params in (None, profile["params"]) else _significant(params / 1e6, 2)


def _stages(models: Sequence["CountedModel"]) -> dict[str, list[str]]:
    rows = [(model.label, stage) for model in models for stage in model.profile["stages"]]
    stages = [stage for _, stage in rows]
    return {
        "Model": [label if stage["stage"] == 1 else "" for label, stage in rows],
        "Stage": [str(stage["stage"]) for stage in stages],
        "Map": [_size(stage["map_size"]) for stage in stages],
        "Window": [_size(stage["window"]) for stage in stages],
        "Ring": [_tokens(stage["expand"]) for stage in stages],
        "Shift": [_tokens(stage["shift"]) for stage in stages],
        "Pooled": [
            _joined(f"{_size(level['region'])} of {_size(level['pool_size'])}" for level in stage["levels"])
            for stage in stages
        ],
        "Keys per window": [str(stage["keys_per_window"]) for stage in stages],
        "Sees fine": [_size(stage["receptive_field"]["fine"]) for stage in stages],
        "Sees coarse": [_joined(map(_size, stage["receptive_field"]["coarse"])) for stage in stages],
    }


def _stage_notes(model: "CountedModel") -> list[str]:
    """Options that were not honoured as written; stages with the same note share a line."""
    stages: dict[str, list[str]] = {}
    for stage in model.profile["stages"]:
        for note in stage["notes"]:
            stages.setdefault(note, []).append(str(stage["stage"]))
    return [
        f"{model.label}, stage{'s' * (len(where) > 1)} {', '.join(where)}: {note}"
        for note, where in stages.items()
    ]


def _significant(value: float, digits: int) -> str:
    """Fixed decimals, and more for models so small that these would show nothing."""
    return f"{value:.{digits}f}" if value >= 1 else f"{value:.3g}"


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def _tokens(size: Sequence[int]) -> str:
    """Tokens vertically and horizontally; one number if they are equal."""
    if not any(size):
        return _NONE
    return str(size[0]) if size[0] == size[1] else _size(size)


def _joined(words: Iterable[str]) -> str:
    return " + ".join(words) or _NONE
