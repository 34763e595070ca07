"""What of a trained task other programs can run: one tensor of pictures in, tensors out.

Shape suffixes: B batch, C channels, H W picture, K classes, h w map of logits, A anchors or positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList

from focal_lab.backbones.options import Size
from focal_lab.errors import UserError
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.segmentation.network import Segmenter
from focal_lab.tasks.segmentation.task import Segmentation
from focal_lab.tools.trained.load import Trained

INPUT = "pictures"


@dataclass(frozen=True)
class Portable:
    """A network for other programs.

    Attributes:
        network: in evaluation mode, from normalised pictures (B, C, H, W) to one tensor, or several.
        size: H and W, px.
        channels: C.
        outputs: name of each output, and what it is.
        reader: numbers that whoever reads the outputs needs, such as thresholds.
    """

    network: nn.Module
    size: Size
    channels: int
    outputs: Mapping[str, str]
    reader: Mapping[str, Any] = field(default_factory=dict)

    def batch(self, count: int, seed: int = 0) -> Tensor:
        """Normal noise as pictures (count, C, H, W)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.channels, *self.size, generator=generator)


def portable(trained: Trained, size: Size | None) -> Portable:
    """The part of a task that is one network.

    Args:
        trained: any of the three tasks.
        size: height and width of the pictures that it is to take, px; None for those it was judged by.

    Raises:
        UserError: the task needs another size.
    """
    module, channels = trained.module, trained.channels
    if isinstance(module, Segmentation):
        divisor = module.model.features.divisor
        size = _checked(size, trained.size, divisor)
        told = "logits (B, classes, H, W) of every pixel, enlarged to the picture's size"
        return Portable(_Segmenter(module.model, size).eval(), size, channels, {"logits": told})
    if isinstance(module, Detection):
        detector: Any = module.model
        divisor = detector.backbone.body.divisor
        size = _checked(size, trained.size, divisor)
        if isinstance(detector, RetinaNet | FCOS):
            dense = _OneStage(detector, size, channels).eval()
            return Portable(dense, size, channels, _DENSE, _thresholds(detector))
        return Portable(_TwoStage(module, size).eval(), size, channels, _found(module))
    told = "logits (B, classes); softmax gives probabilities"
    return Portable(module.model, size or trained.size, channels, {"logits": told})


_DENSE = {
    "boxes": "corners (B, A, 4) in px of the picture, of every anchor or position",
    "scores": "of every class (B, A, classes), 0 to 1; threshold and non-maximum suppression are left to do",
}


def _found(module: Detection) -> dict[str, str]:
    made = {"boxes": "corners (N, 4), px", "labels": "classes (N,)", "scores": "(N,), 0 to 1"}
    return made | ({"masks": "(N, H, W)"} if module.masks else {})


def _thresholds(detector: Any) -> dict[str, Any]:
    """torchvision's own names of what its post-processing does."""
    names = ("score_thresh", "nms_thresh", "topk_candidates", "detections_per_img")
    return {name: getattr(detector, name) for name in names}


class _Segmenter(nn.Module):
    """One look at whole pictures of one size."""

    def __init__(self, model: Segmenter, size: Size) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, pictures_BCHW: Tensor) -> Tensor:
        # nothing of the frame is padding; the batch's size must not become a constant of the graph
        self.model.features.extent.update([self.size], self.size)
        logits_BKhw = self.model(pictures_BCHW)
        return F.interpolate(logits_BKhw, self.size, mode="bilinear", align_corners=False)


class _OneStage(nn.Module):
    """Boxes and scores of all positions of a detector without region proposals."""

    def __init__(self, detector: Any, size: Size, channels: int) -> None:
        super().__init__()
        self.backbone, self.head, self.coder = detector.backbone, detector.head, detector.box_coder
        self.extent, self.size = detector.transform.extent, size
        self.extent.update([size], size)
        like = next(detector.parameters())
        with torch.no_grad():
            picture_1CHW = like.new_zeros(1, channels, *size)
            maps = list(self.backbone(picture_1CHW).values())
            (anchors_A4,) = detector.anchor_generator(ImageList(picture_1CHW, [size]), maps)
        self.register_buffer("anchors", anchors_A4, persistent=False)

    def forward(self, pictures_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        self.extent.update([self.size], self.size)
        said = self.head(list(self.backbone(pictures_BCHW).values()))
        deltas_BA4, anchors_A4 = said["bbox_regression"], self.get_buffer("anchors")
        deltas_N4 = deltas_BA4.flatten(0, 1)
        # not len(): torch.export would make the batch's size a constant
        anchors_N4 = anchors_A4.expand(deltas_BA4.shape[0], -1, -1).flatten(0, 1)
        decode = getattr(self.coder, "decode_single", self.coder.decode)
        boxes_BA4 = decode(deltas_N4, anchors_N4).view_as(deltas_BA4)
        height, width = self.size
        corners = (boxes_BA4[..., 0::2].clamp(0, width), boxes_BA4[..., 1::2].clamp(0, height))
        boxes_BA4 = torch.stack(corners, -1).flatten(-2)
        scores_BAK = said["cls_logits"].sigmoid()
        if "bbox_ctrness" in said:
            scores_BAK = (scores_BAK * said["bbox_ctrness"].sigmoid()).sqrt()
        return boxes_BA4, scores_BAK


class _TwoStage(nn.Module):
    """A detector with region proposals, for one picture."""

    def __init__(self, module: Detection, size: Size) -> None:
        super().__init__()
        self.detector, self.size = module, size

    def forward(self, pictures_BCHW: Tensor) -> tuple[Tensor, ...]:
        (found,) = self.detector([pictures_BCHW[0]])
        return tuple(found.values())


def _rounded(size: Size, divisor: int) -> Size:
    height, width = (max(divisor, round(side / divisor) * divisor) for side in size)
    return height, width


def _checked(size: Size | None, default: Size, divisor: int) -> Size:
    """A frame without padding: what lies beyond a picture would reach it in other programs."""
    if size is not None and size != _rounded(size, divisor):
        height, width = _rounded(size, divisor)
        raise UserError(
            f"{size[0]} {size[1]} are no multiples of {divisor} (use {height} {width})", key="--image-size"
        )
    return size or default
