"""Patch embedding and downsampling between stages: strided convolution or Swin's patch merging.

Shape suffixes: B batch, H W map height and width, C channels.

Images of different sizes may share a batch, each in its top left corner: `valid_B2` holds their heights and
widths, and everything beyond counts as the zeros that pad a single image.
"""

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from timm.models import register_notrace_module
from torch import Tensor, nn

from focal_lab.backbones.cpu.dispatch import is_plain
from focal_lab.backbones.masks import inside_image


@register_notrace_module
class PatchEmbed(nn.Module):
    """Convolution from NCHW or channels-last pixels to channels-last tokens, then LayerNorm.

    Args:
        in_chans: input channels.
        dim: output channels.
        patch_size: stride in input pixels or tokens.
        overlap: 7 x 7 kernel for stride 4 and 3 x 3 for stride 2, instead of kernel = stride.
        pre_norm: normalise the whole input map first (GroupNorm of one group).
        cut: drop incomplete patches; otherwise they are padded with zeros.
    """

    def __init__(
        self,
        in_chans: int,
        dim: int,
        patch_size: int,
        *,
        overlap: bool,
        pre_norm: bool = False,
        cut: bool = False,
    ) -> None:
        super().__init__()
        self.patch_size, self.cut = patch_size, cut
        kernel, padding = ((7, 2) if patch_size == 4 else (3, 1)) if overlap else (patch_size, 0)
        self.pre_norm = nn.GroupNorm(1, in_chans) if pre_norm else nn.Identity()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=kernel, stride=patch_size, padding=padding)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BCHW: Tensor, valid_B2: Tensor | None = None) -> Tensor:
        """(B, in_chans, H, W) to (B, ceil(H / patch_size), ceil(W / patch_size), dim)."""
        if valid_B2 is None:
            x_BCHW = self.pre_norm(x_BCHW)
        else:
            x_BCHW = clear_padding(x_BCHW.permute(0, 2, 3, 1), valid_B2).permute(0, 3, 1, 2)
            if not isinstance(self.pre_norm, nn.Identity):
                x_BCHW = _norm_images(x_BCHW, self.pre_norm, valid_B2)
        x_BCHW = _pad_to_multiple(x_BCHW, self.patch_size, only_smaller=self.cut)
        tokens_BHWC: Tensor = self.norm(self.proj(x_BCHW).permute(0, 2, 3, 1))
        return tokens_BHWC


@register_notrace_module
class ConvDownsample(PatchEmbed):
    """Halve a channels-last map by a strided convolution, as the paper does."""

    def __init__(self, dim: int, *, overlap: bool, pre_norm: bool, cut: bool) -> None:
        super().__init__(dim, 2 * dim, 2, overlap=overlap, pre_norm=pre_norm, cut=cut)

    def forward(self, x_BHWC: Tensor, valid_B2: Tensor | None = None) -> Tensor:
        """(B, H, W, C) to (B, H / 2, W / 2, 2 C)."""
        return super().forward(x_BHWC.permute(0, 3, 1, 2), valid_B2)


@register_notrace_module
class PatchMerging(nn.Module):
    """Halve a channels-last map by concatenating 2 x 2 neighbours, as Swin does."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x_BHWC: Tensor, valid_B2: Tensor | None = None) -> Tensor:
        """(B, H, W, C) to (B, H / 2, W / 2, 2 C), with zeros around odd sizes and images."""
        if valid_B2 is not None:
            x_BHWC = clear_padding(x_BHWC, valid_B2)
        height, width = x_BHWC.shape[1:3]
        if height % 2 or width % 2:
            x_BHWC = F.pad(x_BHWC, (0, 0, 0, width % 2, 0, height % 2))
        batch, height, width, channels = x_BHWC.shape
        x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5)
        merged: Tensor = self.reduction(self.norm(x.flatten(3)))
        return merged


def clear_padding(x_BHWC: Tensor, valid_B2: Tensor) -> Tensor:
    """Zeros beyond each image, whatever was there (NaN included)."""
    return x_BHWC.where(inside_image(x_BHWC.shape[1], x_BHWC.shape[2], valid_B2), 0.0)


def strided(valid_B2: Tensor, stride: int) -> Tensor:
    """Height and width of images after a step of that stride; an incomplete patch is a token, too."""
    return torch.div(valid_B2 + stride - 1, stride, rounding_mode="floor")


def _norm_images(x_BCHW: Tensor, norm: nn.Module, valid_B2: Tensor) -> Tensor:
    """GroupNorm of one group (or its replacement) over each image alone; zero padding stays zero."""
    if not is_plain(norm, nn.GroupNorm):
        height, width = x_BCHW.shape[2:]
        normed = [
            F.pad(norm(x_CHW[None, :, :h, :w]), (0, width - w, 0, height - h))
            for x_CHW, (h, w) in zip(x_BCHW, valid_B2.tolist(), strict=True)
        ]
        return torch.cat(normed)
    norm = cast(nn.GroupNorm, norm)
    count_B111 = (valid_B2.prod(1) * x_BCHW.shape[1]).view(-1, 1, 1, 1)
    inside_B1HW = inside_image(x_BCHW.shape[2], x_BCHW.shape[3], valid_B2).permute(0, 3, 1, 2)
    mean_B111 = x_BCHW.sum((1, 2, 3), keepdim=True) / count_B111
    centred_BCHW = (x_BCHW - mean_B111).where(inside_B1HW, 0.0)
    variance_B111 = centred_BCHW.square().sum((1, 2, 3), keepdim=True) / count_B111
    normed_BCHW = centred_BCHW * (variance_B111 + norm.eps).rsqrt()
    return (normed_BCHW * norm.weight[:, None, None] + norm.bias[:, None, None]).where(inside_B1HW, 0.0)


def _pad_to_multiple(x_BCHW: Tensor, multiple: int, only_smaller: bool) -> Tensor:
    height, width = x_BCHW.shape[2:]
    bottom = -height % multiple if height < multiple or not only_smaller else 0
    right = -width % multiple if width < multiple or not only_smaller else 0
    return F.pad(x_BCHW, (0, right, 0, bottom)) if bottom or right else x_BCHW
