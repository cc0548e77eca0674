"""Optimizers and schedules that are broken on purpose, each caught by one check with these words."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import pytest
import torch

from segreg.registry.entry import Entry


class Fine(torch.optim.Optimizer):
    """Momentum: nothing is wrong with it."""

    sign = -1

    def __init__(self, parameter_groups, lr):
        super().__init__(parameter_groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    mean.mul_(0.5).add_(p.grad)
                    p.add_(mean, alpha=self.sign * self.rate(group))

    def rate(self, group):
        return group["lr"]


class Regroups(Fine):
    def __init__(self, parameter_groups, lr):
        super().__init__([{"params": [p for group in parameter_groups for p in group["params"]]}], lr)


class LosesHalf(Fine):
    def __init__(self, parameter_groups, lr):
        super().__init__([{**group, "params": group["params"][:1]} for group in parameter_groups], lr)


class DecaysAll(Fine):
    def __init__(self, parameter_groups, lr):
        super().__init__([{**group, "weight_decay": 0.1} for group in parameter_groups], lr)


class Uphill(Fine):
    sign = 1


class NeedsClosure(Fine):
    def step(self, closure):
        super().step()


class OwnRate(Fine):
    def rate(self, group):
        return 0.01


class MovesFrozen(Fine):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - 0.1 * group["lr"])


class Forgets(Fine):
    def __init__(self, parameter_groups, lr):
        super().__init__(parameter_groups, lr)
        self.steps = 0

    def rate(self, group):
        self.steps += 1
        return group["lr"] / self.steps


class Marker:
    pass


class StateOfObjects(Fine):
    def state_dict(self):
        return {**super().state_dict(), "marker": Marker()}


def optimizer_entry(optimizer):
    def build(parameter_groups, *, lr: float):
        """An optimizer of the tests.

        Args:
            lr: learning rate.
        """
        return optimizer(parameter_groups, lr)

    return Entry("optimizer", "broken", build)


OPTIMIZERS = [
    (lambda groups, lr: groups, "it_can_be_built", "it gives list, which is not a torch.optim.Optimizer"),
    (Regroups, "groups_keep_their_names", 'it was given groups named "encoder" and "head", and has "None"'),
    (LosesHalf, "groups_keep_their_names", 'it was given "0.bias" and "1.bias", and does not have them'),
    (DecaysAll, "groups_keep_their_names", "it was given a group with a weight_decay of 0, and gives it 0.1"),
    (Uphill, "it_goes_downhill", "60 steps on a quadratic bring it from "),
    (
        NeedsClosure,
        "it_goes_downhill",
        (
            "stepping without a closure, it raises TypeError: NeedsClosure.step() missing 1 required positional argument: "
            "'closure'"
        ),
    ),
    (OwnRate, "the_rate_is_obeyed", "with a group's lr at 0 it moves weights all the same, 100% of the way"),
    (MovesFrozen, "weights_without_gradient_stay", "it moves weights that have no gradient"),
    (Forgets, "it_goes_on_where_it_stopped", "a new one that loaded its state takes other steps"),
    (
        StateOfObjects,
        "it_goes_on_where_it_stopped",
        "its state holds more than tensors, numbers, strings, lists and mappings: ",
    ),
]


@pytest.mark.parametrize(("optimizer", "check", "words"), OPTIMIZERS, ids=[one.__name__ for one, _, _ in OPTIMIZERS])
def test_a_broken_optimizer_is_caught(said, optimizer, check, words):
    assert said(optimizer_entry(optimizer), check).startswith(words)


def test_nothing_is_said_of_an_optimizer_that_keeps_to_the_contract(outcome):
    for check in {check for _, check, _ in OPTIMIZERS}:
        assert outcome(optimizer_entry(Fine), check).status == "passed", check


# schedules


class Linear:
    """A straight fall to 0: nothing is wrong with it."""

    def __init__(self, optimizer, steps):
        self.optimizer, self.steps, self.done = optimizer, steps, 0
        self.full = [group["lr"] for group in optimizer.param_groups]
        self.apply()

    def apply(self):
        for group, full in zip(self.optimizer.param_groups, self.full, strict=True):
            group["lr"] = full * self.share()

    def share(self):
        return 1 - self.done / self.steps

    def step(self):
        self.done += 1
        self.apply()

    def state_dict(self):
        return {"done": self.done, "full": self.full}

    def load_state_dict(self, state):
        self.done, self.full = state["done"], state["full"]
        self.apply()


class BelowZero(Linear):
    def share(self):
        return 1 - 2 * self.done / self.steps


class Nothing(Linear):
    def share(self):
        return 0.0


class ForgetsSteps(Linear):
    def load_state_dict(self, state):
        self.full = state["full"]


class TripsOverNaN(Linear):
    def epoch_end(self, value):
        self.best = int(100 * value)


class NoState:
    def __init__(self, optimizer, steps):
        pass

    def step(self):
        pass


def schedule_entry(schedule):
    def build(optimizer, steps_per_epoch, epochs):
        """A schedule of the tests."""
        return schedule(optimizer, steps_per_epoch * epochs)

    return Entry("schedule", "broken", build)


def one_for_all(optimizer, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps + 1)


def one_too_short(optimizer, steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=max(steps - 2, 1))


SCHEDULES = [
    (NoState, "it_can_be_built", "it gives NoState, which has no method state_dict"),
    (
        one_too_short,
        "it_lasts_to_the_end",
        (
            "through 4 epochs of 5 steps, it raises ValueError: Tried to step 19 times. The specified number of total steps "
            "is 18"
        ),
    ),
    (BelowZero, "rates_can_be_trained_with", "after step 11 of 20 the rates are -0.01, -0.001"),
    (
        one_for_all,
        "parts_keep_rates_of_their_own",
        "parts that are given the rates 0.1 and 0.01 get one and the same rate in every step",
    ),
    (Nothing, "some_rate_is_above_zero", "the part encoder is trained with a rate of 0 throughout"),
    (
        ForgetsSteps,
        "it_goes_on_where_it_stopped",
        "1 steps after it loaded the state of another, it gives 0.095 where that one gave 0.045",
    ),
    (
        TripsOverNaN,
        "it_takes_any_monitored_value",
        "given the monitored values, it raises ValueError: cannot convert float NaN to integer",
    ),
]


@pytest.mark.parametrize(("schedule", "check", "words"), SCHEDULES, ids=[one.__name__ for one, _, _ in SCHEDULES])
def test_a_broken_schedule_is_caught(said, schedule, check, words):
    assert said(schedule_entry(schedule), check) == words


def test_nothing_is_said_of_a_schedule_that_keeps_to_the_contract(outcome):
    for check in {check for _, check, _ in SCHEDULES}:
        found = outcome(schedule_entry(Linear), check)
        assert found.status == "passed" or found.what == "it offers no epoch_end", check
