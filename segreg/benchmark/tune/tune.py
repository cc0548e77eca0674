"""The loop of a tune: take a trial, run it in a process of its own, and write down the best, until the budget is used.

A trial belongs to the process that holds its lock, which the system releases when that process ends in any way. So
whoever comes next sees at once which trials were left behind, and continues with them; Optuna's heartbeats, which
would show it after a minute or more, are not needed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.benchmark.bench.folder import content, epochs_of, finished
from segreg.benchmark.bench.local import PATIENCE, work_on
from segreg.benchmark.bench.trials import source_of
from segreg.benchmark.cost import running
from segreg.benchmark.cost.record import NetworkSpec
from segreg.benchmark.pool import Send, Worker, stop
from segreg.benchmark.tune.folder import TuneFolder, name_of
from segreg.benchmark.tune.plan import TunePlan, differences, one_by_one
from segreg.benchmark.tune.record import Outcome, TuneRecord, format_values, outcome_of, record_of, seconds_of
from segreg.benchmark.tune.study import PRUNED, Pruning, SharedStudy
from segreg.errors import SegregError, listed, plural
from segreg.models import build
from segreg.runs.directory import RunDirectory
from segreg.runs.trained_run import Run
from segreg.runtime.files import read_json, write_json, write_text
from segreg.runtime.lock import is_locked
from segreg.runtime.progress import Progress
from segreg.settings import format_value

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from optuna.trial import FrozenTrial

    from segreg.config.resolve import Resolved

_MOST_FAILURES = 3
"""Trials that may fail one after the other where none has been completed."""
_MOST_IN_A_ROW = 10
"""The same with a budget in minutes, of which trials that fail at once use nothing."""


@dataclass(frozen=True)
class TuneBudget:
    """How much is tried in all, by all processes and whenever they run: trials, or minutes of training.

    Raises:
        SegregError: the amount is not valid.
    """

    unit: Literal["trials", "minutes"]
    amount: float

    def __post_init__(self) -> None:
        least, types, what = (1, int, "whole number") if self.unit == "trials" else (0.01, (int, float), "number")
        if not isinstance(self.amount, types) or isinstance(self.amount, bool) or not least <= self.amount < math.inf:
            raise SegregError(f"{self.unit} must be a {what}, at least {least}, not {format_value(self.amount)}")

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"


def open_tune(plan: TunePlan, folder: TuneFolder) -> SharedStudy:
    """Return the study of a folder, which is made where it is missing.

    Raises:
        SegregError: the folder has another tune, or can't be used.
    """
    folder.make()
    with folder.deciding():
        if not folder.plan.exists():
            write_json(folder.plan, plan.as_data())
        elif found := differences(plan, read_json(folder.plan), lambda: _has_data_of(plan, folder)):
            raise SegregError(
                f"{folder.path} is another tune:\n" + "\n".join(f"  {line}" for line in found),
                hint="nothing was changed; --out names another folder for this one",
            )
        shared = SharedStudy(folder.study, larger_is_better=plan.larger_is_better)
        begun = len(shared.study.trials)
        if strange := sorted(str(run) for run in folder.runs.glob("trial-*") if _number_of(run) >= begun):
            raise SegregError(
                f"{folder.study} has {plural(begun, 'trial')}, without that of {listed(strange, quote='', most=3)}",
                hint="bring back the study.db that these runs belong to, or name another folder with --out",
            )
        return shared


def _number_of(run: Path) -> int:
    digits = run.name.removeprefix("trial-")
    return int(digits) if digits.isdecimal() and digits.isascii() else -1


def _has_data_of(plan: TunePlan, folder: TuneFolder) -> bool:
    """Whether the plan's data are those of the first trial that has begun."""
    from segreg.runs.assembly import is_data_of

    for run in map(RunDirectory, sorted(folder.runs.glob("*"))):
        if run.environment.exists():
            own = replace(Run(run).recipe, dataset=plan.resolved.dataset, split=plan.resolved.split)
            return is_data_of(own, run)
    return True


def tune(plan: TunePlan, folder: TuneFolder, budget: TuneBudget, progress: Progress) -> bool:
    """Run trials until the budget is used, and return whether that was interrupted by Ctrl-C.

    Several processes may do so at once in one folder. Trials that a process left behind are continued first.

    Raises:
        SegregError: the folder has another tune, or the first trials all fail, or of a budget in minutes many in a row.
    """
    shared = open_tune(plan, folder)
    failures = 0
    for line in _header(plan, folder, shared, budget):
        progress.say(line)
    try:
        while (claim := _next(plan, folder, shared, budget)) is not None:
            try:
                outcome = _work(claim, plan, folder, shared, progress)
            finally:
                claim.lock.release()
            progress.say(f"  {outcome.sentence(plan.monitor)}")
            failures = failures + 1 if outcome.state == "failed" else 0
            none = shared.best() is None
            most = _MOST_FAILURES if none else _MOST_IN_A_ROW if budget.unit == "minutes" else math.inf
            if failures == most:
                raise SegregError(
                    f"the {'first' if none else 'last'} {failures} trials failed; the last: {outcome.reason}",
                    hint=f"their logs are in {folder.trials}; the same command tries the next ones",
                )
    except KeyboardInterrupt:
        progress.say("interrupted; the same command continues")
        return True
    return False


def _header(plan: TunePlan, folder: TuneFolder, shared: SharedStudy, budget: TuneBudget) -> list[str]:
    direction = "larger" if plan.larger_is_better else "smaller"
    lines = [
        f"tune {folder.path}: {budget} in all, {plan.sampler} sampler, pruning {plan.pruning}",
        *(f"  {axis.path}: {axis}" for axis in plan.axes),
        f"chosen by {plan.monitor} ({direction} is better): the validation split alone; no test image is scored",
        *plan.remarks(),
    ]
    begun = shared.begun()
    ended = sum(one.state.name != "RUNNING" for one in begun)
    return [*lines, *([f"done before: {ended} of the trials"] if ended else [])]


@dataclass(frozen=True)
class _Claim:
    """A trial that this process has taken; `continues` says whether its run has begun before."""

    trial: FrozenTrial
    lock: BaseFileLock
    continues: bool


def _next(plan: TunePlan, folder: TuneFolder, shared: SharedStudy, budget: TuneBudget) -> _Claim | None:
    """Take a trial that was left behind, or ask for a new one; None where the budget is used."""
    with folder.deciding():
        for trial in shared.running():
            if any(axis.path not in trial.params for axis in plan.axes):
                # Optuna writes one setting after the other, and only who holds this lock asks it.
                shared.ask_again(trial.number, "its process ended before all settings were proposed")
            elif lock := folder.claim(trial.number):
                return _Claim(trial, lock, folder.run(trial.number).resolved.exists())
        begun = shared.begun()
        if budget.unit == "trials" and len(begun) >= budget.amount:
            return None
        if budget.unit == "minutes" and sum(seconds_of(folder.run(one.number)) for one in begun) >= 60 * budget.amount:
            return None
        trial = shared.ask(plan.axes, plan.sampler, plan.resolved.seed)
        lock = folder.claim(trial.number)
        assert lock is not None, "nobody else asks meanwhile"
        return _Claim(trial, lock, continues=False)


def _work(claim: _Claim, plan: TunePlan, folder: TuneFolder, shared: SharedStudy, progress: Progress) -> Outcome:
    """Run a trial, or the rest of it, and write down how it ended."""
    number = claim.trial.number
    run = folder.run(number)
    while is_locked(run.path):  # the trial of a process that was killed, which stops by itself
        time.sleep(0.2)
    rows = len(epochs_of(run))
    continued = f"continues after epoch {rows}" if rows else "continues" if claim.continues else ""
    about = f"{name_of(number)}: {format_values(plan.values(claim.trial.params))}"
    progress.say(f"{about} ({continued})" if continued else about)
    reason = ""
    if not folder.failure(name_of(number)).exists() and not finished(run):
        try:
            recipe = plan.trial(claim.trial.params)
        except SegregError as error:
            reason = "\n".join(problem.message for problem in error.problems)
        else:
            folder.write_recipe(name_of(number), recipe)
            reason = _run(number, recipe, plan, folder, progress)
    with folder.deciding():
        outcome = _end(claim, reason, plan, folder, shared)
        if outcome.state == "completed":  # also where another stays the best: it is the best of more
            write_best(plan, folder, shared)
    return outcome


@dataclass(frozen=True)
class _Terms:
    """What a trial's process has to know besides its recipe."""

    monitor: str
    larger_is_better: bool
    epochs: int
    pruning: Pruning
    source: str


def _run(number: int, recipe: Resolved, plan: TunePlan, folder: TuneFolder, progress: Progress) -> str:
    """Run a trial in a process of its own, and return how that ended; it matters where the run is not finished."""
    terms = _Terms(plan.monitor, plan.larger_is_better, recipe.train.epochs, plan.pruning, source_of(recipe))
    worker = Worker(_in_worker, folder.path, number, terms, log=folder.log(name_of(number)))
    try:
        with progress.watch(name_of(number), terms.epochs, "epochs") as advance:
            advance(len(epochs_of(folder.run(number))))
            for value in worker.messages():
                advance(1, f"{plan.monitor} {value:.4f}")
    finally:
        stop([worker], patience=PATIENCE)
    return "its process ended before the run did" if worker.exitcode == 0 else str(worker.reason)


def _in_worker(send: Send, path: Path, number: int, terms: _Terms) -> None:
    folder = TuneFolder(path)
    shared = SharedStudy(folder.study, larger_is_better=terms.larger_is_better)
    judge = shared.judge(number, monitor=terms.monitor, epochs=terms.epochs, pruning=terms.pruning)

    def after_epoch(epoch: int, values: Mapping[str, float]) -> str | None:
        try:
            send(float(values[terms.monitor]))
        except OSError:  # whoever started this was killed, and SIGTERM is about to say so
            raise KeyboardInterrupt from None
        return judge(epoch, values)

    work_on(folder.recipe(name_of(number)), folder.run(number).path, terms.source, after_epoch)


def _end(claim: _Claim, reason: str, plan: TunePlan, folder: TuneFolder, shared: SharedStudy) -> Outcome:
    """Tell the study how a trial ended, and return it."""
    number, run = claim.trial.number, folder.run(claim.trial.number)
    results = content(run.results) if finished(run) else {}
    value = results.get("best_value")
    failed = str(content(folder.failure(name_of(number))).get("reason", "")) or ("" if results else reason)
    if results and value is None:
        failed = f"{plan.monitor} was never defined"
    if failed and claim.continues:
        # What broke may be the run's files rather than its settings, so that these get another chance from the start.
        shared.ask_again(number, failed)
    elif failed:
        shared.fail(number, failed)
    elif str(results["stopped_because"]).startswith(PRUNED):
        shared.prune(number, str(results["stopped_because"]))
    else:
        shared.complete(number, float(value))  # type: ignore[arg-type]
    return outcome_of(shared[number], run, shared.best())


def write_best(plan: TunePlan, folder: TuneFolder, shared: SharedStudy) -> None:
    """Write the recipe with the best trial's settings, and what is known of that trial above it."""
    best = shared.best()
    assert best is not None
    completed = sum(one.state.name == "COMPLETE" for one in shared.study.trials)
    values = plan.values(best.params)
    epoch = content(folder.run(best.number).results).get("best_epoch")
    header = [
        f"The best of {completed} completed trials of a tune of {plan.recipe.source}: {name_of(best.number)},",
        f"{plan.monitor} {best.value:.6g} at epoch {epoch}, which is optimistic: the best of several,",
        "on the images by which it was chosen.",
        f"The test images were not scored: segreg run {folder.best} does so in the end.",
        *(f"{format_values({axis.path: values[axis.path]})}, searched {axis}" for axis in plan.axes),
    ]
    write_text(folder.best, plan.with_settings(values).yaml(header="\n".join(header)))


def check_models(plan: TunePlan, progress: Progress) -> list[str]:
    """Build and train each network that the search may propose, one setting changed at a time; return what fails."""
    task = build.build_dataset(plan.resolved).task
    specs: dict[str, tuple[Mapping[str, Any], NetworkSpec]] = {}
    for values in one_by_one(plan.axes):
        spec = NetworkSpec.of(plan.with_settings(values), task)
        specs.setdefault(spec.network + str(spec.recipe["loss"]), (values, spec))
    wrong = []
    with progress.watch("checking that every model trains", len(specs), "models") as advance:
        for settings, spec in specs.values():
            if reason := running.check_memory(spec):
                wrong.append(f"{format_values(settings)}: {reason}")
            advance(note=format_values(settings))
    return wrong


def finish(plan: TunePlan, folder: TuneFolder) -> TuneRecord:
    """Return what a tune's folder holds, and write the best recipe, which a killed process may not have done."""
    shared = open_tune(plan, folder)
    with folder.deciding():
        if shared.best() is not None:
            write_best(plan, folder, shared)
    return record_of(plan, folder, shared)
