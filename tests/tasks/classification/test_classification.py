import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from lightning import Trainer
from support.tiny_task import OPTIONS, read_checkpoint, tiny_config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from focal_lab.data.digits.classification import DigitsClassification
from focal_lab.errors import UserError
from focal_lab.tasks.classification.task import Classification
from focal_lab.training.fit import build

# four classes; the label's logit is the largest, the second, and the last in turn
LOGITS = torch.tensor(
    [
        [2.0, 1.0, 0.0, -1.0],
        [2.0, 1.0, 0.0, -1.0],
        [2.0, 1.0, 0.0, -1.0],
        [0.0, 3.0, 1.0, 2.0],
        [9.0, 0, 0, 8],
    ]
)
LABELS = torch.tensor([0, 1, 3, 1, 3])


def tiny_task(**model: Any) -> Classification:
    torch.manual_seed(0)
    return Classification(
        **({"backbone": "focal_micro", "backbone_options": OPTIONS, "num_classes": 10} | model)
    )


def pictures(count: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 3, 28, 28), torch.arange(count) % 10


def task_with_logits(num_classes: int, **model: Any) -> Classification:
    """A task whose images are the logits already."""
    task = tiny_task(num_classes=num_classes, **model)
    task.model = nn.Identity()
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    return task


def quiet_trainer(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_a_few_epochs_lower_the_loss() -> None:
    data = DigitsClassification(batch_size=32, num_train_images=64, num_val_images=64, pieces=0)
    task = tiny_task(lr=3e-3)
    trainer = quiet_trainer(max_epochs=10)
    (before,) = trainer.validate(task, data, verbose=False)
    trainer.fit(task, data)
    (after,) = trainer.validate(task, data, verbose=False)
    assert before["val/loss"] == pytest.approx(math.log(10), abs=0.2)
    assert after["val/loss"] < before["val/loss"] - 0.1
    assert after["val/top1"] > 20


@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_count_every_image_alike_however_they_are_batched(split: str) -> None:
    task = task_with_logits(num_classes=4)
    loader = DataLoader(list(zip(LOGITS, LABELS, strict=True)), batch_size=3)  # type: ignore[arg-type]
    task.log = Classification.log.__get__(task)  # type: ignore[method-assign]
    trainer = quiet_trainer()
    run = trainer.validate if split == "val" else trainer.test
    (found,) = run(task, loader, verbose=False)
    losses = [
        math.log(sum(math.exp(v) for v in row)) - row[i]
        for row, i in zip(LOGITS.tolist(), LABELS, strict=True)
    ]
    assert found == {
        f"{split}/top1": pytest.approx(40.0),
        f"{split}/top5": pytest.approx(100.0),
        f"{split}/loss": pytest.approx(sum(losses) / 5, rel=1e-5),
    }


def test_top5_is_the_share_of_labels_among_the_five_likeliest() -> None:
    task = task_with_logits(num_classes=7)
    logits = torch.arange(7.0, 0, -1).expand(7, 7)
    for batch in (slice(0, 4), slice(4, 7)):
        task.test_step((logits[batch], torch.arange(7)[batch]), 0)
    assert float(task.test_metrics["top5"].compute()) == pytest.approx(500 / 7)
    assert float(task.test_metrics["top1"].compute()) == pytest.approx(100 / 7)


def test_metrics_start_from_scratch_after_an_evaluation() -> None:
    data = DigitsClassification(batch_size=32, num_val_images=48)
    task, trainer = tiny_task(), quiet_trainer()
    first = trainer.validate(task, data, verbose=False)
    assert trainer.validate(task, data, verbose=False) == first
    assert int(task.val_metrics["top1"].tp) == 0


def test_label_smoothing_spreads_the_target_in_training_only() -> None:
    task = task_with_logits(num_classes=4, label_smoothing=0.2)
    log_p = LOGITS.log_softmax(-1)
    target = F.one_hot(LABELS, 4) * 0.8 + 0.2 / 4
    assert task.training_step((LOGITS, LABELS), 0).item() == pytest.approx(
        -(target * log_p).sum(-1).mean().item()
    )
    task.validation_step((LOGITS, LABELS), 0)
    plain = F.cross_entropy(LOGITS, LABELS).item()
    assert float(task.val_metrics["loss"].compute()) == pytest.approx(plain)
    assert plain != pytest.approx(task.training_step((LOGITS, LABELS), 0).item())


@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_mixing_trains_on_pairs_of_images_with_soft_targets(mixing: dict[str, float]) -> None:
    task = tiny_task(label_smoothing=0.1, **mixing)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    seen: list[Tensor] = []
    task.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    images, labels = pictures(4)
    loss = task.training_step((images.clone(), labels), 0)
    assert math.isfinite(loss.item())
    assert seen[0].shape == images.shape
    assert not torch.equal(seen[0], images)
    task.validation_step((images, labels), 0)
    assert torch.equal(seen[1], images)


def test_mixing_keeps_the_share_of_both_labels() -> None:
    task = task_with_logits(num_classes=4, mixup=1.0, label_smoothing=0.0)
    mixed: list[Tensor] = []
    task.model = nn.Identity()
    task.model.register_forward_hook(lambda _, inputs, __: mixed.append(inputs[0]))
    # images that are their own one-hot label: the mixed image is the mixed target
    labels = torch.tensor([0, 1])
    loss = task.training_step((torch.eye(4)[:2, :, None, None].clone().squeeze(), labels), 0)
    targets = mixed[0]
    assert torch.allclose(targets.sum(-1), torch.ones(2))
    assert loss.item() == pytest.approx(-(targets * targets.log_softmax(-1)).sum(-1).mean().item(), rel=1e-5)


def test_mixing_an_odd_batch_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.batch_size: mixup needs pairs; 3 is odd$"):
        tiny_task(mixup=0.8).training_step(pictures(3), 0)


def test_prediction_gives_the_likeliest_classes_with_their_probabilities() -> None:
    task = task_with_logits(num_classes=4)
    found = task.predict_step((LOGITS, LABELS), 0)
    assert found["classes"][3].tolist() == [1, 3, 2, 0]
    assert torch.allclose(found["probabilities"].sum(-1), torch.ones(5))
    assert found["probabilities"][0, 0].item() == pytest.approx(LOGITS[0].softmax(-1)[0].item())
    assert torch.equal(found["labels"], LABELS)


def test_prediction_takes_images_without_labels_and_gives_five_classes() -> None:
    found = tiny_task().eval().predict_step(pictures()[0], 0)
    assert set(found) == {"classes", "probabilities"}
    assert found["classes"].shape == found["probabilities"].shape == (4, 5)


def test_a_checkpoint_brings_back_the_same_outputs() -> None:
    config = tiny_config(trainer={"max_epochs": 1}, betas=[0.9, 0.98], layer_decay=0.9)
    cli = build(config, Path("run"))
    cli.trainer.fit(cli.model, cli.datamodule)
    path = Path("run/checkpoints/last.ckpt")
    loaded = Classification.load_from_checkpoint(path, weights_only=True, map_location="cpu")
    images, _ = pictures()
    assert torch.equal(loaded.eval()(images), cli.model.eval()(images))
    assert loaded.recipe == cli.model.recipe
    assert loaded.recipe.betas == (0.9, 0.98)
    saved = read_checkpoint(path)["hyper_parameters"]
    assert json.loads(json.dumps(saved)) == saved
    assert saved["backbone_options"] == OPTIONS


def test_hyperparameters_of_a_task_built_in_python_are_plain_too() -> None:
    task = tiny_task(betas=(0.9, 0.98))
    assert json.loads(json.dumps(dict(task.hparams)))["betas"] == [0.9, 0.98]
    assert dict(task.hparams)["backbone_options"] == OPTIONS
    assert set(task.hparams) >= {"backbone", "num_classes", "lr", "mixup", "warmup_epochs"}


def test_counting_gives_parameters_and_multiply_accumulates() -> None:
    task = Classification("resnet10t", num_classes=10)
    params, gmacs = task.count((32, 32))
    assert params == sum(parameter.numel() for parameter in task.parameters())
    assert task.count((64, 64))[1] == pytest.approx(4 * gmacs, rel=0.01)
    assert task.count((64, 32))[1] == pytest.approx(2 * gmacs, rel=0.01)
    assert next(task.parameters()).device.type == "cpu"


def test_a_size_that_the_backbone_does_not_take_is_reported() -> None:
    task = Classification("test_vit", num_classes=10)
    with pytest.raises(
        UserError, match=r"^model\.backbone: test_vit does not take images of 28 x 56 px: Input"
    ):
        task.count((28, 56))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"num_classes": 5}, "model.num_classes: 5 is not the number of classes of the data, 10 (0, 1, "),
        ({"num_classes": 12}, "model.num_classes: 12 is not the number of classes of the data, 10 (0, 1, "),
        (
            {"backbone": "test_vit", "backbone_options": None},
            "model.backbone: test_vit does not take images",
        ),
    ],
)
def test_model_and_data_that_do_not_fit_are_reported_before_training(
    model: dict[str, Any], message: str
) -> None:
    data = DigitsClassification(batch_size=32, num_train_images=64, num_val_images=32)
    with pytest.raises(UserError) as caught:
        quiet_trainer(max_epochs=1).fit(tiny_task(**model), data)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("trainer", "steps", "total"),
    [
        ({"max_epochs": 3}, 4, 12),
        ({"max_epochs": 10, "max_steps": 12}, 4, 12),
        ({"max_epochs": -1, "max_steps": 12}, 4, 12),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 2, 6),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, 2, 6),
        ({"max_epochs": 3, "limit_train_batches": 2}, 2, 6),
    ],
)
def test_a_warmup_of_one_epoch_lasts_as_many_steps_as_an_epoch_has(
    trainer: dict[str, Any], steps: int, total: int
) -> None:
    rates: list[float] = []
    task = tiny_task(warmup_epochs=1.0, warmup_lr=0.0, lr=1e-3, min_lr=0.0)
    task.on_before_optimizer_step = lambda optimizer: rates.append(  # type: ignore[method-assign]
        optimizer.param_groups[0]["lr"]
    )
    data = DigitsClassification(batch_size=4, num_train_images=16, num_val_images=4)
    quiet_trainer(limit_val_batches=0, **trainer).fit(task, data)
    assert len(rates) == total
    assert rates[:steps] == pytest.approx([1e-3 * step / steps for step in range(steps)])
    cosine = [5e-4 * (1 + math.cos(math.pi * step / total)) for step in range(steps, total)]
    assert rates[steps:] == pytest.approx(cosine)


@pytest.mark.parametrize("trainer", [{"max_epochs": -1}, {"max_epochs": 2, "limit_train_batches": 0}])
def test_a_training_without_a_number_of_steps_is_refused(trainer: dict[str, Any]) -> None:
    data = DigitsClassification(batch_size=4, num_train_images=16, num_val_images=4)
    with pytest.raises(
        UserError, match=r"^trainer\.max_epochs: a cosine schedule needs a finite number of steps, not "
    ):
        quiet_trainer(**trainer).fit(tiny_task(), data)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_classes": 1}, "model.num_classes: 1 is too few; classification needs 2 classes"),
        ({"label_smoothing": 1.0}, "model.label_smoothing: 1.0 is not in [0, 1)"),
        ({"label_smoothing": -0.1}, "model.label_smoothing: -0.1 is not in [0, 1)"),
        ({"mixup": -0.5}, "model.mixup: -0.5 is not 0 or more"),
        ({"cutmix": -0.5}, "model.cutmix: -0.5 is not 0 or more"),
        ({"lr": 0.0}, "model.lr: 0.0 is not positive"),
        ({"backbone": "focal_tinny"}, "model.backbone: 'focal_tinny' is not a backbone"),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny_task(**wrong)
    assert str(caught.value).startswith(message)


def test_grey_images_are_counted_with_one_channel() -> None:
    grey, colour = (
        build(tiny_config(options={"in_chans": channels}), Path("run")).model.gmacs((28, 28))
        for channels in (1, 3)
    )
    assert 0 < grey < colour
