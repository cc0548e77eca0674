"""OpenVINO: converted from the traced program, and run on the CPU; int8 by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from segreg.errors import SegregError
from segreg.registry.protocols import Calibration, Exporter
from segreg_plugins.exporters.builders import need
from segreg_plugins.exporters.failures import named

NOTES = "segreg"
"""Key of the notes in a file's runtime information."""
_COMPUTES = {"float32": "f32", "float16": "f32", "bf16": "bf16", "int8": "f32"}
"""What OpenVINO computes in what is not int8. By itself it takes bf16 where a CPU has it, whatever the weights are."""


class OpenvinoExporter(Exporter):
    """Files of OpenVINO: `.xml` with the graph, and `.bin` beside it with the weights."""

    suffix = ".xml"
    precisions = ("float32", "bf16", "float16", "int8")

    def write(
        self,
        program: ExportedProgram,
        file: Path,
        *,
        precision: str,
        notes: str,
        calibration: Calibration | None = None,
    ) -> None:
        ov = _openvino()
        with named("OpenVINO"):
            from openvino.frontend.pytorch.utils import pt_to_ov_type_map

            pt_to_ov_type_map.setdefault("torch.uint16", ov.Type.u16)  # which it has, but not by PyTorch's name
            model = ov.convert_model(program)
            model.inputs[0].get_tensor().set_names({"images"})
            model.outputs[0].get_tensor().set_names({"output"})
        if precision == "int8":
            assert calibration is not None
            model = _quantized(model, calibration)
        model.set_rt_info(notes, [NOTES])
        ov.save_model(model, file, compress_to_fp16=precision == "float16")

    def load(self, file: Path, *, precision: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
        try:
            return _runner(_core().read_model(file), precision)
        except RuntimeError as error:
            raise SegregError(f"{file}: OpenVINO can't read it: {error}") from error


def _openvino() -> Any:
    """Return OpenVINO's package, which is kept from reporting to its makers what it is used for.

    It and NNCF do without their package of telemetry where that can't be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@cache
def _core() -> Any:
    """Return the one runtime of this process. It reads weights whole, so that a file may be replaced meanwhile."""
    core = _openvino().Core()
    core.set_property({"ENABLE_MMAP": False})
    return core


def _runner(model: Any, precision: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a model compiled for the CPU, for latency."""
    config = {
        "INFERENCE_PRECISION_HINT": _COMPUTES[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = _core().compile_model(model, "CPU", config)
    return lambda images: np.array(compiled(images)[0])


def _quantized(model: Any, calibration: Calibration) -> Any:
    """Return a model in 8-bit integers, where layers that cost more than is allowed are left in float32.

    Raises:
        SegregError: NNCF is not installed.
    """
    need("openvino", "nncf")
    with named("NNCF", "torch.utils.cpp_extension"):  # it looks for CUDA's compiler when it is imported
        import nncf
        from nncf.common.logging.logger import set_log_level

    def score(compiled: Any, _: Any) -> tuple[float, list[float]]:
        found = list(calibration.score(lambda images: np.array(compiled(images)[0])))
        return float(np.mean(found)), found

    set_log_level(logging.ERROR)
    images = nncf.Dataset(list(calibration.images))
    # Its own bars would stand between the command's lines.
    with named("NNCF"), contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=images,
            validation_dataset=images,
            validation_fn=score,
            max_drop=calibration.most_lost,
            drop_type=nncf.DropType.ABSOLUTE,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration.images),
        )
