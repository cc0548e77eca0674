"""An exponential moving average of a network's weights and statistics."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


class ModelEma:
    """A copy of a network whose weights follow the trained one's: average += (1 - decay) * (weights - average).

    The first steps use a smaller decay, (1 + steps) / (10 + steps), so that the random beginning does not linger.
    BatchNorm's statistics are averaged like the weights they belong to; whole numbers are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Copy the network as it is."""
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Follow the network by one optimizer step. No device sync."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floats], [theirs[n] for n in floats], 1 - decay)
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])
