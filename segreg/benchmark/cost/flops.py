"""Counts the floating-point operations of a network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segreg.benchmark.matrix.shapes import outlined


def counted_flops(model: nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Return the operations of convolutions and matrix products for one image, a multiply-add counted as two.

    They are counted on shapes alone, without computing; on values where the network can't be run on shapes.

    Args:
        model: the network; it is left in evaluation mode.
        channels: of the image.
        size: height and width of the image in pixels.
    """
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            outlined(model, channels, size)
    except Exception:  # it looks at values on its way
        return _on_values(model, channels, size)
    return int(counter.get_total_flops())


def _on_values(model: nn.Module, channels: int, size: tuple[int, int]) -> int:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    image = torch.zeros(1, channels, *size, device=device)
    fast = torch.backends.mha.get_fastpath_enabled()
    # Attention in one fused kernel has no formula in every version of PyTorch; in single products it has.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())
