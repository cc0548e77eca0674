"""Run a network on shapes alone, without computing values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.func import functional_call


def meta_forward(network: nn.Module, channels: int, size: tuple[int, int]) -> Any:
    """Return the network's output for an image `[1, channels, *size]` on the meta device: shapes and no values."""
    # Tying would swap a layer that occurs twice two times, and put back what it was given the first time.
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    image = torch.empty(1, channels, *size, device="meta")
    with torch.no_grad():
        return functional_call(network, shapes, (image,), tie_weights=False)
