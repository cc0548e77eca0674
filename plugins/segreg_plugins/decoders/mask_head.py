"""Mask2Former's head: queries become the scores of classes, and are trained by the masks and classes they match.

Of semantic segmentation (arXiv:2107.06278, section 3.4): a pixel's score for a class is the sum over the queries of the
class's probability times the mask's. The losses are those of arXiv:2112.01527, sections 3.2 and 4.1, with its weights.

Where it departs:

* Scores are computed at stride 4 and their logarithms are resized, where the papers resize each query's mask first.
* A binary task has two classes for the queries, so that the background is a segment as well. Labels of a multilabel
  task are scored by themselves: the sum, at most 1, is the probability.
* Losses are divided by the segments of one process's images, not of all processes'.
* An image of which nothing counts has no part in the classes' loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX
from segreg_plugins.decoders.mask_matching import WEIGHTS, match
from segreg_plugins.decoders.mask_points import of_segments, uncertain_points
from segreg_plugins.decoders.mask_segments import Segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segreg.task import Task

NO_OBJECT = 0.1
"""Weight of a query without a segment in the classes' loss."""
LEAST = 1e-6
"""The least score of a class, so that its logarithm is finite."""


class MaskHead(nn.Module):
    """The head.

    Args:
        task: the classes.
        queries: how many the decoder has.
        channels: of the queries.
        points: at which masks are compared.

    Attributes:
        own_losses: name and weight of each loss, as the paper has them.

    Shape: the pixels' embeddings `[B, C, h, w]`, and after each of S steps the queries' states and the embeddings of
    their masks, both `[B, S, Q, C]`, to `[B, K, h, w]`, whose softmax or sigmoid are the classes' scores. A decoder
    whose pixels have other embeddings after each step gives them as well, `[B, S, C, h, w]`.

    Raises:
        SegregError: there are fewer queries than classes.
    """

    own_losses = WEIGHTS

    def __init__(self, task: Task, *, queries: int, channels: int, points: int) -> None:
        super().__init__()
        self.task, self.points = task, points
        self.labels = task.label_count
        if queries < self.labels:
            raise SegregError(
                f"{queries} queries can't show {self.labels} classes", hint="each class needs a query at least"
            )
        self.classify = nn.Linear(channels, self.labels + 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits, float32."""
        pixels, states, embeddings, *_ = features
        classes = self.classify(states[:, -1]).float().softmax(dim=2)[..., :-1]
        masks = torch.einsum("bqc,bchw->bqhw", embeddings[:, -1], pixels).float().sigmoid()
        with torch.autocast(pixels.device.type, enabled=False):
            scores = torch.einsum("bqk,bqhw->bkhw", classes, masks)
        if self.task.mode == "multilabel":
            return scores.logit(eps=LEAST)
        logits = scores.clamp(min=LEAST).log()
        return logits[:, 1:] - logits[:, :1] if self.task.mode == "binary" else logits

    def loss_terms(self, features: Sequence[Tensor], targets: Tensor) -> list[Tensor]:
        """Return the losses of the classes and of the masks, added up over all steps."""
        pixels, states, embeddings, *of_steps = features
        maps = of_steps[0] if of_steps else pixels[:, None]
        classes = self.classify(states)
        segments = Segments.of(targets, self.labels, overlapping=self.task.mode == "multilabel")
        matched = match(classes, embeddings, maps, segments, self.points)
        steps = torch.arange(len(matched), device=pixels.device)[:, None]
        chosen = torch.split(embeddings[segments.image, steps, matched], segments.counts, dim=1)
        masks = [
            (one @ image.flatten(2)).unflatten(2, image.shape[2:]) for one, image in zip(chosen, maps, strict=True)
        ]
        wanted = torch.full(classes.shape[:3], self.labels, device=pixels.device)
        wanted[segments.image, steps, matched] = segments.label
        counts = (targets.flatten(1) != IGNORE_INDEX).any(dim=1)
        return [class_loss(classes, wanted, counts), *mask_losses(torch.cat(masks, dim=1), segments, self.points)]


def class_loss(logits: Tensor, wanted: Tensor, counts: Tensor) -> Tensor:
    """Return the queries' cross-entropy, a weighted mean at each step, added up over the steps.

    Shape: logits `[B, S, Q, L + 1]`, wanted classes `[B, S, Q]`, L for none, and which images count `[B]` to a scalar.
    """
    costs = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none").view_as(wanted)
    weights = torch.where(wanted == logits.shape[3] - 1, NO_OBJECT, 1.0) * counts[:, None, None]
    return ((weights * costs).sum((0, 2)) / weights.sum((0, 2)).clamp(min=NO_OBJECT)).sum()


def mask_losses(masks: Tensor, segments: Segments, points: int) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and Dice of segments at points, means over the segments, added up over the steps.

    Shape: logits of the segments' masks `[S, N, h, w]` to two scalars.
    """
    places = uncertain_points(masks, segments, points)
    truth, counts = segments.at(places)
    logits = of_segments(masks, places)
    costs = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = (costs * counts).sum(2) / counts.sum(2).clamp(min=1)
    inside = logits.sigmoid() * counts
    dice = 1 - (2 * (inside * truth).sum(2) + 1) / (inside.sum(2) + truth.sum(2) + 1)
    number = max(masks.shape[1], 1)
    return entropy.sum() / number, dice.sum() / number
