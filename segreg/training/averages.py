"""Averages of a network's weights over training, which are validated and saved in its place.

SWA: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, arXiv:1803.05407, averaged
after each epoch. Departure: BatchNorm's statistics are measured anew after each of them rather than once in the end, so
that what is validated is what is saved; dropout is off in that pass.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from segreg.training.loss import Objective


class ModelEma:
    """A copy of a network whose weights follow the trained one's: average += (1 - decay) * (weights - average).

    The first steps use a smaller decay, (1 + steps) / (10 + steps), so that the random beginning does not linger.
    BatchNorm's statistics are averaged like the weights they belong to; integers are copied.
    """

    def __init__(self, network: Objective, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
        self.decay = decay
        self.steps = 0

    def update(self, network: nn.Module) -> None:
        """Follow the network by one optimizer step. No device sync."""
        self.steps += 1
        move(self.network, network, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)))


class ModelSwa:
    """A copy of a network whose weights are the mean of the trained one's after each epoch from `start` on.

    Attributes:
        steps: how many epochs it is the mean of.
    """

    def __init__(self, network: Objective, start: int) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
        self.start = start
        self.steps = 0

    def update(self, network: Objective, images: Iterable[Tensor]) -> None:
        """Take in the weights after an epoch, and measure BatchNorm's statistics, unless they are frozen, on images."""
        self.steps += 1
        move(self.network, network, 1 / self.steps)
        pairs = zip(self.network.modules(), network.modules(), strict=True)
        trained = [mine for mine, theirs in pairs if isinstance(mine, _BatchNorm) and theirs.training]
        measure_batch_norm(self.network, trained, images)


@torch.no_grad()
def move(network: nn.Module, towards: nn.Module, share: float) -> None:
    """Move the weights and buffers of a network by a share of the way to another's, in place; integers are copied."""
    mine, theirs = network.state_dict(), towards.state_dict()
    # A layer that stands in two places of a network has two names and moves once.
    places = {(t.data_ptr(), t.shape): name for name, t in mine.items() if t.is_floating_point()}
    names = places.values()
    torch._foreach_lerp_([mine[n] for n in names], [theirs[n] for n in names], share)
    for name, tensor in mine.items():
        if not tensor.is_floating_point():
            tensor.copy_(theirs[name])


@torch.no_grad()
def measure_batch_norm(network: Objective, layers: Sequence[_BatchNorm], images: Iterable[Tensor]) -> None:
    """Set the running statistics of BatchNorms of a network to the mean of those of batches, in place.

    One that no batch has any for, as where a channel has a single value, keeps its own.

    Shape: batches of images `[B, C, H, W]` before normalisation.
    """
    if not layers:
        return
    before = [(layer.momentum, copy.deepcopy(layer.state_dict())) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # every batch counts alike
        layer.train()
    for batch in images:
        network.model.supervised(network.normalize(batch), None)
    for layer, (momentum, state) in zip(layers, before, strict=True):
        layer.momentum = momentum
        if not layer.num_batches_tracked:  # sync
            layer.load_state_dict(state)
    network.eval()
