import json
import logging
from functools import partial

import pytest
from pictures_world import class_folders, encoded, noise, open_folder, refusal

OPTIONS = {"image_size": 24, "batch_size": 2, "num_workers": 0}


made, told = partial(open_folder, **OPTIONS), partial(refusal, **OPTIONS)


def labels(data, split):
    return data.source(split).labels.tolist()


def test_without_training_pictures_it_is_told_what_was_expected_and_what_was_found(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "README.md").write_text("no pictures here")

    message = told(tmp_path)

    assert message.startswith(
        f"{tmp_path}: data.init_args.root: has no pictures for train: expected train/CLASS/*.jpg"
    )
    assert message.endswith("; found README.md, images/")


def test_class_folders_without_a_training_folder_are_recognised(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 2})

    assert told(tmp_path).endswith("found cat/, dog/ (put the class folders into a folder train/)")


def test_a_root_that_is_one_folder_too_high_is_recognised(tmp_path):
    class_folders(tmp_path / "imagenet" / "train", {"cat": 2, "dog": 2})

    assert told(tmp_path).endswith(f"found imagenet/ (use root {tmp_path}/imagenet)")


def test_an_empty_folder_and_a_file_are_told_apart(tmp_path):
    (tmp_path / "a.txt").write_text("a")

    assert told(tmp_path / "nowhere").endswith("data.init_args.root: is no folder")
    assert told(tmp_path / "a.txt").endswith("data.init_args.root: is a file")
    (tmp_path / "a.txt").unlink()
    assert told(tmp_path).endswith("; found nothing")


def test_pictures_without_class_folders_are_told(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(9):
        (tmp_path / "train" / f"{number}.jpg").write_bytes(encoded(noise(number)))

    message = told(tmp_path)

    assert "has no class folders, archives or tables: expected" in message
    assert message.endswith("found 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg and 3 more")


def test_one_class_is_refused(tmp_path):
    class_folders(tmp_path / "train", {"cat": 4})
    class_folders(tmp_path / "val", {"cat": 4})

    assert told(tmp_path).endswith("has one class, cat; classification needs two")


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
        "There are no validation pictures: 3 of 30 training pictures are held out for it, 0.1 of each class, "
        "the same ones in every run (data.val_split)."
    ]


def test_the_test_takes_what_validation_takes(tmp_path):
    class_folders(tmp_path / "train", {"cat": 20, "dog": 10})

    data = made(tmp_path, "test", val_split=0.5)

    assert len(data.source("test")) == 15


def test_the_training_set_must_have_a_batch_after_the_split(tmp_path):
    class_folders(tmp_path / "train", {"cat": 4, "dog": 4})

    assert "batch_size: 7 is more than the 6 training pictures" in told(tmp_path, batch_size=7)


def test_who_only_tests_needs_no_training_pictures(tmp_path):
    class_folders(tmp_path / "val", {"cat": 1, "dog": 2})

    data = made(tmp_path, "test")

    assert (data.class_names, labels(data, "test")) == (["cat", "dog"], [0, 1, 1])


def test_hidden_folders_are_no_classes(tmp_path):
    class_folders(tmp_path / "train", {"cat": 4, "dog": 4, ".cache": 1})

    assert made(tmp_path).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.json", json.dumps({"n02": "dog", "n01": "cat", "n09": "not there"})),
        ("classes.json", json.dumps(["cat", "dog"])),
        ("LOC_synset_mapping.txt", "n01 cat\nn02  dog\n"),
    ],
)
def test_readable_names_come_from_a_file(tmp_path, name, content):
    class_folders(tmp_path / "train", {"n01": 4, "n02": 4})
    (tmp_path / name).write_text(content)

    assert made(tmp_path, names=name).class_names == ["cat", "dog"]


def test_equal_names_are_told_apart_by_their_folders(tmp_path):
    class_folders(tmp_path / "train", {"n01": 4, "n02": 4, "n03": 4})
    (tmp_path / "names.json").write_text(json.dumps({"n01": "crane", "n02": "crane", "n03": "cat"}))

    assert made(tmp_path, names="names.json").class_names == ["crane (n01)", "crane (n02)", "cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "is not valid ("),
        ('{"n01": "cat"}', "lacks the class n02 (1 in all)"),
        ("3", "is no mapping of folders to names"),
        ('["cat"]', "is no mapping of folders to names"),
    ],
)
def test_a_wrong_file_of_names_is_told(tmp_path, content, message):
    class_folders(tmp_path / "train", {"n01": 4, "n02": 4})
    if content is not None:
        (tmp_path / "names.json").write_text(content)

    assert f"{tmp_path}/names.json: data.init_args.names: {message}" in told(tmp_path, names="names.json")
