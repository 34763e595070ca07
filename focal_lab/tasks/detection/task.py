"""Object detection and instance segmentation with any timm backbone (section 4.2 of the paper)."""

from typing import Any, cast

import torch
from lightning import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from focal_lab.backbones.options import Size
from focal_lab.data.loading.collate import Batch, Target
from focal_lab.errors import UserError
from focal_lab.tasks.base import Task
from focal_lab.tasks.classes import check_labels, known
from focal_lab.tasks.detection.images import DRAWN_FROM, WriteDetections, draw_found, draw_truth
from focal_lab.tasks.detection.matching import recorded
from focal_lab.tasks.detection.methods import PAPER_SIZE, count_detector_gmacs, find_method, most_found
from focal_lab.tasks.detection.metrics import AveragePrecision, metric_names
from focal_lab.tasks.detection.parts import Settings
from focal_lab.tasks.detection.regions import in_full
from focal_lab.tasks.features import Features
from focal_lab.tasks.image_callbacks import ShowImages
from focal_lab.tasks.initial_weights import initial_weights
from focal_lab.tasks.optimizer import Recipe, check_option
from focal_lab.tasks.recorded import Recorded
from focal_lab.tasks.tested import refuse_repeated


class Detection(Task):
    """The losses of a torchvision detector, and average precision as COCO defines it.

    Args:
        method: retinanet, mask_rcnn, faster_rcnn or fcos.
        backbone: timm model name, such as focal_tiny or resnet50.
        backbone_options: options of that model, such as {focal_windows: [15, 13, 9, 7]}; a focal one gets
            border: mask unless they say otherwise, so that padding changes no result.
        backbone_checkpoint: file of weights to start from, such as that of a classification run.
        num_classes: classes of the data without background; None takes their number from the data in a
            command.
        min_size: shorter side in px that images are resized to: one of several at random in training, the
            last in evaluation; empty to keep the images' size.
        max_size: upper limit of the longer side in px after resizing.
        pyramid_channels: channels of the pyramid's maps and of the heads' convolutions.
        head_width: width of the box head.
        feature_norm: a layer norm on each of the backbone's maps, as in Swin's detectors; None for one if the
            backbone's maps are channels-last.
        detector_options: keyword arguments of torchvision's class, such as {box_batch_size_per_image: 64}.
        lr: highest learning rate.
        weight_decay: decay of all weights but norms and position tables, as in Swin's detectors.
        betas: AdamW's two decay rates.
        milestones: epochs after which the rate drops to a tenth; empty for a cosine.
        warmup_steps: optimizer steps of linear warmup.
        warmup_lr: learning rate at the start of the warmup.
        min_lr: learning rate at the end of the cosine.
        init_seed: of the initial weights, the heads' included; None for the seed of the run
            (`seed_everything`).

    Raises:
        UserError: no such method, backbone, option or file, or a number out of range.
    """

    monitor = "val/ap_box"
    drawn_from = DRAWN_FROM  # score from which `predict` draws an object

    def __init__(
        self,
        method: str,
        backbone: str,
        backbone_options: dict[str, Any] | None = None,
        backbone_checkpoint: str | None = None,
        num_classes: int | None = None,
        min_size: list[int] | None = None,
        max_size: int = 1333,
        pyramid_channels: int = 256,
        head_width: int = 1024,
        feature_norm: bool | None = None,
        detector_options: dict[str, Any] | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        milestones: list[float] | None = None,
        warmup_steps: int = 500,
        warmup_lr: float = 1e-7,
        min_lr: float = 1e-6,
        init_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        num_classes, sizes = known(num_classes), min_size or [1]
        check_option("num_classes", num_classes, num_classes >= 1, "1 or more")
        check_option("pyramid_channels", pyramid_channels, pyramid_channels >= 1, "1 or more")
        check_option("head_width", head_width, head_width >= 1, "1 or more")
        within = min(sizes) >= 1 and max(sizes) <= max_size
        check_option("min_size", sizes, within, f"within 1 to max_size, {max_size}")
        chosen = find_method(method)
        self.masks, self.first_label = chosen.has_masks, chosen.first_label
        self.recipe = Recipe(
            lr=lr,
            weight_decay=weight_decay,
            betas=(betas[0], betas[1]),
            warmup_lr=warmup_lr,
            min_lr=min_lr,
            milestones=tuple(milestones or ()),
            warmup_steps=warmup_steps,
            decay_biases=True,
        )
        with initial_weights(init_seed):
            settings = Settings(
                Features(backbone, backbone_options, backbone_checkpoint, chosen.stages, feature_norm),
                num_classes,
                min_size=tuple(min_size or ()),
                max_size=max_size,
                channels=pyramid_channels,
                head_width=head_width,
                options=detector_options or {},
            )
            self.model = chosen.build(settings)
        self.val_metric = AveragePrecision(self.masks)
        self.test_metric = AveragePrecision(self.masks, per_class=True)
        self._crowded: list[int] = []  # the numbers of objects of images that have more than are found
        self._warned_of_objects = False

    @property
    def result_metrics(self) -> tuple[str, ...]:
        """The metrics of a result: those that exist whatever the objects' sizes."""
        names = metric_names(self.masks)
        return tuple(name for name in names if not name.startswith(("ap_small", "ap_medium", "ap_large")))

    def setup(self, stage: str) -> None:
        """Also check that the data has masks if the method needs them."""
        super().setup(stage)
        if self.masks and stage != "predict" and not getattr(self.attached_data, "has_masks", True):
            raise UserError(
                f"{self.hparams['method']} needs masks, and the data has boxes only "
                "(use faster_rcnn, which is the same without masks)",
                key="model.method",
            )

    def forward(self, images: list[Tensor]) -> list[Target]:
        """Normalised images (3, H, W) of any size to boxes, labels, scores and masks, best first."""
        if not images:  # none of a batch could be read
            return []
        found: list[Target] = self.model(images)
        for target in found:
            target["labels"] = target["labels"] - self.first_label
            if self.masks:
                target["masks"] = target["masks"][:, 0] >= 0.5
        return found

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Check the labels: torchvision takes -1 for background, and fails at others with its own message."""
        check_labels(batch, "labels", self.hparams["num_classes"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the detector's losses."""
        images, targets = batch
        wanted = [
            # torchvision does not accept integer boxes
            target | {"labels": target["labels"] + self.first_label, "boxes": in_full(target["boxes"])}
            for target in targets
        ]
        losses: dict[str, Tensor] = self.model(images, wanted)
        loss = torch.stack(list(losses.values())).sum()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images))
        parts = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(parts, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Target]]:
        """Update the validation metric; returns the predictions for callbacks that draw them."""
        return {"found": self._evaluate(batch, self.val_metric)}

    def on_validation_epoch_end(self) -> None:
        self._report(self.val_metric, "val/")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.test_metric)

    def recorded(self) -> Recorded:
        return recorded(self.test_metric)

    def on_test_epoch_end(self) -> None:
        """Report average precision over all test images, and of each class."""
        names = [self.classes.name(label) for label in range(self.hparams["num_classes"])]
        by_class = self.test_metric.by_class(names)
        self._report(self.test_metric, "test/")
        for kind, found in by_class.items():
            self.log_dict({f"test_per_class/ap_{kind}/{name}": ap for name, ap in found.items()})

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> list[Target]:
        found: list[Target] = self(batch[0])
        return found

    def configure_callbacks(self) -> list[Callback]:
        return [ShowImages(draw_truth, draw_found), WriteDetections(self.drawn_from)]

    def network_size(self, image: Size) -> Size:
        """Resized by `min_size` and `max_size`, and padded."""
        frame: Size = cast(Any, self.model).transform.frame(image)
        return frame

    def usual_size(self) -> Size:
        """The papers' 800 x 1280: an image of that shape, the shorter side `min_size`, within `max_size`."""
        if not self.hparams["min_size"]:
            return PAPER_SIZE
        side = self.hparams["min_size"][-1]
        longer = min(side * PAPER_SIZE[1] // PAPER_SIZE[0], self.hparams["max_size"])
        return self.network_size((side, longer))

    def gmacs(self, size: Size) -> float:
        return count_detector_gmacs(self.model, size)

    def _evaluate(self, batch: Batch, metric: AveragePrecision) -> list[Target]:
        images, targets = batch
        if self.masks:
            targets = [target | {"masks": target["masks"].bool()} for target in targets]
        found: list[Target] = self(images)
        metric.update(found, targets)
        counts = [int((target.get("iscrowd", target["labels"] * 0) == 0).sum()) for target in targets]
        self._crowded += [count for count in counts if count > most_found(self.model)[0]]
        return found

    def _report(self, metric: AveragePrecision, prefix: str) -> None:
        if self._crowded and not self._warned_of_objects:
            self._warned_of_objects = True
            most, option = most_found(self.model)
            rank_zero_warn(
                f"{prefix[:-1]}: {len(self._crowded)} images have more objects (up to {max(self._crowded)}) "
                f"than the {most} that are found in one, so the others are missed (raise {option} in "
                "model.detector_options; COCO's AP counts 100 per class and image)"
            )
        self._crowded = []
        refuse_repeated(metric.image_ids, prefix[:-1])
        self.log_dict({f"{prefix}{name}": value for name, value in metric.percent().items()})
        metric.reset()
