"""Protocol of networks whose weights can be loaded and resized; `FocalTransformer` derives from it.

It is a class of its own so that the modules for weights, which the network imports, do not import the
network.
"""

from torch import nn

from focal_lab.backbones.options import FocalOptions, StageConfig


class FocalNetwork(nn.Module):
    """A focal backbone as the modules for weights see it.

    Attributes:
        options: what the network was built with, or resized to.
        stages_config: what each stage computes; it keeps stages that were pruned from `layers`.
        layers: the stages, each with its `blocks`.
        norm: of the last map; Identity where it was pruned.
    """

    options: FocalOptions
    stages_config: tuple[StageConfig, ...]
    layers: nn.Sequential
    norm: nn.Module
