"""What the checks of exporters say of broken ones, which write programs of `torch.export` and spoil something."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from segreg.registry.entry import Entry
from segreg_plugins.exporters.torch_file import TorchExporter


class Odd(TorchExporter):
    precisions = ("float8",)


class Shifted(TorchExporter):
    def load(self, file, *, precision):
        run = super().load(file, precision=precision)
        return lambda images: run(images) + np.float32(1)


class Undefined(TorchExporter):
    def load(self, file, *, precision):
        run = super().load(file, precision=precision)
        return lambda images: run(images) * np.float32("nan")


class WithoutNotes(TorchExporter):
    def write(self, program, file, *, precision, notes, calibration=None):
        super().write(program, file, precision=precision, notes="{}")


class FloatLabels(TorchExporter):
    def load(self, file, *, precision):
        run = super().load(file, precision=precision)
        return lambda images: run(images).astype(np.float32)


class BytesOnly(TorchExporter):
    def load(self, file, *, precision):
        run = super().load(file, precision=precision)
        return lambda images: run(images.astype(np.uint8))


class FailsInHalf(TorchExporter):
    precisions = ("float32", "float16")

    def write(self, program, file, *, precision, notes, calibration=None):
        assert precision == "float32"
        super().write(program, file, precision=precision, notes=notes)


class Unpickles(TorchExporter):
    def load(self, file, *, precision):
        with contextlib.suppress(Exception):
            torch.load(file, weights_only=False)
        return super().load(file, precision=precision)


class Careless(TorchExporter):
    def load(self, file, *, precision):
        return file.read_bytes().decode("ascii").index


EXPORTERS = [
    (Odd, "it_can_be_built", "its precisions are ('float8',)"),
    (Shifted, "files_predict_what_the_network_does", "its values differ from the network's by 1"),
    (Undefined, "files_predict_what_the_network_does", "its values differ from the network's by nan"),
    (WithoutNotes, "files_predict_what_the_network_does", "it drops the notes: what it writes has "),
    (FloatLabels, "labels_are_labels", "it gives float32 [1, 16, 16]; uint8 [1, 16, 16] was expected"),
    (BytesOnly, "every_depth_is_taken", "predicting 1 images of torch.uint16, it raises"),
    (
        FailsInHalf,
        "every_precision_can_be_written",
        "writing a network of torch.uint8 images, it raises AssertionError",
    ),
    (Unpickles, "nothing_is_unpickled", "loading a file runs the code in it: it unpickles"),
    (Careless, "what_is_not_a_network_is_refused", "a damaged file is loaded"),
]


def exporter_entry(exporter):
    def build():
        """An exporter of the tests."""
        return exporter()

    return Entry("exporter", "broken", build)


@pytest.mark.parametrize(("exporter", "check", "words"), EXPORTERS, ids=[one.__name__ for one, _, _ in EXPORTERS])
def test_a_broken_exporter_is_caught(said, exporter, check, words):
    assert words in said(exporter_entry(exporter), check)
