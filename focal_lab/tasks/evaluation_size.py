"""The size at which a network is evaluated: what costs, export, dry run, inspection and checkpoints go by."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lightning import LightningDataModule
from PIL import Image
from torch import Tensor

from focal_lab.backbones.options import Size, image_size
from focal_lab.errors import UserError

if TYPE_CHECKING:
    from focal_lab.tasks.base import Task

Source = Literal["options", "images", "assumed"]
# Any image does to see what a transform makes of it.
_PROBE = (256, 256)


@dataclass(frozen=True)
class EvaluationSize:
    """What an evaluation feeds to the network for one image.

    Attributes:
        size: height and width in px; with padding, and of one window where an image is cut into windows.
        source: "options" where the configuration says it, "images" where it is that of most images, and
            "assumed" where neither is known: the papers' size, or the one that the backbone is made for.
    """

    size: Size
    source: Source

    @property
    def known(self) -> bool:
        """Whether anything says so."""
        return self.source != "assumed"


def evaluation_size(module: "Task", data: LightningDataModule | None) -> EvaluationSize:
    """At what size a task evaluates data.

    The task makes the network's input of an image: it resizes, cuts out windows, and pads. The images' size
    is what the data's `eval_transform` makes of any, or its option `image_size`. Data whose images have sizes
    of their own have a method `evaluation_image_sizes`; the input that most of them become counts.

    Args:
        module: the task; its weights do not matter.
        data: what it is evaluated on, not necessarily set up; None if nobody knows.
    """
    said = _said_by(data)
    if said is not None:
        return EvaluationSize(module.network_size(said), "options")
    sizes = _image_sizes(data)
    if not sizes:
        return EvaluationSize(module.usual_size(), "assumed")
    # of equally frequent ones the first
    ((size, _),) = Counter(module.network_size(size) for size in sizes).most_common(1)
    return EvaluationSize(size, "images")


def _said_by(data: LightningDataModule | None) -> Size | None:
    """The size of the images that the task gets, as far as options decide it."""
    transform = getattr(data, "eval_transform", None)
    if transform is not None:
        with suppress(Exception):  # a user's own may take something else than an image
            shown: Tensor = transform(Image.new("RGB", _PROBE))
            return shown.shape[-2], shown.shape[-1]
    if data is None or hasattr(data, "evaluation_image_sizes"):
        return getattr(data, "counted_image_size", None)
    size = data.hparams.get("image_size")
    return None if size is None else image_size(size)


def _image_sizes(data: LightningDataModule | None) -> Sequence[Size]:
    """The sizes of the images themselves; none where they are not there, which others complain of."""
    look: Callable[[], Sequence[Size]] = getattr(data, "evaluation_image_sizes", list)
    try:
        return look()
    except UserError:
        return []
