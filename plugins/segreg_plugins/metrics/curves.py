"""Areas under curves, ROC AUC and average precision: a small set's logits are kept, a large one's are counted.

What is counted is a histogram of positives and negatives over `keys`: 4 MB a class, however many pixels there are. It
depends on no setting, so that a `torchmetrics.MetricCollection` counts once for all of these metrics. Each class has
its own, because a collection needs several times the memory of a state to compare it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics import Metric

from segreg.evaluation.counts import add_ones
from segreg.registry.protocols import Curve
from segreg_plugins.metrics import ranking
from segreg_plugins.metrics.common import by_class, chunks, definitions_of, kinds_of, refuse_unknown
from segreg_plugins.metrics.keys import BROKEN, KEYS, UNCOUNTED, keys_of, own_logits

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

MOST_KEPT = 1 << 21
"""Logits, of all classes together, up to which every one is kept as it is: 10 MB."""
_MOST_POINTS = 2000
"""Of a curve; more can't be seen."""
UNDEFINED = "without pixels of the class, or without others"


def _roc_curve(name: str, histogram: Tensor, area: float) -> Curve:
    """Return a class's ROC curve from its histogram `[2, N]`, which has both kinds of pixels."""
    fp, tp = _occupied(histogram)
    zero = fp.new_zeros(1)
    x, y = _thinned(torch.cat([zero, fp / fp[-1]]), torch.cat([zero, tp / tp[-1]]))
    axes = "false positive rate = FP / (FP + TN)", "recall = TP / (TP + FN)"
    return Curve(name, x.numpy(), y.numpy(), *axes, f"AUC {area:.4f}", (0.0, 1.0))


def _precision_recall_curve(name: str, histogram: Tensor, area: float) -> Curve:
    """Return a class's precision over its recall from its histogram `[2, N]`, which has both kinds of pixels."""
    fp, tp = _occupied(histogram)
    precision = tp / (tp + fp)
    x, y = _thinned(torch.cat([tp.new_zeros(1), tp / tp[-1]]), torch.cat([precision[:1], precision]))
    foreground = float(tp[-1] / (tp[-1] + fp[-1]))
    axes = "recall = TP / (TP + FN)", "precision = TP / (TP + FP)"
    return Curve(name, x.numpy(), y.numpy(), *axes, f"average precision {area:.4f}", (foreground, foreground))


def _occupied(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Return false and true positives at the levels that were met, from the highest."""
    histogram = histogram.cpu()
    fp, tp = ranking.from_the_top(histogram)
    met = histogram.sum(0) > 0
    return fp[met].flip(0), tp[met].flip(0)


def _thinned(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return at most `_MOST_POINTS` of a curve's points, evenly spaced along it, its ends among them."""
    if len(x) <= _MOST_POINTS:
        return x, y
    length = torch.cat([x.new_zeros(1), (x.diff().abs() + y.diff().abs()).cumsum(0)])
    places = torch.searchsorted(length, torch.linspace(0, float(length[-1]), _MOST_POINTS, dtype=length.dtype)).clamp(
        max=len(x) - 1
    )
    places[-1] = len(x) - 1
    places = torch.unique_consecutive(places)
    return x[places], y[places]


@dataclass(frozen=True)
class Area:
    """One length to score how a class's logits rank its pixels.

    Attributes:
        title: what it is, in the sentences that define values.
        area: returns the value, from a histogram and the share of its levels' logits that differ, None where none do.
        curve: returns the curve of a class that has both kinds of pixels, from its name, its histogram and its value.
    """

    title: str
    area: Callable[[Tensor, Tensor | None], Tensor]
    curve: Callable[[str, Tensor, float], Curve]


AREAS = {
    "roc_auc": Area(
        "area under the ROC curve, recall over false positive rate at every threshold,",
        lambda histogram, _: ranking.roc_auc(histogram),
        _roc_curve,
    ),
    "pr_auc": Area(
        "average precision, the sum over thresholds of precision times the recall gained,",
        ranking.average_precision,
        _precision_recall_curve,
    ),
}


class AreaUnderCurve(Metric):
    """One judgement of how logits rank pixels, over the pixels of all images together.

    Args:
        task: any task; of a multiclass one each class is scored against the rest.
        name: a key of `AREAS`, and what the values are called.
        kept: for each class whether it takes part in `NAME.pooled`.
    """

    full_state_update = True  # `forward` would add up states of other sizes
    higher_is_better = True
    is_differentiable = False

    unknown: Tensor
    logits: list[Tensor] | Tensor
    kinds: list[Tensor] | Tensor

    def __init__(self, task: Task, *, name: str, kept: Sequence[bool]) -> None:
        super().__init__()
        self.task = task
        self.name = name
        self.kept = tuple(kept)
        # Of each class its negatives and positives; made when there are too many pixels to be kept.
        for k in range(task.channels):
            self.add_state(f"histogram_{k}", torch.zeros(2, 0, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unknown", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        # `[N, K]` of every piece, or none where there are too many pixels.
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("kinds", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch, without waiting for the device."""
        parts = list(chunks(self.task, logits, target))
        room = MOST_KEPT - sum(map(torch.numel, self.logits))
        if not self._is_full() and logits.numel() > room:
            self._fill()
        for part, truth in parts:
            kinds, unknown = kinds_of(self.task, part, truth)
            own = own_logits(self.task, part)
            self.unknown = self.unknown + unknown
            if self._is_full():
                self._count(own, kinds)
            else:
                self.logits = [*self.logits, own.movedim(1, -1).flatten(0, -2)]
                self.kinds = [*self.kinds, kinds.to(torch.uint8).movedim(1, -1).flatten(0, -2)]

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Take in what another process kept or counted; together they keep and count as one would have."""
        theirs = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        logits, kinds = list(theirs["logits"]), list(theirs["kinds"])
        full = theirs["histogram_0"].numel() > 0
        too_many = sum(map(torch.numel, [*self.logits, *logits])) > MOST_KEPT
        if not self._is_full() and (full or too_many):
            self._fill()
        self.unknown = self.unknown + theirs["unknown"]
        if not self._is_full():
            self.logits, self.kinds = [*self.logits, *logits], [*self.kinds, *kinds]
            return
        for k in range(self.task.channels):  # a new tensor, for the metrics of a collection share theirs
            more = theirs[f"histogram_{k}"] if full else 0
            setattr(self, f"histogram_{k}", self._histogram(k) + more)
        for own, kind in zip(logits, kinds, strict=True):
            self._count(own.T[None], kind.T[None].to(torch.int32))

    def compute(self) -> dict[str, Tensor]:
        """Return `NAME.pooled` and, where there are several classes, `NAME.class.CLASS`.

        Float64 scalars. NaN: undefined, or a logit was NaN.

        Raises:
            SegregError: masks held labels that the task does not have.
        """
        refuse_unknown(self.task, int(self.unknown))
        kept = torch.tensor(self.kept, device=self.unknown.device)
        area = AREAS[self.name].area
        each = torch.stack([area(*self._levels(k)) for k in range(self.task.channels)])
        broken = torch.stack([self._broken(k) for k in range(self.task.channels)])
        each = each.masked_fill(broken, torch.nan)
        pooled = each.where(kept, torch.nan).nanmean().masked_fill((broken & kept).any(), torch.nan)
        return by_class(self.task, self.name, pooled, each)

    def tables(self) -> dict[str, Curve]:
        """Return the curve of each class whose area is defined, by its name."""
        found = {}
        measure = AREAS[self.name]
        for k, name in enumerate(self.task.classes):
            histogram, spread = self._levels(k)
            if ranking.both_kinds(histogram) and not self._broken(k):
                found[f"{self.name}.{name}"] = measure.curve(name, histogram, float(measure.area(histogram, spread)))
        return found

    @property
    def definitions(self) -> dict[str, str]:
        """Return a sentence for each value of `compute`."""
        title = AREAS[self.name].title
        return definitions_of(self.task, self.name, self.kept, title=title, undefined=UNDEFINED)

    def _histogram(self, k: int) -> Tensor:
        """Return a class's histogram `[2, KEYS]`; `[2, 0]` as long as logits are kept."""
        found: Tensor = getattr(self, f"histogram_{k}")
        return found

    def _is_full(self) -> bool:
        """Whether there were too many logits to be kept."""
        return self._histogram(0).numel() > 0

    def _fill(self) -> None:
        """Make the histograms, and count what was kept."""
        for k in range(self.task.channels):
            setattr(self, f"histogram_{k}", self._histogram(k).new_zeros(2, KEYS))
        for own, kinds in zip(self.logits, self.kinds, strict=True):
            self._count(own.T[None], kinds.T[None].to(torch.int32))
        self.logits, self.kinds = [], []

    def _count(self, own: Tensor, kinds: Tensor) -> None:
        """Count logits and kinds `[B, K, N]`."""
        keys = keys_of(own).masked_fill_(kinds == 2, UNCOUNTED)
        keys += kinds.clamp(max=1) * KEYS
        # Class by class, for one class's histogram is what a CPU's cache holds.
        for k in range(self.task.channels):
            add_ones(self._histogram(k).view(-1), keys[:, k])

    def _of_class(self, k: int) -> tuple[Tensor, Tensor]:
        """Return a class's kept logits that count, and their kinds."""
        # Of several processes torchmetrics makes one tensor.
        logits, kept = ([each] if isinstance(each, torch.Tensor) else each for each in (self.logits, self.kinds))
        empty = self._histogram(k).new_zeros(0)
        values = torch.cat([empty.float(), *(part[:, k] for part in logits)])
        kinds = torch.cat([empty.byte(), *(part[:, k] for part in kept)])
        return values[kinds < 2], kinds[kinds < 2]

    def _broken(self, k: int) -> Tensor:
        """Whether a logit of a class was NaN."""
        if self._is_full():
            return self._histogram(k)[:, BROKEN].any()
        return self._of_class(k)[0].isnan().any()

    def _levels(self, k: int) -> tuple[Tensor, Tensor | None]:
        """Return a class's histogram `[2, N]`, and for each level the share of its logits that differ, None for 0."""
        if self._is_full():
            histogram = self._histogram(k)[:, UNCOUNTED + 1 :]
            return histogram, ranking.share_differing(histogram)
        values, kinds = self._of_class(k)
        levels, place = torch.unique(values, return_inverse=True)
        histogram = self._histogram(k).new_zeros(2, len(levels))
        for kind, of_kind in enumerate(histogram):
            add_ones(of_kind, place[kinds == kind])
        return histogram, None
