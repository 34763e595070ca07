"""focal-lab: ablation studies of the Focal Transformer (Yang et al., NeurIPS 2021, arXiv 2107.00641).

`import focal_lab` registers the backbones with timm without importing torch: registration happens when timm
is imported, or at once if it already is. So `focal-lab --help` and `focal-lab report` stay fast, and
`timm.create_model("focal_tiny_patch4_window7_224")` works in either import order. The public names below are
imported on first use.
"""

import importlib

from focal_lab._moved_modules import find_moved_modules
from focal_lab._timm_hook import register_with_timm
from focal_lab._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

register_with_timm()
find_moved_modules()

# public name -> module below focal_lab that has it
_MODULES = {
    **dict.fromkeys(("Classification", "Detection", "Segmentation", "Task"), "tasks"),
    **dict.fromkeys(("ImageFolderDataModule", "CifarDataModule", "FashionMnistDataModule"), "data"),
    **dict.fromkeys(("CocoDataModule", "SegmentationFolder", "Ade20kDataModule"), "data"),
    **dict.fromkeys(("DigitsClassification", "DigitsDetection", "DigitsSegmentation"), "data"),
    **dict.fromkeys(("runs_table", "sweep_table"), "report"),
    "UserError": "errors",
    "load_predictions": "sweep.run_folder.predictions",
    "load_sweep": "sweep.spec.sweep_file",
    "make_plan": "sweep.plan.plan",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> "Any":
    if name not in _MODULES:
        raise AttributeError(f"module 'focal_lab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"focal_lab.{_MODULES[name]}"), name)
