"""The all-MLP decoder computes what SMP's SegformerDecoder computes, on any number of levels."""

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from torch import nn

from segreg.models.segmenter import Segmenter, describe
from segreg.models.verify import verify
from segreg_plugins.decoders.mlp import mlp


class Levels(nn.Module):
    """An encoder that pools: one convolution for each stride."""

    def __init__(self, *strides):
        super().__init__()
        self.strides = strides
        self.channels = tuple(6 + 2 * i for i in range(len(strides)))
        self.convolutions = nn.ModuleList(nn.Conv2d(3, c, 1) for c in self.channels)

    def forward(self, image):
        pooled = [F.avg_pool2d(image, stride, ceil_mode=True) for stride in self.strides]
        return [convolution(p) for convolution, p in zip(self.convolutions, pooled, strict=True)]


def smp_of(decoder, channels, width):
    """SMP's decoder with the same weights: coarsest level first, and linear layers where convolutions stand here."""
    theirs = SegformerDecoder([3, 0, *channels], encoder_depth=len(channels) + 1, segmentation_channels=width)
    stages = list(decoder.linear)[::-1]
    for stage, linear in zip(theirs.mlp_stage, stages, strict=True):
        stage.linear.load_state_dict({"weight": linear.weight.flatten(1), "bias": linear.bias})
    state = decoder.fuse.state_dict()
    # The levels are stacked the other way round.
    state["0.weight"] = torch.cat(state["0.weight"].split(width, dim=1)[::-1], dim=1)
    theirs.fuse_stage.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (4, 8, 16)])
def test_it_computes_what_smps_does(strides, mode):
    torch.manual_seed(0)
    encoder = Levels(*strides).double()
    decoder = mlp(encoder, channels=10, dropout=0.0).double()
    theirs = smp_of(decoder, encoder.channels, 10).double()
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    levels = encoder(image)
    given = [image, image.new_empty(2, 0, 32, 48), *levels]
    ours = decoder.train(mode)(levels)
    wanted = theirs.train(mode)(given)
    assert ours.shape == (2, 10, 16, 24)
    # Not bit for bit: a linear layer and a 1x1 convolution add up in another order.
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    mine = torch.autograd.grad(ours.square().sum(), encoder.parameters(), retain_graph=True)
    smps = torch.autograd.grad(wanted.square().sum(), encoder.parameters())
    for a, b in zip(mine, smps, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("strides", "used"),
    [
        ((4, 8, 16, 32), 4),
        ((2, 4, 8, 16, 32), 4),
        ((1, 2, 4, 8, 16, 32), 4),
        ((16, 16, 16, 16), 4),
        ((8,) * 12, 12),
        ((14, 14), 2),
        ((32,), 1),
        ((1, 2), 1),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_it_takes_the_levels_from_stride_4_on(strides, used, size):
    encoder = Levels(*strides)
    decoder = mlp(encoder, channels=8)
    assert (len(decoder.linear), decoder.stride) == (used, 4)
    model = Segmenter(encoder, decoder, 2)
    verify(model, size, 3)
    model.train()(torch.rand(1, 3, *size)).sum().backward()
    touched = [conv.weight.grad is not None for conv in encoder.convolutions]
    assert touched == [False] * (len(strides) - used) + [True] * used


def test_only_a_level_finer_than_all_is_resampled_by_the_pyramid():
    for strides, notes in [
        ((2, 4, 8, 16, 32), []),
        ((16, 16, 16, 16), []),
        ((1, 2), ["the encoder's level 2 of 2 is resampled from stride 2 to 4"]),
    ]:
        encoder = Levels(*strides)
        assert describe(Segmenter(encoder, mlp(encoder, channels=8), 1))["decoder"]["notes"] == notes


def test_dropout_drops_whole_channels():
    torch.manual_seed(0)
    encoder = Levels(4, 8)
    decoder = mlp(encoder, channels=64, dropout=0.5).eval()
    levels = encoder(torch.rand(1, 3, 32, 32))
    whole = decoder(levels)
    decoder.dropout.train()
    kept = decoder(levels) != 0
    dropped = ~kept.any(dim=(2, 3))[0]
    assert 16 < dropped.sum() < 48
    assert torch.equal(kept[0, ~dropped], whole[0, ~dropped] != 0)
