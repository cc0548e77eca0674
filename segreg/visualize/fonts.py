"""Fonts for text in any script, as far as they are installed: classes and images are named in every language."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from segreg.runtime.output import say_once

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

_OF_OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Micro Hei", "IPAexGothic", "NanumGothic",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS",
)  # fmt: skip
"""Of Linux, Windows and macOS."""
_SIZE = 10
_MISSING = "Glyph .* missing from font"


@cache
def font_families() -> list[str]:
    """Return matplotlib's own font and the installed ones that have scripts which it lacks, for its `font.family`."""
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return ["DejaVu Sans", *(name for name in _OF_OTHER_SCRIPTS if name in installed)]


def text_style() -> dict[str, Any]:
    """Return settings of matplotlib for names of classes and images: they are of any script, and aren't formulas."""
    return {"text.parse_math": False, "font.family": font_families()}


@contextmanager
def saying_boxes() -> Iterator[None]:
    """Say once, and not of each letter, that matplotlib draws boxes, since no installed font has a script."""
    with warnings.catch_warnings(record=True) as found:
        warnings.filterwarnings("always", _MISSING)
        yield
    for warning in found:
        if re.match(_MISSING, str(warning.message)):
            say_once("diagrams have boxes for letters that no installed font has; Noto Sans CJK would have them")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@cache
def font_for(text: str) -> FreeTypeFont | ImageFont:
    """Return Pillow's own font, or for other letters than ASCII's the installed one that has most of them."""
    from PIL import ImageFont

    if text.isascii():
        return ImageFont.load_default()
    from matplotlib.font_manager import findfont, get_font

    letters = set(map(ord, text))
    files = [findfont(name) for name in font_families()]
    return ImageFont.truetype(max(files, key=lambda file: len(letters & get_font(file).get_charmap().keys())), _SIZE)
