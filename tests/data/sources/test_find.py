import json
import logging
import os
import warnings
from functools import partial

import numpy as np
import pytest
from support.image_folders import class_folders, encoded, noise, open_folder, refusal

OPTIONS = {"image_size": 24, "batch_size": 2, "num_workers": 0}


made, error_of = partial(open_folder, **OPTIONS), partial(refusal, **OPTIONS)


def labels(data, split):
    return data.source(split).labels.tolist()


def test_without_training_images_it_is_reported_what_was_expected_and_what_was_found(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "README.md").write_text("no images here")

    message = error_of(tmp_path)

    assert message.startswith(
        f"{tmp_path}: data.init_args.root: has no images for train: expected train/CLASS/*.jpg"
    )
    assert message.endswith("; found README.md, images/")


def test_class_folders_without_a_training_folder_are_recognised(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 2})

    assert error_of(tmp_path).endswith("found cat/, dog/ (put the class folders into a folder train/)")


def test_a_root_that_is_one_folder_too_high_is_recognised(tmp_path):
    class_folders(tmp_path / "imagenet" / "train", {"cat": 2, "dog": 2})

    assert error_of(tmp_path).endswith(f"found imagenet/ (use root {tmp_path}/imagenet)")


def test_an_empty_folder_and_a_file_are_reported_apart(tmp_path):
    (tmp_path / "a.txt").write_text("a")

    assert error_of(tmp_path / "nowhere").endswith("data.init_args.root: is not a folder")
    assert error_of(tmp_path / "a.txt").endswith("data.init_args.root: is a file")
    (tmp_path / "a.txt").unlink()
    assert error_of(tmp_path).endswith("; found nothing")


def test_images_without_class_folders_are_reported(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(9):
        (tmp_path / "train" / f"{number}.jpg").write_bytes(encoded(noise(number)))

    message = error_of(tmp_path)

    assert "has no class folders, archives or tables: expected" in message
    assert message.endswith("found 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 4 more")


def test_one_class_is_refused(tmp_path):
    class_folders(tmp_path / "train", {"cat": 4})
    class_folders(tmp_path / "val", {"cat": 4})

    assert error_of(tmp_path).endswith("has one class, cat; classification needs two")


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_the_validation_folder_may_be_called_differently(tmp_path, name):
    class_folders(tmp_path / "train", {"cat": 4, "dog": 4})
    class_folders(tmp_path / name, {"cat": 1, "dog": 2})

    assert labels(made(tmp_path), "val") == [0, 1, 1]


def test_without_validation_a_fixed_part_of_each_class_is_held_out_and_it_is_said_once(tmp_path, caplog):
    class_folders(tmp_path / "train", {"cat": 20, "dog": 10})

    with caplog.at_level(logging.INFO):
        data = made(tmp_path)
        data.setup("validate")
    said = [record.getMessage() for record in caplog.records if "held out" in record.getMessage()]
    other = made(tmp_path, seed=5)

    assert [sum(1 for one in labels(data, "val") if one == label) for label in (0, 1)] == [2, 1]
    assert len(data.source("train")) == 27
    for split in ("train", "val"):
        source, same = data.source(split), other.source(split)
        assert [source.name(i) for i in range(len(source))] == [same.name(i) for i in range(len(same))]
    assert said == [
        "There are no validation images: 3 of 30 training images are held out, 0.1 of each class, "
        "the same ones in every run (data.val_split)."
    ]


def test_the_test_takes_what_validation_takes(tmp_path):
    class_folders(tmp_path / "train", {"cat": 20, "dog": 10})

    data = made(tmp_path, "test", val_split=0.5)

    assert len(data.source("test")) == 15


def test_the_training_set_must_have_a_batch_after_the_split(tmp_path):
    class_folders(tmp_path / "train", {"cat": 4, "dog": 4})

    assert "batch_size: 7 is more than the 6 training images" in error_of(tmp_path, batch_size=7)


def test_testing_alone_needs_no_training_images(tmp_path):
    class_folders(tmp_path / "val", {"cat": 1, "dog": 2})

    data = made(tmp_path, "test")

    assert (data.class_names, labels(data, "test")) == (["cat", "dog"], [0, 1, 1])


def test_what_is_no_image_and_no_class_is_named_once(tmp_path):
    junk = {".ipynb_checkpoints": 1, "__MACOSX": 1, "@eaDir": 1}
    train = class_folders(tmp_path / "train", {"cat": 4, "dog": 4, "empty": 0} | junk)
    class_folders(tmp_path / "val", {"cat": 1, "dog": 1, "unknown": 0})
    for name in (
        "cat/._0.jpg",
        "cat/Thumbs.db",
        "dog/0.heic",
        "dog/1.HEIC",
        "dog/x.npy",
        "stray.jpg",
        "a.txt",
    ):
        (train / name).write_bytes(b"no image")
    (train / "dog" / "SUB").mkdir()
    (train / "dog" / "SUB" / "0.JPG").write_bytes(encoded(noise(0)))
    for link, target in {"dog/loop": train, "dog/lost.jpg": "nowhere", "kitten": train / "cat"}.items():
        (train / link).symlink_to(target)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = made(tmp_path, max_unreadable=0)

    assert data.class_names == ["cat", "dog", "kitten"]
    assert np.bincount(data.source("train").labels).tolist() == [4, 5, 4]
    assert [str(warning.message) for warning in caught] == [
        f"{train}: not read: 2 .heic files (dog/0.heic, ...), 1 .npy files (dog/x.npy), "
        "1 broken links or devices (dog/lost.jpg), 1 folders without images (empty), "
        "7 hidden or system files (.ipynb_checkpoints, ...), 1 images outside the class folders (stray.jpg), "
        "1 links to a folder above them (dog/loop/)",
        f"{tmp_path}/val: not read: 1 folders without images (unknown)",
    ]


def test_a_second_folder_of_a_split_and_files_beside_shards_are_named(tmp_path):
    class_folders(tmp_path / "train", {"cat": 4, "dog": 4})
    for name in ("val", "validation"):
        class_folders(tmp_path / name, {"cat": 1})
    with pytest.warns(UserWarning, match="val/ is read, and validation/ is not"):
        made(tmp_path)
    (tmp_path / "test-0.tar.gz").write_bytes(b"")
    (tmp_path / "test-1.tar").write_bytes(b"")

    assert "test-0.tar.gz: data.init_args.root: is compressed as a whole" in error_of(tmp_path, "test")


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    train = class_folders(tmp_path / "train", {"cat": 4, "dog": 4})
    plain = os.scandir

    def locked(folder):
        if str(folder).startswith(str(train / "dog")):
            raise PermissionError(13, "Permission denied")
        return plain(folder)

    monkeypatch.setattr("focal_lab.data.loading.list_files.os.scandir", locked)

    assert error_of(tmp_path).endswith("train/dog: cannot be listed (Permission denied)")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.json", json.dumps({"n02": "dog", "n01": "cat", "n09": "not there"})),
        ("classes.json", json.dumps(["cat", "dog"])),
        ("LOC_synset_mapping.txt", "n01 cat\nn02  dog\n"),
        ("windows.txt", "\ufeffn01 cat  \r\nn02 dog\r\n"),
        ("windows.json", '\ufeff{"n01": "cat", "n02": "dog "}'),
    ],
)
def test_readable_names_come_from_a_file(tmp_path, name, content):
    class_folders(tmp_path / "train", {"n01": 4, "n02": 4})
    (tmp_path / name).write_text(content)

    assert made(tmp_path, names=name).class_names == ["cat", "dog"]


def test_equal_names_are_reported_apart_by_their_folders(tmp_path):
    class_folders(tmp_path / "train", {"n01": 4, "n02": 4, "n03": 4})
    (tmp_path / "names.json").write_text(json.dumps({"n01": "crane", "n02": "crane", "n03": "cat"}))

    assert made(tmp_path, names="names.json").class_names == ["crane (n01)", "crane (n02)", "cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "is not valid ("),
        ('{"n01": "cat"}', "lacks the class n02 (1 in all)"),
        ("3", "is not a mapping of folders to names"),
        ('["cat"]', "has 1 names for 2 classes: n01, n02"),
        ('{"n01": "cat", "n02": "dog", "n01": "emu"}', "is not valid (n01 occurs twice)"),
        ('{"n01": "cat", "n02": null}', "names the class n02 None, which is not text"),
    ],
)
def test_a_wrong_file_of_names_is_reported(tmp_path, content, message):
    class_folders(tmp_path / "train", {"n01": 4, "n02": 4})
    if content is not None:
        (tmp_path / "names.json").write_text(content)

    assert f"{tmp_path}/names.json: data.init_args.names: {message}" in error_of(tmp_path, names="names.json")
