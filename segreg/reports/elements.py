"""HTML that can't be broken by what it shows: elements, tables, embedded images, and histograms as SVG."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

_WIDEST = 1600
"""Pixels; wider images are shrunk, for a page shows no more."""
_LARGEST_PNG = 200_000
"""Bytes; larger images are embedded as JPEG."""
_BINS = 20
_VOID = ("meta", "img")


@dataclass(frozen=True)
class Html:
    """A piece of a page. Everything that is not one is escaped where it is put into one."""

    text: str

    def __bool__(self) -> bool:
        return bool(self.text)


Content: TypeAlias = "Html | str | Iterable[Content]"


def element(name: str, /, *inside: Content, **attributes: str | None) -> Html:
    """Return an element; attributes that are None are left out, `class_` is written class and `a_b` is a-b."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in _VOID else f"{joined(inside).text}</{name}>"
    return Html(f"<{name}{written}>{end}")


def joined(pieces: Iterable[Content]) -> Html:
    """Return pieces one behind the other."""
    return Html("".join(_text(piece) for piece in pieces))


def _text(piece: Content) -> str:
    if isinstance(piece, Html):
        return piece.text
    return html.escape(piece) if isinstance(piece, str) else joined(piece).text


def number(value: float | None) -> str:
    """Return four decimals, or four digits of what is very small or large, or "undefined"."""
    if value is None or math.isnan(value):
        return "undefined"
    if isinstance(value, int) or math.isinf(value):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def cell(value: float | None, note: str = "") -> Html:
    """Return a table's cell with a number; shares of 1 get a bar as long as they are."""
    bar = f"--share:{value:.1%}" if isinstance(value, float) and 0 <= value <= 1 else None
    return element("td", number(value), [" ", element("small", note)] if note else "", class_="number", style=bar)


def table(columns: Sequence[Content], rows: Iterable[Html], *, sortable: bool = False) -> Html:
    """Return a table in a frame that scrolls sideways; `rows` are `tr` elements."""
    head = element("thead", element("tr", (element("th", column, scope="col") for column in columns)))
    kind = "sortable" if sortable else None
    return element("div", element("table", head, element("tbody", rows), class_=kind), class_="wide")


def facts(rows: Iterable[tuple[str, Content]]) -> Html:
    """Return a table of names and what is to be said of each; what is empty is left out."""
    kept = [(name, content) for name, content in rows if content]
    lines = (element("tr", element("th", name, scope="row"), element("td", content)) for name, content in kept)
    return element("div", element("table", element("tbody", lines), class_="facts"), class_="wide")


def image(file: Path, *, alt: str) -> Html:
    """Return a image embedded in the page, shrunk to a sensible size; words if the file can't be read."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return _not_shown(file.name, error)
    return embedded(data, alt=alt, name=file.name)


def embedded(data: bytes, *, alt: str, name: str = "a image") -> Html:
    """Return the image that a file's bytes hold embedded in the page, shrunk to a sensible size.

    Args:
        data: of a PNG, JPEG or other image file.
        alt: what is said of it where it can't be seen.
        name: by which it is told that it can't be read.
    """
    from PIL import Image

    kind = "png"
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            if width > _WIDEST or len(data) > _LARGEST_PNG or opened.format != "PNG":
                shown = opened.convert("RGB")
                shown.thumbnail((_WIDEST, 4 * _WIDEST))
                (width, height), data, kind = shown.size, *_smaller(shown)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return _not_shown(name, error)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return element("img", src=source, alt=alt, width=str(width), height=str(height))


def _not_shown(name: str, error: Exception) -> Html:
    return element("p", f"{name} can't be shown: {error}", class_="note")


def _smaller(image: Any) -> tuple[bytes, str]:
    found: dict[str, bytes] = {}
    for kind, settings in (("png", {"optimize": True}), ("jpeg", {"quality": 88})):
        file = io.BytesIO()
        image.save(file, kind, **settings)
        found[kind] = file.getvalue()
    kind = "png" if len(found["png"]) <= max(_LARGEST_PNG, len(found["jpeg"])) else "jpeg"
    return found[kind], kind


def histogram(name: str, values: Sequence[float]) -> Html:
    """Return how often each value was reached, with a line at the mean and a dashed one at the median."""
    defined = sorted(value for value in values if math.isfinite(value))
    left_out = len(values) - len(defined)
    told = f", {left_out} undefined" if left_out else ""
    if not defined:
        return element("figure", element("figcaption", element("b", name), f" {len(values)} undefined"))
    low, high = (0.0, 1.0) if defined[0] >= 0 and defined[-1] <= 1 else (defined[0], defined[-1])
    step = (high - low) / _BINS or 1.0
    counts = [0] * _BINS
    for value in defined:
        counts[min(_BINS - 1, int((value - low) / step))] += 1
    middle = len(defined) // 2
    median = defined[middle] if len(defined) % 2 else (defined[middle - 1] + defined[middle]) / 2
    mean = math.fsum(defined) / len(defined)
    drawn = [_bin(place, count, max(counts), low + place * step, step) for place, count in enumerate(counts) if count]
    for value, kind in ((mean, "mean"), (median, "median")):
        drawn.append(_upright(10 + 280 * (value - low) / (step * _BINS), kind))
    drawn.append(element("line", x1="10", x2="290", y1="100", y2="100", class_="axis"))
    ticks = ((low, 10, "start"), (round((low + high) / 2, 4), 150, "middle"), (high, 290, "end"))
    drawn += [element("text", f"{value:.4g}", x=str(x), y="115", text_anchor=anchor) for value, x, anchor in ticks]
    drawn.append(element("text", f"most: {max(counts)}", x="10", y="9", text_anchor="start"))
    words = f" mean {number(mean)}, median {number(median)}, {len(defined)} images{told}"
    svg = element("svg", drawn, viewBox="0 0 300 120", role="img", aria_label=f"{name}:{words}")
    return element("figure", element("figcaption", element("b", name), words), svg, class_="histogram")


def _bin(place: int, count: int, most: int, start: float, step: float) -> Html:
    height = 84 * count / most
    title = element("title", f"{start:.3g} to {start + step:.3g}: {count}")
    corner = {"x": f"{10.5 + 14 * place:g}", "y": f"{100 - height:.1f}"}
    return element("rect", title, **corner, width="13", height=f"{height:.1f}")


def _upright(place: float, kind: str) -> Html:
    return element("line", x1=f"{place:.1f}", x2=f"{place:.1f}", y1="14", y2="100", class_=kind)
