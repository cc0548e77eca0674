"""Run a matrix: a process for each encoder, several at a time, and what becomes of one that ends too soon."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from segreg.benchmark.matrix.record import Cell, Finished, Row
from segreg.benchmark.matrix.worker import work
from segreg.benchmark.pool import how_it_ended, processes


@dataclass(frozen=True)
class Task:
    """An encoder and the decoders that it is to be tried with, all by name.

    Attributes:
        encoder: its name.
        decoders: their names.
        family: that the encoder is told under.
        versions: of the packages that they come from.
    """

    encoder: str
    decoders: tuple[str, ...]
    family: str
    versions: dict[str, str]


@dataclass
class _Going:
    """A task's process and what it has told so far."""

    task: Task
    process: Any
    pipe: Connection
    heard: float
    silent: bool = False
    row: Row | None = None
    cells: list[Cell] = field(default_factory=list)


def run(
    tasks: Sequence[Task],
    *,
    jobs: int,
    timeout: float,
    finished: Callable[[Finished], None],
    told: Callable[[str, int], None],
) -> None:
    """Run every task.

    A process that dies or is silent for too long costs the cell that it was at; another one continues behind it. Where
    not even the encoder was built, all cells of it fail.

    Args:
        tasks: what to run.
        jobs: how many processes at a time.
        timeout: seconds that a process may take for one cell.
        finished: is given each encoder as soon as all of its cells are known.
        told: is given an encoder's name and how many cells of it have come to an end since.
    """
    waiting = list(reversed(tasks))
    going: dict[str, _Going] = {}
    start = processes().Process
    try:
        while waiting or going:
            while waiting and len(going) < jobs:
                task = waiting.pop()
                going[task.encoder] = _begin(task, start)
            wait([one.pipe for one in going.values()], timeout=1.0)
            for one in list(going.values()):
                before = len(one.cells)
                _listen(one)
                if reason := _ended(one, timeout):
                    _give_up(one, reason)
                told(one.task.encoder, len(one.cells) - before)
                if not reason:
                    continue
                if rest := _missing(one):
                    going[one.task.encoder] = _begin(replace(one.task, decoders=tuple(rest)), start, one)
                    continue
                del going[one.task.encoder]
                finished(_result(one))
    finally:
        for one in going.values():
            one.process.kill()
            one.process.join()


def _begin(task: Task, start: Callable[..., Any], before: _Going | None = None) -> _Going:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = start(target=work, args=(theirs, task.encoder, task.decoders, task.family), daemon=True)
    process.start()
    theirs.close()
    now = time.monotonic()
    if before is None:
        return _Going(task, process, ours, now)
    return replace(before, task=task, process=process, pipe=ours, heard=now, silent=False)


def _listen(one: _Going) -> None:
    """Take what has come from a process."""
    try:
        while one.pipe.poll():
            found = one.pipe.recv()
            one.heard = time.monotonic()
            if isinstance(found, Row):
                one.row = found
            else:
                one.cells.append(found)
    except (EOFError, OSError):
        one.silent = True


def _ended(one: _Going, timeout: float) -> str:
    """Return how a process came to its end, in words; an empty text while it runs."""
    late = time.monotonic() - one.heard > timeout
    if not one.silent and not late:
        return ""
    if late:
        one.process.kill()
    one.process.join()
    one.pipe.close()
    return f"it took longer than {timeout:g} s" if late else how_it_ended(one.process.exitcode)


def _missing(one: _Going) -> list[str]:
    there = {cell.decoder for cell in one.cells}
    return [name for name in one.task.decoders if name not in there]


def _give_up(one: _Going, reason: str) -> None:
    """Write down the cell that the process was at, if any; all of them where the encoder itself was not built."""
    missing = _missing(one)
    if one.row is None:
        one.row = Row(one.task.encoder, one.task.family, reason=reason)
        one.cells += [Cell(one.task.encoder, decoder, "the encoder is built", reason) for decoder in missing]
    else:
        one.cells += [Cell(one.task.encoder, decoder, "it comes to an end", reason) for decoder in missing[:1]]


def _result(one: _Going) -> Finished:
    assert one.row is not None
    return Finished(one.row, tuple(one.cells), one.task.versions)
