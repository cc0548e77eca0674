"""The builder of the all-MLP decoder, written from SegFormer's paper, arXiv:2105.15203."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segreg.settings import Fraction, PositiveInt

if TYPE_CHECKING:
    from segreg.registry.protocols import Decoder, Encoder

STRIDE = 4


def mlp(encoder: Encoder, *, channels: PositiveInt = 256, dropout: Fraction = 0.1) -> Decoder:
    """All-MLP decoder of SegFormer, from its paper: every level to one width and stride 4, stacked and fused.

    It takes as many levels as there are from stride 4 on, and none finer. `smp.segformer` takes the level of stride 2
    as well where there is one, always four or five levels, upsamples the logits with aligned corners, and has no
    dropout.

    Args:
        channels: of every level's linear layer and of the output. The paper has 256 in its two smallest networks and
            768 in the others.
        dropout: share of channels dropped before the head. The paper names none; 0.1 there is what the authors' code
            has.
    """
    from segreg.models.pyramid import pyramid_of
    from segreg_plugins.decoders.mlp_network import AllMLP

    levels = pyramid_of(encoder)
    chosen = [i for i, stride in enumerate(levels.strides) if stride >= STRIDE] or [len(levels.strides) - 1]
    pyramid = levels.pick(*((i, max(levels.strides[i], STRIDE)) for i in chosen))
    return AllMLP(pyramid, stride=STRIDE, channels=channels, dropout=dropout)
