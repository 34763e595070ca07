"""Counts backbones with detection and segmentation heads, by the papers' convention."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from focal_lab.backbones.counting import count_released_parameters
from focal_lab.backbones.options import Size
from focal_lab.tasks.backbone import is_focal
from focal_lab.tasks.base import Task
from focal_lab.tasks.detection.methods import PAPER_SIZE as DETECTION_SIZE
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.segmentation.task import PAPER_SIZE as SEGMENTATION_SIZE
from focal_lab.tasks.segmentation.task import Segmentation
from focal_lab.tools.profile.counts import build_for_size, full_name

# Section 4.2: pooled regions for tasks with large images.
REGIONS = {"focal_windows": [15, 13, 9, 7]}


class HeadTask(NamedTuple):
    """How the paper's tables count a task: `head` is the argument of `task` that selects the head."""

    task: type[Task]
    head: str
    num_classes: int
    size: Size
    counted: str


# Tables 3 and 4 are about COCO, table 7 is about ADE20K.
HEAD_TASKS = {
    "detection": HeadTask(
        Detection,
        "method",
        80,
        DETECTION_SIZE,
        "GMACs: backbone, pyramid and heads, the box head on 1,000 regions and the mask head on 100.",
    ),
    "segmentation": HeadTask(
        Segmentation,
        "decoder",
        150,
        SEGMENTATION_SIZE,
        "GMACs: backbone, decoder and classifier; the auxiliary head counts among the parameters only.",
    ),
}


def count_heads(
    task: str, name: str, head: str, options: Mapping[str, Any], size: Size | None = None
) -> dict[str, Any]:
    """Count a backbone with a head by their names; returns the object that `--json` prints.

    Args:
        task: detection or segmentation.
        name: a timm model, or the short name of a focal one.
        head: `method` of detection, `decoder` of segmentation.
        options: of the backbone; a focal one gets the paper's regions unless these say otherwise.
        size: height and width of the image; None for the paper's.

    Raises:
        UserError: an unknown backbone, head or option, or an invalid size.
    """
    full, known, focal = full_name(name), HEAD_TASKS[task], is_focal(name)
    options, size = (REGIONS if focal else {}) | dict(options), size or known.size
    chosen = {"backbone": full, known.head: head, "num_classes": known.num_classes}
    make: Any = known.task

    def build(backbone_options: dict[str, Any]) -> Task:
        task: Task = make(**chosen, backbone_options=backbone_options)
        return task

    model, _ = build_for_size(build, options, size)
    params, gmacs = model.count(size)
    return {
        "task": task,
        "name": full,
        known.head: head,
        "options": options,
        "image_size": list(size),
        "num_classes": known.num_classes,
        "params": params,
        "released_params": count_released_parameters(model.model) if focal else None,
        "gmacs": gmacs,
    }
