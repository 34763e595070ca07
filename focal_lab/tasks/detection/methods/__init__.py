"""One file a method, named as the method is.

`build(settings)` makes the network, `STAGES` says from how many of the backbone's stages, `HAS_MASKS`
whether it predicts masks, and `FIRST_LABEL` which number its class 0 has.
"""

import importlib
import pkgutil
from typing import Any

from torch import nn

from focal_lab.errors import UserError, known_names
from focal_lab.tasks.detection.settings import Settings


def known_methods() -> tuple[str, ...]:
    """Names of all methods."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def build_detector(method: str, settings: Settings) -> nn.Module:
    """The network of that method.

    Raises:
        UserError: no such method.
    """
    detector: nn.Module = _module(method).build(settings)
    return detector


def has_masks(method: str) -> bool:
    """Whether the method predicts a mask for each object.

    Raises:
        UserError: no such method.
    """
    return bool(_module(method).HAS_MASKS)


def stages_of(method: str) -> int:
    """From how many of the backbone's stages the method makes its pyramid.

    Raises:
        UserError: no such method.
    """
    return int(_module(method).STAGES)


def first_label(method: str) -> int:
    """The number that the network gives to class 0: 1 where 0 means background.

    Raises:
        UserError: no such method.
    """
    return int(_module(method).FIRST_LABEL)


def most_found(detector: Any) -> tuple[int, str]:
    """How many objects of an image a network reports at most, and the option that says so."""
    if not hasattr(detector, "roi_heads"):
        return int(detector.detections_per_img), "detections_per_img"
    return min(
        (int(detector.roi_heads.detections_per_img), "box_detections_per_img"),
        (int(detector.rpn._post_nms_top_n["testing"]), "rpn_post_nms_top_n_test"),
    )


def _module(method: str) -> Any:
    if method not in known_methods():
        raise UserError(
            f"{method!r} is not a method{known_names(method, known_methods())}", key="model.method"
        )
    return importlib.import_module(f"{__name__}.{method}")
