"""From values to places on a drawing, and to the few words that stand at an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_WIDE_SPAN = 20
"""Largest by smallest value from which an axis is logarithmic."""
_LARGE = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: value at `start`.
        high: value at `end`; larger than `low`.
        start: place on the drawing.
        end: place on the drawing, on either side of `start`.
        log: whether equal factors rather than equal steps are equally far apart; `low` is then positive.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return a value's place."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values between the ends, about as many as are asked for."""
        if self.log and self.high / self.low >= 10:
            return self._log_ticks(about)
        step = _round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{place * step:.12g}") for place in range(first, last + 1)]

    def _log_ticks(self, about: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for steps in ((1,), (1, 3), (1, 2, 5)):
            every = [step * 10.0**decade for decade in decades for step in steps]
            denser = [value for value in every if self.low <= value <= self.high]
            if found and len(denser) > about + 1:
                return found
            found = denser
        return found


def scale(values: Iterable[float], start: float, end: float, *, may_be_log: bool = False) -> Scale | None:
    """Return the axis on which all values that are finite have their place, with some air; None without any.

    Args:
        values: what is to be shown.
        start: place of the axis' lower end.
        end: place of its upper end.
        may_be_log: whether it is logarithmic where positive values span more than a factor of 20.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if may_be_log and low > 0 and high / low > _WIDE_SPAN:
        air = (high / low) ** 0.06
        return Scale(low / air, high * air, start, end, log=True)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return Scale(low - air, high + air, start, end)


def short(value: float | None) -> str:
    """Return about four digits, with k, M, G or T for a thousand, a million and so on; "undefined" for NaN."""
    if value is None or math.isnan(value):
        return "undefined"
    for letter, size in _LARGE:
        # 9999 is told as it is: no reader needs help with four digits.
        if math.isfinite(value) and abs(value) >= max(size, 1e4):
            return f"{value / size:.3g} {letter}" if abs(value) < 999.5 * size else f"{value / size:.0f} {letter}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e4 else f"{value:.3g}"


def tick_words(values: Sequence[float], *, log: bool) -> list[str]:
    """Return what stands at ticks: on an axis of equal steps all in the same unit, with the same number of decimals."""
    most = max(map(abs, values), default=0.0)
    if log:
        return [short(value) for value in values]
    letter, size = next(((f" {letter}", size) for letter, size in _LARGE if most >= max(size, 1e4)), ("", 1.0))
    told = [f"{value / size:.10g}" for value in values]
    if any("e" in words for words in told):
        return told
    decimals = max((len(words.partition(".")[2]) for words in told), default=0)
    return [f"{value / size:.{decimals}f}{letter}" for value in values]


def _round_step(about: float) -> float:
    decade = 10.0 ** math.floor(math.log10(about))
    return decade * min((1, 2, 5, 10), key=lambda step: abs(math.log(step * decade / about)))
