"""What a metric can give besides numbers: curves, matrices and reliability, ready to be drawn.

A metric offers them by a method `tables() -> dict[str, Curve | Matrix | Reliability]`, under names of its own choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Curve:
    """One line in the unit square. Curves of the same axes are drawn into one panel.

    Attributes:
        name: whose curve it is, such as a class.
        x: float64 `[N]`, in the line's order.
        y: float64 `[N]`.
        x_label: what x is.
        y_label: what y is.
        note: stands behind the name, such as "AUC 0.912".
        chance: what guessing reaches: y at x = 0 and at x = 1. None where there is no such line.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    x_label: str
    y_label: str
    note: str = ""
    chance: tuple[float, float] | None = None


@dataclass(frozen=True)
class Matrix:
    """How often each true label was given each predicted one.

    Attributes:
        name: what is counted; "" where there is but one matrix.
        labels: names of the labels, in index order.
        counts: integers `[L, L]`, true labels in rows.
    """

    name: str
    labels: tuple[str, ...]
    counts: NDArray[Any]


@dataclass(frozen=True)
class Reliability:
    """How often predictions come true, by how sure they were, in equal bins of [0, 1].

    Attributes:
        name: whose predictions, such as a class.
        confidence: float64 `[N]`, each bin's mean predicted probability; NaN where the bin is empty.
        accuracy: float64 `[N]`, the share of each bin that came true; NaN where the bin is empty.
        share: float64 `[N]`, each bin's share of all predictions.
        note: stands behind the name, such as "ECE 0.031".
    """

    name: str
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]
    note: str = ""
