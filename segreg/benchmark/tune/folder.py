"""A tune's folder: the study, what the tune began with, each trial's recipe, log and run, and who works on which."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.benchmark.bench.folder import TrialsFolder
from segreg.runs.directory import RunDirectory

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(frozen=True)
class TuneFolder(TrialsFolder):
    """The folder; trials are known by their numbers."""

    @property
    def plan(self) -> Path:
        """What the tune began with, which every process that joins must have too."""
        return self.path / "tune.json"

    @property
    def study(self) -> Path:
        """Optuna's database."""
        return self.path / "study.db"

    @property
    def best(self) -> Path:
        return self.path / "best.yaml"

    def run(self, trial: int) -> RunDirectory:
        """Return where a trial's run is, or will be."""
        return RunDirectory(self.runs / name_of(trial))

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Let one process at a time decide what is next, and write what all of them write."""
        from filelock import FileLock

        with FileLock(self.path / ".deciding"):
            yield

    def claim(self, number: int) -> BaseFileLock | None:
        """Return the lock of a trial if no process works on it, else None. The lock ends with its process."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.trials / f".{name_of(number)}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            return lock
        return None


def name_of(number: int) -> str:
    """Return the name of a trial's files."""
    return f"trial-{number:04}"
