"""Opens the network that `focal-lab inspect` inspects, and the images of its evaluation.

A backbone alone counts as a classification without data.

Shape suffixes: B batch, C channels, H W image.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from focal_lab.backbones.model import FocalTransformer
from focal_lab.backbones.presets import PRESETS, find_preset
from focal_lab.errors import UserError, known_names
from focal_lab.tasks.backbone import create_backbone, is_focal
from focal_lab.tasks.base import Task
from focal_lab.tasks.classification.task import Classification
from focal_lab.tasks.detection.task import Detection
from focal_lab.tasks.features import Features
from focal_lab.tasks.segmentation.task import Segmentation
from focal_lab.tasks.weights_file import read_weights
from focal_lab.tools.trained.load import (
    RAW,
    TrainedTask,
    build_trained,
    find_checkpoint,
    lightning_state,
    task_of,
)
from focal_lab.tools.trained.preprocessing import validation_images

UNTRAINED = "untrained"


def open_network(
    checkpoint: str | None, out: Path, model: str | None = None, settings: Mapping[str, Any] | None = None
) -> TrainedTask:
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
        return _backbone_alone(model, settings or {}, None)
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
        return _backbone_alone(model, settings or {}, file)
    if model is not None or settings:
        raise UserError(f"{file} contains the network's name; leave the option out", key="--model")
    backbone = str(state["hyper_parameters"]["backbone"])
    if not is_focal(backbone):
        raise UserError(
            f"its backbone is {backbone}; only focal backbones can be inspected (Swin as focal_swin_...)",
            file=file,
        )
    return build_trained(kind, state, file, run)


def network_of(trained: TrainedTask) -> FocalTransformer:
    """The focal backbone of a task."""
    return next(part for part in trained.module.model.modules() if isinstance(part, FocalTransformer))


def model_name(trained: TrainedTask) -> str:
    """timm's name of the backbone."""
    backbone = str(trained.options["backbone"])
    return find_preset(backbone) or backbone


def read_images(trained: TrainedTask, files: Sequence[Path]) -> list[tuple[str, Tensor]]:
    """Name and normalised (C, H, W) of image files, as in the evaluation."""
    if trained.channels != 3:
        raise UserError(
            f"the network takes {trained.channels} channels, but images have 3 (leave them out)",
            file=trained.file,
        )
    try:
        preprocessing = trained.preprocessing()
    except UserError as error:
        raise UserError(f"{error} (or leave images out to use the validation data)") from error
    return [(file.name, preprocessing.read(file)) for file in files]


def evaluation_images(trained: TrainedTask, count: int) -> list[tuple[str, Tensor]]:
    """Name and normalised (C, H, W) of the first images of the run's validation data."""
    if trained.data is None:
        raise UserError(
            f"{trained.trouble}; name images to inspect (focal-lab inspect ... cat.jpg)", file=trained.file
        )
    try:
        return list(validation_images(trained.data, count))
    except UserError as error:
        raise UserError(f"{error} (or name images to inspect)") from error


def frame(module: Task, image_CHW: Tensor) -> tuple[Tensor, Tensor | None]:
    """The backbone's input as the task's evaluation makes it.

    Returns:
        A batch of one image, and height and width in px (1, 2) of the image on it; None if it fills it.
    """
    if isinstance(module, Classification):
        return image_CHW[None], None
    if isinstance(module, Detection):
        detector: Any = module.model
        frame_BCHW = detector.transform([image_CHW])[0].tensors
    else:
        assert isinstance(module, Segmentation)
        image_BCHW, size = image_CHW[None], module.val_protocol.size(*image_CHW.shape[1:])
        if size != tuple(image_CHW.shape[1:]):
            image_BCHW = F.interpolate(image_BCHW, size, mode="bilinear", antialias=True)
        frame_BCHW = module.model.framed(image_BCHW)
    features = next(part for part in module.modules() if isinstance(part, Features))
    network: Any = features.model
    padded = features.extent.padded and network.options.border == "mask"
    return frame_BCHW, torch.tensor(features.extent.sizes) if padded else None


def _backbone_alone(name: str, settings: Mapping[str, Any], file: Path | None) -> TrainedTask:
    """A backbone with the weights of a file, or untrained."""
    full = find_preset(name)
    if full is None:
        raise UserError(f"{name!r} is not a focal backbone{known_names(name, PRESETS)}", key="--model")
    settings = {key: value for key, value in settings.items() if PRESETS[full].get(key) != value}
    torch.manual_seed(0)  # an untrained network is always the same
    try:
        network = create_backbone(name, settings, num_classes=0)
    except UserError as error:
        raise UserError(error.message, key="--set") from error
    if file is not None:
        _load_weights(network, name, file)
    options: dict[str, Any] = {"backbone": full, "backbone_options": settings}
    with torch.device("meta"):  # its own network is replaced
        module = Classification(**options, num_classes=2)
    module.model = network
    return TrainedTask(
        module.eval(),
        options,
        state={},
        file=file or Path(full),
        run=None,
        data=None,
        trouble="has no data of its own",
        weights=UNTRAINED if file is None else RAW,
    )


def _load_weights(network: Any, name: str, file: Path) -> None:
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
    if find_preset(noted.get("model", "")) is None or not isinstance(options, dict):
        return None
    return noted["model"], options
