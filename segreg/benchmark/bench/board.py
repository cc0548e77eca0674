"""How far a bench is: a table that changes on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.trials import Cell
from segreg.errors import SegregError
from segreg.runtime.progress import duration
from segreg.training import history

if TYPE_CHECKING:
    from rich.table import Table

EVERY = 60.0
"""Seconds between two lines where nothing ended."""
_MOST_ROWS = 30


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        cell: the run.
        state: waiting, running, stopped, finished or failed.
        epoch: epochs that were finished.
        value: the best value of what chooses its epoch; None before there is one.
        speed: images a second in its last epoch.
        seconds: of all epochs.
    """

    cell: Cell
    state: str
    epoch: int = 0
    value: float | None = None
    speed: float = 0.0
    seconds: float = 0.0


def standing_of(cell: Cell, folder: BenchFolder) -> Standing:
    """Return how far a run is, as its files tell."""
    state = folder.state(cell)
    try:
        rows = history.read(folder.run(cell).path)
    except (SegregError, OSError):
        rows = []
    if not rows:
        return Standing(cell, state)
    name = cell.recipe.train.monitor
    values = [row[name] for row in rows if name in row and row[name] == row[name]]
    best = (min if "loss" in name else max)(values) if values else None
    seconds = sum(row.get("seconds", 0.0) for row in rows)
    return Standing(cell, state, len(rows), best, rows[-1].get("images_per_second", 0.0), seconds)


@contextmanager
def board(
    cells: Sequence[Cell], folder: BenchFolder, stream: TextIO, mode: Literal["auto", "lines", "quiet"] = "auto"
) -> Iterator[Callable[[], None]]:
    """Return what is to be called now and then, and shows how far the runs are.

    Args:
        cells: the runs.
        folder: the bench's.
        stream: where to.
        mode: "auto" is a table on a terminal and lines elsewhere.
    """
    if mode == "quiet":
        yield lambda: None
    elif mode == "auto" and stream.isatty():
        with _moving(cells, folder, stream) as look:
            yield look
    else:
        yield _Lines(cells, folder, stream)


class _Lines:
    """Write a line when a run begins or ends, and one now and then between."""

    def __init__(self, cells: Sequence[Cell], folder: BenchFolder, stream: TextIO) -> None:
        self.cells, self.folder, self.stream = cells, folder, stream
        self.before: dict[str, str] = {cell.name: folder.state(cell) for cell in cells}
        self.told = time.monotonic()
        done = sum(state in ("finished", "failed") for state in self.before.values())
        self.say(f"{len(cells)} runs" + (f", {done} of them done before" if done else ""))

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def __call__(self) -> None:
        leaderboard = [standing_of(cell, self.folder) for cell in self.cells]
        for one in leaderboard:
            if one.state != self.before[one.cell.name]:
                self.before[one.cell.name] = one.state
                self.told = time.monotonic()
                self.say(f"  {one.cell.title}: {self.ended(one)}")
        if time.monotonic() - self.told >= EVERY:
            self.told = time.monotonic()
            self.say("  " + summary(leaderboard))

    def ended(self, one: Standing) -> str:
        if one.state == "failed":
            return f"failed: {self.folder.reason(one.cell)}"
        return f"finished in {duration(one.seconds)}" if one.state == "finished" else one.state


def summary(leaderboard: Sequence[Standing]) -> str:
    """Return how many are where, and how long the rest may take at the speed so far."""
    done = [one for one in leaderboard if one.state == "finished"]
    failed = sum(one.state == "failed" for one in leaderboard)
    going = [one for one in leaderboard if one.state == "running"]
    words = [f"{len(done)}/{len(leaderboard)} finished"]
    if failed:
        words.append(f"{failed} failed")
    words += [f"{one.cell.title} at epoch {one.epoch}/{one.cell.recipe.train.epochs}" for one in going[:4]]
    left = time_left(leaderboard)
    if left is not None:
        words.append(f"about {duration(left)} of training left")
    return ", ".join(words)


def time_left(leaderboard: Sequence[Standing]) -> float | None:
    """Return seconds of training that are left, of one run after the other: what finished ones took, for each left."""
    took = [one.seconds for one in leaderboard if one.state == "finished"]
    ahead = [one for one in leaderboard if one.state in ("waiting", "running", "stopped")]
    if not took or not ahead:
        return None
    mean = sum(took) / len(took)
    return sum(max(0.0, mean * (1 - one.epoch / one.cell.recipe.train.epochs)) for one in ahead)


@contextmanager
def _moving(cells: Sequence[Cell], folder: BenchFolder, stream: TextIO) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(file=stream), auto_refresh=False) as live:

        def look() -> None:
            live.update(_table([standing_of(cell, folder) for cell in cells]), refresh=True)

        look()
        yield look
        look()


def _table(leaderboard: Sequence[Standing]) -> Table:
    from rich.table import Table
    from rich.text import Text

    colours = {"finished": "green", "failed": "red", "running": "cyan", "stopped": "yellow"}
    table = Table(box=None, pad_edge=False, caption=summary(leaderboard), caption_justify="left")
    for column in ("model", "seed", "state", "epoch", "best", "images/s", "time"):
        table.add_column(column, justify="left" if column in ("model", "state") else "right")
    order = {"running": 0, "stopped": 1, "failed": 2, "waiting": 3, "finished": 4}
    shown = leaderboard
    if len(leaderboard) > _MOST_ROWS:  # what moves is what is looked at
        shown = sorted(leaderboard, key=lambda one: order[one.state])[:_MOST_ROWS]
    for one in shown:
        table.add_row(
            Text(one.cell.model), str(one.cell.seed), Text(one.state, style=colours.get(one.state, "")),
            f"{one.epoch}/{one.cell.recipe.train.epochs}" if one.epoch else "",
            "" if one.value is None else f"{one.value:.4f}",
            f"{one.speed:.1f}" if one.epoch else "", duration(one.seconds) if one.epoch else "",
        )  # fmt: skip
    return table
