"""How recipes ask for losses of shapes: distances from boundaries, and centre lines.

None of them replaces a loss of regions; a recipe adds one to `dice` or a cross-entropy, often with a weight that grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segreg.settings import PositiveFloat, PositiveInt
from segreg_plugins.losses.classes import kept_classes

if TYPE_CHECKING:
    from torch import nn

    from segreg.task import Task


def boundary(task: Task, *, exclude: tuple[str, ...] = ()) -> nn.Module:
    """Boundary loss: what is wrong counts by its distance from the truth's boundary.

    `mean(d (p - t))` over pixels and classes, d being the distance from the truth's boundary in pixels, negative
    inside. A class whose boundary an image does not show has no part in it. Distances are computed on the CPU, which
    takes about 10 ms for each class of an image of 512 by 512 pixels.

    Args:
        exclude: names of classes that don't take part, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    kept = _kept(task, exclude)

    from segreg_plugins.losses.distances import Boundary

    return Boundary(task, kept)


def hausdorff_dt(task: Task, *, alpha: PositiveFloat = 2.0, exclude: tuple[str, ...] = ()) -> nn.Module:
    """Hausdorff loss by distance transforms: squared errors count by their distance from both boundaries.

    `mean((p - t)^2 (d_p^alpha + d_t^alpha))` over pixels and classes, d being the distance from the boundary of the
    prediction (p above 0.5) and of the truth, in pixels. Distances are computed on the CPU, at twice `boundary`'s cost.

    Args:
        alpha: how much more far mistakes count.
        exclude: names of classes that don't take part, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    kept = _kept(task, exclude)

    from segreg_plugins.losses.distances import HausdorffDT

    return HausdorffDT(task, alpha, kept)


def cldice(
    task: Task, *, iterations: PositiveInt = 3, smooth: PositiveFloat = 1.0, exclude: tuple[str, ...] = ()
) -> nn.Module:
    """Centre-line Dice, for thin structures such as vessels and roads: a gap costs as much as it breaks.

    `1 - 2 a b / (a + b)` for each class over the batch, then the mean over classes, where
    a = (sum(S(p) t) + smooth) / (sum(S(p)) + smooth), b = (sum(S(t) p) + smooth) / (sum(S(t)) + smooth), and S is the
    soft skeleton.

    Args:
        iterations: how often masks are thinned to their skeleton; at least the structures' largest radius in pixels.
        smooth: pixels added above and below.
        exclude: names of classes that don't take part, such as the background.

    Raises:
        SegregError: `exclude` names no class of the task, or all of them.
    """
    kept = _kept(task, exclude)

    from segreg_plugins.losses.skeleton import ClDice

    return ClDice(task, iterations, smooth, kept)


def _kept(task: Task, exclude: tuple[str, ...]) -> list[int]:
    """Return the indices of the classes that take part."""
    return [index for index, one in enumerate(kept_classes(task, exclude)) if one]
