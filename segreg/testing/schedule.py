"""Checks of schedules: rates that can be trained with until the end, and that continue exactly where they stopped."""

from __future__ import annotations

import math
from typing import Any

import torch

from segreg.testing.check import Rule
from segreg.testing.subject import Broken, Subject, doing, needs_method, saved_and_loaded

PARTS = {"encoder": 0.1, "decoder": 0.01}
"""Parts of a network with their rates."""
STEPS, EPOCHS = 5, 4
VALUES = (0.1, 0.5, 0.5, math.nan, 0.4, 0.4, 0.4, 0.4)
"""What an epoch's monitored value may be: better, no better, undefined."""


def it_can_be_built(subject: Subject) -> None:
    """Its builder gives an object with `step` and a state."""
    schedule = subject.try_to_build(_optimizer(), STEPS, EPOCHS)
    for name in ("step", "state_dict", "load_state_dict"):
        if not callable(getattr(schedule, name, None)):
            raise Broken(f"it gives {type(schedule).__name__}, which has no method {name}")


def it_lasts_to_the_end(subject: Subject) -> None:
    """It takes every step of a training of any length."""
    for steps, epochs in ((STEPS, EPOCHS), (1, 1), (1, EPOCHS), (STEPS, 1)):
        optimizer = _optimizer()
        try:
            schedule = subject.build(optimizer, steps, epochs)
        except Exception:
            if (steps, epochs) == (STEPS, EPOCHS):
                subject.built(_optimizer(), steps, epochs)  # tells why it is not checked
            continue  # its settings may not suit so short a training, and refusing is right
        with doing(f"through {epochs} epochs of {steps} steps"):
            _rates(schedule, optimizer, steps, epochs)


def rates_can_be_trained_with(subject: Subject) -> None:
    """Every rate is finite and not below 0, from the first step to the last."""
    for number, rates in enumerate(_rates_of(subject)):
        if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
            words = f"after step {number} of {STEPS * EPOCHS}"
            raise Broken(f"{words} the rates are {', '.join(f'{rate:g}' for rate in rates)}")


def some_rate_is_above_zero(subject: Subject) -> None:
    """Some step is taken with a rate above 0, in every part of the network."""
    taken = _rates_of(subject)[:-1]  # with the last one no step is taken
    for part, rates in zip(PARTS, zip(*taken, strict=True), strict=True):
        if not max(rates) > 0:
            raise Broken(f"the part {part} is trained with a rate of 0 throughout")


def parts_keep_rates_of_their_own(subject: Subject) -> None:
    """Parts of the network that are given different rates are not all trained with one and the same."""
    if all(len(set(rates)) == 1 for rates in _rates_of(subject)):
        given = " and ".join(f"{rate:g}" for rate in PARTS.values())
        raise Broken(f"parts that are given the rates {given} get one and the same rate in every step")


def it_goes_on_where_it_stopped(subject: Subject) -> None:
    """A new one that loads its saved state gives the very same rates."""
    optimizer = _optimizer()
    schedule = subject.built(optimizer, STEPS, EPOCHS)
    _rates(schedule, optimizer, STEPS, 2)
    state, rates = saved_and_loaded((schedule.state_dict(), optimizer.state_dict()))
    wanted = _rates(schedule, optimizer, STEPS, EPOCHS - 2)
    other = _optimizer()
    again = subject.built(other, STEPS, EPOCHS)
    with doing("loading its saved state into a new one"):
        other.load_state_dict(rates)
        again.load_state_dict(state)
    found = _rates(again, other, STEPS, EPOCHS - 2)
    for number, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if a != b:
            words = f"{number} steps after it loaded the state of another"
            raise Broken(f"{words}, it gives {b[0]:g} where that one gave {a[0]:g}")


def it_takes_any_monitored_value(subject: Subject) -> None:
    """`epoch_end` takes values that fall, rise, stay or are undefined."""
    optimizer = _optimizer()
    schedule = subject.built(optimizer, STEPS, len(VALUES))
    needs_method(schedule, "epoch_end")
    with doing("given the monitored values"):
        rates = _rates(schedule, optimizer, STEPS, len(VALUES))
    if any(not math.isfinite(rate) or rate < 0 for row in rates for rate in row):
        raise Broken("given values that fall, rise, stay and are undefined, it gives rates that can't be")


def _optimizer() -> torch.optim.Optimizer:
    """Return an optimizer as the training has it: two parts, each with a rate of its own."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "name": name, "lr": rate} for name, rate in PARTS.items()]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def _rates_of(subject: Subject) -> list[tuple[float, ...]]:
    """Return the rates of a whole training."""
    optimizer = _optimizer()
    return _rates(subject.built(optimizer, STEPS, EPOCHS), optimizer, STEPS, EPOCHS)


def _rates(schedule: Any, optimizer: torch.optim.Optimizer, steps: int, epochs: int) -> list[tuple[float, ...]]:
    """Return the rates before each step and after the last, as the training steps."""

    def now() -> tuple[float, ...]:
        return tuple(float(group["lr"]) for group in optimizer.param_groups)

    rates = [now()]
    for epoch in range(epochs):
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            rates.append(now())
        if callable(end := getattr(schedule, "epoch_end", None)):
            end(VALUES[epoch % len(VALUES)])
    return rates


RULES = (
    Rule(it_can_be_built, "the training steps, saves and loads it"),
    Rule(it_lasts_to_the_end, "it is stepped after every optimizer step, the last one too"),
    Rule(rates_can_be_trained_with, "a rate below 0 climbs, and one that is not finite ends the run"),
    Rule(some_rate_is_above_zero, "with a rate of 0 nothing is learned"),
    Rule(parts_keep_rates_of_their_own, "train.lr_factors and train.layer_decay would be without effect"),
    Rule(it_goes_on_where_it_stopped, "a run that was stopped continues as if it had not been"),
    Rule(it_takes_any_monitored_value, "train.monitor may name any value, and some are undefined in some epochs"),
)
