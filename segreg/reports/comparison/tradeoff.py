"""Quality against a cost that the reader chooses: which models are worth their cost, and which are dominated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from segreg.benchmark.comparison.record import Comparison, Model, Value
from segreg.benchmark.cost.definitions import DEFINITIONS
from segreg.benchmark.cost.record import Cost
from segreg.reports.comparison.drawing import Frame, line, polyline, text
from segreg.reports.comparison.forest import interval
from segreg.reports.comparison.front import Offer, pareto_front
from segreg.reports.comparison.labels import Box, placed
from segreg.reports.comparison.looks import cut, is_known, legend, look, marker, width
from segreg.reports.comparison.scales import Scale, scale, short
from segreg.reports.elements import Content, Html, element, joined, number

_FRAME = Frame(960, 500, 62, 940, 34, 450)
_LABEL = 210
"""Pixels that a name in the drawing may take."""

_Place = tuple[float, float]


def is_better_high(cost: str) -> bool:
    """Whether more of a cost is better, as of a speed; of all others less is."""
    return bool(cost in DEFINITIONS and DEFINITIONS[cost].higher_is_better)


def has_better(cost: str) -> bool:
    """Whether more or less of a cost is better at all."""
    return cost not in DEFINITIONS or DEFINITIONS[cost].higher_is_better is not None


def costs_of(comparison: Comparison) -> list[str]:
    """Return the names of all costs that a model has, in the order in which they are first met."""
    return list(dict.fromkeys(name for model in comparison.models for name in model.costs))


def unit_of(comparison: Comparison, cost: str) -> str:
    """Return the unit of a cost; empty for a plain number."""
    return next((model.costs[cost].unit for model in comparison.models if cost in model.costs), "")


def tradeoff(comparison: Comparison) -> Html:
    """Return a drawing for each cost, the first of them shown; empty where no model has both a score and a cost."""
    drawn = {cost: _points(comparison, cost) for cost in costs_of(comparison) if has_better(cost)}
    drawn = {cost: points for cost, points in drawn.items() if points}
    if not drawn:
        return Html("")
    options = [element("option", _with_unit(cost, unit_of(comparison, cost)), value=cost) for cost in drawn]
    choice = element("label", "Cost: ", element("select", options, class_="costs"), class_="choice", hidden="")
    figures = [
        _figure(comparison, cost, points, hidden=None if place == 0 else "")
        for place, (cost, points) in enumerate(drawn.items())
    ]
    places = sorted({point.place for points in drawn.values() for point in points})
    said = (
        "The steps are the Pareto front: the best score to be had at each cost. A paler model is dominated: another "
        "one is at least as good and at least as cheap, and better in one of the two. Upright bars are 95% intervals "
        "of the score, level ones the smallest and the largest measured cost."
    )
    return joined([element("p", said), choice, figures, legend(comparison.models, places)])


@dataclass(frozen=True)
class _Point:
    """A model that has both a score and a cost."""

    place: int
    model: Model
    value: Value
    cost: Cost


def _points(comparison: Comparison, cost: str) -> list[_Point]:
    return [
        _Point(place, model, model.values[comparison.metric], model.costs[cost])
        for place, model in enumerate(comparison.models)
        if comparison.metric in model.values
        and cost in model.costs
        and is_known(model.values[comparison.metric].mean)
        and is_known(model.costs[cost].median)
    ]


def _figure(comparison: Comparison, cost: str, points: Sequence[_Point], hidden: str | None) -> Html:
    ends = [end for point in points for end in (point.cost.low, point.cost.median, point.cost.high)]
    scores = [end for point in points for end in (point.value.mean, *_ends(point.value))]
    along = scale(ends, _FRAME.left + 10, _FRAME.right, may_be_log=True)
    up = scale(scores, _FRAME.bottom - 6, _FRAME.top + 6)
    if along is None or up is None:
        return Html("")
    offers = [Offer(point.value.mean, point.cost.median) for point in points]
    high_cost = is_better_high(cost)
    front = pareto_front(offers, high_quality=comparison.higher_is_better, high_cost=high_cost)
    label = f"{_with_unit(cost, unit_of(comparison, cost))}, {'higher' if high_cost else 'lower'} is better"
    quality = f"{comparison.metric}, {'higher' if comparison.higher_is_better else 'lower'} is better"
    places = [(along.at(point.cost.median), up.at(point.value.mean)) for point in points]
    worst = _FRAME.bottom if comparison.higher_is_better else _FRAME.top
    dearest = _FRAME.left if high_cost else _FRAME.right
    steps = _steps([places[place] for place in front], worst=worst, dearest=dearest)
    drawn: list[Content] = [
        _FRAME.across(along, label + (" (logarithmic)" if along.log else ""), ticks=8),
        _FRAME.upwards(up, quality),
        polyline(steps, "front"),
        [_drawn(point, along, up, dominated=place not in front) for place, point in enumerate(points)],
        _names(points, places, front, [*_bars(points, places, along, up), *_along_line(steps)]),
    ]
    missing = [model.name for place, model in enumerate(comparison.models) if place not in {p.place for p in points}]
    said = f"Without a score or without this cost: {'; '.join(missing)}." if missing else ""
    best = f"On the front: {'; '.join(points[place].model.name for place in front)}."
    about = f"{comparison.metric} of each model against {cost}"
    caption = element("figcaption", best, " ", said)
    return element("figure", _FRAME.drawn(about, drawn), caption, class_="tradeoff", data_cost=cost, hidden=hidden)


def _ends(value: Value) -> list[float]:
    return [end for end in (value.low, value.high) if is_known(end)]


def _steps(front: Sequence[_Place], *, worst: float, dearest: float) -> list[_Place]:
    """Return the corners of the best score to be had, from where nothing is cheap enough to the dearest."""
    corners = [(front[0][0], worst)]
    for x, y in front:
        corners += [(x, corners[-1][1]), (x, y)]
    corners.append((dearest, corners[-1][1]))
    return list(dict.fromkeys(corners))


def _drawn(point: _Point, along: Scale, up: Scale, *, dominated: bool) -> Html:
    x, y = along.at(point.cost.median), up.at(point.value.mean)
    told = f"{point.model.name}\n{number(point.value.mean)} {interval(point.value)}".rstrip()
    spread = "" if point.cost.low == point.cost.high else f" ({short(point.cost.low)} to {short(point.cost.high)})"
    cost = f"{short(point.cost.median)} {point.cost.unit}".rstrip() + spread
    drawn: list[Content] = [element("title", f"{told}\n{cost}{', dominated' if dominated else ', on the front'}")]
    if is_known(point.value.low) and is_known(point.value.high):
        drawn.append(line(x, up.at(point.value.low), x, up.at(point.value.high), "interval"))
    if point.cost.low < point.cost.high and is_known(point.cost.low) and is_known(point.cost.high):
        drawn.append(line(along.at(point.cost.low), y, along.at(point.cost.high), y, "interval"))
    drawn.append(marker(point.place, x, y))
    kind = f"{look(point.place)}{' dominated' if dominated else ''}"
    return element("g", drawn, class_=kind, data_model=str(point.place))


def _bars(points: Sequence[_Point], places: Sequence[_Place], along: Scale, up: Scale) -> Iterator[Box]:
    for (x, y), point in zip(places, points, strict=True):
        if ends := [up.at(end) for end in _ends(point.value)]:
            yield Box(x - 2, min(ends), x + 2, max(ends))
        if is_known(point.cost.low) and is_known(point.cost.high):
            yield Box(along.at(point.cost.low), y - 2, along.at(point.cost.high), y + 2)


def _along_line(corners: Sequence[_Place]) -> Iterator[Box]:
    for (x1, y1), (x2, y2) in pairwise(corners):
        yield Box(min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1)


def _names(points: Sequence[_Point], places: Sequence[_Place], front: Sequence[int], taken: Sequence[Box]) -> Html:
    """Return the names beside their points, those on the front first; one that would cover another is left out."""
    order = [*front, *(place for place in range(len(points)) if place not in front)]
    names = [cut(points[place].model.name, _LABEL) for place in order]
    room = Box(_FRAME.left + 4, _FRAME.top, _FRAME.right, _FRAME.bottom - 2)
    boxes = placed([places[place] for place in order], [width(name) + 4 for name in names], room, taken)
    drawn: list[Content] = []
    for place, name, box in zip(order, names, boxes, strict=True):
        if box is None:
            continue
        x, y = places[place]
        ends = (min(max(x, box.left), box.right), min(max(y, box.top + 3), box.bottom - 3))
        kind = look(points[place].place) + (" dominated" if place not in front else "")
        tie = [line(x, y, *ends, "tie")] if abs(ends[0] - x) + abs(ends[1] - y) > 16 else []
        word = text(name, box.left + 2, box.bottom - 3.5, "start", kind="name")
        drawn.append(element("g", tie, word, class_=kind, data_model=str(points[place].place)))
    return joined(drawn)


def _with_unit(cost: str, unit: str) -> str:
    return f"{cost} ({unit})" if unit else cost
