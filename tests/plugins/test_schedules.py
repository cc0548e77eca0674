from __future__ import annotations

import pytest
import torch
from torch.optim import SGD
from torch.optim import lr_scheduler as torch_schedules

from segreg.errors import SegregError
from segreg_plugins import schedules
from segreg_plugins.schedules.builders import constant, cosine, one_cycle, plateau, poly, step

STEPS, EPOCHS = 7, 6
TOTAL = STEPS * EPOCHS


def optimizer(*rates: float) -> SGD:
    groups = [
        {"params": [torch.zeros(1)], "lr": rate, "name": f"part{i}"} for i, rate in enumerate(rates or (0.1, 0.02))
    ]
    return SGD(groups)


def rates_of(given: SGD) -> list[float]:
    return [group["lr"] for group in given.param_groups]


def followed(schedule, given: SGD, steps: int = TOTAL) -> list[list[float]]:
    """Return the rates of every step, as the trainer meets them."""
    rates = []
    for _ in range(steps):
        rates.append(rates_of(given))
        given.step()
        schedule.step()
    return rates


def same(ours, theirs) -> None:
    torch.testing.assert_close(
        torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64), rtol=1e-10, atol=1e-16
    )


def both(build, build_torch, steps: int = TOTAL) -> None:
    mine, theirs = optimizer(), optimizer()
    same(followed(build(mine), mine, steps), followed(build_torch(theirs), theirs, steps))


def test_entries_are_made_and_named():
    assert [entry.name for entry in schedules.segreg_entries()] == [
        "constant", "cosine", "poly", "step", "plateau", "one_cycle",
    ]  # fmt: skip


def test_cosine_is_torchs():
    both(
        lambda o: cosine(o, STEPS, EPOCHS, final_lr=1e-3),
        lambda o: torch_schedules.CosineAnnealingLR(o, TOTAL, eta_min=1e-3),
    )


def test_cosine_over_a_hundred_epochs_is_torchs_while_training_lasts():
    both(
        lambda o: cosine(o, STEPS, EPOCHS, final_lr=1e-6, t_max_epochs=100),
        lambda o: torch_schedules.CosineAnnealingLR(o, 100 * STEPS, eta_min=1e-6),
    )


def test_cosine_stays_at_its_end():
    given = optimizer(0.1)
    rates = followed(cosine(given, STEPS, EPOCHS, final_lr=1e-3, t_max_epochs=2), given)
    assert rates[2 * STEPS :] == [[1e-3]] * (4 * STEPS)


def test_cosine_after_a_warmup_is_torchs_two_in_a_row():
    warm = 2 * STEPS

    def theirs(given):
        rise = torch_schedules.LinearLR(given, 0.25, total_iters=warm)
        fall = torch_schedules.CosineAnnealingLR(given, TOTAL - warm)
        return torch_schedules.SequentialLR(given, [rise, fall], [warm])

    both(lambda o: cosine(o, STEPS, EPOCHS, warmup_epochs=2, warmup_factor=0.25), theirs)


def test_constant_with_warmup_is_torchs_linear():
    both(
        lambda o: constant(o, STEPS, EPOCHS, warmup_epochs=1.5, warmup_factor=0.1),
        lambda o: torch_schedules.LinearLR(o, 0.1, total_iters=11),
    )
    both(lambda o: constant(o, STEPS, EPOCHS), lambda o: torch_schedules.ConstantLR(o, 1.0))


def test_poly_is_torchs():
    both(lambda o: poly(o, STEPS, EPOCHS), lambda o: torch_schedules.PolynomialLR(o, total_iters=TOTAL, power=0.9))


def test_step_is_torchs_every_so_many_epochs_and_at_milestones():
    both(
        lambda o: step(o, STEPS, EPOCHS, every_epochs=2, gamma=0.3),
        lambda o: torch_schedules.StepLR(o, 2 * STEPS, 0.3),
    )
    both(
        lambda o: step(o, STEPS, EPOCHS, milestones=(1, 4)),
        lambda o: torch_schedules.MultiStepLR(o, [STEPS, 4 * STEPS]),
    )


@pytest.mark.parametrize(("epochs", "falls"), [(1, []), (2, [1]), (6, [2, 4]), (7, [3, 6]), (90, [30, 60])])
def test_step_falls_by_itself_at_each_third_of_the_training(epochs, falls):
    mine, theirs = optimizer(), optimizer()
    expected = torch_schedules.MultiStepLR(theirs, falls)
    same(followed(step(mine, 1, epochs), mine, epochs - 1), followed(expected, theirs, epochs - 1))


def test_one_cycle_is_torchs():
    for warmup, share in ((None, 0.3), (3.0, 0.5)):
        mine, theirs = optimizer(), optimizer()
        expected = torch_schedules.OneCycleLR(
            theirs, [0.1, 0.02], TOTAL, pct_start=share, cycle_momentum=False, div_factor=25, final_div_factor=1e4
        )
        ours = one_cycle(mine, STEPS, EPOCHS, warmup_epochs=warmup)
        same(followed(ours, mine, TOTAL), [*followed(expected, theirs, TOTAL - 1), rates_of(theirs)])


def test_one_cycle_of_one_step_works():
    given = optimizer(0.1)
    assert followed(one_cycle(given, 1, 1), given, 1) == [[0.1]]


SCORES = [0.3, 0.4, 0.4, 0.4, 0.39, 0.41, 0.2, 0.2, 0.2, 0.41004, 0.2, 0.2, 0.9, 0.2, 0.2, 0.2, 0.2]


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_is_torchs_for_scores_and_for_losses(mode, cooldown):
    settings = {"factor": 0.5, "patience": 1, "min_lr": 0.004, "threshold": 1e-3, "cooldown": cooldown}
    mine, theirs = optimizer(), optimizer()
    ours = plateau(mine, STEPS, EPOCHS, **settings)
    expected = torch_schedules.ReduceLROnPlateau(theirs, mode, **settings)
    rates = []
    for score in SCORES:
        value = score if mode == "max" else 1 / score
        ours.epoch_end(value if mode == "max" else -value)
        expected.step(value)
        ours.step()
        assert rates_of(mine) == pytest.approx(rates_of(theirs), rel=1e-12)
        rates.append(rates_of(mine)[0])
    assert len(set(rates)) > 3


def test_plateau_counts_nan_as_no_better():
    given = optimizer(0.1)
    schedule = plateau(given, STEPS, EPOCHS, patience=1, factor=0.5)
    for value in (float("nan"), float("nan")):
        schedule.epoch_end(value)
    assert rates_of(given) == [0.05]


def test_plateau_warms_up():
    given = optimizer(0.1)
    rates = followed(plateau(given, 4, EPOCHS, warmup_epochs=1, warmup_factor=0.0), given, 6)
    same(rates, [[0.0], [0.025], [0.05], [0.075], [0.1], [0.1]])


BUILDERS = {
    "constant": lambda o: constant(o, STEPS, EPOCHS, warmup_epochs=2),
    "cosine": lambda o: cosine(o, STEPS, EPOCHS, warmup_epochs=1),
    "poly": lambda o: poly(o, STEPS, EPOCHS, warmup_epochs=1),
    "step": lambda o: step(o, STEPS, EPOCHS, every_epochs=1, warmup_epochs=1),
    "plateau": lambda o: plateau(o, STEPS, EPOCHS, patience=0, factor=0.7, warmup_epochs=1),
    "one_cycle": lambda o: one_cycle(o, STEPS, EPOCHS),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_schedule_goes_on_where_its_state_was_taken(name):
    def go(schedule, given, steps):
        rates = []
        for number in steps:
            rates.append(rates_of(given))
            given.step()
            schedule.step()
            if number % STEPS == 0 and hasattr(schedule, "epoch_end"):
                schedule.epoch_end(-abs(number - 20.0))
        return rates

    one = optimizer()
    schedule = BUILDERS[name](one)
    go(schedule, one, range(16))
    state, saved = schedule.state_dict(), one.state_dict()
    rest = go(schedule, one, range(16, TOTAL))

    other = optimizer()
    resumed = BUILDERS[name](other)
    other.load_state_dict(saved)
    resumed.load_state_dict(state)
    assert go(resumed, other, range(16, TOTAL)) == rest


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda o: cosine(o, STEPS, EPOCHS, final_lr=0.05),
            'final_lr is 0.05, above the learning rate of "part1", 0.02',
        ),
        (lambda o: plateau(o, STEPS, EPOCHS, min_lr=0.05), 'min_lr is 0.05, above the learning rate of "part1", 0.02'),
        (
            lambda o: cosine(o, STEPS, EPOCHS, t_max_epochs=3, warmup_epochs=7),
            "the warm-up takes 49 steps, but the whole training has 42",
        ),
        (
            lambda o: poly(o, STEPS, EPOCHS, warmup_epochs=6),
            "the warm-up takes 42 steps, but the whole training has 42",
        ),
        (
            lambda o: step(o, STEPS, EPOCHS, every_epochs=1, milestones=(2,)),
            "schedule step: both every_epochs and milestones are given\n  leave one of them out",
        ),
        (lambda o: plateau(o, STEPS, EPOCHS, factor=1.0), "factor must be above 0 and below 1, not 1"),
        (lambda o: one_cycle(o, STEPS, EPOCHS, warmup_epochs=6), "the rise takes 42 steps"),
    ],
)
def test_settings_that_do_not_fit_are_reported(build, words):
    with pytest.raises(SegregError, match=words):
        build(optimizer())
