"""Run a bench on this machine: a process for each run, as many at a time as asked for."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from segreg.benchmark.bench.folder import BenchFolder, finished
from segreg.benchmark.bench.trials import Trial, source_of
from segreg.benchmark.earlier import with_data_of
from segreg.benchmark.pool import Send, Worker, stop
from segreg.config.recipe import read_recipe
from segreg.config.resolve import resolve
from segreg.errors import SegregError, listed
from segreg.registry.registry import load_registry
from segreg.runs.directory import RunDirectory
from segreg.runs.environment import sources
from segreg.runs.run import resume_run, start_run
from segreg.runs.trained_run import Run
from segreg.runtime.device import cores
from segreg.runtime.files import write_json
from segreg.runtime.progress import progress

if TYPE_CHECKING:
    from segreg.training.trainer import Stop

_POLL_SECONDS = 1.0
PATIENCE = 60.0
"""Seconds that a run has to stop after its last finished epoch."""


@dataclass
class _Running:
    trial: Trial
    worker: Worker
    gpu: str


def run_locally(
    trials: Sequence[Trial], folder: BenchFolder, *, jobs: int, gpus: Sequence[str], refresh: Callable[[], None]
) -> None:
    """Finish every run that has neither finished nor failed.

    A process that dies is a failed run, and the others continue. Where this process is interrupted, the runs stop after
    their last finished epoch, and a later call continues with them. It waits for those that a killed process started,
    which stop in the same way.

    Args:
        trials: the runs, in the order in which they start.
        folder: the bench's.
        jobs: runs at the same time.
        gpus: names of GPUs to distribute among the runs; none leaves the device to the recipes.
        refresh: called about once a second.
    """
    running: list[_Running] = []
    # A run alone has as many threads as PyTorch takes by default; several share the cores.
    threads = max(1, cores() // jobs) if jobs > 1 and "OMP_NUM_THREADS" not in os.environ else None
    try:
        while True:
            for one in list(running):
                one.worker.poll()
                if one.worker.reason is not None:
                    stop([one.worker])
                    running.remove(one)
                    folder.working.discard(one.trial.name)
                    _record_exit(one, folder)
            states = {trial.name: folder.state(trial) for trial in trials}
            free = [trial for trial in trials if states[trial.name] in ("waiting", "stopped")]
            for trial in free[: jobs - len(running)]:
                gpu = least_busy(gpus, [one.gpu for one in running])
                what = folder.recipe(trial.name), folder.run(trial).path, trial.source
                worker = Worker(_work, *what, threads, gpu, log=folder.log(trial.name))
                running.append(_Running(trial, worker, gpu))
                folder.working.add(trial.name)
            refresh()
            if not free and "running" not in states.values():
                return
            time.sleep(_POLL_SECONDS)
    finally:
        stop([one.worker for one in running], patience=PATIENCE)
        folder.working.clear()


def least_busy(gpus: Sequence[str], taken: Sequence[str]) -> str:
    """Return the first of the GPUs that the fewest runs have; an empty string without GPUs."""
    return min(gpus, key=taken.count, default="")


def _record_exit(one: _Running, folder: BenchFolder) -> None:
    """Record the failure of a run whose process ended without writing one."""
    if folder.state(one.trial) not in ("finished", "failed"):
        reason = one.worker.reason if one.worker.exitcode else "its process ended before the run did"
        folder.fail(one.trial.name, str(reason))


def _work(_: Send, recipe: Path, run: Path, source: str, threads: int | None, gpu: str) -> None:
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    work_on(recipe, run, source)


def work_on(recipe: Path, run: Path, source: str, stop: Stop | None = None) -> None:
    """Start a run or continue it, unless it has finished.

    Its output is appended to a log next to the recipe; where it fails, a file there has the reason.

    Args:
        recipe: file with its complete recipe.
        run: its directory.
        source: the digest of the source of its plugins as it was when all of this began.
        stop: may end its training after an epoch.
    """
    directory = RunDirectory(run)
    if finished(directory):
        return
    registry = load_registry()
    with recipe.with_suffix(".log").open("a", encoding="utf-8") as log:
        shown = progress("lines", log)
        try:
            read = read_recipe(recipe)
            resolved = resolve(read, registry)
            if source_of(resolved) != source:
                raise SegregError(
                    f"the source of {listed(list(sources(resolved)))} is not the one that this began with",
                    hint="the plugin was edited meanwhile, or this machine has another; start again",
                )
            if directory.resolved.exists():
                overrides = with_data_of(resolved.plain(), Run(directory)).overrides
                resume_run(run, registry, shown, overrides=overrides, stop=stop)
            else:
                start_run(read, resolved, registry, at=run, progress=shown, stop=stop)
        except SegregError as error:
            _fail(recipe, "\n".join(str(problem) for problem in error.problems), log)
        except Exception as error:  # one run that fails is a row of the table, not the end of the bench
            traceback.print_exc(file=log)
            reason = (str(error).strip() or "no reason is given").splitlines()[0]
            _fail(recipe, f"{type(error).__name__}: {reason}; see the log for the traceback", log)


def _fail(recipe: Path, reason: str, log: TextIO) -> None:
    print(f"failed: {reason}", file=log, flush=True)
    write_json(recipe.with_suffix(".failed.json"), {"reason": reason})
