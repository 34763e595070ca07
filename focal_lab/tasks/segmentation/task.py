"""Semantic segmentation with any timm backbone (section 4.3 of the paper)."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from lightning import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from focal_lab.backbones.counting import count_gmacs
from focal_lab.backbones.options import Size
from focal_lab.data.loading.collate import Batch
from focal_lab.errors import UserError
from focal_lab.tasks.base import Task
from focal_lab.tasks.classes import check_labels, known
from focal_lab.tasks.features import Features
from focal_lab.tasks.image_callbacks import ShowImages
from focal_lab.tasks.initial_weights import initial_weights
from focal_lab.tasks.optimizer import Recipe, check_option
from focal_lab.tasks.padding import padded_size
from focal_lab.tasks.recorded import Recorded
from focal_lab.tasks.segmentation.decoders import build_decoder
from focal_lab.tasks.segmentation.evaluation import Protocol, segment
from focal_lab.tasks.segmentation.images import WriteSegmentation, draw_found, draw_truth
from focal_lab.tasks.segmentation.metrics import METRICS, Confusion
from focal_lab.tasks.segmentation.network import Segmenter
from focal_lab.tasks.segmentation.predictions import recorded
from focal_lab.tasks.tested import refuse_repeated

_STAGES = 4
_IGNORED = 255  # the usual label of pixels that do not count
PAPER_SIZE = (512, 2048)  # height and width of the image in table 7


class Segmentation(Task):
    """Cross-entropy of every pixel, and mean IoU over the whole set at the original resolution.

    Args:
        backbone: timm model name, such as focal_tiny or resnet50.
        decoder: upernet, fpn, segformer or deeplabv3plus.
        backbone_options: options of that model, such as {drop_path_rate: 0.3}; a focal one gets border: mask
            unless they say otherwise.
        backbone_checkpoint: file of weights to start from, such as that of a classification run.
        num_classes: classes of the data; None takes their number from the data in a command.
        decoder_channels: width of the decoder; None for the papers': 512 for upernet, 256 for the others.
        decoder_options: keyword arguments of the decoder's class in segmentation_models_pytorch.
        feature_norm: a layer norm on each of the backbone's maps; None for one if they are channels-last.
        auxiliary_weight: factor on the loss of the auxiliary head on the third stage; 0 for no such head.
        auxiliary_channels: width of that head.
        dropout: on whole channels before the classifiers.
        class_weights: factor on each class's pixels in the loss; None for 1.
        ignore_index: label of pixels that do not count; None for the data's, or 255 if it has none.
        evaluation: whole, or slide for overlapping windows.
        test_size: shorter side in px that images are resized to for evaluation; None to keep their size.
        max_size: upper limit of the longer side in px after that.
        window: side of the windows, px.
        window_step: from one window to the next, px.
        scales: of the final test and of prediction; the paper's multi-scale test has 0.5, 0.75, 1, 1.25, 1.5
            and 1.75. Validation has 1 alone.
        flip: whether the final test and prediction evaluate mirrored images, too.
        lr: highest learning rate.
        weight_decay: decay of all weights but norms and position tables, as in Swin's UPerNet.
        betas: AdamW's two decay rates.
        warmup_steps: optimizer steps of linear warmup.
        warmup_lr: learning rate at the start of the warmup.
        power: exponent of the polynomial decay.
        min_lr: learning rate at the end.
        init_seed: of the initial weights, the decoder's included; None for the seed of the run
            (`seed_everything`).

    Raises:
        UserError: no such decoder, backbone, option or file, or a number out of range.
    """

    monitor = "val/miou"
    result_metrics = METRICS
    model: Segmenter

    def __init__(
        self,
        backbone: str,
        decoder: str = "upernet",
        backbone_options: dict[str, Any] | None = None,
        backbone_checkpoint: str | None = None,
        num_classes: int | None = None,
        decoder_channels: int | None = None,
        decoder_options: dict[str, Any] | None = None,
        feature_norm: bool | None = None,
        auxiliary_weight: float = 0.4,
        auxiliary_channels: int = 256,
        dropout: float = 0.1,
        class_weights: list[float] | None = None,
        ignore_index: int | None = None,
        evaluation: str = "whole",
        test_size: int | None = 512,
        max_size: int = 2048,
        window: int = 512,
        window_step: int = 340,
        scales: list[float] | None = None,
        flip: bool = False,
        lr: float = 6e-5,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_steps: int = 1500,
        warmup_lr: float = 6e-11,
        power: float = 1.0,
        min_lr: float = 0.0,
        init_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        num_classes = known(num_classes)
        self.ignore_index = _IGNORED if ignore_index is None else ignore_index
        check_option("num_classes", num_classes, num_classes >= 2, "2 or more")
        width = 1 if decoder_channels is None else decoder_channels
        check_option("decoder_channels", decoder_channels, width >= 1, "1 or more")
        check_option("auxiliary_weight", auxiliary_weight, auxiliary_weight >= 0, "0 or more")
        check_option("auxiliary_channels", auxiliary_channels, auxiliary_channels >= 1, "1 or more")
        check_option("dropout", dropout, 0 <= dropout < 1, "in [0, 1)")
        _check_ignored(self.ignore_index, num_classes)
        if class_weights is not None and (len(class_weights) != num_classes or min(class_weights) < 0):
            raise UserError(
                f"{class_weights} is not a list of {num_classes} weights, one per class, of 0 or more",
                key="model.class_weights",
            )
        self.recipe = Recipe(
            lr=lr,
            weight_decay=weight_decay,
            betas=(betas[0], betas[1]),
            warmup_lr=warmup_lr,
            min_lr=min_lr,
            warmup_steps=warmup_steps,
            power=power,
            decay_biases=True,
        )
        sizes: dict[str, Any] = {
            "mode": evaluation,
            "short_side": test_size,
            "long_side": max_size,
            "window": window,
            "step": window_step,
        }
        self.val_protocol = Protocol(**sizes)
        self.test_protocol = Protocol(**sizes, scales=tuple(scales or (1.0,)), flip=flip)
        with initial_weights(init_seed):
            features = Features(backbone, backbone_options, backbone_checkpoint, _STAGES, feature_norm)
            channels, strides = features.channels, features.strides
            self.model = Segmenter(
                features,
                build_decoder(decoder, channels, strides, decoder_channels, decoder_options),
                num_classes,
                dropout,
                auxiliary_channels if auxiliary_weight else 0,
            )
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.val_metric = Confusion(num_classes, self.ignore_index)
        self.test_metric = Confusion(num_classes, self.ignore_index)

    def setup(self, stage: str) -> None:
        """Also take the ignored label from the data, and check it."""
        super().setup(stage)
        ignored, given = getattr(self.attached_data, "ignore_index", None), self.hparams["ignore_index"]
        if ignored is None:
            return
        if given not in (None, ignored):
            raise UserError(
                f"{given} is not {ignored}, the data's ignore_index (set it in the data alone; null takes it "
                "from there)",
                key="model.ignore_index",
            )
        _check_ignored(ignored, self.hparams["num_classes"])
        for holder in (self, self.val_metric, self.test_metric):
            holder.ignore_index = ignored

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        """Normalised images (3, H, W) of any size to their classes, int64 (H, W)."""
        return self._segment(images, self.test_protocol)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Check the masks of a user's own data; ours does when it reads them."""
        if not type(self.attached_data).__module__.startswith("focal_lab."):
            check_labels(batch, "mask", self.hparams["num_classes"], self.ignore_index)
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of the pixels' logits, and that of the auxiliary head's."""
        images_BCHW, labels_BHW = torch.stack(batch[0]), torch.stack([target["mask"] for target in batch[1]])
        if len(images_BCHW) == 1 and any(type(part) is nn.BatchNorm2d for part in self.model.modules()):
            raise UserError(
                "1 is too few: batch norms cannot learn from one image (use 2 or more, or several devices "
                "and --trainer.sync_batchnorm=true)",
                key="data.init_args.batch_size",
            )
        fine_BKhw, coarse_BKhw = self.model.with_auxiliary(self.model.framed(images_BCHW))
        loss = self._cross_entropy(fine_BKhw, labels_BHW)
        if coarse_BKhw is not None:
            auxiliary = self._cross_entropy(coarse_BKhw, labels_BHW)
            parts = {"train/decoder": loss.detach(), "train/auxiliary": auxiliary.detach()}
            self.log_dict(parts, batch_size=len(images_BCHW))
            loss = loss + self.hparams["auxiliary_weight"] * auxiliary
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images_BCHW))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Tensor]]:
        """Update the validation metric; returns the predictions for callbacks that draw them."""
        return {"found": self._evaluate(batch, self.val_metric, self.val_protocol)}

    def on_validation_epoch_end(self) -> None:
        self._report(self.val_metric, "val/")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.test_metric, self.test_protocol)

    def recorded(self) -> Recorded:
        return recorded(self.test_metric)

    def on_test_epoch_end(self) -> None:
        """Report metrics over all test images, and the IoU of each class."""
        names = [self.classes.name(label) for label in range(self.hparams["num_classes"])]
        by_class = self.test_metric.by_class(names)
        self._report(self.test_metric, "test/")
        self.log_dict({f"test_per_class/iou/{name}": iou for name, iou in by_class.items()})

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> list[Tensor]:
        found: list[Tensor] = self(batch[0])
        return found

    def configure_callbacks(self) -> list[Callback]:
        return [ShowImages(draw_truth, draw_found), WriteSegmentation()]

    def network_size(self, image: Size) -> Size:
        """Resized by `test_size` and `max_size`, padded, and one window; as in validation, at scale 1."""
        protocol = self.val_protocol
        frame = padded_size(protocol.size(*image), self.model.features.divisor)
        return protocol.input_size(frame)

    def usual_size(self) -> Size:
        """The papers' 512 x 2048: an image four times as wide as high, shorter side `test_size`."""
        side = self.hparams["test_size"] or PAPER_SIZE[0]
        return self.network_size((side, min(side * PAPER_SIZE[1] // PAPER_SIZE[0], self.hparams["max_size"])))

    def gmacs(self, size: Size) -> float:
        features = self.model.features
        frame = padded_size(size, features.divisor)
        features.extent.update([size], frame)
        return count_gmacs(self.model, frame)

    def _segment(self, images: list[Tensor], protocol: Protocol) -> list[Tensor]:
        """Images of one size together, others one by one."""
        if len({image.shape for image in images}) == 1:
            return list(segment(self.model, torch.stack(images), protocol))
        return [segment(self.model, image[None], protocol)[0] for image in images]

    def _cross_entropy(self, logits_BKhw: Tensor, labels_BHW: Tensor) -> Tensor:
        """Weighted mean over all pixels that count, or 0; logits are enlarged to the frame and cropped."""
        height, width = labels_BHW.shape[-2:]
        frame = self.model.features.extent.frame
        logits_BKHW = F.interpolate(logits_BKhw, frame, mode="bilinear", align_corners=False)
        labels_BHW = labels_BHW.long()
        ignored = self.ignore_index
        weights: Tensor | None = self._buffers["class_weights"]
        total = F.cross_entropy(
            logits_BKHW[..., :height, :width].float(),
            labels_BHW,
            weights,
            ignore_index=ignored,
            reduction="sum",
        )
        valid_BHW = labels_BHW != ignored
        counted_BHW = valid_BHW if weights is None else weights[labels_BHW.where(valid_BHW, 0)] * valid_BHW
        mean: Tensor = total / counted_BHW.sum().clamp(min=1e-6)
        return mean

    def _evaluate(self, batch: Batch, metric: Confusion, protocol: Protocol) -> list[Tensor]:
        images, targets = batch
        found = self._segment(images, protocol)
        for classes_HW, target in zip(found, targets, strict=True):
            metric.update(classes_HW, target["mask"], int(target["image_id"]))
        return found

    def _report(self, metric: Confusion, prefix: str) -> None:
        refuse_repeated(metric.numbers, prefix[:-1])
        scores = metric.compute()
        if scores["pixel_acc"].isnan():
            rank_zero_warn(f"{prefix}miou is NaN: all pixels of the images are ignored ({self.ignore_index})")
        self.log_dict(
            {f"{prefix}{name}": scores[name].float() for name in METRICS}, prog_bar=prefix == "val/"
        )
        metric.reset()


def _check_ignored(ignore_index: int, num_classes: int) -> None:
    if 0 <= ignore_index < num_classes:
        raise UserError(
            f"{ignore_index} is one of the {num_classes} labels (use a number beyond them)",
            key="model.ignore_index",
        )
