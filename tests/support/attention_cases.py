"""Small focal attentions and what tests compare of them."""

import copy
import random
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from focal_lab.backbones.attention.layer import FocalAttention
from focal_lab.backbones.options import FocalOptions, Size, StageConfig, make_options


def small_options(map_size: Size, **options: Any) -> FocalOptions:
    """A stage of two blocks on a map of that size: width 8, 2 heads, window 5, all else as in Focal-Tiny."""
    small = {"patch_size": 1, "embed_dim": 8, "depths": (2,), "num_heads": 2, "window_size": 5}
    small |= {"focal_windows": 3, "expand_sizes": 2}
    return make_options(small | {"img_size": map_size} | options)


def one_stage(map_size: Size, **options: Any) -> StageConfig:
    """The only stage of `small_options`."""
    return small_options(map_size, **options).stages[0]


def make_attention(
    map_size: Size,
    *,
    pool: str = "fc",
    attn_drop: float = 0.0,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> FocalAttention:
    """Focal attention whose parameters, position biases included, are large enough to matter."""
    torch.manual_seed(0)
    resolved = small_options(map_size, focal_pool=pool, **options)
    module = FocalAttention(resolved.stages[0], resolved, attn_drop=attn_drop)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.to(dtype)


def reference_of(module: FocalAttention) -> FocalAttention:
    """The same attention, computed the obvious way."""
    reference = copy.deepcopy(module)
    reference.attention = "reference"
    return reference


def random_map(module: FocalAttention, size: Size, batch: int = 2, seed: int = 1) -> Tensor:
    """(B, H, W, C) tokens of the module's dtype."""
    generator = torch.Generator().manual_seed(seed)
    dtype = module.qkv.weight.dtype
    return torch.randn(batch, *size, module.stage.dim, generator=generator, dtype=dtype)


def outcome(module: FocalAttention, x_BHWC: Tensor, shifted: bool = False) -> dict[str, Tensor]:
    """Output, and the gradients of a random projection of it for the input and every parameter."""
    x_BHWC = x_BHWC.clone().requires_grad_()
    module.zero_grad(set_to_none=True)
    out_BHWC = module(x_BHWC, shifted)
    generator = torch.Generator().manual_seed(2)
    weight_BHWC = torch.randn(out_BHWC.shape, generator=generator, dtype=out_BHWC.dtype)
    out_BHWC.backward(weight_BHWC.to(out_BHWC.device))
    found = {"output": out_BHWC.detach(), "input": x_BHWC.grad}
    found |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: value for name, value in found.items() if value is not None}


def assert_equal_outcomes(one: dict[str, Tensor], other: dict[str, Tensor], relative: float = 1e-5) -> None:
    """Both have the same names, and every tensor agrees in norm."""
    assert one.keys() == other.keys()
    for name, expected in other.items():
        assert expected.norm() > 0, name
        error = ((one[name] - expected).norm() / expected.norm()).item()
        assert error < relative, f"{name}: relative error {error:.1e}"


def random_size(case: Sequence[object], least: int = 6, most: int = 13) -> Size:
    """A height and width that are the case's own, never multiples of 5 and never equal."""
    draw = random.Random(zlib.crc32(repr(case).encode()))
    sizes = [size for size in range(least, most + 1) if size % 5]
    height, width = draw.sample(sizes, 2)
    return height, width
