"""The run directory: which file of a run is where."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from segreg.errors import SegregError
from segreg.runtime.files import cannot_write, near_folder, own_name, remove_unfinished, sync, write_text
from segreg.runtime.hub import in_cache, local_path


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
        self.adapter = path / "adapter.safetensors"
        """Those of the best weights that are trained, where others of the encoder are not."""
        self.results = path / "results.json"
        """The final metrics with their definitions."""
        self.warnings = path / "warnings.log"
        """What hooks of plugins, trackers for instance, have failed with; `results.json` has it too."""
        self.per_image = path / "per_image.csv"
        """The metrics of each test image."""
        self.counts = path / "counts.csv"
        """The counted pixels of each class in each test image."""
        self.sums = path / "sums.npz"
        """Of metrics that neither means nor counts add up to, what each test image adds to their pooled values."""
        self.fold = path / "fold"
        """The folder with the same of the images of val, where the run is of a fold and has a test."""
        self.curves = path / "curves.png"
        """The image of the history."""
        self.overlays = path / "overlays"
        """The folder of images of image, truth and prediction."""
        self.report = path / "report.html"
        """The page about the run, which needs no other file."""

    def __str__(self) -> str:
        """Return where it is: its path, or its name on the hub with the commit."""
        return in_cache(self.path) or str(self.path)


_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
"""What a rename fails with where the name is another folder's."""
BEGINNING = ".beginning"
"""How the name of a folder ends that is not complete yet; a process that is killed may leave one."""


@contextmanager
def folder_aside(parent: Path) -> Iterator[Path]:
    """Make a folder in `parent` for what is not complete yet, of a name that no other process has, and remove it.

    What is complete is renamed out of it, or it is renamed itself. What killed processes left is removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(parent, BEGINNING)
    aside = parent / own_name(BEGINNING)
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Return a folder to fill, and put it in `path`'s place, whole or not at all."""
    with folder_aside(path.parent) as aside:
        whole = aside / path.name
        whole.mkdir()
        yield whole
        for number in itertools.count():
            if _exchanged(whole, path):
                break
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside / f".before-{number}")
            try:
                whole.rename(path)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                continue  # another process was quicker, and is replaced as well
            break
        sync(path.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, so that a process that is killed loses neither; False where that can't be."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # Linux has it
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def new_run_directory(
    parent: Path, at: Path | None, files: Callable[[RunDirectory], Mapping[str, str]]
) -> RunDirectory:
    """Make a run's folder with its first files, whole or not at all: `at`, or `parent/<date>_<time>`.

    Where two runs begin in one second, a number is appended.

    Args:
        parent: the folder of the run's.
        at: the folder itself.
        files: returns names and contents of the first files, given where they will be.

    Raises:
        SegregError: `at` is there already, or the folder could not be created, or safetensors could not read from it.
    """
    try:
        os.fspath(at or parent).encode()
    except UnicodeEncodeError:
        raise SegregError(
            f"{at or parent}: weights can't be read from a folder whose name is not UTF-8",
            hint="--out names another folder; the recipe's name is a part of it too",
        ) from None
    try:
        with folder_aside(parent) as aside:
            return _published(aside, [at] if at else _names(parent), files)
    except OSError as error:
        raise cannot_write(error, at or parent) from None


def _published(aside: Path, paths: Iterable[Path], files: Callable[[RunDirectory], Mapping[str, str]]) -> RunDirectory:
    """Fill a folder and rename it to the first path that is free."""
    for path in paths:
        if path.exists():
            continue
        for name, text in files(RunDirectory(path)).items():
            write_text(aside / name, text)
        try:
            aside.rename(path)
        except OSError as error:
            if error.errno in _TAKEN:  # by another run
                continue
            raise
        sync(path.parent)
        return RunDirectory(path)
    raise SegregError(f"the run directory {path} is there already")


def _names(parent: Path) -> Iterator[Path]:
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    yield parent / stamp
    for number in range(2, 1000):
        yield parent / f"{stamp}-{number}"


def open_run_directory(path: Path | str) -> RunDirectory:
    """Return the directory of a run that exists, on the disk or on the hub: `hf://user/name[@revision]`.

    Raises:
        SegregError: there is none, or the hub can't be reached and its cache does not have it.
    """
    run = RunDirectory(local_path(path))
    if not run.path.is_dir():
        raise SegregError(f"there is no run {run.path}", hint=near_folder(run.path))
    if not run.resolved.is_file():
        inside = sorted(str(p.parent) for p in run.path.glob("**/resolved.yaml"))
        hint = f"runs inside it: {', '.join(inside[-3:])}" if inside else "a run's folder holds a resolved.yaml"
        raise SegregError(f"{run.path} is not the directory of a run", hint=hint)
    return run
