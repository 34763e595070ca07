"""Image classification with any timm backbone (section 4.1 of the paper)."""

import math
import warnings
from typing import Any, Self

import torch.nn.functional as F  # noqa: N812
from lightning import Callback
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from focal_lab.backbones.counting import count_gmacs
from focal_lab.backbones.options import Size, image_size
from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone
from focal_lab.tasks.base import Task
from focal_lab.tasks.classes import known
from focal_lab.tasks.classification.images import draw_found, draw_truth
from focal_lab.tasks.classification.predictions import describe_batch, recorded
from focal_lab.tasks.ema import PREFIX, average_of
from focal_lab.tasks.evaluation_size import evaluation_size
from focal_lab.tasks.freezing import Frozen, evaluate_frozen, freeze
from focal_lab.tasks.groups import top1_by_group
from focal_lab.tasks.image_callbacks import ShowImages
from focal_lab.tasks.initial_weights import initial_weights
from focal_lab.tasks.optimizer import Recipe, check_option
from focal_lab.tasks.recorded import Recorded

Batch = tuple[Tensor, Tensor]
METRICS = ("top1", "top5", "loss")
_USUAL_INPUT = (3, 224, 224)  # of a backbone without a default


class Classification(Task):
    """Cross-entropy on a backbone's logits.

    Args:
        backbone: timm model name, such as focal_tiny or resnet50.
        backbone_options: options of that model, such as {window_size: 14}.
        backbone_checkpoint: file of weights to start from.
        num_classes: classes of the data; None takes their number from the data in a command.
        label_smoothing: share of the target spread over all classes.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of cutmix, 0 for none.
        lr: highest learning rate.
        weight_decay: decay of all weights but norms, biases and position tables.
        betas: AdamW's two decay rates.
        layer_decay: factor on the learning rate from one layer to the previous one.
        warmup_epochs: epochs of linear warmup, may be fractional.
        warmup_lr: learning rate at the start of the warmup.
        min_lr: learning rate at the end of the cosine.
        total_batch_size: images of an optimizer step that the learning rates are for. On any number of
            devices gradients are accumulated to it; if it is not a multiple of a batch on all devices, the
            learning rates are scaled to the nearest one. None for steps of one batch on all devices.
        ema_decay: share that a moving average of the weights keeps at each step, such as 0.9999; it is
            evaluated separately (val/ema_top1, ...). None for no average.
        ema_warmup: whether the average's decay grows from 0, for trainings of few steps.
        frozen: number of stages that are not trained, beside the patch embedding; or "backbone" for a linear
            probe, which trains the classifier alone.
        init_seed: of the initial weights, the head's included; None for the seed of the run
            (`seed_everything`).

    Raises:
        UserError: no such backbone, option or file, or a number out of range.
    """

    monitor = "val/top1"

    def __init__(
        self,
        backbone: str,
        backbone_options: dict[str, Any] | None = None,
        backbone_checkpoint: str | None = None,
        num_classes: int | None = None,
        label_smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        layer_decay: float | None = None,
        warmup_epochs: float = 0.0,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
        total_batch_size: int | None = None,
        ema_decay: float | None = None,
        ema_warmup: bool = False,
        frozen: Frozen | None = None,
        init_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        num_classes = known(num_classes)
        if num_classes < 2:
            raise UserError(
                f"{num_classes} is too few; classification needs 2 classes", key="model.num_classes"
            )
        images = math.inf if total_batch_size is None else total_batch_size
        check_option("total_batch_size", total_batch_size, images >= 1, "1 or more")
        check_option("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "in [0, 1)")
        check_option("mixup", mixup, 0 <= mixup < math.inf, "0 or more")
        check_option("cutmix", cutmix, 0 <= cutmix < math.inf, "0 or more")
        self.recipe = Recipe(
            lr=lr,
            weight_decay=weight_decay,
            betas=(betas[0], betas[1]),
            layer_decay=layer_decay,
            warmup_epochs=warmup_epochs,
            warmup_lr=warmup_lr,
            min_lr=min_lr,
        )
        with initial_weights(init_seed):
            self.model = create_backbone(
                backbone, backbone_options, checkpoint=backbone_checkpoint, num_classes=num_classes
            )
        if frozen is not None:
            freeze(self.model, frozen)
            evaluate_frozen(self.model)
        self.ema = average_of(self.model, ema_decay, ema_warmup)
        self.label_smoothing = label_smoothing
        self.mix: Mixup | None = None
        if mixup or cutmix:
            self.mix = Mixup(
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                label_smoothing=label_smoothing,
                num_classes=num_classes,
            )
        self.val_metrics = _metrics(num_classes, "val/")
        self.test_metrics = _metrics(num_classes, "test/")
        self._tested: list[dict[str, Tensor]] = []
        self._by_group: dict[str, float] = {}
        if self.ema is not None:
            self.val_ema_metrics = _metrics(num_classes, f"val/{PREFIX}")
            self.test_ema_metrics = _metrics(num_classes, f"test/{PREFIX}")

    @property
    def result_metrics(self) -> tuple[str, ...]:
        """The metrics of a result; those within groups of images only after a test."""
        average = () if self.ema is None else tuple(f"{PREFIX}{name}" for name in METRICS)
        return (*METRICS, *average, *self._by_group)

    def setup(self, stage: str) -> None:
        """Also check that the network accepts images of the data's size."""
        super().setup(stage)
        if self.ema is not None or self.hparams["frozen"] is not None:
            # intended: the average and frozen parts are never in training mode
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        if self.attached_data is not None:
            found = evaluation_size(self, self.attached_data)
            if found.known:
                self.count(found.size)

    def train(self, mode: bool = True) -> Self:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.hparams["frozen"] is not None:
            evaluate_frozen(self.model)
        return self

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) images to logits (B, num_classes)."""
        logits_BK: Tensor = self.model(images_BCHW)
        return logits_BK

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of one batch, of mixed images if the recipe mixes."""
        images_BCHW, labels_B = batch
        if self.mix is not None and len(labels_B) % 2:
            raise UserError(f"mixup needs pairs; {len(labels_B)} is odd", key="data.batch_size")
        if self.mix is None:
            loss = F.cross_entropy(self(images_BCHW), labels_B, label_smoothing=self.label_smoothing)
        else:
            images_BCHW, targets_BK = self.mix(images_BCHW, labels_B)
            loss = SoftTargetCrossEntropy()(self(images_BCHW), targets_BK)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(labels_B))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Update the validation metrics; returns the logits (B, num_classes) for callbacks that draw them."""
        if self.ema is not None:
            self._evaluate(batch, self.ema, self.val_ema_metrics)
        return {"found": self._evaluate(batch, self, self.val_metrics)}

    def on_test_epoch_start(self) -> None:
        self._tested = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        labels_B = batch[1]
        found = {"label": labels_B}
        if self.ema is not None:
            average_BK = self._evaluate(batch, self.ema, self.test_ema_metrics)
            found |= describe_batch(average_BK, labels_B, PREFIX)
        self._tested.append(found | describe_batch(self._evaluate(batch, self, self.test_metrics), labels_B))

    def on_test_epoch_end(self) -> None:
        """Log top-1 within each group of images that the data names."""
        self._by_group = top1_by_group(self.trainer, self.recorded(), self.attached_data)
        self.log_dict({f"test/{name}": value for name, value in self._by_group.items()})

    def recorded(self) -> Recorded | None:
        return recorded(self._tested)

    def predict_step(
        self, batch: Batch | Tensor, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """The five most likely classes (B, 5) and their probabilities, and the labels if there are any."""
        images_BCHW = batch if isinstance(batch, Tensor) else batch[0]
        top = self(images_BCHW).softmax(-1).topk(min(5, self.hparams["num_classes"]))
        found = {"classes": top.indices, "probabilities": top.values}
        return found if isinstance(batch, Tensor) else found | {"labels": batch[1]}

    def configure_callbacks(self) -> list[Callback]:
        return [ShowImages(draw_truth, draw_found)]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the average, too; here, so that a checkpoint after a batch has both."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.model, step=self.global_step + 1)

    def network_size(self, image: Size) -> Size:
        """The image's: the data resizes and crops."""
        return image

    def usual_size(self) -> Size:
        """The backbone's default."""
        options = getattr(self.model, "options", None)
        if options is not None:
            return image_size(options.img_size)
        described: Any = getattr(self.model, "pretrained_cfg", None) or {}
        height, width = described.get("input_size", _USUAL_INPUT)[1:]
        return height, width

    def gmacs(self, size: Size) -> float:
        channels = (self.hparams["backbone_options"] or {}).get("in_chans", 3)
        return count_gmacs(self.model, size, channels)

    def _evaluate(self, batch: Batch, network: nn.Module, metrics: MetricCollection) -> Tensor:
        """Logits of all images; those with a label below 0 (padding, damaged files) are not evaluated."""
        images_BCHW, labels_B = batch
        logits_BK: Tensor = network(images_BCHW)
        valid_B = labels_B >= 0
        valid_logits, valid_labels = logits_BK[valid_B], labels_B[valid_B]
        if len(valid_labels):
            metrics["top1"].update(valid_logits, valid_labels)
            metrics["top5"].update(valid_logits, valid_labels)
            metrics["loss"].update(F.cross_entropy(valid_logits, valid_labels, reduction="none"))
        for name in METRICS:
            shown = name == "top1"
            self.log(f"{metrics.prefix}{name}", metrics[name], prog_bar=shown, batch_size=len(labels_B))
        return logits_BK


class _Percent(MulticlassAccuracy):
    """Accuracy over all images, in percent."""

    def compute(self) -> Tensor:
        percent: Tensor = 100 * super().compute()
        return percent


def _metrics(num_classes: int, prefix: str) -> MetricCollection:
    return MetricCollection(
        {
            "top1": _Percent(num_classes, average="micro"),
            "top5": _Percent(num_classes, average="micro", top_k=min(5, num_classes)),
            "loss": MeanMetric(),
        },
        prefix=prefix,
        compute_groups=False,
    )
