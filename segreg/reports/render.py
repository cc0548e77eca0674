"""Pages from jinja2 templates: one HTML file that opens from disk, with its style, script and images inside."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeGuard

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segreg.errors import SegregError
from segreg.registry.compatibility import DISTRIBUTION
from segreg.runtime.files import write_text
from segreg.runtime.output import printable

_MAX_WIDTH = 1600
"""Pixels; wider images are shrunk."""
_MAX_PNG = 200_000
"""Bytes; larger images are embedded as JPEG."""
_MAX_PIXELS = 100_000_000
"""Of an image that is opened; a larger one stays a file."""
MAX_CLASSES = 60
"""Rows of a table of classes."""
POOLED, PER_IMAGE, CLASS = ".pooled", ".per_image_mean", ".class."
"""In the full names of metrics: what is averaged how, and what is of a single class."""
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def render(template: str, **values: Any) -> str:
    """Return a page.

    Everything is escaped except Markup. The page's policy lets a browser fetch nothing and run only the page's script.

    Args:
        template: `run`, `comparison`, `matrix` or `tune`.
        **values: the template's variables.
    """
    style, script = (asset("page.css"), asset("page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    page = _environment().get_template(f"{template}.html.j2")
    return page.render(
        style=Markup(style), script=Markup(script), digest=digest, version=version(DISTRIBUTION), **values  # noqa: S704
    )  # fmt: skip


def write(text: str, file: Path, what: str) -> Path:
    """Write a page, create its folder if it is missing, and return the file.

    Raises:
        SegregError: the file can't be written; `what` names it.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        raise SegregError(f"the {what} {file} can't be written: {error.strerror}") from None
    return file


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("segreg.reports", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, short=short, embed=embed, share=share, cut=cut, named=named)
    return environment


def asset(name: str) -> str:
    """Return a file of the templates' folder."""
    return files("segreg.reports").joinpath("templates", name).read_text(encoding="utf-8")


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return value is not None and math.isfinite(value)


def number(value: float | None) -> str:
    """Return four decimals, four significant digits for very small or large values, or "undefined"."""
    if value is None or math.isnan(value):
        return "undefined"
    if isinstance(value, int) or math.isinf(value):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def short(value: float | None) -> str:
    """Return three significant digits, with k, M, G or T from 10,000 on; "undefined" for NaN and None."""
    if value is None or math.isnan(value):
        return "undefined"
    for letter, size in _UNITS:
        if math.isfinite(value) and abs(value) >= max(size, 1e4):
            return f"{value / size:.3g} {letter}" if abs(value) < 999.5 * size else f"{value / size:.0f} {letter}"
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e4 else f"{value:.3g}"


def share(value: float | None) -> str | None:
    """Return the style of a cell with a bar as long as the value's share of 1; None if it is not in [0, 1]."""
    return f"--share:{value:.1%}" if is_known(value) and isinstance(value, float) and 0 <= value <= 1 else None


def cut(text: str, most: int) -> str:
    """Return at most so many letters; the middle is left out, because names often differ at either end."""
    text = printable(text)
    if len(text) <= most:
        return text
    behind = most * 2 // 5
    return f"{text[: most - behind - 1].rstrip()}\u2026{text[len(text) - behind :].lstrip()}"


def embed(image: Path | bytes, alt: str) -> Markup:
    """Return the `img` element of an image file or its bytes, shrunk if it is large; a note if it can't be read."""
    from PIL import Image

    name = image.name if isinstance(image, Path) else "an image"
    kind = "png"
    try:
        data = image.read_bytes() if isinstance(image, Path) else image
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            if width * height > _MAX_PIXELS:
                raise ValueError(f"it has {width} x {height} pixels")
            if width > _MAX_WIDTH or len(data) > _MAX_PNG or opened.format != "PNG":
                shown = opened.convert("RGB")
                shown.thumbnail((_MAX_WIDTH, 4 * _MAX_WIDTH))
                (width, height), (data, kind) = shown.size, _encode(shown)
    except (OSError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        return Markup('<p class="note">{} can\'t be shown: {}</p>').format(name, str(error) or type(error).__name__)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Markup('<img src="{}" alt="{}" width="{}" height="{}">').format(source, alt, width, height)


def _encode(image: Any) -> tuple[bytes, str]:
    found: dict[str, bytes] = {}
    for kind, settings in (("png", {"optimize": True}), ("jpeg", {"quality": 88})):
        file = io.BytesIO()
        image.save(file, kind, **settings)
        found[kind] = file.getvalue()
    kind = "png" if len(found["png"]) <= max(_MAX_PNG, len(found["jpeg"])) else "jpeg"
    return found[kind], kind


def split_name(name: str) -> tuple[str, str]:
    """Return a metric's name without its ending, and what the ending means; ("dice", "pooled") of "dice.pooled"."""
    meaning = {POOLED: "pooled", PER_IMAGE: "mean over images"}
    ending = next((ending for ending in meaning if name.endswith(ending)), "")
    return name.removesuffix(ending), meaning.get(ending, "")


def definitions(names: Sequence[str], known: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]], int]:
    """Return names and definitions of whole metrics, those of single classes, and how many of these are left out."""
    pairs = [(name, str(known.get(name, "no definition"))) for name in dict.fromkeys(names)]
    of_classes = [pair for pair in pairs if CLASS in pair[0]]
    shown = of_classes if len(of_classes) <= 10 * MAX_CLASSES else of_classes[:MAX_CLASSES]
    return [pair for pair in pairs if CLASS not in pair[0]], shown, len(of_classes) - len(shown)


def named(classes: Sequence[str]) -> str:
    """Return the names of classes, at most as many as a table has rows."""
    rest = f" and {len(classes) - MAX_CLASSES} more" if len(classes) > MAX_CLASSES else ""
    return ", ".join(classes[:MAX_CLASSES]) + rest


def worst_classes(means: Mapping[str, float | None]) -> tuple[list[str], str]:
    """Return the names of the classes that a table shows, in their order, and a note if they are not all.

    Args:
        means: by the name of each class what it is chosen by; the lowest are shown, and undefined ones last.
    """
    if len(means) <= MAX_CLASSES:
        return [*means], ""
    known = {name: value if is_known(value) else math.inf for name, value in means.items()}
    chosen = set(sorted(known, key=known.__getitem__)[:MAX_CLASSES])
    return [name for name in means if name in chosen], f"the {MAX_CLASSES} of {len(means)} classes with the lowest"
