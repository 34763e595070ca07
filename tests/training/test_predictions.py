"""A training leaves its test's predictions, in the order of the test set, or none."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.tiny_task import InterruptAfter, InterruptionError, tiny_config
from torch.utils.data import DataLoader

import focal_lab
from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.data.digits.scenes import DigitsDetection
from focal_lab.sweep.run_folder.predictions import read_units
from focal_lab.tasks.classification.task import Classification
from focal_lab.training import predictions
from focal_lab.training.fit import build, train
from focal_lab.training.predictions_file import PREDICTIONS_FILE

RUN = Path("run")
FILE = RUN / PREDICTIONS_FILE
SHORT = {"max_epochs": 1, "limit_train_batches": 1}


def assert_units_are_metrics(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        units = read_units(RUN, name, value)
        assert units is not None, name
        assert units.values.mean(dtype=float) == pytest.approx(value, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_predictions_of_a_classifier_are_what_its_network_finds(ema: float | None) -> None:
    config = tiny_config(trainer=SHORT, data={"batch_size": 16, "num_test_images": 40}, ema_decay=ema)
    trained = train(config, RUN)
    assert_units_are_metrics(trained.metrics)
    found = focal_lab.load_predictions(RUN)
    names = {"prediction", "confidence", "top5", "loss"}
    average = set() if ema is None else {f"ema_{name}" for name in names}
    assert found.keys() == names | average | {"label", "cluster"}
    assert {
        name: str(found[name].dtype) for name in ("label", "prediction", "confidence", "top5", "loss")
    } == {
        **{"label": "uint8", "prediction": "uint8", "confidence": "float16", "top5": "bool"},
        "loss": "float32",
    }
    module = Classification.load_from_checkpoint(RUN / "checkpoints/best.ckpt").eval()
    data = DigitsClassification(num_test_images=40)
    images, labels = data.dataset("test").__getitems__(range(40))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found["label"], labels)
    np.testing.assert_array_equal(found["cluster"], data.test_clusters())
    for prefix, network in {"": module.model, **({} if ema is None else {"ema_": module.ema})}.items():
        with torch.no_grad():
            likely = network(images).softmax(1)
        np.testing.assert_array_equal(found[f"{prefix}prediction"], likely.argmax(1))
        np.testing.assert_allclose(found[f"{prefix}confidence"], likely.amax(1), rtol=1e-3)
        of_labels = likely.gather(1, labels[:, None])
        np.testing.assert_allclose(found[f"{prefix}loss"], -of_labels.log()[:, 0], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found[f"{prefix}top5"], (likely > of_labels).sum(1) < 5)


TASKS: dict[str, dict[str, Any]] = {
    "Detection": {"method": "mask_rcnn", "pyramid_channels": 8, "head_width": 8},
    "Segmentation": {"decoder": "upernet", "decoder_channels": 8},
}


@pytest.mark.parametrize("task", TASKS)
def test_scenes_leave_what_their_metrics_are_computed_from(task: str) -> None:
    config = tiny_config(trainer=SHORT)
    model = {"class_path": f"focal_lab.tasks.{task}", "init_args": TASKS[task] | {"warmup_steps": 0}}
    options = {"image_size": 32, "smallest": 12, "largest": 20, "num_train_images": 4, "batch_size": 2}
    network = {name: config["model"]["init_args"][name] for name in ("backbone", "backbone_options")}
    model["init_args"] |= network | {"num_classes": None}
    counts = {"num_val_images": 2, "num_test_images": 7}
    config["model"] = model
    config["data"] = {"class_path": f"focal_lab.data.Digits{task}", "init_args": options | counts}
    trained = train(config, RUN)
    assert_units_are_metrics(trained.metrics)
    found = focal_lab.load_predictions(RUN)
    assert int(found["images"]) == 7
    assert "cluster" not in found  # an image shows several digits
    units = {f"unit_{name}" for name in trained.metrics}
    tables = {
        "Detection": {
            "class",
            "score",
            "truth_image",
            "truth_class",
            "truth_count",
            "box_matched",
            "mask_matched",
        }
        | units,
        "Segmentation": {"class", "intersection", "union", "target"},
    }
    assert found.keys() == tables[task] | {"image", "images"}
    if task == "Detection":
        scenes = [
            target
            for _, target in map(DigitsDetection(**options, **counts).dataset("test").__getitem__, range(7))
        ]
        objects = np.concatenate(
            [np.stack(np.unique(one["labels"], return_counts=True)) for one in scenes], 1
        )
        np.testing.assert_array_equal([found["truth_class"], found["truth_count"]], objects)


def test_a_resumed_training_leaves_those_of_an_undisturbed_one() -> None:
    config = tiny_config()
    cli = build(config, RUN)
    cli.trainer.callbacks.append(InterruptAfter(1))  # type: ignore[attr-defined]
    with pytest.raises(InterruptionError):
        cli.trainer.fit(cli.model, cli.datamodule)
    assert not FILE.exists()
    train(config, RUN, resume_from=RUN / "checkpoints/last.ckpt")
    train(config, Path("undisturbed"))
    assert FILE.read_bytes() == Path("undisturbed", PREDICTIONS_FILE).read_bytes()


def test_part_of_the_test_and_unreadable_images_have_their_positions() -> None:
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            folder = Path(split, name)
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.full((28, 28, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    Path("test/cat/1.png").write_bytes(b"broken")
    config = tiny_config(trainer=SHORT | {"limit_test_batches": 2}, num_classes=2)
    config["data"] = {
        "class_path": "focal_lab.data.ImageFolderDataModule",
        "init_args": {"root": ".", "image_size": 28, "batch_size": 2, "num_workers": 0},
    }
    trained = train(config, RUN)
    found = focal_lab.load_predictions(RUN)
    assert found["index"].tolist() == [0, 2, 3]
    assert found["label"].tolist() == [0, 0, 1]
    assert "cluster" not in found
    assert_units_are_metrics(trained.metrics)


class Shuffled(DigitsClassification):
    """Its test images come in another order each time."""

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.dataset("test"), 8, shuffle=True, collate_fn=self.collate)


class ListedBackwards(DigitsClassification):
    def test_images(self) -> Iterator[tuple[str, str]]:
        yield from reversed(list(super().test_images()))


class TooFewListed(DigitsClassification):
    def test_images(self) -> Iterator[tuple[str, str]]:
        yield from list(super().test_images())[1:]


class TooFewClusters(DigitsClassification):
    def test_clusters(self) -> NDArray[np.int64]:
        return super().test_clusters()[1:]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("Shuffled", "the loader may give the images in any order"),
        ("ListedBackwards", r"ListedBackwards.test_images\(\) lists other labels"),
        ("TooFewListed", r"TooFewListed.test_images\(\) lists fewer images"),
        ("TooFewClusters", r"TooFewClusters.test_clusters\(\) is not one integer for each test image"),
    ],
)
def test_predictions_whose_order_is_unknown_or_contradicted_are_not_kept(data: str, why: str) -> None:
    config = tiny_config(trainer=SHORT)
    config["data"]["class_path"] = f"{__name__}.{data}"
    with pytest.warns(UserWarning, match=f"predictions of the test are not kept: {why}"):
        trained = train(config, RUN)
    assert set(trained.metrics) == {"top1", "top5", "loss"}
    assert not FILE.exists()


class HugeClusters(DigitsClassification):
    def test_clusters(self) -> NDArray[np.int64]:
        return (2**40 + super().test_clusters()).astype(np.int64)


def test_numbers_of_sources_that_are_too_large_are_numbered_anew() -> None:
    config = tiny_config(trainer=SHORT)
    config["data"]["class_path"] = f"{__name__}.HugeClusters"
    train(config, RUN)
    wanted = np.unique(DigitsClassification(num_test_images=48).test_clusters(), return_inverse=True)[1]
    np.testing.assert_array_equal(focal_lab.load_predictions(RUN)["cluster"], wanted)


def test_a_full_disk_ends_the_run_as_with_its_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(predictions, "write_predictions", full)
    with pytest.raises(OSError, match="No space left"):
        train(tiny_config(trainer=SHORT), RUN)


class WithParity(DigitsClassification):
    def test_groups(self) -> tuple[str, NDArray[np.int64]]:
        return "parity", np.arange(self.hparams["num_test_images"]) % 2


class TooFewGroups(DigitsClassification):
    def test_groups(self) -> tuple[str, NDArray[np.int64]]:
        return "parity", np.zeros(3, np.int64)


def test_accuracy_within_groups_that_the_data_names_is_a_metric() -> None:
    config = tiny_config(trainer=SHORT, data={"batch_size": 16, "num_test_images": 41})
    config["data"]["class_path"] = f"{__name__}.WithParity"
    metrics = train(config, RUN).metrics
    found = focal_lab.load_predictions(RUN)
    assert found["group_parity"].tolist() == [0, 1] * 20 + [0]
    right = found["label"] == found["prediction"]
    assert {name: metrics[name] for name in metrics if "parity" in name} == {
        "top1_parity_0": pytest.approx(100 * right[::2].mean()),
        "top1_parity_1": pytest.approx(100 * right[1::2].mean()),
    }


def test_groups_of_other_images_are_not_used() -> None:
    config = tiny_config(trainer=SHORT)
    config["data"]["class_path"] = f"{__name__}.TooFewGroups"
    with pytest.warns(
        UserWarning, match=r"TooFewGroups.test_groups\(\) is not one integer for each"
    ) as found:
        trained = train(config, RUN)
    assert [str(one.message).partition(":")[0] for one in found if "test_groups" in str(one.message)] == [
        "the predictions of the test are not kept",
        "no metrics within groups of images",
    ]
    assert set(trained.metrics) == {"top1", "top5", "loss"}
