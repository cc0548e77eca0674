"""The study of a tune: what Optuna proposes, and whether it prunes a trial, from one database for all processes."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, get_args

from segreg.benchmark.tune.space import Axis, distribution
from segreg.errors import SegregError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from segreg.training.trainer import Stop

Sampler = Literal["tpe", "random"]
Pruning = Literal["median", "none"]
SAMPLERS: Sequence[Sampler] = get_args(Sampler)
PRUNING: Sequence[Pruning] = get_args(Pruning)

STARTUP = 5
"""Trials that must have been completed before one is pruned (Optuna's own number)."""
WARM_UP = 0.2
"""Share of a trial's epochs in which it is not pruned: the first ones favour large learning rates."""
LEAST_FOR_IMPORTANCES = 5
"""Completed trials below which nothing is said of importances."""
PRUNED = "pruned by the study"
"""How the reason begins with which a pruned run ends."""
REASON = "reason"
"""The note of a trial that says why it failed or was pruned."""

_NAME = "tune"
_ASKED_AGAIN = "asked again"
_PATIENCE = 60.0
"""Seconds that a process waits for another one's write to the database."""


def require_optuna() -> None:
    """Refuse to continue without Optuna."""
    if find_spec("optuna") is None:
        raise SegregError("Optuna is not installed", hint='pip install "segreg-toolkit[tune]"')


class SharedStudy:
    """An Optuna study in an SQLite database, which survives a killed process and which several processes share.

    Args:
        database: its file, which is created where it is missing.
        larger_is_better: whether a larger value is better.

    Raises:
        SegregError: the file is not the database of a tune.
    """

    def __init__(self, database: Path, *, larger_is_better: bool) -> None:
        import optuna
        from sqlalchemy import URL

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # With the characters that a URL escapes: after a ? in a folder's name the rest would not be the path.
        url = URL.create("sqlite", database=str(database.absolute())).render_as_string()
        try:
            self._storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _PATIENCE}})
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=_NAME,
                direction="maximize" if larger_is_better else "minimize",
                load_if_exists=True,
            )
        except Exception as error:  # SQLAlchemy's, Alembic's and Optuna's own have no common class
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            hint = "nothing was changed; --out names another folder"
            raise SegregError(f"{database} can't be used: {reason}", hint=hint) from None

    def ask(self, axes: Sequence[Axis], sampler: Sampler, seed: int) -> FrozenTrial:
        """Return a new trial.

        What it proposes depends on the seed, its number and the trials before it: a tune that was killed proposes what
        one that was not would have.
        """
        self.study.sampler = _sampler(sampler, seed, len(self.study.trials))
        return self[self.study.ask({axis.path: distribution(axis) for axis in axes}).number]

    def __getitem__(self, number: int) -> FrozenTrial:
        """Return a trial as it is now."""
        return self._storage.get_trial(self._id(number))

    def begun(self) -> list[FrozenTrial]:
        """Return the trials that count: all that have begun but those that were asked again."""
        return [one for one in self.study.trials if one.state.name != "WAITING" and _ASKED_AGAIN not in one.user_attrs]

    def running(self) -> list[FrozenTrial]:
        """Return the trials that have begun and not ended, whether or not a process works on them."""
        return [one for one in self.study.trials if one.state.name == "RUNNING"]

    def best(self) -> FrozenTrial | None:
        """Return the completed trial with the best value, the first of several; None where none is completed."""
        return self.study.best_trial if any(one.state.name == "COMPLETE" for one in self.study.trials) else None

    def complete(self, number: int, value: float) -> None:
        self.study.tell(number, value)

    def prune(self, number: int, reason: str) -> None:
        self._end(number, "PRUNED", **{REASON: reason})

    def fail(self, number: int, reason: str) -> None:
        self._end(number, "FAIL", **{REASON: reason})

    def ask_again(self, number: int, reason: str) -> None:
        """End a trial that failed, and have its parameters proposed once more."""
        self.study.enqueue_trial(self[number].params)
        self._end(number, "FAIL", **{REASON: reason, _ASKED_AGAIN: True})

    def _end(self, number: int, state: str, **notes: Any) -> None:
        from optuna.trial import TrialState

        for name, note in notes.items():  # first: an ended trial does not change
            self._storage.set_trial_user_attr(self._id(number), name, note)
        self.study.tell(number, state=TrialState[state])

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(_NAME)
        found: int = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        return found

    def judge(self, number: int, *, monitor: str, epochs: int, pruning: Pruning) -> Stop:
        """Return what is called after each epoch of a trial, reports its value, and returns why it is pruned, or None.

        The first of the recipe's `epochs` are not pruned.
        """
        from optuna.pruners import MedianPruner, NopPruner
        from optuna.samplers import RandomSampler
        from optuna.trial import Trial

        first = 1 + round(WARM_UP * epochs)  # epochs count from 1
        self.study.pruner = MedianPruner(STARTUP, first) if pruning == "median" else NopPruner()
        self.study.sampler = RandomSampler()  # a trial that is opened is sampled for, by this one without any computing
        trial = Trial(self.study, self._id(number))

        def stop(epoch: int, values: Mapping[str, float]) -> str | None:
            if epoch not in self[number].intermediate_values:  # a trial that continues has reported it already
                trial.report(values[monitor], epoch)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, where no epoch had a value
                return self._why_pruned(number, monitor, epoch) if trial.should_prune() else None

        return stop

    def _why_pruned(self, number: int, monitor: str, epoch: int) -> str:
        own = _defined(self[number].intermediate_values.values())
        larger = self.study.direction.name == "MAXIMIZE"
        completed = [one.intermediate_values for one in self.study.trials if one.state.name == "COMPLETE"]
        there = _defined(values[epoch] for values in completed if epoch in values)
        before = f"{PRUNED} after epoch {epoch}: {monitor}"
        if not own:
            return f"{before} was never defined"
        middle = f"{median(there):.4g}, the median of {len(there)} completed trials at that epoch"
        return f"{before} {(max if larger else min)(own):.4g} is {'below' if larger else 'above'} {middle}"

    def importances(self) -> dict[str, float]:
        """Return each setting's share in how good a trial is, by PED-ANOVA, the largest first; empty of few trials."""
        import optuna

        complete = [one for one in self.study.trials if one.state.name == "COMPLETE"]
        if len(complete) < LEAST_FOR_IMPORTANCES or len({one.value for one in complete}) < 2:
            return {}
        return dict(optuna.importance.get_param_importances(self.study))


def _sampler(name: Sampler, seed: int, number: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    own = int.from_bytes(hashlib.blake2b(f"{seed} trial {number}".encode(), digest_size=4).digest(), "big")
    return RandomSampler(seed=own) if name == "random" else TPESampler(seed=own)


def _defined(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
