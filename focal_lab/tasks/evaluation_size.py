"""The size at which a network is evaluated, used by costs, export, dry run, inspection and checkpoints."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lightning import LightningDataModule
from PIL import Image
from torch import Tensor

from focal_lab.backbones.options import Size, image_size
from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.tasks.base import Task

_PROBE = (256, 256)  # any image shows the size that a transform produces


@dataclass(frozen=True)
class EvaluationSize:
    """The network's input for one image in evaluation.

    Attributes:
        size: height and width in px; with padding, and of one window where an image is cut into windows.
        source: "options" if the configuration gives it, "images" if it is that of most images, and "assumed"
            if neither is known: the papers' size, or the backbone's default.
    """

    size: Size
    source: Literal["options", "images", "assumed"]

    @property
    def known(self) -> bool:
        """Whether it comes from the configuration or the images."""
        return self.source != "assumed"


def evaluation_size(module: "Task", data: LightningDataModule | None) -> EvaluationSize:
    """The size at which a task evaluates data.

    The images' size is the output of the data's `eval_transform`, or its option `image_size`. Data whose
    images differ in size have a method `evaluation_image_sizes`; the most frequent network input counts. The
    task resizes, cuts windows and pads.

    `data` need not be set up, and is None if unknown. Data that not every network can be trained on has a
    method `check_network`, which is called with the task's model.

    Raises:
        UserError: the data refuses the network.
    """
    refuse: Callable[[Any], None] | None = getattr(data, "check_network", None)
    if refuse is not None:
        refuse(module.model)
    given = _given_size(data)
    if given is not None:
        return EvaluationSize(module.network_size(given), "options")
    look: Callable[[], Sequence[Size]] = getattr(data, "evaluation_image_sizes", list)
    sizes: Sequence[Size] = []
    with suppress(UserError):  # missing images are reported elsewhere
        sizes = look()
    if not sizes:
        return EvaluationSize(module.usual_size(), "assumed")
    ((size, _),) = Counter(module.network_size(size) for size in sizes).most_common(1)
    return EvaluationSize(size, "images")


def _given_size(data: LightningDataModule | None) -> Size | None:
    """The size of the task's images, if options determine it."""
    transform = getattr(data, "eval_transform", None)
    if transform is not None:
        with suppress(Exception):  # a user's own may not accept an image
            shown: Tensor = transform(Image.new("RGB", _PROBE))
            return shown.shape[-2], shown.shape[-1]
    if data is None or hasattr(data, "evaluation_image_sizes"):
        return getattr(data, "counted_image_size", None)
    size = data.hparams.get("image_size")
    return None if size is None else image_size(size)
