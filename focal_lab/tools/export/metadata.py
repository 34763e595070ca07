"""What an exported file says about itself: where it is from, and what it wants of pictures."""

from typing import Any

from focal_lab._version import __version__
from focal_lab.tools.export.wrapper import Portable
from focal_lab.tools.trained.load import Trained

# What stands on the backbone, and how evaluation resizes images before a graph takes them.
_OF_HEADS = ("method", "decoder", "min_size", "max_size", "test_size", "evaluation", "window", "window_step")


def class_names(trained: Trained) -> list[str]:
    """Names of the classes by label; their numbers where they have no names."""
    return [trained.module.classes.name(label) for label in range(int(trained.options["num_classes"]))]


def metadata_of(trained: Trained, made: Portable, batch: int | None) -> dict[str, Any]:
    """All that a reader of the file needs, as plain values.

    Args:
        trained: the task.
        made: its network for other programs.
        batch: pictures that it takes at a time; None for any number.

    Raises:
        UserError: the data does not say what it does to pictures.
    """
    shown = trained.preprocessing()
    square = trained.task == "classification"
    told: dict[str, Any] = {
        "focal_lab": __version__,
        "task": trained.task,
        "backbone": str(trained.options["backbone"]),
        "backbone_options": trained.options.get("backbone_options") or {},
        "weights": trained.weights,
        "epoch": int(trained.state.get("epoch", 0)),
        "classes": class_names(trained),
        "category_ids": list(trained.module.classes.category_ids),
        "input_size": [made.channels, *made.size],
        "batch": "any" if batch is None else batch,
        "mean": list(shown.mean),
        "std": list(shown.std),
        "interpolation": shown.interpolation if square else "bilinear",
        "crop_pct": shown.crop_pct if square else 1.0,
        "outputs": dict(made.outputs),
    }
    told |= {name: trained.options[name] for name in _OF_HEADS if name in trained.options}
    return told | dict(made.reader)
