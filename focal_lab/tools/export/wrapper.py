"""The part of a trained task that other programs can run: one image tensor in, tensors out.

Shape suffixes: B batch, C channels, H W image, K classes, h w map of logits, A anchors or positions.
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
from focal_lab.tools.trained.load import TrainedTask

# Name of the graph's input, which programs that run exported files use.
INPUT = "pictures"
_ONE_STAGE = {
    "boxes": "corners (B, A, 4) in px of the image, of every anchor or position",
    "scores": "of every class (B, A, classes), 0 to 1, before threshold and non-maximum suppression",
}


@dataclass(frozen=True)
class Portable:
    """A network for other programs.

    Attributes:
        network: in evaluation mode, from normalized images (B, C, H, W) to one tensor, or several.
        size: H and W, px.
        channels: C.
        outputs: name and meaning of each output.
        thresholds: of the post-processing that is left to the reader, by torchvision's names.
    """

    network: nn.Module
    size: Size
    channels: int
    outputs: Mapping[str, str]
    thresholds: Mapping[str, Any] = field(default_factory=dict)

    def batch(self, count: int, seed: int = 0) -> Tensor:
        """Normal noise, (count, C, H, W)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.channels, *self.size, generator=generator)


def portable(trained: TrainedTask, size: Size | None) -> Portable:
    """The part of a task that is a single network.

    Args:
        trained: any of the three tasks.
        size: height and width of the input, px; None for the size used in evaluation.

    Raises:
        UserError: the task needs another size, or cannot be recorded.
    """
    module, channels = trained.module, trained.channels
    if isinstance(module, Segmentation):
        size = _checked(size, trained.size, module.model.features.divisor)
        outputs = {"logits": "logits (B, classes, H, W) of every pixel, resized to the input's size"}
        return Portable(_Segmenter(module.model, size).eval(), size, channels, outputs)
    if isinstance(module, Detection):
        detector: Any = module.model
        size = _checked(size, trained.size, detector.backbone.body.divisor)
        if isinstance(detector, RetinaNet | FCOS):
            names = ("score_thresh", "nms_thresh", "topk_candidates", "detections_per_img")
            thresholds = {name: getattr(detector, name) for name in names}
            dense = _OneStage(detector, size, channels).eval()
            return Portable(dense, size, channels, _ONE_STAGE, thresholds)
        raise UserError(
            f"{trained.options['method']} cannot be written as a graph: torch cannot record torchvision's "
            "non-maximum suppression, whose number of boxes is data-dependent (--to timm takes the backbone)",
            key="--to",
        )
    outputs = {"logits": "logits (B, classes); softmax gives probabilities"}
    return Portable(module.model, size or trained.size, channels, outputs)


class _Segmenter(nn.Module):
    """A segmentation of whole images of one size, without windows or scales."""

    def __init__(self, model: Segmenter, size: Size) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, images_BCHW: Tensor) -> Tensor:
        # no padding; the batch size must not become a constant of the graph
        self.model.features.extent.update([self.size], self.size)
        logits_BKhw = self.model(images_BCHW)
        return F.interpolate(logits_BKhw, self.size, mode="bilinear", align_corners=False)


class _OneStage(nn.Module):
    """Boxes and scores of all positions of a one-stage detector."""

    def __init__(self, detector: Any, size: Size, channels: int) -> None:
        super().__init__()
        self.backbone, self.head, self.coder = detector.backbone, detector.head, detector.box_coder
        self.extent, self.size = detector.transform.extent, size
        self.extent.update([size], size)
        like = next(detector.parameters())
        with torch.no_grad():
            image_1CHW = like.new_zeros(1, channels, *size)
            maps = list(self.backbone(image_1CHW).values())
            (anchors_A4,) = detector.anchor_generator(ImageList(image_1CHW, [size]), maps)
        self.register_buffer("anchors", anchors_A4, persistent=False)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        self.extent.update([self.size], self.size)
        heads = self.head(list(self.backbone(images_BCHW).values()))
        deltas_BA4, anchors_A4 = heads["bbox_regression"], self.get_buffer("anchors")
        deltas_N4 = deltas_BA4.flatten(0, 1)
        # not len(): torch.export would make the batch size a constant
        anchors_N4 = anchors_A4.expand(deltas_BA4.shape[0], -1, -1).flatten(0, 1)
        decode = getattr(self.coder, "decode_single", self.coder.decode)
        boxes_BA4 = decode(deltas_N4, anchors_N4).view_as(deltas_BA4)
        height, width = self.size
        corners = (boxes_BA4[..., 0::2].clamp(0, width), boxes_BA4[..., 1::2].clamp(0, height))
        boxes_BA4 = torch.stack(corners, -1).flatten(-2)
        scores_BAK = heads["cls_logits"].sigmoid()
        if "bbox_ctrness" in heads:
            scores_BAK = (scores_BAK * heads["bbox_ctrness"].sigmoid()).sqrt()
        return boxes_BA4, scores_BAK


def _checked(size: Size | None, default: Size, divisor: int) -> Size:
    """A size without padding, which other programs would not mask."""
    if size is None:
        return default
    height, width = (max(divisor, round(side / divisor) * divisor) for side in size)
    if size != (height, width):
        raise UserError(
            f"{size[0]} {size[1]} are not multiples of {divisor} (use {height} {width})", key="--image-size"
        )
    return size
