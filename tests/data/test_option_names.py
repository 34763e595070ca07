"""The old names of options that count images: accepted with a note, refused beside the new ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningDataModule

from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.data.option_names import _note, recorded_config
from focal_lab.errors import UserError
from focal_lab.sweep.plan.plan import make_plan, probe_plan
from focal_lab.sweep.spec.suite import find_suite
from focal_lab.training.lightning_cli import FocalCLI, check_config
from focal_lab.training.resumed_options import changes

ROOT = Path(__file__).parents[2]
EXPERIMENT = str(ROOT / "experiments/digits/classification.yaml")
NOTE = "focal-lab: data.train_pictures is now called data.num_train_images\n"
SWEEP = "tasks: [classification]\nseeds: [0]\nfactors: {{{factors}}}\nset: {{{settings}}}\n"


@pytest.fixture(autouse=True)
def _fresh_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    _note.cache_clear()
    monkeypatch.chdir(ROOT)


class Own(LightningDataModule):
    """A data module of the user's own, which calls an option as ours were called."""

    def __init__(self, train_pictures: int = 1) -> None:
        super().__init__()


def parsed(*arguments: str) -> dict[str, object]:
    class ParseOnly(FocalCLI):
        def instantiate_classes(self) -> None:
            pass

        def _run_subcommand(self, subcommand: str) -> None:
            pass

    options: dict[str, object] = ParseOnly(["fit", *arguments]).config["fit"].data.init_args.as_dict()
    return options


@pytest.mark.parametrize(
    "argument",
    [
        "--data.train_pictures=640",
        "--data.init_args.train_pictures=640",
        "--data={init_args: {train_pictures: 640}}",
    ],
)
def test_command_lines_take_the_old_name_and_print_a_note_once(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parsed("--config", EXPERIMENT, argument)["num_train_images"] == 640
    assert parsed("--config", EXPERIMENT, argument)["num_train_images"] == 640
    assert capsys.readouterr().err.count(NOTE) == 1


def test_configuration_files_take_the_old_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = yaml.safe_load(Path(EXPERIMENT).read_text())
    old["data"]["init_args"]["train_pictures"] = old["data"]["init_args"].pop("num_train_images")
    overlay = {"data": {"init_args": {"val_pictures": 7}}}
    for name, config in {"old": old, "overlay": overlay}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    files = [f"--config={tmp_path / name}.yaml" for name in ("old", "overlay")]
    assert {**parsed(*files), "num_val_images": 0} == {
        **parsed(f"--config={EXPERIMENT}"),
        "num_val_images": 0,
    }
    assert parsed(*files)["num_val_images"] == 7
    assert NOTE in capsys.readouterr().err
    assert check_config(old)["data"]["init_args"]["num_train_images"] == 10240


def test_both_names_are_refused(tmp_path: Path) -> None:
    both = {"class_path": "focal_lab.data.DigitsClassification"} | {
        "init_args": {"train_pictures": 640, "num_train_images": 640}
    }
    config = yaml.safe_load(Path(EXPERIMENT).read_text()) | {"data": both}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(config))
    rule = "train_pictures: is the old name of num_train_images, which is set, too"
    with pytest.raises(UserError, match=rf"both\.yaml: data\.{rule}"):
        parsed(f"--config={tmp_path}/both.yaml")
    with pytest.raises(UserError, match=rule):
        parsed("--config", EXPERIMENT, "--data.train_pictures=640", "--data.num_train_images", "64")
    with pytest.raises(UserError, match=rule):
        check_config(config)


def test_python_calls_and_checkpoints_take_the_old_name(tmp_path: Path) -> None:
    data = DigitsClassification(train_pictures=640, batch_size=32)  # type: ignore[call-arg]
    assert data.hparams["num_train_images"] == 640
    assert "train_pictures" not in data.hparams
    with pytest.raises(UserError, match="is the old name of num_train_images, which is set, too"):
        DigitsClassification(train_pictures=640, num_train_images=640)  # type: ignore[call-arg]
    saved = {"train_pictures": 320, "batch_size": 32}
    state = {"datamodule_hyper_parameters": saved, "state_dict": {}, "pytorch-lightning_version": "2.6.0"}
    torch.save(state, tmp_path / "old.ckpt")
    load = DigitsClassification.load_from_checkpoint
    assert (
        load(tmp_path / "old.ckpt").hparams["num_train_images"],
        load(tmp_path / "old.ckpt").batch_size,
    ) == (320, 32)
    for name in ("train_pictures", "num_train_images"):
        assert load(tmp_path / "old.ckpt", **{name: 64}).hparams["num_train_images"] == 64


class Inheriting(DigitsClassification):
    """A user's class with our options."""


class Counting(DigitsClassification):
    """A user's class whose option means something else than ours of that former name."""

    def __init__(self, train_pictures: int = 5, num_train_images: int = 640, batch_size: int = 32) -> None:
        super().__init__(num_train_images=num_train_images, batch_size=batch_size)
        self.own = train_pictures


def test_checkpoints_of_a_users_subclass_keep_its_own_options(tmp_path: Path) -> None:
    for kind, saved, count in (
        (Inheriting, {"train_pictures": 320, "batch_size": 32}, 320),
        (Counting, {"train_pictures": 7, "num_train_images": 128, "batch_size": 32}, 128),
    ):
        state = {"datamodule_hyper_parameters": saved, "state_dict": {}, "pytorch-lightning_version": "2.6.0"}
        torch.save(state, tmp_path / "old.ckpt")
        loaded = kind.load_from_checkpoint(tmp_path / "old.ckpt")
        assert loaded.hparams["num_train_images"] == count
        assert getattr(loaded, "own", 7) == 7


def test_a_resumed_training_compares_options_of_an_old_checkpoint_by_their_current_names() -> None:
    data = DigitsClassification(num_train_images=640, batch_size=32)
    state = {"datamodule_hyper_parameters": {"train_pictures": 320, "batch_size": 32}}
    assert changes(state, None, data, {}) == ["data.num_train_images was 320 and is 640"]


@pytest.mark.parametrize("prefix", ["data.", "data.init_args.", "classification.data."])
def test_sweeps_take_the_old_name_and_give_the_same_id(tmp_path: Path, prefix: str) -> None:
    ids: set[Any] = set()
    for number, name in enumerate([f"{prefix}train_pictures", f"{prefix}num_train_images"]):
        for factors, settings in (
            (f"size: {{small: {{{name}: 640}}}}", ""),
            ("window_size: [7]", f"{name}: 640"),
        ):
            file = tmp_path / f"{number}.yaml"
            file.write_text(SWEEP.format(factors=factors, settings=settings))
            ids |= {(bool(settings), run.id) for run in probe_plan(make_plan(file)).runs}
        given = make_plan(ROOT / "sweeps/window_size.yaml", overrides=[f"{name}=640"])
        ids |= {("--set", probe_plan(given).runs[0].id)}
    assert len(ids) == 3


def test_sweeps_refuse_an_option_under_both_names(tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    both = "data.train_pictures: 640, data.num_train_images: 64"
    file.write_text(SWEEP.format(factors="window_size: [7]", settings=both))
    with pytest.raises(UserError, match="replaces"):
        make_plan(file)
    file.write_text(SWEEP.format(factors="data.train_pictures: [64, 640]", settings=""))
    with pytest.raises(UserError, match="varies this"):
        make_plan(file, overrides=["data.num_train_images=64"])


def test_suites_and_results_of_before_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Path(EXPERIMENT).read_text().replace("num_train_images", "train_pictures")
    assert "train_pictures" in old
    new = find_suite("digits").experiment("classification")
    assert recorded_config(yaml.safe_load(old))["data"] == new["data"]
    folder = tmp_path / "experiments" / "older"
    folder.mkdir(parents=True)
    (folder / "classification.yaml").write_text(old)
    monkeypatch.chdir(tmp_path)
    assert find_suite("older").experiment("classification") == new


def test_a_data_module_of_ones_own_keeps_its_options_in_overlays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = yaml.safe_load(Path(EXPERIMENT).read_text()) | {"data": {"class_path": f"{__name__}.Own"}}
    overlay = {"data": {"init_args": {"train_pictures": 7}}}
    for name, config in {"own": own, "overlay": overlay}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    first = f"--config={tmp_path}/own.yaml"
    assert parsed(first, f"--config={tmp_path}/overlay.yaml") == {"train_pictures": 7}
    assert parsed(first, "--data.train_pictures=8") == {"train_pictures": 8}
    assert parsed(first, "--data={init_args: {train_pictures: 9}}") == {"train_pictures": 9}
    assert "is now called" not in capsys.readouterr().err


def test_a_resumed_training_does_not_complain_of_moved_classes_and_old_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = DigitsClassification(num_train_images=640)
    data.hparams["_class_path"] = "focal_lab.data.DigitsClassification"
    noted = {"_class_path": "focal_lab.data.digits.DigitsClassification", "train_pictures": 640}
    assert changes({"datamodule_hyper_parameters": noted}, None, data, {}) == []
    noted["_class_path"] = "focal_lab.data.DigitsDetection"
    assert changes({"datamodule_hyper_parameters": noted}, None, data, {}) == [
        "data was focal_lab.data.DigitsDetection and is focal_lab.data.DigitsClassification"
    ]
    assert "is now called" not in capsys.readouterr().err


def test_a_data_module_of_ones_own_may_have_options_of_these_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = f"{__name__}.Own"
    for arguments in (["--data", path], [f"--data.class_path={path}"]):
        model = ["--model=focal_lab.tasks.Classification", "--model.backbone=focal_tiny"]
        assert parsed(*model, *arguments, "--data.train_pictures=3") == {"train_pictures": 3}
    assert "is now called" not in capsys.readouterr().err
