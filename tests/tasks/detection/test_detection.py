"""The detection task: what it trains, what it reports and what it refuses."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_tasks import detection_data, silent, small_detector
from support.tiny_task import quiet_trainer

from focal_lab.backbones.model import FocalTransformer
from focal_lab.errors import UserError
from focal_lab.tasks.detection.methods import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_every_weight_of_every_method_has_a_gradient(method: str) -> None:
    task = silent(small_detector(method))
    for number, batch in enumerate(detection_data().train_dataloader()):
        task.training_step(batch, number).backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_trained_and_reports_its_metrics(method: str) -> None:
    task, trainer = small_detector(method, warmup_steps=0), quiet_trainer()
    trainer.fit(task, detection_data())
    (tested,) = trainer.test(task, detection_data(), verbose=False)
    assert {f"test/{name}" for name in task.result_metrics} <= tested.keys()
    assert all(0 <= tested[f"test/{name}"] <= 100 for name in task.result_metrics)
    assert any(name.startswith("test_per_class/ap_box/") for name in tested)
    assert ("test/ap_mask" in tested) == (method == "mask_rcnn")


@pytest.mark.parametrize("method", ["retinanet", "mask_rcnn"])
def test_labels_are_the_datas_on_both_sides(method: str) -> None:
    task = small_detector(method).eval()
    answering = getattr(task.model, "roi_heads", task.model)
    answering.score_thresh = 0.0
    with torch.no_grad():
        (answer,) = task([torch.randn(3, 64, 64)])
    assert answer["labels"].min() >= 0
    assert answer["labels"].max() <= 9


@pytest.mark.parametrize(
    ("method", "first"), [("retinanet", 0), ("fcos", 0), ("faster_rcnn", 1), ("mask_rcnn", 1)]
)
def test_networks_get_their_own_labels_and_float_boxes(method: str, first: int) -> None:
    class Asked(torch.nn.Module):
        def forward(self, pictures: Any, targets: Any) -> dict[str, torch.Tensor]:
            self.targets = targets
            return {"loss": torch.zeros(())}

    task = silent(small_detector(method))
    task.model = Asked()
    target = {"labels": torch.tensor([0, 9]), "boxes": torch.tensor([[1, 2, 3, 4], [0, 0, 8, 8]])}
    task.training_step(([torch.zeros(3, 8, 8)], [target]), 0)
    assert task.model.targets[0]["labels"].tolist() == [first, first + 9]
    assert task.model.targets[0]["boxes"].dtype == torch.float32


def test_a_batch_of_which_nothing_could_be_read_has_no_answers() -> None:
    task = small_detector("retinanet").eval()
    assert task([]) == []
    assert task.validation_step(([], []), 0) == {"found": []}


@pytest.mark.parametrize(
    ("method", "options", "reported"),
    [
        ("retinanet", {"detections_per_img": 3}, "than the 3 that .*raise detections_per_img"),
        ("mask_rcnn", {"box_detections_per_img": 3}, "than the 3 that .*raise box_detections_per_img"),
        ("mask_rcnn", {"rpn_post_nms_top_n_test": 4}, "than the 4 that .*raise rpn_post_nms_top_n_test"),
        ("retinanet", {}, ""),
    ],
)
def test_images_with_more_objects_than_are_found_are_counted_once(
    method: str, options: dict[str, int], reported: str
) -> None:
    task = silent(small_detector(method, detector_options=options)).eval()
    target = {
        "boxes": torch.tensor([[4.0, 4, 20, 20]] * 7),
        "labels": torch.zeros(7, dtype=torch.int64),
        "masks": torch.ones(7, 64, 64, dtype=torch.uint8),
        "iscrowd": torch.tensor([0] * 5 + [1] * 2),
    }
    with warnings.catch_warnings(record=True) as seen, torch.no_grad():
        warnings.simplefilter("always")
        for _ in range(2):
            task._evaluate(([torch.zeros(3, 64, 64)], [target]), task.val_metric)
            task._report(task.val_metric, "val/")
    found = [str(warning.message) for warning in seen if "more objects" in str(warning.message)]
    assert len(found) == (1 if reported else 0)
    assert re.search(
        f"val: 1 images have more objects \\(up to 5\\) {reported}" if reported else "", "".join(found)
    )


def test_a_checkpoint_of_other_classes_is_not_tested(tmp_path: Path) -> None:
    trainer, made = quiet_trainer(default_root_dir=tmp_path), tmp_path / "made.ckpt"
    task, data, other = small_detector("retinanet", warmup_steps=0), detection_data(), detection_data()
    trainer.fit(task, data)
    trainer.save_checkpoint(made)
    other.class_names = tuple("abcdefghij")
    reported = "'0', '1', .* in training and 'a', 'b', .* in the data"
    with pytest.raises(UserError, match=reported):
        quiet_trainer().test(small_detector("retinanet"), other, ckpt_path=made, weights_only=True)
    with pytest.raises(UserError, match=reported):  # no checkpoint, and a task that was trained
        quiet_trainer().test(task, other)
    assert quiet_trainer().test(task, data, ckpt_path=made, weights_only=True, verbose=False)


def test_norms_and_position_tables_are_not_decayed_and_everything_is_learned_once() -> None:
    task = small_detector("retinanet")
    optimizer = task.recipe.optimizer(task.model, fused=False)
    decayed, spared = (group["params"] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0]
    assert len(decayed) + len(spared) == len(list(task.parameters()))
    backbone = next(module for module in task.modules() if isinstance(module, FocalTransformer))
    spared_ids = {id(parameter) for parameter in spared}
    assert id(backbone.layers[0].blocks[0].norm1.weight) in spared_ids
    assert id(backbone.layers[0].blocks[0].attn.relative_position_bias_table) in spared_ids
    assert id(backbone.layers[0].blocks[0].attn.qkv.bias) not in spared_ids


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ({"method": "yolo"}, "model.method"),
        ({"num_classes": 0}, "model.num_classes"),
        ({"min_size": [900], "max_size": 800}, "model.min_size"),
        ({"milestones": [8, 8]}, "model.milestones"),
        ({"detector_options": {"colour": 1}}, "model.detector_options"),
        ({"detector_options": {"min_size": 192}}, "model.detector_options"),
        ({"detector_options": {"image_std": [1, 1, 1]}}, "model.detector_options"),
        ({"backbone_options": {"colour": 1}}, "model.backbone_options"),
    ],
)
def test_what_cannot_be_built_is_refused(model: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError) as error:
        small_detector(**{"method": "retinanet"} | model)
    assert error.value.key == key


def test_masks_are_missed_before_training() -> None:
    data = detection_data()
    data.has_masks = False
    with pytest.raises(UserError, match="faster_rcnn"):
        quiet_trainer().fit(small_detector("mask_rcnn"), data)
    for number in (9, 11):
        with pytest.raises(UserError, match=f"{number} is not the number of classes of the data, 10"):
            quiet_trainer().fit(small_detector("retinanet", num_classes=number), detection_data())
