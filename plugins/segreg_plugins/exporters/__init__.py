"""The exporters: a trained network as a file of ONNX, OpenVINO or `torch.export`."""

from __future__ import annotations

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
from segreg_plugins.exporters import builders


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Return every exporter."""
    return [
        Entry("exporter", "onnx", builders.onnx),
        Entry("exporter", "openvino", builders.openvino),
        Entry("exporter", "torch", builders.torch),
    ]
