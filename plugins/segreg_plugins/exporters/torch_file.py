"""A program of `torch.export`, `.pt2`: PyTorch runs it without the network's Python code."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from segreg.errors import SegregError
from segreg.registry.protocols import Calibration, Exporter
from segreg_plugins.exporters.failures import named

NOTES = "segreg.json"
"""Name of the notes in a file."""


class TorchExporter(Exporter):
    """Files of `torch.export`."""

    suffix = ".pt2"
    precisions = ("float32", "float16")

    def write(
        self,
        program: ExportedProgram,
        file: Path,
        *,
        precision: str,  # noqa: ARG002 - the program is in it
        notes: str,
        calibration: Calibration | None = None,  # noqa: ARG002 - no int8 here
    ) -> None:
        with warnings.catch_warnings(action="ignore"), named("torch.export"):
            torch.export.save(program, file, extra_files={NOTES: notes})

    def load(self, file: Path, *, precision: str) -> Callable[[NDArray[Any]], NDArray[Any]]:  # noqa: ARG002
        _refuse_pickles(file)
        try:
            with warnings.catch_warnings(action="ignore"):
                network: Any = torch.export.load(file).module()
        except Exception as error:  # whatever reading a damaged archive raises
            raise SegregError(f"{file}: torch.export can't read it: {error}") from error

        def run(images: NDArray[Any]) -> NDArray[Any]:
            with torch.inference_mode():
                found: NDArray[Any] = network(torch.from_numpy(images)).numpy()
            return found

        return run


def _refuse_pickles(file: Path) -> None:
    """Refuse an archive with objects that loading would unpickle, which could run any code.

    Raises:
        SegregError: there is one, or the file is not such an archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            tables = [name for name in archive.namelist() if name.endswith("_config.json")]
            found = [payload for name in tables for payload in _payloads(json.loads(archive.read(name)))]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SegregError(f"{file}: is not a program of torch.export: {error}") from None
    if any(payload.get("use_pickle") for payload in found):
        raise SegregError(f"{file}: holds pickled objects, which could run any code when they are loaded")


def _payloads(table: Any) -> Iterator[dict[str, Any]]:
    """Return what a table of an archive says of each tensor in it."""
    if isinstance(table, dict):
        if "use_pickle" in table:
            yield table
        for value in table.values():
            yield from _payloads(value)
