"""Base class of the embedded data sets: options, loaders and the state of the shuffling."""

import os
import zlib
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from focal_lab.data.classification.samplers import EvaluationSampler
from focal_lab.data.digits.mnist5k import NUM_CLASSES, Split, source_digits
from focal_lab.data.loading.loader import make_loader
from focal_lab.data.option_checks import check, check_least, check_seeds
from focal_lab.data.option_names import RENAMED, current_options

# Validation and test images do not depend on the run's seed: all runs are evaluated on the same ones.
EVALUATION_SEED = 0

# options that say how many images there are and how they are batched, not what is drawn on them
_NOT_DRAWN = {
    *("num_train_images", "num_val_images", "num_test_images", "batch_size", "num_workers"),
    *("seed", "data_seed", "order_seed"),
    *("persistent_workers", "pin_memory", "prefetch_factor"),
}


class _AcceptsOldNames(ABCMeta):
    """Lets options be given under their old names."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return super().__call__(*args, **current_options(options, f"{cls.__module__}.{cls.__qualname__}"))


class EmbeddedData(LightningDataModule, metaclass=_AcceptsOldNames):
    """Images of handwritten digits, composed from a seed without any file.

    A subclass saves its options as hyperparameters, `num_train_images`, `num_val_images`, `num_test_images`,
    `batch_size`, `num_workers` and `seed` among them, `data_seed` and `order_seed` if it has them, and then
    calls `begin`.

    Attributes:
        order_seed: of everything random in training but the images; None for the seed of the run.
    """

    num_classes = NUM_CLASSES
    channels = 3
    class_names = tuple(str(digit) for digit in range(NUM_CLASSES))
    # Whether the data set understands NOTHING. If not, Lightning repeats images to give each process as many,
    # which is right only where the task counts images once, by their `image_id`.
    fills_up = False
    # the loaders' `collate_fn`; worker processes may have to pickle it
    collate: ClassVar[Any]

    def begin(self) -> None:
        """Check the options that all embedded data sets have.

        Raises UserError if an option is out of range.
        """
        options = self.hparams
        counts = ("num_train_images", "num_val_images", "num_test_images", "batch_size")
        check_least(options, dict.fromkeys(counts, 1) | {"num_workers": 0})
        check_seeds(options, "seed", "data_seed", "order_seed")
        check(
            "num_train_images",
            options["num_train_images"],
            options["num_train_images"] >= options["batch_size"],
            f"use batch_size, {options['batch_size']}, or more",
        )
        self.batch_size, self.num_workers = options["batch_size"], options["num_workers"]
        seed = options["seed"]
        # where Lightning's seed_everything leaves its seed
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        images, self.order_seed = options.get("data_seed"), options.get("order_seed")
        self._image_seed = self.seed if images is None else images
        self._shuffle_seed = self.seed if self.order_seed is None else self.order_seed
        self._made: dict[Split, Dataset[Any]] = {}
        self._shuffle: torch.Generator | None = None

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, **options: Any
    ) -> Self:
        """Like Lightning's, which would ignore the old names of options in an older checkpoint."""
        saved = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
        saved = saved.get(cls.CHECKPOINT_HYPER_PARAMS_KEY, {})
        own = signature(cls.__init__).parameters  # a subclass may have an option of such a name
        renamed = {
            RENAMED[name]: value for name, value in saved.items() if name in RENAMED and name not in own
        }
        made: Self = super().load_from_checkpoint(
            checkpoint_path, **renamed | current_options(options, f"{cls.__module__}.{cls.__qualname__}")
        )
        return made

    @abstractmethod
    def make(self, split: Split, seed: int, count: int) -> Dataset[Any]:
        """The first `count` images of a split."""

    def dataset(self, split: Split) -> Dataset[Any]:
        """The images of a split, made at the first call."""
        if split not in self._made:
            seed = self._image_seed if split == "train" else EVALUATION_SEED
            self._made[split] = self.make(split, seed, self.hparams[f"num_{split}_images"])
        return self._made[split]

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches."""
        return self._loader("train", shuffle=True, drop_last=True, generator=self._generator())

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation images in order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """All test images in order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """All test images in order."""
        return self._loader("test")

    def test_images(self) -> Iterator[tuple[str, str]]:
        """Name and label of each test image; the name tells the digits and how they are drawn."""
        # LightningCLI adds options with a leading underscore: how it made the object
        drawn = {
            key: value
            for key, value in self.hparams.items()
            if key not in _NOT_DRAWN and not key.startswith("_")
        }
        source = f"{zlib.crc32(source_digits('test').images.tobytes()):08x}"
        known = getattr(self.dataset("test"), "labels", None)  # scenes would have to be composed first
        labels = [""] * self.hparams["num_test_images"] if known is None else known.tolist()
        for index, label in enumerate(labels):
            yield f"{source} {sorted(drawn.items())} {index}", str(label)

    def state_dict(self) -> dict[str, Any]:
        """The shuffling's state: a resumed run sees the order that it would have seen."""
        return {"shuffle": self._generator().get_state(), "seed": self._shuffle_seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the shuffling, unless the checkpoint is of another seed."""
        if state_dict.get("seed", self._shuffle_seed) == self._shuffle_seed:
            self._generator().set_state(state_dict["shuffle"])

    def _generator(self) -> torch.Generator:
        # made lazily: a data module that holds a generator cannot be sent to spawned processes
        if self._shuffle is None:
            self._shuffle = torch.Generator().manual_seed(self._shuffle_seed)
        return self._shuffle

    def _evaluation_loader(self, split: Split) -> DataLoader[Any]:
        if not self.fills_up or self.trainer is None or self.trainer.world_size == 1:
            return self._loader(split)
        count, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = EvaluationSampler(self.dataset(split), num_replicas=count, rank=rank)
        return self._loader(split, sampler=sampler)

    def _loader(self, split: Split, **options: Any) -> DataLoader[Any]:
        options["batch_size"] = self.batch_size
        return make_loader(self.dataset(split), self.trainer, self.num_workers, self.collate, **options)
