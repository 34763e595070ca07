from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.tiny_task import quiet_trainer, tiny_config

from focal_lab.errors import UserError
from focal_lab.tasks.freezing import evaluate_frozen, freeze
from focal_lab.training.fit import build
from focal_lab.training.lightning_cli import FocalCLI

BEGINNINGS = ["patch_embed", "layers.0", "layers.1", "layers.2", "layers.3"]


def trained_names(**model: Any) -> set[str]:
    """The parameters that an epoch changes."""
    made = FocalCLI(tiny_config(options={"drop_path_rate": 0.2}, **model), run=False)
    before = {name: value.clone() for name, value in made.model.model.named_parameters()}
    quiet_trainer().fit(made.model, made.datamodule)
    return {
        name for name, value in made.model.model.named_parameters() if not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("stages", [0, 2, 4])
def test_frozen_stages_keep_their_weights_and_the_others_learn(stages: int) -> None:
    changed = trained_names(frozen=stages)
    for place, beginning in enumerate(BEGINNINGS):
        assert any(name.startswith(beginning) for name in changed) == (place > stages), beginning
    assert "head.fc.weight" in changed


def test_a_linear_probe_trains_the_classifier_alone() -> None:
    assert trained_names(frozen="backbone") == {"head.fc.weight", "head.fc.bias"}


def test_frozen_parts_draw_nothing_in_training() -> None:
    model = FocalCLI(tiny_config(options={"drop_path_rate": 0.9}, frozen=4), run=False).model
    pictures = torch.randn(4, 3, 28, 28)
    model.train()
    assert model.training
    assert torch.equal(model(pictures), model(pictures))
    model.eval().train()
    assert torch.equal(model(pictures), model(pictures))


def test_statistics_of_frozen_batch_norms_stand_still() -> None:
    model = timm.create_model("resnet18", num_classes=3).train()
    freeze(model, 1)
    evaluate_frozen(model)
    model(torch.randn(2, 3, 64, 64))
    assert model.bn1.num_batches_tracked == model.layer1[0].bn1.num_batches_tracked == 0
    assert model.layer2[0].bn1.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("frozen", "message"),
    [(5, "5 is not 0 to 4, the number of stages"), (-1, "-1 is not 0 to 4, the number of stages")],
)
def test_what_no_model_has_is_refused(frozen: int, message: str) -> None:
    with pytest.raises(UserError, match=rf"^model.frozen: {message}"):
        build(tiny_config(frozen=frozen), Path("run"))


def test_layer_decay_and_frozen_stages_go_together() -> None:
    changed = trained_names(frozen=1, layer_decay=0.8)
    assert not any(name.startswith(("patch_embed", "layers.0")) for name in changed)
    assert any(name.startswith("layers.1") for name in changed)
