"""Semantic segmentation data: a folder of pictures, and one of masks with a class number in every pixel.

Shape suffixes: H W size of a picture in px.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from focal_lab.backbones.options import Size
from focal_lab.data.loading.collate import Batch, Target, as_lists
from focal_lab.data.loading.decode import load_picture
from focal_lab.data.loading.list_files import list_pictures_of
from focal_lab.data.option_checks import check
from focal_lab.data.overlap import all_among, warn_of_training
from focal_lab.data.segmentation.crops import RandomScaleCrop
from focal_lab.data.segmentation.mask_classes import MaskClasses
from focal_lab.data.segmentation.mask_files import (
    THREADS,
    Numbering,
    Pair,
    check_palettes,
    find_pairs,
    mask_size,
    read_classes,
)
from focal_lab.data.sources.present import check_present
from focal_lab.errors import UserError

# Masks that are looked into without `check_masks`.
_SAMPLED = 32
# Validation images whose headers are read to learn how large images are.
_MEASURED = 100


class SegmentationFolder(LightningDataModule):
    """Any pair of folders with pictures and masks: NAME.jpg (or another format) and NAME.png.

    A mask is a PNG with the number of a class in every pixel. Training sees random crops, evaluation whole
    pictures of their own size, which the task resizes. What becomes of odd images is in docs/data.md; EXIF
    orientation is followed unless only the image as it is stored has the size of its mask.

    Args:
        root: folder that the other paths are relative to.
        train_images: folder of training pictures.
        train_masks: their masks.
        val_images: folder of validation pictures.
        val_masks: their masks.
        test_images: folder of test pictures; None for those of validation.
        test_masks: their masks; None for those of validation.
        predict_images: folder of pictures to predict; None for the test pictures.
        classes: file with the names of the classes in the order of their numbers: a JSON list, a JSON object
            with a list under "classes", or a text file with one name a line.
        ignore_index: number in the masks of pixels that do not count; the task takes it from here.
        reduce_zero_label: whether 0 in the masks means no class, and 1 the first one, as in ADE20K; both 0
            and `ignore_index` are then left out.
        palette_masks: whether masks with a palette are taken, and their palette indices are the classes.
        check_masks: whether all masks are read before training to see whether their numbers are classes, and
            which of them occur; otherwise 32 of each split.
        image_size: side of training crops, px.
        short_side: training pictures are first resized to this shorter side ...
        long_side: ... or, where that is less, to this longer one, and both times a random factor.
        scale_range: smallest and largest such factor.
        most_of_one_class: crops of which one class takes more than this share are drawn again, ten times at
            most.
        flip: probability that a training picture is mirrored.
        photometric: whether brightness, contrast, saturation and hue of training pictures are changed.
        batch_size: pictures per batch and process. The last incomplete training batch is dropped.
        num_workers: processes that read pictures.
        mean: of the channels on a scale of 0 to 1, subtracted.
        std: of the channels on a scale of 0 to 1, divided by.

    Raises:
        UserError: an option is out of range. Files are looked at by `setup`, so that a run can be planned on
            a machine that does not have them.
    """

    channels = 3

    def __init__(
        self,
        root: str,
        train_images: str = "images/training",
        train_masks: str = "annotations/training",
        val_images: str = "images/validation",
        val_masks: str = "annotations/validation",
        test_images: str | None = None,
        test_masks: str | None = None,
        predict_images: str | None = None,
        classes: str = "classes.txt",
        ignore_index: int = 255,
        reduce_zero_label: bool = False,
        palette_masks: bool = False,
        check_masks: bool = True,
        image_size: int = 512,
        short_side: int = 512,
        long_side: int = 2048,
        scale_range: tuple[float, float] = (0.5, 2.0),
        most_of_one_class: float = 0.75,
        flip: float = 0.5,
        photometric: bool = True,
        batch_size: int = 2,
        num_workers: int = 4,
        mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for option in ("image_size", "short_side", "batch_size"):
            check(option, self.hparams[option], self.hparams[option] >= 1, "use 1 or more")
        check("long_side", long_side, long_side >= short_side, f"use short_side, {short_side}, or more")
        check("scale_range", scale_range, 0 < scale_range[0] <= scale_range[1], "use a rising pair above 0")
        check("most_of_one_class", most_of_one_class, 0 < most_of_one_class <= 1, "use more than 0, up to 1")
        check("flip", flip, 0 <= flip <= 1, "use 0 to 1")
        check("num_workers", num_workers, num_workers >= 0, "use 0 or more")
        check("ignore_index", ignore_index, 0 <= ignore_index < 2**16, "use 0 to 65535")
        check("std", std, min(std) > 0, "use positive values")
        if (test_images is None) != (test_masks is None):
            raise UserError("test_images and test_masks go together", key="data.init_args.test_images")
        self.root = Path(root)
        self._places = {
            "train": (train_images, train_masks),
            "val": (val_images, val_masks),
            "test": (test_images or val_images, test_masks or val_masks),
        }
        self.batch_size, self.num_workers = batch_size, num_workers
        self.ignore_index = ignore_index
        self.mean, self.std = tuple(mean), tuple(std)
        self._names: tuple[str, ...] | None = None
        self._pairs: dict[str, list[Pair]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their labels.

        Raises:
            UserError: the file of names is missing or something else.
        """
        if self._names is None:
            self._names = read_classes(self.root / self.hparams["classes"])
        return self._names

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The number of each class in the masks."""
        first = int(self.hparams["reduce_zero_label"])
        return tuple(range(first, first + self.num_classes))

    def check_files(self) -> None:
        """Look whether all folders and the file of names exist; raises UserError where one does not."""
        folders = {
            f"{split}_{kind}": place
            for split, places in self._places.items()
            for kind, place in zip(("images", "masks"), places, strict=True)
        }
        check_present(self.root, folders, {"classes": self.hparams["classes"]})

    def evaluation_image_sizes(self) -> list[Size]:
        """Height and width of the first validation images, by their masks, which are the right way up.

        Raises:
            UserError: the folder is missing or empty, or a mask cannot be read.
        """
        files = list_pictures_of(self.root / self._places["val"][1], "val_masks")
        return [mask_size(file) for file in files[:_MEASURED]]

    def pairs(self, split: str) -> list[Pair]:
        """Pictures and masks of a split, listed at the first call.

        Raises:
            UserError: a folder or a mask is missing, or a mask does not fit its picture.
        """
        if split not in self._pairs:
            images, masks = (self.root / place for place in self._places[split])
            self._pairs[split] = find_pairs(images, masks, split, self.hparams["palette_masks"])
        return self._pairs[split]

    def setup(self, stage: str) -> None:
        """List the files that a stage needs and look into the masks.

        Raises:
            UserError: something is missing or wrong.
        """
        if stage == "predict" and self.hparams["predict_images"] is not None:
            _ = self.predict_files
            return
        splits = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        listed = [pair for split in splits for pair in self.pairs(split)]
        check_palettes(listed, len(self.category_ids) + int(self.hparams["reduce_zero_label"]))
        for split in splits:
            if stage != "predict" and (self.trainer is None or self.trainer.is_global_zero):
                self._check_masks(split)
        if stage == "fit":
            for split in ("val", "test"):
                warn_of_training(split, *(self.root / self._places[name][0] for name in (split, "train")))
        if stage == "fit" and len(self.pairs("train")) < self.batch_size:
            raise UserError(
                f"{self.batch_size} is more than the {len(self.pairs('train'))} training pictures (lower it)",
                key="data.init_args.batch_size",
            )

    def _check_masks(self, split: str) -> None:
        """Read masks, a few without `check_masks`, and see what is in them."""
        classes = MaskClasses(self.class_names, self.ignore_index, int(self.hparams["reduce_zero_label"]))
        pairs, dataset = self.pairs(split), self._dataset(split)
        if not self.hparams["check_masks"]:
            pairs = pairs[:: -(-len(pairs) // _SAMPLED)]
        with ThreadPoolExecutor(THREADS) as threads:
            counted = sum(threads.map(lambda pair: classes.count(dataset.labels(pair)), pairs))
        folder = self.root / self._places[split][1]
        classes.check(np.asarray(counted), folder, f"data.init_args.{split}_masks", len(pairs))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches: a list of normalised crops (3, image_size, image_size) and a list of masks."""
        return self._loader(self._dataset("train"), shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """All validation pictures in order, of their own size."""
        return self._loader(self._dataset("val"))

    @property
    def tests_on_validation(self) -> bool:
        """Whether the test images are those of validation, or links to them."""
        if self._places["test"] == self._places["val"]:
            return True
        if not all(
            (self.root / place).exists() for split in ("test", "val") for place in self._places[split]
        ):
            return False
        return all_among(*([str(pair.picture) for pair in self.pairs(split)] for split in ("test", "val")))

    def test_dataloader(self) -> DataLoader[Batch]:
        """All test pictures in order, of their own size."""
        return self._loader(self._dataset("test"))

    def test_images(self) -> Iterator[tuple[str, str]]:
        """File of each test image, in order, and file and bytes of its mask, which is not read."""
        for pair in self.pairs("test"):
            mask = pair.mask
            yield pair.picture.name, "" if mask is None else f"{mask.name} {mask.stat().st_size}"

    def predict_dataloader(self) -> DataLoader[Any]:
        """The pictures of `predict_images`, or those of the test."""
        files = self.predict_files
        if files is None:
            return self.test_dataloader()
        return self._loader(self._pictures([Pair(file, None) for file in files]))

    @property
    def predict_files(self) -> list[Path] | None:
        """The pictures of `predict_images` by name; those of the test if there is no such folder.

        Raises:
            UserError: the folder is missing or has no picture in it.
        """
        if self.hparams["predict_images"] is None:
            return [pair.picture for pair in self.pairs("test")]
        return list_pictures_of(self.root / self.hparams["predict_images"], "predict_images")

    def _dataset(self, split: str) -> "SegmentationPictures":
        return self._pictures(self.pairs(split), self._augmentation() if split == "train" else None)

    def _pictures(self, pairs: Sequence[Pair], augment: v2.Compose | None = None) -> "SegmentationPictures":
        return SegmentationPictures(
            pairs,
            Numbering(
                len(self.class_names) if any(pair.mask for pair in pairs) else 0,
                self.ignore_index,
                bool(self.hparams["reduce_zero_label"]),
            ),
            v2.Compose(
                [
                    *(augment.transforms if augment else ()),
                    v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                    v2.Normalize(list(self.mean), list(self.std)),
                ]
            ),
        )

    def _augmentation(self) -> v2.Compose:
        options = self.hparams
        colours = [v2.RandomPhotometricDistort(p=0.5)] if options["photometric"] else []
        return v2.Compose(
            [
                RandomScaleCrop(
                    options["image_size"],
                    (options["short_side"], options["long_side"]),
                    tuple(options["scale_range"]),
                    self.ignore_index,
                    options["most_of_one_class"],
                    [round(255 * value) for value in self.mean],
                ),
                v2.RandomHorizontalFlip(options["flip"]),
                *colours,
            ]
        )

    def _loader(self, dataset: "SegmentationPictures", **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=as_lists,
            **options,
        )


class Ade20kDataModule(SegmentationFolder):
    """ADE20K's SceneParsing challenge (Zhou et al. 2017): root/images, root/annotations, 150 classes.

    In its masks 0 is no class and 1 to 150 are the classes; their names are in the archive's own file.

    Args:
        root: the unpacked archive.
        classes: its table of the classes.
        reduce_zero_label: whether 0 in the masks means no class.
        options: see `SegmentationFolder`.
    """

    def __init__(
        self, root: str, classes: str = "objectInfo150.txt", reduce_zero_label: bool = True, **options: Any
    ) -> None:
        super().__init__(root, classes=classes, reduce_zero_label=reduce_zero_label, **options)


class SegmentationPictures(Dataset[tuple[Tensor, Target]]):
    """Pictures with the class of every pixel.

    An item is a normalised picture, float32 (3, H, W), and a dictionary: `mask`, uint8 (H, W) or int32 where
    there are more than 255 classes, and `image_id`, int64 (), the number of the picture.
    """

    def __init__(self, pairs: Sequence[Pair], numbering: Numbering, transform: v2.Compose) -> None:
        self.pairs, self.numbering, self.transform = pairs, numbering, transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        pair = self.pairs[index]
        label_HW = None if pair.mask is None else self.labels(pair)
        pixels = load_picture(pair.picture, None if label_HW is None else label_HW.shape[::-1])
        assert label_HW is None or pixels.size == label_HW.shape[::-1]  # `find_pairs` has compared them
        image = tv_tensors.Image(v2.functional.pil_to_tensor(pixels))
        number = torch.tensor(index)
        if label_HW is None:
            return self.transform(image).as_subclass(Tensor), {"image_id": number}
        image, mask = self.transform(image, tv_tensors.Mask(torch.from_numpy(label_HW)))
        return image.as_subclass(Tensor), {"mask": mask.as_subclass(Tensor), "image_id": number}

    def labels(self, pair: Pair) -> NDArray[Any]:
        """The mask of a picture, labels from 0.

        Raises:
            UserError: it cannot be read, or has a number in it that is no class.
        """
        assert pair.mask is not None
        try:
            with Image.open(pair.mask) as opened:
                numbers_HW = np.array(opened)
        except Exception as error:
            # Pillow tells damage by OSError, SyntaxError, ValueError and struct.error
            raise UserError(f"cannot be read as a mask ({error})", file=pair.mask) from error
        return self.numbering.labels(numbers_HW, pair.mask)
