"""Charts of a tune: values over the trials, what mattered, trials across their settings, and their epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from segreg.benchmark.tune.record import Outcome, TuneRecord, format_setting, format_values
from segreg.reports.charts import ACCENT, GROUND, INK, SOFT, Chart, log_locator, scale
from segreg.reports.render import cut, is_known, number, short

_MOST_CHOICES = 24
"""Choices of an axis that are written; of more, every so many."""


def history(record: TuneRecord) -> Markup:
    """Return each trial's value by its number, and the best so far as a line; empty without values."""
    valued = [one for one in record.outcomes if is_known(one.value)]
    if not valued:
        return Markup("")
    chart = Chart(1000, 330, (62, 20, 34, 46), f"{record.monitor} of each trial, and the best so far")
    better = max if record.larger_is_better else min
    steps: list[tuple[int, float]] = []
    for one in valued:
        if one.state == "completed" and is_known(one.value):
            steps.append((one.number, better(one.value, steps[-1][1]) if steps else one.value))
    if steps:
        numbers = [*(number_ for number_, _ in steps), record.outcomes[-1].number]
        values = [*(value for _, value in steps), steps[-1][1]]
        chart.axes.plot(numbers, values, color=SOFT, linewidth=1.6, drawstyle="steps-post", zorder=1.5)
    for state, marker in (("completed", "o"), ("pruned", "x"), ("running", "^")):
        shown = [one for one in valued if one.state == state]
        if shown:
            dots = chart.axes.plot(
                [one.number for one in shown], [one.value for one in shown if one.value is not None], marker, ms=8,
                color=ACCENT if state == "completed" else SOFT, mec=GROUND if marker == "o" else SOFT, mew=1.6,
            )  # fmt: skip
            chart.mark(*dots, kind=f"dots {state}", titles=[title(record, one) for one in shown])
    scale(chart.axes, "y", [one.value for one in valued if is_known(one.value)])
    chart.axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    chart.axes.margins(x=0.03, y=0.08)
    direction = "higher" if record.larger_is_better else "lower"
    chart.label("trial", f"{record.monitor} on the validation images, {direction} is better")
    return chart.svg()


def title(record: TuneRecord, one: Outcome) -> str:
    """Return what the mouse shows of a trial."""
    value = f"{record.monitor} {number(one.value)}" if one.value is not None else "no value"
    return f"trial {one.number}, {one.state}: {value}\n{format_values(one.parameters)}"


def importances(record: TuneRecord) -> Markup:
    """Return a bar for each setting's share in how good a trial is; empty where it is not known."""
    if not record.importances:
        return Markup("")
    names, shares = list(record.importances), list(record.importances.values())
    chart = Chart(760, 50 + 34 * len(names), (260, 60, 10, 34), "how much each setting mattered")
    for row, (name, share) in enumerate(zip(names, shares, strict=True)):
        (bar,) = chart.axes.barh([row], [share], height=0.62, color=ACCENT)
        chart.mark(bar, kind="bar", titles=[f"{name}: {share:.1%}"])
        chart.write(f"{share:.0%}", (share, row), (6, 0))
        chart.write(cut(name, 34), (0, row), (-8, 0), chart.axes.get_yaxis_transform(), ha="right")
    chart.axes.set(xlim=(0, max(1e-9, *shares) * 1.05), ylim=(len(names) - 0.5, -0.5), yticks=[])
    chart.axes.grid(visible=False)
    chart.axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    chart.axes.xaxis.set_major_locator(MaxNLocator(5))
    return chart.svg()


def parallel(record: TuneRecord) -> Markup:
    """Return a line for each trial across what was searched, to its value; empty without completed trials.

    The better half of the completed trials is coloured, the best one thick; pruned ones are dashed.
    """
    shown = [one for one in record.outcomes if one.state in ("completed", "pruned") and is_known(one.value)]
    ranked = [one.number for one in record.ranked() if one.state == "completed"]
    if not ranked:
        return Markup("")
    paths = list(record.search)
    width = max(560, 210 * len(paths) + 150)
    chart = Chart(width, 400, (70, 80, 46, 20), "each trial's settings and its value")
    columns = [*(_Axis.of(record, shown, path) for path in paths), _Axis.of_values(record, shown)]
    for place, column in enumerate(columns):
        _ruler(chart, place, column, last=place == len(paths))
    better = set(ranked[: (len(ranked) + 1) // 2])
    for one in sorted(shown, key=lambda each: (each.number in better, each.best)):
        heights = [column.height(one) for column in columns]
        good = one.number in better
        (line,) = chart.axes.plot(
            range(len(columns)), heights, color=ACCENT if good else SOFT, linewidth=3.4 if one.best else 1.4,
            linestyle="-" if one.state == "completed" else (0, (3, 3)),
            alpha=1.0 if one.best else 0.75 if good else 0.5,
        )  # fmt: skip
        chart.mark(line, kind="curve", titles=[title(record, one)])
    chart.axes.set(xlim=(-0.02, len(paths) + 0.02), ylim=(-0.03, 1.03), xticks=[], yticks=[])
    chart.axes.grid(visible=False)
    for spine in chart.axes.spines.values():
        spine.set_visible(False)
    return chart.svg()


class _Axis:
    """An axis of the parallel coordinates: where a trial crosses it, from 0 to 1, and what is written beside it."""

    def __init__(self, name: str, low: float, high: float, *, log: bool, choices: Sequence[str] = ()) -> None:
        self.name, self.low, self.high, self.log, self.choices = name, low, high, log, list(choices)

    @classmethod
    def of(cls, record: TuneRecord, shown: Sequence[Outcome], path: str) -> _Axis:
        values = [one.parameters[path] for one in shown if path in one.parameters]
        choices = record.choices.get(path)
        if choices is not None:
            return cls(path, 0, max(1, len(choices) - 1), log=False, choices=choices)
        return cls(path, min(values), max(values), log=path in record.logarithmic)

    @classmethod
    def of_values(cls, record: TuneRecord, shown: Sequence[Outcome]) -> _Axis:
        values = [one.value for one in shown if one.value is not None]
        return cls(record.monitor, min(values), max(values), log=False)

    def height(self, one: Outcome) -> float:
        """Return where a trial crosses the axis."""
        value = one.parameters.get(self.name, one.value)
        return self.at(self.choices.index(value) if self.choices else value)

    def at(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = math.log(value) if self.log else value
        return 0.5 if high <= low else (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return heights and what is written there."""
        if self.choices:
            every = -(-len(self.choices) // _MOST_CHOICES)
            return [(self.at(n), cut(name, 16)) for n, name in enumerate(self.choices) if n % every == 0]
        if self.high <= self.low:
            return [(0.5, format_setting(self.low))]
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        locator = log_locator(self.low, self.high) if self.log else MaxNLocator(5, integer=whole)
        inside = [float(value) for value in locator.tick_values(self.low, self.high) if self.low <= value <= self.high]
        return [(self.at(value), short(value)) for value in inside]


def _ruler(chart: Chart, place: int, column: _Axis, *, last: bool) -> None:
    chart.axes.plot([place, place], [0, 1], color=INK, linewidth=1.2, zorder=3)
    for height, text in column.ticks():
        box = {"facecolor": GROUND, "edgecolor": "none", "pad": 0.8}
        chart.write(text, (place, height), (7, 0), fontsize=10, zorder=4, bbox=box)
    align = "left" if place == 0 else "right" if last else "center"
    chart.write(cut(column.name, 28), (place, 1), (0, 16), ha=align, va="baseline")


def epochs(record: TuneRecord) -> Markup:
    """Return the monitored value over the epochs, a line for each trial; empty without any."""
    shown = [one for one in record.outcomes if one.values]
    if not shown:
        return Markup("")
    chart = Chart(1000, 330, (62, 20, 34, 46), f"{record.monitor} of each trial over the epochs")
    for one in sorted(shown, key=lambda each: each.best):
        completed = one.state == "completed"
        end = "x" if one.state == "pruned" else "o" if len(one.values) == 1 else ""
        (line,) = chart.axes.plot(
            range(1, len(one.values) + 1), one.values, color=ACCENT if completed else SOFT,
            linestyle="-" if completed else (0, (3, 3)), linewidth=3.0 if one.best else 1.3,
            alpha=1.0 if one.best else 0.6, marker=end,
            markevery=[len(one.values) - 1], ms=6,
        )  # fmt: skip
        chart.mark(line, kind="curve", titles=[title(record, one)])
    scale(chart.axes, "y", [value for one in shown for value in one.values if is_known(value)])
    chart.axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    chart.label("epoch", record.monitor)
    return chart.svg()
