"""The Focal Transformer (Yang et al., "Focal Attention for Long-Range Interactions in Vision Transformers",
NeurIPS 2021, arXiv 2107.00641), with Swin as the case without focal levels.

Shape suffixes: B batch, H W map height and width, C channels.

Module and parameter names follow timm's Swin, so that its weights and tools fit; feature maps are
channels-last between stages.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any, cast

import torch
from timm.layers.classifier import ClassifierHead
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.models import checkpoint, register_notrace_module
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.attention.pooling import LinearPool
from focal_lab.backbones.embedding import ConvDownsample, PatchEmbed, PatchMerging, clear_padding, strided
from focal_lab.backbones.options import (
    FocalOptions,
    StageConfig,
    cuts_odd_maps,
    make_options,
)
from focal_lab.backbones.weights.fit_weights import load_pre_hook
from focal_lab.backbones.weights.set_input_size import resize_model

register_notrace_module(FocalAttention)  # its layout depends on the map's size, which torch.fx does not know


class FocalBlock(nn.Module):
    """Focal attention and MLP, both pre-normalised residual branches."""

    def __init__(
        self,
        stage: StageConfig,
        options: FocalOptions,
        *,
        shifted: bool,
        drop_path: float,
        proj_drop: float,
        attn_drop: float,
    ) -> None:
        super().__init__()
        self.shifted = shifted
        dim, scale = stage.dim, options.layerscale_value
        self.norm1 = nn.LayerNorm(dim)
        self.attn = FocalAttention(stage, options, attn_drop=attn_drop, proj_drop=proj_drop)
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * options.mlp_ratio), drop=proj_drop)
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()
        self.gamma_1 = nn.Parameter(torch.full((dim,), scale)) if options.use_layerscale else None
        self.gamma_2 = nn.Parameter(torch.full((dim,), scale)) if options.use_layerscale else None

    def forward(self, x_BHWC: Tensor, valid_B2: Tensor | None = None) -> Tensor:
        """(B, H, W, C) to the same shape; `valid_B2` as in FocalAttention."""
        # a branch's output gets no name of its own, which would keep its memory until the block ends
        x_BHWC = x_BHWC + self.drop_path1(
            _scale(self.attn(self.norm1(x_BHWC), self.shifted, valid_B2), self.gamma_1)
        )
        x_BHWC = x_BHWC + self.drop_path2(_scale(self.mlp(self.norm2(x_BHWC)), self.gamma_2))
        return x_BHWC


def _scale(x_BHWC: Tensor, gamma_C: Tensor | None) -> Tensor:
    return x_BHWC if gamma_C is None else gamma_C * x_BHWC


class FocalStage(nn.Module):
    """Downsampling (except in the first stage) and a sequence of blocks at one resolution."""

    def __init__(
        self, stage: StageConfig, options: FocalOptions, *, drop_paths: list[float], **dropout: float
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample: nn.Module
        if stage.stage == 1:
            self.downsample = nn.Identity()
        elif options.downsample == "merge":
            self.downsample = PatchMerging(stage.dim // 2)
        else:
            self.downsample = ConvDownsample(
                stage.dim // 2,
                overlap=options.use_conv_embed,
                pre_norm=options.use_pre_norm,
                cut=cuts_odd_maps(options),
            )
        self.blocks = nn.Sequential(
            *(
                FocalBlock(stage, options, shifted=bool(i % 2), drop_path=rate, **dropout)
                for i, rate in enumerate(drop_paths)
            )
        )

    def forward(self, x_BHWC: Tensor, valid_B2: Tensor | None = None) -> Tensor:
        """(B, H, W, C) to (B, H / 2, W / 2, 2 C); the first stage keeps the shape.

        `valid_B2`: height and width of each image on the input map.
        """
        if valid_B2 is None or isinstance(self.downsample, nn.Identity):
            x_BHWC = self.downsample(x_BHWC)
        else:
            x_BHWC = self.downsample(x_BHWC, valid_B2)
            valid_B2 = strided(valid_B2, 2)
        for block in self.blocks:
            recompute = self.grad_checkpointing and self.training
            x_BHWC = checkpoint(block, x_BHWC, valid_B2) if recompute else block(x_BHWC, valid_B2)
        return x_BHWC


class FocalTransformer(nn.Module):
    """A focal backbone with a classifier and timm's methods.

    Args:
        num_classes: classifier outputs; 0 for none.
        global_pool: timm's pooling before the classifier.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after projections and in the MLP.
        attn_drop_rate: dropout of attention weights.
        device: device of the parameters.
        dtype: dtype of the parameters.
        options: see `focal_lab.backbones.options.FocalOptions`.

    Raises:
        TypeError: an option is unknown.
        ValueError: an option breaks a rule.
    """

    output_fmt = "NHWC"

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(load_pre_hook)  # type: ignore[no-untyped-call]
        self.options = make_options(options)
        self.stages_config = self.options.stages
        self.in_chans = self.options.in_chans
        self.num_classes, self.global_pool = num_classes, global_pool
        self.num_features = self.head_hidden_size = self.stages_config[-1].dim
        patch_size = self.options.patch_size
        self.feature_info = [
            {"num_chs": stage.dim, "reduction": patch_size * 2**i, "module": f"layers.{i}"}
            for i, stage in enumerate(self.stages_config)
        ]
        with torch.device(device) if device is not None else nullcontext():
            self.patch_embed = PatchEmbed(
                self.options.in_chans, self.options.embed_dim, patch_size, overlap=self.options.use_conv_embed
            )
            self.pos_drop = nn.Dropout(proj_drop_rate)
            blocks = sum(stage.depth for stage in self.stages_config)
            rates = iter(self.options.drop_path_rate * i / max(1, blocks - 1) for i in range(blocks))
            self.layers = nn.Sequential(
                *(
                    FocalStage(
                        stage,
                        self.options,
                        drop_paths=list(islice(rates, stage.depth)),
                        proj_drop=proj_drop_rate,
                        attn_drop=attn_drop_rate,
                    )
                    for stage in self.stages_config
                )
            )
            self.norm: nn.Module = nn.LayerNorm(self.num_features)  # Identity where it was pruned
            self.head = ClassifierHead(
                self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, input_fmt="NHWC"
            )
            self.init_weights()
        if dtype is not None:
            self.to(dtype)

    def init_weights(self) -> None:
        """Truncated normal of 0.02 for linear layers, fc pooling included, as in the released code."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, LinearPool):
                module.reset_parameters()  # restores pool_init="mean"

    def effective_config(self) -> list[dict[str, Any]]:
        """What each stage computes at the model's input size, with notes on options that were overridden."""
        return [stage.as_dict() | {"notes": list(stage.notes)} for stage in self.stages_config]

    def no_weight_decay(self) -> set[str]:
        """Position biases; optimizer factories exclude one-dimensional parameters themselves."""
        return {
            name for name, _ in self.named_parameters() if "bias_table" in name or name.endswith("ring_bias")
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's parameter groups for layer decay."""
        fine = [
            (r"^layers\.(\d+).downsample", (0,)),
            (r"^layers\.(\d+)\.\w+\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {"stem": r"^patch_embed", "blocks": r"^layers\.(\d+)" if coarse else fine}

    def set_input_size(
        self,
        img_size: int | Sequence[int] | None = None,
        patch_size: int | None = None,
        window_size: int | Sequence[int] | None = None,
        *,
        focal_windows: int | Sequence[int] | None = None,
        expand_sizes: int | Sequence[int] | None = None,
        interpolation: str = "bicubic",
    ) -> None:
        """Change the sizes that the model is made for, in place; None leaves an option unchanged.

        Unlike in timm's Swin, windows keep their size unless `window_size` is given. Position biases and
        pooling weights are resized as when a checkpoint of other sizes is loaded; all other parameters stay
        the same objects. A warning lists what was interpolated, dropped or left as initialised.

        Args:
            img_size: input height and width in pixels.
            patch_size: of the patch embedding, which cannot change.
            window_size: s_p of every stage, or one per stage.
            focal_windows: regions of the coarse levels.
            expand_sizes: tokens beyond the window.
            interpolation: bicubic, or bilinear as in the paper.

        Raises:
            ValueError: another patch size, or an option breaks a rule; the model is unchanged.
        """
        if patch_size not in (None, self.options.patch_size, (self.options.patch_size,) * 2):
            raise ValueError(
                f"patch_size: {patch_size} is not the model's {self.options.patch_size}, which cannot change"
            )
        sizes = {
            "img_size": img_size,
            "window_size": window_size,
            "focal_windows": focal_windows,
            "expand_sizes": expand_sizes,
        }
        changed = {name: value for name, value in sizes.items() if value is not None}
        resize_model(self, changed, interpolation)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in backward instead of saving its activations."""
        for stage in self.layers:
            cast(FocalStage, stage).grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return cast(nn.Module, self.head.fc)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one with `num_classes` outputs; 0 removes it."""
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool)
        like = self.patch_embed.norm.weight
        self.head.to(like.device, like.dtype)
        self.head.train(self.training)
        if global_pool is not None:
            self.global_pool = global_pool

    def forward_features(self, x_BCHW: Tensor, valid_size: Tensor | None = None) -> Tensor:
        """(B, C, H, W) images to the normalised last map (B, H, W, C); `valid_size` as below."""
        if valid_size is None:
            x_BHWC: Tensor = self.norm(self.layers(self.pos_drop(self.patch_embed(x_BCHW))))
            return x_BHWC
        features = self.forward_intermediates(x_BCHW, [-1], norm=True, valid_size=valid_size)
        return features[0]

    def forward_head(self, x_BHWC: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, H, W, C) to logits (B, num_classes), or to pooled features."""
        logits: Tensor = self.head(x_BHWC, pre_logits=pre_logits)
        return logits

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) images of any size to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        valid_size: Tensor | None = None,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps after the chosen stages, and the last one, as in timm.

        Args:
            x: images (B, C, H, W).
            indices: the last n stages, a list of stages, or all.
            norm: normalise the last stage's map.
            stop_early: do not compute beyond the last chosen stage.
            output_fmt: NCHW or NHWC.
            intermediates_only: return only the list.
            valid_size: integers (B, 2), height and width in pixels of each image in the top left corner of
                its frame; None if images fill their frames. Pixels beyond, even NaN, do not change the
                output, and maps are zero there. Needs border="mask".

        Raises:
            ValueError: another output format, or `valid_size` with a border that is not masked.
        """
        if valid_size is not None and self.options.border != "mask":
            raise ValueError(f"valid_size: needs border='mask', not {self.options.border!r}")
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt: {output_fmt!r} is unknown (use NCHW or NHWC)")
        take, last = feature_take_indices(len(self.layers), indices)
        intermediates = []
        x_BHWC = self.pos_drop(self.patch_embed(x, valid_size))
        valid_B2 = None if valid_size is None else strided(valid_size, self.options.patch_size)
        for i, stage in enumerate(self.layers):
            if stop_early and i > last:
                break
            x_BHWC = stage(x_BHWC, valid_B2)
            if valid_B2 is not None and i > 0:
                valid_B2 = strided(valid_B2, 2)
            if i in take:
                kept = self.norm(x_BHWC) if norm and i == len(self.layers) - 1 else x_BHWC
                if valid_B2 is not None:
                    kept = clear_padding(kept, valid_B2)
                intermediates.append(kept.permute(0, 3, 1, 2).contiguous() if output_fmt == "NCHW" else kept)
        if intermediates_only:
            return intermediates
        if not (stop_early and last < len(self.layers) - 1):
            x_BHWC = self.norm(x_BHWC)
        if valid_B2 is not None:
            x_BHWC = clear_padding(x_BHWC, valid_B2)
        return x_BHWC, intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last chosen one, and optionally the norm and the head."""
        take, last = feature_take_indices(len(self.layers), indices)
        self.layers = self.layers[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return take
