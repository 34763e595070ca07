"""Detection and instance segmentation data in COCO's format (Lin et al. 2014, arXiv 1405.0312).

Shape suffixes: N objects of a picture, H W its size in px.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from focal_lab.backbones.options import Size
from focal_lab.data.classification.class_names import differing
from focal_lab.data.classification.samplers import AspectBatches as AspectBatches
from focal_lab.data.detection.coco_annotations import CocoFile, Picture, read_coco
from focal_lab.data.loading.collate import Batch, Target, as_lists
from focal_lab.data.loading.decode import decode
from focal_lab.data.loading.list_files import list_pictures_of
from focal_lab.data.option_checks import check
from focal_lab.data.overlap import all_among, warn_of_training
from focal_lab.data.sources.present import check_present
from focal_lab.errors import UserError


class CocoDataModule(LightningDataModule):
    """Pictures with boxes, and masks where the files have them, in COCO's format.

    Pictures keep their size; the task resizes them (`min_size`). Training leaves out crowd regions and,
    unless told otherwise, pictures without objects; evaluation has all pictures, and ignores what lies in
    crowds as COCO's rules say. What becomes of odd images is in docs/data.md; EXIF orientation is followed
    unless only the image as it is stored has the size that its annotation says.

    Args:
        root: folder that the other paths are relative to.
        train_images: folder of training pictures.
        train_annotations: their annotation file.
        val_images: folder of validation pictures.
        val_annotations: their annotation file.
        test_images: folder of test pictures; None for those of validation, as is usual for COCO.
        test_annotations: their annotation file; None for that of validation.
        predict_images: folder of pictures to predict; None for the test pictures.
        image_size: height and width in px of an image, before the task resizes it, that costs are counted and
            networks exported for; None for the most frequent size of the validation images, or where they are
            not there the papers' 800 x 1280.
        batch_size: pictures per batch and process. The last incomplete training batch is dropped.
        num_workers: processes that read pictures.
        flip: probability that a training picture is mirrored.
        keep_empty: whether to train on pictures without objects, too.
        group_by_aspect: whether wide and tall training pictures come in batches of their own, which saves
            padding.
        max_unreadable: how many damaged pictures each process that reads them skips, each with a warning,
            before the run ends.
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
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check("image_size", image_size, image_size is None or min(image_size) >= 1, "use 1 or more")
        check("batch_size", batch_size, batch_size >= 1, "use 1 or more")
        check("num_workers", num_workers, num_workers >= 0, "use 0 or more")
        check("flip", flip, 0 <= flip <= 1, "use 0 to 1")
        check("max_unreadable", max_unreadable, max_unreadable >= 0, "use 0 or more")
        check("std", std, min(std) > 0, "use positive values")
        if (test_images is None) != (test_annotations is None):
            raise UserError("test_images and test_annotations go together", key="data.init_args.test_images")
        self.root = Path(root)
        self._places = {
            "train": (train_images, train_annotations),
            "val": (val_images, val_annotations),
            "test": (test_images or val_images, test_annotations or val_annotations),
        }
        self.batch_size, self.num_workers = batch_size, num_workers
        self.mean, self.std = tuple(mean), tuple(std)
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
        """The annotation files' id of each class."""
        return self.annotations(self._splits[0]).category_ids

    @property
    def num_classes(self) -> int:
        """How many categories there are."""
        return len(self.category_ids)

    @property
    def has_masks(self) -> bool:
        """Whether all objects of the stage's splits have masks."""
        return all(self.annotations(split).has_masks for split in self._splits)

    def check_files(self) -> None:
        """Look whether annotation files and folders exist; raises UserError where one does not."""
        folders = {f"{split}_images": images for split, (images, _) in self._places.items()}
        files = {f"{split}_annotations": annotations for split, (_, annotations) in self._places.items()}
        check_present(self.root, folders, files)

    def evaluation_image_sizes(self) -> list[Size]:
        """Height and width of the validation images.

        Raises:
            UserError: the annotation file cannot be read.
        """
        return [(image.height, image.width) for image in self.annotations("val").pictures]

    def annotations(self, split: str) -> CocoFile:
        """The annotation file of a split, read at the first call.

        Raises:
            UserError: it is missing or something in it is wrong.
        """
        path = self.root / self._places[split][1]
        if path not in self._files:
            self._files[path] = read_coco(path)
        return self._files[path]

    def setup(self, stage: str) -> None:
        """Read the annotations that a stage needs, and look whether their pictures are there.

        Raises:
            UserError: a file is missing or wrong, or splits have different categories.
        """
        if stage == "predict" and self.hparams["predict_images"] is not None:
            _ = self.predict_files
            return
        self._splits = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in self._splits:
            found, folder = self.annotations(split), self.root / self._places[split][0]
            if not folder.is_dir():
                raise UserError("is not a folder", file=folder, key=f"data.init_args.{split}_images")
            _check_pictures(found, folder)
            if stage != "predict":
                _check_objects(found)
        if stage == "fit":
            self._check_categories()
        if stage == "fit" and len(self._dataset("train")) < self.batch_size:
            raise UserError(
                f"{self.batch_size} is more than the {len(self._dataset('train'))} training pictures with "
                "objects (lower it)",
                key="data.init_args.batch_size",
            )

    def _check_categories(self) -> None:
        """All files must have the same ids and names; that of the test, too, where it is there."""
        train = self.annotations("train")
        for split in ("val", "test"):
            path = self.root / self._places[split][1]
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
        """Shuffled batches: a list of normalised pictures (3, H, W) and a list of what is in them."""
        dataset = self._dataset("train")
        if not self.hparams["group_by_aspect"]:
            return self._loader(dataset, shuffle=True, batch_size=self.batch_size, drop_last=True)
        sampler = AspectBatches(RandomSampler(dataset), self.batch_size, True, dataset.wide)
        return self._loader(dataset, batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """All validation pictures in order."""
        return self._loader(self._dataset("val"), batch_size=self.batch_size)

    @property
    def tests_on_validation(self) -> bool:
        """Whether the test images are those of validation, links to them, or listed by the same file."""
        folders, files = zip(*(self._places[split] for split in ("test", "val")), strict=True)
        if len({(self.root / file).resolve() for file in files}) == 1:
            return True
        if not all((self.root / file).exists() for file in files):
            return False
        tested, validated = (self.annotations(split).pictures for split in ("test", "val"))
        return all_among(
            (str(self.root / folders[0] / picture.file) for picture in tested),
            (str(self.root / folders[1] / picture.file) for picture in validated),
        )

    def test_dataloader(self) -> DataLoader[Batch]:
        """All test pictures in order."""
        return self._loader(self._dataset("test"), batch_size=self.batch_size)

    def test_images(self) -> Iterator[tuple[str, str]]:
        """File and objects of each test image, in order, by the annotation file."""
        found = self.annotations("test")
        for picture in found.pictures:
            things = sorted(
                f"{found.class_names[thing.label]} {thing.box} {thing.area} {thing.crowd}"
                for thing in picture.objects
            )
            yield picture.file, "; ".join(things)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The pictures of `predict_images`, or those of the test."""
        files = self.predict_files
        if files is None:
            return self.test_dataloader()
        pictures = [Picture(i, str(file), 0, 0, ()) for i, file in enumerate(files)]
        return self._loader(CocoPictures(pictures, Path(), self._limits()), batch_size=self.batch_size)

    @property
    def predict_files(self) -> list[Path] | None:
        """The pictures of `predict_images` by name; None where the test pictures are predicted.

        Raises:
            UserError: the folder is missing or has no picture in it.
        """
        if self.hparams["predict_images"] is None:
            return None
        return list_pictures_of(self.root / self.hparams["predict_images"], "predict_images")

    def _dataset(self, split: str) -> "CocoPictures":
        pictures: Sequence[Picture] = self.annotations(split).pictures
        training = split == "train"
        if training and not self.hparams["keep_empty"]:
            pictures = [p for p in pictures if any(not thing.crowd for thing in p.objects)]
        return CocoPictures(
            pictures,
            self.root / self._places[split][0],
            self._limits(),
            masks=self.annotations(split).has_masks,
            training=training,
            flip=self.hparams["flip"] if training else 0.0,
        )

    def _limits(self) -> dict[str, Any]:
        return {"max_unreadable": self.hparams["max_unreadable"], "mean": self.mean, "std": self.std}

    def _loader(self, dataset: "CocoPictures", **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=as_lists,
            **options,
        )


class CocoPictures(Dataset[tuple[Tensor, Target] | None]):
    """Pictures and what is in them.

    An item is a normalised picture, float32 (3, H, W), and `boxes`, float32 (N, 4), corners in px; `labels`,
    int64 (N,), from 0; `area`, float32 (N,); `iscrowd`, int64 (N,); `image_id`, int64 (); and `masks`, uint8
    (N, H, W), where there are any. Instead of a picture that cannot be read, training gets the next one and
    evaluation None, so that none is judged twice.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        folder: Path,
        limits: dict[str, Any],
        *,
        masks: bool = False,
        training: bool = False,
        flip: float = 0.0,
    ) -> None:
        self.pictures, self.folder = pictures, folder
        self.masks, self.training = masks, training
        self.max_unreadable = limits["max_unreadable"]
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(flip),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.Normalize(list(limits["mean"]), list(limits["std"])),
            ]
        )
        self.unreadable: set[str] = set()

    @property
    def wide(self) -> list[bool]:
        """Whether each picture is at least as wide as it is high."""
        return [picture.width >= picture.height for picture in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Target] | None:
        for step in range(len(self.pictures) if self.training else 1):
            picture = self.pictures[(index + step) % len(self.pictures)]
            pixels = self._read(picture)
            if pixels is not None:
                return self._item(picture, pixels)
        if self.training:
            raise UserError(
                f"none of the {len(self.pictures)} images can be read (repair them)", file=self.folder
            )
        return None

    def _read(self, picture: Picture) -> Image.Image | None:
        """The picture as RGB; None, and a warning, for a damaged one."""
        path = self.folder / picture.file
        try:
            expected = (picture.width, picture.height) if picture.width else None
            image = decode(path, size=expected)
        except FileNotFoundError as error:
            raise UserError("does not exist", file=path) from error
        except Exception as error:
            # Pillow tells damage by OSError, SyntaxError, ValueError and struct.error
            if str(path) not in self.unreadable:
                self.unreadable.add(str(path))
                if len(self.unreadable) > self.max_unreadable:
                    raise UserError(
                        f"cannot be read ({error}); it is the {len(self.unreadable)}th such picture, and "
                        f"{self.max_unreadable} are allowed (repair it, or raise the limit)",
                        file=path,
                        key="data.init_args.max_unreadable",
                    ) from error
                warnings.warn(
                    f"{path}: cannot be read ({error}) and is skipped; {len(self.unreadable)} so far",
                    stacklevel=2,
                )
            return None
        if expected not in (None, image.size):
            raise UserError(
                f"is {image.width} x {image.height} px, but its annotation says "
                f"{picture.width} x {picture.height}",
                file=path,
            )
        return image

    def _item(self, picture: Picture, pixels: Image.Image) -> tuple[Tensor, Target]:
        things = [thing for thing in picture.objects if not (self.training and thing.crowd)]
        size = (pixels.height, pixels.width)
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor([thing.box for thing in things], dtype=torch.float32).reshape(-1, 4),
                format="XYXY",
                canvas_size=size,
            ),
            "labels": torch.tensor([thing.label for thing in things], dtype=torch.int64),
            "area": torch.tensor([thing.area for thing in things], dtype=torch.float32),
            "iscrowd": torch.tensor([int(thing.crowd) for thing in things], dtype=torch.int64),
            "image_id": torch.tensor(picture.number),
        }
        if self.masks:
            target["masks"] = tv_tensors.Mask(torch.from_numpy(picture.masks(things)))
        image, target = self.transform(tv_tensors.Image(v2.functional.pil_to_tensor(pixels)), target)
        plain = {name: value.as_subclass(Tensor) for name, value in target.items()}
        return image.as_subclass(Tensor), plain


def _check_pictures(found: CocoFile, folder: Path) -> None:
    """Whether all files are there; folders are listed once, for COCO has 118,000."""
    folders = Counter(Path(picture.file).parent for picture in found.pictures)
    there = {
        parent / file.name
        for parent in folders
        if (folder / parent).is_dir()
        for file in (folder / parent).iterdir()
    }
    missing = [picture for picture in found.pictures if Path(picture.file) not in there]
    if missing:
        more = f", and {len(missing) - 1} others," if len(missing) > 1 else ""
        raise UserError(
            f"image {missing[0].number}{more} of {found.path} does not exist ({_advice(missing[0], folder)})",
            file=folder / missing[0].file,
        )


def _advice(missing: Picture, folder: Path) -> str:
    """Why a file may not be found."""
    name = missing.file.replace("\\", "/").rpartition("/")[2]
    if "://" in missing.file:
        return "file_name is an address on the web, not a file"
    if name != missing.file and (folder / name).exists():
        return f"file_name is relative to the folder, which has {name}"
    return "file_name has \\ where / is meant" if "\\" in missing.file else "wrong folder of pictures?"


def _check_objects(found: CocoFile) -> None:
    """Without objects nothing is learned, and average precision is not defined."""
    things = [thing for picture in found.pictures for thing in picture.objects]
    if all(thing.crowd for thing in things):
        raise UserError(
            f"has no objects in {len(found.pictures)} images: {len(things)} crowds, and {found.dropped} "
            "boxes without area",
            file=found.path,
            key="annotations",
        )
