"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test pictures of 32 px in colour."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from focal_lab.data.classification.cifar_files import Cifar, find_cifar, read_names, read_split
from focal_lab.data.classification.data_module import ClassificationDataModule, Split
from focal_lab.data.option_checks import check
from focal_lab.data.sources.base import ArraySource, Source
from focal_lab.errors import UserError


class CifarDataModule(ClassificationDataModule):
    """CIFAR with 10 or 100 classes from local files; a part of the training set validates.

    Nothing in the files is executed. Training cuts out of pictures with black edges, as the recipes of DeiT
    and Swin do at this size.

    Args:
        root: folder that holds `cifar-10-batches-py` or `cifar-10-batches-bin`, for 100 classes
            `cifar-100-python` or `cifar-100-binary`, or one of these itself.
        classes: 10 or 100.
        download: whether torchvision fetches the files into root where they are not there.
        image_size: side of the square that the network sees, px.
        crop_padding: black px around a picture from which training cuts out its square.
        crop_pct: evaluation takes the centre of a picture enlarged to image_size / crop_pct.
        mean: of the channels on a scale of 0 to 1; the default is CIFAR-10's.
        std: of the channels on a scale of 0 to 1.
        options: the others of all classification data.

    Raises:
        UserError: an option is out of range. Files are looked at by `setup`.
    """

    def __init__(
        self,
        root: str,
        classes: Literal[10, 100] = 10,
        download: bool = False,
        image_size: int = 32,
        crop_padding: int = 4,
        crop_pct: float = 1.0,
        mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465),
        std: tuple[float, ...] = (0.2470, 0.2435, 0.2616),
        **options: Any,
    ) -> None:
        super().__init__(
            image_size=image_size,
            crop_padding=crop_padding,
            crop_pct=crop_pct,
            mean=mean,
            std=std,
            **options,
        )
        check("classes", classes, classes in (10, 100), "use 10 or 100")
        self.root, self.classes = Path(root), classes
        self._files: Cifar | None = None

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of their labels.

        Raises:
            UserError: the files are missing or damaged.
        """
        return read_names(self._found())

    def prepare_data(self) -> None:
        """Fetch the files where that was asked for and they are not there.

        Raises:
            UserError: they cannot be fetched.
        """
        if not self.hparams["download"] or find_cifar(self.root, self.classes) is not None:
            return
        from torchvision import datasets

        try:
            getattr(datasets, f"CIFAR{self.classes}")(str(self.root), download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"cannot be fetched ({error})", file=self.root, key="data.init_args.download"
            ) from error

    def check_files(self) -> None:
        """Look whether the files exist, unless they may be fetched; raises UserError where they do not."""
        if not self.hparams["download"]:
            self._found()

    def find(self, split: Split) -> Source | None:
        """All pictures of a split; None for validation.

        Raises:
            UserError: files are missing or damaged.
        """
        if split == "val":
            return None
        return ArraySource(*read_split(self._found(), split), split)

    def _found(self) -> Cifar:
        if self._files is None:
            self._files = find_cifar(self.root, self.classes)
        if self._files is None:
            name = f"cifar-{self.classes}{'-batches-py' if self.classes == 10 else '-python'}"
            packed = sorted(path.name for path in self.root.glob(f"cifar-{self.classes}-*.tar.gz"))
            found = f"; found {packed[0]}: unpack it (tar xf)" if packed else ""
            raise UserError(
                f"has no {name} in it{found} (--data.download=true lets torchvision fetch it)",
                file=self.root,
                key="data.init_args.root",
            )
        return self._files
