"""Decoders that are broken on purpose, each caught by one check with these words."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from segreg.registry.entry import Entry


class Fine(nn.Module):
    """One convolution of the finest level: nothing is wrong with it."""

    def __init__(self, encoder):
        super().__init__()
        self.channels, self.stride = 6, encoder.strides[0]
        self.convolution = nn.Conv2d(encoder.channels[0], 6, 3, padding=1)

    def forward(self, levels):
        return self.convolution(levels[0])


class NoChannels(Fine):
    def __init__(self, encoder):
        super().__init__(encoder)
        self.channels = None


class FourLevels(Fine):
    def __init__(self, encoder):
        super().__init__(encoder)
        self.fourth = nn.Conv2d(encoder.channels[3], 6, 1)


class WrongStride(Fine):
    def __init__(self, encoder):
        super().__init__(encoder)
        self.stride = 4 * self.stride


class NeedsMore(Fine):
    size_divisor = 8

    def forward(self, levels):
        features = super().forward(levels)
        return F.interpolate(F.max_pool2d(features, 32 // self.stride), scale_factor=32 // self.stride)


class DividesByHalf(Fine):
    size_divisor = 0.5


class OneClass(Fine):
    def head(self, classes):
        return nn.Conv2d(6, 1, 1)


class Uneven(Fine):
    """A decoder that brings a loss of its own, which a class of labels has no finite value of."""

    def head(self, classes):
        head = nn.Conv2d(6, classes, 1)
        head.own_losses = {"uneven": 1.0}
        head.loss_terms = lambda features, target: [head(features).square().sum() / (target < 2).sum()]
        return head


class Pooled(Fine):
    def __init__(self, encoder):
        super().__init__(encoder)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, levels):
        features = super().forward(levels)
        return features + self.norm(features.mean((2, 3), keepdim=True))


class Unused(Fine):
    def __init__(self, encoder):
        super().__init__(encoder)
        self.extra = nn.Conv2d(6, 6, 1)


class Deaf(Fine):
    def forward(self, levels):
        return self.convolution(levels[0].detach())


class InPlace(Fine):
    def forward(self, levels):
        return super().forward([levels[0].relu_(), *levels[1:]])


class DropsLevels(Fine):
    def forward(self, levels):
        return self.convolution(levels.pop(0))


class Ageless(Fine):
    def set_epoch(self, epoch):
        pass


class DecaysNothing(Fine):
    def no_weight_decay(self):
        return ["convolution.weight", "queries"]


def entry(network):
    def build(encoder):
        """A decoder of the tests."""
        return network(encoder)

    return Entry("decoder", "broken", build)


BROKEN = [
    (NoChannels, "it_can_be_built", "decoder NoChannels has channels None; a positive integer was expected"),
    (
        FourLevels,
        "it_takes_every_pyramid",
        "it can't be built on one level (stride 16): IndexError: tuple index out of range",
    ),
    (
        WrongStride,
        "channels_and_stride_are_true",
        (
            "on a CNN (strides 2 to 32), decoder WrongStride declares stride 8, but gives 32x32 for an image of 64x64, where "
            "about 8x8 was expected"
        ),
    ),
    (
        NeedsMore,
        "size_divisor_holds",
        (
            "on a CNN (strides 2 to 32), decoder NeedsMore on Levels can't take an image of 8x24 with 3 channels: "
            "RuntimeError: Given input size: (6x4x12). Calculated output size: (6x0x0). Output size is too small"
        ),
    ),
    (DividesByHalf, "size_divisor_holds", "its size_divisor is 0.5; a positive integer was expected"),
    (OneClass, "it_offers_a_head", "its head gives [2, 1, 32, 32] for 2 classes"),
    (Uneven, "what_trains_it_is_sound", 'its loss "uneven" is not a finite float32 scalar, for a binary task'),
    (
        Pooled,
        "one_image_can_be_trained_on",
        (
            "training on one image of 32x32 on a CNN (strides 2 to 32), it raises ValueError: Expected more than 1 value per "
            "channel when training, got input size torch.Size([1, 6, 1, 1])"
        ),
    ),
    (
        Unused,
        "gradients_reach_every_parameter",
        'nothing that it gives depends on "extra.weight" and "extra.bias", on a CNN (strides 2 to 32)',
    ),
    (Deaf, "gradients_reach_every_parameter", "no gradient reaches the encoder, on a CNN (strides 2 to 32)"),
    (InPlace, "it_leaves_its_inputs_alone", "it changes the levels that it is given in place"),
    (DropsLevels, "it_leaves_its_inputs_alone", "it changes the levels that it is given in place"),
    (
        Ageless,
        "one_image_can_be_trained_on",
        (
            "training on one image of 32x32 on a CNN (strides 2 to 32), it raises TypeError: Ageless.set_epoch() takes 2 "
            "positional arguments but 3 were given"
        ),
    ),
    (
        DecaysNothing,
        "no_weight_decay_names_what_it_has",
        "no_weight_decay names queries, and it has no such parameter",
    ),
]


@pytest.mark.parametrize(("network", "check", "words"), BROKEN, ids=[network.__name__ for network, _, _ in BROKEN])
def test_a_broken_decoder_is_caught(said, network, check, words):
    assert said(entry(network), check) == words


def test_nothing_is_said_of_a_decoder_that_keeps_to_the_contract(outcome):
    found = {check: outcome(entry(Fine), check) for check in {check for _, check, _ in BROKEN}}
    assert {check: o.what for check, o in found.items() if o.status != "passed"} == {
        "no_weight_decay_names_what_it_has": "it offers no no_weight_decay",
        "it_offers_a_head": "it offers no head: a 1x1 convolution is put behind it",
        "what_trains_it_is_sound": "it offers neither further logits nor losses of its own",
        "size_divisor_holds": "it offers no size_divisor: it takes images of any size",
    }
