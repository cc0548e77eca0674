"""Single images: each model against the baseline, and the images on which the models differ most."""

from __future__ import annotations

import math
from collections.abc import Sequence

from segreg.benchmark.comparison.record import Comparison, Model
from segreg.reports.comparison.drawing import Frame, line, text
from segreg.reports.comparison.looks import cut, heads, is_known, look, swatch
from segreg.reports.comparison.scales import Scale, scale
from segreg.reports.elements import Content, Html, cell, element, joined, number, table

_FRAME = Frame(300, 300, 46, 292, 24, 262)
_MOST_POINTS = 20_000
"""Points that all drawings together have; more make a page that no browser likes."""
_ROWS = 20
_NAME = 190
"""Pixels that a image's name may take; the whole one is its title."""


def images(comparison: Comparison) -> Html:
    """Return the drawings and the table; empty where no model was scored in single images."""
    pieces = [piece for piece in (_against_baseline(comparison), spread(comparison)) if piece]
    return joined(pieces)


def _against_baseline(comparison: Comparison) -> Html:
    baseline = next((model for model in comparison.models if model.name == comparison.baseline), None)
    if baseline is None or not baseline.per_image:
        return Html("")
    others = [(p, m) for p, m in enumerate(comparison.models) if m is not baseline and m.per_image]
    every = [value for model in (baseline, *(model for _, model in others)) for value in model.per_image]
    along, up = scale(every, _FRAME.left, _FRAME.right), scale(every, _FRAME.bottom, _FRAME.top)
    if along is None or up is None or not others:
        return Html("")
    count = len(comparison.images)
    nth = max(1, math.ceil(count * len(others) / _MOST_POINTS))
    drawn = [_scatter(comparison, baseline, place, (along, up), nth) for place, _ in others]
    side = "Above" if comparison.higher_is_better else "Below"
    said = f"A point for each image: {comparison.metric.partition('.')[0]} of the baseline {baseline.name} across, of "
    said += f"the model upwards. {side} the diagonal the model is better. Point at one to read its id."
    said += f" One of every {nth} of the {count} images is drawn." if nth > 1 else ""
    return joined([element("p", said), element("div", drawn, class_="multiples")])


def _scatter(comparison: Comparison, baseline: Model, place: int, axes: tuple[Scale, Scale], nth: int) -> Html:
    model, (along, up) = comparison.models[place], axes
    pairs = [
        (name, x, y)
        for name, x, y in zip(comparison.images, baseline.per_image, model.per_image, strict=True)
        if is_known(x) and is_known(y)
    ]
    dots = [
        element("circle", element("title", f"{name}: {number(x)}, {number(y)}"), cx=f"{along.at(x):.1f}",
                cy=f"{up.at(y):.1f}", r="2.4")
        for name, x, y in pairs[::nth]
    ]  # fmt: skip
    ends = (along.low, along.high)
    diagonal = line(along.at(ends[0]), up.at(ends[0]), along.at(ends[1]), up.at(ends[1]), "diagonal")
    around: list[Content] = [_FRAME.across(along, ticks=4), _FRAME.upwards(up, ticks=4)]
    around.append(text("baseline", (_FRAME.left + _FRAME.right) / 2, _FRAME.bottom + 31, "middle", kind="label"))
    caption = element("figcaption", swatch(place), element("b", model.name), " ", _counted(comparison, pairs))
    about = f"{model.name} against the baseline in each image"
    drawing = _FRAME.drawn(about, around, diagonal, element("g", dots, class_=f"dots {look(place)}"), kind="scatter")
    return element("figure", caption, drawing)


def _counted(comparison: Comparison, pairs: Sequence[tuple[str, float, float]]) -> str:
    sign = 1 if comparison.higher_is_better else -1
    better = sum(sign * (y - x) > 0 for _, x, y in pairs)
    worse = sum(sign * (y - x) < 0 for _, x, y in pairs)
    left_out = len(comparison.images) - len(pairs)
    told = f"better in {better}, worse in {worse}, equal in {len(pairs) - better - worse} images"
    return f"{told}, undefined in {left_out}" if left_out else told


def widest(comparison: Comparison) -> list[tuple[int, float]]:
    """Return the place of each image that two models or more have a value in, with the largest difference there.

    The widest comes first.
    """
    models = [model for model in comparison.models if model.per_image]
    found: list[tuple[int, float]] = []
    for place in range(len(comparison.images)):
        values = [model.per_image[place] for model in models if is_known(model.per_image[place])]
        if len(values) > 1:
            found.append((place, max(values) - min(values)))
    return sorted(found, key=lambda item: (-item[1], item[0]))


def spread(comparison: Comparison) -> Html:
    """Return the table of the images on which the models differ most; empty with fewer than two models."""
    ordered = widest(comparison)
    if not ordered:
        return Html("")
    places = [place for place, model in enumerate(comparison.models) if model.per_image]
    rows = [
        element(
            "tr",
            element(
                "th", cut(comparison.images[image], _NAME), scope="row", class_="name", title=comparison.images[image]
            ),
            element("td", number(difference), class_="number plain"),
            (cell(comparison.models[place].per_image[image]) for place in places),
        )
        for image, difference in ordered[:_ROWS]
    ]
    most = f"The {len(rows)} of {len(ordered)} images" if len(ordered) > len(rows) else "All images"
    said = f"{most} by how far the best and the worst model are apart, mean over seeds."
    shown = table(["image", "spread", *heads(comparison.models, places)], rows, sortable=True)
    head = element("h3", "Images on which the models differ most")
    return joined([head, element("p", said), element("div", shown, class_="of-models")])
