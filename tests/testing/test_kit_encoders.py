"""Encoders that are broken on purpose, each caught by one check with these words."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from segreg.registry.entry import Entry


class Fine(nn.Module):
    """Two strided convolutions: nothing is wrong with it."""

    def __init__(self, in_channels):
        super().__init__()
        self.channels, self.strides = [4, 6], [2, 4]
        self.first = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, image):
        fine = self.first(image).relu()
        return [fine, self.second(fine)]

    def layer_groups(self):
        return [["first"], ["second"]]


class NoStrides(Fine):
    def __init__(self, in_channels):
        super().__init__(in_channels)
        del self.strides


class InPlace(Fine):
    def forward(self, image):
        return super().forward(image.clamp_(-1, 1))


class WrongStride(Fine):
    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.strides = [2, 8]


class Stride14(Fine):
    """Patches of 14 pixels: of 64 they are as many as of 16."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.channels, self.strides = [4], [16]
        self.first = nn.Conv2d(in_channels, 4, 14, stride=14)

    def forward(self, image):
        return [self.first(image)]


class OfOneSize(Fine):
    """What has a position for each of its pixels."""

    image_size = (64, 32)

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.position = nn.Parameter(torch.zeros(*self.image_size))

    def forward(self, image):
        return super().forward(image + self.position)


class ForEvenSizesAlone(Fine):
    def forward(self, image):
        return super().forward(image.unflatten(-1, (-1, 2)).flatten(-2))


class ColourAlone(Fine):
    def __init__(self, in_channels):
        super().__init__(3)


class Unused(Fine):
    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.classifier = nn.Linear(6, 10)


class CutOff(Fine):
    def forward(self, image):
        fine, coarse = super().forward(image)
        return [fine, coarse.detach()]


class Dilated(Fine):
    """Dilate as it should."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.channels, self.strides = [4, 6, 6], [2, 4, 32]
        self.third = nn.Conv2d(6, 6, 8, stride=8)

    def forward(self, image):
        fine, middle = super().forward(image)
        kept = self.strides[2] == 32
        padded = middle if kept else nn.functional.pad(middle, (3, 4, 3, 4))
        return [fine, middle, nn.functional.conv2d(padded, self.third.weight, self.third.bias, self.third.stride)]

    def dilate(self, output_stride):
        self.third.stride = (output_stride // 4,) * 2
        self.strides = [2, 4, output_stride]
        return True


class DilatesInWordsAlone(Dilated):
    def dilate(self, output_stride):
        return True


class NewWeights(Dilated):
    def dilate(self, output_stride):
        self.third = nn.Conv2d(6, 6, 8)
        return super().dilate(output_stride)


class OtherWeights(Dilated):
    def dilate(self, output_stride):
        nn.init.zeros_(self.third.weight)
        return super().dilate(output_stride)


class OfBytes(Fine):
    normalization = ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))


class WrongLayers(Fine):
    def layer_groups(self):
        return [["first"], ["second", "third"]]


class NoSuchToken(Fine):
    def no_weight_decay(self):
        return ["*.bias", "token"]


class DropsAlways(Fine):
    def forward(self, image):
        return [nn.functional.dropout(level, training=True) for level in super().forward(image)]


class OfNumPy(Fine):
    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.second.weight.data = torch.from_numpy(np.random.normal(size=(6, 4, 3, 3)).astype(np.float32))


class OfTheBatch(Fine):
    def forward(self, image):
        return super().forward(image - image.mean(0))


class ThroughNumPy(Fine):
    def forward(self, image):
        fine, coarse = super().forward(image)
        return [fine, coarse / float(np.abs(coarse.detach().numpy()).max())]


class Forgetful(Fine):
    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.register_buffer("scale", torch.rand(1), persistent=False)

    def forward(self, image):
        return [level * self.scale for level in super().forward(image)]


class WithLambda(Fine):
    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.activation = lambda level: level


class OtherwiseCompiled(Fine):
    def forward(self, image):
        return super().forward(image + 1 if torch.compiler.is_dynamo_compiling() else image)


class ByItsValues(Fine):
    def forward(self, image):
        return super().forward(image if image.sum() > 0 else -image)


def entry(network):
    def build(in_channels):
        """An encoder of the tests."""
        return network(in_channels)

    return Entry("encoder", "broken", build)


def test_what_is_no_network_is_reported_once(said, outcome):
    nothing = entry(lambda in_channels: None)
    assert said(nothing, "it_can_be_built") == "encoder NoneType is not a nn.Module"
    for check in (
        "channels_and_strides_are_true", "any_number_of_channels_will_do", "it_dilates",
        "gradients_reach_every_parameter", "evaluation_repeats", "the_seed_decides", "it_can_be_copied_and_sent",
    ):  # fmt: skip
        found = outcome(nothing, check)
        assert (found.status, found.what) == ("not checked", "it is not a nn.Module, see it_can_be_built"), check


BROKEN = [
    (NoStrides, "it_can_be_built", "encoder NoStrides has no sequence 'strides'"),
    (
        WrongStride,
        "channels_and_strides_are_true",
        (
            "encoder WrongStride, level 2 of 2, declares stride 8, but gives 16x16 for an image of 64x64, where about 8x8 "
            "was expected"
        ),
    ),
    (
        Stride14,
        "channels_and_strides_are_true",
        (
            "encoder Stride14, level 1 of 1, declares stride 16, but gives 16x2 for an image of 224x32, where about 14x2 "
            "was expected"
        ),
    ),
    (
        ForEvenSizesAlone,
        "channels_and_strides_are_true",
        (
            "encoder ForEvenSizesAlone can't take an image of 65x97 with 3 channels: RuntimeError: unflatten: Provided "
            "sizes [-1, 2] don't multiply up to the size of dim 3 (97) in the input tensor"
        ),
    ),
    (
        ColourAlone,
        "any_number_of_channels_will_do",
        (
            "encoder ColourAlone can't take an image of 64x64 with 1 channel: RuntimeError: Given groups=1, weight of size "
            "[4, 3, 3, 3], expected input[1, 1, 64, 64] to have 3 channels, but got 1 channels instead"
        ),
    ),
    (
        Unused,
        "gradients_reach_every_parameter",
        'nothing that it gives depends on "classifier.weight" and "classifier.bias"',
    ),
    (CutOff, "gradients_reach_every_parameter", "output 2 of 2 is cut off from the weights"),
    (DilatesInWordsAlone, "it_dilates", "dilate(16) says True, but the strides are [2, 4, 32]"),
    (NewWeights, "it_dilates", "dilate(16) replaces parameters; it must keep the very same ones"),
    (OtherWeights, "it_dilates", "dilate(16) changes weights or statistics"),
    (
        OfBytes,
        "normalization_is_of_values_up_to_one",
        "its normalization ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)) is not of values in [0, 1]",
    ),
    (
        WrongLayers,
        "layers_name_what_it_has",
        "its layer groups are [['first'], ['second', 'third']], and it has no parameter in third",
    ),
    (NoSuchToken, "layers_name_what_it_has", "no_weight_decay names token, and it has no such parameter"),
    (InPlace, "it_leaves_its_inputs_alone", "it changes the image that it is given in place"),
    (DropsAlways, "evaluation_repeats", "in evaluation mode the same input gives something else the second time"),
    (OfNumPy, "the_seed_decides", 'one seed of torch\'s builds other weights the second time: "second.weight"'),
    (
        ThroughNumPy,
        "half_precision_is_finite",
        "under bf16 autocast, it raises TypeError: Got unsupported ScalarType BFloat16",
    ),
    (
        WithLambda,
        "it_can_be_copied_and_sent",
        "when it is pickled, it raises AttributeError: Can't pickle local object 'WithLambda.__init__.<locals>.<lambda>'",
    ),
]


@pytest.mark.parametrize(("network", "check", "words"), BROKEN, ids=[network.__name__ for network, _, _ in BROKEN])
def test_a_broken_encoder_is_caught(said, network, check, words):
    assert said(entry(network), check) == words


@pytest.mark.parametrize(
    ("network", "check", "words"),
    [
        (
            OfTheBatch,
            "images_of_a_batch_do_not_mix",
            "in evaluation mode an image gives something else beside others: ",
        ),
        (Forgetful, "weights_travel_by_state_dict", "a new one with its state_dict gives something else: "),
        (OtherwiseCompiled, "it_compiles", "compiled it gives something else: "),
        (ByItsValues, "it_exports", "under torch.export, it raises "),
    ],
)
def test_a_broken_encoder_is_caught_with_numbers_or_words_of_torch(said, network, check, words):
    assert said(entry(network), check).startswith(words)


def test_nothing_is_said_of_encoders_that_keep_to_the_contract(outcome):
    for network in (Fine, Dilated):
        for check in {check for _, check, _ in BROKEN}:
            found = outcome(entry(network), check)
            assert found.status == "passed" or found.what in ("it offers no dilate", "it offers no normalization")
    assert outcome(entry(Dilated), "it_dilates").status == "passed"


def test_an_encoder_of_one_size_gets_images_within_it(outcome):
    for check in ("channels_and_strides_are_true", "any_number_of_channels_will_do", "it_works_with_decoders"):
        assert outcome(entry(OfOneSize), check).status == "passed"


def test_a_failure_says_what_why_and_where(outcome):
    found = outcome(entry(Unused), "gradients_reach_every_parameter")
    line = inspect.getsourcelines(Unused)[1]
    assert str(found) == (
        "encoder broken, gradients_reach_every_parameter: nothing that it gives depends on "
        '"classifier.weight" and "classifier.bias"\n'
        "  why it matters: a weight without a gradient is saved and counted, but never trained, and distributed training "
        "stops at it\n"
        f"  look at: {__file__}:{line}"
    )


def test_what_is_raised_is_looked_at_where_it_is_raised(outcome):
    found = outcome(entry(ForEvenSizesAlone), "channels_and_strides_are_true")
    line = inspect.getsourcelines(ForEvenSizesAlone.forward)[1] + 1
    assert found.place == f"{__file__}:{line}"


DECODERS = '''
from segreg import Entry, hookimpl

def plain(encoder):
    """The finest level."""
    from segreg.testing.inputs import Finest
    return Finest(encoder)

def broken(encoder):
    """None."""
    raise ValueError("it works with no encoder")

@hookimpl
def segreg_entries():
    return [Entry("decoder", "plain", plain), Entry("decoder", "another", broken)]
'''


def test_an_encoder_is_tried_with_the_decoders_that_are_installed(said, outcome, plugin, installed):
    class NoGradient(Fine):
        def forward(self, image):
            with torch.no_grad():
                return super().forward(image)

    installed()
    found = outcome(entry(Fine), "it_works_with_decoders")
    assert (found.status, found.what) == (
        "not checked",
        "no decoder is installed that can be built without settings",
    )
    # A decoder that fails by itself says nothing of the encoder.
    installed(plugin(DECODERS))
    assert outcome(entry(Fine), "it_works_with_decoders").status == "passed"
    assert said(entry(NoGradient), "it_works_with_decoders") == "with the decoder plain no gradient reaches it"


def test_a_refused_number_of_channels_is_not_checked(outcome):
    from segreg.errors import SegregError

    def build(in_channels):
        """An encoder of the tests."""
        if in_channels != 3:
            raise SegregError("its weights are for 3 channels")
        return Fine(in_channels)

    found = outcome(Entry("encoder", "rgb", build), "any_number_of_channels_will_do")
    assert (found.status, found.what) == (
        "not checked",
        "in_channels 1 is refused: its weights are for 3 channels",
    )
