"""BatchNorm that also trains where a channel has a single value, as after image pooling on a batch of one image.

A single value is its own mean and has no variance, so PyTorch refuses it and torchvision's and SMP's DeepLabs can't be
trained on one image. Here such a batch is normalised with the running statistics, which it leaves as they are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's BatchNorm2d, which falls back on its running statistics where a channel has one value.

    Everything else, parameters, buffers and names included, is PyTorch's.

    Shape: `[B, C, H, W]` to the same.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, the name is torch's
        """Gives the normalised features."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def with_single_values(network: nn.Module) -> nn.Module:
    """Gives the network with each plain `nn.BatchNorm2d` in it replaced, in place; its numbers and keys stay."""
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                norm = BatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm)
    return network
