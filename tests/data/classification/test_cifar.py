import io
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from focal_lab.data.classification.cifar import CifarDataModule
from focal_lab.errors import UserError

OPTIONS = {"batch_size": 4, "num_workers": 0}
PER_FILE = 20


def content(seed: int, classes: int):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(PER_FILE, 3072)).astype(np.uint8), (np.arange(PER_FILE) % classes)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as the strings of Python 2, as in the published files."""

    def save_string(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch: ClassVar = pickle._Pickler.dispatch | {bytes: save_string}


def as_python_2_wrote(pictures, labels, key):
    # numpy's module by its old name
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(
        {b"data": pictures, key.encode(): labels.tolist(), b"batch_label": b"a batch"}
    )
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write(root: Path, classes=10, binary=False):
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"] if classes == 10 else ["train", "test"]
    kind = "bin" if binary else "py"
    folder = root / (
        f"cifar-10-batches-{kind}" if classes == 10 else f"cifar-100-{'binary' if binary else 'python'}"
    )
    folder.mkdir(parents=True)
    called = [f"class {number}" if not binary else f"class{number}" for number in range(classes)]
    for seed, name in enumerate(names):
        pictures, labels = content(seed, classes)
        if binary:
            before = [labels] if classes == 10 else [labels * 0, labels]
            rows = np.column_stack([*before, pictures]).astype(np.uint8)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            key = "labels" if classes == 10 else "fine_labels"
            (folder / name).write_bytes(as_python_2_wrote(pictures, labels, key))
    if binary:
        meta = folder / ("batches.meta.txt" if classes == 10 else "fine_label_names.txt")
        meta.write_text("\n".join(called) + "\n")
    else:
        meta = folder / ("batches.meta" if classes == 10 else "meta")
        meta.write_bytes(
            pickle.dumps({"label_names" if classes == 10 else "fine_label_names": called}, protocol=2)
        )
    return folder


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("classes", [10, 100])
def test_both_formats_of_both_data_sets_give_the_same_pictures(tmp_path, classes, binary):
    write(tmp_path, classes, binary)
    data = CifarDataModule(str(tmp_path), classes, mean=(0.0,), std=(1.0,), **OPTIONS)
    data.setup("test")

    shown = [data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader()]

    pictures, labels = content(5 if classes == 10 else 1, classes)
    assert torch.cat([labels for _, labels in shown]).tolist() == labels.tolist()
    expected = torch.from_numpy(pictures.reshape(-1, 3, 32, 32)).float() / 255
    assert torch.allclose(torch.cat([pictures for pictures, _ in shown]), expected, atol=1e-6)
    assert [name.replace(" ", "") for name in data.class_names] == [
        f"class{number}" for number in range(classes)
    ]


def test_a_part_of_the_training_files_validates(tmp_path):
    write(tmp_path)
    data = CifarDataModule(str(tmp_path / "cifar-10-batches-py"), **OPTIONS)
    data.setup("fit")

    assert (len(data.source("train")), len(data.source("val"))) == (90, 10)
    shown = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert len(shown) == 22
    assert all(pictures.shape == (4, 3, 32, 32) and pictures.isfinite().all() for pictures, _ in shown)


def test_a_file_that_asks_for_anything_but_arrays_is_refused_and_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    folder = write(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": Evil()}))

    with pytest.raises(UserError, match=r"data_batch_3: is damaged or no batch of CIFAR \(it asks for"):
        CifarDataModule(str(tmp_path), **OPTIONS).setup("fit")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"", "is damaged or no batch"),
        (pickle.dumps([1]), r"is no batch of CIFAR-10"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}), r"is no batch of CIFAR-10"),
        (
            pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}),
            r"has labels that are not in 0 to 9",
        ),
        (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}), r"is no batch of CIFAR-10"),
    ],
)
def test_damaged_files_are_told(tmp_path, damaged, message):
    (write(tmp_path) / "data_batch_2").write_bytes(damaged)

    with pytest.raises(UserError, match=rf"data_batch_2: {message}"):
        CifarDataModule(str(tmp_path), **OPTIONS).setup("fit")


def test_a_cut_off_binary_file_is_told(tmp_path):
    path = write(tmp_path, binary=True) / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(UserError, match=r"data_batch_1\.bin: is cut off: no multiple of 3073 bytes"):
        CifarDataModule(str(tmp_path), **OPTIONS).setup("fit")


def test_missing_files_are_told_with_the_way_to_get_them(tmp_path):
    with pytest.raises(UserError, match=r"root: has no cifar-100-python in it \(--data\.download=true lets"):
        CifarDataModule(str(tmp_path), 100, **OPTIONS).setup("fit")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"found cifar-10-python\.tar\.gz: unpack it"):
        CifarDataModule(str(tmp_path), **OPTIONS).setup("fit")


def test_nothing_is_fetched_unless_that_is_asked_for_and_what_is_there_is_not_fetched_again(
    tmp_path, monkeypatch
):
    fetched = []
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", lambda self: fetched.append(self.root))
    CifarDataModule(str(tmp_path), **OPTIONS).prepare_data()
    assert not fetched
    with pytest.raises(UserError, match=r"download: cannot be fetched \(Dataset not found"):
        CifarDataModule(str(tmp_path), download=True, **OPTIONS).prepare_data()
    assert fetched == [str(tmp_path)]
    write(tmp_path)
    CifarDataModule(str(tmp_path), download=True, **OPTIONS).prepare_data()
    assert fetched == [str(tmp_path)]
