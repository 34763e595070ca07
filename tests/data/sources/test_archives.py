import multiprocessing
import os
import pickle
import stat
import subprocess
import sys
import tarfile
import warnings
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from support.image_folders import class_folders, encoded, noise, open_folder, read_all, refusal

from focal_lab.data.sources.archive_index import index_archive
from focal_lab.data.sources.archives import open_archives
from focal_lab.errors import UserError

OPTIONS = {"image_size": 24, "batch_size": 4, "num_workers": 0, "max_unreadable": 0}
COUNTS = {"cat": 5, "dog": 4, "emu": 3}


made, error_of = partial(open_folder, **OPTIONS), partial(refusal, **OPTIONS)


def everything(data):
    """Validation images and a training epoch."""
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


def packed(path: Path, images, top="", **options):
    """An archive of (name, file or bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opening = zipfile.ZipFile if path.suffix == ".zip" else tarfile.open
    with opening(path, "w", **options) as archive:
        for name, content in images:
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
    images = below(folders / "train")
    for number in range(3):
        packed(tmp_path / "packed" / place.format(number), images[number::3])
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
    assert error_of(packed(tmp_path / f"other.{suffix}", below(folders / "train"))).endswith(
        "has no folder train/ in it"
    )


def webdataset(shards, root, folders, split="train"):
    names = list(COUNTS)
    images = below(folders / split)
    for number in range(shards):
        members = []
        for path, file in images[number::shards]:
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


def test_an_image_without_its_label_file_is_reported(tmp_path):
    packed(
        tmp_path / "train.tar", [("a.jpg", encoded(noise(0))), ("a.cls", b"1"), ("b.jpg", encoded(noise(1)))]
    )

    assert error_of(tmp_path).endswith("train.tar: has no b.cls for b.jpg")


def test_a_label_file_that_holds_no_number_is_reported(tmp_path):
    packed(tmp_path / "train.tar", [("a.jpg", encoded(noise(0))), ("a.cls", b"cat")])

    assert error_of(tmp_path).endswith("train.tar: a.cls holds 'cat', which is not the number of a class")


SYMBOLIC, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
A, B, C, D = (encoded(noise(number)) for number in range(4))
JUNK = [
    "cat/._0.jpg",
    "__MACOSX/a/0.jpg",
    "cat/@eaDir/0.jpg/X.jpg",
    ".ipynb_checkpoints/0.jpg",
    "cat/Thumbs.db",
]


def listed(path, members):
    """What a tar of (name, content, or type of link and target) holds: name to content, and its warnings."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            if isinstance(content, bytes):
                add(archive, name, content)
                continue
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = content
            archive.addfile(entry)
    return contents([path])


def contents(paths):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = open_archives(paths, paths[0])
    source = found.source(found.classes)
    names = [source.name(index).partition(".tar/")[2] or source.name(index) for index in range(len(source))]
    labels = [found.classes[label] for label in source.labels]
    read = {n: (label, source.read(i)) for i, (n, label) in enumerate(zip(names, labels, strict=True))}
    return read, [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("members", "found", "left"),
    [
        (
            [("cat/run.0.png", A), ("cat/run.1.png", B), ("dog/X.JPG", C)],
            {"cat/run.0.png": ("cat", A), "cat/run.1.png": ("cat", B), "dog/X.JPG": ("dog", C)},
            "",
        ),
        (
            [("run.0.png", A), ("run.0.cls", b"0"), ("run.1.png", B), ("run.1.cls", b"1\n")],
            {"run.0.png": ("0", A), "run.1.png": ("1", B)},
            "",
        ),
        (
            [
                ("a.image.jpg", A),
                ("a.cls", b"0"),
                ("b.JPG", B),
                ("b.seg.png", C),
                ("b.CLS", b"\xef\xbb\xbf1"),
            ],
            {"a.image.jpg": ("0", A), "b.JPG": ("1", B)},
            "1 further images of a key (b.seg.png)",
        ),
        (
            [
                *(("cat/0.jpg", A), ("dog/0.jpg", B), (".blobs/77", C), ("emu", (SYMBOLIC, "cat"))),
                *(("dog/1.jpg", (SYMBOLIC, "../cat/0.jpg")), ("dog/2.jpg", (SYMBOLIC, "1.jpg"))),
                *(("dog/3.jpg", (HARD, "cat/0.jpg")), ("dog/4.jpg", (SYMBOLIC, "../.blobs/77"))),
                *(("dog/5.jpg", (SYMBOLIC, "/elsewhere/5.jpg")), ("dog/6.jpg", (SYMBOLIC, "6.jpg"))),
            ],
            {"cat/0.jpg": ("cat", A), "dog/0.jpg": ("dog", B), "emu/0.jpg": ("emu", A)}
            | {f"dog/{number}.jpg": ("dog", A) for number in (1, 2, 3)}
            | {"dog/4.jpg": ("dog", C)},
            "2 links to nothing in the archive (a.tar/dog/5.jpg, ...)",
        ),
        (
            [("./cat//0.jpg", A), (f"/dog/{'x' * 200}.jpg", B), ("cat/\n.jpg", C), ("cat/0.jpg", D)],
            {"cat/0.jpg": ("cat", D), f"dog/{'x' * 200}.jpg": ("dog", B), "cat/\n.jpg": ("cat", C)},
            "1 members replaced by later ones of the same name (a.tar/cat/0.jpg)",
        ),
        (
            [("cat/0.jpg", A), ("dog/0.jpg", B), ("dog/1.heic", C), ("dog/a.txt", b"")]
            + [(name, b"junk") for name in JUNK],
            {"cat/0.jpg": ("cat", A), "dog/0.jpg": ("dog", B)},
            "1 .heic files (a.tar/dog/1.heic), 5 hidden or system files (a.tar/cat/._0.jpg, ...)",
        ),
    ],
    ids=["dots", "dots of keys", "parts of keys", "links", "names", "junk"],
)
def test_every_image_of_a_tar_is_read_or_named(tmp_path, members, found, left):
    read, said = listed(tmp_path / "a.tar", members)

    assert read == found
    assert said == ([f"{tmp_path}/a.tar: not read: {left}"] if left else [])


def test_several_images_of_one_label_file_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"a\.tar: has 2 images of run\.cls, such as run\.0\.png, and no run\.jpg"
    ):
        listed(tmp_path / "a.tar", [("run.0.png", A), ("run.1.png", B), ("run.cls", b"0")])


def test_a_tar_behind_another_in_one_file_is_read_and_what_else_is_there_refused(tmp_path):
    for name, content in {"cat": A, "dog": B}.items():
        packed(tmp_path / f"{name}.tar", [(f"{name}/0.jpg", content)])
    whole = tmp_path / "both.tar"
    whole.write_bytes((tmp_path / "cat.tar").read_bytes() + (tmp_path / "dog.tar").read_bytes())

    assert contents([whole])[0] == {"cat/0.jpg": ("cat", A), "dog/0.jpg": ("dog", B)}
    whole.write_bytes((tmp_path / "cat.tar").read_bytes() + b"more" * 1000)
    with pytest.raises(UserError, match=r"both\.tar: is damaged"):
        contents([whole])


def test_zips_of_windows_and_links_in_zips_are_read(tmp_path):
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("dog/1.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"cat\\0.jpg": A, "dog\\": b"", "dog\\0.jpg": B, link: b"../cat/0.jpg"}.items():
            archive.writestr(name, content)

    assert contents([path]) == (
        {f"{path}/cat/0.jpg": ("cat", A), f"{path}/dog/0.jpg": ("dog", B), f"{path}/dog/1.jpg": ("dog", A)},
        [],
    )


def test_a_class_may_be_called_as_a_split(tmp_path):
    paths = [
        packed(tmp_path / f"{number}.tar", [(name, A) for name in names])
        for number, names in enumerate([["train/1.jpg", "car/1.jpg"], ["train/2.jpg"]])
    ]

    assert {name: label for name, (label, _) in contents(paths)[0].items()} == {
        "train/1.jpg": "train",
        "car/1.jpg": "car",
        "train/2.jpg": "train",
    }


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "train.tar: data.init_args.root: has no images (.jpg, "),
        (
            ["a.jpg", "b.jpg"],
            "does not define the classes of its images: expected CLASS/NAME.jpg, or KEY.jpg with KEY.cls; "
            "found a.jpg",
        ),
        (["cat/a.jpg", "b.jpg"], "has b.jpg outside of the class folders"),
        (["cat/a.jpg", "cat/b.jpg"] * 2, "has one class, cat; classification needs two"),
    ],
)
def test_archives_that_do_not_tell_their_classes_are_refused(tmp_path, images, message):
    packed(tmp_path / "train.tar", [(name, encoded(noise(0))) for name in images])

    assert message in error_of(tmp_path)


def test_numbered_shards_are_not_taken_for_classes(tmp_path):
    for number in range(3):
        packed(tmp_path / "train" / f"part-{number}.tar", [(f"{number}.jpg", encoded(noise(number)))])

    assert "does not define the classes of its images" in error_of(tmp_path)


def test_compressed_tars_are_refused_with_the_reason(tmp_path, folders):
    with tarfile.open(tmp_path / "train.tar.gz", "w:gz") as archive:
        archive.add(folders / "train", "train")

    assert "train.tar.gz: data.init_args.root: is compressed as a whole" in error_of(tmp_path)


@pytest.mark.parametrize("suffix", ["tar", "zip"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda _: b"nothing", lambda _: b""]
)
def test_damaged_archives_are_reported(tmp_path, folders, suffix, damage):
    path = packed(tmp_path / f"train.{suffix}", below(folders / "train"))
    path.write_bytes(damage(path.read_bytes()))

    assert f"{path}: is damaged, cut off or not a {suffix} (" in error_of(tmp_path)


def test_rare_compression_is_refused(tmp_path, folders):
    packed(tmp_path / "train.zip", below(folders / "train"), compression=zipfile.ZIP_LZMA)

    assert "uses an unsupported compression (repack it with zip -0)" in error_of(tmp_path)


def test_an_unreadable_member_is_named_by_archive_and_path(tmp_path, folders):
    (folders / "train" / "cat" / "0.jpg").write_bytes(b"no image")
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


def test_more_archives_than_files_may_be_open(tmp_path):
    for number in range(70):
        members = [(f"{'ab'[number % 2]}/{number}.jpg", encoded(noise(number, (4, 4)), "PNG"))]
        packed(tmp_path / f"train-{number}.tar", members)
    source = made(tmp_path).source("train").whole

    for _ in range(2):
        assert len({source.read(index) for index in range(len(source))}) == 70


def test_an_index_that_took_long_is_kept_until_the_archive_changes(tmp_path, folders, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("focal_lab.data.sources.archive_index._WORTH_KEEPING", 0.0)
    path = packed(tmp_path / "train.tar", below(folders / "train"))
    first = index_archive(path)
    (kept,) = (tmp_path / "cache" / "focal-lab" / "archives").iterdir()

    monkeypatch.setattr(
        "focal_lab.data.sources.archive_index._indexed", lambda path: pytest.fail("was indexed again")
    )
    assert index_archive(path)[0] == first[0]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept.write_bytes(b"damaged")
    assert index_archive(path)[0] == first[0]
    packed(path, below(folders / "val"))
    assert len(index_archive(path)[0]) == 4


def test_names_do_not_have_to_exist_in_the_encoding_of_the_locale(tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for name in ("ö", "猫"):
            entry = tarfile.TarInfo(f"{name}/1.png")
            entry.size = 1
            archive.addfile(entry, BytesIO(b"x"))
    program = (
        "import sys; from pathlib import Path; from focal_lab.data.sources.archives import open_archives; "
        "path = Path(sys.argv[1]); print(ascii(open_archives([path], path).own.name(1)))"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "train.tar"],
        env=os.environ | locale,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith(r"train.tar/\u732b/1.png'"), done.stderr
