"""A program of `torch.export`, `.pt2`: PyTorch runs it without the network's Python code."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram

from segreg.errors import SegregError
from segreg.registry.protocols import Calibration, Exporter
from segreg_plugins.exporters.failures import named

NOTES = "segreg.json"
"""Name of the notes in a file."""
_ON_SIZES = re.compile(
    r"torch\.sym_\w+|math\.\w+|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|"
    r"or_|lshift|rshift)"
)
"""Functions of Python that a network may call, with sizes; `_operator` has others that call what they are given."""
_OF_FORMULAS = re.compile(
    r"Symbol\('\w+'(?:, \w+=(?:True|False))*\)|L\['\w+'\](?:\[\d+\])*(?:\.(?:size|stride)\(\))?|\b(?:and|or|not)\b|"
    r"\b[A-Z]\w*|\b[suz]f?\d+\b|\d+(?:\.\d+)?|[-+*/%(),<>=&|~!\[\] ]"
)
"""Of what formulas of sizes consist. PyTorch evaluates them as Python, so that nothing else may be in them."""


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
        with named("torch.export"):
            torch.export.save(program, file, extra_files={NOTES: notes})

    def load(self, file: Path, *, precision: str) -> Callable[[NDArray[Any]], NDArray[Any]]:  # noqa: ARG002
        _refuse_code(file)
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


def _refuse_code(file: Path) -> None:
    """Refuse an archive that could run any code when it is loaded or called.

    Raises:
        SegregError: it could, or the file is not such an archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            tables = [
                json.loads(archive.read(name)) for name in names if name.endswith(".json") and "extra" not in name
            ]
            tensors = [archive.read(name) for name in names if name.endswith(".pt")]
    except (OSError, ValueError, RecursionError, RuntimeError, zipfile.BadZipFile) as error:
        raise SegregError(f"{file}: is not a program of torch.export: {error}") from None
    if found := next(_code_in(names, tables, tensors), ""):
        raise SegregError(f"{file}: holds {found[:200]}, which could run any code when it is loaded")


def _code_in(names: Sequence[str], tables: Sequence[Any], tensors: Sequence[bytes]) -> Iterator[str]:
    """Yield what of an archive could run code.

    `torch.export` unpickles what it can't read otherwise, loads compiled libraries, calls whatever a step names, and
    evaluates the formulas of sizes.
    """
    if len(set(names)) < len(names):  # of which other programs may read another one
        yield "two files of one name"
    if any("aotinductor/" in name for name in names):
        yield "compiled libraries"
    if not all(map(_only_tensors, tensors)):
        yield "pickled objects"
    for entry in _entries(tables):
        if entry.get("use_pickle") or not str(entry.get("path_name", "tensor_")).startswith(("tensor_", "weight_")):
            yield "pickled objects"
        if "target" in entry and not _is_operator(str(entry["target"])):
            yield f'a call of "{entry["target"]}"'
        for formula in (entry.get("expr_str", ""), *entry.get("guards_code", ())):
            if _OF_FORMULAS.sub("", str(formula)):
                yield f'the formula "{formula}"'


def _entries(table: Any) -> Iterator[dict[str, Any]]:
    """Return every object in what an archive's tables hold."""
    if isinstance(table, dict):
        yield table
    for value in table.values() if isinstance(table, dict) else table if isinstance(table, list) else ():
        yield from _entries(value)


def _only_tensors(data: bytes) -> bool:
    """Whether PyTorch reads a pickle without calling anything that is not its own; else it would unpickle all of it."""
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # whatever a damaged or malicious one raises
        return not data
    return True


def _is_operator(name: str) -> bool:
    """Whether a step's name is that of an operator of PyTorch, or of one that computes sizes."""
    if _ON_SIZES.fullmatch(name):
        return True
    root, *path = name.split(".")
    found: Any = torch if root == "torch" else None
    for part in path:
        found = getattr(found, part, None)
    return isinstance(found, (OpOverload, HigherOrderOperator))
