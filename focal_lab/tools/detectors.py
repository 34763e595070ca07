"""`focal-lab profile --task detection`: parameters and operations of detectors, by the papers' convention."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from focal_lab.backbones.counting import count_released_parameters
from focal_lab.backbones.options import Size
from focal_lab.errors import UserError
from focal_lab.tasks.backbone import is_focal, resolve_name
from focal_lab.tasks.detection import Detection

# What tables 3 and 4 are counted for: COCO's classes, height x width, the pooled regions of section 4.2.
CLASSES = 80
SIZE: Size = (800, 1280)
REGIONS = {"focal_windows": [15, 13, 9, 7]}


@dataclass(frozen=True)
class DetectorCounts:
    """A detector, counted for one picture.

    Attributes:
        name: the backbone's registered name.
        options: what was set on top of it, the size aside.
        params: learned numbers, heads included.
        released_params: the same by the released code's bookkeeping, which stores doubled ring keys twice.
        gmacs: billions of multiply-accumulates: backbone, pyramid and heads, the box head on 1,000 regions
            and the mask head on 100.
    """

    name: str
    method: str
    options: Mapping[str, Any]
    image_size: Size
    num_classes: int
    params: int
    released_params: int | None
    gmacs: float

    def as_dict(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {"task": "detection"} | asdict(self)


def count_detector(
    name: str, method: str, options: Mapping[str, Any], size: Size | None = None
) -> DetectorCounts:
    """Count a detector by the names of its method and backbone.

    Args:
        name: a timm model, or the short name of a focal one.
        method: as `focal_lab.tasks.detection.Detection` takes it.
        options: keyword arguments of the backbone; a focal one has the paper's regions but for these.
        size: picture to count for, height and width; None for the paper's 800 x 1280.

    Raises:
        UserError: no such backbone or method, or an option or size that it does not take.
    """
    try:
        full = resolve_name(name)
    except UserError as error:
        raise UserError(error.message) from error
    focal, size = is_focal(name), size or SIZE
    options = (REGIONS if focal else {}) | dict(options)
    with torch.device("meta"):
        try:
            task = Detection(method, full, options | {"img_size": list(size)}, num_classes=CLASSES)
        except UserError as error:
            # convolutional models have no such argument: they run at any size as they are
            if "'img_size'" not in str(error):
                raise UserError(error.message) from error
            task = Detection(method, full, options, num_classes=CLASSES)
    params, gmacs = task.count(size)
    released = count_released_parameters(task.model) if focal else None
    return DetectorCounts(full, method, options, size, CLASSES, params, released, gmacs)


def detectors_text(counted: Sequence[DetectorCounts]) -> str:
    """A table for people."""
    rows = [("Backbone", "Method", "Params (M)", "Released code (M)", "GMACs")]
    for one in counted:
        released = "" if one.released_params is None else f"{one.released_params / 1e6:.2f}"
        rows.append((one.name, one.method, f"{one.params / 1e6:.2f}", released, f"{one.gmacs:.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    height, width = counted[0].image_size
    lines.append(
        f"{height} x {width} px, {counted[0].num_classes} classes; "
        "box head on 1,000 regions, mask head on 100"
    )
    return "\n".join(lines) + "\n"
