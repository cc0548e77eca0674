"""Where the names stand beside their points, so that none covers another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEIGHT = 14
_AROUND = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
_AWAY = (10, 20, 34, 50, 70)
"""Pixels from the point to its name, tried in turn."""


@dataclass(frozen=True)
class Box:
    """A piece of a drawing, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether two pieces share some room."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Box) -> bool:
        """Whether the other one is wholly inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


def placed(
    points: Sequence[tuple[float, float]], widths: Sequence[float], room: Box, taken: Sequence[Box]
) -> list[Box | None]:
    """Return the place of each point's name, those that come first having the choice; None where no room is left.

    Args:
        points: what is named.
        widths: of the names.
        room: inside which the names stand.
        taken: what no name may cover, beside the points themselves.
    """
    marks = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    found: list[Box | None] = []
    for (x, y), width in zip(points, widths, strict=True):
        names = [box for box in found if box is not None]
        tries = [box for box in _tries(x, y, width) if room.holds(box) and not any(map(box.meets, [*names, *marks]))]
        # A name may rather stand on a bar or a line than be left out.
        free = [box for box in tries if not any(map(box.meets, taken))]
        found.append(next(iter([*free, *tries]), None))
    return found


def _tries(x: float, y: float, width: float) -> Iterator[Box]:
    for away in _AWAY:
        for right, down in _AROUND:
            middle_x = x + right * (away + width / 2) if down == 0 else x + right * (away / 2 + width / 2)
            middle_y = y + down * (away + _HEIGHT / 2)
            yield Box(middle_x - width / 2, middle_y - _HEIGHT / 2, middle_x + width / 2, middle_y + _HEIGHT / 2)
