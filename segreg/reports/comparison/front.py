"""Which models nobody would pass over: for each of the others there is one that is as good and as cheap, and better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """What a model gives and what it takes.

    Attributes:
        quality: its score.
        cost: what it takes for that.
    """

    quality: float
    cost: float

    @property
    def is_known(self) -> bool:
        """Whether both are numbers."""
        return math.isfinite(self.quality) and math.isfinite(self.cost)


def pareto_front(offers: Sequence[Offer], *, high_quality: bool, high_cost: bool) -> list[int]:
    """Return the places of the offers that no other one dominates, the cheapest first.

    One offer dominates another if it is at least as good in both, and better in one. Equal offers don't dominate each
    other. An offer with a value that is not finite is on no front.

    Args:
        offers: what there is.
        high_quality: whether a higher quality is the better one.
        high_cost: whether a higher cost is the better one, as with images a second.
    """

    def key(place: int) -> tuple[float, float]:
        offer = offers[place]
        return (-offer.cost if high_cost else offer.cost, -offer.quality if high_quality else offer.quality)

    front: list[int] = []
    for place in sorted((place for place, offer in enumerate(offers) if offer.is_known), key=key):
        # From the cheapest on, only what is better than all before stays, or what equals the last of them in both.
        if not front or key(place)[1] < key(front[-1])[1] or key(place) == key(front[-1]):
            front.append(place)
    return front
