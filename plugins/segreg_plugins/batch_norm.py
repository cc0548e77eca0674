"""BatchNorm that also trains where a channel has a single value, as after image pooling on a batch of one image.

A single value is its own mean and has no variance, so PyTorch refuses it, and torchvision's and SMP's DeepLabs and
encoders that weigh their channels by normalised means (ResNeSt, SKNet, ReXNet) can't be trained on one image. Here such
a batch is normalised with the running statistics, which it leaves as they are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's BatchNorm2d, which falls back on its running statistics where a channel has one value.

    Everything else, parameters, buffers and names included, is PyTorch's.

    Shape: `[B, C, H, W]` to the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised features."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def with_single_values(network: nn.Module) -> nn.Module:
    """Return the network with each plain `nn.BatchNorm2d` in it become one that takes a single value, in place.

    The modules stay the same objects, so that numbers, keys, devices and hooks on them stay.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm2d
    return network
