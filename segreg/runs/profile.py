"""Where the time of a recipe's training would go: some steps taken for real, and a trace of a few of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from segreg.config.resolve import Resolved
from segreg.data.loader import Batch, BatchLoader
from segreg.errors import SegregError
from segreg.evaluation.scores import disable_sync
from segreg.models import build
from segreg.runs.assembly import Assembly
from segreg.runtime.device import scoring_device
from segreg.runtime.layout import Block, Column, Table
from segreg.runtime.progress import Progress, Quiet
from segreg.training.monitor import Monitor
from segreg.training.resume import Output, save_epoch, snapshot
from segreg.training.setup import prepare
from segreg.training.timing import STAGE_LABELS
from segreg.training.trainer import choose_micro_batches, compile_if_worthwhile, train_pass, validation_pass

WARM_UP = 2
"""Optimizer steps before those that are measured: the first one makes the optimizer's state and finds convolutions."""
TRACED = 2
"""Optimizer steps of the trace; a larger one is slow to look at."""
MOST_OPERATORS = 12


@dataclass(frozen=True)
class StageTime:
    """A stage of training.

    Attributes:
        stage: its name.
        each: seconds it takes once: for one optimizer step, one validation batch or one checkpoint.
        times: how often an epoch has it.
    """

    stage: str
    each: float
    times: int

    @property
    def seconds(self) -> float:
        """Return the seconds in an epoch."""
        return self.each * self.times


@dataclass(frozen=True)
class Operator:
    """What PyTorch ran while it was traced.

    Attributes:
        name: PyTorch's.
        calls: how often in an optimizer step.
        seconds: in an optimizer step, without what it called in turn; on the device that computes.
    """

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """How the time of an epoch divides.

    Attributes:
        device: where the network computed.
        precision: in what.
        images: in an optimizer step.
        steps: optimizer steps that were measured.
        rows: the stages, in their order.
        operators: those that took longest, the longest first.
        advice: what to change, or "".
        trace: the file of the trace.
    """

    device: str
    precision: str
    images: int
    steps: int
    rows: tuple[StageTime, ...]
    operators: tuple[Operator, ...]
    advice: str
    trace: Path

    @property
    def epoch_seconds(self) -> float:
        """Return how long an epoch takes."""
        return sum(row.seconds for row in self.rows)

    @property
    def waiting(self) -> float:
        """Return the share of the time in which training waits for data."""
        return next(row.seconds for row in self.rows if row.stage == "data") / max(self.epoch_seconds, 1e-9)

    def plain(self) -> dict[str, Any]:
        """Return all of it as numbers and strings."""
        return {
            "device": self.device, "precision": self.precision, "images_per_step": self.images, "steps": self.steps,
            "epoch_seconds": self.epoch_seconds, "waiting": self.waiting,
            "stages": [{**asdict(row), "seconds": row.seconds} for row in self.rows],
            "operators": [asdict(operator) for operator in self.operators],
            "advice": self.advice, "trace": str(self.trace),
        }  # fmt: skip

    def lines(self) -> list[Block]:
        """Return the tables, and the lines around them."""
        whole = max(self.epoch_seconds, 1e-9)
        stages = [
            (
                STAGE_LABELS[r.stage],
                f"{r.each * 1e3:.1f}",
                f"{r.times:,}",
                f"{r.seconds:.2f}",
                f"{r.seconds / whole:.1%}",
            )
            for r in self.rows
        ]
        stages.append(("an epoch", "", "", f"{whole:.2f}", "100.0%"))
        operators = [(o.name, f"{o.calls:.0f}", f"{o.seconds * 1e3:.1f}") for o in self.operators]
        heads = ("ms each", "an epoch", "seconds", "share")
        return [
            f"{self.device}, {self.precision}; {self.images} images in a step, {self.steps} steps measured",
            "",
            Table([Column("stage"), *(Column(head, right=True) for head in heads)], stages),
            "",
            Table(
                [Column("longest operators of a step"), Column("calls", right=True), Column("ms", right=True)],
                operators,
            ),
            "",
            f"trace: {self.trace} (ui.perfetto.dev and chrome://tracing show it)",
            *([f"advice: {self.advice}"] if self.advice else []),
        ]


class _Some:
    """A number of batches, from as many epochs as it takes."""

    def __init__(self, batches: BatchLoader, count: int) -> None:
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def epoch(self, number: int) -> Iterator[Batch]:
        """Return them."""
        left = self.count
        while left:
            for batch in self.batches.epoch(number):
                yield batch
                if not (left := left - 1):
                    return
            number += 1


def profile(recipe: Resolved, *, trace: Path, steps: int = 20, progress: Progress | None = None) -> Profile:
    """Train some steps, validate some batches and write a checkpoint, as a run does, and report what took how long.

    Nothing but the trace stays behind.

    Args:
        recipe: as for a run.
        trace: the file that PyTorch's trace is written to.
        steps: optimizer steps to measure.
        progress: where progress is reported.

    Raises:
        SegregError: what a run would raise before its first step, or in it; or the trace can't be written.
    """
    progress = progress or Quiet()
    epoch = min(1 + recipe.train.freeze_encoder_epochs, recipe.train.epochs)  # the first that trains all, as most do
    there = trace.exists()
    with (
        Assembly.of(recipe, progress) as assembly,
        tempfile.TemporaryDirectory() as folder,
        _removed_if_it_fails(None if there else trace),
    ):
        try:  # before minutes are spent on it
            trace.parent.mkdir(parents=True, exist_ok=True)
            trace.touch()
        except OSError as error:
            raise SegregError(f"{trace}: the trace can't be written: {error.strerror or error}") from error
        accumulate = recipe.train.accumulate
        training = prepare(assembly.setup(), steps_per_epoch=-(-len(assembly.train) // accumulate))
        choose_micro_batches(training, assembly.train, progress)
        compile_if_worthwhile(training, recipe.train.epochs, progress.say)

        def train(count: int) -> dict[str, float]:
            return train_pass(training, _batches(assembly.train, count * accumulate), epoch, progress)[0]

        train(WARM_UP)
        training.stopwatch.restart()
        values = train(steps)
        spent = training.stopwatch.read()
        rows = [StageTime(stage, took / steps, training.steps_per_epoch) for stage, took in spent.whole.items()]

        training.stopwatch.restart()
        checked = min(len(assembly.val), max(1, steps * accumulate // 4))
        if checked:
            metrics = disable_sync(build.build_metrics(recipe, assembly.dataset.task))
            metrics.to(scoring_device(assembly.device))
            with training.stopwatch.stage("validation"):
                validation_pass(training, _batches(assembly.val, checked), metrics, epoch, progress)
        with training.stopwatch.stage("checkpoint"):
            monitor = Monitor("train.loss", larger_is_better=False)
            state = snapshot(training, monitor, epoch=1, seconds=0.0, best_epoch=1, values={"epoch": 1, **values})
            save_epoch(state, Output(Path(folder)), monitor)
        after = training.stopwatch.read().stages
        instead = {"checkpoint": StageTime("checkpoint", after["checkpoint"], 1)}
        instead["validation"] = StageTime("validation", after["validation"] / max(1, checked), len(assembly.val))

        kinds = [torch.profiler.ProfilerActivity.CPU]
        if assembly.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as traced:
            train(TRACED)
        traced.export_chrome_trace(str(trace))
        return Profile(
            device=str(assembly.device),
            precision=assembly.precision.name,
            images=min(recipe.train.batch * accumulate, len(assembly.splits["train"])),
            steps=steps,
            rows=tuple(instead.get(row.stage, row) for row in rows),
            operators=_operators(traced.key_averages(), assembly.device.type),
            advice=spent.advice(),
            trace=trace,
        )


@contextmanager
def _removed_if_it_fails(file: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if file is not None:
            with suppress(OSError):
                file.unlink()
        raise


def _batches(batches: BatchLoader, count: int) -> BatchLoader:
    return cast("BatchLoader", _Some(batches, count))


def _operators(events: Sequence[Any], device_type: str) -> tuple[Operator, ...]:
    """Return the longest of a profiler's events."""

    def seconds(event: Any) -> float:
        took = event.self_device_time_total if device_type == "cuda" else event.self_cpu_time_total
        return float(took) / 1e6 / TRACED

    longest = sorted(events, key=seconds, reverse=True)[:MOST_OPERATORS]
    return tuple(Operator(event.key, event.count / TRACED, seconds(event)) for event in longest if seconds(event))
