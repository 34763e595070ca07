import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from support.image_folders import class_folders, encoded, noise

from focal_lab.data.classification.dataset import ClassifiedImages
from focal_lab.data.classification.image_folder import ImageFolderDataModule
from focal_lab.data.classification.samplers import NOTHING, Draw
from focal_lab.data.loading.collate import as_tensors
from focal_lab.data.sources.image_source import ArraySource, FileSource, PartSource
from focal_lab.errors import UserError

SIDE = 24
OPTIONS = {"image_size": SIDE, "batch_size": 4, "num_workers": 0}


@pytest.fixture
def root(tmp_path):
    class_folders(tmp_path / "train", {"cat": 6, "dog": 6})
    class_folders(tmp_path / "val", {"cat": 3, "dog": 2})
    return tmp_path


def made(root, **options):
    data = ImageFolderDataModule(str(root), **(OPTIONS | options))
    data.setup("fit")
    return data


def damage(root, *names):
    for name in names:
        (root / name).write_bytes((root / name).read_bytes()[:300])


def epoch(data, number=0):
    """A training epoch as the task is given it."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("options", [{}, {"auto_augment": "augmix-m5-w2"}, {"auto_augment": None}])
def test_an_epoch_is_the_same_whoever_prepares_it_and_whatever_was_drawn_before(root, options):
    torch.manual_seed(0)
    expected = epoch(made(root, **options), 3)

    torch.manual_seed(1)
    np.random.seed(5)
    assert equal(epoch(made(root, num_workers=2, **options), 3), expected)
    assert not equal(epoch(made(root, **options), 4), expected)
    assert not equal(epoch(made(root, seed=1, **options), 3), expected)


def test_preparing_batches_in_the_training_process_draws_nothing_from_it(root):
    torch.manual_seed(0)
    np.random.seed(0)
    loader = iter(made(root).train_dataloader())
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()

    next(loader)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_repetitions_of_an_image_differ(root):
    dataset = made(root).train_dataloader().dataset

    assert torch.equal(dataset[Draw(2, 7)][0], dataset[Draw(2, 7)][0])
    assert not torch.equal(dataset[Draw(2, 7)][0], dataset[Draw(2, 8)][0])


def test_nothing_is_a_black_image_that_is_not_evaluated(root):
    pixels, label = made(root).val_dataloader().dataset[NOTHING]

    assert (pixels.shape, pixels.dtype, label) == ((3, SIDE, SIDE), torch.uint8, -1)
    assert not pixels.any()


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_does_not_evaluate_unreadable_images(root, workers):
    damage(root, "val/cat/1.jpg", "val/dog/0.jpg")
    data = made(root, num_workers=workers)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = [label for _, labels in data.val_dataloader() for label in labels.tolist()]

    assert labels == [0, -1, 0, -1, 1]
    assert len(data._datasets["val"].unreadable) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_training_takes_others_for_unreadable_images_and_always_the_same_ones(root, workers):
    damage(root, "train/cat/1.jpg", "train/dog/0.jpg")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = made(root, num_workers=workers)
        first, again = epoch(data, 1), epoch(data, 1)
        alone = epoch(made(root), 1)

    assert equal(first, again)
    assert equal(first, alone)
    assert {label for _, labels in first for label in labels.tolist()} == {0, 1}
    assert len(data._datasets["train"].unreadable) == 2


def test_an_unreadable_image_is_warned_of_once_with_the_count(root):
    damage(root, "val/cat/1.jpg", "val/dog/0.jpg")
    data = made(root)

    with warnings.catch_warnings(record=True) as reported:
        warnings.simplefilter("always")
        for _ in range(2):
            list(data.val_dataloader())

    first, second = (str(one.message) for one in reported)
    assert first.startswith(f"{root}/val/cat/1.jpg: cannot be read (")
    assert first.endswith("; it is not evaluated; 1 so far")
    assert "val/dog/0.jpg" in second
    assert second.endswith("2 so far")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*cannot be read")
def test_more_unreadable_images_than_allowed_end_the_run_in_one_line(root, workers):
    damage(root, *(f"train/cat/{number}.jpg" for number in range(4)))
    data = made(root, num_workers=workers, max_unreadable=3, batch_size=12)

    with pytest.raises(UserError) as caught:
        list(data.train_dataloader())

    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{root}/train/cat/")
    assert ": data.init_args.max_unreadable: cannot be read (" in message
    assert message.endswith(
        "; 4 images are unreadable, and 3 are allowed (repair or remove them, or raise the limit)"
    )


def test_the_count_is_kept_by_all_processes_together(root):
    damage(root, *(f"train/{name}/{number}.jpg" for name in ("cat", "dog") for number in range(2)))
    data = made(root, num_workers=3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(data.train_dataloader())

    assert len(data._datasets["train"].unreadable) == 4


def test_an_image_that_is_no_image_counts_as_unreadable_whatever_pillow_raises(tmp_path):
    files = {"a.jpg": b"no image at all", "b.png": encoded(noise(0), "PNG")[:60], "c.jpg": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    source = FileSource(tmp_path, [*files, "gone.jpg"], [0] * 4)
    dataset = ClassifiedImages(source, lambda image: torch.zeros(3, 4, 4), (3, 4, 4))

    with pytest.warns(UserWarning, match=r"cannot be read"):
        assert [dataset[index][1] for index in range(4)] == [-1] * 4
    assert all(index in dataset.unreadable for index in range(4))


def test_where_nothing_can_be_read_training_ends(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    source = FileSource(tmp_path, ["a.jpg"], [0])
    dataset = ClassifiedImages(source, lambda image: torch.zeros(3, 4, 4), (3, 4, 4), training=True)

    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(UserError, match="random images of 1 cannot be read"),
    ):
        dataset[Draw(0, 0)]


def test_exif_is_followed_unless_it_is_switched_off(root):
    exif = Image.Exif()
    exif[0x0112] = 3
    flag = Image.new("RGB", (SIDE, SIDE))
    flag.paste(Image.new("RGB", (SIDE, SIDE // 2), "white"))
    (root / "val/cat/0.jpg").write_bytes(encoded(flag, exif=exif))

    upright = made(root, crop_pct=1.0).val_dataloader().dataset[0][0]
    stored = made(root, crop_pct=1.0, upright=False).val_dataloader().dataset[0][0]

    assert upright[:, -1].min() > 200 > 50 > upright[:, 0].max()
    assert stored[:, 0].min() > 200 > 50 > stored[:, -1].max()


def test_a_dataset_survives_pickling(root):
    dataset = made(root).train_dataloader().dataset

    again = pickle.loads(pickle.dumps(dataset))

    assert torch.equal(again[Draw(5, 1)][0], dataset[Draw(5, 1)][0])


def test_images_of_one_channel_keep_the_first():
    source = ArraySource(np.full((2, 4, 4), 9, np.uint8), np.array([0, 1]), "grey")
    dataset = ClassifiedImages(source, lambda image: torch.zeros(3, 4, 4, dtype=torch.uint8), (1, 4, 4))

    images, labels = as_tensors([dataset[0], dataset[1]])

    assert images.shape == (2, 1, 4, 4)
    assert labels.tolist() == [0, 1]
    assert source.name(1) == "grey 1"


def test_a_part_keeps_labels_names_and_blocks():
    whole = ArraySource(np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4), np.array([3, 1, 2, 0]), "x")
    whole.groups = np.array([0, 0, 1, 1])

    part = PartSource(whole, np.array([2, 1]))

    assert (len(part), part.labels.tolist(), part.groups.tolist()) == (2, [1, 2], [0, 1])
    assert [part.name(0), part.name(1)] == ["x 1", "x 2"]
    assert np.array_equal(np.asarray(part.read(1)), whole.images[2])
