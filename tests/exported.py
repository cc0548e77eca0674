"""Runs of a very small network on images of any kind, to be exported: most of an export's time goes by its layers.

And the programs of bundles, which are run without segreg.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from functools import cache
from unittest import mock

import numpy as np
import tifffile
from PIL import Image
from torch import nn

import segreg
import small_runs
import tiny_runs
from segreg.registry.local import registering

RECIPE = small_runs.RECIPE.replace("three_convolutions", "one_convolution")
SYNTHETIC = "{name: synthetic_lesions, root: images, samples: 24, size: 48}"
_ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("torch", "segreg", "cv2", "scipy", "tifffile"), None))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class OneConvolution(nn.Module):
    """An encoder of a single level, with a layer that LoRA can change."""

    channels, strides = (16,), (4,)

    def __init__(self, in_channels):
        super().__init__()
        self.layer, self.mixed = nn.Conv2d(in_channels, 16, 7, 4, 3), nn.Conv2d(16, 16, 1)

    def forward(self, image):
        return [self.mixed(self.layer(image).relu())]


def one_convolution(in_channels):
    """One convolution."""
    return OneConvolution(in_channels)


def encoder():
    """Offer the encoder within the context: only this process has it."""
    return registering(segreg.Entry("encoder", "one_convolution", one_convolution))


def alone(bundle, *arguments):
    """Run a bundle's program where there is neither segreg nor PyTorch, and return the finished process."""
    command = [sys.executable, "-c", _ALONE, bundle / "predict.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


@contextlib.contextmanager
def remembered_operators():
    """Let PyTorch read the operators of ONNX, and look for its own, once: each export spends half its time on that."""
    from torch._export import utils
    from torch.onnx._internal._lazy_import import onnxscript_apis
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    operators = cache(onnxscript_apis.get_torchlib_ops)
    of_opset = staticmethod(cache(ONNXRegistry.from_torchlib))
    with (
        mock.patch.object(onnxscript_apis, "get_torchlib_ops", operators),
        mock.patch.object(ONNXRegistry, "from_torchlib", of_opset),
        mock.patch.object(utils, "_materialize_cpp_cia_ops", cache(utils._materialize_cpp_cia_ops)),
    ):
        yield


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
    brief = ("train.epochs=1", "evaluate.overlays=0", f"input.channels={channels}")
    return tiny_runs.run(tmp_path, *brief, *overrides, text=text)
