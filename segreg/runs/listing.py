"""Which runs there are below a folder, and what their files say of them, read without a network."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from segreg.config.diff import in_short, part_names
from segreg.config.resolve import SETTINGS
from segreg.errors import SegregError
from segreg.runs.directory import RunDirectory
from segreg.runs.records import read_environment, read_results, trained_since
from segreg.runs.sidecar import is_export
from segreg.runtime.files import near_folder
from segreg.runtime.lock import is_locked, locked_folder
from segreg.training import history
from segreg.training.checkpoint import STATE

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)(-\d+)?")
"""How `segreg run` names a run's folder."""

Value = str | float | None
"""What a run has by a name; None if it has nothing."""


@dataclass(frozen=True)
class KnownRun:
    """A run as its files tell it; a file that is missing or broken is empty here.

    Attributes:
        directory: where the files are.
        settings: the complete recipe, as plain values.
        environment: what `environment.json` holds.
        results: what `results.json` holds.
        history: a row for each finished epoch.
        problems: what is wrong with the files.
    """

    directory: RunDirectory
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    results: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    problems: tuple[str, ...] = ()

    @property
    def recipe(self) -> str:
        """Return the name of the recipe that the run began with."""
        folder, source = self.directory.path.absolute(), Path(str(self.environment.get("recipe", "")))
        if _STAMP.fullmatch(folder.name) or source.stem in ("", "recipe", "resolved"):
            return folder.parent.name
        return source.stem

    @property
    def begun(self) -> str:
        """Return when the run began, as its folder's name says, or else by the time of its recipe."""
        if named := _STAMP.fullmatch(self.directory.path.absolute().name):
            return f"{named[1]} {named[2]}:{named[3]}:{named[4]}"
        return _latest([self.directory.resolved])

    @property
    def changed(self) -> str:
        """Return when the run last wrote what it continues from, or its results."""
        run = self.directory
        return _latest([run.environment, run.history, run.path / STATE, run.last, run.results])

    @property
    def state(self) -> str:
        """Return "finished", "interrupted" (by Ctrl-C, which the run has noted), "unfinished" or "broken".

        An unfinished run was killed, or it is still running: its files can't tell these apart.
        """
        if self.problems:
            return "broken"
        if not self.results or trained_since(self.results, self.history):
            return "unfinished"
        return "interrupted" if self.results.get("stopped_because") == "interrupted" else "finished"

    @property
    def epochs(self) -> int:
        """Return how many epochs are finished."""
        return len(self.history) or int(self.results.get("epochs") or 0)

    @property
    def seconds(self) -> float:
        """Return how long it has trained."""
        seconds = self.results.get("training_seconds") if self.state == "finished" else None
        return float(seconds) if seconds is not None else sum(row.get("seconds", 0.0) for row in self.history)

    @property
    def split(self) -> str:
        """Return the split that was scored at the end; empty if none was."""
        return str(self.results.get("scored_on") or "")

    def metrics(self, split: str) -> Mapping[str, float]:
        """Return a split's metrics by full name, without those that are undefined."""
        values = (self.results.get("metrics") or {}).get(split) or {}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def score(self) -> tuple[str, float] | None:
        """Return the name and the value of the first metric of the split that was scored at the end."""
        return next(iter(self.metrics(self.split).items()), None)

    def size(self) -> int:
        """Return how many bytes its files take."""
        return sum(
            entry.stat().st_size
            for folder, _, names in os.walk(self.directory.path)
            for name in names
            if (entry := Path(folder, name)).is_file()
        )

    def value(self, name: str) -> Value:
        """Return the value of a column, a metric ("dice.pooled", "val.dice.pooled") or a setting of the recipe."""
        if name in COLUMNS:
            return COLUMNS[name](self)
        if name in self.all_metrics:
            return self.all_metrics[name]
        settings = self._settings_by_path
        return settings.get(name, settings.get("network") if name == "encoder" else None)

    def names(self) -> list[str]:
        """Return every name that `value` has something for."""
        return [*COLUMNS, *self.all_metrics, *self._settings_by_path]

    @cached_property
    def all_metrics(self) -> dict[str, float]:
        """Return every split's metrics by "split.name", and those of the split that was scored by their name too."""
        splits = self.results.get("metrics") or {}
        each = {f"{split}.{name}": value for split in splits for name, value in self.metrics(split).items()}
        return {**self.metrics(self.split), **each}

    @cached_property
    def _settings_by_path(self) -> dict[str, Value]:
        return dict(_by_path("", self.settings))


COLUMNS: Mapping[str, Callable[[KnownRun], Value]] = {
    "run": lambda run: str(run.directory.path),
    "recipe": lambda run: run.recipe,
    "begun": lambda run: run.begun,
    "changed": lambda run: run.changed,
    "state": lambda run: run.state,
    "epochs": lambda run: run.epochs,
    "score": lambda run: run.score[1] if run.score else None,
    "duration": lambda run: run.seconds,
    "size": lambda run: run.size(),
}
"""What is known of a run besides its metrics and settings, in the units by which it is compared: s, bytes."""


def _by_path(path: str, value: Any) -> Iterator[tuple[str, Value]]:
    """Return settings by path; items of lists by their number, and parts in lists by their name too."""
    names = part_names(value)
    if names:
        yield path, " + ".join(names)
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _by_path(f"{path}.{name}" if path else str(name), below)
    elif names:
        for number, (name, part) in enumerate(zip(names, value, strict=True)):
            for step in (number, name):
                yield from _by_path(f"{path}.{step}", part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value
    else:
        yield path, in_short(value)


def prunable(runs: Sequence[KnownRun]) -> dict[Path, int]:
    """Return the training states of finished runs that no process works on, with their bytes."""
    states = [one.directory.path / STATE for one in runs if one.state == "finished"]
    return {file: file.stat().st_size for file in states if file.exists() and not is_locked(file.parent)}


def prune(files: Iterable[Path]) -> None:
    """Delete training states.

    Raises:
        SegregError: a process began to work on one of the runs; its state is kept.
    """
    for file in files:
        with locked_folder(file.parent, "run"):
            file.unlink(missing_ok=True)


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of the runs in and below these folders, each once, sorted by path.

    A run's own folders are not looked into, nor are hidden folders and links to folders. Exported networks are no runs.

    Raises:
        SegregError: a folder is not there.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            hint = near_folder(folder) or "name the folder that holds runs: segreg runs FOLDER"
            raise SegregError(f"there is no folder {folder}", hint=hint)
        for path, inside, files in os.walk(folder):
            # A run without its recipe is a broken one, and reported as such.
            if "resolved.yaml" in files or {"split.json", "environment.json"} <= set(files):
                inside.clear()
                if is_export(Path(path)):
                    continue
                found.setdefault(Path(path).resolve(), Path(path))
            inside[:] = [name for name in inside if not name.startswith(".")]
    return sorted(found.values())


def read_run(path: Path) -> KnownRun:
    """Return a run from its folder; what is wrong with its files is among what is known of it."""
    directory = RunDirectory(path)
    problems: list[str] = []
    settings = _recipe(directory.resolved, problems)
    environment = _record(read_environment, directory.environment, problems)
    results = _record(read_results, directory.results, problems)
    try:
        rows = history.read(path)
    except (SegregError, OSError, UnicodeDecodeError):
        problems.append(f"{history.JSON_LINES} does not hold a row for each epoch")
        rows = []
    return KnownRun(directory, settings, environment, results, rows, tuple(problems))


def _recipe(file: Path, problems: list[str]) -> Mapping[str, Any]:
    if not file.is_file():
        problems.append(f"{file.name} is missing")
        return {}
    try:
        # Not segreg.config.recipe, which notes each value's place and takes 50 times as long. What `to_yaml` writes,
        # YAML 1.1 reads as YAML 1.2 does.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problems.append(f"{file.name} is not valid YAML" + (f" (line {mark.line + 1})" if mark else ""))
        return {}
    sections = (
        [content.get(name) or {} for name in ("network", "encoder", *SETTINGS)] if isinstance(content, dict) else [None]
    )
    if not all(isinstance(section, dict) for section in sections) or not any(map(content.get, ("network", "encoder"))):
        problems.append(f"{file.name} holds no complete recipe")
        return {}
    return content


def _record(read: Callable[[Path], dict[str, Any]], file: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        return read(file) if file.is_file() else {}
    except SegregError as error:
        problems.append(error.problems[0].message.replace(str(file), file.name))
        return {}


def _latest(files: Sequence[Path]) -> str:
    times = [file.stat().st_mtime for file in files if file.exists()]
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(times))) if times else ""
