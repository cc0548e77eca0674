"""Which runs are listed, in which order, and what of them: columns, conditions and sorting."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from segreg.config.diff import in_short, part_names
from segreg.errors import SegregError, did_you_mean
from segreg.runs.listing import KnownRun

Value = str | float | None
"""What a run has by a name; None if it has nothing."""

DATES = ("begun", "changed")


def _score(run: KnownRun) -> Value:
    return next(iter(run.metrics(run.split).values()), None)


COLUMNS: Mapping[str, Callable[[KnownRun], Value]] = {
    "run": lambda run: str(run.directory.path),
    "recipe": lambda run: run.recipe,
    "begun": lambda run: run.begun,
    "changed": lambda run: run.changed,
    "state": lambda run: run.state,
    "epochs": lambda run: run.epochs,
    "score": _score,
    "duration": lambda run: run.seconds,
    "size": lambda run: run.size(),
}
"""What is known of a run besides its metrics and settings, in the units by which it is compared: s, bytes."""


@dataclass(frozen=True)
class RunRow:
    """A run, and what is known of it by name.

    Attributes:
        run: the run.
    """

    run: KnownRun

    def value(self, name: str) -> Value:
        """Return the value of a column, a metric ("dice.pooled", "val.dice.pooled") or a setting of the recipe."""
        if name in COLUMNS:
            return COLUMNS[name](self.run)
        return self._metrics[name] if name in self._metrics else self._settings.get(name)

    def is_metric(self, name: str) -> bool:
        """Whether a name is that of one of the run's metrics."""
        return name in self._metrics

    def names(self) -> list[str]:
        """Return every name that `value` has something for."""
        return [*COLUMNS, *self._metrics, *self._settings]

    @cached_property
    def _metrics(self) -> dict[str, float]:
        splits = self.run.results.get("metrics") or {}
        each = {f"{split}.{name}": value for split in splits for name, value in self.run.metrics(split).items()}
        return {**self.run.metrics(self.run.split), **each}

    @cached_property
    def _settings(self) -> dict[str, Value]:
        return dict(_by_path("", self.run.settings))


def _by_path(path: str, value: Any) -> Iterator[tuple[str, Value]]:
    """Return settings by path; items of lists by their number, and parts in lists by their name too."""
    names = part_names(value)
    if names:
        yield path, " + ".join(names)
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _by_path(f"{path}.{name}" if path else str(name), below)
        return
    if names:
        for number, (name, part) in enumerate(zip(names, value, strict=True)):
            for step in (number, name):
                yield from _by_path(f"{path}.{step}", part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value
    else:
        yield path, in_short(value)


def check_names(names: Sequence[str], rows: Sequence[RunRow]) -> None:
    """Refuse names that no run has.

    Raises:
        SegregError: with near names.
    """
    if not rows:
        return
    known = dict.fromkeys(name for row in rows for name in row.names())
    for name in names:
        if name not in known:
            hint = f"columns are {', '.join(COLUMNS)}; a metric is such as dice.pooled, a setting train.batch_size"
            raise SegregError(f'no run here has "{name}"', hint=did_you_mean(name, known) or hint)


# conditions

_COMPARISONS: Mapping[str, Callable[[float, float], bool] | Callable[[str, str], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


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

    def holds(self, row: RunRow) -> bool:
        """Whether a run meets it; a run that has no such value does not."""
        value = row.value(self.name)
        if value is None:
            return False
        number = _number(self.operand)
        if self.comparison in ("=", "!="):
            if isinstance(value, str) or number is None:
                same = _matches(in_short(value), self.operand)
            else:
                same = value == number
            return same is (self.comparison == "=")
        compare: Any = _COMPARISONS[self.comparison]
        if isinstance(value, str):
            return self.name in DATES and bool(compare(value, self.operand))
        return number is not None and bool(compare(value, number))


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
    if comparison in _COMPARISONS and name not in DATES and _number(operand) is None:
        raise SegregError(
            f'in "{text}", "{operand}" is not a number', hint=f"strings are compared by = and !=: {name}=..."
        )
    return Condition(text, name, comparison, operand)


def kept(rows: Sequence[RunRow], conditions: Sequence[Condition]) -> list[RunRow]:
    """Return the runs that meet all conditions.

    Raises:
        SegregError: no run has such a value, or none that can be compared so.
    """
    check_names([each.name for each in conditions], rows)
    for each in conditions:
        values = [row.value(each.name) for row in rows]
        ordered = each.comparison in _COMPARISONS and each.name not in DATES
        if values and ordered and not any(isinstance(value, (int, float)) for value in values):
            hint = f"strings are compared by = and !=, with wildcards: '{each.name}={next(filter(None, values), '')}'"
            raise SegregError(f'in "{each.text}", {each.name} is not a number in any run', hint=hint)
    return [row for row in rows if all(each.holds(row) for each in conditions)]


def _matches(value: str, pattern: str) -> bool:
    # A list is written with brackets, which are wildcards too.
    return value.replace(" ", "") == pattern.replace(" ", "") or fnmatchcase(value, pattern)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


# order


def ordered(rows: Sequence[RunRow], by: str) -> list[RunRow]:
    """Return the runs sorted by a name, downwards where a minus stands before it; those without a value are last.

    Raises:
        SegregError: no run has such a value.
    """
    name = by.removeprefix("-")
    check_names([name], rows)
    with_values = [(value, row) for row in rows if (value := row.value(name)) is not None]
    in_order = sorted(with_values, key=lambda pair: _key(pair[0]), reverse=by.startswith("-"))
    return [*(row for _, row in in_order), *(row for row in rows if row.value(name) is None)]


def _key(value: Value) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, value or 0.0, "")
