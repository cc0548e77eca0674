"""Run a bench on this machine: a process for each run, as many at a time as asked for."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.trials import Cell
from segreg.benchmark.bench.worker import Place, work
from segreg.benchmark.pool import how_it_ended, processes

_LOOK = 1.0
"""Seconds between two looks at the runs."""
_PATIENCE = 60.0
"""Seconds that a run is given to stop after its last finished epoch."""


@dataclass
class _Going:
    cell: Cell
    process: Any
    pipe: Connection
    gpu: str


def run_locally(
    cells: Sequence[Cell], folder: BenchFolder, *, jobs: int, gpus: Sequence[str], look: Callable[[], None]
) -> None:
    """Bring every run to its end that is neither finished nor failed; what other processes are at is waited for.

    A process that dies is a failed run, and the others continue. Where this process is interrupted, the runs stop after
    their last finished epoch, and a later call continues with them.

    Args:
        cells: the runs, in the order in which they are begun.
        folder: the bench's.
        jobs: runs at the same time.
        gpus: names of GPUs that are dealt out among the runs; none leaves every run to its recipe.
        look: is called about once a second.
    """
    going: list[_Going] = []
    start = processes().Process
    # One run at a time has what PyTorch takes by itself; several share.
    threads = max(1, cores() // jobs) if jobs > 1 and "OMP_NUM_THREADS" not in os.environ else None
    died: dict[str, int] = {}
    try:
        while True:
            for one in [one for one in going if not one.process.is_alive()]:
                one.process.join()
                one.pipe.close()
                going.remove(one)
                _note_death(one, folder, died)
            mine = {one.cell.name for one in going}
            states = {cell.name: folder.state(cell) for cell in cells}
            open_cells = [cell for cell in cells if states[cell.name] in ("waiting", "stopped", "running")]
            free = [cell for cell in open_cells if cell.name not in mine and states[cell.name] != "running"]
            while free and len(going) < jobs:
                gpu = least_busy(gpus, [one.gpu for one in going])
                going.append(_begin(free.pop(0), folder, start, Place(threads, gpu)))
            look()
            if not open_cells and not going:
                return
            time.sleep(_LOOK if going else 2 * _LOOK)
    finally:
        _stop(going)


def least_busy(gpus: Sequence[str], taken: Sequence[str]) -> str:
    """Return the first of the GPUs that the fewest runs have; an empty text where there is none."""
    return min(gpus, key=taken.count, default="")


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(cell: Cell, folder: BenchFolder, start: Callable[..., Any], place: Place) -> _Going:
    theirs, ours = multiprocessing.Pipe(duplex=False)
    arguments = (theirs, folder.recipe(cell), folder.run(cell).path, folder.log(cell), place)
    process = start(target=work, args=arguments)
    process.start()
    theirs.close()
    return _Going(cell, process, ours, place.gpu)


def _note_death(one: _Going, folder: BenchFolder, died: dict[str, int]) -> None:
    """Write down a run whose process ended without telling why."""
    code = one.process.exitcode
    if folder.state(one.cell) in ("finished", "failed", "running"):
        return
    died[one.cell.name] = died.get(one.cell.name, 0) + 1
    if code != 0 or died[one.cell.name] > 1:
        folder.fail(one.cell.name, how_it_ended(code) if code else "its process ended before the run did")


def _stop(going: Sequence[_Going]) -> None:
    for one in going:
        with contextlib.suppress(OSError):
            one.process.terminate()
    until = time.monotonic() + _PATIENCE
    for one in going:
        one.process.join(max(0.0, until - time.monotonic()))
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
