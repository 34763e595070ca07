"""One file per method, named as the method is.

`build(settings)` makes the network from `STAGES` of the backbone's stages; `HAS_MASKS` is whether it predicts
masks, and `FIRST_LABEL` the number of class 0, 1 where 0 means background.
"""

import importlib
import pkgutil
from typing import Any

from focal_lab.errors import UserError, known_names


def known_methods() -> tuple[str, ...]:
    """Names of all methods."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find_method(name: str) -> Any:
    """The module of a method.

    Raises:
        UserError: there is no such method.
    """
    if name not in known_methods():
        raise UserError(f"{name!r} is not a method{known_names(name, known_methods())}", key="model.method")
    return importlib.import_module(f"{__name__}.{name}")


def most_found(detector: Any) -> tuple[int, str]:
    """The most objects of an image that a network reports, and the option that sets it."""
    if not hasattr(detector, "roi_heads"):
        return int(detector.detections_per_img), "detections_per_img"
    return min(
        (int(detector.roi_heads.detections_per_img), "box_detections_per_img"),
        (int(detector.rpn._post_nms_top_n["testing"]), "rpn_post_nms_top_n_test"),
    )
