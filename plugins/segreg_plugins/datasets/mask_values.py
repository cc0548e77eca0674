"""Which class each value or colour of a mask means: the setting `values`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from segreg.errors import Problem, SegregError, listed
from segreg.settings import UNDEFINED_TOO
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Values = Annotated[dict[str, int | float | str | list[int | float | str | list[int]]], UNDEFINED_TOO]
"""The type of the setting: a class's value, range, colour, or a list of them."""
IGNORE, BACKGROUND = "ignore", "background"
_MOST_LISTED = 8
_RANGE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class ValueTable:
    """The labels of values, or of colours packed into one number, as ranges that don't overlap.

    Attributes:
        colours: whether masks are looked at as colours.
        lows: where each range begins, ascending.
        highs: where it ends, which is part of it.
        labels: the label of each: a class's number, or 255 where it is ignored.
        nan: the label of "not a number", or None where it has none.
    """

    colours: bool
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    labels: tuple[int, ...]
    nan: int | None = None

    def labels_of(self, pixels: NDArray[Any], file: Path | None) -> NDArray[np.uint8]:
        """Return the labels, uint8 `[H, W]`, of values `[H, W]`, or of colours `[H, W, 3]`.

        Raises:
            SegregError: a value belongs to no class and is not ignored; the message has such values and their pixels.
        """
        import numpy as np

        codes = packed(pixels) if self.colours else pixels
        if codes.dtype.kind in "iu" and codes.dtype.itemsize <= 2:  # many times faster than a search for each pixel
            limits = np.iinfo(codes.dtype)
            every = self._search(np.arange(limits.min, limits.max + 1))
            labels = every[codes.astype(np.int32) - limits.min]
        else:
            labels = self._search(codes)
        unknown = labels < 0
        if unknown.any():
            raise self._unknown(codes[unknown], codes.size, file)
        return labels.astype(np.uint8)

    def _search(self, codes: NDArray[Any]) -> NDArray[np.int16]:
        """Return the label of each value, and -1 where it has none."""
        import numpy as np

        lows, highs = np.array(self.lows), np.array(self.highs)
        if codes.dtype.kind == "f":  # 0.1 is another number in float32
            with np.errstate(over="ignore"):
                lows, highs = lows.astype(codes.dtype).astype(float), highs.astype(codes.dtype).astype(float)
        exact = codes.astype(float)
        at = np.searchsorted(lows, exact, side="right") - 1
        found = np.where((at >= 0) & (exact <= highs[at]), np.array(self.labels, np.int16)[at], np.int16(-1))
        return found if self.nan is None else np.where(np.isnan(exact), np.int16(self.nan), found)

    def _unknown(self, codes: NDArray[Any], pixels: int, file: Path | None) -> SegregError:
        import numpy as np

        found, counts = np.unique(codes, return_counts=True)
        most = np.argsort(-counts, kind="stable")[:_MOST_LISTED]
        values = [str(unpacked(int(code))) if self.colours else number(code) for code in found[most].tolist()]
        pixels_of = [f"{count} pixel{'s' * (count > 1)}" for count in counts[most].tolist()]
        some = [f"{value} ({count})" for value, count in zip(values, pixels_of, strict=True)]
        some += [f"{len(found) - len(most)} more"] * (len(found) > len(most))
        what = "colour" if self.colours else "value"
        hints = [f"name each {what} in values, under its class or under {IGNORE}"]
        if self.colours and all(len(set(unpacked(int(code)))) == 1 for code in found.tolist()):
            hints.append(
                "three numbers in a list are a colour where each class has such a list; write values as a range"
            )
        return SegregError(
            f"{file}: holds {what}s that no class has, in {len(codes)} of {pixels} pixels: {listed(some, quote='')}",
            hint="\n".join(hints),
        )


def value_table(values: Values, classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], ValueTable]:
    """Return the classes, in the order of `classes` or else of `values`, and the label of each value.

    One class besides `background` is a binary task if `classes` names it alone.

    Raises:
        SegregError: an entry is not a value, range or colour, a value is given twice, or the classes are others than
            those of `classes`; all problems at once.
    """
    named = tuple(name for name in values if name != IGNORE)
    problems: list[Problem] = []
    binary = classes is not None and len(classes) == 1
    expected = {*classes, BACKGROUND} if classes and binary else set(classes or named)
    if set(named) != expected:
        missing = [name for name in expected if name not in named]
        extra = [name for name in named if name not in expected]
        parts = [f"values has no {listed(sorted(missing))}"] if missing else []
        parts += [f"classes has no {listed(extra)}"] if extra else []
        hint = "for one class, values has it and background" if binary else "classes may be left out"
        problems.append(Problem(f"values and classes must name the same classes: {' and '.join(parts)}", hint=hint))
    elif len(named) < 2:
        hint = "such as values: {background: 0, road: [7, 8], ignore: 255}"
        problems.append(Problem("values: names fewer than two classes", hint=hint))
    order = (BACKGROUND, *classes) if classes and binary else classes or named
    shapes = {name: _is_colour(entry) for name, entry in values.items()}
    colours = all(shapes.values())
    ranges: list[tuple[float, float, str]] = []
    nan: int | None = None
    for name, entry in values.items():
        label = IGNORE_INDEX if name == IGNORE else order.index(name) if name in order else 0
        items = entry if isinstance(entry, list) and not (colours and _is_one_colour(entry)) else [entry]
        if not items:
            problems.append(Problem(f"values.{name}: is empty"))
        for item in items:
            found = _colour(item) if colours else _range(item)
            if found is None:
                problems.append(_no_value(name, item))
            elif math.isnan(found[0]):
                if nan is not None:
                    problems.append(Problem(f"values: nan is given to {name}, and not for the first time"))
                nan = label
            else:
                ranges.append((*found, name))
    ranges.sort(key=lambda item: item[:2])
    reached, one = -math.inf, ""
    for low, high, other in ranges:
        if low <= reached:
            what = number(low) if low == high else f"{number(low)} to {number(high)}"
            both = f"{one} and {other}" if one != other else f"{one} twice"
            problems.append(Problem(f"values: {unpacked(int(low)) if colours else what} is given to {both}"))
        if high >= reached:
            reached, one = high, other
    if problems:
        raise SegregError.of(problems)
    labels = tuple(IGNORE_INDEX if name == IGNORE else order.index(name) for _, _, name in ranges)
    lows, highs = tuple(low for low, _, _ in ranges), tuple(high for _, high, _ in ranges)
    return tuple(classes or named), ValueTable(colours, lows, highs, labels, nan)


def unpacked(code: int) -> tuple[int, int, int]:
    """Return the colour that a number stands for."""
    return code >> 32, code >> 16 & 0xFFFF, code & 0xFFFF


def packed(colours: NDArray[Any]) -> NDArray[np.int64]:
    """Return one number for each colour of `[H, W, 3]`; 16 bits a channel have room in it."""
    import numpy as np

    wide = colours.astype(np.int64)
    return (wide[..., 0] << 32) | (wide[..., 1] << 16) | wide[..., 2]


def value_counts(values: NDArray[Any]) -> dict[int, int]:
    """Return how many pixels have each of the values that occur, in order."""
    import numpy as np

    if values.dtype in (np.uint8, np.uint16):  # many times faster than sorting
        counts = np.bincount(values.ravel())
        found = np.flatnonzero(counts)
        return dict(zip(found.tolist(), counts[found].tolist(), strict=True))
    found, counts = np.unique(values, return_counts=True)
    return {int(value): count for value, count in zip(found.tolist(), counts.tolist(), strict=True)}


def _is_one_colour(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 3 and all(isinstance(v, int) and 0 <= v <= 65535 for v in entry)


def _is_colour(entry: Any) -> bool:
    return _is_one_colour(entry) or (isinstance(entry, list) and bool(entry) and all(map(_is_one_colour, entry)))


def _colour(entry: Any) -> tuple[float, float]:
    red, green, blue = entry
    code = float(red << 32 | green << 16 | blue)
    return code, code


def _range(entry: Any) -> tuple[float, float] | None:
    if isinstance(entry, (int, float)):
        return float(entry), float(entry)
    match = _RANGE.fullmatch(entry) if isinstance(entry, str) else None
    low, high = map(float, match.groups()) if match else (1.0, 0.0)
    return (low, high) if low <= high else None


def _no_value(name: str, item: object) -> Problem:
    if isinstance(item, list):
        return Problem(
            f"values.{name}: {item} is among values, and a list in a list is a colour",
            hint="either each class has values, such as [7, 8], or each has colours of three numbers, such as "
            "[[128, 0, 128], [0, 0, 0]]",
        )
    return Problem(
        f'values.{name}: "{item}" is not a range', hint='a range is the smaller value first, such as "10-20"'
    )


def number(value: float) -> str:
    """Return a value as it is written: 70000, -1, 0.5."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def described(values: Sequence[float]) -> str:
    """Return "the value 7", "the values 0, 1 and 7", or the first of many and the last."""
    shown = [number(value) for value in values]
    if len(shown) == 1:
        return f"the value {shown[0]}"
    if len(shown) <= _MOST_LISTED:
        return f"the values {', '.join(shown[:-1])} and {shown[-1]}"
    return f"{len(shown)} values ({', '.join(shown[:5])}, ... {shown[-1]})"
