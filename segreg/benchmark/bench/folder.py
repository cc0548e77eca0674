"""A bench's folder: where each run's files are, how far it is, and who is at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segreg.benchmark.bench.trials import Cell
from segreg.errors import SegregError
from segreg.runs.directory import RunDirectory
from segreg.runtime.files import write_json
from segreg.training.checkpoint import STATE

State = Literal["waiting", "running", "stopped", "finished", "failed"]


@dataclass(frozen=True)
class BenchFolder:
    """The folder. What a run has come to is told by its own files, so that nothing has to be kept in step with them."""

    path: Path

    @property
    def runs(self) -> Path:
        """The runs' directories: a folder for each model, in it one for each seed."""
        return self.path / "runs"

    @property
    def cells(self) -> Path:
        """A recipe, a lock and a log for each run."""
        return self.path / "cells"

    @property
    def costs(self) -> Path:
        """What the models cost, as it was measured."""
        return self.path / "costs.json"

    def make(self) -> None:
        """Make the folder.

        Raises:
            SegregError: it can't be made.
        """
        try:
            for folder in (self.runs, self.cells):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegregError(f"the folder {self.path} can't be made: {error.strerror}") from None

    def run(self, cell: Cell) -> RunDirectory:
        """Return where a run's directory is, or will be."""
        return RunDirectory(self.runs / cell.key / f"seed-{cell.seed}")

    def recipe(self, cell: Cell) -> Path:
        """Return the file with a run's complete recipe."""
        return self.cells / f"{cell.name}.yaml"

    def log(self, cell: Cell) -> Path:
        """Return the file with what a run told."""
        return self.cells / f"{cell.name}.log"

    def failure(self, cell: Cell) -> Path:
        """Return the file that says why a run failed."""
        return self.cells / f"{cell.name}.failed.json"

    def state(self, cell: Cell) -> State:
        """Return how far a run is."""
        if finished(self.run(cell)):
            return "finished"
        if self.failure(cell).exists():
            return "failed"
        if is_held(self.lock(cell)):
            return "running"
        return "stopped" if (self.run(cell).path / STATE).exists() else "waiting"

    def reason(self, cell: Cell) -> str:
        """Return why a run failed."""
        try:
            return str(json.loads(self.failure(cell).read_text(encoding="utf-8"))["reason"])
        except (OSError, ValueError, KeyError):
            return "it is not known why"

    def fail(self, cell_name: str, reason: str) -> None:
        """Write down why a run failed."""
        write_json(self.cells / f"{cell_name}.failed.json", {"reason": reason})

    def lock(self, cell: Cell) -> Path:
        """Return the file that who is at a run holds locked."""
        return self.cells / f"{cell.name}.lock"


def finished(directory: RunDirectory) -> bool:
    """Whether a run has come to its end; an interrupted one has results too, but no scores."""
    try:
        results = json.loads(directory.results.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(results.get("scored_on"))


@contextmanager
def held(lock: Path, *, wait: float = 0.0) -> Iterator[bool]:
    """Return whether the lock was free, and holds it while the context lasts.

    The system lets go of it when the process ends, however it ends, so no lock is ever left behind.

    Args:
        lock: the file.
        wait: seconds to wait for it. Who only looks holds it for a moment, which who takes it should outlast.
    """
    from filelock import FileLock, Timeout

    own = FileLock(lock)
    try:
        own.acquire(timeout=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        own.release()


def is_held(lock: Path) -> bool:
    """Whether another process holds the lock."""
    if not lock.exists():
        return False
    with held(lock) as free:
        return not free
