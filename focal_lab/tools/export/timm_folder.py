"""Writes a folder that timm loads like a model of the Hugging Face Hub."""

from collections.abc import Mapping
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


def write_timm(trained: TrainedTask, folder: Path, license_name: str | None) -> Portable:
    """Write the folder's three files; returns the part of the task that timm's network is compared with.

    That is all of a classification, and of the other tasks the backbone without the norms of its maps.

    Args:
        trained: the task.
        folder: an empty one.
        license_name: of the weights; None if unknown.

    Raises:
        UserError: a weight has no counterpart in timm's network, or the data does not define its
            preprocessing.
    """
    options = dict(trained.options.get("backbone_options") or {})
    network: Any = trained.module.model
    if trained.task == "classification":
        compared = Portable(network, trained.size, trained.channels, {"logits": "of the classes"})
    else:
        features = _features(trained)
        network, options = _plain_backbone(features, str(trained.options["backbone"]), options)
        outputs = {f"map_{stride}": f"at stride {stride}" for stride in features.strides}
        compared = Portable(_Maps(features).eval(), trained.size, trained.channels, outputs)
    network.pretrained_cfg = cfg = _pretrained_cfg(network, options, trained, license_name)
    labels = {"label_names": trained.class_names} if trained.task == "classification" else {}
    save_for_hf(
        network,
        str(folder),
        model_config={"num_classes": cfg["num_classes"]} | labels,
        model_args=options,
        safe_serialization=True,
    )
    # safetensors writes a file that only its owner may read
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
    (folder / "README.md").write_text(model_card(trained, cfg, license_name), encoding="utf-8")
    return compared


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
        features.norms = nn.ModuleList(nn.Identity() for _ in features.norms)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        size = (images_BCHW.shape[-2], images_BCHW.shape[-1])
        self.features.extent.update([size], size)
        maps: list[Tensor] = self.features(images_BCHW)
        return maps


def _pretrained_cfg(
    network: Any, options: Mapping[str, Any], trained: TrainedTask, license_name: str | None
) -> dict[str, Any]:
    """timm's description of the network, with our preprocessing and classes."""
    described: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    preprocessing = trained.preprocessing()
    size = trained.size
    if described.get("fixed_input_size"):  # the model is built for the size in its description
        size = options.get("img_size", tuple(described["input_size"])[1:])
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


def _plain_backbone(
    features: Features, name: str, options: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """timm's network with the weights of the feature extractor, and the options that build it.

    The extractor calls `stages.0` `stages_0`. The norm after the last stage stays untrained.
    """
    # as `Features` builds it
    options = ({"border": "mask"} if is_focal(name) else {"strict_img_size": False}) | dict(options)
    try:
        plain = create_backbone(name, options, num_classes=0)
    except UserError as error:
        if "'strict_img_size'" not in str(error):
            raise
        del options["strict_img_size"]
        plain = create_backbone(name, options, num_classes=0)
    values = plain.state_dict()
    for key, value in features.model.state_dict().items():
        head, _, rest = key.removeprefix("model.").partition(".")
        nested = ".".join(part for part in (".".join(head.rsplit("_", 1)), rest) if part)
        found = next((one for one in (key, key.removeprefix("model."), nested) if one in values), None)
        if found is None or values[found].shape != value.shape:
            raise UserError(
                f"{name} cannot be written for timm: its classification network has no weight {key}",
                key="--to",
            )
        values[found] = value
    plain.load_state_dict(values)
    return plain.eval(), options


def _features(trained: TrainedTask) -> Features:
    return next(part for part in trained.module.modules() if isinstance(part, Features))
