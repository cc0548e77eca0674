"""Measure networks side by side: each a few times, in turn, every time in a process of its own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal

from segreg.benchmark.cost.machine import load
from segreg.benchmark.cost.record import (
    DEFINITIONS,
    Cost,
    Failed,
    Measured,
    Measurement,
    MemoryNeed,
    NetworkSpec,
    RoundResult,
    uncertainty,
)
from segreg.benchmark.pool import Send, Worker, one_line, stop
from segreg.errors import SegregError
from segreg.runtime.progress import Progress, Quiet

TIMEOUT = 1800.0
"""Seconds that a process may take for one stage, such as all training steps of a round."""
ROUNDS = 3
PRECISE = 0.02
"""No further round begins where the standard error of each timing is at most this share of it."""

Job = Literal["measure", "memory"]
"""What a process does with a network: `measure` returns a `RoundResult`, `memory` a `MemoryNeed`."""


def in_a_process(
    spec: NetworkSpec, job: Job, seconds: float = 0.0, *, timeout: float = TIMEOUT
) -> RoundResult | MemoryNeed | Failed:
    """Return what a fresh process finds, whose memory starts small however large this process is.

    Args:
        seconds: that each timing of `measure` takes.
        timeout: seconds without a new stage after which the process is killed.
    """
    worker = Worker(_work, spec, job, seconds, timeout=timeout)
    try:
        found: list[Any] = list(worker.messages())
    finally:
        stop([worker])
    return found[0] if found else Failed(str(worker.reason))


def measure(
    specs: Mapping[str, NetworkSpec],
    *,
    rounds: int = ROUNDS,
    seconds: float = 0.5,
    progress: Progress | None = None,
) -> Measurement:
    """Measure what each network costs.

    One process measures at a time. The networks take turns, and every other round goes through them in reverse, so that
    a slow spell of the machine, or one that grows slower, hits all alike. After two rounds or more it stops where no
    timing's standard error is above `PRECISE`. One that fails is not measured again, and the others continue. Names
    with the same `NetworkSpec.network` are measured once.

    Args:
        specs: the networks by name.
        rounds: how often each is measured at most.
        seconds: that each of the three timings of a round takes about.
    """
    progress = progress or Quiet()
    begun = time.monotonic()
    first: dict[str, str] = {}
    measured_as = {name: first.setdefault(spec.network, name) for name, spec in specs.items()}
    results: dict[str, list[RoundResult]] = {name: [] for name in first.values()}
    failed: dict[str, str] = {}
    loads: list[float | None] = []
    with progress.watch("measuring costs", rounds * len(results), "measurements") as advance:
        for names in turns(list(results), rounds):
            if loads and all(uncertainty(each) <= PRECISE for name, each in results.items() if name not in failed):
                break
            loads.append(load())
            for name in names:
                advance(0, name)
                if name not in failed:
                    found = in_a_process(specs[name], "measure", seconds)
                    if isinstance(found, Failed):
                        failed[name] = found.reason
                    else:
                        assert isinstance(found, RoundResult)
                        results[name].append(found)
                advance(1)
    of = {
        name: Measured({} if name in failed else _costs(each), tuple(each), failed.get(name, ""))
        for name, each in results.items()
    }
    of = {name: of[one] for name, one in measured_as.items()}
    took = time.monotonic() - begun
    return Measurement(of, rounds=len(loads), seconds=seconds, load=tuple(loads), took=took)


def turns(names: Sequence[str], rounds: int) -> list[list[str]]:
    """Return each round's order: as given, then reversed, and so on."""
    return [list(reversed(names)) if number % 2 else list(names) for number in range(rounds)]


def check_memory(spec: NetworkSpec, *, jobs: int = 1) -> str:
    """Return why `jobs` runs of a network at a time don't fit into memory, one sentence; an empty string where they do.

    It is built, trained for two steps, and predicts once.

    What runs take besides is not counted: workers that read images, and scores of large test sets. How much memory is
    left is what the machine as a whole reports; a container's own limit is only found by running into it.
    """
    found = in_a_process(spec, "memory")
    if isinstance(found, Failed):
        return found.reason
    assert isinstance(found, MemoryNeed)
    if found.mib is None or found.available is None or jobs * found.mib <= found.available:
        return ""
    each = f" ({_gib(found.mib)} each)" if jobs > 1 else ""
    runs = f"{jobs} runs at a time need" if jobs > 1 else "it needs"
    where = "the machine" if found.device == "cpu" else found.device
    return f"{runs} {_gib(jobs * found.mib)} of memory{each}, and {where} has {_gib(found.available)} left"


def _costs(results: Sequence[RoundResult]) -> dict[str, Cost]:
    costs = {}
    for name, definition in DEFINITIONS.items():
        if values := [one.values[name] for one in results if name in one.values]:
            costs[name] = Cost(median(values), min(values), max(values), definition.unit)
    return costs


def _gib(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB"


# in the process that measures


def _work(send: Send, spec: NetworkSpec, job: Job, seconds: float) -> None:
    """Send each stage as it begins, and in the end the result, or `Failed`."""
    warnings.simplefilter("ignore")
    stage = ""

    def at(begun: str) -> None:
        nonlocal stage
        stage = begun
        send(begun)

    at("in reading the recipe")
    try:
        from segreg.benchmark.cost.measure import measure_round, memory_need
        from segreg.registry.local import add_files
        from segreg.registry.registry import load_registry

        add_files(spec.files)
        recipe, task = spec.resolved(load_registry())
        if job == "memory":
            send(memory_need(recipe, task, at=at))
        else:
            send(measure_round(recipe, task, seconds=seconds, exported=spec.exported, at=at))
    except Exception as error:  # whatever a part raises concerns its network alone
        send(Failed(_reason(error, stage)))


def _reason(error: BaseException, stage: str) -> str:
    """Return an error on one line: segreg's own message, others with their type and where they were raised."""
    if memory := _exhausted_memory(error):
        return f"{memory} ran out {stage}"
    if isinstance(error, SegregError):
        return one_line("; ".join(problem.message for problem in error.problems))
    return f"{type(error).__name__} {stage}: {one_line(str(error).strip() or 'it gives no reason')}"


def _exhausted_memory(error: BaseException | None) -> str:
    """Return whose memory ran out in an error or its causes; an empty string if none did."""
    import torch

    from segreg.runtime.device import out_of_memory

    while error is not None:
        if out_of_memory(error):
            gpu = isinstance(error, torch.OutOfMemoryError) or "_STATUS_ALLOC_FAILED" in str(error)
            return "the GPU's memory" if gpu else "the machine's memory"
        error = error.__cause__
    return ""
