"""Loads the network that `focal-lab inspect` inspects, and the images of its evaluation.

Shape suffixes: B batch, C channels, H W image.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
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
from focal_lab.errors import UserError, known_names
from focal_lab.tasks.backbone import create_backbone, is_focal
from focal_lab.tasks.base import Task
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.features import Features
from focal_lab.tasks.segmentation.task import Segmentation
from focal_lab.tasks.weights_file import read_weights
from focal_lab.tools.trained.load import TrainedTask, build_trained, find_checkpoint, lightning_state, task_of
from focal_lab.tools.trained.preprocessing import Preprocessing, preprocessing_of, validation_images

# A normalised image (C, H, W) to the input of the backbone: a batch of one, and the height and width in
# pixels (1, 2) of the image on it, None if it fills it.
Frame = Callable[[Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class InspectedNetwork:
    """A focal backbone in evaluation mode.

    Attributes:
        model: timm's name of the backbone.
        settings: its options that differ from the preset's.
        frame: how its task feeds it an image.
        preprocessing: of image files; raises UserError if unknown.
        file: of the weights; None for an untrained network.
        trained: the task; None for a backbone alone.
    """

    model: str
    settings: dict[str, Any]
    network: FocalTransformer
    frame: Frame
    preprocessing: Callable[[], Preprocessing]
    file: Path | None = None
    trained: TrainedTask | None = None

    @property
    def name(self) -> str:
        """The run's ID, or the name of the file or the model."""
        if self.trained is not None:
            return self.trained.name
        return self.file.stem if self.file is not None else self.model

    @property
    def run(self) -> Path | None:
        """Folder of the run that the checkpoint belongs to."""
        return None if self.trained is None else self.trained.run

    @property
    def data(self) -> LightningDataModule | None:
        """The run's data module."""
        return None if self.trained is None else self.trained.data

    def validation_images(self, count: int) -> Iterator[tuple[str, Tensor]]:
        """Name and normalised (C, H, W) of the first images of the run's validation data.

        Raises:
            UserError: there is no data, or it cannot be read.
        """
        if self.data is None:
            why = (self.trained and self.trained.trouble) or "has no data of its own"
            raise UserError(f"{why}; name images to inspect (focal-lab inspect ... cat.jpg)", file=self.file)
        try:
            yield from validation_images(self.data, count)
        except UserError as error:
            raise UserError(f"{error} (or name images to inspect)") from error

    def read(self, path: Path) -> Tensor:
        """An image file as (C, H, W), normalised as in the evaluation.

        Raises:
            UserError: it cannot be read, or the preprocessing is unknown.
        """
        if self.network.in_chans != 3:
            raise UserError(
                f"the network takes {self.network.in_chans} channels, but images have 3 (leave them out)",
                file=self.file,
            )
        try:
            preprocessing = self.preprocessing()
        except UserError as error:
            raise UserError(f"{error} (or leave images out to use the validation data)", file=path) from error
        return preprocessing.read(path)


def open_network(
    checkpoint: str | None, out: Path, model: str | None = None, settings: Mapping[str, Any] | None = None
) -> InspectedNetwork:
    """Load a network.

    Args:
        checkpoint: a file, a run's folder or ID; None for a model without weights.
        out: folder of the runs.
        model: name of the model if the file does not contain it.
        settings: options of that model.

    Raises:
        UserError: it does not exist, is damaged, or is not a focal network.
    """
    if checkpoint is None:
        assert model is not None
        return _load_model(model, dict(settings or {}), None)
    file, run = find_checkpoint(checkpoint, out)
    state = lightning_state(file)
    kind = None if state is None else task_of(state)
    if state is None or kind is None:
        if model is None:
            noted = _read_metadata(file)
            if noted is None:
                what = "is not a checkpoint of our tasks" if state is not None else "contains only weights"
                raise UserError(f"{what}: add the network, such as --model focal_tiny", file=file)
            model, settings = noted
        return _load_model(model, dict(settings or {}), file)
    if model is not None or settings:
        raise UserError(f"{file} contains the network's name; leave the option out", key="--model")
    backbone = str(state["hyper_parameters"]["backbone"])
    if not is_focal(backbone):
        raise UserError(
            f"its backbone is {backbone}; only focal backbones can be inspected (Swin as focal_swin_...)",
            file=file,
        )
    trained = build_trained(kind, state, file, run)
    network = next(part for part in trained.module.model.modules() if isinstance(part, FocalTransformer))
    options = dict(trained.options.get("backbone_options") or {})
    frame = _frame(trained.module, network)
    name = find_preset(backbone) or backbone
    return InspectedNetwork(name, options, network, frame, trained.preprocessing, file, trained)


def _load_model(name: str, settings: dict[str, Any], file: Path | None) -> InspectedNetwork:
    """A backbone alone, with the weights of a file or untrained."""
    full = find_preset(name)
    if full is None:
        raise UserError(f"{name!r} is not a focal backbone{known_names(name, PRESETS)}", key="--model")
    torch.manual_seed(0)  # an untrained network is always the same
    try:
        network = create_backbone(name, settings, num_classes=0)
    except UserError as error:
        raise UserError(error.message, key="--set") from error
    assert isinstance(network, FocalTransformer)
    if file is not None:
        _load_weights(network, name, file)
    changed = {key: value for key, value in settings.items() if PRESETS[full].get(key) != value}
    cfg: Any = network.pretrained_cfg
    size = image_size(network.options.img_size)
    preprocessing = partial(preprocessing_of, None, size, cfg.get("crop_pct", 0.875))
    return InspectedNetwork(full, changed, network.eval(), _unframed, preprocessing, file)


def _load_weights(network: FocalTransformer, name: str, file: Path) -> None:
    from focal_lab.backbones.weights.fit_weights import fit_weights
    from focal_lab.backbones.weights.formats import WeightsError

    try:
        values, report = fit_weights(read_weights(file), network, transfer=True)
    except WeightsError as error:
        raise UserError(
            f"{error.message} (is it a {name}? set its options to the file's with --set)",
            file=file,
            key=error.key,
        ) from error
    network.load_state_dict(values)
    if report.fresh or report.interpolated:
        warnings.warn(f"{file} ({report.origin}): {report.summary()}", stacklevel=2)


def _read_metadata(file: Path) -> tuple[str, dict[str, Any]] | None:
    """Model and options in a file that `focal-lab convert` wrote; None for other files."""
    if file.suffix != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            noted = opened.metadata() or {}
        options = json.loads(noted.get("options", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"cannot be read as safetensors; it is damaged or truncated ({error})", file=file
        ) from error
    full = find_preset(noted.get("model", ""))
    if full is None or not isinstance(options, dict):
        return None
    return noted["model"], {key: value for key, value in options.items() if PRESETS[full].get(key) != value}


def _frame(module: Task, network: FocalTransformer) -> Frame:
    """How the task's evaluation feeds images to its backbone."""
    if isinstance(module, Classification):
        return _unframed
    features = next(part for part in module.modules() if isinstance(part, Features))

    def valid() -> Tensor | None:
        padded = features.extent.padded and network.options.border == "mask"
        return torch.tensor(features.extent.sizes) if padded else None

    def detected(image_CHW: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, _ = module.model.transform([image_CHW])  # type: ignore[operator]
        return batch.tensors, valid()

    def segmented(image_CHW: Tensor) -> tuple[Tensor, Tensor | None]:
        assert isinstance(module, Segmentation)
        size = module.val_protocol.size(*image_CHW.shape[1:])
        image_BCHW = image_CHW[None]
        if size != tuple(image_CHW.shape[1:]):
            image_BCHW = nn.functional.interpolate(image_BCHW, size, mode="bilinear", antialias=True)
        return module.model.framed(image_BCHW), valid()

    return detected if isinstance(module, Detection) else segmented


def _unframed(image_CHW: Tensor) -> tuple[Tensor, None]:
    return image_CHW[None], None
