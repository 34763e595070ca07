"""A folder that timm loads like a model of the Hugging Face hub: configuration, weights and model card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone, is_focal, resolve_name
from focal_lab.tasks.features import Features
from focal_lab.tools.export.metadata import class_names
from focal_lab.tools.export.model_card import model_card
from focal_lab.tools.export.verify import Outputs, Runner, as_outputs
from focal_lab.tools.export.wrapper import Portable
from focal_lab.tools.trained.load import Trained

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
# Where timm's description says from where its own weights come, and what is true of those alone.
_NOT_OURS = (
    "url",
    "file",
    "hf_hub_id",
    "hf_hub_filename",
    "source",
    "state_dict",
    "architecture",
    "tag",
    "label_offset",
    "label_names",
    "label_descriptions",
    "test_input_size",
    "test_crop_pct",
    "test_pool_size",
    "license",
    "origin_url",
    "notes",
)


@dataclass(frozen=True)
class ForTimm:
    """What timm gets of a task.

    Attributes:
        network: all of a classification; of the other tasks the backbone, without what timm has no place for:
            the norms of the maps, and the heads.
        options: what it is made with, beyond its name.
        compared: the part of the task that it is compared with.
    """

    network: nn.Module
    options: dict[str, Any]
    compared: Portable


def for_timm(trained: Trained) -> ForTimm:
    """The network that timm gets.

    Raises:
        UserError: the weights of the backbone cannot be told apart.
    """
    options = dict(trained.options.get("backbone_options") or {})
    model = trained.module.model
    if trained.task == "classification":
        made = Portable(model, trained.size, trained.channels, {"logits": "of the classes"})
        return ForTimm(model, options, made)
    features = _features(trained)
    name = str(trained.options["backbone"])
    options = (
        {"border": "mask"} if is_focal(name) else {"strict_img_size": False}
    ) | options  # as `Features`
    try:
        plain = create_backbone(name, options, num_classes=0)
    except UserError as error:
        if "'strict_img_size'" not in str(error):
            raise
        del options["strict_img_size"]
        plain = create_backbone(name, options, num_classes=0)
    _fill(plain, features, name)
    maps = {f"map_{stride}": f"at stride {stride}" for stride in features.strides}
    return ForTimm(
        plain.eval(), options, Portable(_Maps(features).eval(), trained.size, trained.channels, maps)
    )


def write_timm(made: ForTimm, trained: Trained, folder: Path, licence: str | None) -> None:
    """Write the folder's three files.

    Args:
        made: what timm gets.
        trained: where it is from.
        folder: there, and empty.
        licence: of the weights; None where nobody has said.

    Raises:
        UserError: the data does not say what it does to pictures.
    """
    config = _config(made, trained, licence)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {key: value.detach().contiguous().clone() for key, value in made.network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors makes it the owner's alone
    (folder / CARD).write_text(model_card(trained, config, licence), encoding="utf-8")


def load_timm(folder: Path, trained: Trained) -> Runner:
    """The folder as timm loads it, for comparison.

    Raises:
        UserError: timm does not take it.
    """
    features = trained.task != "classification"
    chosen: dict[str, Any] = {"features_only": True} if features else {}
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, **chosen).eval()
    except Exception as error:
        # timm's models refuse weights by whatever the wrong value runs into
        raise UserError(f"timm does not take it: {' '.join(str(error).split())[:300]}", key="--to") from error
    stages = len(_features(trained).channels) if features else 0

    def run(pictures_BCHW: Tensor) -> Outputs:
        with torch.no_grad():
            found = as_outputs(model(pictures_BCHW))
        # timm's features are those of all stages, in the layout of the model
        return [_channels_first(x, model) for x in found[-stages:]] if features else found

    return run


class _Maps(nn.Module):
    """The backbone's maps (B, C, H, W) before they are normalised."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, pictures_BCHW: Tensor) -> list[Tensor]:
        size = (pictures_BCHW.shape[-2], pictures_BCHW.shape[-1])
        self.features.extent.update([size], size)
        norms, self.features.norms = (
            self.features.norms,
            nn.ModuleList(nn.Identity() for _ in self.features.norms),
        )
        try:
            maps: list[Tensor] = self.features(pictures_BCHW)
        finally:
            self.features.norms = norms
        return maps


def _config(made: ForTimm, trained: Trained, licence: str | None) -> dict[str, Any]:
    """timm's hub format (`timm.models._hub.save_config_for_hf`), of all its versions that we support."""
    described: Mapping[str, Any] = getattr(made.network, "pretrained_cfg", {})
    classes = int(trained.options["num_classes"]) if trained.task == "classification" else 0
    shown = trained.preprocessing()
    size = trained.size
    if described.get("fixed_input_size"):
        # such a model is built for the size that stands here
        size = made.options.get("img_size", tuple(described["input_size"])[1:])
        size = (size, size) if isinstance(size, int) else tuple(size)
    pretrained_cfg = {key: value for key, value in described.items() if key not in _NOT_OURS} | {
        "input_size": [trained.channels, *size],
        "mean": list(shown.mean),
        "std": list(shown.std),
        "crop_pct": shown.crop_pct,
        "interpolation": shown.interpolation,
        "num_classes": classes,
        "custom_load": False,  # these are weights of the model itself, whatever timm's own are
        "tag": "focal_lab",
    }
    if licence is not None:
        pretrained_cfg["license"] = licence
    if tuple(pretrained_cfg["input_size"]) != tuple(described.get("input_size", ())):
        pretrained_cfg["pool_size"] = None
    config: dict[str, Any] = {
        "architecture": resolve_name(str(trained.options["backbone"])).partition(".")[0],
        "num_classes": classes,
        "num_features": getattr(made.network, "num_features", None),
    }
    if classes:
        config["label_names"] = class_names(trained)
    if made.options:
        config["model_args"] = made.options
    return config | {"pretrained_cfg": pretrained_cfg}


def _fill(plain: nn.Module, features: Features, backbone: str) -> None:
    """Give the whole backbone the weights of the one that gives features.

    timm flattens sequences there: `stages.0` is called `stages_0`. The norm after the last stage and the
    classifier are left as in a new network.
    """
    expected = {key: tuple(value.shape) for key, value in plain.state_dict().items()}
    values = {}
    for key, value in features.model.state_dict().items():
        head, _, rest = key.removeprefix("model.").partition(".")
        flattened = ".".join(part for part in (".".join(head.rsplit("_", 1)), rest) if part)
        name = next((name for name in (key, key.removeprefix("model."), flattened) if name in expected), None)
        if name is None or expected[name] != tuple(value.shape):
            raise UserError(
                f"{backbone} cannot be written for timm: {key} has no place in its network "
                "for classification",
                key="--to",
            )
        values[name] = value
    plain.load_state_dict(plain.state_dict() | values)


def _features(trained: Trained) -> Features:
    return next(part for part in trained.module.modules() if isinstance(part, Features))


def _channels_first(x: Tensor, model: nn.Module) -> Tensor:
    return x.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else x
