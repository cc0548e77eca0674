"""What each cost is, what to measure and what was found, as plain values that are sent from process to process."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any, Literal

from segreg.config.recipe import Recipe
from segreg.config.resolve import NETWORK, Resolved, resolve_begun
from segreg.errors import listed, plural
from segreg.registry.compatibility import DISTRIBUTION
from segreg.task import Task

if TYPE_CHECKING:
    from segreg.registry.registry import Registry


@dataclass(frozen=True)
class CostDefinition:
    """What a cost is.

    Attributes:
        unit: such as "images/s"; empty for a plain number.
        sentence: what was counted or measured, and what is not included.
        higher_is_better: whether larger values are; None where neither is.
    """

    unit: str
    sentence: str
    higher_is_better: bool | None


_TRAINING = "training steps of `segreg run`, on one batch of `train.batch_size` random images in memory"
_PREDICTION = "prediction of `segreg predict`, from uint8 images in memory to float32 logits on the device"
_EVALUATION_BATCH = "batches of `evaluate.batch_size` images (`train.batch_size` where that is null)"
_ALLOCATOR = (
    "the peak memory that PyTorch's allocator had allocated on the GPU after the warm-up; what the allocator reserves "
    "and the driver's own share of some hundred MiB are not included"
)
_RSS = (
    "the peak memory of the whole process on the machine (peak RSS), nothing of which is on a GPU; "
    "`process_memory_rss_mib` of it was there before the network"
)

DEFINITIONS: Mapping[str, CostDefinition] = {
    "parameters": CostDefinition(
        "", "the network's parameters, those of an auxiliary decoder included, which only training uses", False
    ),
    "trained_parameters": CostDefinition("", "those of the parameters that training changes", False),
    "flops": CostDefinition(
        "FLOP",
        "floating-point operations of convolutions and matrix products (attention's too) in one prediction for one "
        "image of the recipe's size, a multiply-add counted as two; normalisation, activations, pooling and "
        "resampling are not counted, nor are the taps of plain atrous convolutions that see only padding, where "
        "the network leaves them out",
        False,
    ),
    "training_images_per_second": CostDefinition(
        "images/s",
        f"images a second in {_TRAINING}: copy to the device, forward, losses, backward, optimizer; without "
        "reading and augmenting; the learning rate is 0, so that random labels can't make the loss diverge",
        True,
    ),
    "inference_images_per_second": CostDefinition(
        "images/s", f"images a second in {_PREDICTION}, in {_EVALUATION_BATCH}", True
    ),
    "latency_p50_ms": CostDefinition(
        "ms", f"the median time of {_PREDICTION}, for one image at a time, each waited for", False
    ),
    "latency_p95_ms": CostDefinition(
        "ms", "the time that 95% of the same predictions of one image took at most, of 20 or more", False
    ),
    "training_memory_gpu_mib": CostDefinition("MiB", f"in {_TRAINING}, {_ALLOCATOR}", False),
    "inference_memory_gpu_mib": CostDefinition("MiB", f"in {_PREDICTION}, in {_EVALUATION_BATCH}, {_ALLOCATOR}", False),
    "training_memory_rss_mib": CostDefinition("MiB", f"in predictions and then in {_TRAINING}, {_RSS}", False),
    "inference_memory_rss_mib": CostDefinition(
        "MiB", f"in {_PREDICTION}, of one image and in {_EVALUATION_BATCH}, {_RSS}", False
    ),
    "process_memory_rss_mib": CostDefinition(
        "MiB",
        "the peak memory of the same process (peak RSS) when it had imported segreg and PyTorch, timm and SMP "
        "(not on Windows), and built nothing; other libraries that the network is built with count as its own",
        None,
    ),
}
"""Every cost by its name, in the order in which they are listed."""


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


_TRAIN = (
    "batch_size", "effective_batch_size", "accumulate", "precision", "device", "channels_last", "compile",
    "checkpoint_activations", "sync_batch_norm", "clip_gradient_norm", "ema", "freeze_encoder_epochs",
)  # fmt: skip
"""Settings of training on which the time or the memory of a step depends."""

_TIMED = ("training_images_per_second", "inference_images_per_second", "latency_p50_ms")


@dataclass(frozen=True)
class NetworkSpec:
    """A network to measure, as another process needs it: there the recipe is resolved anew.

    Attributes:
        recipe: the complete recipe, as `Resolved.plain` returns it.
        source: the recipe's name in messages.
        files: the plugin files that the recipe's parts are from.
        digest: of the plugins, other than segreg's own, that the network and its optimizer are from.
        exported: the folder of an exported network, which is measured in place of the recipe's; empty: none.
    """

    recipe: Mapping[str, Any]
    source: str
    classes: tuple[str, ...]
    mode: Literal["binary", "multiclass", "multilabel"]
    files: tuple[str, ...] = ()
    digest: str = ""
    exported: str = ""

    @classmethod
    def of(cls, recipe: Resolved, task: Task, *, exported: str = "") -> NetworkSpec:
        """Return the network of a recipe for the task that its data has."""
        plugins = [choice.part.plugin for choice in recipe.choices()]
        files = dict.fromkeys(str(plugin.file) for plugin in plugins if plugin.file)
        timed = [*recipe.network_parts.values(), recipe.optimizer]
        digests = sorted({one.part.plugin.digest for one in timed if one.part.plugin.distribution != DISTRIBUTION})
        return cls(recipe.plain(), recipe.source, task.classes, task.mode, tuple(files), " ".join(digests), exported)

    @property
    def network(self) -> str:
        """Return what its costs depend on, as JSON: the same for recipes that differ in loss, data or schedule alone.

        Losses are left out, though a training step computes them: their share of its time is small.
        """
        recipe = {name: self.recipe.get(name) for name in ("input", *NETWORK)}
        train = {name: value for name, value in self.recipe["train"].items() if name in _TRAIN}
        used = [recipe, train, self.recipe["optimizer"]["name"], self.recipe["evaluate"]["batch_size"]]
        of = [used, self.classes, self.mode, self.digest, *([self.exported] if self.exported else [])]
        return json.dumps(of, sort_keys=True, default=str)

    def resolved(self, registry: Registry) -> tuple[Resolved, Task]:
        """Return recipe and task.

        Raises:
            SegregError: the registry does not have what the recipe names.
        """
        return resolve_begun(Recipe(self.recipe, source=self.source), registry), Task(self.classes, self.mode)


@dataclass(frozen=True)
class Failed:
    """Why something could not be measured, one sentence."""

    reason: str


@dataclass(frozen=True)
class RoundResult:
    """What one round found of one network.

    Attributes:
        values: each cost by its name in `DEFINITIONS`.
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


def uncertainty(results: Sequence[RoundResult]) -> float:
    """Return the largest standard error of a network's timings, as a share of their mean; infinite after one round."""
    if len(results) < 2:
        return math.inf
    columns = [[one.values[name] for one in results if name in one.values] for name in _TIMED]
    return max((stdev(each) / len(each) ** 0.5 / fmean(each) for each in columns if len(each) > 1), default=0.0)


@dataclass(frozen=True)
class Measurement:
    """Networks measured side by side, and what else the machine did meanwhile.

    Attributes:
        of: each network by its name.
        rounds: how often each was measured, every time in a process of its own.
        seconds: that each timing took.
        took: seconds that all of it took.
        load: processes that ran or waited in the minute before each round; None where unknown. From the second round
            on the measurement itself is among them.
    """

    of: Mapping[str, Measured]
    rounds: int
    seconds: float
    load: tuple[float | None, ...] = ()
    took: float = 0.0

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
        places = sorted({f"{r.device}, {r.precision}, {plural(r.threads, 'thread')}" for r in results})
        widest = max((uncertainty(one.results) for one in self.of.values() if not one.reason), default=math.inf)
        lines = [
            f"measured on {' and on '.join(places)}, in {self.took:.0f} s",
            f"{plural(self.rounds, 'round')} of {self.seconds:g} s for each timing, each round in a process of its own",
        ]
        lines += [f"the largest standard error of a timing is {widest:.1%}"] if widest < math.inf else []
        shared: dict[int, list[str]] = {}
        for name, one in self.of.items():
            shared.setdefault(id(one), []).append(name)
        lines += [
            f"measured once, with the loss of the first: {listed(names, quote='')}"
            for names in shared.values()
            if len(names) > 1
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
