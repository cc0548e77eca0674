"""The builders of the exporters. Libraries are looked for here, so that what is missing is said before any work."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from annotated_types import Interval

from segreg.errors import SegregError, listed
from segreg.registry.protocols import Exporter

DISTRIBUTION = "segreg-toolkit"


def onnx(*, opset: Annotated[int, Interval(ge=18, le=23)] = 18) -> Exporter:
    """ONNX, which ONNX Runtime and many other runtimes read; needs the extra `export`.

    Args:
        opset: version of ONNX's operators, 18 to 23; older runtimes know older ones.
    """
    need("export", "onnx", "onnxruntime", "onnxscript")
    from segreg_plugins.exporters.onnx_file import OnnxExporter

    return OnnxExporter(opset)


def openvino() -> Exporter:
    """OpenVINO, Intel's runtime for CPUs; int8 by NNCF with accuracy control; needs the extra `openvino`."""
    need("openvino", "openvino")
    from segreg_plugins.exporters.openvino_file import OpenvinoExporter

    return OpenvinoExporter()


def torch() -> Exporter:
    """A program of `torch.export`, which needs PyTorch and nothing of segreg."""
    from segreg_plugins.exporters.torch_file import TorchExporter

    return TorchExporter()


def need(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra.

    Raises:
        SegregError: one is not installed.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        verb = "is" if len(missing) == 1 else "are"
        raise SegregError(
            f"{listed(missing, quote='')} {verb} not installed", hint=f'pip install "{DISTRIBUTION}[{extra}]"'
        )
