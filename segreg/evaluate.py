"""Scores a network on a side of the split: streamed, in constant memory, each number with its definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segreg.monitor import computed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torchmetrics import MetricCollection

    from segreg.data import Batch
    from segreg.device import Precision


@dataclass(frozen=True)
class Scores:
    """What a network reached on some pictures.

    Attributes:
        values: each metric by its full name, such as `dice.pooled`.
        definitions: what each of those names means, one sentence.
        per_image: a row for each picture: its id, and the metrics that one picture has.
    """

    values: Mapping[str, float]
    definitions: Mapping[str, str]
    per_image: list[dict[str, Any]] = field(default_factory=list)


def predict_logits(
    model: nn.Module, normalize: nn.Module, images: Tensor, device: torch.device, precision: Precision
) -> Tensor:
    """Gives float32 logits `[B, K, H, W]` for uint8 images `[B, C, H, W]`, on `device`."""
    import torch

    with torch.inference_mode(), precision.autocast(device):
        logits: Tensor = model(normalize(images.to(device, non_blocking=True)))
    return logits.float()


def evaluate(
    model: nn.Module,
    normalize: nn.Module,
    batches: Iterable[Batch],
    metrics: MetricCollection,
    *,
    device: torch.device,
    precision: Precision,
    original: Callable[[int, Tensor], tuple[Tensor, NDArray[np.uint8]]] | None = None,
) -> Scores:
    """Scores every picture of `batches`.

    Args:
        model: gives logits for normalised images; it is put into evaluation mode.
        normalize: turns uint8 images into what the model takes.
        batches: the pictures, in order.
        metrics: reset first; their counts are summed over the pictures.
        device: where the model is.
        precision: what it computes in.
        original: gives, for a sample's index and its logits `[K, h, w]`, logits and mask at the picture's own size;
            None scores at the input's size.
    """
    import torch

    model.eval()
    metrics.reset()
    metrics.to(device)
    rows: list[dict[str, Any]] = []
    for batch in batches:
        logits = predict_logits(model, normalize, batch.images, device, precision)
        if original is None:
            _score(metrics, logits, batch.targets.to(device).long(), batch.ids, rows)
            continue
        for number, (identity, index) in enumerate(zip(batch.ids, batch.indices, strict=True)):
            own, mask = original(int(index), logits[number])
            target = torch.from_numpy(mask).to(device).long()
            _score(metrics, own[None], target[None], (identity,), rows)
    values = computed(metrics)
    return Scores(values, definitions_of(metrics, values), rows)


def definitions_of(metrics: MetricCollection, values: Iterable[str]) -> dict[str, str]:
    """Gives a sentence for each value's name; a metric that has none is named by its class."""
    told: dict[str, str] = {}
    for metric in metrics.values():
        told |= getattr(metric, "definitions", {})
    classes = {name: type(metric).__name__ for name, metric in metrics.items()}
    return {name: told.get(name, f"torchmetrics {classes.get(name, 'metric')}") for name in values}


def _score(
    metrics: MetricCollection, logits: Tensor, target: Tensor, ids: Iterable[str], rows: list[dict[str, Any]]
) -> None:
    metrics.update(logits, target)
    columns: dict[str, list[float]] = {}
    for metric in metrics.values():
        if hasattr(metric, "per_image"):
            # A sync a batch, on purpose: rows are written for people, after the training.
            columns |= {name: values.tolist() for name, values in metric.per_image(logits, target).items()}
    for number, identity in enumerate(ids):
        rows.append({"id": identity, **{name: values[number] for name, values in columns.items()}})
