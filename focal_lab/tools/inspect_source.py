"""What `focal-lab inspect` looks into: a network with the pictures it was judged by, from any file of ours.

Shape suffixes: B batch, C channels, H W picture.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision.transforms import v2

from focal_lab.ablation.inventory import find_runs
from focal_lab.ablation.keep import CHECKPOINTS
from focal_lab.ablation.result import CONFIG_FILE
from focal_lab.ablation.yaml_file import load_yaml
from focal_lab.backbones.focal import FocalTransformer
from focal_lab.backbones.options import image_size
from focal_lab.backbones.presets import PRESETS, find_preset
from focal_lab.data.embedded import EmbeddedData
from focal_lab.data.image_folder import load_picture
from focal_lab.data.picture_files import upright
from focal_lab.errors import UserError, one_of
from focal_lab.tasks.backbone import create_backbone, is_focal
from focal_lab.tasks.base import Task
from focal_lab.tasks.checkpoints import read_weights
from focal_lab.tasks.classification import Classification
from focal_lab.tasks.detection import Detection
from focal_lab.tasks.features import Features
from focal_lab.tasks.segmentation import Segmentation

_TASKS: tuple[type[Task], ...] = (Classification, Detection, Segmentation)
_LIGHTNING = "pytorch-lightning_version"
_OURS = "focal_lab."
# Pictures that are read together: a few are wanted, and a batch of training can be hundreds.
_AT_ONCE = 8

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
        return getattr(self.data, "mean", (0.0,)) if self.data is not None else IMAGENET_DEFAULT_MEAN

    @property
    def std(self) -> Sequence[float]:
        """What each channel was divided by."""
        return getattr(self.data, "std", (1.0,)) if self.data is not None else IMAGENET_DEFAULT_STD

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
            self.data.setup("validate")
            yield from _named(self.data.val_dataloader(), count)
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
        transform: Any = getattr(self.data, "eval_transform", None)
        size: Any = None
        if self.data is None:
            cfg = getattr(self.network, "pretrained_cfg", {}) or {}
            size, crop_pct = image_size(self.network.options.img_size), cfg.get("crop_pct", 0.875)
        elif isinstance(self.data, EmbeddedData):
            side = int(self.data.hparams["image_size"])
            size, crop_pct = (side, side), 1.0
        elif transform is None and not hasattr(self.data, "mean"):
            raise UserError(
                f"{type(self.data).__name__} does not say how it normalises pictures: it needs `mean` and "
                "`std`, or `eval_transform` (or leave pictures out, for those of the validation)",
                file=path,
            )
        if size is not None:
            transform = create_transform(
                (3, *size),
                crop_pct=crop_pct,
                interpolation="bicubic",
                mean=tuple(self.mean),
                std=tuple(self.std),
            )
        if transform is not None:
            shown: Tensor = transform(load_picture(path))
            return shown
        return self._upright(path)

    def _upright(self, path: Path) -> Tensor:
        """As detection and segmentation read pictures: of their own size."""
        load_picture(path)  # tells what is wrong with it
        with Image.open(path) as opened:
            picture = upright(opened, None)
        pixels = v2.functional.pil_to_tensor(picture).float() / 255
        normal: Tensor = v2.functional.normalize(pixels, list(self.mean), list(self.std))
        return normal


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
    state = _lightning_state(file)
    kind = None if state is None else _task_of(state)
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


def find_checkpoint(name: str, out: Path) -> tuple[Path, Path | None]:
    """The file that a path, or a run's folder or id, means, and the run's folder; None where it is no run's.

    Raises:
        UserError: there is no such thing.
    """
    path = Path(name)
    if path.is_file():
        run = path.parent.parent if path.parent.name == CHECKPOINTS else None
        return path, run if run is not None and (run / CONFIG_FILE).is_file() else None
    if not path.is_dir():
        if path.exists() or os.sep in name or path.suffix or not out.is_dir():
            raise UserError(
                "is not a file" if path.exists() else "there is no such file or folder", file=path
            )
        (path,) = find_runs(out, [name])
    for kind in ("best", "last"):
        file = path / CHECKPOINTS / f"{kind}.ckpt"
        if file.is_file():
            return file, path
    raise UserError(
        f"has no {CHECKPOINTS}/best.ckpt or last.ckpt (name a run that has been trained, or the file)",
        file=path,
    )


def _lightning_state(file: Path) -> dict[str, Any] | None:
    """What Lightning wrote there; None for a file of weights.

    Raises:
        UserError: the file is damaged.
    """
    if file.suffix == ".safetensors":
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception:
        # older files of weights cannot be mapped; whoever reads them tells what is wrong with this one
        read_weights(file)
        return None
    return state if isinstance(state, dict) and {_LIGHTNING, "state_dict"} <= state.keys() else None


def _task_of(state: Mapping[str, Any]) -> type[Task] | None:
    """Which of our tasks a checkpoint is of."""
    known: Mapping[str, Any] = state.get("hyper_parameters", {})
    path = known.get("_class_path")
    for kind in _TASKS:
        if path == f"{kind.__module__}.{kind.__qualname__}":
            return kind
    if path is not None or "backbone" not in known:
        return None
    # trained by a Trainer of the user's own: told by the options that only one task has
    if "method" in known:
        return Detection
    return Segmentation if "decoder" in known else Classification


def _of_task(kind: type[Task], state: Mapping[str, Any], file: Path, run: Path | None) -> Source:
    options = {key: value for key, value in state["hyper_parameters"].items() if not key.startswith("_")}
    backbone = str(options["backbone"])
    if not is_focal(backbone):
        raise UserError(
            f"its backbone is {backbone}, whose attention is not ours to show (of focal backbones, Swin as "
            "focal_swin_... among them)",
            file=file,
        )
    options |= {"backbone_checkpoint": None} if "backbone_checkpoint" in options else {}
    try:
        module = kind(**options)
        module.load_state_dict(state["state_dict"])
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"does not fit this version of focal-lab: {reason}", file=file) from error
    module.eval()
    network = next(part for part in module.modules() if isinstance(part, FocalTransformer))
    data, trouble = _data(state, run)
    return Source(
        find_preset(backbone) or backbone,
        dict(options.get("backbone_options") or {}),
        network,
        _frame(module, network),
        kind.__name__.lower(),
        file,
        run,
        data,
        trouble,
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
    return Source(full, changed, network.eval(), _as_it_is, file=file)


def _load(network: FocalTransformer, name: str, file: Path) -> None:
    from focal_lab.backbones.released_format import WeightsError
    from focal_lab.backbones.weights import fit_weights

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


def _data(state: Mapping[str, Any], run: Path | None) -> tuple[LightningDataModule | None, str | None]:
    """The run's data module, not yet set up, and why there is none.

    Nothing in a checkpoint is run: classes that are not ours are only taken from the run's own configuration,
    as `focal-lab test --config` would take them.
    """
    noted = dict(state.get("datamodule_hyper_parameters", {}))
    path = str(noted.pop("_class_path", ""))
    options = {key: value for key, value in noted.items() if not key.startswith("_")}
    if not path.startswith(_OURS) and run is not None:
        configured = load_yaml(run / CONFIG_FILE).get("data") or {}
        path, options = str(configured.get("class_path", "")), dict(configured.get("init_args") or {})
    elif not path.startswith(_OURS):
        return None, "does not say which of our data it was judged by"
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        # pictures are looked at one by one, in this process
        options |= {key: 0 for key in ("num_workers",) if key in options}
        options |= {key: False for key in ("check_masks",) if key in options}
        options |= {key: min(options[key], _AT_ONCE) for key in ("batch_size",) if key in options}
        data = kind(**options)
    except UserError as error:
        return None, str(error)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return None, f"its data {path or '(none)'} cannot be made: {' '.join(str(error).split())[:200]}"
    return data, None


def _named(loader: Any, count: int) -> Iterator[tuple[str, Tensor]]:
    pictures = (picture for batch in loader for picture in batch[0])
    for number, picture in enumerate(islice(pictures, count)):
        yield f"validation {number}", picture
