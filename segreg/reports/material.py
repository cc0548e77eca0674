"""What a report is made of: the files of a run and of its evaluations, read; each of a run's files may be missing."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segreg.config.resolve import Resolved
from segreg.errors import SegregError
from segreg.runs.directory import RunDirectory
from segreg.runs.header import weights_notice
from segreg.training import history
from segreg.training.checkpoint import read_notes

EVALUATIONS = "evaluations"
"""The folder in a run's directory that has a folder for each of its evaluations."""


@dataclass(frozen=True)
class Scored:
    """What was scored: at the end of a run, or by an evaluation of it.

    Attributes:
        folder: where its files are.
        results: what `results.json` holds, or `metrics.json` of an evaluation; empty before there are any.
        per_image: a row for each image: its id, and its scores.
    """

    folder: Path
    results: Mapping[str, Any]
    per_image: Sequence[Mapping[str, Any]]

    @property
    def side(self) -> str:
        """Return the side of the split that was scored at last; empty if none was."""
        return str(self.results.get("scored_on") or "")

    def values(self, side: str) -> Mapping[str, float | None]:
        """Return a side's metrics by their full names."""
        values: Mapping[str, float | None] = self.results.get("metrics", {}).get(side, {})
        return values

    def interval(self, side: str, name: str) -> str:
        """Return a metric's 95% interval in words, or an empty text where none was computed."""
        intervals = self.results.get("intervals") or {}
        ends = intervals.get(side, intervals).get(name)
        if isinstance(ends, Mapping):
            ends = [ends.get("low"), ends.get("high")]
        if not isinstance(ends, Sequence) or len(ends) != 2 or None in ends:
            return ""
        return f"[{ends[0]:.4f}, {ends[1]:.4f}]"

    def columns(self) -> list[str]:
        """Return the scores that every image has, without those of single classes."""
        names = self.per_image[0] if self.per_image else ()
        return [name for name in names if name != "id" and ".class." not in name]


@dataclass(frozen=True)
class Material:
    """A run's files, read.

    Attributes:
        directory: the run's.
        recipe: the run's; None where it can't be understood with the plugins that are installed.
        scored: what the run itself scored at its end.
        environment: what `environment.json` holds.
        history: a row for each epoch.
        evaluations: what `segreg evaluate` left in the run's directory, in the order of the folders' names.
    """

    directory: RunDirectory
    recipe: Resolved | None
    scored: Scored
    environment: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    evaluations: Sequence[Scored]

    @property
    def results(self) -> Mapping[str, Any]:
        """Return what `results.json` holds; empty before the end of the training."""
        return self.scored.results

    @property
    def warnings(self) -> list[str]:
        """Return what must not be overlooked: synthetic images, random weights, a training without an end."""
        warnings = [self._data_notice, self.results.get("weights") or weights_notice(self.environment.get("model", {}))]
        if not self.results:
            warnings.append(f"NOT FINISHED: there are no results yet, after {len(self.history)} epochs")
        elif self.results.get("stopped_because") == "interrupted":
            warnings.append(f"INTERRUPTED after {self.results.get('epochs')} epochs: nothing was scored")
        return [warning for warning in dict.fromkeys(warnings) if warning]

    @property
    def _data_notice(self) -> str:
        if "notice" in self.results:
            return str(self.results["notice"])
        return read_notes(self.directory.last).get("notice", "") if self.directory.last.is_file() else ""


def gather(directory: RunDirectory, recipe: Resolved | None) -> Material:
    """Read a run's files.

    Raises:
        SegregError: a file is not what segreg writes.
    """
    folders = sorted(file.parent for file in (directory.path / EVALUATIONS).glob("*/metrics.json"))
    return Material(
        directory,
        recipe,
        _scored(directory.path, _json(directory.results)),
        _json(directory.environment),
        history.read(directory.path),
        [_scored(folder, _json(folder / "metrics.json")) for folder in folders],
    )


def _scored(folder: Path, results: Mapping[str, Any]) -> Scored:
    return Scored(folder, results, _rows(folder / "per_image.csv"))


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SegregError(f"{file} is not a JSON: {error}", hint="it has been changed since the run wrote it") from None
    if not isinstance(content, dict):
        raise SegregError(f"{file} holds no JSON object", hint="it has been changed since the run wrote it")
    return content


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as text:
        return [
            {name: value if name == "id" else _float(value) for name, value in row.items() if name is not None}
            for row in csv.DictReader(text)
        ]


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
