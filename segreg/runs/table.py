"""Run as a list to read: a table that fits a terminal, plain lines elsewhere, everything as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segreg.runs.filter import DATES, RunRow
from segreg.runtime.progress import duration

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = (
    "run", "recipe", "begun", "state", "encoder", "decoder", "dataset", "seed", "epochs", "score", "duration", "size",
)  # fmt: skip
"""The columns that are listed where none are asked for."""
_FIRST_LEFT_OUT = ("recipe", "begun", "size", "dataset", "seed", "duration", "decoder", "epochs", "encoder", "score")
"""What a narrow terminal does without, in this order; a run's folder says its recipe and when it began."""
_BETWEEN = 2


def lines(rows: Sequence[RunRow], columns: Sequence[str]) -> list[str]:
    """Return a line for each run below one of headings, in columns of blanks, as wide as it takes."""
    table = [_headings(rows, columns), *_cells(rows, columns)]
    widths = _widths(table)
    return [
        (" " * _BETWEEN).join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def print_table(rows: Sequence[RunRow], columns: Sequence[str], console: Console, *, asked: bool) -> None:
    """Print a table that fits the terminal, and below it what else is to be known.

    Args:
        rows: the runs.
        columns: what is listed.
        console: the terminal.
        asked: whether all columns must be shown; else those that don't fit are left out and named.
    """
    from rich.table import Table
    from rich.text import Text

    shown = list(columns)
    for name in () if asked else _FIRST_LEFT_OUT:
        widths = _widths([_headings(rows, shown), *_cells(rows, shown)])
        if sum(widths) + _BETWEEN * (len(widths) - 1) <= console.width:
            break
        shown.remove(name)
    table = Table(box=None, padding=(0, _BETWEEN, 0, 0), pad_edge=False)
    for name, heading in zip(shown, _headings(rows, shown), strict=True):
        numbers = name in ("epochs", "score", "size") or any(isinstance(row.value(name), (int, float)) for row in rows)
        table.add_column(Text(heading), justify="right" if numbers else "left", overflow="fold")
    for cells in _cells(rows, shown):
        table.add_row(*map(Text, cells))
    console.print(table)
    if left_out := [name for name in columns if name not in shown]:
        console.print(
            f"left out for want of width: {', '.join(left_out)}", markup=False, highlight=False, soft_wrap=True
        )
    if open_ := sum(row.run.state in ("interrupted", "unfinished") for row in rows):
        which = "1 run has" if open_ == 1 else f"{open_} runs have"
        console.print(
            f"{which} not come to an end; segreg run --resume RUN continues with one", highlight=False, soft_wrap=True
        )


def as_data(row: RunRow) -> dict[str, Any]:
    """Return all that is known of a run, as JSON holds it."""
    run = row.run
    values: dict[str, Any] = {name: row.value(name) for name in SHOWN}
    values["score"] = {"name": next(iter(run.metrics(run.split)), None), "split": run.split, "value": values["score"]}
    return {
        **values,
        "changed": run.changed,
        "stopped_because": run.results.get("stopped_because"),
        "best_epoch": run.results.get("best_epoch"),
        "images": run.results.get("images"),
        "metrics": run.results.get("metrics") or {},
        "intervals": run.results.get("intervals") or {},
        "notices": [notice for notice in (run.results.get("notice"), run.results.get("weights")) if notice],
        "settings": run.settings,
        "problems": list(run.problems),
    }


def _headings(rows: Sequence[RunRow], columns: Sequence[str]) -> list[str]:
    names = _scored(rows)
    return [next(iter(names)) if name == "score" and len(names) == 1 else name for name in columns]


def _cells(rows: Sequence[RunRow], columns: Sequence[str]) -> list[list[str]]:
    one = len(_scored(rows)) == 1
    return [[_cell(row, name, one=one) for name in columns] for row in rows]


def _scored(rows: Sequence[RunRow]) -> set[str]:
    """Return the names of the metrics that the runs' scores are of."""
    return {name for row in rows if (name := next(iter(row.run.metrics(row.run.split)), None))}


def _cell(row: RunRow, name: str, *, one: bool) -> str:
    run, value = row.run, row.value(name)
    if value is None or value == "":
        return "-"
    if name == "epochs":
        asked = row.value("train.epochs")
        return str(value) if asked in (value, None) else f"{value}/{asked}"
    if name == "duration":
        return duration(run.seconds)
    if name == "size":
        return _size(run.size())
    if name in DATES:
        return str(value)[:16]
    if name == "score":
        metric = "" if one else f"{next(iter(run.metrics(run.split)))} "
        return f"{metric}{value:.4f}" + ("" if run.split == "test" else f" ({run.split})")
    if isinstance(value, float):
        return f"{value:.4f}" if row.is_metric(name) else f"{value:g}"
    return str(value)


def _size(count: int) -> str:
    """Return "512 kB" or "1.2 GB"."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.{1 if count < 10 * size else 0}f} {unit}"
    return f"{count} B"


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]
