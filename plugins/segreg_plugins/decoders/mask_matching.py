"""Which query answers for which segment: the cheapest pairs, as in DETR (arXiv:2005.12872) and Mask2Former.

Costs are those of the losses, arXiv:2112.01527, at random points of each image. They are the same for all steps of one
image, where the authors' code draws them anew for each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segreg_plugins.decoders.mask_points import sampled
from segreg_plugins.decoders.mask_segments import Segments

WEIGHTS: Mapping[str, float] = {"class": 2.0, "mask_bce": 5.0, "mask_dice": 5.0}
"""Of the classes and of the masks' two losses, in costs as in training."""


@torch.compiler.disable
@torch.no_grad()
def match(classes: Tensor, embeddings: Tensor, pixels: Tensor, segments: Segments, points: int) -> Tensor:
    """Return the query of each segment at each step. A device sync for each image.

    Shape: classes' logits `[B, S, Q, L + 1]`, mask embeddings `[B, S, Q, C]` and pixels `[B, S, C, h, w]`, or
    `[B, 1, C, h, w]` where all steps have the same, to int64 `[S, N]`.
    """
    from scipy.optimize import linear_sum_assignment

    places = torch.rand(len(pixels), points, 2, device=pixels.device)
    # A mask at a point is its embedding times the pixel's there: sampling is linear.
    maps = pixels.shape[1]
    at_places = sampled(pixels.flatten(0, 1), places.repeat_interleave(maps, dim=0)).view(*pixels.shape[:3], -1)
    truth, counts = segments.at(places[segments.image])
    matched: list[Tensor] = []
    labels, truths, counting = (torch.split(each, segments.counts) for each in (segments.label, truth, counts))
    for image, probabilities in enumerate(classes.softmax(dim=3)):
        masks = embeddings[image] @ at_places[image]
        costs = pair_costs(probabilities[..., labels[image]], masks, truths[image], counting[image])
        # Not finite where the training diverges, which the loss itself will say.
        found = [linear_sum_assignment(step.T)[1] for step in costs.nan_to_num(0, 0, 0).cpu().numpy()]  # sync
        matched.append(torch.from_numpy(np.stack(found)).to(pixels.device))
    return torch.cat(matched, dim=1)


def pair_costs(probabilities: Tensor, masks: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Return what each pair of a query and a segment costs.

    Shape: probabilities of the segments' classes `[S, Q, n]`, masks' logits `[S, Q, P]`, which points belong to the
    segments and which count `[n, P]` to `[S, Q, n]`.
    """
    entropy = (F.softplus(masks) @ counts.T - masks @ truth.T) / counts.sum(1).clamp(min=1)
    inside = masks.sigmoid()
    dice = 1 - (2 * inside @ truth.T + 1) / (inside @ counts.T + truth.sum(1) + 1)
    return WEIGHTS["class"] * -probabilities + WEIGHTS["mask_bce"] * entropy + WEIGHTS["mask_dice"] * dice
