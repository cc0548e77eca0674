"""Scores a network on a side of the split: streamed, in constant memory, each number with its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segreg.evaluation.gather import computed_together, disable_sync, in_batch_order
from segreg.models.segmenter import predict_logits

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torchmetrics import MetricCollection

    from segreg.data import Batch
    from segreg.runtime.device import Precision


@dataclass(frozen=True)
class Scores:
    """What a network reached on some images.

    Attributes:
        values: each metric by its full name, such as `dice.pooled`.
        definitions: what each of those names means, one sentence.
        per_image: a row for each image: its id, and the metrics that one image has.
        counts: int64 `[N, K, 4]`, each image's as `image_counts` has them; None where they were not counted.
        sums: by a metric's name what its `sums` gave of each image, `[N, ...]`.
        intervals: lower and upper end of the 95% interval of each value that has one.
    """

    values: Mapping[str, float]
    definitions: Mapping[str, str]
    per_image: list[dict[str, Any]] = field(default_factory=list)
    counts: NDArray[np.int64] | None = None
    sums: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def evaluate(
    model: nn.Module,
    normalize: nn.Module,
    batches: Iterable[Batch],
    metrics: MetricCollection,
    *,
    device: torch.device,
    precision: Precision,
    original: Callable[[int, Tensor], tuple[Tensor, NDArray[np.uint8]]] | None = None,
    count: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Scores:
    """Scores every image of `batches`, with those that other processes have.

    Args:
        model: gives logits for normalised images; it is put into evaluation mode.
        normalize: turns uint8 images into what the model takes.
        batches: the images, in order; several processes take the batches in turn.
        metrics: reset first; their counts are summed over the images.
        device: where the model is.
        precision: what it computes in.
        original: gives, for a sample's index and its logits `[K, h, w]`, logits and mask at the image's own size;
            None scores at the input's size.
        count: gives the counts `[B, K, 4]` of each image for logits and targets; None counts nothing.
    """
    import torch

    model.eval()
    disable_sync(metrics).reset()
    metrics.to(device)
    rows: list[dict[str, Any]] = []
    lengths: list[int] = []
    counted = _Gathered()
    sums = {name: _Gathered() for name, metric in metrics.items(copy_state=False) if hasattr(metric, "sums")}

    def score(logits: Tensor, target: Tensor, ids: Iterable[str]) -> None:
        _score(metrics, logits, target, ids, rows)
        if count is not None:
            counted.add(count(logits, target))
        for name, metric in metrics.items(copy_state=False):
            if name in sums:
                sums[name].add(metric.sums(logits, target))

    for batch in batches:
        lengths.append(len(batch.ids))
        logits = predict_logits(model, normalize, batch.images, device, precision)
        if original is None:
            score(logits, batch.targets.to(device).long(), batch.ids)
            continue
        for number, (identity, index) in enumerate(zip(batch.ids, batch.indices, strict=True)):
            own, mask = original(int(index), logits[number])
            target = torch.from_numpy(mask).to(device).long()
            score(own[None], target[None], (identity,))
    values = computed_together(metrics)
    blocks = {name: block.array() for name, block in sums.items()}
    rows, counts, blocks = in_batch_order(lengths, rows, counted.array(), blocks)
    summed = {name: block for name, block in blocks.items() if block is not None}
    return Scores(values, definitions_of(metrics, values), rows, counts, summed)


class _Gathered:
    """What was found of each image, as one block that grows.

    Small arrays kept from each batch would split the memory that the next batch fits into.
    """

    def __init__(self) -> None:
        self.block = bytearray()
        self.dtype, self.shape = "", ()

    def add(self, found: Tensor) -> None:
        """Take `[B, ...]`."""
        own = found.cpu().numpy()
        self.dtype, self.shape = own.dtype.str, own.shape[1:]
        self.block.extend(own.tobytes())

    def array(self) -> NDArray[Any] | None:
        """Return `[N, ...]`; None where nothing was taken."""
        import numpy as np

        return np.frombuffer(self.block, self.dtype).reshape(-1, *self.shape) if self.block else None


def definitions_of(metrics: MetricCollection, values: Iterable[str]) -> dict[str, str]:
    """Return a sentence for each value's name; a metric that has none is named by its class."""
    told: dict[str, str] = {}
    for metric in metrics.values(copy_state=False):
        told |= getattr(metric, "definitions", {})
    classes = {name: type(metric).__name__ for name, metric in metrics.items(copy_state=False)}
    return {name: told.get(name, f"torchmetrics {classes.get(name, 'metric')}") for name in values}


def _score(
    metrics: MetricCollection, logits: Tensor, target: Tensor, ids: Iterable[str], rows: list[dict[str, Any]]
) -> None:
    metrics.update(logits, target)
    columns: dict[str, list[float]] = {}
    for metric in metrics.values(copy_state=False):
        if hasattr(metric, "per_image"):
            # A sync a batch, on purpose: rows are written for people, after the training.
            columns |= {name: values.tolist() for name, values in metric.per_image(logits, target).items()}
    for number, identity in enumerate(ids):
        rows.append({"id": identity, **{name: values[number] for name, values in columns.items()}})
