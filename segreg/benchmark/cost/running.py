"""Measures networks side by side: each a few times, in turn, every time in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from segreg.benchmark.comparison.record import Cost
from segreg.benchmark.cost.definitions import DEFINITIONS
from segreg.benchmark.cost.machine import load
from segreg.benchmark.cost.process import in_a_process
from segreg.benchmark.cost.record import Failed, Fit, Job, Measured, Measurement, Needed, Sample, Subject
from segreg.runtime.progress import Progress, Quiet

TIMEOUT = 1800.0
"""Seconds that a process may take from one thing to the next, such as all training steps of a round."""

Do = Callable[[Subject, Job], Sample | Needed | Failed]
"""What does a job; `in_a_process` unless a test has something quicker."""
_IN_A_PROCESS = partial(in_a_process, timeout=TIMEOUT)


def measure(
    subjects: Mapping[str, Subject],
    *,
    rounds: int = 3,
    seconds: float = 5.0,
    progress: Progress | None = None,
    do: Do = _IN_A_PROCESS,
) -> Measurement:
    """Return what each network costs.

    One process measures at a time. The networks take turns, and every other round goes through them in reverse, so that
    a slow spell of the machine, or one that grows slower, hits all alike. One that fails is not tried again, and the
    others continue.

    Args:
        subjects: the networks by name.
        rounds: how often each is measured.
        seconds: that each of the three timings of a round takes about.
        progress: is told what happens.
        do: does a job.
    """
    progress = progress or Quiet()
    found = {name: _Found() for name in subjects}
    loads = []
    with progress.watch("measuring costs", rounds * len(subjects), "measurements") as advance:
        for names in turns(list(subjects), rounds):
            loads.append(load())
            for name in names:
                advance(0, name)
                if not found[name].reason:
                    found[name].take(do(subjects[name], Job("measure", seconds)))
                advance(1)
    of = {name: one.measured() for name, one in found.items()}
    return Measurement(of, rounds=rounds, seconds=seconds, load=tuple(loads))


def turns(names: Sequence[str], rounds: int) -> list[list[str]]:
    """Return each round's order: as they stand, then reversed, and so on."""
    return [list(reversed(names)) if number % 2 else list(names) for number in range(rounds)]


def fits(subject: Subject, *, jobs: int = 1, do: Do = _IN_A_PROCESS) -> Fit:
    """Return whether runs of a network go into memory: it is built, trained for two steps, and predicts once.

    What runs take besides is not counted: workers that read images, and scores of large test sets. How much memory is
    left is what the machine as a whole says; a container's own limit is only found by running into it.

    Args:
        subject: the network.
        jobs: how many such runs go at the same time.
        do: does a job.
    """
    found = do(subject, Job("fit"))
    if isinstance(found, Failed):
        return Fit(found.reason, None)
    assert isinstance(found, Needed)
    if found.mib is None or found.available is None or jobs * found.mib <= found.available:
        return Fit("", found)
    each = f" ({_gib(found.mib)} each)" if jobs > 1 else ""
    runs = f"{jobs} runs at a time need" if jobs > 1 else "it needs"
    where = "the machine" if found.device == "cpu" else found.device
    reason = f"{runs} {_gib(jobs * found.mib)} of memory{each}, and {where} has {_gib(found.available)} left"
    return Fit(reason, found)


@dataclass
class _Found:
    """What is known of one network so far."""

    samples: list[Sample] = field(default_factory=list)
    reason: str = ""

    def take(self, found: Sample | Needed | Failed) -> None:
        if isinstance(found, Failed):
            self.reason = found.reason
            return
        assert isinstance(found, Sample)
        self.samples.append(found)

    def measured(self) -> Measured:
        return Measured({} if self.reason else _costs(self.samples), tuple(self.samples), self.reason)


def _costs(samples: Sequence[Sample]) -> dict[str, Cost]:
    costs = {}
    for name, definition in DEFINITIONS.items():
        if values := [sample.values[name] for sample in samples if name in sample.values]:
            costs[name] = Cost(median(values), min(values), max(values), definition.unit)
    return costs


def _gib(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB"
