"""What would end every run at its start is refused by the plan, in one line."""

from typing import Any

import pytest
import torch

from focal_lab.ablation.engine.measure_child import refuse_impossible
from focal_lab.errors import UserError


def configuration(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model": {
            "class_path": "focal_lab.tasks.classification.Classification",
            "init_args": {"backbone": "focal_micro_patch2_window7_28", "num_classes": 10},
        },
        "data": {"class_path": "focal_lab.data.digits.DigitsClassification", "init_args": {}},
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
        ({"data__train_pictures": 0}, "data.init_args.train_pictures: 0 is out of range"),
        ({"data__val_pictures": 0}, "data.init_args.val_pictures: 0 is out of range"),
        ({"data__num_workers": -1}, "data.init_args.num_workers: -1 is out of range"),
        ({"model__backbone_checkpoint": "no.pt"}, "model.backbone_checkpoint: no.pt: is not a file"),
        ({"trainer__accelerator": "gpu"}, "trainer.accelerator: gpu: this machine has none"),
        ({"trainer__accelerator": "cuda"}, "trainer.accelerator: cuda: this machine has none"),
        ({"trainer__precision": "half"}, "trainer.precision: "),
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
