import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_task import OPTIONS, InterruptAfter, InterruptionError, read_checkpoint, tiny_config
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.hparams import plugin_data_pb2

from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.errors import UserError
from focal_lab.tasks.classification.task import Classification
from focal_lab.training.fit import build, peak_memory_mb, resumable, train
from focal_lab.training.history_file import read_history

RUN = Path("run")
LAST, BEST = RUN / "checkpoints/last.ckpt", RUN / "checkpoints/best.ckpt"


def read_events(folder: Path) -> tuple[dict[str, list[float]], list[Any]]:
    """Scalars by tag, and the HParams entries, of the one event file in a folder."""
    (file,) = folder.rglob("events.out.tfevents.*")
    assert file.parent == folder
    scalars: dict[str, list[float]] = {}
    entries = []
    for event in LegacyEventFileLoader(str(file)).Load():
        for value in event.summary.value:
            if value.tag == "_hparams_/session_start_info":
                content = value.metadata.plugin_data.content
                entries.append(plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info)
            elif not value.tag.startswith("_hparams_"):
                scalars.setdefault(value.tag, []).append(value.simple_value)
    return scalars, entries


def test_a_training_leaves_its_metrics_checkpoints_and_one_event_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = train(tiny_config(), RUN)
    assert capsys.readouterr().out == ""
    assert set(trained.metrics) == {"top1", "top5", "loss"}
    assert 0 <= trained.metrics["top1"] <= trained.metrics["top5"] <= 100
    assert trained.train_seconds > 0
    assert trained.images_per_second > 0
    assert trained.peak_memory_mb > 50
    assert sorted(path.name for path in LAST.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    scalars, (entry,) = read_events(RUN)
    assert len(scalars["train/loss"]) == 4
    assert len(scalars["val/top1"]) == len(scalars["val/loss"]) == 2
    assert [tag for tag in scalars if tag.startswith("lr")] == ["lr"]
    rates = scalars["lr"]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(0.003)
    for name, value in trained.metrics.items():
        assert scalars[f"test/{name}"][-1] == pytest.approx(value)
        assert -1 not in scalars[f"test/{name}"]
    assert "hp_metric" not in scalars
    assert entry.hparams["lr"].number_value == pytest.approx(0.003)
    assert entry.hparams["backbone"].string_value == "focal_micro_patch2_window7_28"


class WorseEachEpoch(Classification):
    """Its first epoch is the best one."""

    def on_validation_epoch_end(self) -> None:
        self.log("quality", -float(self.current_epoch))

    monitor = "quality"


class ValidationAlone(DigitsClassification):
    """Its test images pass for those of validation."""

    tests_on_validation = True


@pytest.mark.parametrize("tested", ["best", "last"])
def test_the_best_epoch_is_tested_and_without_a_test_split_of_its_own_the_last_one(tested: str) -> None:
    config = tiny_config()
    config["model"]["class_path"] = f"{__name__}.WorseEachEpoch"
    if tested == "last":
        config["data"]["class_path"] = f"{__name__}.ValidationAlone"
    trained = train(config, RUN)
    metrics = trained.metrics
    assert trained.evaluated == {"checkpoint": tested, "split": "test" if tested == "best" else "val"}
    of_epochs = [point.values["val/loss"] for point in read_history(RUN)]
    assert trained.validation["loss"] == of_epochs[0 if tested == "best" else 1]
    assert of_epochs[0] != of_epochs[1]
    assert read_checkpoint(BEST)["epoch"] == 0
    assert read_checkpoint(LAST)["epoch"] == 1
    cli = build(config, Path("again"))
    found = {}
    for name, checkpoint in {"best": BEST, "last": LAST}.items():
        (values,) = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=str(checkpoint), verbose=False)
        found[name] = values["test/loss"]
    assert metrics["loss"] == found[tested]
    assert found["best"] != found["last"]


def test_the_same_configuration_gives_the_same_result() -> None:
    config = tiny_config(trainer={"max_epochs": 1}, options={"drop_path_rate": 0.2})
    metrics = train(config, RUN).metrics
    assert train(config, Path("again")).metrics == metrics
    assert train(config | {"seed_everything": 1}, Path("other")).metrics != metrics


def test_an_interrupted_training_goes_on_to_the_same_result() -> None:
    config = tiny_config(options={"drop_path_rate": 0.2})
    cli = build(config, RUN)
    cli.trainer.callbacks.append(InterruptAfter(1))
    with pytest.raises(InterruptionError):
        cli.trainer.fit(cli.model, cli.datamodule)
    reported: list[dict[str, Any]] = []
    resumed = train(config, RUN, resume_from=LAST, listener=reported.append)
    steps = [message for message in reported if message["phase"] == "fit"]
    assert (steps[0]["step"], steps[0]["first"]) == (3, True)
    assert resumed.metrics == train(config, Path("undisturbed")).metrics


def test_a_training_that_ended_before_its_result_was_written_is_only_tested_again() -> None:
    config = tiny_config(trainer={"max_epochs": 1})
    first = train(config, RUN)
    reported: list[dict[str, Any]] = []
    assert train(config, RUN, resume_from=LAST, listener=reported.append).metrics == first.metrics
    assert "fit" not in {message["phase"] for message in reported}


def test_a_training_can_do_without_checkpoints_and_validation() -> None:
    config = tiny_config(trainer={"enable_checkpointing": False, "limit_val_batches": 0, "logger": False})
    assert math.isfinite(train(config, RUN).metrics["loss"])
    assert not LAST.exists()


def test_loggers_of_the_configuration_log_beside_ours_under_the_name_of_the_run() -> None:
    csv = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "mine"}}
    trainer = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}
    train(tiny_config(trainer=trainer | {"logger": csv}), RUN)
    assert len(list(RUN.glob("events.out.tfevents.*"))) == 1
    (written,) = Path("mine/lightning_logs").iterdir()
    assert written.name == RUN.name
    assert "val/loss" in (written / "metrics.csv").read_text()
    kinds = []
    for logger in (None, True, False, [csv]):
        loggers = build(tiny_config(trainer=trainer | {"logger": logger}), RUN).trainer.loggers
        kinds.append([type(own).__name__ for own in loggers])
    assert kinds == [["RunLogger"], ["RunLogger"], [], ["RunLogger", "CSVLogger"]]
    assert loggers[1].version == f"{RUN.name}-2"  # a second attempt leaves the first one's file alone


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (tiny_config(lrr=1), "model: Option 'lrr' is not accepted by Classification"),
        (tiny_config(warmup_epochs=2.0), "model.warmup_epochs: 2.0 epochs are 4 steps, but the training has"),
        (tiny_config(data={"pieces": -1}), "data.init_args.pieces: -1 is out of range"),
        (
            tiny_config(options={"in_chans": 1}),
            "model.backbone_options: in_chans 1 is not 3, the channels of the images of DigitsClassification",
        ),
        *(
            (tiny_config(trainer={"precision": name}), f"trainer.precision: {name} is not supported: weights")
            for name in ("bf16-true", "16-true", "64-true")
        ),
    ],
)
def test_a_wrong_configuration_is_reported_as_the_users_mistake(config: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        train(config, RUN)
    assert str(caught.value).startswith(message)
    assert not LAST.exists()


def test_the_users_configuration_is_not_changed() -> None:
    config = tiny_config()
    build(config, RUN)
    assert config == tiny_config()


def test_a_whole_checkpoint_can_be_resumed_and_others_cannot() -> None:
    cli = build(tiny_config(trainer={"max_epochs": 1}), RUN)
    cli.trainer.fit(cli.model, cli.datamodule)
    assert resumable(LAST)
    cli.trainer.save_checkpoint("weights.ckpt", weights_only=True)
    assert not resumable(Path("weights.ckpt"))
    whole = LAST.read_bytes()
    for name, content in {
        "empty": b"",
        "foreign": b"not a checkpoint",
        "short": whole[:-100],
        "half": whole[: len(whole) // 2],
    }.items():
        Path(name).write_bytes(content)
        assert not resumable(Path(name)), name
    torch.save(Classification("focal_micro", OPTIONS, num_classes=10).state_dict(), "plain.pth")
    assert not resumable(Path("plain.pth"))
    assert not resumable(Path("missing"))


def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_memory_mb()
    block = torch.ones(int(before + 100) * 2**20 // 4)
    assert peak_memory_mb() > before + 50
    assert block.numel()


def test_a_callback_of_the_configuration_leaves_the_best_and_the_last_checkpoint_where_they_are() -> None:
    logging = {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}
    trainer: Any = build(tiny_config(trainer={"callbacks": [logging]}), RUN).trainer
    assert [callback.filename for callback in trainer.checkpoint_callbacks] == ["best", "last"]


def test_a_checkpoint_without_a_monitor_is_not_the_best_one() -> None:
    config = tiny_config(trainer={"callbacks": [saving(None)]})
    config["model"]["class_path"] = f"{__name__}.WorseEachEpoch"
    trained = train(config, RUN)
    assert trained.evaluated["checkpoint"] == "last"
    of_epochs = [point.values["val/loss"] for point in read_history(RUN)]
    assert trained.validation["loss"] == of_epochs[-1]
    # one that has a monitor counts, wherever it is listed
    config["trainer"]["callbacks"] = [saving(None), saving("quality")]
    trained = train(config, Path("again"))
    assert trained.evaluated["checkpoint"] == "best"
    assert trained.validation["loss"] == of_epochs[0]


def saving(monitor: str | None) -> dict[str, Any]:
    options = {"filename": f"of {monitor}", "monitor": monitor, "mode": "max"}
    return {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": options}
