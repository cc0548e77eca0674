"""Logits as 65,536 integer keys in their order: the bits of the nearest float16, turned so that they can be compared.

A histogram over these keys forgets only what float16 can't tell apart. Unlike bins of equal width it keeps apart the
many probabilities near 0 and 1 that a trained network gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

KEYS = 1 << 16
LARGEST = 65504.0
"""The largest finite float16."""
FIRST, LAST = 1024, KEYS - 1025
"""The keys of -LARGEST and LARGEST. What lies beyond are NaN."""


def keys_of(logits: Tensor) -> Tensor:
    """Gives int32 keys, 0 to 65535, that order as the logits do; 0 and -0 have the same.

    Infinite logits count as the largest finite ones.
    """
    nearest = logits.float().clamp(-LARGEST, LARGEST).half() + 0.0  # adding 0 turns -0 into 0
    bits = nearest.view(torch.int16).to(torch.int32)
    return torch.where(bits >= 0, bits + KEYS // 2, -1 - bits)


def logits_of_keys(device: torch.device) -> Tensor:
    """Gives the logit of each key, float64 `[65536]`, ascending; finite for the keys of NaN too."""
    keys = torch.arange(KEYS, dtype=torch.int32, device=device)
    bits = torch.where(keys >= KEYS // 2, keys - KEYS // 2, -1 - keys)
    values = bits.to(torch.int16).view(torch.float16).double()
    return values.where(keys >= FIRST, -LARGEST).where(keys <= LAST, LARGEST)


def own_logits(task: Task, logits: Tensor) -> Tensor:
    """Gives the logit of each class's own probability p, log p - log(1 - p), float32 of the same shape.

    Of a softmax it is the class's logit less the logsumexp of the others. It is computed without p, which rounds to 1
    where a network is sure.
    """
    logits = logits.float()
    if task.mode != "multiclass":
        return logits
    top, which = logits.max(dim=1, keepdim=True)
    is_top = torch.arange(task.channels, device=logits.device).view(1, -1, 1, 1) == which
    others = logits.masked_fill(is_top, -torch.inf)
    shares = (others - top).exp()
    without_own = torch.log1p((shares.sum(1, keepdim=True) - shares).clamp(min=0))
    return torch.where(is_top, top - others.logsumexp(1, keepdim=True), logits - top - without_own)
