"""The schedules that a recipe can name, each with a warm-up.

Rates change with every optimizer step; lengths are given in epochs. A rate that a setting names (`final_lr`, `min_lr`)
holds for every part of the network alike; everything else is relative to the part's own rate (`lr_factors`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from segreg.errors import SegregError
from segreg.registry.protocols import Schedule
from segreg.settings import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from segreg_plugins.schedules import curves

if TYPE_CHECKING:
    from torch.optim import Optimizer


def constant(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,  # noqa: ARG001 - the kind gives it
    *,
    warmup_epochs: NonNegativeFloat = 0.0,
    warmup_factor: Fraction = 0.1,
) -> Schedule:
    """The optimizer's rate throughout, after the warm-up.

    Args:
        warmup_epochs: epochs in which the rate rises in a straight line.
        warmup_factor: share of the rate that the rise starts from.
    """
    return curves.Followed(optimizer, curves.ramp(_steps(warmup_epochs, steps_per_epoch), warmup_factor))


def cosine(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    *,
    final_lr: NonNegativeFloat = 0.0,
    t_max_epochs: PositiveFloat | None = None,
    warmup_epochs: NonNegativeFloat = 0.0,
    warmup_factor: Fraction = 0.1,
) -> Schedule:
    """Half a cosine from the optimizer's rate to `final_lr`, without restarts.

    Args:
        final_lr: rate at the end.
        t_max_epochs: epochs of the half cosine, counted from the end of the warm-up; null takes all that remain. Later
            epochs stay at `final_lr`.
        warmup_epochs: epochs in which the rate rises in a straight line before.
        warmup_factor: share of the rate that the rise starts from.

    Raises:
        SegregError: `final_lr` is above the rate of a part, or the warm-up leaves no epoch for the cosine.
    """
    _below(optimizer, "cosine", "final_lr", final_lr)
    warmup = _steps(warmup_epochs, steps_per_epoch)
    rest = _rest("cosine", warmup, steps_per_epoch, epochs)
    length = t_max_epochs * steps_per_epoch if t_max_epochs else rest
    rise = curves.ramp(warmup, warmup_factor)
    return curves.Followed(optimizer, curves.after(warmup, rise, curves.half_cosine(length, final_lr)))


def poly(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    *,
    power: PositiveFloat = 0.9,
    final_lr: NonNegativeFloat = 0.0,
    warmup_epochs: NonNegativeFloat = 0.0,
    warmup_factor: Fraction = 0.1,
) -> Schedule:
    """The DeepLab papers' polynomial: the rate times (1 - share of the steps taken) ** power.

    Args:
        power: exponent.
        final_lr: rate at the end.
        warmup_epochs: epochs in which the rate rises in a straight line before.
        warmup_factor: share of the rate that the rise starts from.

    Raises:
        SegregError: `final_lr` is above the rate of a part, or the warm-up leaves no epoch for the polynomial.
    """
    _below(optimizer, "poly", "final_lr", final_lr)
    warmup = _steps(warmup_epochs, steps_per_epoch)
    length = _rest("poly", warmup, steps_per_epoch, epochs)
    rise = curves.ramp(warmup, warmup_factor)
    return curves.Followed(optimizer, curves.after(warmup, rise, curves.polynomial(length, power, final_lr)))


def step(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    *,
    every_epochs: PositiveInt | None = None,
    milestones: tuple[PositiveInt, ...] = (),
    gamma: PositiveFloat = 0.1,
    warmup_epochs: NonNegativeFloat = 0.0,
    warmup_factor: Fraction = 0.1,
) -> Schedule:
    """Stairs: the rate times `gamma` at every so many epochs, or after each of the milestones.

    Args:
        every_epochs: epochs on each stair; null takes a third of the training, where there are no milestones.
        milestones: numbers of epochs, from the start of the training, after which a stair comes.
        gamma: factor of one stair.
        warmup_epochs: epochs in which the rate rises in a straight line before; they count.
        warmup_factor: share of the rate that the rise starts from.

    Raises:
        SegregError: both `every_epochs` and `milestones` are given.
    """
    if every_epochs is not None and milestones:
        raise SegregError("schedule step: both every_epochs and milestones are given", hint="leave one of them out")
    each = every_epochs or math.ceil(epochs / 3)
    stairs = milestones or tuple(range(each, epochs + 1, each))
    rise = curves.ramp(_steps(warmup_epochs, steps_per_epoch), warmup_factor)
    fall = curves.stairs([epoch * steps_per_epoch for epoch in stairs], gamma)
    return curves.Followed(optimizer, lambda full, count: rise(fall(full, count), count))


def plateau(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,  # noqa: ARG001 - the kind gives it
    *,
    factor: Fraction = 0.1,
    patience: NonNegativeInt = 10,
    min_lr: NonNegativeFloat = 0.0,
    threshold: NonNegativeFloat = 1e-4,
    cooldown: NonNegativeInt = 0,
    warmup_epochs: NonNegativeFloat = 0.0,
    warmup_factor: Fraction = 0.1,
) -> Schedule:
    """A lower rate whenever the monitored value has not become better for some epochs.

    Args:
        factor: what the rate is multiplied with.
        patience: epochs without a better value that are forgiven.
        min_lr: floor of the rate.
        threshold: share of the best value by which a better one exceeds it.
        cooldown: epochs after a fall that are not counted.
        warmup_epochs: epochs in which the rate rises in a straight line before.
        warmup_factor: share of the rate that the rise starts from.

    Raises:
        SegregError: `min_lr` is above the rate of a part, or `factor` would change nothing.
    """
    if not 0 < factor < 1:
        raise SegregError(f"schedule plateau: factor must be above 0 and below 1, not {factor:g}")
    _below(optimizer, "plateau", "min_lr", min_lr)
    return curves.Plateau(
        optimizer,
        curves.ramp(_steps(warmup_epochs, steps_per_epoch), warmup_factor),
        factor=factor,
        patience=patience,
        min_lr=min_lr,
        threshold=threshold,
        cooldown=cooldown,
    )


def one_cycle(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    *,
    warmup_epochs: PositiveFloat | None = None,
    warmup_factor: Fraction = 0.04,
    final_factor: Fraction = 4e-6,
) -> Schedule:
    """One cycle: up to the optimizer's rate along half a cosine, and down along another. Momentum stays as it is.

    Args:
        warmup_epochs: epochs of the rise; null takes 30% of the training.
        warmup_factor: share of the rate that the rise starts from.
        final_factor: share of the rate at the end.

    Raises:
        SegregError: the rise leaves no step for the fall.
    """
    steps = steps_per_epoch * epochs
    # As in torch.optim.lr_scheduler.OneCycleLR, the last step has the lowest rate, so that one step fewer is travelled.
    rise = max((0.3 * steps if warmup_epochs is None else warmup_epochs * steps_per_epoch) - 1, 0)
    if warmup_epochs is not None and rise >= steps - 1:
        raise SegregError(
            f"schedule one_cycle: the rise takes {rise + 1:g} steps, but the whole training has {steps}",
            hint="shorten warmup_epochs or train longer",
        )
    return curves.Followed(optimizer, curves.up_and_down(steps, rise, warmup_factor, final_factor))


def _steps(epochs: float, steps_per_epoch: int) -> int:
    return math.ceil(epochs * steps_per_epoch)


def _rest(name: str, warmup: int, steps_per_epoch: int, epochs: int) -> int:
    rest = steps_per_epoch * epochs - warmup
    if rest < 1:
        raise SegregError(
            f"schedule {name}: the warm-up takes {warmup} steps, but the whole training has {steps_per_epoch * epochs}",
            hint="shorten warmup_epochs or train longer",
        )
    return rest


def _below(optimizer: Optimizer, name: str, setting: str, floor: float) -> None:
    for group in optimizer.param_groups:
        if floor > group["lr"]:
            part = f' of "{group["name"]}"' if "name" in group else ""
            raise SegregError(
                f"schedule {name}: {setting} is {floor:g}, above the learning rate{part}, {group['lr']:g}",
                hint=f"lower {setting}, or raise the optimizer's lr or the part's factor in train.lr_factors",
            )
