"""Decoders of segmentation_models_pytorch on a backbone's maps.

They expect maps of all resolutions from the image's own on; a backbone's begin at a fourth of it (or half,
for small ones). Shape suffixes: B batch, C channels, H W map.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from focal_lab.errors import UserError, known_names, one_of

# set by us: from the backbone, or by `width`
_OURS = frozenset(
    [
        "encoder_channels",
        "encoder_depth",
        "output_stride",
        "decoder_channels",
        "pyramid_channels",
        "out_channels",
        "segmentation_channels",
    ]
)


class Decoder(nn.Module):
    """Maps of four resolutions to one map, of `out_channels`, of the finest.

    Args:
        decoder: of segmentation_models_pytorch.
        out_channels: of its output.
        finer: makes the maps finer than the backbone's that it expects.
        uses: which of the four maps it reads.
    """

    def __init__(
        self,
        decoder: nn.Module,
        out_channels: int,
        finer: Callable[[Tensor], Sequence[Any]],
        uses: tuple[int, ...] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        self.decoder, self.out_channels, self.uses, self._finer = decoder, out_channels, uses, finer

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, C_i, H / 2^i, W / 2^i), the finest first, to (B, out_channels, H, W)."""
        merged: Tensor = self.decoder([*self._finer(maps[0]), *maps])
        return merged


def build_decoder(
    name: str,
    channels: Sequence[int],
    strides: Sequence[int],
    width: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Decoder:
    """A decoder by its name.

    Args:
        name: upernet (Xiao et al. 2018, arXiv 1807.10221), fpn (Kirillov et al. 2019, arXiv 1901.02446),
            segformer (Xie et al. 2021, arXiv 2105.15203) or deeplabv3plus (Chen et al. 2018, arXiv
            1802.02611).
        channels: of the backbone's four maps, the finest first.
        strides: of the same.
        width: channels of the decoder; None for the papers': 512 for upernet, 256 for the others.
        options: keyword arguments of the decoder's class, such as {merge_policy: cat}.

    Raises:
        UserError: no such decoder, or an option that it does not accept.
    """
    if name not in _BUILDERS:
        raise UserError(f"{name!r} is not a decoder{known_names(name, _BUILDERS)}", key="model.decoder")
    kind, build, usual = _BUILDERS[name]
    known = [option for option in signature(kind).parameters if option not in _OURS]
    for option in options or {}:
        if option not in known:
            use = f" (use {one_of(known)})" if known else ", which has none"
            raise UserError(f"{option} is not an option of {kind.__name__}{use}", key="model.decoder_options")
    try:
        return build(list(channels), list(strides), width or usual, dict(options or {}))
    except (TypeError, ValueError) as error:
        raise UserError(f"{kind.__name__}: {error}", key="model.decoder_options") from error


def _upernet(channels: list[int], strides: list[int], width: int, options: dict[str, Any]) -> Decoder:
    decoder = UPerNetDecoder([3, 0, *channels], decoder_channels=width, **options)
    # the maps are normalised already where they need it: see `Features`
    decoder.feature_norms = nn.ModuleList(nn.Identity() for _ in channels)
    return Decoder(decoder, width, lambda _: (None, None))


def _fpn(channels: list[int], strides: list[int], width: int, options: dict[str, Any]) -> Decoder:
    # half as wide from the pyramid on, as in the paper; its group norms have 32 groups
    merged = max(32, width // 2)
    decoder = FPNDecoder(channels, 4, pyramid_channels=width, segmentation_channels=merged, **options)
    return Decoder(decoder, decoder.out_channels, lambda _: ())


def _segformer(channels: list[int], strides: list[int], width: int, options: dict[str, Any]) -> Decoder:
    decoder = SegformerDecoder([3, 0, *channels], segmentation_channels=width, **options)
    return Decoder(decoder, width, _four_times)


def _deeplabv3plus(channels: list[int], strides: list[int], width: int, options: dict[str, Any]) -> Decoder:
    # rates for a stride of 16, the paper's
    chosen = {"atrous_rates": (6, 12, 18), "aspp_separable": True, "aspp_dropout": 0.5} | options
    decoder = DeepLabV3PlusDecoder([3, 0, *channels], 5, width, output_stride=16, **chosen)
    # it expects a fourth of the coarsest map's resolution; ours may be coarser still
    decoder.up = nn.Upsample(scale_factor=strides[-1] // strides[0], mode="bilinear", align_corners=False)
    return Decoder(decoder, width, lambda _: (None, None), uses=(0, 3))


def _four_times(finest_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Two empty maps of which only the size is read."""
    batch, _, height, width = finest_BCHW.shape
    return finest_BCHW.new_empty(batch, 0, 4 * height, 4 * width), finest_BCHW.new_empty(batch, 0, 1, 1)


# class, builder, and the papers' width
_BUILDERS: dict[str, tuple[Any, Callable[[list[int], list[int], int, dict[str, Any]], Decoder], int]] = {
    "upernet": (UPerNetDecoder, _upernet, 512),
    "fpn": (FPNDecoder, _fpn, 256),
    "segformer": (SegformerDecoder, _segformer, 256),
    "deeplabv3plus": (DeepLabV3PlusDecoder, _deeplabv3plus, 256),
}
