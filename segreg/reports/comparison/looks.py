"""How a model looks on the page: the same colour, shape and dash everywhere, and its name as long as there is room."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import TypeGuard

from segreg.benchmark.comparison.record import Model
from segreg.reports.elements import Content, Html, element

COLOURS = 8
"""Of page.css; from the ninth model on they come again, with another shape and another dash."""
_SHAPES = (
    "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z",
    "M-4,-4H4V4H-4Z",
    "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
    "M0,-5.2L5,3.6H-5Z",
)
_HEAD = 240
"""Pixels that a name in the head of a column may take, over all its lines."""
_LETTER, _BROAD_LETTER = 6.3, 11.5
"""Width of a letter in an 11 pixel font, and of one of those that are as wide as they are high."""


def look(place: int) -> str:
    """Return the classes of what belongs to the model that stands at a place in `Comparison.models`."""
    return f"model colour{place % COLOURS} dash{place // COLOURS % 3}"


def marker(place: int, x: float, y: float, *, kind: str = "") -> Html:
    """Return a model's shape in its colour at a point of a drawing."""
    shape = _SHAPES[(place + place // COLOURS) % len(_SHAPES)]
    return element("path", d=shape, transform=f"translate({x:.1f},{y:.1f})", class_=f"marker {kind}".rstrip())


def swatch(place: int) -> Html:
    """Return a model's line and shape as they stand before its name."""
    line = element("line", x1="0", x2="24", y1="7", y2="7", class_="curve")
    return element("svg", line, marker(place, 12, 7), viewBox="0 0 24 14", width="24", height="14",
                   class_=f"swatch {look(place)}", aria_hidden="true")  # fmt: skip


def legend(models: Sequence[Model], places: Sequence[int]) -> Html:
    """Return the names of models with their colours; one that is pointed at is brought forward in every drawing."""
    told = [
        element("button", swatch(place), models[place].name, type="button", class_="key", data_model=str(place))
        for place in places
    ]
    return element("div", told, class_="keys")


def named(models: Sequence[Model], place: int, baseline: str) -> Html:
    """Return the head of a model's row."""
    name = models[place].name
    said = element("small", "baseline", class_="mark") if name == baseline else Html("")
    return element("th", swatch(place), name, " ", said, scope="row", class_="name")


def heads(models: Sequence[Model], places: Sequence[int]) -> list[Content]:
    """Return the heads of columns that each belong to a model, no taller than a few lines."""
    return [
        [swatch(place), element("span", cut(models[place].name, _HEAD), title=models[place].name)] for place in places
    ]


def width(text: str) -> float:
    """Return about how wide a text is in an 11 pixel font, in pixels."""
    return sum(_BROAD_LETTER if unicodedata.east_asian_width(letter) in "WF" else _LETTER for letter in text)


def cut(text: str, room: float) -> str:
    """Return a text that is not a wider than there is room: names often differ at both ends, so the middle is left out."""
    if width(text) <= room:
        return text
    keep = len(text)
    while keep > 2 and width(_without_middle(text, keep)) > room:
        keep -= 1
    return _without_middle(text, keep)


def _without_middle(text: str, keep: int) -> str:
    behind = keep * 2 // 5
    return f"{text[: keep - behind].rstrip()}\u2026{text[len(text) - behind :].lstrip()}"


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to be drawn."""
    return value is not None and math.isfinite(value)
