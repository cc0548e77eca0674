"""Each model's score with its interval and what each seed reached, below each other."""

from __future__ import annotations

from collections.abc import Iterator

from segreg.benchmark.comparison.record import Comparison, Value
from segreg.reports.comparison.drawing import Frame, line, text
from segreg.reports.comparison.looks import cut, is_known, look, marker
from segreg.reports.comparison.scales import Scale, scale
from segreg.reports.elements import Content, Html, element, joined, number

_ROW = 30
_NAMES, _NUMBERS, _WIDTH = 250, 180, 1000
"""Pixels: for the names at the left, for the numbers at the right, and of the whole."""


def forest(comparison: Comparison) -> Html:
    """Return the drawing with what it shows; empty where no model has a score."""
    values = [model.values.get(comparison.metric) for model in comparison.models]
    shown = [place for place, value in enumerate(values) if value is not None and _points(value)]
    if not shown:
        return Html("")
    bottom = 34 + _ROW * len(shown)
    frame = Frame(_WIDTH, bottom + 42, _NAMES, _WIDTH - _NUMBERS, 34, bottom)
    every = [point for value in values if value is not None for point in _points(value)]
    along = scale(every, frame.left, frame.right)
    if along is None:
        return Html("")
    direction = "higher is better" if comparison.higher_is_better else "lower is better"
    drawn: list[Content] = [frame.across(along, f"{comparison.metric} ({direction})")]
    of_baseline = [value for model, value in zip(comparison.models, values, strict=True)
                   if model.name == comparison.baseline and value is not None and is_known(value.mean)]  # fmt: skip
    for value in of_baseline:
        x = along.at(value.mean)
        drawn += [line(x, frame.top - 6, x, frame.bottom, "baseline"), text("baseline", x, frame.top - 11, "middle")]
    for row, place in enumerate(shown):
        drawn.append(_row(comparison, place, values[place], along, frame.top + _ROW * (row + 0.5)))
    said = "The filled mark is the mean over seeds, the bar its 95% interval, each small ring one seed."
    missing = [model.name for place, model in enumerate(comparison.models) if place not in shown]
    told = element("p", f"Without a score: {'; '.join(missing)}.", class_="note") if missing else ""
    return joined(
        [element("p", said), told, frame.drawn(f"{comparison.metric} of each model with its interval", drawn)]
    )


def _points(value: Value) -> list[float]:
    told = (value.mean, value.low, value.high, *value.of_seeds)
    return [point for point in told if is_known(point)]


def _row(comparison: Comparison, place: int, value: Value | None, along: Scale, y: float) -> Html:
    model = comparison.models[place]
    if value is None:
        return Html("")
    name = text(cut(model.name, _NAMES - 34), 26, y + 4, "start", kind="name")
    drawn: list[Content] = [element("title", title(model.name, value)), marker(place, 12, y), name]
    if is_known(value.low) and is_known(value.high):
        low, high = along.at(value.low), along.at(value.high)
        drawn += [line(low, y, high, y, "interval"), *(line(x, y - 4, x, y + 4, "interval") for x in (low, high))]
    if is_known(value.mean):
        drawn.append(marker(place, along.at(value.mean), y))
    drawn += _rings(value, along, y)
    told = f"{number(value.mean)} {interval(value)}".rstrip()
    drawn.append(text(told, along.end + 14, y + 4, "start", kind="figures"))
    return element("g", drawn, class_=look(place), data_model=str(place))


def _rings(value: Value, along: Scale, y: float) -> Iterator[Html]:
    for score in value.of_seeds:
        if is_known(score):
            yield element("circle", cx=f"{along.at(score):.1f}", cy=f"{y + 8:.1f}", r="2.6", class_="ring")


def interval(value: Value) -> str:
    """Return a score's 95% interval in words; an empty text where none is known."""
    if value.low is None or value.high is None:
        return ""
    return f"[{number(value.low)}, {number(value.high)}]"


def title(name: str, value: Value) -> str:
    """Return a model's score in words, with each seed's own."""
    told = f"{name}: {number(value.mean)} {interval(value)}".rstrip()
    return f"{told}; seeds: {', '.join(number(score) for score in value.of_seeds)}" if value.of_seeds else told
