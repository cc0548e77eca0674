"""Logits as integer keys in their order, so fine that between the keys of two 16-bit numbers at least one is free.

Unlike bins of equal width, keys by floating point keep apart the many probabilities near 0 and 1 that a trained network
gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

_BITS = 12
"""Of the mantissa that a key keeps. A float16 has 10, a bfloat16 7."""
_DROPPED = 23 - _BITS
_SMALLEST = 2.0**-14
"""Logits much nearer to 0 have keys in equal steps."""
LARGEST = 65504.0
"""The largest finite float16. Logits beyond it count as it."""
_ZERO = int(torch.tensor(_SMALLEST).view(torch.int32)) >> _DROPPED
_TOP = 30 << _BITS
KEYS = 2 * _TOP + 3
"""Of which the last is that of NaN."""
BROKEN, UNCOUNTED = KEYS - 1, 0
"""The key of NaN, and one that no logit has."""


def keys_of(logits: Tensor) -> Tensor:
    """Return int32 keys, 1 to KEYS - 1, that order as float32 logits do; 0 and -0 have the same, NaN has the last."""
    finite = logits.clamp(-LARGEST, LARGEST)
    # Adding the smallest lets the numbers below it, whose exponents continue and on, share one exponent.
    code = (finite.abs() + _SMALLEST).view(torch.int32)
    code += 1 << (_DROPPED - 1)
    code >>= _DROPPED
    code -= _ZERO
    sign = finite.view(torch.int32) >> 31  # 0, or -1 where the logit is negative
    code ^= sign
    code -= sign
    code += _TOP + 1
    return code.masked_fill_(finite.isnan(), BROKEN)


def own_logits(task: Task, logits: Tensor) -> Tensor:
    """Return the logit of each class's own probability p, log p - log(1 - p), float32 of the same shape.

    Of a softmax it is the class's logit less the logsumexp of the others. It is computed without p, which rounds to 1
    where a network is sure.

    Shape: `[B, K, ...]` to the same.
    """
    logits = logits.float()
    if task.mode != "multiclass":
        return logits
    top, which = logits.max(dim=1, keepdim=True)
    others = logits.scatter(1, which, -torch.inf)
    second = others.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
    shares = (others - second).exp_()
    rest = shares.sum(1, keepdim=True)
    without_own = (rest - shares).mul_((second - top).exp()).clamp_(min=0).log1p_()
    return (logits - top).sub_(without_own).scatter_(1, which, top - second - rest.log())
