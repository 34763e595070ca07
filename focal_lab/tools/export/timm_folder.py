"""Writes a folder that timm loads like a model of the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone, is_focal, resolve_name
from focal_lab.tasks.features import Features
from focal_lab.tools.export.model_card import model_card
from focal_lab.tools.export.verify import Outputs, Runner, as_outputs
from focal_lab.tools.export.wrapper import Portable
from focal_lab.tools.trained.load import TrainedTask

# Keys of timm's description that are about its own pretrained weights.
_OF_TIMM = (
    "url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "tag", "label_offset",
    "label_names", "label_descriptions", "test_input_size", "test_crop_pct", "test_pool_size", "license",
    "origin_url", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class ForTimm:
    """The part of a task that is exported to timm.

    Attributes:
        network: all of a classification; the backbone of the other tasks, without the norms of its maps.
        options: keyword arguments that build it.
        compared: the part of the task that it is compared with.
    """

    network: nn.Module
    options: dict[str, Any]
    compared: Portable


def for_timm(trained: TrainedTask) -> ForTimm:
    """The network that is exported to timm.

    Raises:
        UserError: a weight has no counterpart in timm's network.
    """
    options = dict(trained.options.get("backbone_options") or {})
    model = trained.module.model
    if trained.task == "classification":
        whole = Portable(model, trained.size, trained.channels, {"logits": "of the classes"})
        return ForTimm(model, options, whole)
    features = _features(trained)
    name = str(trained.options["backbone"])
    # as `Features` builds it
    defaults = {"border": "mask"} if is_focal(name) else {"strict_img_size": False}
    options = defaults | options
    try:
        plain = create_backbone(name, options, num_classes=0)
    except UserError as error:
        if "'strict_img_size'" not in str(error):
            raise
        del options["strict_img_size"]
        plain = create_backbone(name, options, num_classes=0)
    _copy_weights(features, plain, name)
    outputs = {f"map_{stride}": f"at stride {stride}" for stride in features.strides}
    maps = Portable(_Maps(features).eval(), trained.size, trained.channels, outputs)
    return ForTimm(plain.eval(), options, maps)


def write_timm(exported: ForTimm, trained: TrainedTask, folder: Path, license_name: str | None) -> None:
    """Write the folder's three files.

    Args:
        exported: what timm gets.
        trained: where it is from.
        folder: an empty one.
        license_name: of the weights; None if unknown.

    Raises:
        UserError: the data does not define its preprocessing.
    """
    network: Any = exported.network
    labels = {"label_names": trained.class_names} if trained.task == "classification" else {}
    network.pretrained_cfg = cfg = _pretrained_cfg(exported, trained, license_name)
    save_for_hf(
        network,
        str(folder),
        model_config={"num_classes": cfg["num_classes"]} | labels,
        model_args=exported.options,
        safe_serialization=True,
    )
    # safetensors writes a file that only its owner may read
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
    (folder / "README.md").write_text(model_card(trained, cfg, license_name), encoding="utf-8")


def load_timm(folder: Path, trained: TrainedTask) -> Runner:
    """The folder as timm loads it, for comparison.

    Raises:
        UserError: timm cannot load it.
    """
    is_backbone = trained.task != "classification"
    options: dict[str, Any] = {"features_only": True} if is_backbone else {}
    try:
        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, **options).eval()
    except Exception as error:  # timm raises whatever a wrong value leads to
        raise UserError(f"timm cannot load it: {' '.join(str(error).split())[:300]}", key="--to") from error
    stages = len(_features(trained).channels) if is_backbone else 0
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def run(images_BCHW: Tensor) -> Outputs:
        with torch.no_grad():
            outputs = as_outputs(model(images_BCHW))
        if not is_backbone:
            return outputs
        return [x.permute(0, 3, 1, 2) if channels_last else x for x in outputs[-stages:]]

    return run


class _Maps(nn.Module):
    """The backbone's maps (B, C, H, W) before they are normalized."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        size = (images_BCHW.shape[-2], images_BCHW.shape[-1])
        self.features.extent.update([size], size)
        norms = self.features.norms
        self.features.norms = nn.ModuleList(nn.Identity() for _ in norms)
        try:
            maps: list[Tensor] = self.features(images_BCHW)
        finally:
            self.features.norms = norms
        return maps


def _pretrained_cfg(exported: ForTimm, trained: TrainedTask, license_name: str | None) -> dict[str, Any]:
    """timm's description of the network, with our preprocessing and classes."""
    described: dict[str, Any] = getattr(exported.network, "pretrained_cfg", {})
    preprocessing = trained.preprocessing()
    size = trained.size
    if described.get("fixed_input_size"):  # the model is built for the size in its description
        size = exported.options.get("img_size", tuple(described["input_size"])[1:])
        size = (size, size) if isinstance(size, int) else (size[0], size[1])
    cfg = {key: value for key, value in described.items() if key not in _OF_TIMM} | {
        "architecture": resolve_name(str(trained.options["backbone"])).partition(".")[0],
        "input_size": (trained.channels, *size),
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "crop_pct": preprocessing.crop_pct,
        "interpolation": preprocessing.interpolation,
        "num_classes": int(trained.options["num_classes"]) if trained.task == "classification" else 0,
        "custom_load": False,
        "tag": "focal_lab",
    }
    if license_name is not None:
        cfg["license"] = license_name
    if cfg["input_size"] != tuple(described.get("input_size", ())):
        cfg["pool_size"] = None
    return cfg


def _copy_weights(features: Features, plain: nn.Module, backbone: str) -> None:
    """Copy the weights of timm's feature extractor, which calls `stages.0` `stages_0`, to the whole backbone.

    The norm after the last stage and the classifier stay untrained.
    """
    expected = {key: tuple(value.shape) for key, value in plain.state_dict().items()}
    values = {}
    for key, value in features.model.state_dict().items():
        head, _, rest = key.removeprefix("model.").partition(".")
        nested = ".".join(part for part in (".".join(head.rsplit("_", 1)), rest) if part)
        name = next((name for name in (key, key.removeprefix("model."), nested) if name in expected), None)
        if name is None or expected[name] != tuple(value.shape):
            raise UserError(
                f"{backbone} cannot be written for timm: its classification network has no weight {key}",
                key="--to",
            )
        values[name] = value
    plain.load_state_dict(plain.state_dict() | values)


def _features(trained: TrainedTask) -> Features:
    return next(part for part in trained.module.modules() if isinstance(part, Features))
