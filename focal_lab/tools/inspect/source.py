"""What `focal-lab inspect` looks into: a network with the pictures it was judged by, from any file of ours.

Shape suffixes: B batch, C channels, H W picture.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor, nn

from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.options import image_size
from focal_lab.backbones.presets import PRESETS, find_preset
from focal_lab.errors import UserError, one_of
from focal_lab.tasks.backbone import create_backbone, is_focal
from focal_lab.tasks.base import Task
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.features import Features
from focal_lab.tasks.segmentation.task import Segmentation
from focal_lab.tools.trained.load import build_trained, find_checkpoint, lightning_state, task_of
from focal_lab.tools.trained.preprocessing import (
    Preprocessing,
    mean_of,
    preprocessing_of,
    std_of,
    validation_images,
)
from focal_lab.training.checkpoints.read import read_weights

# A normalised picture (C, H, W) to what the backbone gets of it: a batch of one, and the height and width in
# pixels (1, 2) of what the picture fills of it, None for all.
Frame = Callable[[Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Source:
    """A network to look into.

    Attributes:
        model: timm's name of the backbone.
        settings: its options that are not the preset's.
        network: the backbone, in evaluation mode.
        frame: how its task shows it a picture.
        preprocessing: what is done to picture files before; raises UserError where nobody knows.
        task: classification, detection or segmentation; None for a backbone alone.
        file: where the weights are from; None for a network as it begins.
        run: id of the run whose checkpoint it is; None where it is no run's.
        data: of the run; None for a backbone alone.
        trouble: why there is no data, where there should be.
    """

    model: str
    settings: dict[str, Any]
    network: FocalTransformer
    frame: Frame
    preprocessing: Callable[[], Preprocessing]
    task: str | None = None
    file: Path | None = None
    run: Path | None = None
    data: LightningDataModule | None = None
    trouble: str | None = None

    @property
    def name(self) -> str:
        """What to call it in one short line."""
        if self.run is not None:
            return self.run.name
        return self.file.stem if self.file is not None else self.model

    @property
    def mean(self) -> Sequence[float]:
        """What was subtracted from each channel, on a scale of 0 to 1."""
        return mean_of(self.data)

    @property
    def std(self) -> Sequence[float]:
        """What each channel was divided by."""
        return std_of(self.data)

    def validation_pictures(self, count: int) -> Iterator[tuple[str, Tensor]]:
        """The first pictures of the run's validation data, normalised (C, H, W), with a name each.

        Raises:
            UserError: there is no data, or it cannot be read.
        """
        if self.data is None:
            why = self.trouble or "has no data of its own"
            raise UserError(
                f"{why}; name pictures to look at (focal-lab inspect ... cat.jpg)", file=self.file
            )
        try:
            yield from validation_images(self.data, count)
        except UserError as error:
            raise UserError(f"{error} (or name pictures to look at)") from error

    def read(self, path: Path) -> Tensor:
        """A picture file as the validation data would show it to the network, normalised (C, H, W).

        Raises:
            UserError: it cannot be read, or nobody knows what is done to pictures.
        """
        if self.network.in_chans != 3:
            raise UserError(
                f"the network takes {self.network.in_chans} channels, and pictures have 3 (leave them out)",
                file=self.file,
            )
        if not path.is_file():
            raise UserError("is not a file" if path.exists() else "there is no such picture", file=path)
        try:
            shown = self.preprocessing()
        except UserError as error:
            raise UserError(
                f"{error} (or leave pictures out, for those of the validation)", file=path
            ) from error
        return shown.read(path)


def open_source(
    checkpoint: str | None, out: Path, model: str | None = None, settings: Mapping[str, Any] | None = None
) -> Source:
    """The network behind what the user named.

    Args:
        checkpoint: a file, a run's folder or id; None for a model without weights.
        out: folder of the runs.
        model: of a file that does not say which network it is.
        settings: options of that model.

    Raises:
        UserError: there is no such thing, it is damaged, or it is no focal network.
    """
    if checkpoint is None:
        if model is None:
            raise UserError("name a checkpoint, a run, or a model with --model", key="CHECKPOINT")
        return _of_model(model, dict(settings or {}), None)
    file, run = find_checkpoint(checkpoint, out)
    state = lightning_state(file)
    kind = None if state is None else task_of(state)
    if state is not None and kind is not None:
        if model is not None or settings:
            raise UserError(f"{file} says itself what network it is; leave it out", key="--model")
        return _of_task(kind, state, file, run)
    if model is None:
        told = _told_in(file)
        if told is None:
            what = "is no checkpoint of our tasks" if state is not None else "holds weights alone"
            raise UserError(f"{what}: say of which network, such as --model focal_tiny", file=file)
        model, settings = told
    return _of_model(model, dict(settings or {}), file)


def _of_task(kind: type[Task], state: Mapping[str, Any], file: Path, run: Path | None) -> Source:
    backbone = str(state["hyper_parameters"]["backbone"])
    if not is_focal(backbone):
        raise UserError(
            f"its backbone is {backbone}, whose attention is not ours to show (of focal backbones, Swin as "
            "focal_swin_... among them)",
            file=file,
        )
    trained = build_trained(kind, state, file, run)
    network = next(part for part in trained.module.model.modules() if isinstance(part, FocalTransformer))
    return Source(
        find_preset(backbone) or backbone,
        dict(trained.options.get("backbone_options") or {}),
        network,
        _frame(trained.module, network),
        trained.preprocessing,
        trained.task,
        file,
        run,
        trained.data,
        trained.trouble,
    )


def _of_model(name: str, settings: dict[str, Any], file: Path | None) -> Source:
    if not is_focal(name):
        raise UserError(f"{name!r} is not a focal backbone (use {one_of(PRESETS)})", key="--model")
    torch.manual_seed(0)  # without weights: always the same network
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a head is left out: it has no attention
            network = create_backbone(name, settings, num_classes=0)
    except UserError as error:
        raise UserError(error.message, key="--set") from error
    assert isinstance(network, FocalTransformer)
    if file is not None:
        _load(network, name, file)
    full = find_preset(name) or name
    changed = {key: value for key, value in settings.items() if PRESETS[full].get(key) != value}
    cfg = getattr(network, "pretrained_cfg", {}) or {}
    shown = partial(preprocessing_of, None, image_size(network.options.img_size), cfg.get("crop_pct", 0.875))
    return Source(full, changed, network.eval(), _as_it_is, shown, file=file)


def _load(network: FocalTransformer, name: str, file: Path) -> None:
    from focal_lab.backbones.weights.fit import fit_weights
    from focal_lab.backbones.weights.formats import WeightsError

    try:
        values, report = fit_weights(read_weights(file), network, transfer=True)
    except WeightsError as error:
        raise UserError(
            f"{error.message} (is it a {name}? make its options those of the file with --set)",
            file=file,
            key=error.key,
        ) from error
    network.load_state_dict(values)
    if report.fresh or report.interpolated:
        warnings.warn(f"{file} ({report.origin}): {report.summary()}", stacklevel=2)


def _told_in(file: Path) -> tuple[str, dict[str, Any]] | None:
    """Model and options that `focal-lab convert` noted in its file; None where nobody did."""
    if file.suffix != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            noted = opened.metadata() or {}
        options = json.loads(noted["options"]) if "options" in noted else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"cannot be read as safetensors; it is damaged or cut off ({error})", file=file
        ) from error
    if not is_focal(noted.get("model", "")) or not isinstance(options, dict):
        return None
    preset = PRESETS[find_preset(noted["model"]) or ""]
    return noted["model"], {key: value for key, value in options.items() if preset.get(key) != value}


def _frame(module: Task, network: FocalTransformer) -> Frame:
    """As the task's evaluation shows pictures to its backbone."""
    if isinstance(module, Classification):
        return _as_it_is
    features = next(part for part in module.modules() if isinstance(part, Features))

    def valid() -> Tensor | None:
        padded = features.extent.padded and network.options.border == "mask"
        return torch.tensor(features.extent.sizes) if padded else None

    def detected(picture_CHW: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, _ = module.model.transform([picture_CHW])  # type: ignore[operator]
        return batch.tensors, valid()

    def segmented(picture_CHW: Tensor) -> tuple[Tensor, Tensor | None]:
        assert isinstance(module, Segmentation)
        size = module.val_protocol.size(*picture_CHW.shape[1:])
        if size != tuple(picture_CHW.shape[1:]):
            picture_CHW = nn.functional.interpolate(picture_CHW[None], size, mode="bilinear", antialias=True)[
                0
            ]
        return module.model.framed(picture_CHW[None]), valid()

    return detected if isinstance(module, Detection) else segmented


def _as_it_is(picture_CHW: Tensor) -> tuple[Tensor, None]:
    return picture_CHW[None], None
