"""One word for one thing, the field's: words that must not return in the core's docstrings and messages."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "segreg").rglob("*.py")), *sorted((ROOT / "plugins").rglob("*.py"))]
INSTEAD = {
    r"^(Gives|Says|Tells)\b": "Return, Whether, Report",
    r"\bpictures?\b": "image",
    r"\btold\b|\bin words\b": "reported, formatted",
    r"(?<!here )(?<!here)\bis no (?!longer\b|more\b|less\b|other\b|need\b|reason\b|way\b|such\b|one\b)": "is not a",
    r"\btexts\b|\ba text\b(?! file)": "string",
    r"\b(can't|cannot) be had\b|\bto be had\b": "is not available",
    r"\bcan't be made\b": "could not create",
    r"\b(hangs?|hung) on\b": "depends on",
    r"\bmends?\b|\bmended\b": "fix",
    r"\bstands? twice\b": "is given twice",
    r"\b(goes|go|went|going) on with\b": "continues",
    r"\bin the place of\b": "instead of",
    r"\bside of (a|the|its) split\b|\btraining side\b|\btest side\b": "split",
    r"\btold apart\b": "significantly different",
    r"\bprocessors?\b|\bnumber formats?\b": "CPU, precision",
}
"""A pattern, and what is said instead."""


@cache
def strings(file):
    """Return the line and the text of each docstring and each string with a space in it."""
    return [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
    ]


@pytest.mark.parametrize("pattern", INSTEAD)
def test_words_that_must_not_return(pattern):
    found = [
        f"{file.relative_to(ROOT)}:{line}: {match.group()!r}"
        for file in FILES
        for line, text in strings(file)
        if (match := re.search(pattern, text, re.MULTILINE))
    ]
    assert found == [], f"say: {INSTEAD[pattern]}"
