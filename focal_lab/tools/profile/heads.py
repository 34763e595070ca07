"""`focal-lab profile --task detection|segmentation`: backbones with heads, by the papers' convention."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from focal_lab.backbones.counting import count_released_parameters
from focal_lab.backbones.options import Size
from focal_lab.errors import UserError
from focal_lab.report.formats.grid import Strip
from focal_lab.report.formats.terminal import note_text, strips_text
from focal_lab.tasks.backbone import is_focal, resolve_name
from focal_lab.tasks.base import Task
from focal_lab.tasks.detection.counting import PAPER_SIZE as DETECTED_SIZE
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.segmentation.task import PAPER_SIZE as SEGMENTED_SIZE
from focal_lab.tasks.segmentation.task import Segmentation

# The pooled regions of section 4.2, which the paper has for tasks with large pictures.
REGIONS = {"focal_windows": [15, 13, 9, 7]}


@dataclass(frozen=True)
class HeadTask:
    """How tables count a task.

    Attributes:
        task: its class.
        head: what its argument is called that chooses the head.
        classes: of the data that the tables are about.
        size: height and width of the counted picture.
        counted: what the operations are those of.
    """

    task: type[Task]
    head: str
    classes: int
    size: Size
    counted: str


# Tables 3 and 4 are about COCO, table 7 is about ADE20K.
HEAD_TASKS = {
    "detection": HeadTask(
        Detection,
        "method",
        80,
        DETECTED_SIZE,
        "GMACs: backbone, pyramid and heads, the box head on 1,000 regions and the mask head on 100.",
    ),
    "segmentation": HeadTask(
        Segmentation,
        "decoder",
        150,
        SEGMENTED_SIZE,
        "GMACs: backbone, decoder and classifier; the auxiliary head counts among the parameters only.",
    ),
}


@dataclass(frozen=True)
class HeadCounts:
    """A backbone with a head, counted for one picture.

    Attributes:
        task: detection or segmentation.
        name: the backbone's registered name.
        head: the detection method or the decoder.
        options: what was set on top of the backbone, the size aside.
        params: learned numbers, heads included.
        released_params: the same by the released code's bookkeeping, which stores doubled ring keys twice.
        gmacs: billions of multiply-accumulates.
    """

    task: str
    name: str
    head: str
    options: Mapping[str, Any]
    image_size: Size
    num_classes: int
    params: int
    released_params: int | None
    gmacs: float

    def as_dict(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        made = asdict(self)
        return {HEAD_TASKS[self.task].head if key == "head" else key: value for key, value in made.items()}


def count_heads(
    task: str, name: str, head: str, options: Mapping[str, Any], size: Size | None = None
) -> HeadCounts:
    """Count a backbone with a head by their names.

    Args:
        task: detection or segmentation.
        name: a timm model, or the short name of a focal one.
        head: `method` of detection, `decoder` of segmentation.
        options: keyword arguments of the backbone; a focal one has the paper's regions but for these.
        size: picture to count for, height and width; None for the paper's.

    Raises:
        UserError: no such backbone or head, or an option or size that it does not take.
    """
    try:
        full = resolve_name(name)
    except UserError as error:
        raise UserError(error.message) from error
    known = HEAD_TASKS[task]
    focal, size = is_focal(name), size or known.size
    options = (REGIONS if focal else {}) | dict(options)

    def build(backbone_options: Mapping[str, Any]) -> Task:
        chosen = {known.head: head, "backbone_options": backbone_options, "num_classes": known.classes}
        make: Callable[..., Task] = known.task
        return make(backbone=full, **chosen)

    with torch.device("meta"):
        try:
            model = build(options | {"img_size": list(size)})
        except UserError as error:
            # convolutional models have no such argument: they run at any size as they are
            if "'img_size'" not in str(error):
                raise UserError(error.message) from error
            model = build(options)
    params, gmacs = model.count(size)
    released = count_released_parameters(model.model) if focal else None
    return HeadCounts(task, full, head, options, size, known.classes, params, released, gmacs)


def heads_text(counted: Sequence[HeadCounts], *, terminal: bool) -> str:
    """A table for people.

    Args:
        counted: of one task, at least one.
        terminal: colour, and headings folded to the window; a pipe gets neither.
    """
    known = HEAD_TASKS[counted[0].task]
    columns = {
        "Backbone": [one.name for one in counted],
        known.head.capitalize(): [one.head for one in counted],
        "Params (M)": [f"{one.params / 1e6:.2f}" for one in counted],
        "Released (M)": [
            "-" if one.released_params is None else f"{one.released_params / 1e6:.2f}" for one in counted
        ],
        "GMACs": [f"{one.gmacs:.1f}" for one in counted],
    }
    strips = [
        Strip(heading, tuple(cells), "label" if i < 2 else "measured")
        for i, (heading, cells) in enumerate(columns.items())
    ]
    height, width = counted[0].image_size
    regions = next((one.options.get("focal_windows") for one in counted if is_focal(one.name)), None)
    notes = [f"{height} x {width} px, {counted[0].num_classes} classes. {known.counted}"]
    if regions is not None:
        notes.append(f"Focal backbones have focal_windows={regions}.")
        notes.append("Released: by the released code's bookkeeping, which stores doubled ring keys twice.")
    window = shutil.get_terminal_size((100, 24)).columns if terminal else None
    return strips_text(strips, window, color=terminal) + note_text(notes, window)
