"""Feature maps of any timm backbone, for heads that need several resolutions.

Shape suffixes: B batch, C channels, H W map.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from focal_lab.backbones.model import FocalTransformer
from focal_lab.errors import UserError
from focal_lab.tasks.backbone import create_backbone, is_focal
from focal_lab.tasks.padding import Extent


class Features(nn.Module):
    """The last maps of a backbone, the finest first.

    Args:
        backbone: timm model name.
        options: options of that model; a focal one gets border="mask" unless they say otherwise.
        checkpoint: file of weights to start from.
        stages: how many maps, counted from the last.
        norm: a layer norm on each map, as in Swin's detectors; None for one if the backbone's maps are
            channels-last, because these are not normalised after a stage.

    Raises:
        UserError: no such backbone, option or file, or a backbone without maps of several resolutions.
    """

    def __init__(
        self,
        backbone: str,
        options: Mapping[str, Any] | None,
        checkpoint: str | None,
        stages: int,
        norm: bool | None = None,
    ) -> None:
        super().__init__()
        self.extent = Extent()  # the images' part of a padded batch
        options = dict(options or {})
        if is_focal(backbone):
            model = create_backbone(
                backbone, {"border": "mask"} | options, checkpoint=checkpoint, num_classes=0, global_pool=""
            )
            assert isinstance(model, FocalTransformer)
            model.prune_intermediate_layers(stages, prune_norm=True)
            info = model.feature_info[-stages:]
            self.channels = [int(stage["num_chs"]) for stage in info]
            self.strides = [int(stage["reduction"]) for stage in info]
        else:
            model = _of_any_size(backbone, options, checkpoint)
            described: Any = model.feature_info
            if len(described.channels()) < stages:
                raise UserError(
                    f"{backbone} has {len(described.channels())} maps; {stages} are needed",
                    key="model.backbone",
                )
            self.channels = described.channels()[-stages:]
            self.strides = described.reduction()[-stages:]
        if any(fine * 2 != coarse for fine, coarse in zip(self.strides, self.strides[1:], strict=False)):
            raise UserError(
                f"{backbone}: maps at strides {self.strides} are not a pyramid, each half the previous one",
                key="model.backbone",
            )
        self.model, self.is_focal = model, is_focal(backbone)
        self.channels_last = self.is_focal or getattr(model, "output_fmt", None) == "NHWC"
        norm = self.channels_last if norm is None else norm
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for width in self.channels)

    @property
    def divisor(self) -> int:
        """Height and width of the frame are multiples of it."""
        return max(32, self.strides[-1])

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Normalised images in a frame to maps (B, C, H, W)."""
        maps = self._focal_maps(images_BCHW) if self.is_focal else self.model(images_BCHW)
        normalised = []
        for norm, x in zip(self.norms, maps[-len(self.channels) :], strict=True):
            if not isinstance(norm, nn.Identity):
                x = norm(x if self.channels_last else x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            elif self.channels_last:
                x = x.permute(0, 3, 1, 2)
            normalised.append(self.extent.clear(x))
        return normalised

    def _focal_maps(self, images_BCHW: Tensor) -> list[Tensor]:
        """Maps (B, H, W, C) of our backbone, which takes the images' sizes within the frame."""
        model: Any = self.model
        valid_B2 = None
        if self.extent.padded and model.options.border == "mask":
            valid_B2 = torch.tensor(self.extent.sizes, device=images_BCHW.device)
        maps: list[Tensor] = model.forward_intermediates(
            images_BCHW, len(self.channels), output_fmt="NHWC", intermediates_only=True, valid_size=valid_B2
        )
        return maps


def _of_any_size(backbone: str, options: dict[str, Any], checkpoint: str | None) -> nn.Module:
    """timm's Swins need strict_img_size=False to accept any size; other models do not have the option."""
    try:
        return create_backbone(
            backbone, {"strict_img_size": False} | options, checkpoint=checkpoint, features_only=True
        )
    except UserError as error:
        if "'strict_img_size'" not in str(error):
            raise
    return create_backbone(backbone, options, checkpoint=checkpoint, features_only=True)
