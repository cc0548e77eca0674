"""What is to be measured and what was found, as plain values that pass from process to process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from segreg.benchmark.comparison.record import Cost
from segreg.config.recipe import Recipe
from segreg.config.resolve import Resolved, resolve
from segreg.task import Task

if TYPE_CHECKING:
    from segreg.registry.registry import Registry


@dataclass(frozen=True)
class Subject:
    """A network to be measured, as another process needs it: there the recipe is resolved anew.

    Attributes:
        recipe: the complete recipe, as `Resolved.plain` gives it.
        source: the recipe's name in messages.
        classes: the task's.
        mode: the task's.
    """

    recipe: Mapping[str, Any]
    source: str
    classes: tuple[str, ...]
    mode: Literal["binary", "multiclass", "multilabel"]

    @classmethod
    def of(cls, recipe: Resolved, task: Task) -> Subject:
        """Return the subject for a recipe and the task that its data has."""
        return cls(recipe.plain(), recipe.source, task.classes, task.mode)

    def resolved(self, registry: Registry) -> tuple[Resolved, Task]:
        """Return recipe and task back.

        Raises:
            SegregError: the registry does not have what the recipe names.
        """
        return resolve(Recipe(self.recipe, source=self.source), registry), Task(self.classes, self.mode)


@dataclass(frozen=True)
class Job:
    """What a process does with a subject.

    Attributes:
        kind: `measure` gives a `Sample`, `fit` the memory that is `Needed`.
        seconds: what each timing of `measure` is to take.
    """

    kind: Literal["measure", "fit"]
    seconds: float = 0.0


@dataclass(frozen=True)
class At:
    """What a process has come to, in words that continue a sentence: "in building the network"."""

    stage: str


@dataclass(frozen=True)
class Failed:
    """Why something could not be measured, one sentence."""

    reason: str


@dataclass(frozen=True)
class Sample:
    """What one round found of one network.

    Attributes:
        values: each cost by its name in `segreg.benchmark.cost.definitions.DEFINITIONS`.
        device: where the network computed.
        precision: what it computed in.
        threads: of the CPU that PyTorch used.
        others: share of the machine's CPUs that other processes took meanwhile, 0 to 1; None where unknown.
    """

    values: Mapping[str, float]
    device: str
    precision: str
    threads: int
    others: float | None


@dataclass(frozen=True)
class Needed:
    """The memory that a network needs to train and to predict.

    Attributes:
        mib: the most that it needed, of the GPU's memory on a GPU, of the process's elsewhere; None where unknown.
        available: what was left before; None where unknown.
        device: where the network computed.
    """

    mib: float | None
    available: float | None
    device: str


@dataclass(frozen=True)
class Fit:
    """Whether runs of a network go into memory.

    Attributes:
        reason: why not, one sentence; empty where they do.
        needed: the memory of one; None where it could not be measured.
    """

    reason: str
    needed: Needed | None


@dataclass(frozen=True)
class Measured:
    """What a network costs.

    Attributes:
        costs: by name the median of all rounds, the smallest and the largest; empty where a round failed.
        samples: of each round that came to its end.
        reason: why it could not be measured; empty where it could.
    """

    costs: Mapping[str, Cost]
    samples: tuple[Sample, ...]
    reason: str = ""


@dataclass(frozen=True)
class Measurement:
    """Networks measured side by side, and what the machine had to do meanwhile.

    Attributes:
        of: each network by its name.
        rounds: how often each was measured, every time in a process of its own.
        seconds: that each timing was to take.
        load: processes that ran or waited in the minute before each round; None where unknown. From the second round
            on the measurement itself is among them.
    """

    of: Mapping[str, Measured]
    rounds: int
    seconds: float
    load: tuple[float | None, ...] = field(default=())

    @property
    def others(self) -> Cost | None:
        """Return the share of the CPUs that other processes took, in percent, over all samples."""
        shares = [100 * s.others for one in self.of.values() for s in one.samples if s.others is not None]
        return Cost(median(shares), min(shares), max(shares), "%") if shares else None

    def in_words(self) -> list[str]:
        """Return what it was measured on, how, and how quiet the machine was, in sentences."""
        samples = [sample for one in self.of.values() for sample in one.samples]
        if not samples:
            return []
        places = sorted({f"{s.device}, {s.precision}, {_count(s.threads, 'thread')}" for s in samples})
        lines = [
            f"measured on {' and on '.join(places)}",
            f"{_count(self.rounds, 'round')} of {self.seconds:g} s for each timing, each round in a process of its own",
        ]
        if others := self.others:
            low, high = f"{others.low:.0f}%", f"{others.high:.0f}%"
            span = f" (from {low} to {high})" if low != high else ""
            lines.append(f"measured while other processes took {others.median:.0f}% of the machine's CPUs{span}")
        else:
            lines.append("this system does not tell how busy other processes kept the machine meanwhile")
        if known := [f"{load:.2f}" for load in self.load if load is not None]:
            lines.append(f"load of the machine before each round: {', '.join(known)}")
        return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
