import multiprocessing
import pickle
import tarfile
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures_world import class_folders, encoded, noise, open_folder, read_all, refusal
from torchvision.datasets.folder import IMG_EXTENSIONS

from focal_lab.data.archive_index import PICTURES, index_archive
from focal_lab.errors import UserError

OPTIONS = {"image_size": 24, "batch_size": 4, "num_workers": 0, "max_unreadable": 0}
COUNTS = {"cat": 5, "dog": 4, "emu": 3}


made, told = partial(open_folder, **OPTIONS), partial(refusal, **OPTIONS)


def everything(data):
    """Validation pictures and a training epoch."""
    return [
        [tensor for batch in loader for tensor in data.on_after_batch_transfer(batch, 0)]
        for loader in (data.val_dataloader(), data.train_dataloader())
    ]


def equal(one, other):
    return all(
        len(x) == len(y) and all(torch.equal(a, b) for a, b in zip(x, y, strict=True))
        for x, y in zip(one, other, strict=True)
    )


@pytest.fixture
def folders(tmp_path):
    class_folders(tmp_path / "folders" / "train", COUNTS)
    class_folders(tmp_path / "folders" / "val", {"cat": 2, "emu": 2})
    return tmp_path / "folders"


def files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def add(archive, name, content):
    if isinstance(archive, zipfile.ZipFile):
        archive.writestr(name, content)
    else:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, BytesIO(content))


def packed(path: Path, pictures, top="", **options):
    """An archive of (name, file or bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opening = zipfile.ZipFile if path.suffix == ".zip" else tarfile.open
    with opening(path, "w", **options) as archive:
        for name, content in pictures:
            add(archive, f"{top}{name}", content if isinstance(content, bytes) else content.read_bytes())
    return path


def below(folder):
    return [(str(path.relative_to(folder)), path) for path in files(folder)]


@pytest.mark.parametrize("top", ["", "train/", "./train/", "imagenet/train/"])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("tar", {"format": tarfile.USTAR_FORMAT}),
        ("tar", {"format": tarfile.PAX_FORMAT}),
        ("tar", {"format": tarfile.GNU_FORMAT}),
        ("zip", {}),
        ("zip", {"compression": zipfile.ZIP_DEFLATED}),
    ],
)
def test_a_single_archive_gives_what_the_folders_give(tmp_path, folders, suffix, options, top):
    for split in ("train", "val"):
        packed(tmp_path / "packed" / f"{split}.{suffix}", below(folders / split), top, **options)

    data = made(tmp_path / "packed")

    assert data.class_names == list(COUNTS)
    assert equal(everything(data), everything(made(folders)))


@pytest.mark.parametrize(
    "place", ["train/{:05}.tar", "train-{:05}.tar", "data/train-{:02}-of-03.tar", "x_train_{}.zip"]
)
def test_shards_together_give_what_the_folders_give(tmp_path, folders, place):
    pictures = below(folders / "train")
    for number in range(3):
        packed(tmp_path / "packed" / place.format(number), pictures[number::3])
    packed(tmp_path / "packed" / "val.tar", below(folders / "val"))

    assert equal(everything(made(tmp_path / "packed")), everything(made(folders)))


@pytest.mark.parametrize("nested", [False, True])
def test_one_tar_for_each_class_is_imagenets_own_layout(tmp_path, folders, nested):
    root = tmp_path / "packed"
    tars = [
        packed(
            (tmp_path / "classes" if nested else root / "train") / f"{name}.tar",
            [(path.name, path) for path in files(folders / "train" / name)],
        )
        for name in COUNTS
    ]
    if nested:
        packed(root / "ILSVRC2012_img_train.tar", [(path.name, path) for path in tars])
    packed(root / "val.tar", below(folders / "val"))

    assert equal(everything(made(root)), everything(made(folders)))


@pytest.mark.parametrize("top", ["", "imagenet/"])
@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_root_may_be_one_archive_of_all_splits(tmp_path, folders, suffix, top):
    root = packed(tmp_path / f"all.{suffix}", below(folders), top)

    assert equal(everything(made(root)), everything(made(folders)))
    whole = packed(tmp_path / f"train_only.{suffix}", below(folders / "train"), "train/")
    assert len(made(whole, val_split=0.4).source("val")) == 5
    assert told(packed(tmp_path / f"other.{suffix}", below(folders / "train"))).endswith(
        "has no folder train/ in it"
    )


def webdataset(shards, root, folders, split="train"):
    names = list(COUNTS)
    pictures = below(folders / split)
    for number in range(shards):
        members = []
        for path, file in pictures[number::shards]:
            key = path.replace("/", "_").removesuffix(".jpg")
            label = str(names.index(path.partition("/")[0]))
            members += [(f"{key}.cls", label.encode()), (f"{key}.jpg", file), (f"{key}.json", b"{}")]
        packed(root / f"{split}-{number:06}.tar", members)


def test_webdatasets_label_files_are_the_classes(tmp_path, folders):
    webdataset(2, tmp_path / "wds", folders)
    (tmp_path / "wds" / "names.json").write_text('["cat", "dog", "emu"]')

    data = made(tmp_path / "wds", names="names.json", val_split=0.4)

    assert data.folders == ["0", "1", "2"]
    assert data.class_names == ["cat", "dog", "emu"]
    source = data.source("train").whole
    assert np.bincount(source.labels).tolist() == [5, 4, 3]
    for index in range(len(source)):
        name = list(COUNTS)[source.labels[index]]
        stem = source.name(index).rpartition("_")[2]
        assert source.read(index) == (folders / "train" / name / stem).read_bytes()


def test_a_picture_without_its_label_file_is_told(tmp_path):
    packed(
        tmp_path / "train.tar", [("a.jpg", encoded(noise(0))), ("a.cls", b"1"), ("b.jpg", encoded(noise(1)))]
    )

    assert told(tmp_path).endswith("train.tar: has no b.cls for b.jpg")


def test_a_label_file_that_holds_no_number_is_told(tmp_path):
    packed(tmp_path / "train.tar", [("a.jpg", encoded(noise(0))), ("a.cls", b"cat")])

    assert told(tmp_path).endswith("train.tar: a.cls says 'cat', and not the number of a class")


def test_other_pictures_of_a_key_are_left_alone(tmp_path):
    members = [(f"{key}.{kind}", encoded(noise(0), "PNG")) for key in "ab" for kind in ("png", "seg.png")]
    packed(tmp_path / "train.tar", [*members, ("a.cls", b"0"), ("b.cls", b"1")] * 1)

    assert len(made(tmp_path, val_split=0.5, batch_size=2).source("train")) == 2


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_what_macos_puts_beside_pictures_is_no_picture(tmp_path, folders, suffix):
    junk = [("__MACOSX/cat/._0.jpg", b"junk"), ("cat/._1.jpg", b"junk"), (".DS_Store", b"junk")]
    packed(tmp_path / f"train.{suffix}", below(folders / "train") + junk)

    assert np.bincount(made(tmp_path, "validate", val_split=0.4).source("train").whole.labels).tolist() == [
        5,
        4,
        3,
    ]


def test_hard_links_in_a_tar_are_pictures_too(tmp_path, folders):
    path = packed(tmp_path / "train.tar", below(folders / "train"))
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("dog/linked.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "dog/0.jpg"
        archive.addfile(link)

    source = made(tmp_path).source("train").whole

    assert np.bincount(source.labels).tolist() == [5, 5, 3]
    contents = {source.name(index): source.read(index) for index in range(len(source))}
    assert contents[f"{path}/dog/linked.jpg"] == contents[f"{path}/dog/0.jpg"]


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "train.tar: data.init_args.root: has no pictures in it"),
        (
            ["a.jpg", "b.jpg"],
            "does not tell the classes of its pictures: expected CLASS/NAME.jpg, or KEY.jpg with KEY.cls; "
            "found a.jpg",
        ),
        (["cat/a.jpg", "b.jpg"], "has b.jpg outside of the class folders"),
        (["cat/a.jpg", "cat/b.jpg"] * 2, "has one class, cat; classification needs two"),
    ],
)
def test_archives_that_do_not_tell_their_classes_are_refused(tmp_path, pictures, message):
    packed(tmp_path / "train.tar", [(name, encoded(noise(0))) for name in pictures])

    assert message in told(tmp_path)


def test_numbered_shards_are_not_taken_for_classes(tmp_path):
    for number in range(3):
        packed(tmp_path / "train" / f"part-{number}.tar", [(f"{number}.jpg", encoded(noise(number)))])

    assert "does not tell the classes of its pictures" in told(tmp_path)


def test_compressed_tars_are_refused_with_the_reason(tmp_path, folders):
    with tarfile.open(tmp_path / "train.tar.gz", "w:gz") as archive:
        archive.add(folders / "train", "train")

    assert "train.tar.gz: data.init_args.root: is compressed as a whole" in told(tmp_path)


@pytest.mark.parametrize("suffix", ["tar", "zip"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda _: b"nothing", lambda _: b""]
)
def test_damaged_archives_are_told(tmp_path, folders, suffix, damage):
    path = packed(tmp_path / f"train.{suffix}", below(folders / "train"))
    path.write_bytes(damage(path.read_bytes()))

    assert f"{path}: is damaged, cut off or no {suffix} (" in told(tmp_path)


def test_rare_compression_is_refused(tmp_path, folders):
    packed(tmp_path / "train.zip", below(folders / "train"), compression=zipfile.ZIP_LZMA)

    assert "in a rare way (make it anew with zip -0)" in told(tmp_path)


def test_an_unreadable_member_is_named_by_archive_and_path(tmp_path, folders):
    (folders / "train" / "cat" / "0.jpg").write_bytes(b"no picture")
    packed(tmp_path / "train.tar", below(folders / "train"))
    packed(tmp_path / "val.tar", below(folders / "train"))

    with pytest.raises(
        UserError, match=r"val\.tar/cat/0\.jpg: data\.init_args\.max_unreadable: cannot be read"
    ):
        list(made(tmp_path).val_dataloader())


@pytest.mark.parametrize(("method", "count"), [("fork", 2), ("spawn", 1)])
def test_processes_read_the_same_archives_at_the_same_time(tmp_path, folders, method, count):
    for number in range(2):
        packed(tmp_path / f"train-{number}.tar", below(folders / "train")[number::2])
    source = made(tmp_path).source("train").whole
    expected = [source.read(index) for index in range(len(source))]  # files are open before the others begin
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=read_all, args=(source, queue)) for _ in range(count)]
    for child in children:
        child.start()

    assert [queue.get(timeout=60) for _ in children] == [expected] * count
    for child in children:
        child.join()
    assert pickle.loads(pickle.dumps(source)).read(3) == expected[3]


def test_pictures_in_archives_are_told_by_torchvisions_endings():
    assert PICTURES == IMG_EXTENSIONS


def test_more_archives_than_files_may_be_open(tmp_path):
    for number in range(70):
        members = [(f"{'ab'[number % 2]}/{number}.jpg", encoded(noise(number, (4, 4)), "PNG"))]
        packed(tmp_path / f"train-{number}.tar", members)
    source = made(tmp_path).source("train").whole

    for _ in range(2):
        assert len({source.read(index) for index in range(len(source))}) == 70


def test_an_index_that_took_long_is_kept_until_the_archive_changes(tmp_path, folders, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("focal_lab.data.archive_index._WORTH_KEEPING", 0.0)
    path = packed(tmp_path / "train.tar", below(folders / "train"))
    first = index_archive(path)
    (kept,) = (tmp_path / "cache" / "focal-lab" / "archives").iterdir()

    monkeypatch.setattr(
        "focal_lab.data.archive_index._indexed", lambda path: pytest.fail("was indexed again")
    )
    assert list(index_archive(path).members()) == list(first.members())
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept.write_bytes(b"damaged")
    assert list(index_archive(path).members()) == list(first.members())
    packed(path, below(folders / "val"))
    assert len(list(index_archive(path).members())) == 4
