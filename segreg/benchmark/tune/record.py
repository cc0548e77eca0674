"""What came out of a tune: each trial with how it ended, the best one, and what mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from segreg.benchmark.bench.folder import content, epochs_of
from segreg.benchmark.bench.plan import written_as
from segreg.benchmark.tune.folder import TuneFolder, name_of
from segreg.benchmark.tune.plan import TunePlan
from segreg.benchmark.tune.space import Choices, Range
from segreg.benchmark.tune.study import REASON, SharedStudy
from segreg.runs.directory import RunDirectory
from segreg.runtime.layout import Block, Column, Table
from segreg.runtime.progress import duration

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

State = Literal["completed", "pruned", "failed", "running"]
_STATES: Mapping[str, State] = {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
_MOST_ROWS = 10
"""Trials that are printed; all are on the page."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, or how far it is.

    Attributes:
        number: the trial's, from 0.
        state: completed, pruned, failed or running.
        parameters: what was searched by path, numbers or strings.
        value: the best value of the monitored one; None where there is none.
        best_epoch: the epoch of that value.
        epochs: finished epochs.
        seconds: of training.
        reason: why it was pruned or failed.
        values: the monitored value of each epoch, from the first on.
        run: its directory.
        best: whether it is the best so far.
    """

    number: int
    state: State
    parameters: Mapping[str, Any]
    value: float | None
    best_epoch: int
    epochs: int
    seconds: float
    reason: str
    values: tuple[float, ...]
    run: str
    best: bool

    def sentence(self, monitor: str) -> str:
        """Return how it ended on one line."""
        if self.state == "failed":
            return f"failed: {self.reason}"
        if self.state == "pruned":
            return f"{self.reason}; {duration(self.seconds)}"
        found = f"{monitor} {self.value:.4f} (epoch {self.best_epoch} of {self.epochs}), {duration(self.seconds)}"
        return f"{found}, the best so far" if self.best else found


@dataclass(frozen=True)
class TuneRecord:
    """A tune as far as it is.

    Attributes:
        name: of its folder.
        recipe: the recipe's file.
        monitor: the value that chooses, of the validation split.
        larger_is_better: its direction.
        search: what is searched, by path, as it was written.
        logarithmic: the paths that are searched evenly in the logarithm.
        choices: the values of the paths that take one of several, as they are written.
        sampler: what proposes trials.
        pruning: what ends them early.
        outcomes: of all trials, in their order.
        best: the number of the best completed trial; None without one.
        importances: each setting's share in how good a trial is, the largest first; empty of few trials.
        remarks: what to know besides.
    """

    name: str
    recipe: str
    monitor: str
    larger_is_better: bool
    search: Mapping[str, str]
    logarithmic: tuple[str, ...]
    choices: Mapping[str, Sequence[str]]
    sampler: str
    pruning: str
    outcomes: tuple[Outcome, ...]
    best: int | None
    importances: Mapping[str, float]
    remarks: tuple[str, ...]

    def of_state(self, state: State) -> list[Outcome]:
        return [one for one in self.outcomes if one.state == state]

    def ranked(self) -> list[Outcome]:
        """Return the completed trials from the best on, then the others in their order."""
        sign = -1.0 if self.larger_is_better else 1.0
        completed = sorted(self.of_state("completed"), key=lambda one: sign * (one.value or 0.0))
        return [*completed, *(one for one in self.outcomes if one.state != "completed")]

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def record_of(plan: TunePlan, folder: TuneFolder, shared: SharedStudy) -> TuneRecord:
    """Return what a folder holds."""
    best = shared.best()
    trials = [one for one in shared.study.trials if one.state.name in _STATES]
    return TuneRecord(
        name=folder.path.absolute().name,
        recipe=plan.recipe.source,
        monitor=plan.monitor,
        larger_is_better=plan.larger_is_better,
        search={axis.path: str(axis) for axis in plan.axes},
        logarithmic=tuple(axis.path for axis in plan.axes if isinstance(axis, Range) and axis.scale == "log"),
        choices={axis.path: tuple(map(written_as, axis.values)) for axis in plan.axes if isinstance(axis, Choices)},
        sampler=plan.sampler,
        pruning=plan.pruning,
        outcomes=tuple(outcome_of(one, folder.run(one.number), best) for one in trials),
        best=best.number if best else None,
        importances=shared.importances(),
        remarks=tuple(plan.remarks()),
    )


def outcome_of(trial: FrozenTrial, run: RunDirectory, best: FrozenTrial | None) -> Outcome:
    """Return how a trial ended, or how far it is."""
    results = content(run.results)
    values = tuple(trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values))
    value = trial.value if trial.state.name == "COMPLETE" else results.get("best_value")
    return Outcome(
        number=trial.number,
        state=_STATES[trial.state.name],
        parameters=dict(trial.params),
        value=value,
        best_epoch=int(results.get("best_epoch") or 0),
        epochs=len(values),
        seconds=seconds_of(run),
        reason=str(trial.user_attrs.get(REASON, "")),
        values=values,
        run=str(run.path),
        best=best is not None and best.number == trial.number,
    )


def seconds_of(run: RunDirectory) -> float:
    """Return how long a run has trained, by its history."""
    return sum(row.get("seconds", 0.0) for row in epochs_of(run))


def format_values(values: Mapping[str, Any]) -> str:
    """Return settings as "optimizer.lr=0.00123 loss=lovasz"; numbers with four significant digits."""
    return " ".join(f"{path}={format_setting(value)}" for path, value in values.items())


def format_setting(value: Any) -> str:
    """Return one setting."""
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else written_as(value)


def format_record(record: TuneRecord, folder: TuneFolder) -> list[Block]:
    """Return what a tune prints at its end."""
    counts = [f"{len(found)} {state}" for state in ("completed", "pruned", "failed", "running")
              if (found := record.of_state(state))]  # fmt: skip
    lines: list[Block] = ["", f"trials: {', '.join(counts) or 'none yet'}"]
    if record.best is None:
        return [*lines, "no trial has been completed, so that none is the best"]
    shown = record.ranked()[:_MOST_ROWS]
    lines.append(_table(record, shown))
    if len(record.outcomes) > len(shown):
        lines.append(f"the other {len(record.outcomes) - len(shown)} are on the page")
    best = next(one for one in record.outcomes if one.best)
    lines.append(f"best: {name_of(best.number)}, {record.monitor} {best.value:.4f}: {format_values(best.parameters)}")
    if record.importances:
        shares = ", ".join(f"{path} {share:.0%}" for path, share in record.importances.items())
        lines.append(f"importance by PED-ANOVA over {len(record.of_state('completed'))} completed trials: {shares}")
    lines.append(
        "It was chosen on the validation images, so its value there is optimistic. No test image has been scored;"
    )
    return [*lines, f"segreg run {folder.best} trains the best recipe and does that."]


def _table(record: TuneRecord, shown: Sequence[Outcome]) -> Table:
    columns = [
        Column("trial", right=True), Column(record.monitor, right=True), Column("state"),
        *(Column(path) for path in record.search),
        Column("epochs", right=True, spare=1), Column("time", right=True, spare=2),
    ]  # fmt: skip
    rows = [
        [
            str(one.number), "" if one.value is None else f"{one.value:.4f}", one.state,
            *(format_setting(one.parameters.get(path)) for path in record.search),
            str(one.epochs), duration(one.seconds),
        ]
        for one in shown
    ]  # fmt: skip
    return Table(columns, rows)
