"""The builder of the mask transformer, in the manner of Mask2Former, arXiv:2112.01527."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segreg.errors import SegregError
from segreg.settings import PositiveInt

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder


def mask_transformer(
    encoder: Encoder,
    *,
    queries: PositiveInt = 100,
    layers: PositiveInt = 9,
    channels: PositiveInt = 256,
    heads: PositiveInt = 8,
    feedforward: PositiveInt = 2048,
    masking: Literal["always", "annealed"] = "always",
    points: PositiveInt = 12544,
) -> Decoder:
    """Mask transformer in the manner of Mask2Former: learned queries, each a mask and a class, trained by matching.

    It brings its own losses, those of the paper with its weights: the class of each query, and cross-entropy and Dice
    of the masks at sampled points. A class that an image shows is one segment, the background too. The paper trains by
    AdamW with a rate of 1e-4 and clips gradients to 0.01.

    Args:
        queries: masks that an image can have, at least one for each class.
        layers: of the transformer; they see the levels of strides 32, 16 and 8 in turn.
        channels: of the levels and of the queries, a multiple of 4 and of `heads`.
        heads: of each attention.
        feedforward: channels inside each layer's feed-forward network.
        masking: whether a query sees only its mask of the layer before: `always`, as in Mask2Former, or `annealed`, as
            in EoMT (arXiv:2503.19108): less and less often as the training goes on, layer by layer, and never in
            predictions, which then compute one mask in place of one for each layer.
        points: at which masks are compared in training.

    Raises:
        SegregError: channels that can't be.
    """
    from segreg.models.pyramid import pyramid_of, with_strides
    from segreg_plugins.decoders.mask_transformer_network import MaskTransformer

    if channels % 4 or channels % heads:
        raise SegregError(f"channels is {channels}; a multiple of 4 and of {heads} heads was expected")
    return MaskTransformer(
        with_strides(pyramid_of(encoder), (4, 8, 16, 32)), queries=queries, layers=layers, channels=channels,
        heads=heads, feedforward=feedforward, masking=masking, points=points,
    )  # fmt: skip
