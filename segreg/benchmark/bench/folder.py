"""A bench's folder: where each run's files are, how far it is, and whether a process works on it."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.benchmark.bench.trials import SOURCE, Trial
from segreg.benchmark.earlier import data_paths
from segreg.errors import SegregError
from segreg.runs.directory import RunDirectory
from segreg.runtime.files import read_json, write_json, write_text
from segreg.runtime.lock import is_locked
from segreg.training import history
from segreg.training.checkpoint import STATE

if TYPE_CHECKING:
    from segreg.config.resolve import Resolved

State = Literal["waiting", "running", "stopped", "finished", "failed"]


@dataclass(frozen=True)
class TrialsFolder:
    """A folder of trials, each of which is a run with a recipe and a log, in files of the trial's name."""

    path: Path

    @property
    def runs(self) -> Path:
        """The runs' directories."""
        return self.path / "runs"

    @property
    def trials(self) -> Path:
        """A recipe and a log for each trial."""
        return self.path / "trials"

    def make(self) -> None:
        try:
            for folder in (self.runs, self.trials):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegregError(f"the folder {self.path} could not be created: {error.strerror}") from None

    def recipe(self, name: str) -> Path:
        """Return the file with a trial's complete recipe."""
        return self.trials / f"{name}.yaml"

    def write_recipe(self, name: str, recipe: Resolved) -> None:
        """Write a trial's complete recipe, unless it is there and has the data where they are."""
        file = self.recipe(name)
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if not text or not all(place in text for place in data_paths(recipe.plain()).values()):
            write_text(file, recipe.yaml(header=f"segreg run {file}"))

    def log(self, name: str) -> Path:
        """Return the file with what a trial prints."""
        return self.trials / f"{name}.log"

    def failure(self, name: str) -> Path:
        """Return the file with the reason why a trial failed."""
        return self.trials / f"{name}.failed.json"


@dataclass(frozen=True)
class BenchFolder(TrialsFolder):
    """The folder: in `runs` one for each model, with one for each seed, or for each seed and fold.

    A run's state follows from its own files, so that nothing else can contradict them.

    Attributes:
        working: names of the runs that this process has started and that have not ended.
    """

    working: set[str] = field(default_factory=set, compare=False)

    @property
    def costs(self) -> Path:
        """The file with the models' costs."""
        return self.path / "costs.json"

    def run(self, trial: Trial) -> RunDirectory:
        """Return where a run's directory is, or will be."""
        return RunDirectory(self.runs / trial.key / trial.place)

    def of_other_sources(self, key: str) -> list[str]:
        """Return the folders of runs with a model's recipe when the source of its plugins was another."""
        recipe, _, source = key.rpartition("_")
        if not source.startswith(SOURCE):
            return []
        return [str(one) for one in sorted(self.runs.glob(f"{glob.escape(recipe)}_{SOURCE}*")) if one.name != key]

    def state(self, trial: Trial) -> State:
        if finished(self.run(trial)):
            return "finished"
        if self.failure(trial.name).exists():
            return "failed"
        if trial.name in self.working or is_locked(self.run(trial).path):
            return "running"
        return "stopped" if (self.run(trial).path / STATE).exists() else "waiting"

    def reason(self, trial: Trial) -> str:
        return str(content(self.failure(trial.name)).get("reason", "the reason is unknown"))

    def fail(self, name: str, reason: str) -> None:
        write_json(self.failure(name), {"reason": reason})


def finished(directory: RunDirectory) -> bool:
    """Whether a run has finished; an interrupted one has results too, but no scores."""
    return bool(content(directory.results).get("scored_on"))


def epochs_of(directory: RunDirectory) -> list[dict[str, float]]:
    """Return the rows of a run's history; none where it is damaged, which whoever continues with the run reports."""
    try:
        return history.read(directory.path)
    except (SegregError, OSError):
        return []


def content(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing where it is missing or damaged."""
    try:
        return read_json(file)
    except SegregError:
        return {}
