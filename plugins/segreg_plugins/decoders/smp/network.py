"""An SMP decoder on an encoder's levels: the one place that knows how SMP lists features.

SMP's list has the image at index 0 and the level of stride 2^i at index i; where a level of stride 2 does not exist, as
in most transformers, a tensor without channels stands there. Numbers are exactly SMP's; what is added is that BatchNorm
takes a single value (see `batch_norm`) and that the levels may come from any encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segreg.models.pyramid import Pyramid, at_output_stride, pyramid_of, with_strides
from segreg.registry.protocols import Encoder
from segreg_plugins.batch_norm import with_single_values


class SmpDecoder(nn.Module):
    """An SMP decoder.

    Args:
        network: the decoder as SMP has it, built for `features.channels`.
        features: lists features as SMP does.
        channels: of the decoder's output.
        stride: of the decoder's output.
        head_kernel: size of the head's convolution, as SMP's model has it.
        initialize: whether SMP's model initialises decoder and head in its own way; its DeepLabs don't.
        smallest: least height and width of the coarsest level that the network can take.

    Shape: the encoder's levels to `[B, channels, H / stride, W / stride]`, H and W being multiples of `size_divisor`.
    """

    def __init__(
        self,
        network: nn.Module,
        features: SmpFeatures,
        *,
        channels: int,
        stride: int,
        head_kernel: int,
        initialize: bool = True,
        smallest: int = 1,
    ) -> None:
        super().__init__()
        from segmentation_models_pytorch.base.initialization import initialize_decoder

        if initialize:
            initialize_decoder(network)
        self.network = with_single_values(network)
        self.features = features
        self.channels = channels
        self.stride = stride
        self.size_divisor = features.pyramid.size_divisor
        self.head_kernel = head_kernel
        self.initialize = initialize
        self.smallest = smallest

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the decoder's features."""
        features = self.features(levels)
        height, width = features[0].shape[-2:]
        coarsest = features[-1].shape[-2:]
        if min(coarsest) >= self.smallest:
            decoded: Tensor = self.network(features)
            return decoded
        rows, columns = (max(1, self.smallest / side) for side in coarsest)
        decoded = self.network([_grown(f, rows, columns) for f in features])
        return decoded[..., : height // self.stride, : width // self.stride]

    def head(self, classes: int) -> nn.Module:
        """Return SMP's head: a convolution and upsampling to the image's size with aligned corners."""
        from segmentation_models_pytorch.base import SegmentationHead
        from segmentation_models_pytorch.base.initialization import initialize_head

        head = SegmentationHead(self.channels, classes, kernel_size=self.head_kernel, upsampling=self.stride)
        if self.initialize:
            initialize_head(head)
        return head


class SmpFeatures(nn.Module):
    """Lists an encoder's levels as SMP does.

    Args:
        pyramid: the levels wanted, finest first.
        indices: where each stands in SMP's list.
        multiple: of which the decoder wants each level's channels to be one; channels of zeros fill them up.

    Attributes:
        channels: SMP's `out_channels`: of the image (0: no decoder looks at it), and of each level.
    """

    def __init__(self, pyramid: Pyramid, indices: Sequence[int], *, multiple: int = 1) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.multiple = multiple
        self.indices = tuple(indices)
        self.channels = [0] * (max(indices) + 1)
        for index, channels in zip(indices, pyramid.channels, strict=True):
            self.channels[index] = channels + -channels % multiple

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return SMP's list: the image's size without channels, then the levels, without channels where not wanted."""
        height, width = self.pyramid.image_size(levels)
        batch = levels[0].shape[0]
        # Tensors without channels hold nothing; only their sizes are looked at.
        listed = [levels[0].new_empty(batch, 0, height >> i, width >> i) for i in range(len(self.channels))]
        for index, level in zip(self.indices, self.pyramid(levels), strict=True):
            missing = -level.shape[1] % self.multiple
            listed[index] = F.pad(level, (0, 0, 0, 0, 0, missing)) if missing else level
        return listed


def by_stride(
    encoder: Encoder, first: int, last: int, *, coarsest: int | None = None, multiple: int = 1
) -> SmpFeatures:
    """Return an encoder's levels at SMP's indices `first` to `last`, that is of strides 2^first to 2^last.

    At index 1, stride 2, there is none where the encoder has none finer than 4, just as in SMP.

    Args:
        encoder: is dilated for `coarsest`, where that is given.
        first: SMP's index of the finest level.
        last: SMP's index of the coarsest level.
        coarsest: stride that no level exceeds.
        multiple: of which each level's channels are to be one.
    """
    pyramid = at_output_stride(encoder, coarsest) if coarsest else pyramid_of(encoder)
    if first == 1 and last > 1 and pyramid.strides[0] > 2:
        first = 2
    indices = range(first, last + 1)
    most = coarsest or 2**last
    strides = [min(2**index, most) for index in indices]
    return SmpFeatures(with_strides(pyramid, strides, divisor=most), indices, multiple=multiple)


def _grown(features: Tensor, rows: float, columns: float) -> Tensor:
    height, width = features.shape[-2:]
    down, right = round(height * rows) - height, round(width * columns) - width
    if features.shape[1] == 0:
        return features.new_empty(features.shape[0], 0, height + down, width + right)
    return F.pad(features, (0, right, 0, down), mode="replicate")
