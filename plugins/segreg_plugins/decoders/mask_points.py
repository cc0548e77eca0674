"""At which points masks are compared: PointRend's sampling (arXiv:1912.08193), as Mask2Former trains by it.

Points are x and y in [0, 1), of the whole map: 0 is its border, not the centre of its first pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segreg_plugins.decoders.mask_segments import Segments

DRAWN = 3
"""Points that are drawn for each one that is taken."""
UNCERTAIN = 0.75
"""Share of the points that are taken for their uncertainty; the others are random."""


def sampled(maps: Tensor, points: Tensor) -> Tensor:
    """Return maps at points, bilinearly; beyond the outermost pixels' centres, as they are.

    (With the authors' zeros around a map, every mask would be uncertain at the image's border.)

    Shape: maps `[M, C, h, w]` and points `[M, P, 2]` to `[M, C, P]`.
    """
    return F.grid_sample(maps, 2 * points[:, None] - 1, padding_mode="border", align_corners=False)[:, :, 0]


def of_segments(masks: Tensor, points: Tensor) -> Tensor:
    """Return each mask at its own points.

    Shape: masks `[S, N, h, w]` and points `[S, N, P, 2]` to `[S, N, P]`.
    """
    return sampled(masks.flatten(0, 1)[:, None], points.flatten(0, 1)).view(points.shape[:3])


@torch.no_grad()
def uncertain_points(masks: Tensor, segments: Segments, count: int) -> Tensor:
    """Return points of each mask, most of them where its logit is nearest to 0; those that don't count are taken last.

    Shape: logits `[S, N, h, w]` to `[S, N, count, 2]`.
    """
    steps, number = masks.shape[:2]
    drawn = torch.rand(steps, number, DRAWN * count, 2, device=masks.device)
    _, counts = segments.at(drawn)
    distance = of_segments(masks, drawn).abs().masked_fill(counts == 0, torch.inf)
    nearest = distance.topk(int(UNCERTAIN * count), dim=2, largest=False).indices
    chosen = drawn.gather(2, nearest[..., None].expand(-1, -1, -1, 2))
    return torch.cat([chosen, torch.rand(steps, number, count - chosen.shape[2], 2, device=masks.device)], dim=2)
