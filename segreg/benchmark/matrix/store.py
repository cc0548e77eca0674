"""Results kept between calls: a line of `cells.jsonl` for each encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from segreg.benchmark.matrix.record import EncoderResult, Finished, Matrix, PairResult
from segreg.errors import SegregError
from segreg.registry.compatibility import DISTRIBUTION
from segreg.registry.registry import Plugin

PACKAGES = (DISTRIBUTION, "torch", "torchvision", "timm", "segmentation-models-pytorch")
"""Packages whose versions a result depends on, besides those that offer its encoder and its decoder."""


def versions(plugins: Iterable[Plugin]) -> dict[str, str]:
    """Return the versions of these packages and of the plugins'."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, **{plugin.distribution: plugin.version for plugin in plugins}}


@dataclass(frozen=True)
class Store:
    """The folder of a matrix."""

    folder: Path

    @property
    def file(self) -> Path:
        """The file with a line for each finished encoder; of several lines of one the last counts."""
        return self.folder / "cells.jsonl"

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            SegregError: it could not be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegregError(f"the folder {self.folder} could not be created: {error.strerror}") from None

    def read(self) -> list[Finished]:
        """Return what was finished, in the order of the file; a line that an interruption tore is skipped."""
        if not self.file.is_file():
            return []
        found = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                found.append(Finished.of_data(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def append(self, finished: Finished) -> None:
        """Add a line, which is on the disk when this returns."""
        line = json.dumps(finished.as_data(), ensure_ascii=False) + "\n"
        with self.file.open("ab") as opened:
            # A line that an interruption tore must not swallow this one.
            torn = opened.tell() > 0 and not self.file.read_bytes().endswith(b"\n")
            opened.write(("\n" if torn else "").encode() + line.encode("utf-8"))
            opened.flush()
            os.fsync(opened.fileno())


@dataclass(frozen=True)
class CurrentResults:
    """The results with the installed versions.

    Attributes:
        matrix: of all of them.
        stale: number of pairs with other versions, which are not in it.
    """

    matrix: Matrix
    stale: int


def current_results(finished: Iterable[Finished], now: Mapping[str, str]) -> CurrentResults:
    """Return the newest result of each encoder and pair that were checked with the versions `now`."""
    rows: dict[str, EncoderResult] = {}
    cells: dict[tuple[str, str], PairResult] = {}
    seconds, stale = 0.0, 0
    for one in finished:
        if any(now.get(name) != number for name, number in one.versions.items()):
            stale += len(one.cells)
            continue
        rows[one.row.encoder] = one.row
        cells |= {(cell.encoder, cell.decoder): cell for cell in one.cells}
        seconds += one.seconds
    ordered = sorted(rows.values(), key=lambda row: (row.family, row.encoder))
    decoders = sorted({decoder for _, decoder in cells})
    return CurrentResults(Matrix(tuple(ordered), tuple(decoders), cells, now, seconds), stale)
