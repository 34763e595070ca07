"""focal-lab: ablation studies of the Focal Transformer (Yang et al., NeurIPS 2021, arXiv 2107.00641).

`import focal_lab` makes the backbones known to timm without importing torch: registration happens the
moment timm is imported, or at once when it already is. So `focal-lab --help` and `focal-lab report` stay
fast, and `timm.create_model("focal_tiny_patch4_window7_224")` works in either import order.
"""

from focal_lab._moved_modules import find_moved_modules
from focal_lab._timm_hook import register_with_timm
from focal_lab._version import __version__

register_with_timm()
find_moved_modules()

__all__ = ["__version__"]
