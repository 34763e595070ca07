"""One seed drives a training; each part can have a seed of its own, which changes that part alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from support.coco_data import content, write
from support.mask_folders import write_world
from support.recorded_fit import folder_config, write_pictures
from support.tiny_task import InterruptAfter, InterruptionError, tiny_config

from focal_lab.data.detection.coco import CocoDataModule
from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.data.digits.scenes import DigitsSegmentation
from focal_lab.data.segmentation.mask_folder import SegmentationFolder
from focal_lab.errors import UserError
from focal_lab.training.fit import build, train

LAST = Path("run/checkpoints/last.ckpt")
SEEDS = {"init_seed": "model", "data_seed": "data", "order_seed": "data"}
DROPPED = {"drop_path_rate": 0.5}


class Seen(Callback):
    """The initial weights, the batches, and the next random number in each step."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.images: list[torch.Tensor] = []
        self.places: list[int] = []  # of the embedded digits in their data set, in the order of training
        self.labels: list[list[int]] = []
        self.next: list[float] = []
        self.losses: list[float] = []
        self._place: dict[bytes, int] = {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.weights = {name: value.clone() for name, value in module.model.state_dict().items()}
        if isinstance(trainer.datamodule, DigitsClassification):
            images = trainer.datamodule.dataset("train")
            self._place = {images[i][0].numpy().tobytes(): i for i in range(len(images))}

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, *_: Any) -> None:
        self.images += list(batch[0])
        if self._place:
            self.places += [self._place[image.numpy().tobytes()] for image in batch[0]]
        self.labels.append(batch[1].tolist())
        state = torch.get_rng_state()
        self.next.append(torch.rand(()).item())
        torch.set_rng_state(state)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    @property
    def set_of_images(self) -> set[bytes]:
        return {image.numpy().tobytes() for image in self.images}


def seeded(config: dict[str, Any], **seeds: int) -> dict[str, Any]:
    """A configuration with seeds of its parts, or with `seed_everything`."""
    for name, seed in seeds.items():
        if name == "seed_everything":
            config[name] = seed
        else:
            config[SEEDS[name]]["init_args"][name] = seed
    return config


def fit(config: dict[str, Any]) -> Seen:
    quick = {
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": False,
    }
    config["trainer"] |= quick | {"callbacks": None}
    made, seen = build(config, Path("seen")), Seen()
    made.trainer.callbacks.append(seen)
    made.trainer.fit(made.model, made.datamodule)
    return seen


def digits(**seeds: int) -> Seen:
    return fit(seeded(tiny_config(options=DROPPED), **seeds))


def same_weights(one: Seen, other: Seen) -> bool:
    return all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


@pytest.fixture(scope="module")
def image_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("images"))


def test_all_three_seeds_together_are_the_seed_of_the_run() -> None:
    whole, parts = digits(seed_everything=5), digits(init_seed=5, data_seed=5, order_seed=5)
    assert same_weights(whole, parts)
    assert (whole.labels, whole.next, whole.losses) == (parts.labels, parts.next, parts.losses)
    assert whole.losses != digits().losses


def test_init_seed_changes_the_weights_alone() -> None:
    one, other = digits(), digits(init_seed=9)
    assert not same_weights(one, other)
    assert one.losses != other.losses
    assert all(map(torch.equal, one.images, other.images))
    assert (one.labels, one.next) == (other.labels, other.next)


def test_order_seed_changes_order_and_drop_path_and_neither_weights_nor_the_set_of_images() -> None:
    one, other = digits(), digits(order_seed=9)
    assert same_weights(one, other)
    assert one.set_of_images == other.set_of_images
    assert len(one.set_of_images) == 64
    assert one.places != other.places
    assert not set(one.next) & set(other.next)


def test_data_seed_changes_the_images_alone() -> None:
    one, other = digits(), digits(data_seed=9)
    assert same_weights(one, other)
    assert not one.set_of_images & other.set_of_images
    assert (one.next, one.places) == (other.next, other.places)


def test_the_seed_of_the_data_alone_is_that_of_images_and_order_as_it_was() -> None:
    config = tiny_config(options=DROPPED, data={"seed": 9})
    seed, both = fit(config), fit(seeded(tiny_config(options=DROPPED, data={"seed": 9}), data_seed=9))
    assert seed.places == both.places != digits().places
    assert seed.set_of_images == both.set_of_images == digits(data_seed=9).set_of_images
    assert seed.next == digits().next  # drop path follows the run
    order = fit(seeded(tiny_config(options=DROPPED, data={"seed": 9}), order_seed=0))
    assert order.places == digits().places
    assert order.set_of_images == seed.set_of_images


def test_order_seed_changes_order_augmentation_and_mixup_of_images_in_folders(image_folders: Path) -> None:
    def folders(**seeds: int) -> Seen:
        config = folder_config(image_folders, batch_size=32, mixup=0.8, drop_path=0.5)
        return fit(seeded(config, **seeds))

    one, again, other, whole = folders(), folders(), folders(order_seed=9), folders(seed_everything=9)
    assert same_weights(one, other)
    assert (one.labels, one.losses) == (again.labels, again.losses)
    assert one.labels != other.labels
    assert not one.set_of_images & other.set_of_images  # augmented otherwise
    assert (other.labels, other.next) == (whole.labels, whole.next)
    assert other.set_of_images == whole.set_of_images


@pytest.mark.parametrize("names", [["init_seed"], ["data_seed"], ["order_seed"], list(SEEDS)], ids="-".join)
def test_an_interrupted_training_goes_on_to_the_same_result_with_seeds_of_its_own(names: list[str]) -> None:
    def config() -> dict[str, Any]:
        return seeded(tiny_config(options=DROPPED), **dict.fromkeys(names, 11))

    made = build(config(), Path("run"))
    made.trainer.callbacks.append(InterruptAfter(1))
    with pytest.raises(InterruptionError):
        made.trainer.fit(made.model, made.datamodule)
    resumed = train(config(), Path("run"), resume_from=LAST).metrics
    assert resumed == train(config(), Path("undisturbed")).metrics != train(tiny_config(), Path("o")).metrics


def test_another_order_is_reported_when_a_training_is_resumed_and_other_initial_weights_are_not() -> None:
    train(seeded(tiny_config(trainer={"max_epochs": 1}), init_seed=1, order_seed=1), Path("run"))
    changed = seeded(tiny_config(), init_seed=2, order_seed=2)
    with pytest.warns(
        UserWarning, match=r"--ckpt_path: data\.order_seed was 1 and is 2, trainer\.max_epochs"
    ):
        train(changed, Path("run"), resume_from=LAST)


def test_boxes_and_masks_in_folders_have_an_order_seed_that_is_checked(tmp_path: Path) -> None:
    coco = CocoDataModule(str(write(tmp_path / "coco", content())), order_seed=4)
    masks = SegmentationFolder(str(write_world(tmp_path / "masks")), order_seed=4)
    assert (coco.order_seed, masks.order_seed) == (4, 4)
    for kind, root in ((CocoDataModule, tmp_path / "coco"), (SegmentationFolder, tmp_path / "masks")):
        with pytest.raises(UserError, match=r"order_seed: -1 is out of range \(use 0 to 2\^32 - 1\)"):
            kind(str(root), order_seed=-1)


@pytest.mark.parametrize("name", ["seed", "data_seed", "order_seed"])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_of_the_embedded_data_are_checked(name: str, seed: int) -> None:
    with pytest.raises(UserError, match=rf"{name}: {seed} is out of range \(use 0 to 2\^32 - 1\)"):
        DigitsSegmentation(**{name: seed})


def test_given_images_have_no_seed() -> None:
    config = tiny_config()
    config["data"] = {
        "class_path": "focal_lab.data.FashionMnistDataModule",
        "init_args": {"root": "there", "data_seed": 3},
    }
    with pytest.raises(UserError, match=r"'data_seed' is not accepted by FashionMnistDataModule: its images"):
        build(config, Path("run"))
