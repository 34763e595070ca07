"""From a network's logits to a class for every pixel of the original image.

Whole images or overlapping windows, at one scale or several, mirrored or not, as ADE20K is evaluated
(Xiao et al. 2018, arXiv 1807.10221; the multi-scale test of Zhao et al. 2017, arXiv 1612.01105).

Shape suffixes: B batch, K classes, N windows, H W original image, h w map of logits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.backbones.options import Size
from focal_lab.tasks.optimizer import check_option
from focal_lab.tasks.segmentation.network import Segmenter

MODES = ("whole", "slide")
# Classes that are enlarged at a time: 150 of them at the size of a large image are gigabytes.
_CLASSES_AT_ONCE = 16
# Windows that go through the network at a time on a GPU; one occupies a CPU.
_WINDOWS_AT_ONCE = 4
_MULTIPLE = 32


@dataclass(frozen=True)
class Protocol:
    """The inputs from which an image's prediction is made.

    Attributes:
        mode: "whole", or "slide" for windows whose logits are averaged where they overlap.
        short_side: images are resized to it, keeping their proportions to within 16 px, so that both sides
            are multiples of 32; None for the original size.
        long_side: upper limit of the longer side after that.
        window: side of the square windows, px.
        step: from one window to the next, px; the last one ends with the image.
        scales: factors on `short_side` and `long_side`; the probabilities of several are averaged.
        flip: whether to evaluate mirrored images, too.

    Raises:
        UserError: a number out of range.
    """

    mode: str = "whole"
    short_side: int | None = 512
    long_side: int = 2048
    window: int = 512
    step: int = 340
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        least, scales = self.short_side or 1, list(self.scales)
        divisible = self.window >= _MULTIPLE and self.window % _MULTIPLE == 0
        check_option("evaluation", self.mode, self.mode in MODES, " or ".join(MODES))
        check_option("test_size", self.short_side, self.short_side != 0 and least >= 1, "1 or more")
        check_option("max_size", self.long_side, self.long_side >= least, f"test_size, {least}, or more")
        check_option("window", self.window, divisible, f"a multiple of {_MULTIPLE}")
        check_option("window_step", self.step, 1 <= self.step <= self.window, f"1 to window, {self.window}")
        check_option("scales", scales, bool(scales) and min(scales) > 0, "a list of positive factors")

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width that an image of height x width px is resized to."""
        if self.short_side is None and scale == 1.0:
            return height, width
        factor = scale
        if self.short_side is not None:
            factor *= min(self.short_side / min(height, width), self.long_side / max(height, width))
        rounded = (max(_MULTIPLE, round(side * factor / _MULTIPLE) * _MULTIPLE) for side in (height, width))
        return next(rounded), next(rounded)

    def input_size(self, frame: Size) -> Size:
        """The network's input for a padded image: all of it, or a window."""
        if self.mode == "whole":
            return frame
        return min(self.window, frame[0]), min(self.window, frame[1])


def segment(network: Segmenter, images_BCHW: Tensor, protocol: Protocol) -> Tensor:
    """The most likely class of every pixel, int64 (B, H, W).

    Args:
        network: in evaluation mode.
        images_BCHW: normalised images of one size.
        protocol: how to evaluate them.
    """
    size = (images_BCHW.shape[-2], images_BCHW.shape[-1])
    flips = (False, True) if protocol.flip else (False,)
    views = [(scale, mirrored) for scale in protocol.scales for mirrored in flips]
    if len(views) == 1:
        return _most_likely(_logits(network, images_BCHW, protocol, protocol.scales[0]), size)
    total_BKHW: Tensor | None = None
    for scale, mirrored in views:
        view_BCHW = images_BCHW.flip(-1) if mirrored else images_BCHW
        logits_BKhw = _logits(network, view_BCHW, protocol, scale)
        logits_BKhw = logits_BKhw.flip(-1) if mirrored else logits_BKhw
        if total_BKHW is None:
            total_BKHW = logits_BKhw.new_zeros(*logits_BKhw.shape[:2], *size)
        _add_probabilities(total_BKHW, logits_BKhw)
    assert total_BKHW is not None
    return total_BKHW.argmax(1)


def _logits(network: Segmenter, images_BCHW: Tensor, protocol: Protocol, scale: float) -> Tensor:
    """Logits (B, K, h, w) of resized images, in full precision."""
    size = protocol.size(images_BCHW.shape[-2], images_BCHW.shape[-1], scale)
    if size != (images_BCHW.shape[-2], images_BCHW.shape[-1]):
        images_BCHW = F.interpolate(images_BCHW, size, mode="bilinear", antialias=True)
    if protocol.mode == "whole":
        return network.logits(images_BCHW).float()
    return _slide(network, images_BCHW, protocol)


def _slide(network: Segmenter, images_BCHW: Tensor, protocol: Protocol) -> Tensor:
    """Mean logits (B, K, h, w) of all windows.

    They are averaged before they are enlarged, which takes a sixteenth of the memory and differs from the
    other order only within a few pixels of the windows' edges.
    """
    stride, extent = network.stride, network.features.extent
    height, width = images_BCHW.shape[-2:]
    framed_BCHW = network.framed(images_BCHW)
    frame = (framed_BCHW.shape[-2], framed_BCHW.shape[-1])
    rows, columns = protocol.input_size(frame)
    corners = [
        (top, left)
        for top in _starts(frame[0], rows, protocol.step, stride)
        for left in _starts(frame[1], columns, protocol.step, stride)
    ]
    total_BKhw: Tensor | None = None
    seen_hw = images_BCHW.new_zeros(frame[0] // stride, frame[1] // stride, dtype=torch.float32)
    at_once = 1 if images_BCHW.device.type == "cpu" else _WINDOWS_AT_ONCE
    group = max(1, at_once // len(images_BCHW))
    for chosen in (corners[first : first + group] for first in range(0, len(corners), group)):
        cut = [framed_BCHW[..., top : top + rows, left : left + columns] for top, left in chosen]
        inside = [(min(rows, height - top), min(columns, width - left)) for top, left in chosen]
        extent.update([size for size in inside for _ in range(len(images_BCHW))], (rows, columns))
        logits_NBKhw = network(torch.cat(cut)).float().unflatten(0, (len(chosen), -1))
        if total_BKhw is None:
            total_BKhw = logits_NBKhw.new_zeros(*logits_NBKhw.shape[1:3], *seen_hw.shape)
        for (top, left), logits_BKhw in zip(chosen, logits_NBKhw, strict=True):
            where = (
                slice(top // stride, (top + rows) // stride),
                slice(left // stride, (left + columns) // stride),
            )
            total_BKhw[(..., *where)] += logits_BKhw
            seen_hw[where] += 1
    assert total_BKhw is not None
    return (total_BKhw.div_(seen_hw))[..., : -(-height // stride), : -(-width // stride)]


def _starts(length: int, window: int, step: int, stride: int) -> list[int]:
    """Where windows begin: every step, rounded down to whole logits; the last one ends with the image."""
    step = max(stride, step // stride * stride)
    return [*range(0, length - window, step), length - window]


def _most_likely(logits_BKhw: Tensor, size: tuple[int, int]) -> Tensor:
    """The class with the highest enlarged logit, int64 (B, H, W), with the memory of a few classes."""
    best_BHW = logits_BKhw.new_full((len(logits_BKhw), *size), -torch.inf)
    label_BHW = torch.zeros_like(best_BHW, dtype=torch.int64)
    for first in range(0, logits_BKhw.shape[1], _CLASSES_AT_ONCE):
        value_BHW, index_BHW = _enlarge(logits_BKhw, first, size).max(1)
        better_BHW = value_BHW > best_BHW
        label_BHW = torch.where(better_BHW, index_BHW + first, label_BHW)
        best_BHW = torch.where(better_BHW, value_BHW, best_BHW)
    return label_BHW


def _add_probabilities(total_BKHW: Tensor, logits_BKhw: Tensor) -> None:
    """Add the softmax of the enlarged logits, a few classes at a time."""
    size = (total_BKHW.shape[-2], total_BKHW.shape[-1])
    classes = range(0, total_BKHW.shape[1], _CLASSES_AT_ONCE)
    sums = [_enlarge(logits_BKhw, first, size).logsumexp(1, keepdim=True) for first in classes]
    normaliser_B1HW = torch.cat(sums, 1).logsumexp(1, keepdim=True)
    for first in classes:
        part = total_BKHW[:, first : first + _CLASSES_AT_ONCE]
        part += (_enlarge(logits_BKhw, first, size) - normaliser_B1HW).exp_()


def _enlarge(logits_BKhw: Tensor, first: int, size: tuple[int, int]) -> Tensor:
    """Some of the classes at the original size."""
    part = logits_BKhw[:, first : first + _CLASSES_AT_ONCE]
    return F.interpolate(part, size, mode="bilinear", align_corners=False)
