"""Fine-tuning, as a user does it: a trained network begins another training, by `backbone_checkpoint`."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.tiny_task import OPTIONS, quiet_trainer, tiny_config

from focal_lab.training.fit import build, train
from focal_lab.training.lightning_cli import FocalCLI

BEST = Path("run/checkpoints/best.ckpt")


def weights(made: FocalCLI) -> dict[str, torch.Tensor]:
    return dict(made.model.model.state_dict())


def restarted(**changes: Any) -> FocalCLI:
    return build(tiny_config(**{"backbone_checkpoint": str(BEST)} | changes), Path("next"))


@pytest.fixture
def trained() -> dict[str, torch.Tensor]:
    """Weights of a short training, whose checkpoint is BEST."""
    train(tiny_config(), Path("run"))
    state = torch.load(BEST, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def test_other_classes_get_a_new_head_on_the_trained_backbone(trained: dict[str, torch.Tensor]) -> None:
    with pytest.warns(UserWarning, match="head"):
        made = restarted(num_classes=23)
    begun = weights(made)
    assert begun["head.fc.weight"].shape[0] == 23
    same = [name for name in trained if not name.startswith("head.")]
    assert len(same) > 50
    assert all(torch.equal(begun[name], trained[name]) for name in same)


def test_larger_images_and_windows_take_the_weights_with_biases_interpolated(
    trained: dict[str, torch.Tensor],
) -> None:
    made = restarted(options={"img_size": 56, "window_size": 14}, data={"image_size": 56})
    begun = weights(made)
    tables = [name for name in trained if trained[name].shape != begun[name].shape]
    assert any("bias" in name for name in tables)
    assert all("bias" in name or "pool" in name for name in tables), tables
    assert all(torch.equal(begun[name], trained[name]) for name in trained if name not in tables)
    quiet_trainer(limit_train_batches=1, limit_val_batches=1).fit(made.model, made.datamodule)


def test_the_same_network_goes_on_from_where_it_was(trained: dict[str, torch.Tensor]) -> None:
    begun = weights(restarted())
    assert all(torch.equal(begun[name], value) for name, value in trained.items())


def test_a_focal_network_begins_with_swins_weights() -> None:
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=28,
        patch_size=2,
        window_size=7,
        num_classes=10,
        embed_dim=8,
        depths=OPTIONS["depths"],
        num_heads=(1, 2, 4, 8),
    )
    torch.save(swin.state_dict(), "swin.pth")
    begun = weights(restarted(backbone_checkpoint="swin.pth"))
    theirs = swin.state_dict()
    for name in ("layers.2.blocks.0.mlp.fc1.weight", "layers.0.blocks.0.attn.qkv.weight", "head.fc.weight"):
        assert torch.equal(begun[name], theirs[name]), name


def test_bf16_trains_and_evaluates() -> None:
    metrics = train(tiny_config(trainer={"precision": "bf16-mixed"}, ema_decay=0.9), Path("run")).metrics
    full = train(tiny_config(ema_decay=0.9), Path("full")).metrics
    assert metrics != full
    assert metrics["loss"] == pytest.approx(full["loss"], rel=0.05)
