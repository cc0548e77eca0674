"""The frame of a drawing: an SVG with its axes, which a reader without script or colours can read too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segreg.reports.comparison.scales import Scale, tick_words
from segreg.reports.elements import Content, Html, element, joined


@dataclass(frozen=True)
class Frame:
    """The room of a drawing and what is left of it beside its axes, in pixels.

    Attributes:
        width: of the whole.
        height: of the whole.
        left: where the axes begin.
        right: where they end.
        top: where they begin.
        bottom: where they end.
    """

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    def drawn(self, about: str, *inside: Content, kind: str = "") -> Html:
        """Return the drawing, in a frame that scrolls sideways where it does not fit."""
        svg = element(
            "svg", inside, viewBox=f"0 0 {self.width} {self.height}", width=str(self.width), height=str(self.height),
            role="img", aria_label=about, class_=f"plot {kind}".rstrip(),
        )  # fmt: skip
        return element("div", svg, class_="wide")

    def across(self, scale: Scale, label: str = "", *, ticks: int = 6) -> Html:
        """Return the axis below, with a fine line upwards at each tick."""
        drawn: list[Content] = []
        values = scale.ticks(ticks)
        for value, words in zip(values, tick_words(values, log=scale.log), strict=True):
            x = scale.at(value)
            drawn += [line(x, self.top, x, self.bottom, "grid"), text(words, x, self.bottom + 14, "middle")]
        drawn.append(line(self.left, self.bottom, self.right, self.bottom, "axis"))
        if label:
            drawn.append(text(label, (self.left + self.right) / 2, self.bottom + 32, "middle", kind="label"))
        return joined(drawn)

    def upwards(self, scale: Scale, label: str = "", *, ticks: int = 5) -> Html:
        """Return the axis at the left, with a fine line across at each tick."""
        drawn: list[Content] = []
        values = scale.ticks(ticks)
        for value, words in zip(values, tick_words(values, log=scale.log), strict=True):
            y = scale.at(value)
            drawn += [line(self.left, y, self.right, y, "grid"), text(words, self.left - 6, y + 3.5, "end")]
        drawn.append(line(self.left, self.top, self.left, self.bottom, "axis"))
        if label:
            drawn.append(text(label, 4, self.top - 10, "start", kind="label"))
        return joined(drawn)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    """Return a straight line."""
    return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def text(words: str, x: float, y: float, anchor: str, *, kind: str | None = None) -> Html:
    """Return words at a place; `anchor` is "start", "middle" or "end"."""
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def polyline(points: Sequence[tuple[float, float]], kind: str) -> Html:
    """Return a line through points; a dot where there is only one."""
    if len(points) == 1:
        (x, y) = points[0]
        return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="1.8", class_=f"{kind} dot")
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=kind)
