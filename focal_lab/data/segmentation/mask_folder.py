"""Semantic segmentation data: a folder of images, and one of masks with a class number in every pixel.

Shape suffixes: H W size of an image in px.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from focal_lab.backbones.options import Size
from focal_lab.data.loading.collate import Batch, Target
from focal_lab.data.loading.decode import load_image
from focal_lab.data.loading.labelled_folders import LabelledFoldersDataModule
from focal_lab.data.loading.list_files import list_images
from focal_lab.data.option_checks import check, check_place
from focal_lab.data.overlap import warn_of_training
from focal_lab.data.segmentation.crops import RandomScaleCrop
from focal_lab.data.segmentation.mask_classes import MaskClasses
from focal_lab.data.segmentation.mask_files import (
    THREADS,
    MaskedImage,
    check_palettes,
    find_masked_images,
    mask_size,
    read_classes,
)

# Masks that are read without `check_masks`.
_SAMPLED = 32
# Validation images whose headers are read to learn how large images are.
_MEASURED = 100


class SegmentationFolder(LabelledFoldersDataModule):
    """A folder of images and one of masks: NAME.jpg (or another format) and NAME.png.

    A mask is a PNG with the number of a class in every pixel. Training sees random crops, evaluation whole
    images in their own size, which the task resizes. docs/data.md says how unusual images are read; the EXIF
    orientation is followed unless only the image as it is stored has the size of its mask.

    Args:
        root: folder that the other paths are relative to.
        train_images: folder of training images.
        train_masks: their masks.
        val_images: folder of validation images.
        val_masks: their masks.
        test_images: folder of test images; None for those of validation.
        test_masks: their masks; None for those of validation.
        predict_images: folder of images to predict; None for the test images.
        classes: file with the names of the classes in the order of their numbers: a JSON list, a JSON object
            with a list under "classes", or a text file with one name a line.
        ignore_index: number in the masks of pixels that do not count; the task takes it from here.
        reduce_zero_label: whether 0 in the masks means no class, and 1 the first one, as in ADE20K; both 0
            and `ignore_index` are then left out.
        palette_masks: whether masks with a palette are accepted, whose palette indices are the classes.
        check_masks: whether all masks are read before training to check their numbers and count their
            classes; otherwise 32 of each split.
        image_size: side of training crops, px.
        short_side: training images are first resized to this shorter side ...
        long_side: ... or, if that is smaller, to this longer one, times a random factor.
        scale_range: smallest and largest such factor.
        most_of_one_class: crops of which one class takes more than this share are drawn again, at most ten
            times.
        flip: probability that a training image is mirrored.
        photometric: whether brightness, contrast, saturation and hue of training images are changed.
        batch_size: images per batch and process. The last incomplete training batch is dropped.
        num_workers: worker processes that read images.
        mean: of the channels on a scale of 0 to 1, subtracted.
        std: of the channels on a scale of 0 to 1, divided by.
        order_seed: of the order of training images, and of everything else that is random in training:
            augmentation, dropout, drop path. None for the seed of the run (`seed_everything`).

    Raises:
        UserError: an option is out of range. Files are looked at by `setup`, so that a run can be planned on
            a machine that does not have them.
    """

    labels = "masks"

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
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.begin({"image_size": 1, "short_side": 1})
        check("long_side", long_side, long_side >= short_side, f"use short_side, {short_side}, or more")
        check("scale_range", scale_range, 0 < scale_range[0] <= scale_range[1], "use a rising pair above 0")
        check("most_of_one_class", most_of_one_class, 0 < most_of_one_class <= 1, "use more than 0, up to 1")
        check("ignore_index", ignore_index, 0 <= ignore_index < 2**16, "use 0 to 65535")
        self.ignore_index, self._first = ignore_index, int(reduce_zero_label)
        self._names: tuple[str, ...] | None = None
        self._listed: dict[str, list[MaskedImage]] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their labels.

        Raises UserError if the file of names is missing or wrong.
        """
        if self._names is None:
            self._names = read_classes(self.root / self.hparams["classes"])
        return self._names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The number of each class in the masks."""
        return tuple(range(self._first, self._first + self.num_classes))

    def check_files(self) -> None:
        """Check that all folders and the file of names exist; raises UserError if not."""
        super().check_files()
        check_place("classes", self.root, self.hparams["classes"], "file")

    def evaluation_image_sizes(self) -> list[Size]:
        """Height and width of the first validation images, by their masks, which are upright.

        Raises UserError if the folder is missing or empty, or a mask cannot be read.
        """
        files = list_images(self.path("val", "masks"), "val_masks")
        return [mask_size(file) for file in files[:_MEASURED]]

    def masked_images(self, split: str) -> list[MaskedImage]:
        """Images and masks of a split, listed at the first call.

        Raises UserError if a folder or a mask is missing, or a mask does not fit its image.
        """
        if split not in self._listed:
            images, masks = self.path(split), self.path(split, "masks")
            palette = self.hparams["palette_masks"]
            self._listed[split] = find_masked_images(images, masks, split, palette)
        return self._listed[split]

    def files(self, split: str) -> list[Path]:
        return [one.image for one in self.masked_images(split)]

    def setup(self, stage: str) -> None:
        """List the files that a stage needs and check the masks.

        Raises UserError if something is missing or wrong.
        """
        if stage == "predict" and self.hparams["predict_images"] is not None:
            _ = self.predict_files
            return
        splits = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        listed = [one for split in splits for one in self.masked_images(split)]
        check_palettes(listed, self.num_classes + self._first)
        for split in splits:
            if stage != "predict" and (self.trainer is None or self.trainer.is_global_zero):
                self._check_masks(split)
        if stage == "fit":
            for split in ("val", "test"):
                warn_of_training(split, self.path(split), self.path("train"))
            self.check_batch_size(len(self.masked_images("train")), "")

    def _check_masks(self, split: str) -> None:
        """Read masks, a few without `check_masks`, and count their classes."""
        classes = MaskClasses(self.class_names, self.ignore_index, self._first)
        listed = self.masked_images(split)
        if not self.hparams["check_masks"]:
            listed = listed[:: -(-len(listed) // _SAMPLED)]
        with ThreadPoolExecutor(THREADS) as threads:
            counted = sum(threads.map(lambda one: classes.count(classes.labels(one.mask)), listed))
        classes.check(np.asarray(counted), self.path(split, "masks"), f"{split}_masks", len(listed))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches: a list of normalised crops (3, image_size, image_size) and a list of masks."""
        dataset = self.dataset("train")
        return self.loader(dataset, shuffle=True, batch_size=self.batch_size, drop_last=True)

    def test_images(self) -> Iterator[tuple[str, str]]:
        """File of each test image, in order, and file and bytes of its mask, which is not read."""
        for one in self.masked_images("test"):
            assert one.mask is not None
            yield one.image.name, f"{one.mask.name} {one.mask.stat().st_size}"

    @property
    def predict_files(self) -> list[Path]:
        """The images of `predict_images` by name, or those of the test.

        Raises UserError if the folder is missing or has no image in it.
        """
        found = super().predict_files
        return self.files("test") if found is None else found

    def dataset(self, split: str) -> "MaskedImages":
        classes = MaskClasses(self.class_names, self.ignore_index, self._first)
        augment = self._augmentation() if split == "train" else []
        return MaskedImages(
            self.masked_images(split), classes, v2.Compose([*augment, *self._normalisation()])
        )

    def unlabelled(self, files: Sequence[Path]) -> "MaskedImages":
        images = [MaskedImage(file, None) for file in files]
        return MaskedImages(images, None, v2.Compose(self._normalisation()))

    def _normalisation(self) -> list[v2.Transform]:
        return [
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(list(self.mean), list(self.std)),
        ]

    def _augmentation(self) -> list[v2.Transform]:
        options = self.hparams
        crop = RandomScaleCrop(
            options["image_size"],
            (options["short_side"], options["long_side"]),
            tuple(options["scale_range"]),
            self.ignore_index,
            options["most_of_one_class"],
            [round(255 * value) for value in self.mean],
        )
        colours = [v2.RandomPhotometricDistort(p=0.5)] if options["photometric"] else []
        return [crop, v2.RandomHorizontalFlip(options["flip"]), *colours]


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


class MaskedImages(Dataset[tuple[Tensor, Target]]):
    """Images with the class of every pixel.

    An item is a normalised image, float32 (3, H, W), and its target: `image_id`, int64 (), the index of the
    image, and `mask`, uint8 (H, W), or int32 for more than 255 classes, unless images are to be predicted.
    """

    def __init__(
        self, images: Sequence[MaskedImage], classes: MaskClasses | None, transform: v2.Compose
    ) -> None:
        self.images, self.classes, self.transform = images, classes, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        one, number = self.images[index], torch.tensor(index)
        if self.classes is None:
            image = tv_tensors.Image(v2.functional.pil_to_tensor(load_image(one.image)))
            return self.transform(image).as_subclass(Tensor), {"image_id": number}
        label_HW = self.classes.labels(one.mask)
        pixels = load_image(one.image, label_HW.shape[::-1])
        assert pixels.size == label_HW.shape[::-1]  # `find_masked_images` has compared them
        image = tv_tensors.Image(v2.functional.pil_to_tensor(pixels))
        image, mask = self.transform(image, tv_tensors.Mask(torch.from_numpy(label_HW)))
        return image.as_subclass(Tensor), {"mask": mask.as_subclass(Tensor), "image_id": number}
