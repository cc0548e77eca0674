"""ONNX: written by PyTorch's exporter, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
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

        with named("ONNX", "onnxscript"):  # whose optimizer reports single operators
            program = _with_attention_written_out(program)
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


def _with_attention_written_out(program: ExportedProgram) -> ExportedProgram:
    """Return a program whose attention is in single steps, where some of it has a bias or more than `[B, heads, N, D]`.

    ONNX has no other attention than that, and PyTorch's exporter stumbles over positions that are added (BEiT, MaxViT).
    """
    fused = torch.ops.aten.scaled_dot_product_attention.default
    for node in program.graph.nodes:
        if node.target is not fused:
            continue
        bias = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if bias is not None or node.args[0].meta["val"].ndim != 4:
            return program.run_decompositions({fused: _attention})
    return program


def _attention(  # noqa: PLR0917 - as PyTorch has it
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what `torch.nn.functional.scaled_dot_product_attention` does for images: neither causal nor grouped."""
    if dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("attention that is causal, grouped or has dropout")
    scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-2, -1)
    if attn_mask is not None:
        boolean = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if boolean else scores + attn_mask
    return scores.softmax(-1) @ value
