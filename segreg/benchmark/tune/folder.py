"""A tune's folder: the study, what the tune began with, each trial's recipe, log and run, and who works on which."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.errors import SegregError
from segreg.runs.directory import RunDirectory

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(frozen=True)
class TuneFolder:
    """The folder.

    Attributes:
        path: where it is.
    """

    path: Path

    @property
    def runs(self) -> Path:
        """A run for each trial."""
        return self.path / "runs"

    @property
    def trials(self) -> Path:
        """A recipe, a log and a lock for each trial."""
        return self.path / "trials"

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
        """The best recipe."""
        return self.path / "best.yaml"

    def make(self) -> None:
        """Create the folder.

        Raises:
            SegregError: it could not be created.
        """
        try:
            for folder in (self.runs, self.trials):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegregError(f"the folder {self.path} could not be created: {error.strerror}") from None

    def run(self, number: int) -> RunDirectory:
        """Return where a trial's run is, or will be."""
        return RunDirectory(self.runs / name_of(number))

    def recipe(self, number: int) -> Path:
        """Return the file with a trial's complete recipe."""
        return self.trials / f"{name_of(number)}.yaml"

    def log(self, number: int) -> Path:
        """Return the file with what a trial prints."""
        return self.trials / f"{name_of(number)}.log"

    def failure(self, number: int) -> Path:
        """Return the file with the reason why a trial failed."""
        return self.trials / f"{name_of(number)}.failed.json"

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
