"""The segmentation task: what it trains, what it reports and what it refuses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from support.mask_folders import write_world
from support.small_tasks import BACKBONES, segmentation_data, silent, small_segmenter
from support.tiny_task import quiet_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from focal_lab.backbones.counting import count_parameters
from focal_lab.backbones.model import FocalTransformer
from focal_lab.data.segmentation.mask_folder import SegmentationFolder
from focal_lab.errors import UserError
from focal_lab.tasks.classes import Classes
from focal_lab.tasks.segmentation.evaluation import _most_likely
from focal_lab.tasks.segmentation.task import Segmentation

DECODERS = ("upernet", "fpn", "segformer", "deeplabv3plus")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_weight_of_every_decoder_on_any_backbone_has_a_gradient(decoder: str, backbone: str) -> None:
    task = silent(small_segmenter(decoder, backbone))
    for number, batch in enumerate(segmentation_data().train_dataloader()):
        task.training_step(batch, number).backward()  # type: ignore[no-untyped-call]
    # timm's residual networks begin with branches that are multiplied by zero
    zero_is_fine = backbone == "resnet18"
    without = [
        name
        for name, p in task.named_parameters()
        if p.grad is None or not (p.grad.any() or (zero_is_fine and ".model." in name))
    ]
    assert without == []


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_is_trained_and_reports_its_metrics(decoder: str) -> None:
    task, trainer = small_segmenter(decoder), quiet_trainer()
    trainer.fit(task, segmentation_data())
    assert {"val/miou", "val/macc", "val/pixel_acc"} <= trainer.callback_metrics.keys()
    (tested,) = trainer.test(task, segmentation_data(), verbose=False)
    assert {"test/miou", "test/macc", "test/pixel_acc"} <= tested.keys()
    assert all(0 <= value <= 100 for value in tested.values())
    assert "test_per_class/iou/background" in tested


def test_a_few_images_are_learned_by_heart() -> None:
    torch.manual_seed(0)
    data = segmentation_data(num_train_images=4, batch_size=4)
    task = small_segmenter("upernet", lr=3e-3, dropout=0.0)
    trainer = quiet_trainer(max_epochs=40, limit_val_batches=0)
    trainer.fit(task, data)
    pictures, targets = next(iter(data.train_dataloader()))
    with torch.no_grad():
        found = task.eval()(pictures)
    right = [
        float((classes == target["mask"])[target["mask"] > 0].float().mean())
        for classes, target in zip(found, targets, strict=True)
    ]
    assert min(right) > 0.8


def test_upernet_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        task = Segmentation("swin_tiny_patch4_window7_224", num_classes=150)
        without = Segmentation("swin_tiny_patch4_window7_224", num_classes=150, auxiliary_weight=0)
    assert count_parameters(task.model) / 1e6 == pytest.approx(60, rel=0.002)
    assert (count_parameters(task.model) - count_parameters(without.model)) / 1e6 == pytest.approx(
        0.92, abs=0.01
    )


def test_pixels_that_do_not_count_change_nothing() -> None:
    task = silent(small_segmenter()).eval()  # batch statistics aside
    pictures = [torch.randn(3, 64, 64) for _ in range(2)]
    masks = [torch.randint(0, 11, (64, 64), dtype=torch.uint8) for _ in range(2)]

    def loss() -> torch.Tensor:
        targets = [{"mask": mask} for mask in masks]
        found: torch.Tensor = task.training_step((pictures, targets), 0)
        return found.detach()

    for mask in masks:
        mask[:, 32:] = 255
    half = loss()
    logits = task.model(torch.stack(pictures))
    large = nn.functional.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
    expected = nn.functional.cross_entropy(large[..., :32], torch.stack(masks)[..., :32].long())
    auxiliary = task.model.with_auxiliary(torch.stack(pictures))[1]
    assert auxiliary is not None
    coarse = nn.functional.interpolate(auxiliary, (64, 64), mode="bilinear", align_corners=False)
    expected = expected + 0.4 * nn.functional.cross_entropy(
        coarse[..., :32], torch.stack(masks)[..., :32].long()
    )
    torch.testing.assert_close(half, expected.detach())
    for mask in masks:
        mask[:] = 255
    assert loss() == 0


def test_class_weights_are_torchs() -> None:
    weights = [0.1] + [1.0] * 10
    task = small_segmenter(class_weights=weights)
    logits, labels = torch.randn(2, 11, 32, 32), torch.randint(0, 11, (2, 64, 64))
    labels[0] = 255
    task.model.features.extent.update([(64, 64)] * 2, (64, 64))
    ours = task._cross_entropy(logits, labels)
    large = nn.functional.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        ours, nn.functional.cross_entropy(large, labels, torch.tensor(weights), ignore_index=255)
    )


def test_crops_that_are_no_multiple_of_32_are_padded_and_cut() -> None:
    task = silent(small_segmenter())
    batch = next(iter(segmentation_data(image_size=50).train_dataloader()))
    assert torch.isfinite(task.training_step(batch, 0))


def test_the_frame_reaches_a_focal_backbone() -> None:
    task = small_segmenter().eval()
    torch.manual_seed(1)
    picture = torch.randn(1, 3, 52, 64)
    with torch.no_grad():
        framed = task.model.framed(picture)
        maps = task.model.features(framed)
        framed[..., 52:, :] = 7.0  # what lies beyond a image is not seen
        again = task.model.features(framed)
    for before, after in zip(maps, again, strict=True):
        torch.testing.assert_close(before, after)


def test_norms_and_position_tables_are_not_decayed_and_everything_is_learned_once() -> None:
    task = small_segmenter()
    optimizer = task.recipe.optimizer(task.model, fused=False)
    decayed, spared = (group["params"] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0]
    assert len(decayed) + len(spared) == len(list(task.parameters()))
    backbone = next(module for module in task.modules() if isinstance(module, FocalTransformer))
    assert id(backbone.layers[0].blocks[0].norm1.weight) in {id(parameter) for parameter in spared}


def test_the_rate_falls_in_a_straight_line_after_the_warmup() -> None:
    task = small_segmenter(lr=1e-3, warmup_steps=10)
    optimizer = task.recipe.optimizer(task.model, fused=False)
    scheduler = task.recipe.scheduler(optimizer, total_steps=100, steps_per_epoch=10)
    rates = []
    for step in range(100):
        scheduler.step_update(num_updates=step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[5] == pytest.approx(0.5e-3, rel=1e-3)
    assert rates[10:] == pytest.approx([1e-3 * (1 - step / 100) for step in range(10, 100)])


def test_one_image_is_too_few_for_batch_norms() -> None:
    with pytest.raises(UserError, match="sync_batchnorm") as error:
        quiet_trainer().fit(small_segmenter(), segmentation_data(batch_size=1))
    assert error.value.key == "data.init_args.batch_size"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_may_have_images_of_any_size(backbone: str) -> None:
    task = small_segmenter("upernet", backbone).eval()
    with torch.no_grad():
        found = task([torch.randn(3, 64, 64), torch.randn(3, 40, 70)])
    assert [tuple(classes.shape) for classes in found] == [(64, 64), (40, 70)]


def test_a_gpu_gets_everything_it_computes_with() -> None:
    task = small_segmenter(class_weights=[1.0] * 11).eval()
    with FakeTensorMode(), torch.no_grad():
        state = {
            name: torch.empty(value.shape, dtype=value.dtype, device="cuda")
            for name, value in [*task.model.named_parameters(), *task.model.named_buffers()]
        }
        task._buffers["class_weights"] = torch.ones(11, device="cuda")
        framed = task.model.framed(torch.empty(2, 3, 52, 64, device="cuda"))
        logits = functional_call(task.model, state, (framed,))
        labels = torch.zeros(2, 52, 64, dtype=torch.uint8, device="cuda")
        loss, found = task._cross_entropy(logits, labels), _most_likely(logits, (52, 64))
    assert {logits.device.type, loss.device.type, found.device.type} == {"cuda"}


def trainer_with_pictures(folder: Path) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=TensorBoardLogger(folder, name="", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
    )


def test_validation_images_with_truth_and_answer_are_in_tensorboard(tmp_path: Path) -> None:
    trainer_with_pictures(tmp_path).fit(small_segmenter(), segmentation_data(num_val_images=3))
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert sorted(events.Tags()["images"]) == [f"val/picture_{i}" for i in range(3)]
    (shown,) = events.Images("val/picture_0")
    assert shown.width == 2 * 320 + 4
    assert 320 < shown.height < 460  # the legend is below


def test_predict_writes_masks_of_the_datas_numbers_and_the_original_size_and_images(tmp_path: Path) -> None:
    write_world(tmp_path)
    (tmp_path / "in").mkdir()
    torch.manual_seed(0)
    for name, size in (("42.png", (50, 60)), ("cat.jpg", (40, 90))):
        pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    task = small_segmenter(num_classes=3)
    task.classes = Classes(("a", "b", "c"), (1, 2, 300))
    data = SegmentationFolder(str(tmp_path), predict_images="in", num_workers=0)
    trainer_with_pictures(tmp_path / "out").predict(task, data, return_predictions=False)
    drawn = sorted(file.name for file in (tmp_path / "out" / "pictures").iterdir())
    assert drawn == ["42.png", "cat.png"]
    for name, size in (("42.png", (60, 50)), ("cat.jpg", (90, 40))):
        with Image.open(tmp_path / "out" / "masks" / f"{Path(name).stem}.png") as mask:
            assert mask.size == size
            assert set(np.unique(np.array(mask))) <= {1, 2, 300}
        with Image.open(tmp_path / "out" / "pictures" / f"{Path(name).stem}.png") as picture:
            factor = -(-320 // max(size))
            assert picture.width == factor * size[0]
            assert picture.height > factor * size[1]  # by the legend


def test_a_checkpoint_of_other_classes_is_not_tested(tmp_path: Path) -> None:
    trainer, made = quiet_trainer(default_root_dir=tmp_path), tmp_path / "made.ckpt"
    task, other = small_segmenter(), segmentation_data()
    trainer.fit(task, segmentation_data())
    trainer.save_checkpoint(made)
    other.class_names = tuple("abcdefghijk")
    with pytest.raises(UserError, match=r"'background', '0', '1', .* in training"):
        quiet_trainer().test(task, other, ckpt_path=made, weights_only=True)


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ({"decoder": "pspnet"}, "model.decoder"),
        ({"decoder_options": {"colour": 1}}, "model.decoder_options"),
        ({"decoder": "fpn", "decoder_options": {"merge_policy": "product"}}, "model.decoder_options"),
        ({"backbone_options": {"colour": 1}}, "model.backbone_options"),
        ({"num_classes": 1}, "model.num_classes"),
        ({"ignore_index": 3}, "model.ignore_index"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"auxiliary_weight": -1.0}, "model.auxiliary_weight"),
        ({"decoder_channels": 0}, "model.decoder_channels"),
        ({"class_weights": [1.0]}, "model.class_weights"),
        ({"power": 0.0}, "model.power"),
        ({"evaluation": "tiles"}, "model.evaluation"),
        ({"window": 100}, "model.window"),
    ],
)
def test_what_cannot_be_built_is_refused(model: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError) as error:
        small_segmenter(**model)
    assert error.value.key == key


def test_data_of_more_classes_or_another_ignored_label_are_refused_before_training() -> None:
    for number in (10, 12):
        with pytest.raises(UserError, match=f"{number} is not the number of classes of the data, 11"):
            quiet_trainer().fit(small_segmenter(num_classes=number), segmentation_data())
    data = segmentation_data()
    data.ignore_index = 254  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="255 is not 254, the data's ignore_index") as error:
        quiet_trainer().fit(small_segmenter(ignore_index=255), data)
    assert error.value.key == "model.ignore_index"
    data.ignore_index = 10  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="10 is one of the 11 labels"):
        quiet_trainer().fit(small_segmenter(), data)


def test_the_ignored_label_is_the_datas() -> None:
    task, data = small_segmenter(), segmentation_data()
    data.ignore_index = 254  # type: ignore[attr-defined]
    task._trainer = SimpleNamespace(datamodule=data, precision="32-true")  # type: ignore[assignment]
    task.setup("validate")
    mask = torch.full((8, 8), 254)
    mask[0, 0] = 3
    task.val_metric.update(torch.full((8, 8), 3), mask, 0)
    assert task.val_metric.compute()["pixel_acc"] == 100
    task.model.features.extent.update([(8, 8)], (8, 8))
    assert task._cross_entropy(torch.randn(1, 11, 8, 8), torch.full((1, 8, 8), 254)) == 0
    task.val_metric.reset()
    task.val_metric.update(torch.full((8, 8), 3), torch.full((8, 8), 254), 0)
    with pytest.warns(UserWarning, match="val/miou is NaN: all pixels of the images are ignored"):
        silent(task)._report(task.val_metric, "val/")
