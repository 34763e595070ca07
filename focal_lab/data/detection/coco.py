"""Detection and instance segmentation data in COCO's format (Lin et al. 2014, arXiv 1405.0312).

Shape suffixes: N objects of an image, H W its size in px.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from focal_lab.backbones.options import Size
from focal_lab.data.classification.class_names import differing
from focal_lab.data.classification.samplers import AspectBatches
from focal_lab.data.detection.coco_annotations import CocoFile, CocoImage, masks_of, read_coco
from focal_lab.data.loading.collate import Batch, Target
from focal_lab.data.loading.decode import decode
from focal_lab.data.loading.labelled_folders import LabelledFoldersDataModule
from focal_lab.data.loading.unreadable import Unreadable
from focal_lab.data.option_checks import check
from focal_lab.data.overlap import warn_of_training
from focal_lab.errors import UserError


class CocoDataModule(LabelledFoldersDataModule):
    """Images with boxes, and masks if the files have them, in COCO's format.

    Images keep their size; the task resizes them (`min_size`). Training leaves out crowd regions and, by
    default, images without objects; evaluation has all images, and ignores crowds by COCO's rules.
    docs/data.md says how unusual images are read; the EXIF orientation is followed unless only the stored
    image has the size in its annotation.

    Args:
        root: folder that the other paths are relative to.
        train_images: folder of training images.
        train_annotations: their annotation file.
        val_images: folder of validation images.
        val_annotations: their annotation file.
        test_images: folder of test images; None for those of validation, as is usual for COCO.
        test_annotations: their annotation file; None for that of validation.
        predict_images: folder of images to predict; None for the test images.
        image_size: height and width in px of an image, before the task resizes it, that costs are counted and
            networks exported for; None for the most frequent size of the validation images, or the papers'
            800 x 1280 if there are none.
        batch_size: images per batch and process. The last incomplete training batch is dropped.
        num_workers: worker processes that read images.
        flip: probability that a training image is mirrored.
        keep_empty: whether to train on images without objects, too.
        group_by_aspect: whether wide and tall training images come in separate batches, which saves padding.
        max_unreadable: how many damaged images a split may have before the run ends; each is skipped with a
            warning.
        mean: of the channels on a scale of 0 to 1, subtracted.
        std: of the channels on a scale of 0 to 1, divided by.
        order_seed: of the order of training images, and of everything else that is random in training:
            augmentation, dropout, drop path. None for the seed of the run (`seed_everything`).

    Raises:
        UserError: an option is out of range. Files are looked at by `setup`, so that a run can be planned on
            a machine that does not have them.
    """

    labels = "annotations"

    def __init__(
        self,
        root: str,
        train_images: str = "train2017",
        train_annotations: str = "annotations/instances_train2017.json",
        val_images: str = "val2017",
        val_annotations: str = "annotations/instances_val2017.json",
        test_images: str | None = None,
        test_annotations: str | None = None,
        predict_images: str | None = None,
        image_size: tuple[int, int] | None = None,
        batch_size: int = 2,
        num_workers: int = 4,
        flip: float = 0.5,
        keep_empty: bool = False,
        group_by_aspect: bool = True,
        max_unreadable: int = 10,
        mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
        std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check("image_size", image_size, image_size is None or min(image_size) >= 1, "use 1 or more")
        self.begin({"max_unreadable": 0})
        self._files: dict[Path, CocoFile] = {}
        self.counted_image_size: Size | None = image_size and (image_size[0], image_size[1])
        # what the stage works on: a test needs no training file
        self._splits: tuple[str, ...] = ("train", "val")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the categories, in the order of their ids."""
        return self.annotations(self._splits[0]).class_names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The id of each class in the annotation files."""
        return self.annotations(self._splits[0]).category_ids

    @property
    def has_masks(self) -> bool:
        """Whether all objects of the stage's splits have masks."""
        return all(self.annotations(split).has_masks for split in self._splits)

    def evaluation_image_sizes(self) -> list[Size]:
        """Height and width of the validation images.

        Raises UserError if the annotation file cannot be read.
        """
        return [(image.height, image.width) for image in self.annotations("val").images]

    def annotations(self, split: str) -> CocoFile:
        """The annotation file of a split, read at the first call.

        Raises UserError if it is missing or wrong.
        """
        path = self.path(split, "annotations")
        if path not in self._files:
            self._files[path] = read_coco(path)
        return self._files[path]

    def setup(self, stage: str) -> None:
        """Read the annotations that a stage needs, and check that their images exist.

        Raises UserError if a file is missing or wrong, or splits have different categories.
        """
        if stage == "predict" and self.predict_files is not None:
            return
        self._splits = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in self._splits:
            found, folder = self.annotations(split), self.path(split)
            if not folder.is_dir():
                raise UserError("is not a folder", file=folder, key=f"data.init_args.{split}_images")
            _check_images(found, folder)
            if stage != "predict":
                _check_objects(found)
        if stage == "fit":
            self._check_categories()
            self.check_batch_size(len(self.dataset("train")), " with objects")

    def _check_categories(self) -> None:
        """All files must have the same ids and names, including that of the test if it exists."""
        train = self.annotations("train")
        for split in ("val", "test"):
            path = self.path(split, "annotations")
            if split == "test" and not path.exists():
                continue
            warn_of_training(split, path, train.path)
            difference = differing(self.annotations(split).listed, train.listed)
            if difference:
                raise UserError(
                    f"differ from those of {train.path}: {difference} (ids and names must be the same)",
                    file=path,
                    key="categories",
                )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches: a list of normalised images (3, H, W) and a list of targets."""
        dataset = self.dataset("train")
        if not self.hparams["group_by_aspect"]:
            return self.loader(dataset, shuffle=True, batch_size=self.batch_size, drop_last=True)
        sampler = AspectBatches(RandomSampler(dataset), self.batch_size, True, dataset.wide)
        return self.loader(dataset, batch_sampler=sampler)

    @property
    def tests_on_validation(self) -> bool:
        """Whether the test images are those of validation, links to them, or listed by the same file."""
        files = {self.path(split, "annotations").resolve() for split in ("test", "val")}
        return len(files) == 1 or super().tests_on_validation

    def files(self, split: str) -> list[Path]:
        return [self.path(split) / image.file for image in self.annotations(split).images]

    def test_images(self) -> Iterator[tuple[str, str]]:
        """File and objects of each test image, in order, by the annotation file."""
        found = self.annotations("test")
        for image in found.images:
            things = sorted(
                f"{found.class_names[thing.label]} {thing.box} {thing.area} {thing.crowd}"
                for thing in image.objects
            )
            yield image.file, "; ".join(things)

    def dataset(self, split: str) -> "CocoDataset":
        found, training = self.annotations(split), split == "train"
        images: Sequence[CocoImage] = found.images
        if training and not self.hparams["keep_empty"]:
            images = [image for image in images if any(not thing.crowd for thing in image.objects)]
        return CocoDataset(
            images,
            self.path(split),
            self.transform(self.hparams["flip"] if training else 0.0),
            self.hparams["max_unreadable"],
            masks=found.has_masks,
            training=training,
        )

    def unlabelled(self, files: Sequence[Path]) -> "CocoDataset":
        images = [CocoImage(i, str(file), 0, 0, ()) for i, file in enumerate(files)]
        return CocoDataset(images, Path(), self.transform(0.0), self.hparams["max_unreadable"])

    def transform(self, flip: float) -> v2.Compose:
        """Mirrors an image and its target with a probability, and normalises the image."""
        return v2.Compose(
            [
                v2.RandomHorizontalFlip(flip),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.Normalize(list(self.mean), list(self.std)),
            ]
        )


class CocoDataset(Dataset[tuple[Tensor, Target] | None]):
    """Images with their objects.

    An item is a normalised image, float32 (3, H, W), and its target: `boxes`, float32 (N, 4), corners in px;
    `labels`, int64 (N,), from 0; `area`, float32 (N,); `iscrowd`, int64 (N,); `image_id`, int64 (); and
    `masks`, uint8 (N, H, W), if there are any. An unreadable image is replaced in training by the next one,
    and in evaluation by None, so that none is evaluated twice.
    """

    def __init__(
        self,
        images: Sequence[CocoImage],
        folder: Path,
        transform: v2.Compose,
        max_unreadable: int,
        *,
        masks: bool = False,
        training: bool = False,
    ) -> None:
        self.images, self.folder, self.transform = images, folder, transform
        self.masks, self.training = masks, training
        self.unreadable = Unreadable(len(images), max_unreadable)

    @property
    def wide(self) -> list[bool]:
        """Whether each image is at least as wide as it is high."""
        return [image.width >= image.height for image in self.images]

    @property
    def image_ids(self) -> list[int]:
        """The `image_id` of each image."""
        return [image.number for image in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target] | None:
        for step in range(len(self.images) if self.training else 1):
            place = (index + step) % len(self.images)
            pixels = self._read(place)
            if pixels is not None:
                return self._item(self.images[place], pixels)
        if self.training:
            raise UserError(
                f"none of the {len(self.images)} images can be read (repair them)", file=self.folder
            )
        return None

    def _read(self, index: int) -> Image.Image | None:
        """The image as RGB; None, and a warning, for a damaged one."""
        image = self.images[index]
        path = self.folder / image.file
        expected = (image.width, image.height) if image.width else None
        try:
            pixels = decode(path, size=expected)
        except FileNotFoundError as error:
            raise UserError("does not exist", file=path) from error
        except Exception as error:  # what Pillow raises for damaged files depends on the format
            instead = "the next one takes its place" if self.training else "it is not evaluated"
            self.unreadable.add(index, str(path), error, instead)
            return None
        if expected not in (None, pixels.size):
            raise UserError(
                f"is {pixels.width} x {pixels.height} px, but its annotation says "
                f"{image.width} x {image.height}",
                file=path,
            )
        return pixels

    def _item(self, image: CocoImage, pixels: Image.Image) -> tuple[Tensor, Target]:
        things = [thing for thing in image.objects if not (self.training and thing.crowd)]
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor([thing.box for thing in things], dtype=torch.float32).reshape(-1, 4),
                format="XYXY",
                canvas_size=(pixels.height, pixels.width),
            ),
            "labels": torch.tensor([thing.label for thing in things], dtype=torch.int64),
            "area": torch.tensor([thing.area for thing in things], dtype=torch.float32),
            "iscrowd": torch.tensor([int(thing.crowd) for thing in things], dtype=torch.int64),
            "image_id": torch.tensor(image.number),
        }
        if self.masks:
            target["masks"] = tv_tensors.Mask(torch.from_numpy(masks_of(things, image.height, image.width)))
        shown, target = self.transform(tv_tensors.Image(v2.functional.pil_to_tensor(pixels)), target)
        plain = {name: value.as_subclass(Tensor) for name, value in target.items()}
        return shown.as_subclass(Tensor), plain


def _check_images(found: CocoFile, folder: Path) -> None:
    """Check that all files exist; folders are listed once, because COCO has 118,000 images."""
    folders = {Path(image.file).parent for image in found.images}
    present = {
        parent / file.name
        for parent in folders
        if (folder / parent).is_dir()
        for file in (folder / parent).iterdir()
    }
    missing = [image for image in found.images if Path(image.file) not in present]
    if missing:
        more = f", and {len(missing) - 1} others," if len(missing) > 1 else ""
        raise UserError(
            f"image {missing[0].number}{more} of {found.path} does not exist (file_name is relative to the "
            "folder of images)",
            file=folder / missing[0].file,
        )


def _check_objects(found: CocoFile) -> None:
    """Without objects nothing is learned, and average precision is not defined."""
    if all(thing.crowd for image in found.images for thing in image.objects):
        raise UserError(
            f"has no objects in {len(found.images)} images, besides crowds and boxes without area",
            file=found.path,
            key="annotations",
        )
