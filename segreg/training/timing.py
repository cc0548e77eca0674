"""Where the time of a training goes, stage by stage, and what to change where much of it is waiting."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

if TYPE_CHECKING:
    import torch

Stage = Literal["data", "copy", "forward", "backward", "optimizer", "validation", "checkpoint"]
"""The stages of training; the forward pass includes the losses."""

SECONDS = "seconds."
"""The prefix of a stage's column in the history."""

STAGE_LABELS: Mapping[str, str] = {
    "data": "waiting for data",
    "copy": "copying to the device",
    "forward": "forward and losses",
    "backward": "backward",
    "optimizer": "optimizer",
    "validation": "validation",
    "checkpoint": "checkpoints",
    "other": "other",
}
"""How tables name each stage."""

WORTH_ADVICE = 0.1
"""The share of the time from which waiting is worth mentioning."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Spent:
    """How a training spent its time, in seconds.

    Attributes:
        wall: from start to end.
        stages: of each stage, by the clock of the device that computes: on a GPU, a stage in which the GPU works off
            what was queued before takes no time.
        launching: time in which the CPU queued work for a GPU; 0 on a CPU.
    """

    wall: float
    stages: Mapping[str, float]
    launching: float = 0.0

    @property
    def whole(self) -> dict[str, float]:
        """Return the seconds of each stage, and the rest as "other"."""
        return {**self.stages, "other": max(0.0, self.wall - sum(self.stages.values()))}

    def advice(self) -> str:
        """Return what to change, or "" where hardly any time is lost by waiting."""
        if advice := advice_on(self.whole):
            return advice
        computing = sum(self.stages[stage] for stage in ("forward", "backward", "optimizer"))
        if self.launching >= (1 - WORTH_ADVICE) * computing and self.launching >= WORTH_ADVICE * self.wall:
            return (
                "the GPU waited for the CPU to queue work: a larger train.batch_size, or train.compile: true, "
                "makes fewer and larger kernels of it"
            )
        return ""


def spent_in(history: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the seconds of each stage in all rows of a history; a checkpoint counts to the epoch after it."""
    total: dict[str, float] = {}
    for row in history:
        for name, seconds in row.items():
            if name.startswith(SECONDS):
                stage = name.removeprefix(SECONDS)
                total[stage] = total.get(stage, 0.0) + seconds
    return total


def advice_on(seconds: Mapping[str, float]) -> str:
    """Return what to change where training waited for data, else ""."""
    waiting = seconds.get("data", 0.0) / max(sum(seconds.values()), 1e-9)
    if waiting < WORTH_ADVICE:
        return ""
    return (
        f"{waiting:.0%} of the time was waiting for data: more train.workers load batches faster, and so do fewer or "
        "cheaper augmentations"
    )


def format_shares(seconds: Mapping[str, float]) -> str:
    """Return the stages that took a hundredth of the time or more, in a line, the largest first."""
    wall = max(sum(seconds.values()), 1e-9)
    largest_first = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{STAGE_LABELS.get(stage, stage)} {took / wall:.0%}" for stage, took in largest_first if took / wall >= 0.01
    )


class Stopwatch:
    """Add up the time of each stage. On a CUDA device it reads the device's clock, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        """Start again from zero."""
        self.begun = time.perf_counter()
        self.stages: dict[str, float] = dict.fromkeys(get_args(Stage), 0.0)
        self.launching = 0.0
        self._marks: deque[tuple[str, Any, Any]] = deque()

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Count the time within the context as that stage's. No device sync."""
        begun, mark = time.perf_counter(), self._mark()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            if mark is None:
                self.stages[name] += seconds
            else:
                self._marks.append((name, mark, self._mark()))
                self.launching += seconds if name in ("forward", "backward", "optimizer") else 0.0
                self._collect()

    def leave_out(self, name: Stage, seconds: float) -> None:
        """Take time off that a stage had, as if it had not passed."""
        self.begun += seconds
        self.stages[name] -= seconds

    def waiting_for(self, items: Iterable[Item]) -> Iterator[Item]:
        """Return the items; the time spent waiting for each counts as "data"."""
        iterator = iter(items)
        while True:
            with self.stage("data"):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def read(self) -> Spent:
        """Return the time since the last restart. A device sync."""
        if self._marks:
            self._marks[-1][2].synchronize()
            self._collect()
        return Spent(time.perf_counter() - self.begun, dict(self.stages), self.launching)

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return None
        import torch

        mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        mark.record(torch.cuda.current_stream(self.device))
        return mark

    def _collect(self) -> None:
        """Add up the stages that the device has finished."""
        while self._marks and self._marks[0][2].query():
            name, begun, ended = self._marks.popleft()
            self.stages[name] += begun.elapsed_time(ended) / 1000
