import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from focal_lab.data import CifarDataModule
from focal_lab.errors import UserError

OPTIONS = {"batch_size": 4, "num_workers": 0}
PER_FILE = 20


def content(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(PER_FILE, 3072)).astype(np.uint8), (np.arange(PER_FILE) % classes)


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch):
    """Writes small files in CIFAR's format, whose checksums torchvision then takes for the published ones."""

    def files(root: Path, classes: int = 10) -> Path:
        kind = CIFAR10 if classes == 10 else CIFAR100
        folder = root / kind.base_folder
        folder.mkdir(parents=True)
        key = "labels" if classes == 10 else "fine_labels"
        sums = {}
        for seed, (name, _) in enumerate([*kind.train_list, *kind.test_list]):
            images, labels = content(seed, classes)
            (folder / name).write_bytes(pickle.dumps({"data": images, key: labels.tolist()}, 2))
        names = [f"class {number}" for number in range(classes)]
        (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}, 2))
        for path in folder.iterdir():
            sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
        for part in ("train_list", "test_list"):
            monkeypatch.setattr(kind, part, [[name, sums[name]] for name, _ in getattr(kind, part)])
        meta = kind.meta["filename"]
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums[meta]})
        return folder

    return files


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("classes", [10, 100])
def test_both_data_sets_are_read_from_their_folder_or_the_one_above(write, tmp_path, classes, inner):
    folder = write(tmp_path, classes)
    data = CifarDataModule(str(folder if inner else tmp_path), classes, mean=(0.0,), std=(1.0,), **OPTIONS)
    data.check_files()
    data.setup("test")

    shown = [data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader()]

    images, labels = content(5 if classes == 10 else 1, classes)
    assert torch.cat([labels for _, labels in shown]).tolist() == labels.tolist()
    expected = torch.from_numpy(images.reshape(-1, 3, 32, 32)).float() / 255
    assert torch.allclose(torch.cat([images for images, _ in shown]), expected, atol=1e-6)
    assert data.class_names == [f"class {number}" for number in range(classes)]


@pytest.mark.parametrize("classes", [10, 100])
def test_the_folder_may_have_any_name(write, tmp_path, monkeypatch, classes):
    write(tmp_path, classes).rename(tmp_path / "cifar")
    monkeypatch.chdir(tmp_path / "cifar")
    for root in ("../cifar", "."):
        data = CifarDataModule(root, classes, **OPTIONS)
        data.check_files()
        data.setup("fit")
        assert len(data.class_names) == classes


def test_a_part_of_the_training_files_validates(write, tmp_path):
    write(tmp_path)
    data = CifarDataModule(str(tmp_path), **OPTIONS)
    data.setup("fit")

    assert (len(data.source("train")), len(data.source("val"))) == (90, 10)
    shown = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert len(shown) == 22
    assert all(images.shape == (4, 3, 32, 32) and images.isfinite().all() for images, _ in shown)


def test_a_changed_file_is_refused_and_nothing_in_it_is_executed(write, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    folder = write(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": Evil()}))

    for stage in ("fit", "test"):
        with pytest.raises(UserError, match="cifar-10-batches-py: is damaged: a file does not have the publ"):
            CifarDataModule(str(tmp_path), **OPTIONS).setup(stage)
    assert not (tmp_path / "executed").exists()


def test_missing_files_are_reported_with_the_way_to_get_them(write, tmp_path):
    with pytest.raises(UserError, match=r"root: has no cifar-100-python in it \(unpack .*download=true"):
        CifarDataModule(str(tmp_path), 100, **OPTIONS).setup("fit")
    folder = write(tmp_path)
    (folder / "batches.meta").unlink()
    with pytest.raises(UserError, match=r"root: has no cifar-10-batches-py/batches\.meta in it"):
        CifarDataModule(str(tmp_path), **OPTIONS).check_files()


def test_nothing_is_downloaded_unless_asked_for_and_what_exists_is_not_downloaded_again(
    write, tmp_path, monkeypatch
):
    fetched = []
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", lambda self: fetched.append(self.root))
    CifarDataModule(str(tmp_path), **OPTIONS).prepare_data()
    assert not fetched
    with pytest.raises(UserError, match=r"download: cannot be downloaded \(Dataset not found"):
        CifarDataModule(str(tmp_path), download=True, **OPTIONS).prepare_data()
    assert fetched == [str(tmp_path)]
    write(tmp_path)
    CifarDataModule(str(tmp_path), download=True, **OPTIONS).prepare_data()
    assert fetched == [str(tmp_path)]
