"""Runs as those of `tiny_runs`, of a network of three convolutions: half a second each, where any network will do."""

from __future__ import annotations

import itertools

from torch import nn

import segreg
import tiny_runs
from segreg.registry.local import registering

RECIPE = tiny_runs.RECIPE.replace("timm/test_resnet", "three_convolutions").replace(
    "{name: deeplabv3plus, channels: 16}", "{name: mlp, channels: 8}"
)


class ThreeConvolutions(nn.Module):
    """The smallest encoder."""

    channels, strides = (8, 16, 16), (2, 4, 8)

    def __init__(self, in_channels):
        super().__init__()
        widths = (in_channels, *self.channels)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))

    def forward(self, image):
        levels = []
        for layer in self.layers:
            image = layer(image).relu()
            levels.append(image)
        return levels


def three_convolutions(in_channels):
    """Three convolutions."""
    return ThreeConvolutions(in_channels)


def encoder():
    """Offer the encoder within the context: only this process has it."""
    return registering(segreg.Entry("encoder", "three_convolutions", three_convolutions))


def write_recipe(folder, text=RECIPE, *, name="tiny"):
    """Write the recipe, its images beside it, and return the file."""
    return tiny_runs.write_recipe(folder, text, name=name)


def run(folder, *overrides, text=RECIPE, drawn=False):
    """Run the recipe in a folder as `tiny_runs.run` does."""
    return tiny_runs.run(folder, *overrides, text=text, drawn=drawn)
