import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentError
from lightning import Callback
from support import ROOT
from support.tiny_task import OPTIONS, read_checkpoint, tiny_config, write_config

from focal_lab import cli
from focal_lab.errors import UserError
from focal_lab.training.callbacks import StopWhenDiverged
from focal_lab.training.config_errors import one_line_errors, shorten
from focal_lab.training.exact_resume import ExactResume
from focal_lab.training.lightning_cli import FocalCLI, check_config, main

CHECKPOINTS = "lightning_logs/version_0/checkpoints"
FIT = ["--config", "tiny.yaml"]
VIT = "--model.backbone=test_vit"


@pytest.fixture(autouse=True)
def experiment() -> Path:
    """A tiny experiment in the working folder."""
    return write_config(Path("tiny.yaml"), tiny_config())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `focal-lab fit` has trained the tiny experiment."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config(trainer={"default_root_dir": str(folder)})
    path = write_config(folder / "tiny.yaml", config)
    assert cli.main(["fit", "--config", str(path)]) == 0
    return folder


def reported(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the command line says, as its last line, to a user's mistake."""
    assert cli.main(list(argv)) == cli.USER_ERROR
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    last = printed.splitlines()[-1]
    assert last.startswith("focal-lab: ")
    return last.removeprefix("focal-lab: ")


def test_fit_keeps_the_best_and_the_last_checkpoint_and_its_configuration(trained: Path) -> None:
    assert sorted(path.name for path in (trained / CHECKPOINTS).iterdir()) == ["best.ckpt", "last.ckpt"]
    last = read_checkpoint(trained / CHECKPOINTS / "last.ckpt")
    assert (last["epoch"], last["global_step"]) == (1, 4)
    assert (trained / "lightning_logs/version_0/config.yaml").is_file()
    assert list((trained / "lightning_logs/version_0").glob("events.out.tfevents.*"))


def test_the_configuration_that_fit_leaves_trains_again(trained: Path) -> None:
    config = str(trained / "lightning_logs/version_0/config.yaml")
    main("fit", ["--config", config, "--trainer.default_root_dir=.", "--trainer.max_epochs=1"])
    assert read_checkpoint(Path(CHECKPOINTS) / "last.ckpt")["epoch"] == 0


def test_fit_goes_on_from_a_checkpoint(trained: Path) -> None:
    last = trained / CHECKPOINTS / "last.ckpt"
    main("fit", [*FIT, "--trainer.max_epochs=3", f"--ckpt_path={last}"])
    resumed = read_checkpoint(Path(CHECKPOINTS) / "last.ckpt")
    assert (resumed["epoch"], resumed["global_step"]) == (2, 6)


def test_what_the_command_line_says_of_the_model_counts_more_than_the_checkpoint(
    trained: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start.ckpt"
    shutil.copy(trained / CHECKPOINTS / "best.ckpt", start)
    main("fit", [*FIT, "--trainer.max_epochs=1", f"--model.backbone_checkpoint={start}", "--model.lr=0.25"])
    start.unlink()  # all weights are in the checkpoint
    best = Path(CHECKPOINTS) / "best.ckpt"
    tested = FocalCLI(["test", *FIT, f"--ckpt_path={best}", "--model.mixup=0.5", "--model.cutmix", "0.7"])
    options = tested.model.hparams
    assert (options["mixup"], options["cutmix"], options["lr"]) == (0.5, 0.7, 0.25)
    assert options["backbone_checkpoint"] is None


@pytest.mark.parametrize(("subcommand", "split"), [("validate", "val"), ("test", "test")])
def test_a_checkpoint_is_evaluated(
    subcommand: str, split: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = trained / CHECKPOINTS / "best.ckpt"
    assert cli.main([subcommand, *FIT, f"--ckpt_path={best}", "--trainer.logger=false"]) == 0
    printed = capsys.readouterr().out
    for name in ("top1", "top5", "loss"):
        assert f"{split}/{name}" in printed


def test_options_of_the_backbone_can_be_given_one_by_one() -> None:
    made = FocalCLI([*FIT, "--model.backbone_options.embed_dim=16", "--model.lr=0.5"], run=False)
    assert made.model.model.num_features == 16 * 8
    assert made.model.recipe.lr == 0.5
    assert made.model.hparams["backbone_options"] == OPTIONS | {"embed_dim": 16}


def test_seed_zero_is_a_seed_and_the_default() -> None:
    config = tiny_config()
    weights = []
    for seed in (0, 0, 1, None):
        if seed is None:
            del config["seed_everything"]
        else:
            config["seed_everything"] = seed
        weights.append(FocalCLI(config, run=False).model.model.patch_embed.proj.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(weights[0], weights[3])


def test_every_training_stops_when_it_diverges_and_can_be_resumed_exactly() -> None:
    callbacks = FocalCLI(tiny_config() | {"seed_everything": 7}, run=False).trainer.callbacks
    assert any(isinstance(callback, StopWhenDiverged) for callback in callbacks)
    (resuming,) = [callback for callback in callbacks if isinstance(callback, ExactResume)]
    assert resuming.seed == 7


@pytest.mark.parametrize("own", [{"monitor": "val/loss"}, {"filename": "mine", "every_n_epochs": 2}])
def test_a_checkpoint_callback_of_the_configuration_replaces_ours(own: dict[str, Any]) -> None:
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": own}
    trainer = FocalCLI(tiny_config(trainer={"callbacks": [callback]}), run=False).trainer
    (kept,) = trainer.checkpoint_callbacks
    assert (kept.monitor, kept.filename) == (own.get("monitor"), own.get("filename"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.foo=1"], "model: Option 'foo' is not accepted by Classification"),
        (["--model.lr=abc"], "model.lr: Expected a float. Got value: abc"),
        (["--model.lr=1e30"], "the loss is nan at step "),
        (["--model.num_classes=5"], "model.num_classes: 5 is not the number of classes of the data, 10 (0, "),
        (["--model.num_classes=11"], "model.num_classes: 11 is not the number of classes of the data, 10 ("),
        (
            ["--model.warmup_epochs=2"],
            "model.warmup_epochs: 2.0 epochs are 4 steps, but the training has only 4",
        ),
        (["--model.mixup=0.8", "--data.batch_size=31"], "data.batch_size: mixup needs pairs; 31 is odd"),
        (["--model.backbone=foo"], "model.backbone: 'foo' is not a backbone (focal ones: focal_tiny_"),
        (
            [VIT, "--model.backbone_options={}"],
            "model.backbone: test_vit does not take images of 28 x 28 px",
        ),
        (["--model.backbone_options=3"], "model.backbone_options: Expected a dict"),
        (
            ["--model.backbone_options.window_sizes=3"],
            "model.backbone_options: focal_micro_patch2_window7_28: ",
        ),
        (
            ["--model.backbone_options.depths=[1, 1]"],
            "model.backbone_options: num_heads: [1, 2, 4, 8] has 4 val",
        ),
        (
            ["--model.class_path=torch.nn.Linear"],
            "model: Import path torch.nn.Linear does not correspond to a",
        ),
        (["--data.pieces=-1"], "data.init_args.pieces: -1 is out of range"),
        (["--data.class_path=Nope"], "data: Expected a dot import path string: Nope, not 'Nope'"),
        (
            ["--trainer.max_epochs=-5"],
            "trainer.max_epochs: -5 is out of range (use 0 or more, or -",
        ),
        (["--trainer.max_steps=-2"], "trainer.max_steps: -2 is out of range"),
        (
            ["--trainer.limit_train_batches=2.0"],
            "trainer.limit_train_batches: 2.0 is out of range (use a s",
        ),
        (["--trainer.limit_val_batches=-1"], "trainer.limit_val_batches: -1 is out of range"),
        (["--trainer.val_check_interval=1.5"], "trainer.val_check_interval: 1.5 is out of range"),
        (["--trainer.overfit_batches=.nan"], "trainer.overfit_batches: nan is out of range"),
        (["--trainer.max_time=1 h"], "trainer.max_time: '1 h' is not days:hours:minutes:seconds"),
        (["--trainer.profiler=foo"], "trainer.profiler: 'foo' is not a profiler (use simple, "),
        (["--trainer.accelerator=foo"], "trainer.accelerator: 'foo' is not an accelerator (use auto, "),
        (["--trainer.gradient_clip_algorithm=foo"], "trainer.gradient_clip_algorithm: 'foo' is not a way"),
        (["--model.lr=.inf"], "model.lr: inf is not positive"),
        (["--model.lr=1e-6"], "model.min_lr: 1e-05 is above model.lr, 1e-06: the rate would rise"),
        (["--model.mixup=.nan"], "model.mixup: nan is not 0 or more"),
        (["--trainer.max_epochs=-1"], "trainer.max_epochs: a cosine schedule needs a finite number"),
        (["--trainer.strategy=foo"], "trainer.strategy: 'foo' is not a strategy (use auto, "),
        (["--trainer.devices=-1"], "trainer: `devices` selected with `CPUAccelerator` should be an int > 0."),
        (["--trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val: -1 is out of range (use 0 or more"),
        (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches: 0 is out of range"),
        (["--trainer.limit_train_batches=0"], "trainer.limit_train_batches: 0 is out of range"),
        (["--trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch: 0 is out of range"),
        (["--trainer.val_check_interval=0.0"], "trainer.val_check_interval: 0.0 is out of range"),
        (["--trainer.default_root_dir=/proc/x"], "/proc/x"),
        (["--trainer.foo=1"], "unrecognized arguments: --trainer.foo=1"),
        (["--seed_everything=-3"], "seed_everything: -3 is not in [0, 2^32)"),
        (["--config=nope.yaml"], "config: File does not exist: "),
        (["--config=broken.yaml"], "broken.yaml: is not YAML: line 2, column 2: did not find expected"),
        (["--config=list.yaml"], "list.yaml: must be a mapping of keys to values"),
        (
            ["--config", "twice.yaml"],
            "twice.yaml: is not YAML: line 2, column 1: the key trainer is given twice",
        ),
        (["--ckpt_path="], "--ckpt_path: is empty"),
        (["--model.lr=null"], "model.lr: null is not of type float (the default is "),
        (["--data.batch_size=null"], "data.batch_size: null is not of type int (the default is 64)"),
        (["--trainer.num_nodes=null"], "trainer.num_nodes: Expected a int"),
        (
            ["--trainer.max_ep=1"],
            "unrecognized arguments: --trainer.max_ep=1 (did you mean --trainer.max_epochs?)",
        ),
        (["--model.l=1"], "model: Option 'l' is not accepted by Classification (did you mean "),
        (["--trainer.logger=WandbLogger"], "trainer.logger: WandbLogger: Requirement 'wandb"),
        (
            ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=nope"],
            "Early stopping conditioned on",
        ),
        (
            ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.monitor=nope"],
            "`ModelCheckpoint(monitor=",
        ),
        (["--config=suite.yaml"], "Subcommand 'fit' does not accept option 'backbones.focal_tiny'"),
        (["--dry-runs"], "unrecognized arguments: --dry-runs (did you mean --dry-run?)"),
        (["--ckpt_path=nope.ckpt"], "--ckpt_path: nope.ckpt does not exist"),
        (["--ckpt_path=tiny.yaml"], "--ckpt_path: tiny.yaml cannot be read as a checkpoint"),
        (
            ["--ckpt_path=best"],
            "--ckpt_path: best is only known within the process that trained; give the file",
        ),
    ],
)
def test_a_users_mistake_is_reported_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.yaml").write_text("a: [1\nb: }\n")
    Path("twice.yaml").write_text("trainer: {max_epochs: 1}\ntrainer: {max_epochs: 2}\n")
    Path("list.yaml").write_text("- 1\n- 2\n")
    Path("suite.yaml").write_text("backbones: {focal_tiny: focal_micro}\n")
    assert reported(capsys, "fit", *FIT, *arguments).startswith(message)
    assert not Path(CHECKPOINTS).exists()


def test_predicting_the_data_of_an_experiment_was_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(capsys, "predict", *FIT) == (
        "--config: was removed; use focal-lab predict CHECKPOINT IMAGES..."
    )


@pytest.mark.parametrize(
    ("experiment", "missing"),
    [
        ("imagenet/classification", "nowhere: data.init_args.root: is not a folder"),
        ("coco/mask_rcnn", "nowhere: data.init_args.root: does not exist"),
        ("ade20k/segmentation", "nowhere: data.init_args.root: does not exist"),
        ("cifar10/classification", "nowhere: data.init_args.root: has no cifar-10-batches-py in it"),
    ],
)
def test_missing_data_are_reported_once_before_there_are_processes_for_other_devices(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], experiment: str, missing: str
) -> None:
    arguments = [f"--config={ROOT}/experiments/{experiment}.yaml", f"--data.root={tmp_path}/nowhere"]
    assert cli.main(["fit", *arguments, "--trainer.devices=2", "--trainer.accelerator=cpu"]) == 2
    errors = capfd.readouterr().err
    assert errors.count(missing) == 1
    assert "distributed" not in errors


def test_a_subcommand_without_an_experiment_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(capsys, "fit") == "the following arguments are required: fit.data, fit.model"


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_what_is_no_checkpoint_cannot_be_evaluated(
    subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "--ckpt_path: tiny.yaml cannot be read as a checkpoint"
    assert reported(capsys, subcommand, *FIT, "--ckpt_path=tiny.yaml").startswith(message)
    torch.save({"w": torch.zeros(1)}, "plain.pth")
    message = "--ckpt_path: plain.pth is not a checkpoint of Lightning"
    assert reported(capsys, subcommand, *FIT, "--ckpt_path=plain.pth") == message


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_a_network_that_was_never_trained_is_not_evaluated(
    subcommand: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"--ckpt_path: is not given; without it, {subcommand} would evaluate an untrained network"
    assert reported(capsys, subcommand, *FIT).startswith(message)
    assert (
        reported(capsys, subcommand, *FIT, "--ckpt_path=last")
        == "--ckpt_path: there is no last checkpoint here"
    )
    start = trained / CHECKPOINTS / "best.ckpt"
    given = [f"--model.backbone_checkpoint={start}", "--trainer.logger=false"]
    assert cli.main([subcommand, *FIT, *given]) == 0


def test_weights_of_another_network_are_reported(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = read_checkpoint(trained / CHECKPOINTS / "best.ckpt")
    del state["hyper_parameters"]
    torch.save(state, "bare.ckpt")
    arguments = [*FIT, "--model.backbone_options.embed_dim=16", "--ckpt_path=bare.ckpt"]
    message = (
        "--ckpt_path: does not fit the model: model.patch_embed.proj.weight has the shape [8, 3, 2, 2] there "
        "and [16, 3, 2, 2] here; "
    )
    assert reported(capsys, "test", *arguments).startswith(message)


class CtrlC(Callback):
    """Ends a training as the user does."""

    def on_train_batch_end(self, *_: Any) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_ends_with_status_130() -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert cli.main(["fit", *FIT, f"--trainer.callbacks={__name__}.CtrlC"]) == cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_bug_is_not_taken_for_a_users_mistake() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError


def raise_as_the_parser_does() -> None:
    """A constructor's UserError, wrapped."""
    try:
        raise UserError("-1 is not positive", key="model.lr")
    except UserError as error:
        raise ValueError("Does not validate against any of the Union subtypes") from error


def test_a_users_mistake_is_dug_out_of_what_wraps_it() -> None:
    with pytest.raises(UserError, match=r"^model\.lr: -1 is not positive$"), one_line_errors():
        raise_as_the_parser_does()


def test_a_message_of_the_parser_becomes_a_users_mistake() -> None:
    with pytest.raises(UserError, match=r"^Option 'foo' is not accepted$"), one_line_errors():
        raise ArgumentError(None, "Option 'foo' is not accepted")


def test_a_checked_configuration_comes_back_with_numbers_for_texts_and_defaults() -> None:
    parsed = check_config(tiny_config(lr="3e-3"))
    assert parsed["model"]["init_args"]["lr"] == 0.003
    assert parsed["model"]["init_args"]["label_smoothing"] == 0.1
    assert parsed["model"]["init_args"]["backbone_options"] == OPTIONS
    assert not Path("lightning_logs").exists()


UNION = (
    "  Does not validate against any of the Union subtypes\n  Subtypes: [<class 'M'>, <class 'NoneType'>]\n"
)
TASK = "focal_lab.tasks.Classification"
GIVEN = f"  Given value type: <class 'dict'>\n  Given value: {json.dumps({'class_path': TASK})}"


@pytest.mark.parametrize(
    ("message", "short"),
    [
        (
            f"Parser key \"model\":\n{UNION}  Errors:\n    - Problem with given class_path '{TASK}':\n"
            f"        Option 'foo' is not accepted\n    - Expected a <class 'NoneType'>\n{GIVEN}",
            "model: Option 'foo' is not accepted by Classification",
        ),
        (
            f"Parser key \"model\":\n{UNION}  Errors:\n    - Problem with given class_path '{TASK}':\n"
            "        Parser key \"lr\":\n          Expected a <class 'float'>. Got value: abc\n"
            f"    - Expected a <class 'NoneType'>\n{GIVEN}",
            "model.lr: Expected a float. Got value: abc",
        ),
        (
            f"Parser key \"trainer.max_epochs\":\n{UNION}  Errors:\n    - Expected a <class 'int'>\n"
            "    - Expected a <class 'NoneType'>\n  Given value type: <class 'str'>\n  Given value: x",
            "trainer.max_epochs: Expected a int, not x",
        ),
        (
            f'Parser key "data":\n{UNION}  Errors:\n    - Expected a dot import path string: Nope\n'
            "  Given value: NestedArg(key='class_path', val='Nope')",
            "data: Expected a dot import path string: Nope, not 'Nope'",
        ),
        (
            "Parser key \"config\": File does not exist: '/tmp/nope.yaml'",
            "config: File does not exist: '/tmp/nope.yaml'",
        ),
        ("Group 'trainer' does not accept option 'foo'", "Group 'trainer' does not accept option 'foo'"),
        ("Unexpected config: - 1\n- 2\n", "Unexpected config: - 1; 2"),
    ],
)
def test_a_message_of_the_parser_is_shortened_to_key_reason_and_value(message: str, short: str) -> None:
    assert shorten(message) == short
