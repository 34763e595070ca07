"""What the embedded data sets share: pictures that are composed from a seed, without any file."""

import os
import zlib
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from focal_lab.data.classification.samplers import EvaluationSampler
from focal_lab.data.digits.mnist5k import NUM_CLASSES, Split, source_digits
from focal_lab.data.option_checks import check, check_least
from focal_lab.data.option_names import RENAMED, current_options

# Validation and test pictures do not depend on the run's seed: all runs are judged by the same ones.
_EVALUATION_SEED = 0

# options that say how many pictures there are and how they are batched, not what is on them
_NOT_DRAWN = {
    *("num_train_images", "num_val_images", "num_test_images", "batch_size", "num_workers", "seed"),
    *("persistent_workers", "pin_memory", "prefetch_factor"),
}

D = TypeVar("D", bound=Dataset[Any])


class _AcceptsOldNames(ABCMeta):
    """Classes whose options may be given under their old names."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return super().__call__(*args, **current_options(options))


class EmbeddedData(LightningDataModule, Generic[D], metaclass=_AcceptsOldNames):
    """Pictures of handwritten digits: how many there are, in which order they come, how they are batched.

    A data set saves its options as hyperparameters, `num_train_images`, `num_val_images`, `num_test_images`,
    `batch_size`, `num_workers` and `seed` among them, and then calls `begin`.
    """

    num_classes = NUM_CLASSES
    channels = 3
    class_names = tuple(str(digit) for digit in range(NUM_CLASSES))
    # whether the data set knows NOTHING; without it Lightning repeats pictures to give each process as many,
    # which is right only where the task counts pictures once, by their `image_id`
    fills_up = False

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **options: Any) -> Self:
        """Lightning's, which by itself ignores the options that an older checkpoint names otherwise."""
        state = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
        noted = state.get(cls.CHECKPOINT_HYPER_PARAMS_KEY, {})
        old = {RENAMED[name]: value for name, value in noted.items() if name in RENAMED}
        made: Self = super().load_from_checkpoint(checkpoint_path, **{**old, **options})
        return made

    def begin(self) -> None:
        """Check the options that all embedded data sets have.

        Raises:
            UserError: one is out of range.
        """
        options = self.hparams
        check_least(
            options,
            dict.fromkeys(("num_train_images", "num_val_images", "num_test_images", "batch_size"), 1)
            | {"num_workers": 0, "seed": 0},
        )
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
        self._made: dict[Split, D] = {}
        self._shuffle: torch.Generator | None = None

    @abstractmethod
    def make(self, split: Split, seed: int, count: int) -> D:
        """The first `count` pictures of a split."""

    @abstractmethod
    def collate_fn(self, split: Split) -> Callable[[Any], Any]:
        """What makes a batch of items; worker processes may have to pickle it."""

    def pictures(self, split: Split) -> D:
        """The pictures of a split, made at the first call."""
        if split not in self._made:
            seed = self.seed if split == "train" else _EVALUATION_SEED
            self._made[split] = self.make(split, seed, self.hparams[f"num_{split}_images"])
        return self._made[split]

    def setup(self, stage: str) -> None:
        """Make the pictures that a stage needs, unless they are there already."""
        needed: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"]}
        for split in needed.get(stage, ["test"]):
            self.pictures(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches."""
        return self._loader("train", shuffle=True, drop_last=True, generator=self._generator())

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation pictures in order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """All test pictures in order."""
        return self._evaluation_loader("test")

    def test_images(self) -> Iterator[tuple[str, str]]:
        """Number and label of each test image; they follow from the digits and from how they are drawn."""
        digits = source_digits("test")
        # LightningCLI adds what begins with a line: how it has made the object
        drawn = {
            key: value
            for key, value in self.hparams.items()
            if key not in _NOT_DRAWN and not key.startswith("_")
        }
        source = f"{zlib.crc32(digits.images.tobytes()):08x}"
        known = getattr(self.pictures("test"), "labels", None)  # of scenes they would have to be composed
        labels = [""] * self.hparams["num_test_images"] if known is None else known.tolist()
        for index, label in enumerate(labels):
            yield f"{source} {sorted(drawn.items())} {index}", str(label)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test pictures."""
        return self._loader("test")

    def state_dict(self) -> dict[str, Any]:
        """The shuffling's state: a run resumed at an epoch sees the order it would have seen."""
        return {"shuffle": self._generator().get_state(), "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the shuffling where a checkpoint left it; another seed's order is not this one's."""
        if state_dict.get("seed", self.seed) == self.seed:
            self._generator().set_state(state_dict["shuffle"])

    def _generator(self) -> torch.Generator:
        # Made when first needed: a DataModule that holds one cannot be sent to several spawned processes.
        if self._shuffle is None:
            self._shuffle = torch.Generator().manual_seed(self.seed)
        return self._shuffle

    def _evaluation_loader(self, split: Split) -> DataLoader[Any]:
        if not self.fills_up or self.trainer is None or self.trainer.world_size == 1:
            return self._loader(split)
        count, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = EvaluationSampler(self.pictures(split), num_replicas=count, rank=rank)
        return self._loader(split, sampler=sampler)

    def _loader(self, split: Split, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            self.pictures(split),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=self.collate_fn(split),
            **options,
        )
