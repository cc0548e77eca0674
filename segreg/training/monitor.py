"""The named values of an epoch: mean losses, which direction is better, and which one chooses the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from typing import TYPE_CHECKING, NamedTuple

from segreg.errors import SegregError, did_you_mean, listed
from segreg.evaluation.scores import compute, directions_of, disable_sync
from segreg.runtime.distributed import gathered
from segreg.task import Task, mask_shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torchmetrics import MetricCollection

TOTAL = "loss"
"""The name of the weighted total among the loss terms."""

_SIDE = 64
"""Height and width of labels that are made up: names don't depend on it, and 171 classes at 1024x1024 take 700 MB."""

HINT_NOT_FINITE = (
    "checkpoints hold the last finished epoch and none of this; try a smaller optimizer.lr or a warm-up "
    "(schedule.warmup_epochs), train.clip_gradient_norm=1, train.precision=float32"
)
"""What may help where a loss or a weight becomes NaN or infinite."""


@dataclass(frozen=True)
class Monitor:
    """A value's name and its direction."""

    name: str
    larger_is_better: bool

    def oriented(self, values: Mapping[str, float]) -> float:
        """Return the value so that larger is better; NaN where it is not defined."""
        value = values[self.name]
        return value if self.larger_is_better else -value

    def plain(self, oriented: float) -> float:
        """Undo `oriented`."""
        return oriented if self.larger_is_better else -oriented


def better(value: float, best: float | None) -> bool:
    """Whether an oriented value exceeds the best so far. NaN never does; the first other value does."""
    return not math.isnan(value) and (best is None or value > best)


def choose_monitor(name: str, directions: Mapping[str, bool | None]) -> Monitor:
    """Return the monitor of that name.

    Args:
        name: as in a recipe, such as `val.loss`.
        directions: for every value of an epoch, whether larger is better; None where that is unknown.

    Raises:
        SegregError: there is no such value, or it has no direction.
    """
    if name not in directions:
        close = did_you_mean(name, directions)
        known = listed([known for known, direction in directions.items() if direction is not None], most=40)
        raise SegregError(
            f'train.monitor: an epoch has no value "{name}"',
            hint="\n".join(filter(None, (close, f"there are {known}"))),
        )
    if (direction := directions[name]) is None:
        raise SegregError(
            f'train.monitor: "{name}" does not say whether larger is better',
            hint="a metric declares it with its attribute higher_is_better",
        )
    return Monitor(name, direction)


def is_loss(monitor: str) -> bool:
    """Whether a value is the loss, or a term of it."""
    return monitor.partition(".")[2].partition(".")[0] == TOTAL


def check_monitor(name: str, metrics: MetricCollection, task: Task) -> bool:
    """Return whether a larger value of a monitor is better, without an image.

    Which terms a loss has is known with the network only, so names of losses are taken as they are.

    Args:
        name: as in a recipe, such as `val.dice.pooled`.
        metrics: those of the recipe; they are left as they were.
        task: what is scored.

    Raises:
        SegregError: no metric gives that value, or it has no direction.
    """
    if is_loss(name):
        return False
    values = {f"val.{value}": larger for value, larger in directions_without_images(metrics, task).items()}
    return choose_monitor(name, {"train.loss": False, "val.loss": False, **values}).larger_is_better


def directions_without_images(metrics: MetricCollection, task: Task) -> dict[str, bool | None]:
    """Return whether larger is better, by the names of all values; None where it is unknown.

    Labels that are made up are scored, by a copy of the metrics on the CPU.
    """
    import torch

    target = torch.zeros(1, *mask_shape(task, (_SIDE, _SIDE)), dtype=torch.int64)
    target[..., : _SIDE // 2, :] = 1
    scored = disable_sync(metrics.clone()).to("cpu")
    scored.update(torch.zeros(1, task.channels, _SIDE, _SIDE), target)
    larger = directions_of(scored)
    return {value: larger.get(value) for value in compute(scored)}


def named(split: str, losses: Mapping[str, float]) -> dict[str, float]:
    """Return losses as the history names them: "val.loss" for the total, "val.loss.dice" for a term."""
    many = len(losses) > 2
    return {
        f"{split}.loss" if name == TOTAL else f"{split}.loss.{name}": value
        for name, value in losses.items()
        if many or name == TOTAL
    }


class _Summed(NamedTuple):
    """The sums of one process so far; `bad_batch` is -1 where all was finite."""

    sums: dict[str, float]
    images: int
    bad_batch: int
    bad_terms: list[str]
    bad_ids: tuple[str, ...]
    nan_ids: list[str]


@dataclass
class LossMeter:
    """Mean loss terms over the batches of one pass. Adding is queued on the device; only reading waits for it.

    Attributes:
        doing: for messages, such as "training, epoch 3".
        images: images so far.
        ids: the sample ids of every batch so far.
        nan: where it is known, of which images of every batch the network returned NaN.
        remark: what the last reading has found of these images, "" without any.
    """

    doing: str
    device: torch.device
    images: int = 0
    ids: list[tuple[str, ...]] = field(default_factory=list)
    nan: list[Tensor] = field(default_factory=list)
    names: tuple[str, ...] = ()
    remark: str = ""
    _row: Tensor | None = None  # each term's sum, the first batch that was not finite or -1, which terms of it were not

    def add(self, terms: Mapping[str, Tensor], ids: tuple[str, ...], logits: Tensor | None = None) -> None:
        """Add one batch's terms, each a mean over its images, and look for NaN in its logits. No device sync."""
        import torch

        values = torch.stack([term.detach() for term in terms.values()]).float()
        count = len(terms)
        if self._row is None:
            self.names = tuple(terms)
            # Apple's GPUs have no float64.
            wide = torch.float32 if self.device.type == "mps" else torch.float64
            self._row = torch.zeros(2 * count + 1, dtype=wide, device=self.device)
            self._row[count] = -1
        sums, bad_batch, bad_terms = self._row[:count], self._row[count], self._row[count + 1 :]
        wrong = ~values.isfinite()
        first = wrong.any() & (bad_batch < 0)
        bad_batch.masked_fill_(first, len(self.ids))
        bad_terms += wrong & first
        sums += values * len(ids)
        self.images += len(ids)
        self.ids.append(ids)
        if logits is not None:
            self.nan.append(logits.isnan().flatten(1).any(dim=1))

    def read(self) -> dict[str, float]:
        """Return the mean of every term over this process's images so far. A device sync.

        Raises:
            SegregError: a term was not finite; the message has its name, the batch's ids and what to try.
        """
        return self._means([self._summed()])[0]

    def read_all(self) -> tuple[dict[str, float], int]:
        """Return the same over the images of all processes, and their number; all processes must call it. A sync.

        Raises:
            SegregError: a term was not finite, in the first batch in which any process met one.
        """
        return self._means(gathered(self._summed()))

    def _summed(self) -> _Summed | None:
        import torch

        if self._row is None:
            return None
        row, count = self._row.tolist(), len(self.names)  # sync: one copy to the host
        batch = int(row[count])
        wrong = [name for name, bad in zip(self.names, row[count + 1 :], strict=True) if bad]
        sums_by_name = dict(zip(self.names, row, strict=False))
        is_nan = torch.cat(self.nan).tolist() if self.nan else []  # sync
        nan = list(compress(chain.from_iterable(self.ids), is_nan))
        return _Summed(sums_by_name, self.images, batch, wrong, self.ids[batch] if batch >= 0 else (), nan)

    def _means(self, processes: Sequence[_Summed | None]) -> tuple[dict[str, float], int]:
        summed = [each for each in processes if each is not None]
        images = sum(each.images for each in summed)
        nan = [name for each in summed for name in each.nan_ids]
        of = f"{len(nan)} of {images} images ({listed(nan, most=3)})"
        self.remark = f"the network returns NaN for {of}" if nan else ""
        if bad := [each for each in summed if each.bad_batch >= 0]:
            first = min(bad, key=lambda each: each.bad_batch)
            # Name the total only where none of its terms is at fault.
            terms = [term for term in first.bad_terms if term != TOTAL] or first.bad_terms
            raise SegregError(
                f"{self.doing}, batch {first.bad_batch + 1}: loss term {listed(terms)} is not finite (NaN or infinite)",
                hint="\n".join(
                    [
                        *([self.remark] if nan else []),
                        f"the batch's samples: {listed(list(first.bad_ids), quote='', most=64)}",
                        HINT_NOT_FINITE,
                        "and look at these samples' images and masks",
                    ]
                ),
            )
        names = summed[0].sums if summed else ()
        return {name: sum(each.sums[name] for each in summed) / images for name in names}, images
