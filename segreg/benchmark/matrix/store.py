"""What was found out so far: a line of `cells.jsonl` for each encoder, kept between calls."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from segreg.benchmark.matrix.record import Cell, Finished, Row
from segreg.errors import SegregError
from segreg.registry.registry import Plugin

PACKAGES = ("segreg", "torch", "torchvision", "timm", "segmentation-models-pytorch")
"""Packages whose versions a cell depends on, beside those that offer its encoder and its decoder."""


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
        """The file with a line for each encoder that was finished; of several lines of one the last holds."""
        return self.folder / "cells.jsonl"

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            SegregError: it can't be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegregError(f"the folder {self.folder} can't be made: {error.strerror}") from None

    def read(self) -> list[Finished]:
        """Return what was finished, in the order of the file; a line that was torn by a stop is left out."""
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
            # A line that an earlier call was stopped in the middle of must not swallow this one.
            torn = opened.tell() > 0 and not self.file.read_bytes().endswith(b"\n")
            opened.write(("\n" if torn else "").encode() + line.encode("utf-8"))
            opened.flush()
            os.fsync(opened.fileno())


@dataclass(frozen=True)
class Known:
    """What holds for the versions that are installed now.

    Attributes:
        rows: every encoder by its name.
        cells: by the names of encoder and decoder.
        seconds: that all of it took, on one core.
        stale: how many cells were left out because they are of other versions.
    """

    rows: Mapping[str, Row]
    cells: Mapping[tuple[str, str], Cell]
    seconds: float
    stale: int


def known(finished: Iterable[Finished], now: Mapping[str, str]) -> Known:
    """Return the newest row and cell of each encoder and decoder that were tried with the versions of `now`."""
    rows: dict[str, Row] = {}
    cells: dict[tuple[str, str], Cell] = {}
    seconds, stale = 0.0, 0
    for one in finished:
        if any(now.get(name) != number for name, number in one.versions.items()):
            stale += len(one.cells)
            continue
        rows[one.row.encoder] = one.row
        cells |= {(cell.encoder, cell.decoder): cell for cell in one.cells}
        seconds += one.seconds
    return Known(rows, cells, seconds, stale)
