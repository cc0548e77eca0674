"""A recipe's text with a comment behind each line that has a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segreg.config.recipe import one_line
from segreg.runtime.output import printable

_WIDTH = 120


def recipe_text(values: Mapping[str, Any], reasons: Mapping[tuple[str, ...], str], header: Sequence[str]) -> str:
    """Return a recipe as YAML: sections in the order of `values`, a setting a line, reasons aligned behind them.

    Args:
        values: the recipe.
        reasons: by path: `("input", "size")`, and `("augment", "0")` for an item of a list.
        header: lines of the comment at the top.
    """
    parts = ["\n".join(f"# {_on_one_line(line)}".rstrip() for line in header)]
    for name, section in values.items():
        if isinstance(section, Mapping):
            inside = {key: f"  {key}: {one_line(key, value)}" for key, value in section.items()}
        elif isinstance(section, list) and section and isinstance(section[0], Mapping):
            inside = {str(place): f"  - {one_line(name, item)}" for place, item in enumerate(section)}
        else:
            parts.append("\n".join(_aligned([(f"{name}: {one_line(name, section)}", reasons.get((name,), ""))])))
            continue
        lines = _aligned([(line, reasons.get((name, key), "")) for key, line in inside.items()])
        parts.append("\n".join([f"{name}:", *lines]))
    return "\n\n".join(parts) + "\n"


def _aligned(lines: Sequence[tuple[str, str]]) -> list[str]:
    """Return lines with their comments in one column; a comment that does not fit stands above its line."""
    lines = [(line, _on_one_line(why)) for line, why in lines]
    fitting = [line for line, why in lines if why and len(line) + len(why) + 5 <= _WIDTH]
    column = max(map(len, fitting), default=0)
    written = []
    for line, why in lines:
        if not why:
            written.append(line)
        elif max(column, len(line)) + len(why) + 5 <= _WIDTH:
            written.append(f"{line:<{column}}   # {why}")
        else:
            written += [f"{line[: len(line) - len(line.lstrip())]}# {why}", line]
    return written


def _on_one_line(comment: str) -> str:
    """Return a comment that ends where its line does: it may have names of folders, which hold any character."""
    return printable(comment.replace("\n", "\\n"))
