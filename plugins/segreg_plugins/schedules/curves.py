"""How a learning rate follows the count of optimizer steps: a curve, and a fall on every plateau."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

Curve = Callable[[float, int], float]
"""From a part's full learning rate and the number of steps taken to its learning rate in the next step."""


class Followed:
    """Keep every parameter group's learning rate on a curve."""

    def __init__(self, optimizer: Optimizer, curve: Curve) -> None:
        self.optimizer = optimizer
        self.curve = curve
        self.full = full_rates(optimizer)
        self.steps = 0
        self._apply()

    def step(self) -> None:
        """Goes one optimizer step further."""
        self.steps += 1
        self._apply()

    def _apply(self) -> None:
        for group, full in zip(self.optimizer.param_groups, self.full, strict=True):
            group["lr"] = self.curve(full, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return what a later process needs to continue."""
        return {"steps": self.steps, "full": list(self.full)}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take up what `state_dict` gave."""
        self.steps, self.full = int(state["steps"]), [float(rate) for rate in state["full"]]
        self._apply()


class Plateau:
    """Lower the learning rates when the monitored value has not become better for some epochs.

    A value is better when it exceeds the best by `threshold` times the best's size. For losses, which arrive negated,
    that is `ReduceLROnPlateau`'s "min" and "rel", for scores its "max" and "rel".
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: Curve,
        *,
        factor: float,
        patience: int,
        min_lr: float,
        threshold: float,
        cooldown: int,
    ) -> None:
        self.optimizer = optimizer
        self.warmup = warmup
        self.factor, self.patience, self.min_lr = factor, patience, min_lr
        self.threshold, self.cooldown = threshold, cooldown
        self.rates = full_rates(optimizer)
        self.best = -math.inf
        self.steps = self.bad_epochs = self.resting = 0
        self._apply()

    def step(self) -> None:
        """Goes one optimizer step further."""
        self.steps += 1
        self._apply()

    def epoch_end(self, value: float, /) -> None:
        """Take the monitored value of an epoch, larger is better; NaN is never better."""
        if value > (self.best + abs(self.best) * self.threshold if math.isfinite(self.best) else self.best):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.resting > 0:
            self.resting, self.bad_epochs = self.resting - 1, 0
        if self.bad_epochs > self.patience:
            self.rates = [max(rate * self.factor, self.min_lr) for rate in self.rates]
            self.resting, self.bad_epochs = self.cooldown, 0
            self._apply()

    def _apply(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = self.warmup(rate, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return what a later process needs to continue."""
        names = ("steps", "best", "bad_epochs", "resting")
        return {name: getattr(self, name) for name in names} | {"rates": list(self.rates)}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take up what `state_dict` gave."""
        self.steps, self.best = int(state["steps"]), float(state["best"])
        self.bad_epochs, self.resting = int(state["bad_epochs"]), int(state["resting"])
        self.rates = [float(rate) for rate in state["rates"]]
        self._apply()


def full_rates(optimizer: Optimizer) -> list[float]:
    """Return every group's learning rate as the optimizer was built with it."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def ramp(steps: int, factor: float) -> Curve:
    """Return a straight rise from `factor` of the full rate to all of it in `steps` steps, flat from there."""

    def rate(full: float, step: int) -> float:
        return full if step >= steps else full * (factor + (1 - factor) * step / steps)

    return rate


def after(steps: int, rise: Curve, then: Curve) -> Curve:
    """Return `rise` for the first steps and `then`, counted from there, for the others."""

    def rate(full: float, step: int) -> float:
        return rise(full, step) if step < steps else then(full, step - steps)

    return rate


def half_cosine(steps: float, final: float) -> Curve:
    """Return half a cosine from the full rate to `final` in `steps` steps, flat from there."""

    def rate(full: float, step: int) -> float:
        done = min(step / steps, 1.0)
        return final + (full - final) * (1 + math.cos(math.pi * done)) / 2

    return rate


def polynomial(steps: float, power: float, final: float) -> Curve:
    """Return (1 - share of the steps taken) ** power, from the full rate to `final`, flat from there."""

    def rate(full: float, step: int) -> float:
        return final + (full - final) * (1 - min(step / steps, 1.0)) ** power

    return rate


def stairs(steps: Sequence[int], gamma: float) -> Curve:
    """Return the full rate times `gamma` for every one of `steps` that has been reached."""

    def rate(full: float, step: int) -> float:
        return full * gamma ** sum(step >= each for each in steps)

    return rate


def up_and_down(steps: int, rise: float, start: float, final: float) -> Curve:
    """Return half a cosine from `start` of the full rate up to it, and one down to `final` of it at the last step.

    Args:
        steps: all steps.
        rise: the step, not always whole, at which the full rate is reached; from 0.
        start: first rate as a share of the full one.
        final: last rate as a share of the full one.
    """

    def rate(full: float, step: int) -> float:
        up = step < rise
        low = start if up else final
        away = (rise - step) / rise if up else min((step - rise) / max(steps - 1 - rise, 1), 1.0)
        # `away` is 0 at the top and 1 at the foot of either side.
        return full * (low + (1 - low) * (1 + math.cos(math.pi * away)) / 2)

    return rate
