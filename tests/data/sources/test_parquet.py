import json
import sys

import numpy as np
import pytest
import torch
from support.image_folders import class_folders

from focal_lab.data.classification.image_folder import ImageFolderDataModule
from focal_lab.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

OPTIONS = {"image_size": 24, "batch_size": 4, "num_workers": 0, "max_unreadable": 0}
COUNTS = {"cat": 9, "dog": 8, "emu": 7}
FEATURES = {"image": {"_type": "Image"}, "label": {"names": list(COUNTS), "_type": "ClassLabel"}}


def classes(*names):
    return {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}


def made(root, stage="fit", **options):
    data = ImageFolderDataModule(str(root), **(OPTIONS | options))
    data.setup(stage)
    return data


def error_of(root, **options):
    with pytest.raises(UserError) as caught:
        made(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folders(tmp_path):
    class_folders(tmp_path / "folders" / "train", COUNTS)
    class_folders(tmp_path / "folders" / "val", {"cat": 2, "emu": 2})
    return tmp_path / "folders"


def rows(folder):
    """(bytes, name, label) of the images of a split, by class."""
    files = sorted(folder.rglob("*.jpg"))
    return [(path.read_bytes(), path.name, list(COUNTS).index(path.parent.name)) for path in files]


def write(path, rows, *, features=FEATURES, labels=None, image="image", label="label", plain=False, **extra):
    """A table as Hugging Face's library writes them; row groups of four."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": content, "path": name} for content, name, _ in rows]
    columns = {
        image: [one["bytes"] for one in images] if plain else images,
        label: [number for _, _, number in rows] if labels is None else labels,
    }
    table = pa.table(columns | extra)
    if features:
        noted = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(noted)
    pq.write_table(table, path, row_group_size=4)
    return path


def batches(data, loader):
    return [tensor for batch in loader for tensor in data.on_after_batch_transfer(batch, 0)]


@pytest.mark.parametrize(
    "place", ["data/train-{:05}-of-00002.parquet", "train/{}.parquet", "train-{}.parquet"]
)
def test_tables_are_found_and_hold_what_the_folders_hold(tmp_path, folders, place):
    images = rows(folders / "train")
    for number in range(2):
        write(tmp_path / "hub" / place.format(number), images[12 * number : 12 * (number + 1)])
    write(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet", rows(folders / "val"))

    data, same = made(tmp_path / "hub"), made(folders)

    assert data.class_names == list(COUNTS)
    shown, expected = batches(data, data.val_dataloader()), batches(same, same.val_dataloader())
    assert all(torch.equal(one, other) for one, other in zip(shown, expected, strict=True))
    source, other = data.source("train"), same.source("train")
    assert source.labels.tolist() == other.labels.tolist()
    assert [source.read(i) for i in range(24)] == [other.read(i) for i in range(24)]
    assert source.name(13).endswith(place.format(1) + "#1")


def test_each_row_group_is_read_once_in_an_epoch_and_images_are_shuffled(tmp_path, folders, monkeypatch):
    images = rows(folders / "train")
    write(tmp_path / "train.parquet", images)
    write(tmp_path / "val.parquet", rows(folders / "val"))
    data = made(tmp_path)
    loader = data.train_dataloader()
    read = []
    plain = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, i, **options: read.append(i) or plain(self, i, **options),
    )

    orders = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        orders.append([draw.image for draw in loader.sampler])
        list(loader)

    assert sorted(read) == list(range(6))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(24))
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_prepare_the_same_batches(tmp_path, folders, workers):
    write(tmp_path / "train.parquet", rows(folders / "train"))
    write(tmp_path / "val.parquet", rows(folders / "val"))
    data, alone = made(tmp_path, num_workers=workers), made(tmp_path)
    alone.source("train").read(0)  # something is kept before others are forked
    data.source("train").read(0)

    shown, expected = batches(data, data.train_dataloader()), batches(alone, alone.train_dataloader())

    assert all(torch.equal(one, other) for one, other in zip(shown, expected, strict=True))


def test_old_row_groups_are_given_up(tmp_path, folders, monkeypatch):
    write(tmp_path / "train.parquet", rows(folders / "train"))
    source = made(tmp_path, "validate").source("train").whole
    monkeypatch.setattr("focal_lab.data.sources.parquet._KEPT_BYTES", 1)

    contents = [source.read(index) for index in (0, 23, 0)]

    assert contents[0] == contents[2]
    assert len(source._kept) == 1


def test_without_validation_a_part_is_held_out(tmp_path, folders):
    write(tmp_path / "train.parquet", rows(folders / "train"))

    data = made(tmp_path, val_split=0.25)

    assert np.bincount(data.source("val").labels).tolist() == [2, 2, 2]
    assert len(batches(data, data.train_dataloader())) == 2 * 4


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({"features": None}, ["0", "1", "2"]),
        ({"features": None, "plain": True, "image": "img"}, ["0", "1", "2"]),
        ({"features": None, "labels": [list(COUNTS)[i % 3] for i in range(24)]}, list(COUNTS)),
    ],
)
def test_tables_of_other_origin_are_understood_by_usual_names(tmp_path, folders, options, classes):
    write(tmp_path / "train.parquet", rows(folders / "train"), **options)

    assert made(tmp_path).class_names == classes


def test_of_several_columns_one_must_be_named(tmp_path, folders):
    features = {
        "image": {"_type": "Image"},
        "fine": {"_type": "ClassLabel", "names": list(COUNTS)},
        "coarse": {"_type": "ClassLabel", "names": ["x", "y", "z"]},
    }
    write(
        tmp_path / "train.parquet",
        rows(folders / "train"),
        features=features,
        label="fine",
        coarse=[0, 1, 2] * 8,
    )

    assert (
        "data.init_args.label_column: name the column (several columns may be it: fine, coarse)"
        in error_of(tmp_path)
    )
    assert made(tmp_path, label_column="fine").class_names == list(COUNTS)
    assert made(tmp_path, label_column="coarse").class_names == ["x", "y", "z"]
    assert "image_column: has no column nope: it has image, fine, coarse" in error_of(
        tmp_path, image_column="nope"
    )


def test_a_test_without_labels_is_predicted_and_not_evaluated(tmp_path, folders):
    write(tmp_path / "train.parquet", rows(folders / "train"))
    write(tmp_path / "validation.parquet", rows(folders / "val"))
    write(tmp_path / "test.parquet", rows(folders / "val"), labels=[-1] * 4)

    assert made(tmp_path, "test").source("test").labels.tolist() == [0, 0, 2, 2]
    data = made(tmp_path, "predict")
    assert [path.name for path in data.predict_files] == [f"test.parquet#{row}" for row in range(4)]
    assert torch.cat([labels for _, labels in data.predict_dataloader()]).tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"labels": [0, 1, 3] * 8},
            "train.parquet#2: the column label has 3, which is not a class (use 0 to 2)",
        ),
        ({"labels": [0, -1, 1] * 8}, "train.parquet#1: the column label has -1, which is not a class"),
        ({"labels": [-1] * 24}, "has no labels for train: all are -1 or null"),
        ({"labels": [0, 1, 2, None] * 6}, "train.parquet#3: has no label in the column label (null)"),
        (
            {"labels": ["cat", None, "dog"] * 8, "features": None},
            "train.parquet#1: has no label in the column",
        ),
        (
            {"labels": ["cat", "dog", ""] * 8},
            "train.parquet#2: the column label has '', which is not a class",
        ),
        ({"labels": ["cat", "cat "] * 12, "features": None}, "train.parquet#1: the column label has 'cat '"),
        (
            {"labels": ["cat", "cow"] * 12},
            "train.parquet#1: the column label has 'cow', which is not a class",
        ),
        ({"labels": [0.5] * 24}, "its column label is of double; labels are integers or strings"),
        ({"labels": [True, False] * 12}, "its column label is of bool; labels are integers or strings"),
        ({"labels": [0, 10**9] * 12, "features": None}, "has the label 1000000000; up to 999999 can be read"),
        (
            {"features": classes("cat", "dog", "cat")},
            "names the class 'cat', which is not text or occurs twice",
        ),
        ({"features": None, "image": "x"}, "image_column: name the column (it has x, label)"),
        ({"features": None, "label": "y"}, "label_column: name the column (it has image, y)"),
    ],
)
def test_wrong_columns_are_reported(tmp_path, folders, options, message):
    write(tmp_path / "train.parquet", rows(folders / "train"), **options)

    assert message in error_of(tmp_path)


def test_a_label_that_is_too_large_is_reported_with_its_own_file(tmp_path, folders):
    write(tmp_path / "train" / "first.parquet", rows(folders / "train"), features=None)
    write(tmp_path / "train" / "other.parquet", rows(folders / "train"), features=None, labels=[10**9] * 24)

    assert "other.parquet: has the label 1000000000" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"features": classes("cat", "emu", "dog")},
            "other.parquet: its classes are not those of {first}: 'cat', 'emu', 'dog' here and "
            "'cat', 'dog', 'emu' there",
        ),
        (
            {"features": None},
            "other.parquet: its classes are not those of {first}: '(no names)' here and 'cat', ",
        ),
        (
            {"labels": ["cat"] * 24},
            "other.parquet: its column label has strings, and that of {first} has numbers",
        ),
        (
            {"label": "cls", "features": None},
            "other.parquet: has columns ('image.bytes', 'cls'), and {first} has",
        ),
    ],
)
def test_shards_with_other_classes_are_refused_with_both_lists(tmp_path, folders, other, message):
    first = write(tmp_path / "train" / "first.parquet", rows(folders / "train"))
    write(tmp_path / "train" / "other.parquet", rows(folders / "train"), **other)

    assert message.format(first=first) in error_of(tmp_path)


def test_splits_number_their_classes_alike(tmp_path, folders):
    train = write(tmp_path / "train.parquet", rows(folders / "train"))
    write(
        tmp_path / "val.parquet", rows(folders / "val"), features=classes("cat", "dog"), labels=[0, 1, 0, 1]
    )
    assert made(tmp_path).source("val").labels.tolist() == [0, 1, 0, 1]
    write(tmp_path / "val.parquet", rows(folders / "val"), features=classes("dog", "cat", "emu"))

    assert error_of(tmp_path).endswith(
        f"val.parquet: numbers its classes differently from {train}: 'dog', 'cat', 'emu' here and "
        "'cat', 'dog', 'emu' there"
    )


@pytest.mark.filterwarnings("ignore:.*cannot be read")
def test_rows_without_the_files_content_are_unreadable(tmp_path, folders):
    images = [(None, name, label) for _, name, label in rows(folders / "val")]
    write(tmp_path / "train.parquet", rows(folders / "train"))
    write(tmp_path / "val.parquet", images)

    with pytest.raises(UserError, match=r"val\.parquet#0: .*the table names a file, but does not contain it"):
        list(made(tmp_path).val_dataloader())


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing"])
def test_damaged_files_are_reported(tmp_path, content):
    (tmp_path / "train.parquet").write_bytes(content)

    assert error_of(tmp_path).startswith(f"{tmp_path}/train.parquet: is damaged or not a Parquet file (")


def test_without_pyarrow_the_way_out_is_reported(tmp_path, folders, monkeypatch):
    write(tmp_path / "train.parquet", rows(folders / "train"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    assert error_of(tmp_path).endswith(
        "train.parquet: is a Parquet file, which needs pyarrow (pip install 'focal-lab[parquet]')"
    )
