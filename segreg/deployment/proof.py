"""Whether an exported network predicts what the trained one does: logits, labels, and every metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segreg.errors import SegregError
from segreg.inference.predictor import Predictor
from segreg.models.segmenter import predict_logits

if TYPE_CHECKING:
    from segreg.deployment.network import ExportedNetwork


@dataclass(frozen=True)
class Bounds:
    """What an export may differ by.

    Attributes:
        labels: share of pixels that may have another label.
        metric: difference that a metric of values in [0, 1] may have.
        if_better: whether a metric may be better by more than that.
    """

    labels: float
    metric: float
    if_better: bool = False


BOUNDS: Mapping[str, Bounds] = {
    "float32": Bounds(labels=1e-4, metric=1e-3),
    "float16": Bounds(labels=5e-3, metric=5e-3),
    "bf16": Bounds(labels=2e-2, metric=1e-2),
}
"""By precision. What int8 may cost is the user's to say."""


@dataclass(frozen=True)
class MetricDifference:
    """A metric of both networks on the same images.

    Attributes:
        trained: of the trained network, in float32; None where it is undefined.
        exported: of the exported one.
        low: lower end of the 95% interval of exported less trained; None where there is none.
        high: its upper end.
        higher_is_better: None where neither is.
    """

    trained: float | None
    exported: float | None
    low: float | None = None
    high: float | None = None
    higher_is_better: bool | None = None

    @property
    def change(self) -> float:
        """Return exported less trained; 0 where both are undefined, infinite where one is."""
        if self.trained is None or self.exported is None:
            return 0.0 if self.trained == self.exported else float("inf")
        return self.exported - self.trained

    @property
    def is_better(self) -> bool:
        """Whether the exported network's is the better one."""
        if self.trained is None or self.exported is None or self.higher_is_better is None:
            return False
        return self.exported > self.trained if self.higher_is_better else self.exported < self.trained


@dataclass(frozen=True)
class Proof:
    """What a comparison found.

    Attributes:
        images: how many were compared.
        of: what they are, such as "val".
        pixels: of all of them, as the network sees them.
        equal_labels: share of the pixels, of multilabel tasks of the labels, that are equal.
        largest_difference: of two logits of one pixel; None where labels are exported.
        largest_logit: the largest absolute value of a logit of the trained network.
        metrics: by their full names.
    """

    images: int
    of: str
    pixels: int
    equal_labels: float
    largest_difference: float | None
    largest_logit: float
    metrics: Mapping[str, MetricDifference]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


class Both(nn.Module):
    """The exported network, which is compared with the trained one on every batch that it predicts.

    Shape: as `ExportedNetwork`.

    Args:
        exported: the network of the file.
        trained: the network that it was exported from.
    """

    def __init__(self, exported: ExportedNetwork, trained: Predictor) -> None:
        super().__init__()
        self.exported, self.trained = exported, trained
        self.image_size, self.size_divisor = exported.image_size, exported.size_divisor
        self.equal = self.labels = self.pixels = 0
        self.largest_difference = self.largest_logit = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Return the exported network's logits."""
        found: Tensor = self.exported(images)
        of = self.trained
        wanted = predict_logits(of.model, of.normalize, images, of.device, of.precision).cpu()
        if not torch.isfinite(found).all():
            raise SegregError("the exported network returns values that are not finite")
        task, threshold = of.task, of.threshold
        equal = task.labels(found, threshold=threshold) == task.labels(wanted, threshold=threshold)
        self.equal += int(equal.sum())
        self.labels += equal.numel()
        self.pixels += images.shape[0] * images.shape[-2] * images.shape[-1]
        self.largest_difference = max(self.largest_difference, float((found - wanted).abs().max()))
        self.largest_logit = max(self.largest_logit, float(wanted.abs().max()))
        return found

    def predictor(self) -> Predictor:
        """Return what predicts with the exported network."""
        return replace(self.trained, model=self, normalize=nn.Identity())

    def proof(self, images: int, of: str, metrics: Mapping[str, MetricDifference]) -> Proof:
        """Return what was found."""
        difference = None if self.exported.returns_labels else self.largest_difference
        share = self.equal / max(1, self.labels)
        return Proof(images, of, self.pixels, share, difference, self.largest_logit, metrics)


def problems(proof: Proof, bounds: Bounds) -> list[str]:
    """Return what is out of bounds, one sentence each.

    Of labels, the metrics are not looked at: equal labels have equal ones, and what it costs that labels instead of
    logits are resized to the images' own size is not the file's fault.
    """
    found = []
    if 1 - proof.equal_labels > bounds.labels:
        found.append(f"{1 - proof.equal_labels:.3%} of the pixels have another label; {bounds.labels:.2%} may")
    for name, one in proof.metrics.items() if proof.largest_difference is not None else ():
        if bounds.if_better and one.is_better:
            continue
        if abs(one.change) > bounds.metric * max(1.0, abs(one.trained or 0)):
            ends = one.low is not None and one.high is not None
            likely = f", a difference between {one.low:+.4f} and {one.high:+.4f} with 95% confidence" if ends else ""
            found.append(f"{name} is {shown(one.exported)} instead of {shown(one.trained)}{likely}")
    return found


def shown(value: float | None) -> str:
    """Return a metric's value as text."""
    return "undefined" if value is None else f"{value:.4f}"
