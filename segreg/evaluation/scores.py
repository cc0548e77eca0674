"""Score a network on images: streamed, in constant memory, each number with its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError, listed
from segreg.evaluation.counts import class_counts, count_pixels
from segreg.runtime import distributed
from segreg.runtime.device import scoring_device

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor
    from torchmetrics import Metric, MetricCollection

    from segreg.data import Batch
    from segreg.task import Task

    Block = NDArray[Any] | None
    Predicted = tuple[Sequence[str], Tensor, Tensor]
    """The ids of some images, their logits `[B, K, H, W]`, and their targets as `Batch` has them."""


_IMAGES = "; images are "
"""Stands in a definition between what the metric means and how images were predicted for it."""


@dataclass(frozen=True)
class Scores:
    """A network's scores on some images.

    Attributes:
        values: each metric by its full name, such as `dice.pooled`.
        definitions: what each of those names means, one sentence.
        per_image: a row for each image: its id, and the metrics that one image has.
        counts: int64 `[N, K, 4]`, each image's as `image_counts` returns them.
        sums: by a metric's name what its `sums` returned for each image, `[N, ...]`.
        nan: bool `[N]`, whether the network returned NaN for an image, whose labels then mean nothing.
        groups: a number for each image, the same for those of one group; None where each is one by itself.
        intervals: lower and upper end of the 95% interval of each value that has one.
    """

    values: Mapping[str, float]
    definitions: Mapping[str, str]
    per_image: list[dict[str, Any]] = field(default_factory=list)
    counts: NDArray[np.int64] | None = None
    sums: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    nan: NDArray[np.bool_] | None = None
    groups: Sequence[int] | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Return the metrics that one image has."""
        return [name for row in self.per_image[:1] for name in row if name != "id"]

    @property
    def group_of(self) -> dict[str, int]:
        """Return the number of each image's group by its id; nothing where each is one by itself."""
        return {str(row["id"]): group for row, group in zip(self.per_image, self.groups or (), strict=False)}

    def alerts(self, split: str) -> list[str]:
        """Return what must not be overlooked of these scores."""
        broken = [] if self.nan is None else [str(self.per_image[place]["id"]) for place in self.nan.nonzero()[0]]
        of = f"{len(broken)} of the {len(self.per_image)} images of {split} ({listed(broken, most=3)})"
        why = "whose labels mean nothing; fp16 overflows in some networks"
        return [f"NaN: the network returns NaN for {of}, {why}"] if broken else []


def of_probabilities(metrics: MetricCollection) -> list[str]:
    """Return the metrics for which probabilities count, not labels alone."""
    own = metrics.items(copy_state=False)
    return [name for name, m in own if not (getattr(m, "of_labels", False) or hasattr(m, "scores_of_counts"))]


def evaluate(
    predict: Callable[[Batch], Iterable[Predicted]],
    batches: Iterable[Batch],
    metrics: MetricCollection,
    *,
    task: Task,
    threshold: float,
    device: torch.device,
) -> Scores:
    """Score every image of `batches`, together with those of other processes.

    Each pixel's label is counted once, whatever the number of metrics.

    Args:
        predict: returns the predictions of a batch's images, in their order, those of one size together.
        batches: the images, in order; several processes take the batches in turn.
        metrics: reset first; their counts are summed over the images.
        task: the metrics'.
        threshold: probability from which a pixel is foreground, the metrics' too.
        device: where the network computes.
    """
    scorer = ImageScorer(metrics, task=task, threshold=threshold, device=device)
    lengths: list[int] = []
    for batch in batches:
        lengths.append(len(batch.ids))
        for ids, logits, targets in predict(batch):
            scorer.add(ids, logits, targets)
    values = compute_over_processes(metrics)
    arrays = {name: block.array() for name, block in scorer.sums.items()}
    own = {"": scorer.counts.array(), "?": scorer.nan.array()}  # no metric's name
    rows, blocks = in_batch_order(lengths, scorer.rows, own | arrays)
    counted, nan = blocks.pop(""), blocks.pop("?")
    summed = {name: block for name, block in blocks.items() if block is not None}
    return Scores(values, definitions_of(metrics, values), rows, counted, summed, nan)


class ImageScorer:
    """Scores images as they are added.

    Args:
        metrics: reset first.
        task: the metrics'.
        threshold: probability from which a pixel is foreground, the metrics' too.
        device: where the network computes.
    """

    def __init__(self, metrics: MetricCollection, *, task: Task, threshold: float, device: torch.device) -> None:
        self.device = scoring_device(device)
        disable_sync(metrics).reset()
        metrics.to(self.device)
        self.metrics, self.task, self.threshold = metrics, task, threshold
        self.rows: list[dict[str, Any]] = []
        """Each image's id, and the metrics that one image has."""
        self.counts = _GrowingArray()
        """Each image's, as `image_counts` returns them."""
        self.nan = _GrowingArray()
        """Whether the network returned NaN for each image."""
        own = metrics.items(copy_state=False)
        self.sums = {name: _GrowingArray() for name, metric in own if hasattr(metric, "sums")}
        """By a metric's name what its `sums` returned for each image."""

    def add(self, ids: Iterable[str], logits: Tensor, targets: Tensor) -> None:
        """Score some images of one size, logits `[B, K, H, W]` and targets as `Batch` has them."""
        logits, target = logits.to(self.device), targets.to(self.device).long()
        pixels = count_pixels(self.task, logits, target, self.threshold)
        self.metrics.update(logits, target, pixels=pixels)  # which a collection passes to metrics that take it
        own_counts = class_counts(self.task, pixels.confusion)
        self.counts.add(own_counts)
        self.nan.add(logits.isnan().flatten(1).any(dim=1))
        columns: dict[str, list[float]] = {}
        for name, metric in self.metrics.items(copy_state=False):
            sums = metric.sums(logits, target) if name in self.sums else None
            if sums is not None:
                self.sums[name].add(sums)
            # A sync a batch, on purpose: rows are written for people, after the training.
            rows = _per_image(metric, logits, target, own_counts, sums)
            columns |= {column: values.tolist() for column, values in rows.items()}
        for number, identity in enumerate(ids):
            self.rows.append({"id": identity, **{name: values[number] for name, values in columns.items()}})


def _per_image(
    metric: Any, logits: Tensor, target: Tensor, counts: Tensor, sums: Tensor | None
) -> Mapping[str, Tensor]:
    """Return a metric's values for each image by name, `[B]`; none where it has no such values."""
    pooled: Mapping[str, Tensor] = {}  # over the one image
    if hasattr(metric, "per_image"):
        return dict(metric.per_image(logits, target))
    if hasattr(metric, "scores_of_counts"):
        pooled = metric.scores_of_counts(counts)
    elif sums is not None:
        pooled = metric.scores_of_sums(sums)
    return {name.removesuffix(".pooled"): values for name, values in pooled.items()}


class _GrowingArray:
    """Numbers of each image, in one block of memory.

    Small arrays kept from each batch would split the memory that the next batch fits into.
    """

    def __init__(self) -> None:
        self.block = bytearray()
        self.dtype, self.shape = "", ()

    def add(self, values: Tensor) -> None:
        own = values.cpu().numpy()
        self.dtype, self.shape = own.dtype.str, own.shape[1:]
        self.block.extend(own.tobytes())

    def array(self) -> NDArray[Any] | None:
        import numpy as np

        return np.frombuffer(self.block, self.dtype).reshape(-1, *self.shape) if self.block else None


def with_way(definition: str, way: str) -> str:
    """Return a metric's definition that also says how images were predicted for it; `way` may be empty."""
    return f"{definition.rstrip('.')}{_IMAGES}{way}" if way else definition


def meaning_and_way(definition: str) -> tuple[str, str]:
    """Return what a metric means, and how images were predicted for it."""
    meaning, _, way = definition.partition(_IMAGES)
    return meaning.rstrip("."), way or "at the size of the input"


def definitions_of(metrics: MetricCollection, values: Iterable[str]) -> dict[str, str]:
    """Return a sentence for each value's name; a metric that has none is named by its class."""
    found: dict[str, str] = {}
    for metric in metrics.values(copy_state=False):
        found |= getattr(metric, "definitions", {})
    classes = {name: type(metric).__name__ for name, metric in metrics.items(copy_state=False)}
    return {name: found.get(name, f"torchmetrics {classes.get(name, 'metric')}") for name in values}


def directions_of(metrics: MetricCollection) -> dict[str, bool | None]:
    """Return whether larger is better, by the names of values and of single images' values; None where it is unknown.

    The metrics have been computed, or can be.
    """
    found: dict[str, bool | None] = {}
    for name, metric in metrics.items(copy_state=False):
        given = metric.compute()
        # Where two metrics return the same name, the collection prefixes it with the metric's own.
        names = [key for k in given for key in (k, f"{name}_{k}")] if isinstance(given, Mapping) else [name]
        of_images = [key.removesuffix(".pooled").removesuffix(".per_image_mean") for key in names]
        found |= dict.fromkeys([name, *of_images, *names], metric.higher_is_better)
    return found


# Scoring in several processes, each with its share of the images: the results are those of one process.


def disable_sync(metrics: MetricCollection) -> MetricCollection:
    """Return metrics that each process computes by itself: torchmetrics' own exchange wants equal states everywhere.

    Raises:
        SegregError: a metric can't merge the state of another process.
    """
    if distributed.count() > 1:
        for name, metric in metrics.items(copy_state=False):
            for part in _parts(metric):
                part.distributed_available_fn = _never
            refuse_unmergeable(name, metric)
    return metrics


def refuse_unmergeable(name: str, metric: Metric) -> None:
    """Refuse a metric of which torchmetrics can't make one state of those of two processes, or makes a wrong one.

    Raises:
        SegregError: the metric, or one that it computes with, does.
    """
    from torchmetrics.utilities.data import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum

    exact = (dim_zero_sum, dim_zero_max, dim_zero_min, dim_zero_cat)
    for part in _merged_parts(metric):
        if _merges_itself(part):
            continue
        reason = ""
        if part.full_state_update is not False or part.dist_sync_on_step:
            reason = "torchmetrics asks for full_state_update = False"
        for state, reduce in part._reductions.items():  # noqa: SLF001 - torchmetrics has no public way to them
            # A mean weighs all processes alike, however many images they have.
            if reduce not in exact and not (reduce is None and isinstance(part._defaults[state], list)):  # noqa: SLF001
                reason = reason or f'its state "{state}" is not reduced by sum, max, min or cat'
        if reason:
            raise SegregError(
                f'the metric "{name}" can\'t merge the state of another process: {reason}',
                hint="it may have a merge_state of its own; a single process can score it",
            )


def _parts(metric: Metric) -> list[Metric]:
    """Return a metric and those that it computes with."""
    from torchmetrics import Metric

    return [part for part in metric.modules() if isinstance(part, Metric)]


def _merged_parts(metric: Metric) -> list[Metric]:
    """Return what is merged one by one: a metric with a `merge_state` of its own takes care of those in it."""
    return [metric] if _merges_itself(metric) else _parts(metric)


def _merges_itself(metric: Metric) -> bool:
    from torchmetrics import Metric

    return type(metric).merge_state is not Metric.merge_state


def _never() -> bool:  # a lambda could not be pickled
    return False


def compute(metrics: MetricCollection) -> dict[str, float]:
    """Return every metric's values by their names. One sync for each.

    Raises:
        SegregError: a metric returns something other than named numbers.
    """
    values = metrics.compute()
    for name, value in values.items():
        if value.numel() != 1:
            raise SegregError(f'the metric "{name}" returns {value.numel()} numbers at once; give each a name')
    return {name: float(value) for name, value in values.items()}


def compute_over_processes(metrics: MetricCollection) -> dict[str, float]:
    """Return every metric's values over the images of all processes. The main one's metrics then hold all counts.

    Raises:
        SegregError: a metric returns something other than named numbers.
    """
    if distributed.count() == 1:
        return compute(metrics)
    parts = [part for metric in metrics.values(copy_state=False) for part in _merged_parts(metric)]
    states = distributed.gathered([_moved(part.metric_state, "cpu") for part in parts])
    if distributed.is_main():
        for theirs in states[1:]:
            for part, state in zip(parts, theirs, strict=True):
                part.merge_state(_moved(state, part.device))
    return distributed.from_main(lambda: compute(metrics))


def _moved(state: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """Return a metric's state on a device."""

    def moved(value: Any) -> Any:
        return [moved(each) for each in value] if isinstance(value, (list, tuple)) else value.to(device)

    return {name: moved(value) for name, value in state.items()}


def in_batch_order(
    lengths: Sequence[int], rows: list[dict[str, Any]], blocks: Mapping[str, Block]
) -> tuple[list[dict[str, Any]], dict[str, Block]]:
    """Return the results of all processes in the images' order, where the processes took the batches in turn.

    Args:
        lengths: of this process's batches.
        rows: one for each image of this process.
        blocks: by name an array `[N, ...]` with an entry for each image, or None.
    """
    if distributed.count() == 1:
        return rows, dict(blocks)
    found = distributed.gathered((list(lengths), rows, dict(blocks)))
    lengths_of = [each[0] for each in found]
    turns = [(turn, rank) for turn in range(max(map(len, lengths_of))) for rank in range(len(found))]
    turns = [(turn, rank) for turn, rank in turns if turn < len(lengths_of[rank])]
    ends = [list(accumulate(each)) for each in lengths_of]

    def slices(of: Sequence[Any]) -> list[Any]:
        return [of[rank][ends[rank][turn] - lengths_of[rank][turn] : ends[rank][turn]] for turn, rank in turns]

    def joined(of: Sequence[Block]) -> Block:
        import numpy as np

        return None if of[0] is None else np.concatenate(slices(of))

    in_turn = [row for rows_of_batch in slices([each[1] for each in found]) for row in rows_of_batch]
    return in_turn, {name: joined([each[2][name] for each in found]) for name in blocks}
