"""What would end every run at its start is refused by the plan, in one line."""

from typing import Any

import pytest
import torch

from focal_lab.data.detection.coco import CocoDataModule
from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.errors import UserError
from focal_lab.sweep.worker.check import absent_data, check_configs, refuse_impossible
from focal_lab.sweep.worker.request import CheckRequest


def configuration(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model": {
            "class_path": "focal_lab.tasks.Classification",
            "init_args": {"backbone": "focal_micro_patch2_window7_28", "num_classes": 10},
        },
        "data": {"class_path": "focal_lab.data.DigitsClassification", "init_args": {}},
        "trainer": {},
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        (config[part] if part == "trainer" else config[part]["init_args"])[name] = value
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__batch_size": 0}, "data.init_args.batch_size: 0 is out of range"),
        ({"data__batch_size": 1.5}, "data.batch_size: Expected a int"),
        ({"data__num_train_images": 0}, "data.init_args.num_train_images: 0 is out of range"),
        ({"data__num_val_images": 0}, "data.init_args.num_val_images: 0 is out of range"),
        ({"data__num_workers": -1}, "data.init_args.num_workers: -1 is out of range"),
        ({"model__backbone_checkpoint": "no.pt"}, "model.backbone_checkpoint: no.pt: is not a file"),
        ({"trainer__accelerator": "gpu"}, "trainer.accelerator: gpu: not available on this machine"),
        ({"trainer__accelerator": "cuda"}, "trainer.accelerator: cuda: not available on this machine"),
        ({"trainer__precision": "half"}, "trainer.precision: "),
        (
            {
                "trainer__logger": [
                    {"class_path": "CSVLogger", "init_args": {"save_dir": "."}},
                    {"class_path": "WandbLogger"},
                ]
            },
            "trainer.logger: WandbLogger: Requirement 'wandb",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_run(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refuse_impossible(configuration())
    with pytest.raises(UserError) as caught:
        refuse_impossible(configuration(**changes))
    assert str(caught.value).startswith(message)


class Own(DigitsClassification):
    """The user's own, which is made to ask it for the size of its images."""

    eval_transform = None

    def __init__(self, width: int = 3, **options: Any) -> None:
        super().__init__(**options)
        if width == 4:
            raise RuntimeError("4 is\nodd")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("data", {"width": "wide"}, "data.width: Expected a int"),
        ("data", {"depth": 3}, "data: Option 'depth' is not accepted by "),
        ("data", {"width": 4}, f"{__file__}:"),
        ("model", {"lr": "fast"}, "model.lr: Expected a float"),
        ("model", {"depth": 3}, "model: Option 'depth' is not accepted by "),
    ],
)
def test_what_the_users_own_data_refuse_is_one_line(part: str, change: dict[str, Any], message: str) -> None:
    config = configuration() | {"data": {"class_path": f"{__name__}.Own", "init_args": {}}}
    config[part]["init_args"] |= change
    wrong = check_configs(CheckRequest((config,), frozenset({0}))).wrong
    assert wrong is not None
    assert wrong[0] == 0
    assert wrong[1].startswith(message)
    assert wrong[1].endswith("RuntimeError: 4 is odd") == (change == {"width": 4})
    assert "\n" not in wrong[1]


class Derived(CocoDataModule):
    """Finds its files in its own way."""


class Looks(CocoDataModule):
    """Finds its files in its own way, and says how."""

    def check_files(self) -> None:
        raise UserError("no bucket of that name", file=self.root)


@pytest.mark.parametrize(
    ("kind", "reported"),
    [
        ("focal_lab.data.DigitsClassification", None),
        ("focal_lab.data.CocoDataModule", "nowhere: data.init_args.root: does not exist"),
        (f"{__name__}.Derived", None),
        (f"{__name__}.Looks", "nowhere: no bucket of that name"),
    ],
)
def test_data_that_are_not_on_this_machine_are_named(kind: str, reported: str | None) -> None:
    config = configuration()
    rooted = {} if "Digits" in kind else {"root": "nowhere"}
    assert absent_data(config | {"data": {"class_path": kind, "init_args": rooted}}) == reported
