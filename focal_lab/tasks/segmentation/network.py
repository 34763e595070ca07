"""Backbone, decoder and pixel classifier, with the auxiliary head used in training.

Shape suffixes: B batch, C channels, K classes, H W image, h w the finest of the backbone's maps.
"""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from focal_lab.tasks.features import Features
from focal_lab.tasks.padding import padded_size, shield
from focal_lab.tasks.segmentation.decoders import Decoder

# of the auxiliary head, counted from 0: the third, as in UPerNet's implementations
_AUXILIARY_STAGE = 2


class Segmenter(nn.Module):
    """Logits of every pixel, at the resolution of the backbone's finest map.

    Args:
        features: four maps of a backbone.
        decoder: merges them.
        num_classes: K.
        dropout: on whole channels before the classifiers.
        auxiliary_channels: width of the auxiliary FCN head (one convolution); 0 for none.
    """

    def __init__(
        self,
        features: Features,
        decoder: Decoder,
        num_classes: int,
        dropout: float = 0.1,
        auxiliary_channels: int = 256,
    ) -> None:
        super().__init__()
        self.features, self.decoder = features, decoder
        self.head = _classifier(decoder.out_channels, num_classes, dropout)
        self.auxiliary: nn.Module | None = None
        if auxiliary_channels:
            self.auxiliary = nn.Sequential(
                nn.Conv2d(features.channels[_AUXILIARY_STAGE], auxiliary_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(auxiliary_channels),
                nn.ReLU(),
                *_classifier(auxiliary_channels, num_classes, dropout),
            )
            shield(self.auxiliary, features.extent)
        for i in range(len(features.norms)):
            if i not in decoder.uses and not (i == _AUXILIARY_STAGE and auxiliary_channels):
                features.norms[i] = nn.Identity()  # DDP waits for every parameter's gradient
        shield(self.decoder, features.extent)

    @property
    def stride(self) -> int:
        """Pixels of the image per logit."""
        return int(self.features.strides[0])

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Normalised images in a frame to logits (B, K, h, w); the frame's sides are multiples of 32."""
        logits_BKhw: Tensor = self.head(self.decoder(self.features(images_BCHW)))
        return logits_BKhw

    def with_auxiliary(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and the auxiliary head's logits, which are coarser; None if there is no such head."""
        maps = self.features(images_BCHW)
        coarse_BK = None if self.auxiliary is None else self.auxiliary(maps[_AUXILIARY_STAGE])
        return self.head(self.decoder(maps)), coarse_BK

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """Logits (B, K, h, w) of images of one size, padded to multiples of 32 for the network.

        Attention (border: mask) and convolutions do not see the padding; pooled regions of the decoder do.
        """
        size = (images_BCHW.shape[-2], images_BCHW.shape[-1])
        logits_BKhw: Tensor = self(self.framed(images_BCHW))
        height, width = (-(-length // self.stride) for length in size)
        return logits_BKhw[..., :height, :width]

    def framed(self, images_BCHW: Tensor) -> Tensor:
        """Pad with zeros, the mean colour, at the bottom and on the right, and record it in the `Extent`."""
        height, width = images_BCHW.shape[-2:]
        frame = padded_size((height, width), self.features.divisor)
        self.features.extent.update([(height, width)] * len(images_BCHW), frame)
        if frame == (height, width):
            return images_BCHW
        return F.pad(images_BCHW, (0, frame[1] - width, 0, frame[0] - height))


def _classifier(channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))
