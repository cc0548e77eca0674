"""The table of runs: which of them meet the conditions, in which order, and what is shown of each."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from segreg.config.diff import in_short
from segreg.errors import SegregError, did_you_mean
from segreg.runs.listing import COLUMNS, KnownRun, Value
from segreg.runtime.layout import Column, Styled, Table
from segreg.runtime.progress import duration

SHOWN = (
    "run", "recipe", "begun", "state", "encoder", "decoder", "dataset", "seed", "epochs", "score", "duration", "size",
)  # fmt: skip
"""The columns that are listed where none are asked for."""
_FIRST_LEFT_OUT = ("recipe", "begun", "size", "dataset", "seed", "duration", "decoder", "epochs", "encoder", "score")
"""What a narrow terminal does without, in this order; a run's folder says its recipe and when it began."""
_DATES = ("begun", "changed")


# conditions

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """What a run must meet to be listed.

    Attributes:
        text: as it was written.
        name: of a column, metric or setting.
        comparison: one of = != < <= > >=.
        operand: what it is compared with; wildcards for = and !=.
    """

    text: str
    name: str
    comparison: str
    operand: str

    def holds(self, run: KnownRun) -> bool:
        """Whether a run meets it; a run that has no such value does not."""
        value = run.value(self.name)
        if value is None:
            return False
        number = _number(self.operand)
        if self.comparison in ("=", "!="):
            if isinstance(value, str) or number is None:
                written = in_short(value)
                # A list is written with brackets, which are wildcards too.
                same = written.replace(" ", "") == self.operand.replace(" ", "") or fnmatchcase(written, self.operand)
            else:
                same = value == number
            return same is (self.comparison == "=")
        compare = _COMPARISONS[self.comparison]
        if isinstance(value, str):
            return self.name in _DATES and compare(value, self.operand)
        return number is not None and compare(value, number)


def condition(text: str) -> Condition:
    """Return a condition such as `encoder=resnet*` or `dice.pooled>0.8`.

    Raises:
        SegregError: it is none.
    """
    found = re.fullmatch(r"\s*([^\s=<>!]+)\s*([=<>!]+)\s*(.*?)\s*", text, re.DOTALL)
    hint = "write NAME=VALUE, such as encoder=resnet50, or one of != < <= > >= in quotes: 'dice.pooled>0.8'"
    if not found:
        raise SegregError(f'"{text}" is not a condition', hint=hint)
    name, comparison, operand = found.groups()
    if comparison not in ("=", "!=", *_COMPARISONS):
        raise SegregError(f'in "{text}", "{comparison}" is not a comparison', hint="there are = != < <= > >=")
    if not operand:
        raise SegregError(f'in "{text}", nothing stands behind {comparison}', hint=hint)
    if comparison in _COMPARISONS and name not in _DATES and _number(operand) is None:
        raise SegregError(
            f'in "{text}", "{operand}" is not a number', hint=f"strings are compared by = and !=: {name}=..."
        )
    return Condition(text, name, comparison, operand)


def check_names(names: Sequence[str], runs: Sequence[KnownRun]) -> None:
    """Refuse names that no run has.

    Raises:
        SegregError: with near names.
    """
    if not runs:
        return
    known = dict.fromkeys(name for run in runs for name in run.names())
    for name in names:
        if name not in known:
            hint = f"columns are {', '.join(COLUMNS)}; a metric is such as dice.pooled, a setting train.batch_size"
            raise SegregError(f'no run here has "{name}"', hint=did_you_mean(name, known) or hint)


def kept(runs: Sequence[KnownRun], conditions: Sequence[Condition]) -> list[KnownRun]:
    """Return the runs that meet all conditions.

    Raises:
        SegregError: no run has such a value, or none that can be compared so.
    """
    check_names([each.name for each in conditions], runs)
    for each in conditions:
        values = [run.value(each.name) for run in runs]
        ordered = each.comparison in _COMPARISONS and each.name not in _DATES
        if values and ordered and not any(isinstance(value, (int, float)) for value in values):
            hint = f"strings are compared by = and !=, with wildcards: '{each.name}={next(filter(None, values), '')}'"
            raise SegregError(f'in "{each.text}", {each.name} is not a number in any run', hint=hint)
    return [run for run in runs if all(each.holds(run) for each in conditions)]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


# order


def ordered(runs: Sequence[KnownRun], by: str) -> list[KnownRun]:
    """Return the runs sorted by a name, downwards where a minus stands before it; those without a value are last.

    Raises:
        SegregError: no run has such a value.
    """
    name = by.removeprefix("-")
    check_names([name], runs)

    def key(run: KnownRun) -> tuple[bool, Value]:  # numbers before strings
        value = run.value(name)
        return isinstance(value, str), value

    with_value = [run for run in runs if run.value(name) is not None]
    without = [run for run in runs if run.value(name) is None]
    return sorted(with_value, key=key, reverse=by.startswith("-")) + without


# table


def table(runs: Sequence[KnownRun], columns: Sequence[str], *, asked: bool) -> Table:
    """Return the table of runs.

    Args:
        runs: those to list.
        columns: what is listed.
        asked: whether all columns must be shown; else a narrow terminal does without some.
    """
    headings, *rows = _cells(runs, columns)
    heads = []
    for name, heading in zip(columns, headings, strict=True):
        numbers = name in ("epochs", "score", "size") or any(isinstance(run.value(name), (int, float)) for run in runs)
        spare = 0 if asked or name not in _FIRST_LEFT_OUT else len(_FIRST_LEFT_OUT) - _FIRST_LEFT_OUT.index(name)
        heads.append(Column(heading, right=numbers, spare=spare))
    return Table(heads, rows)


def notes(runs: Sequence[KnownRun]) -> list[str]:
    """Return what else a terminal gets, below the table."""
    count = sum(run.state in ("interrupted", "unfinished") for run in runs)
    which = "1 run has" if count == 1 else f"{count} runs have"
    return [f"{which} not come to an end; segreg run --resume RUN continues with one"] if count else []


def as_data(run: KnownRun) -> dict[str, Any]:
    """Return all that is known of a run, as JSON holds it."""
    name, value = run.score or (None, None)
    return {
        **{column: run.value(column) for column in SHOWN},
        "score": {"name": name, "split": run.split, "value": value},
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


def _cells(runs: Sequence[KnownRun], columns: Sequence[str]) -> list[list[str]]:
    """Return the row of headings and a row for each run; a metric that all scores are of is named in the heading."""
    metrics = {run.score[0] for run in runs if run.score}
    one = len(metrics) == 1
    headings = [next(iter(metrics)) if name == "score" and one else name for name in columns]
    return [headings, *([_cell(run, name, name_metric=not one) for name in columns] for run in runs)]


def _cell(run: KnownRun, name: str, *, name_metric: bool) -> str:
    value = run.value(name)
    if value is None or value == "":
        return "-"
    if name == "state":
        colour = {"finished": "green", "broken": "red", "interrupted": "yellow", "unfinished": "yellow"}
        return Styled(str(value), colour[str(value)])
    if name == "epochs":
        asked = run.value("train.epochs")
        return str(value) if asked in (value, None) else f"{value}/{asked}"
    if name == "duration":
        return duration(run.seconds)
    if name == "size":
        return format_size(run.size())
    if name in _DATES:
        return str(value)[:16]
    if name == "score" and run.score:
        metric = f"{run.score[0]} " if name_metric else ""
        return f"{metric}{value:.4f}" + ("" if run.split == "test" else f" ({run.split})")
    if isinstance(value, float):
        return f"{value:.4f}" if name in run.all_metrics else f"{value:g}"
    return str(value)


def format_size(count: int) -> str:
    """Return "512 kB" or "1.2 GB"."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.{1 if count < 10 * size else 0}f} {unit}"
    return f"{count} B"
