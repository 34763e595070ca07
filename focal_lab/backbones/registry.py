"""Registration of every preset with timm, under its full name.

Imported right after timm itself; the network is imported only when the first model is created.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from focal_lab.backbones.options import FocalOptions, image_size
from focal_lab.backbones.presets import PRESETS, preset_options

if TYPE_CHECKING:
    from focal_lab.backbones.model import FocalTransformer


def _cfg(name: str) -> dict[str, Any]:
    """timm's description of a preset, without `url`: the authors' links are dead."""
    options = preset_options(name)
    height, width = image_size(options.img_size)
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, height, width),
        "pool_size": options.stages[-1].map_size,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
        "license": "mit",
        "paper_ids": "arXiv:2107.00641",
    }


default_cfgs = generate_default_cfgs({name: _cfg(name) for name in PRESETS})


def create_focal(name: str, pretrained: bool = False, **kwargs: Any) -> FocalTransformer:
    """Build a preset by timm's factory, with `features_only`, `checkpoint_path` and the like.

    Raises:
        TypeError: an option is unknown.
        ValueError: an option breaks a rule.
    """
    from focal_lab.backbones.model import FocalTransformer
    from focal_lab.backbones.weights.fit_weights import adapt

    options = PRESETS[name] | kwargs
    out_indices = options.pop("out_indices", tuple(range(len(options.get("depths", FocalOptions.depths)))))
    model: FocalTransformer = build_model_with_cfg(
        FocalTransformer,
        name,
        pretrained,
        # values that do not fit stay in: timm adapts the first convolution and the head, and refuses others
        pretrained_filter_fn=lambda state_dict, model: adapt(state_dict, model).values,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **options,
    )
    return model


def _entry_point(name: str) -> Callable[..., FocalTransformer]:
    def create(pretrained: bool = False, **kwargs: Any) -> FocalTransformer:
        return create_focal(name, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = f"The preset `{name}`; keyword arguments change its options."
    return create


for _name in PRESETS:
    globals()[_name] = register_model(_entry_point(_name))
