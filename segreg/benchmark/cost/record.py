"""What to measure and what was found, as plain values that are sent from process to process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from segreg.config.recipe import Recipe
from segreg.config.resolve import Resolved, resolve
from segreg.task import Task

if TYPE_CHECKING:
    from segreg.registry.registry import Registry


@dataclass(frozen=True)
class Cost:
    """What something of a model costs: the median of several measurements, with the smallest and the largest.

    Attributes:
        median: in `unit`.
        low: the smallest.
        high: the largest; equal to the smallest where it was counted rather than measured.
        unit: such as "images/s"; empty for a plain number.
    """

    median: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class NetworkSpec:
    """A network to measure, as another process needs it: there the recipe is resolved anew.

    Attributes:
        recipe: the complete recipe, as `Resolved.plain` returns it.
        source: the recipe's name in messages.
        classes: the task's.
        mode: the task's.
    """

    recipe: Mapping[str, Any]
    source: str
    classes: tuple[str, ...]
    mode: Literal["binary", "multiclass", "multilabel"]

    @classmethod
    def of(cls, recipe: Resolved, task: Task) -> NetworkSpec:
        """Return the network of a recipe for the task that its data has."""
        return cls(recipe.plain(), recipe.source, task.classes, task.mode)

    def resolved(self, registry: Registry) -> tuple[Resolved, Task]:
        """Return recipe and task.

        Raises:
            SegregError: the registry does not have what the recipe names.
        """
        return resolve(Recipe(self.recipe, source=self.source), registry), Task(self.classes, self.mode)


@dataclass(frozen=True)
class Job:
    """What a process does with a network.

    Attributes:
        kind: `measure` returns a `RoundResult`, `memory` a `MemoryNeed`.
        seconds: that each timing of `measure` takes.
    """

    kind: Literal["measure", "memory"]
    seconds: float = 0.0


@dataclass(frozen=True)
class Failed:
    """Why something could not be measured, one sentence."""

    reason: str


@dataclass(frozen=True)
class RoundResult:
    """What one round found of one network.

    Attributes:
        values: each cost by its name in `segreg.benchmark.cost.definitions.DEFINITIONS`.
        device: where the network ran.
        precision: of its computations.
        threads: of the CPU that PyTorch used.
        others: share of the machine's CPUs that other processes took meanwhile, 0 to 1; None where unknown.
    """

    values: Mapping[str, float]
    device: str
    precision: str
    threads: int
    others: float | None


@dataclass(frozen=True)
class MemoryNeed:
    """The memory that a network needs to train and to predict.

    Attributes:
        mib: its peak, of the GPU's memory on a GPU, of the process's elsewhere; None where unknown.
        available: what was left before; None where unknown.
        device: where the network ran.
    """

    mib: float | None
    available: float | None
    device: str


@dataclass(frozen=True)
class MemoryCheck:
    """Whether runs of a network fit into memory.

    Attributes:
        reason: why not, one sentence; empty where they do.
        need: the memory of one; None where it could not be measured.
    """

    reason: str
    need: MemoryNeed | None


@dataclass(frozen=True)
class Measured:
    """What a network costs.

    Attributes:
        costs: by name the median of all rounds, the smallest and the largest; empty where a round failed.
        results: of each completed round.
        reason: why it could not be measured; empty where it could.
    """

    costs: Mapping[str, Cost]
    results: tuple[RoundResult, ...]
    reason: str = ""


@dataclass(frozen=True)
class Measurement:
    """Networks measured side by side, and what else the machine did meanwhile.

    Attributes:
        of: each network by its name.
        rounds: how often each was measured, every time in a process of its own.
        seconds: that each timing took.
        load: processes that ran or waited in the minute before each round; None where unknown. From the second round
            on the measurement itself is among them.
    """

    of: Mapping[str, Measured]
    rounds: int
    seconds: float
    load: tuple[float | None, ...] = field(default=())

    @property
    def others(self) -> Cost | None:
        """Return the share of the CPUs that other processes took, in percent, over all results."""
        shares = [100 * r.others for one in self.of.values() for r in one.results if r.others is not None]
        return Cost(median(shares), min(shares), max(shares), "%") if shares else None

    def method(self) -> list[str]:
        """Return sentences: on what and how it was measured, how quiet the machine was, and what failed."""
        results = [result for one in self.of.values() for result in one.results]
        failed = [f"{name} could not be measured: {one.reason}" for name, one in self.of.items() if one.reason]
        if not results:
            return failed
        places = sorted({f"{r.device}, {r.precision}, {_count(r.threads, 'thread')}" for r in results})
        lines = [
            f"measured on {' and on '.join(places)}",
            f"{_count(self.rounds, 'round')} of {self.seconds:g} s for each timing, each round in a process of its own",
        ]
        if others := self.others:
            low, high = f"{others.low:.0f}%", f"{others.high:.0f}%"
            span = f" (from {low} to {high})" if low != high else ""
            lines.append(f"measured while other processes took {others.median:.0f}% of the machine's CPUs{span}")
        else:
            lines.append("this system does not report how busy other processes kept the machine meanwhile")
        if known := [f"{load:.2f}" for load in self.load if load is not None]:
            lines.append(f"load of the machine before each round: {', '.join(known)}")
        return [*lines, *failed]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
