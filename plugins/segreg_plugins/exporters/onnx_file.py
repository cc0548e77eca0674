"""ONNX: written by PyTorch's exporter, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from segreg.errors import SegregError
from segreg.registry.protocols import Calibration, Exporter
from segreg_plugins.exporters.failures import named

NOTES = "segreg"
"""Key of the notes in a file's metadata."""


class OnnxExporter(Exporter):
    """Files of ONNX.

    Args:
        opset: version of its operators.
    """

    suffix = ".onnx"
    precisions = ("float32", "float16")

    def __init__(self, opset: int) -> None:
        self.opset = opset

    def write(
        self,
        program: ExportedProgram,
        file: Path,
        *,
        precision: str,  # noqa: ARG002 - the program is in it
        notes: str,
        calibration: Calibration | None = None,  # noqa: ARG002 - no int8 here
    ) -> None:
        import onnx

        with _quiet(), named("ONNX"):
            made = torch.onnx.export(
                program, dynamo=True, opset_version=self.opset, optimize=True, verbose=False,
                input_names=["images"], output_names=["output"],
            )  # fmt: skip
            assert made is not None
            model = made.model_proto
        entry = model.metadata_props.add()
        entry.key, entry.value = NOTES, notes
        if model.ByteSize() > (1 << 31) - (1 << 20):  # protobuf's own limit
            onnx.save_model(model, file, save_as_external_data=True, location=file.name + ".data")
        else:
            onnx.save_model(model, file)
        with named("ONNX's checker"):
            onnx.checker.check_model(str(file), full_check=True)

    def load(self, file: Path, *, precision: str) -> Callable[[NDArray[Any]], NDArray[Any]]:  # noqa: ARG002
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class
            raise SegregError(f"{file}: ONNX Runtime can't read it: {error}") from error

        def run(images: NDArray[Any]) -> NDArray[Any]:
            found: NDArray[Any] = np.asarray(session.run(None, {"images": images})[0])
            return found

        return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of itself, and its optimizer of single operators, from the user."""
    optimizer = logging.getLogger("onnxscript")
    level = optimizer.level
    optimizer.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        optimizer.setLevel(level)
