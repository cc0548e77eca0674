"""The models of a bench that was run, each with its finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segreg.benchmark.bench.folder import BenchFolder, content, finished
from segreg.benchmark.comparison.compare import RunGroup
from segreg.benchmark.earlier import with_data_of
from segreg.config.recipe import read_recipe
from segreg.errors import SegregError, did_you_mean
from segreg.runs.directory import RunDirectory
from segreg.runs.trained_run import Run

RESULTS = "results.json"


@dataclass(frozen=True)
class BenchModel(RunGroup):
    """A model of a bench with its finished runs.

    Attributes:
        folder: holds its runs' directories, and names it on a command line.
    """

    folder: Path


def is_bench(path: Path) -> bool:
    """Whether a folder is a bench's."""
    return (path / "runs").is_dir() and (path / "trials").is_dir()


def is_model(path: Path) -> bool:
    """Whether a folder is that of a bench's model."""
    return path.is_dir() and path.resolve().parent.name == "runs" and is_bench(path.resolve().parent.parent)


def models_of(path: Path) -> list[BenchModel]:
    """Return the models of a bench as its results name them, wherever its folder is now.

    Raises:
        SegregError: the folder is not a bench's, or it has no results yet.
    """
    if not is_bench(path):
        parent = path.parent
        near = [each.name for each in parent.iterdir() if is_bench(each)] if parent.is_dir() else []
        what = "is not the folder of a bench" if path.exists() else "is not there"
        raise SegregError(f"{path} {what}", hint=did_you_mean(path.name, near) or "segreg bench writes one")
    results = content(path / RESULTS)
    found = []
    for model in results.get("models", ()):
        key = Path(model["runs"][0]).parent.name
        folder = BenchFolder(path).runs / key
        directories = [RunDirectory(folder / Path(run).name) for run in model["runs"]]
        runs = tuple(_opened(directory, BenchFolder(path)) for directory in directories if finished(directory))
        if runs:
            found.append(BenchModel(model["name"], model["settings"], runs, folder))
    if not found:
        raise SegregError(f"{path} has no results yet", hint="the command that began the bench continues it")
    return found


def _opened(directory: RunDirectory, folder: BenchFolder) -> Run:
    """Return a run, with its data where the bench has found them last."""
    recipe = folder.trials / f"{directory.path.parent.name}_{directory.path.name}.yaml"
    run = Run(directory)
    return with_data_of(read_recipe(recipe).values, run) if recipe.exists() else run


def runs_named(path: Path) -> list[Run]:
    """Return all finished runs of a bench that has one model, or of the model that a folder in a bench is of.

    Raises:
        SegregError: the bench has several models, or no run has finished.
    """
    if is_model(path):
        runs = [Run(RunDirectory(each)) for each in sorted(path.iterdir()) if finished(RunDirectory(each))]
        if not runs:
            raise SegregError(f"{path} has no finished run", hint="the command that began the bench continues it")
        return runs
    models = models_of(path)
    if len(models) > 1:
        lines = [f"{model.folder}   {model.name}" for model in models]
        raise SegregError(
            f"{path} is a bench of {len(models)} models, whose runs are not predicted with together",
            hint="\n".join(["name the folder of one model, or of several:", *lines]),
        )
    return list(models[0].runs)
