from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.datasets import ImageFolder

from focal_lab.data.classification.image_folder import ImageFolderDataModule
from focal_lab.data.loading.decode import load_image
from focal_lab.errors import UserError

PLAIN = {"image_size": 32, "batch_size": 2, "num_workers": 0}


def save(path, mode="RGB", size=(48, 40), value=None):
    """Write an image of noise, or of one value everywhere."""
    rng = np.random.default_rng(len(path.name))
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    noise = rng.integers(256, size=shape) if value is None else np.full(shape, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    """Three classes in train, two of them in val; JPEG and PNG, colour and grey, landscape and portrait."""
    save(tmp_path / "train" / "cat" / "a.jpg")
    save(tmp_path / "train" / "cat" / "bb.png", size=(30, 70))
    save(tmp_path / "train" / "dog" / "ccc.JPEG", mode="L")
    save(tmp_path / "train" / "dog" / "dddd.jpg", size=(64, 64))
    save(tmp_path / "train" / "emu" / "eeeee.jpg")
    save(tmp_path / "val" / "cat" / "ffffff.jpg", value=255)
    save(tmp_path / "val" / "emu" / "g.png", mode="L", value=0)
    save(tmp_path / "val" / "emu" / "hh.jpg")
    return tmp_path


def ready(root, stage, **options):
    data = ImageFolderDataModule(str(root), **{**PLAIN, **options})
    data.setup(stage)
    return data


def batches(data, loader):
    """What a task is given: the loader's batches as they are after the transfer to its device."""
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def test_training_batches_are_augmented_images_with_their_labels(root):
    data = ready(root, "fit")
    loaded = list(data.train_dataloader())

    assert len(loaded) == 2
    assert all(batch[0].dtype == torch.uint8 for batch in loaded)
    for images, labels in batches(data, loaded):
        assert images.shape == (2, 3, 32, 32)
        assert images.dtype == torch.float32
        assert images.isfinite().all()
        assert labels.dtype == torch.int64
        assert set(labels.tolist()) <= {0, 1, 2}


def test_classes_are_those_of_the_training_folder(root):
    data = ImageFolderDataModule(str(root), **PLAIN)

    assert data.class_names == ["cat", "dog", "emu"]
    assert data.num_classes == 3


def test_a_class_that_validation_lacks_keeps_its_label(root):
    labels = torch.cat([labels for _, labels in ready(root, "validate").val_dataloader()])

    assert labels.tolist() == [0, 2, 2]


def test_training_images_are_found_as_torchvision_finds_them(root):
    data = ready(root, "fit", batch_size=1)

    source, expected = data.train_dataloader().dataset.source, ImageFolder(root / "train").samples
    assert [(source.name(i), label) for i, label in enumerate(source.labels.tolist())] == expected


def test_evaluation_normalises_with_mean_and_std(root):
    data = ready(root, "validate", mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0), batch_size=3)

    ((images, _),) = batches(data, data.val_dataloader())

    for channel, (white, black) in enumerate([(1.0, -1.0), (3.0, -1.0), (0.5, 0.0)]):
        assert torch.allclose(images[0, channel], torch.tensor(white), atol=0.02)
        assert torch.allclose(images[1, channel], torch.tensor(black), atol=0.02)


def test_evaluation_does_not_augment(root):
    data = ready(root, "validate")

    first, second = (torch.cat([images for images, _ in data.val_dataloader()]) for _ in range(2))

    assert torch.equal(first, second)


def test_evaluation_is_timms(root):
    data = ready(root, "validate", batch_size=3, crop_pct=0.7, interpolation="bilinear")
    shown = create_transform(32, crop_pct=0.7, interpolation="bilinear")
    images = [Image.open(root / "val" / name) for name in ("cat/ffffff.jpg", "emu/g.png", "emu/hh.jpg")]

    ((found, _),) = batches(data, data.val_dataloader())

    expected = torch.stack([shown(image.convert("RGB")) for image in images])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(torch.stack([data.eval_transform(image) for image in images]), expected, atol=1e-5)


def test_training_augments_unless_it_is_switched_off(root):
    augmented = ready(root, "fit").train_dataloader().dataset
    plain = ready(root, "fit", auto_augment=None, random_erasing=0.0, hflip=0.0)

    assert not torch.equal(augmented[0][0], augmented[0][0])
    names = [type(step).__name__ for step in plain.train_dataloader().dataset.transform.transforms]
    assert not {"RandAugment", "RandomHorizontalFlip"} & set(names)
    assert "ColorJitter" in names
    names = [type(step).__name__ for step in augmented.transform.transforms]
    assert {"RandAugment", "RandomHorizontalFlip"} <= set(names)
    assert "ColorJitter" not in names


def test_parts_are_cut_out_by_scale_and_ratio(root):
    step = (
        ready(root, "fit", scale=(0.5, 0.6), ratio=(1.0, 1.0))
        .train_dataloader()
        .dataset.transform.transforms[0]
    )

    assert (step.scale, step.ratio) == ((0.5, 0.6), (1.0, 1.0))


def test_small_images_are_moved_within_black_edges_at_full_size(root):
    white = Image.new("RGB", (32, 32), "white")
    options = {"auto_augment": None, "color_jitter": 0.0, "crop_padding": 4}
    transform = ready(root, "fit", **options).train_dataloader().dataset.transform

    sums = {int(transform(white).bool().all(0).sum()) for _ in range(100)}

    assert min(sums) == 28 * 28
    assert max(sums) > 28 * 32
    assert len(sums) > 5


def test_erased_rectangles_are_noise_where_the_rest_is_as_it_was(root):
    data = ready(root, "fit", random_erasing=1.0, batch_size=5)
    (loaded,) = data.train_dataloader()
    whole, _ = data.on_after_batch_transfer(loaded[:2], 0)

    images, labels = data.on_after_batch_transfer(loaded, 0)

    assert torch.equal(labels, loaded[1])
    for image, before, (top, left, rows, columns, _) in zip(images, whole, loaded[2].tolist(), strict=True):
        erased = torch.zeros(32, 32, dtype=torch.bool)
        erased[top : top + rows, left : left + columns] = True
        assert 0.02 * 0.8 < erased.float().mean() < 1 / 3 * 1.1
        assert torch.equal(image[:, ~erased], before[:, ~erased])
        assert not (image == before)[:, erased].any()


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m0", "augmix-m10", "original", "v0"])
def test_every_operation_of_a_policy_runs_at_its_extremes(tmp_path, policy):
    transform = ImageFolderDataModule(str(tmp_path), **PLAIN, auto_augment=policy)._for_training
    image = load_image(save(tmp_path / "a.png"))
    operations = [
        operation
        for step in transform.transforms
        for operation in chain(getattr(step, "ops", []), *getattr(step, "policy", []))
    ]

    assert len(operations) > 5
    for operation in operations:
        operation.prob = 1.0
        assert operation(image).size == image.size


def samples(loader):
    source = loader.dataset.source
    return [(source.name(i), label) for i, label in enumerate(source.labels.tolist())]


def test_testing_uses_val_where_there_is_no_test_folder(root):
    without = ready(root, "test").test_dataloader()
    save(root / "test" / "dog" / "t.jpg")
    with_test = ready(root, "test").test_dataloader()

    assert [label for _, label in samples(without)] == [0, 2, 2]
    assert samples(with_test) == [(str(root / "test" / "dog" / "t.jpg"), 1)]


def test_prediction_takes_the_test_images_by_default(root):
    data = ready(root, "predict")

    assert [file.name for file in data.predict_files] == ["ffffff.jpg", "g.png", "hh.jpg"]
    assert sum(len(labels) for _, labels in data.predict_dataloader()) == 3


def test_prediction_takes_a_flat_folder_in_the_order_of_names(root, tmp_path):
    for name in ("b.png", "a.jpg", "c.jpeg"):
        save(tmp_path / "flat" / name)
    (tmp_path / "flat" / "readme.txt").write_text("no image")

    data = ready(root, "predict", predict_root=str(tmp_path / "flat"), batch_size=3)
    ((images, labels),) = data.predict_dataloader()

    assert [file.name for file in data.predict_files] == ["a.jpg", "b.png", "c.jpeg"]
    assert images.shape == (3, 3, 32, 32)
    assert labels.tolist() == [-1, -1, -1]


def test_a_flat_folder_is_predicted_without_any_class_folders(tmp_path):
    save(tmp_path / "flat" / "a.jpg")

    data = ready(tmp_path / "nowhere", "predict", predict_root=str(tmp_path / "flat"))

    assert len(list(data.predict_dataloader())) == 1


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: data\.init_args\.root: is not a folder"):
        ready(tmp_path / "nowhere", "fit")


def test_a_folder_without_class_folders_is_named(tmp_path):
    save(tmp_path / "train" / "a.jpg")

    with pytest.raises(
        UserError,
        match=r"train: data\.init_args\.root: has no class folders, archives or tables: .*; found a\.jpg",
    ):
        ready(tmp_path, "fit")


def test_class_folders_without_images_are_named(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)

    with pytest.raises(
        UserError, match=r"train: data\.init_args\.root: its class folders: has no images \(\.jpg"
    ):
        ready(tmp_path, "fit")


def test_a_validation_class_that_training_lacks_is_named(root):
    save(root / "val" / "gnu" / "a.jpg")

    with pytest.raises(UserError, match=r"val: has classes that train lacks: gnu \(train has cat, "):
        ready(root, "validate")


def test_a_batch_larger_than_the_training_set_is_refused(root):
    with pytest.raises(UserError, match=r"data\.init_args\.batch_size: 6 is more than the 5 training images"):
        ready(root, "fit", batch_size=6)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_prediction_folder_without_images_is_named(root, name):
    (root / "empty").mkdir()

    with pytest.raises(
        UserError, match=rf"{name}: data\.init_args\.predict_root: (is not a folder|has no images)"
    ):
        ready(root, "predict", predict_root=str(root / name))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("image_size", 0),
        ("batch_size", 0),
        ("num_workers", -1),
        ("auto_augment", "rand-q9"),
        ("auto_augment", "no-such-policy"),
        ("color_jitter", -0.1),
        ("random_erasing", 1.5),
        ("interpolation", "random"),
        ("crop_pct", 0.0),
        ("crop_pct", 1.1),
        ("hflip", 2.0),
        ("scale", (0.5, 0.2)),
        ("scale", (0.0, 1.0)),
        ("ratio", (2.0, 1.0)),
        ("crop_padding", -1),
        ("repeated_augmentation", 0),
        ("val_split", 0.0),
        ("val_split", 1.0),
        ("max_unreadable", -1),
        ("mean", (0.5, 0.5)),
        ("seed", -1),
        ("std", (0.0, 1.0, 1.0)),
    ],
)
def test_options_out_of_range_are_named(tmp_path, option, value):
    with pytest.raises(UserError, match=rf"^data\.init_args\.{option}: "):
        ImageFolderDataModule(str(tmp_path), **{option: value})


def test_options_survive_a_checkpoint_of_plain_values(root, tmp_path):
    data = ImageFolderDataModule(str(root), **PLAIN)

    torch.save(dict(data.hparams), tmp_path / "options.pt")

    assert torch.load(tmp_path / "options.pt", weights_only=True)["mean"] == (0.485, 0.456, 0.406)


def test_without_a_test_folder_the_test_is_that_of_validation_and_says_so(root):
    assert ready(root, "fit").tests_on_validation
    save(root / "test" / "cat" / "a.jpg")
    assert not ready(root, "fit").tests_on_validation
