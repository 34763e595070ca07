import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from focal_lab.data.classification.fashion_mnist import (
    FASHION,
    FashionMnistDataModule,
    IdxDataModule,
    read_idx,
)
from focal_lab.errors import UserError
from focal_lab.tasks.image_callbacks import as_bytes

OPTIONS = {"batch_size": 4, "num_workers": 0}


def idx(values: np.ndarray) -> bytes:
    return (
        b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    )


def write(root: Path, counts={"train": 40, "t10k": 12}, packed=True, middle="-idx"):  # noqa: B006
    """Images of which each shows its label: all pixels are ten times as bright."""
    root.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.repeat(labels * 10, 28 * 28).reshape(-1, 28, 28).astype(np.uint8)
        for name, values in {"images": images, "labels": labels}.items():
            content = idx(values)
            path = root / f"{split}-{name}{middle}{values.ndim}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return root


def evaluated(data):
    data.setup("test")
    shown = [data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader()]
    return torch.cat([images for images, _ in shown]), torch.cat([labels for _, labels in shown])


@pytest.mark.parametrize(
    ("folder", "options"),
    [(".", {}), (".", {"packed": False}), ("FashionMNIST/raw", {}), (".", {"middle": ".idx"})],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_found_and_read(tmp_path, folder, options, channels):
    write(tmp_path / folder, **options)

    images, labels = evaluated(FashionMnistDataModule(str(tmp_path), channels=channels, **OPTIONS))

    assert labels.tolist() == [number % 10 for number in range(12)]
    assert images.shape == (12, channels, 28, 28)
    expected = (labels * 10 / 255 - 0.2860) / 0.3530
    assert torch.allclose(images, expected.view(-1, 1, 1, 1).expand_as(images), atol=1e-5)


def test_images_of_one_channel_can_be_shown(tmp_path):
    write(tmp_path)
    data = FashionMnistDataModule(str(tmp_path), channels=1, **OPTIONS)
    images, labels = evaluated(data)

    shown = as_bytes(images[3], data)

    assert shown.shape == (3, 28, 28)
    assert (shown == 10 * labels[3]).all()


def test_a_tenth_of_each_class_validates_and_packing_does_not_change_which(tmp_path):
    parts = []
    for packed in (True, False):
        data = FashionMnistDataModule(
            str(write(tmp_path / str(packed), {"train": 200, "t10k": 20}, packed)), **OPTIONS
        )
        data.setup("fit")
        parts.append([data.source("val").name(index) for index in range(len(data.source("val")))])
        assert np.bincount(data.source("val").labels).tolist() == [2] * 10
        assert len(data.source("train")) == 180

    assert parts[0] == parts[1]


def test_training_images_are_moved_and_mirrored_and_can_be_augmented(tmp_path):
    write(tmp_path)
    data = FashionMnistDataModule(
        str(tmp_path), auto_augment="rand-m9-mstd0.5", random_erasing=0.5, **OPTIONS
    )
    data.setup("fit")

    shown = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]

    assert len(shown) == 7  # 30 images: each class has given one of its four
    assert all(images.shape == (4, 3, 28, 28) and images.isfinite().all() for images, _ in shown)


def test_clothes_have_names_and_other_data_numbers_or_given_ones(tmp_path):
    write(tmp_path)

    assert FashionMnistDataModule(str(tmp_path)).class_names == list(FASHION)
    assert IdxDataModule(str(tmp_path)).class_names == [str(number) for number in range(10)]
    named = IdxDataModule(str(tmp_path), class_list=list("abcdefghij"))
    assert (named.class_names, named.num_classes) == (list("abcdefghij"), 10)


def error_of(root, stage="fit", kind=FashionMnistDataModule, **options):
    with pytest.raises(UserError) as caught:
        kind(str(root), **(OPTIONS | options)).setup(stage)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_files_are_reported_with_the_way_to_get_them(tmp_path):
    assert error_of(tmp_path / "nowhere").startswith(
        f"{tmp_path}/nowhere: data.init_args.root: has no train-images in IDX format, gzipped or not "
        "(on Debian and Ubuntu: apt install dataset-fashion-mnist; "
    )
    write(tmp_path, {"train": 40})
    assert "has no t10k-images" in error_of(tmp_path, "test")


def test_files_of_several_data_sets_in_one_folder_are_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "emnist-letters-train-images-idx3-ubyte.gz").write_bytes(b"")

    assert "are of different data sets" in error_of(tmp_path)


def test_more_labels_than_names_are_refused(tmp_path):
    write(tmp_path)

    assert "has the label 9, and there are 3 classes" in error_of(
        tmp_path, kind=IdxDataModule, class_list=["a", "b", "c"]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file"),
        (b"\x89PNG", "is not an IDX file"),
        (idx(np.zeros((2, 3), np.uint8)), "has 2 dimensions of type 0x8; 1 of type 0x8 are needed"),
        (b"\0\0\x0d\1" + bytes(8), "has 1 dimensions of type 0xd; 1"),
        (idx(np.zeros(9, np.uint8))[:-1], "is cut off or damaged: 8 bytes for (9,)"),
        (gzip.compress(idx(np.zeros(9, np.uint8)), mtime=0)[:-9], "cannot be read ("),
    ],
)
def test_damaged_files_are_reported(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)

    with pytest.raises(UserError) as caught:
        read_idx(path, 1)

    assert str(caught.value).startswith(f"{path}: {message}")


def test_lacking_labels_are_reported(tmp_path):
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))

    assert error_of(tmp_path).endswith("has 39 labels for 40 images of train-images-idx3-ubyte.gz")


def test_the_debian_packages_files_are_the_default(tmp_path):
    data = FashionMnistDataModule(**OPTIONS)
    if not data.root.is_dir():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    data.setup("fit")

    assert (len(data.source("train")), len(data.source("val")), data.num_classes) == (54_000, 6_000, 10)
    images = data.source("train").whole.images
    assert (round(images.mean() / 255, 4), round(images.std() / 255, 4)) == (0.2860, 0.3530)
