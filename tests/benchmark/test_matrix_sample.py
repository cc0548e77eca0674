"""Cells of the matrix, on small images: encoders of every kind, each decoder on one of them."""

from __future__ import annotations

import warnings

import pytest
import torch

from quick_init import quick_init
from segreg.benchmark.matrix.trial import Checks, results_of
from segreg.config.resolve import choose

ENCODERS = (
    "mobilenet_v2",  # a CNN of strides 2 to 32
    "vgg11",  # strides 1 to 32
    "mit_b0",  # a transformer of strides 4 to 32
    "timm/convnext_zepto_rms",  # a CNN that has no stride 2
    "timm/eva02_tiny_patch14_224",  # one scale: 14, which is not a power of two
    "timm/vit_tiny_r_s16_p8_224",  # one scale: 32
    "timm/efficientvit_m0",  # strides 16 to 64
    "timm/lcnet_035",  # a CNN of few channels
    "torchvision/mobilenet_v3_small",
)
EACH = 2
CHECKS = Checks(sizes=(), own_size=False, channels=(4,))  # four channels at an odd size


def decoders_of(number, registry):
    """Return two decoders for the encoder of that number, going round all of them."""
    names = [part.name for part in registry.parts("decoder")]
    return [names[(EACH * number + k) % len(names)] for k in range(EACH)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(ENCODERS)), ids=ENCODERS)
def test_a_sample_of_the_matrix(number, builtin):
    encoder = choose("encoder", ENCODERS[number], {}, builtin)
    decoders = [choose("decoder", name, {}, builtin) for name in decoders_of(number, builtin)]
    with warnings.catch_warnings(), quick_init():
        warnings.simplefilter("ignore")  # what timm says of itself belongs to no cell
        row, *cells = results_of(encoder, decoders, "sample", CHECKS)
    assert row.strides
    assert {cell.decoder: f"{cell.check}: {cell.reason}" for cell in cells if not cell.ok} == {}
    assert len(cells) == EACH


def test_every_decoder_is_in_the_sample(builtin):
    chosen = {name for number in range(len(ENCODERS)) for name in decoders_of(number, builtin)}
    assert chosen == {part.name for part in builtin.parts("decoder")}
