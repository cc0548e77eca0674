"""Cells of the matrix, on small images: encoders of every kind of strides, each decoder on one of them."""

from __future__ import annotations

import warnings

import pytest
import torch

from quick_init import quick_init
from segreg.benchmark.matrix.trial import Checks, results_of
from segreg.config.resolve import choose

ENCODERS = (
    "vgg11",  # strides 1 to 32
    "timm/lcnet_035",  # strides 2 to 32, few channels
    "timm/convnext_zepto_rms",  # strides 4 to 32
    "timm/efficientvit_m0",  # strides 16 to 64
    "timm/eva02_tiny_patch14_224",  # one scale: 14, which is not a power of two
)
CHECKS = Checks(sizes=(), own_size=False, channels=(4,))  # four channels at an odd size


def decoders_of(number, registry):
    """Return the decoders for the encoder of that number, of few channels where one number says how many."""
    parts = registry.parts("decoder")[number :: len(ENCODERS)]
    narrow = {part.name: isinstance(getattr(part.settings.get("channels"), "default", None), int) for part in parts}
    return {name: {"channels": 32} if is_one else {} for name, is_one in narrow.items()}


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
    decoders = [choose("decoder", name, given, builtin) for name, given in decoders_of(number, builtin).items()]
    with warnings.catch_warnings(), quick_init():
        warnings.simplefilter("ignore")  # what timm says of itself belongs to no cell
        row, *cells = results_of(encoder, decoders, "sample", CHECKS)
    assert row.strides
    assert {cell.decoder: f"{cell.check}: {cell.reason}" for cell in cells if not cell.ok} == {}
    assert len(cells) == len(decoders) > 0
