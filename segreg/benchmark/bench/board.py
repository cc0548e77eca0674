"""The state of a bench's runs: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TextIO

from segreg.benchmark.bench.folder import BenchFolder, epochs_of
from segreg.benchmark.bench.trials import Trial
from segreg.benchmark.monitor import larger_is_better
from segreg.config.resolve import Resolved
from segreg.errors import SegregError, plural
from segreg.runtime.layout import Column, Styled, Table
from segreg.runtime.progress import duration

EVERY = 60.0
"""Seconds between two lines if no run starts or ends."""
_MOST_ROWS = 30


@dataclass(frozen=True)
class TrialProgress:
    """How far a run is.

    Attributes:
        state: waiting, running, stopped, finished or failed.
        epoch: number of finished epochs.
        value: the best value of the monitored metric; None before there is one.
        speed: images a second in its last epoch.
        seconds: of all epochs.
    """

    trial: Trial
    state: str
    epoch: int = 0
    value: float | None = None
    speed: float = 0.0
    seconds: float = 0.0


def progress_of(trial: Trial, folder: BenchFolder, best: Callable[[Sequence[float]], float] = max) -> TrialProgress:
    """Return how far a run is, from its files; `best` returns the best of some values."""
    state, rows = folder.state(trial), epochs_of(folder.run(trial))
    if not rows:
        return TrialProgress(trial, state)
    name = trial.recipe.train.monitor
    values = [row[name] for row in rows if name in row and row[name] == row[name]]
    seconds = sum(row.get("seconds", 0.0) for row in rows)
    speed = rows[-1].get("images_per_second", 0.0)
    return TrialProgress(trial, state, len(rows), best(values) if values else None, speed, seconds)


def followed(trials: Sequence[Trial], folder: BenchFolder) -> Callable[[], list[TrialProgress]]:
    """Return a function that returns how far the runs are; one that has finished is read once."""
    recipes = {trial.recipe.train.monitor: trial.recipe for trial in trials}
    best: dict[str, Callable[[Sequence[float]], float]] = {
        monitor: max if _larger_is_better(recipe) else min for monitor, recipe in recipes.items()
    }
    known: dict[str, TrialProgress] = {}

    def rows() -> list[TrialProgress]:
        for trial in trials:
            if trial.name not in known or known[trial.name].state != "finished":
                known[trial.name] = progress_of(trial, folder, best[trial.recipe.train.monitor])
        return [known[trial.name] for trial in trials]

    return rows


def _larger_is_better(recipe: Resolved) -> bool:
    try:
        return larger_is_better(recipe)
    except SegregError:  # each run reports it
        return True


@contextmanager
def board(
    trials: Sequence[Trial], folder: BenchFolder, stream: TextIO, mode: Literal["auto", "lines", "quiet"] = "auto"
) -> Iterator[Callable[[], None]]:
    """Show how far the runs are; the context is a function that updates it.

    The mode "auto" is a live table on a terminal and lines elsewhere.
    """
    if mode == "quiet":
        yield lambda: None
    elif mode == "auto" and stream.isatty():
        with _live(trials, folder, stream) as refresh:
            yield refresh
    else:
        yield _Lines(trials, folder, stream)


class _Lines:
    """Print a line when a run starts or ends, and every minute in between."""

    def __init__(self, trials: Sequence[Trial], folder: BenchFolder, stream: TextIO) -> None:
        self.folder, self.stream, self.rows = folder, stream, followed(trials, folder)
        self.before: dict[str, str] = {trial.name: folder.state(trial) for trial in trials}
        self.printed = time.monotonic()
        counts = {state: list(self.before.values()).count(state) for state in ("finished", "failed")}
        ended = "".join(f", {count} {state}" for state, count in counts.items() if count)
        self.say(f"{plural(len(trials), 'run')}{ended}")

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def __call__(self) -> None:
        rows = self.rows()
        for one in rows:
            if one.state != self.before[one.trial.name]:
                self.before[one.trial.name] = one.state
                self.printed = time.monotonic()
                self.say(f"  {one.trial.title}: {self.outcome(one)}")
        if time.monotonic() - self.printed >= EVERY:
            self.printed = time.monotonic()
            self.say("  " + summary(rows))

    def outcome(self, one: TrialProgress) -> str:
        if one.state == "failed":
            return f"failed: {self.folder.reason(one.trial)}"
        return f"finished in {duration(one.seconds)}" if one.state == "finished" else one.state


def summary(rows: Sequence[TrialProgress]) -> str:
    """Return how many runs are in which state, and an estimate of the time left."""
    done = [one for one in rows if one.state == "finished"]
    failed = sum(one.state == "failed" for one in rows)
    running = [one for one in rows if one.state == "running"]
    words = [f"{len(done)}/{len(rows)} finished"]
    if failed:
        words.append(f"{failed} failed")
    words += [f"{one.trial.title} at epoch {one.epoch}/{one.trial.recipe.train.epochs}" for one in running[:4]]
    left = time_left(rows)
    if left is not None:
        words.append(f"about {duration(left)} of training left")
    return ", ".join(words)


def time_left(rows: Sequence[TrialProgress]) -> float | None:
    """Estimate the seconds of training left, one run after the other, from what finished runs took."""
    took = [one.seconds for one in rows if one.state == "finished"]
    ahead = [one for one in rows if one.state in ("waiting", "running", "stopped")]
    if not took or not ahead:
        return None
    mean = sum(took) / len(took)
    return sum(max(0.0, mean * (1 - one.epoch / one.trial.recipe.train.epochs)) for one in ahead)


@contextmanager
def _live(trials: Sequence[Trial], folder: BenchFolder, stream: TextIO) -> Iterator[Callable[[], None]]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console, follow = Console(file=stream, highlight=False), followed(trials, folder)
    with Live(console=console, auto_refresh=False) as live:

        def refresh() -> None:
            rows = follow()
            live.update(Group(table(rows).grid(console.width), Text(summary(rows))), refresh=True)

        refresh()
        yield refresh
        refresh()


def table(rows: Sequence[TrialProgress]) -> Table:
    """Return a row for each run; of very many, those that change."""
    colours = {"finished": "green", "failed": "red", "running": "cyan", "stopped": "yellow", "waiting": ""}
    folds = any(one.trial.fold is not None for one in rows)
    numbers = {"seed": 0, **({"fold": 0} if folds else {}), "epoch": 0, "best": 0, "time": 1, "images/s": 2}
    columns = [Column("model"), Column("state"), *(Column(n, right=True, spare=s) for n, s in numbers.items())]
    shown = rows
    if len(rows) > _MOST_ROWS:
        order = {"running": 0, "stopped": 1, "failed": 2, "waiting": 3, "finished": 4}
        shown = sorted(rows, key=lambda one: order[one.state])[:_MOST_ROWS]
    cells = [
        [
            one.trial.model, Styled(one.state, colours[one.state]), str(one.trial.seed),
            *([str(one.trial.fold)] if folds else []),
            f"{one.epoch}/{one.trial.recipe.train.epochs}" if one.epoch else "",
            "" if one.value is None else f"{one.value:.4f}",
            duration(one.seconds) if one.epoch else "", f"{one.speed:.1f}" if one.epoch else "",
        ]
        for one in shown
    ]  # fmt: skip
    return Table(columns, cells)
