"""Runs of a very small network on images of any kind, to be exported: most of an export's time goes by its layers."""

from __future__ import annotations

import itertools

import numpy as np
import tifffile
from PIL import Image
from torch import nn

import segreg
import tiny_runs
from segreg.registry.local import registering

RECIPE = tiny_runs.RECIPE.replace("timm/test_resnet", "three_convolutions").replace(
    "{name: deeplabv3plus, channels: 16}", "{name: mlp, channels: 8}"
)
SYNTHETIC = "{name: synthetic_lesions, root: images, samples: 24, size: 48}"


class ThreeConvolutions(nn.Module):
    """The smallest encoder: most of an export's time goes by the number of layers."""

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
    """Offer the encoder within the context."""
    return registering(segreg.Entry("encoder", "three_convolutions", three_convolutions))


def folder_run(tmp_path, *overrides, classes=1, channels=3, dtype=np.uint8):
    """Return a run of one epoch on images of 40x40 with some classes, channels and depth."""
    images, masks = tiny_runs.folder_dataset(tmp_path / "data", count=12, classes=classes)
    for file in images.iterdir():
        values = np.asarray(Image.open(file))[..., [0, 1, 2, 0]][..., :channels].astype(dtype)
        tifffile.imwrite(file.with_suffix(".tif"), values * dtype(257) if dtype == np.uint16 else values)
        file.unlink()
    names = ", classes: [ground, disc, other]" if classes > 1 else ""
    text = RECIPE.replace(SYNTHETIC, f"{{name: folder, images: {images}, masks: {masks}{names}}}")
    text = text.replace("augment: [{name: HorizontalFlip, p: 0.5}]", "augment: []")
    return tiny_runs.run(tmp_path, "train.epochs=1", f"input.channels={channels}", *overrides, text=text)
