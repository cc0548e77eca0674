"""The run directory: which file of a run is where."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from segreg.errors import SegregError, did_you_mean


@dataclass(frozen=True)
class RunDirectory:
    """A run's folder; each property names one file or folder in it."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it was read, with the command line's overrides below it as comments."""
        return self.path / "recipe.yaml"

    @property
    def resolved(self) -> Path:
        """The recipe with every default: runs again alone."""
        return self.path / "resolved.yaml"

    @property
    def environment(self) -> Path:
        """What the run ran on."""
        return self.path / "environment.json"

    @property
    def split(self) -> Path:
        """The ids of the samples of each split."""
        return self.path / "split.json"

    @property
    def history(self) -> Path:
        """A row for each epoch; `history.jsonl` beside it holds the same."""
        return self.path / "history.csv"

    @property
    def best(self) -> Path:
        """The weights of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The weights of the last epoch."""
        return self.path / "last.safetensors"

    @property
    def results(self) -> Path:
        """The final metrics with their definitions."""
        return self.path / "results.json"

    @property
    def per_image(self) -> Path:
        """The metrics of each test image."""
        return self.path / "per_image.csv"

    @property
    def counts(self) -> Path:
        """The counted pixels of each class in each test image."""
        return self.path / "counts.csv"

    @property
    def curves(self) -> Path:
        """The image of the history."""
        return self.path / "curves.png"

    @property
    def overlays(self) -> Path:
        """The folder of images of image, truth and prediction."""
        return self.path / "overlays"

    @property
    def report(self) -> Path:
        """The page about the run, which needs no other file."""
        return self.path / "report.html"


def new_run_directory(parent: Path) -> RunDirectory:
    """Make `parent/<date>_<time>`, with a number behind it where two runs begin in one second.

    Raises:
        SegregError: the folder could not be created.
    """
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise SegregError(f"could not create the run directory {path}: {error.strerror}") from None
        return RunDirectory(path)
    raise SegregError(f"{parent} holds a thousand runs of this second")


def make_run_directory(path: Path) -> RunDirectory:
    """Make the directory `path`.

    Raises:
        SegregError: it is there already, or could not be created.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise SegregError(f"the run directory {path} is there already") from None
    except OSError as error:
        raise SegregError(f"could not create the run directory {path}: {error.strerror}") from None
    return RunDirectory(path)


def open_run_directory(path: Path | str) -> RunDirectory:
    """Return the directory of a run that exists.

    Raises:
        SegregError: there is none.
    """
    run = RunDirectory(Path(path))
    if not run.path.is_dir():
        near = [p.name for p in run.path.parent.iterdir() if p.is_dir()] if run.path.parent.is_dir() else []
        raise SegregError(f"there is no run {run.path}", hint=did_you_mean(run.path.name, near))
    if not run.resolved.is_file():
        inside = sorted(str(p.parent) for p in run.path.glob("**/resolved.yaml"))
        hint = f"runs inside it: {', '.join(inside[-3:])}" if inside else "a run's folder holds a resolved.yaml"
        raise SegregError(f"{run.path} is not the directory of a run", hint=hint)
    return run
