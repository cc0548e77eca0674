"""The run directory: which file of a run is where."""

from __future__ import annotations

import time
from pathlib import Path

from segreg.errors import SegregError, did_you_mean


class RunDirectory:
    """A run's folder, and which of its files is where."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        """The recipe as it was read, with the command line's overrides below it as comments."""
        self.resolved = path / "resolved.yaml"
        """The recipe with every default: runs again alone."""
        self.environment = path / "environment.json"
        """What the run ran on."""
        self.split = path / "split.json"
        """The ids of the samples of each split."""
        self.history = path / "history.csv"
        """A row for each epoch; `history.jsonl` beside it holds the same."""
        self.best = path / "best.safetensors"
        """The weights of the best epoch."""
        self.last = path / "last.safetensors"
        """The weights of the last epoch."""
        self.results = path / "results.json"
        """The final metrics with their definitions."""
        self.per_image = path / "per_image.csv"
        """The metrics of each test image."""
        self.counts = path / "counts.csv"
        """The counted pixels of each class in each test image."""
        self.curves = path / "curves.png"
        """The image of the history."""
        self.overlays = path / "overlays"
        """The folder of images of image, truth and prediction."""
        self.report = path / "report.html"
        """The page about the run, which needs no other file."""


def new_run_directory(parent: Path) -> RunDirectory:
    """Make `parent/<date>_<time>`, with a number behind it where two runs begin in one second.

    Raises:
        SegregError: the folder could not be created.
    """
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = parent / (stamp if number == 1 else f"{stamp}-{number}")
        if _make(path):
            return RunDirectory(path)
    raise SegregError(f"{parent} holds a thousand runs of this second")


def make_run_directory(path: Path) -> RunDirectory:
    """Make the directory `path`.

    Raises:
        SegregError: it is there already, or could not be created.
    """
    if not _make(path):
        raise SegregError(f"the run directory {path} is there already")
    return RunDirectory(path)


def _make(path: Path) -> bool:
    """Make a folder and return True, or return False where it is there already."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise SegregError(f"could not create the run directory {path}: {error.strerror}") from None
    return True


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
