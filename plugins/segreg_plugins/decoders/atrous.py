"""Atrous 3x3 convolutions without their dead taps: those that see nothing but zero padding, because the map is small.

A tap at offset `rate` is dead where the map is not larger than `rate`, and else lives on a part of the map: at rate
12 on 16x16, on a rim of 4 pixels. What is left out is multiplied by zero, so the result is the ordinary convolution's
but for the order of its sums. `way` alone decides what is computed how.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Way = Literal["ordinary", "live", "shifted"]
Kind = Literal["dense", "depthwise"]


def way(height: int, width: int, rate: int, *, kind: Kind, dtype: torch.dtype, device: str, cpu: str) -> Way:
    """Return how a 3x3 convolution of that rate is computed on a map of that size: the quickest way that was measured.

    * "ordinary": as torch does.
    * "live": a convolution with the centre of the kernel alone, a plain 1x1, where no other tap sees the map. Dense
      ones only, whose work shrinks with the kernel.
    * "shifted": each live tap multiplies the part of the map that it sees. Depthwise ones on CPUs, where a
      dilated depthwise convolution is far from what the memory allows. LIMITS says up to which share of live
      products that was measured to pay.

    Args:
        height: of the map, in its pixels.
        width: likewise.
        rate: distance of the taps, in pixels of the map.
        kind: whether every channel sees all channels, or each its own.
        dtype: that the convolution computes in, under autocast autocast's.
        device: type of the device, such as "cpu".
        cpu: what `torch.backends.cpu.get_cpu_capability()` says.
    """
    if kind == "dense":
        return "live" if rate >= max(height, width) else "ordinary"
    limit = LIMITS.get(cpu, 0.0) if device == "cpu" and dtype in (torch.float32, torch.bfloat16) else 0.0
    return "shifted" if live_share(height, width, rate) <= limit else "ordinary"


# The largest share of live products that is computed as shifted multiples, by CPU.
# AVX2: rates 6, 12 and 18 on 8x8 and 16x16, forward and backward with 512 channels: 3 to 12 times as quick in float32
# with channels last, 1.7 times and more without, more in (emulated) bf16. Rate 6 on 16x16 has a share of 0.5625.
# AVX512: an earlier form of the sum, in whole training steps with rates 12, 24 and 36 on 16x16, of which rate 12 has
# 0.25: 1.36 times as quick in bf16, 1.03 times in float32.
LIMITS = {"AVX2": 0.6, "AVX512": 0.25}

CPU = torch.backends.cpu.get_cpu_capability()


def live_share(height: int, width: int, rate: int) -> float:
    """Return the share of a 3x3 convolution's products that are not with padding: 1/9 where the centre alone lives."""
    rows, columns = (1 + 2 * max(0, size - rate) / size for size in (height, width))
    return rows * columns / 9


class AtrousConv2d(nn.Conv2d):
    """PyTorch's Conv2d for an atrous 3x3 convolution that keeps the size, which leaves out dead taps where that pays.

    Parameters and their names are PyTorch's. Where sizes are not known before the network runs (traced by
    `torch.jit.trace`, exported with dynamic shapes), and where a bias was folded in, it is the ordinary convolution.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        rate: distance of the taps; dilation and padding.
        groups: 1, or `in_channels` for a depthwise convolution.

    Shape: `[B, in_channels, h, w]` to `[B, out_channels, h, w]`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, rate: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, padding=rate, dilation=rate, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolved map."""
        height, width = input.shape[-2:]
        depthwise = self.groups == self.in_channels == self.out_channels
        if self.bias is None and (depthwise or self.groups == 1) and sizes_are_known(height, width):
            kind: Kind = "depthwise" if depthwise else "dense"
            dtype = computed_in(input)
            rate = self.dilation[0]
            chosen = way(height, width, rate, kind=kind, dtype=dtype, device=input.device.type, cpu=CPU)
            if chosen == "live":
                return live_taps(input, self.weight, rate)
            if chosen == "shifted":
                return shifted_multiples(input.to(dtype), self.weight.to(dtype), rate)
        return super().forward(input)


def sizes_are_known(height: int, width: int) -> bool:
    """Whether a graph that is made now may depend on these sizes; without a graph they are always known."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import has_static_value

        return bool(has_static_value(height) and has_static_value(width))
    return True


def computed_in(features: Tensor) -> torch.dtype:
    """Return the precision that a convolution of these features computes in."""
    device = features.device.type
    # Tensors of shapes alone ("meta") know no autocast.
    known = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if known and features.is_floating_point() and features.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return features.dtype


def live_taps(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Return the convolution with the middle row of taps alone where the others are dead, and likewise the column."""
    height, width = features.shape[-2:]
    across, along = (slice(1, 2) if rate >= size else slice(None) for size in (height, width))
    padding, dilation = zip(*((0, 1) if rate >= size else (rate, rate) for size in (height, width)), strict=True)
    groups = features.shape[1] // weight.shape[1]
    return F.conv2d(features, weight[:, :, across, along], padding=padding, dilation=dilation, groups=groups)


def shifted_multiples(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """Return the depthwise convolution as a sum over its live taps, features and weight being of one precision.

    Shape: `[B, C, h, w]` and `[C, 1, 3, 3]` to `[B, C, h, w]`.
    """
    result: Tensor = _ShiftedMultiples.apply(features, weight, rate)
    return result


class _ShiftedMultiples(torch.autograd.Function):
    """The sum with its gradients, which torch would compute on the whole map for every tap."""

    @staticmethod
    def forward(features: Tensor, weight: Tensor, rate: int) -> Tensor:
        wide = _adds_in(features.dtype)
        factors = weight.to(wide).flatten(1)[..., None, None]
        total = features.to(wide) * factors[:, 4]
        for tap, there, here in live_parts(features.shape[-2], features.shape[-1], rate):
            if tap != 4:
                total[there].addcmul_(features[here].to(wide), factors[:, tap])
        return total.to(features.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205, ARG004, torch's
        features, weight, ctx.rate = inputs
        ctx.save_for_backward(features, weight)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205, torch's
        features, weight = ctx.saved_tensors
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            of_features = shifted_multiples(gradient, weight.flip(2, 3), ctx.rate)
        if ctx.needs_input_grad[1]:
            wide = _adds_in(features.dtype)
            sums = [torch.zeros_like(weight[:, 0, 0, 0])] * 9
            for tap, there, here in live_parts(features.shape[-2], features.shape[-1], ctx.rate):
                sums[tap] = (gradient[there].to(wide) * features[here].to(wide)).sum((0, 2, 3)).to(weight.dtype)
            of_weight = torch.stack(sums, dim=1).view_as(weight)
        return of_features, of_weight, None


def _adds_in(dtype: torch.dtype) -> torch.dtype:
    """Return the format that sums are made in: 16 bits are too few."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


Part = tuple[slice, slice, slice, slice]  # of a map: images, channels, rows, columns


def live_parts(height: int, width: int, rate: int) -> list[tuple[int, Part, Part]]:
    """Return each live tap's number, 0 to 8 by rows, with where it adds to the result and what of the map it sees."""
    parts: list[tuple[int, Part, Part]] = []
    for tap in range(9):
        down, right = (tap // 3 - 1) * rate, (tap % 3 - 1) * rate
        if abs(down) < height and abs(right) < width:
            (row, row_seen), (column, column_seen) = _shifted(height, down), _shifted(width, right)
            everything = slice(None)
            parts.append((tap, (everything, everything, row, column), (everything, everything, row_seen, column_seen)))
    return parts


def _shifted(size: int, offset: int) -> tuple[slice, slice]:
    """Return where along one direction a tap at `offset` adds, and what it sees there."""
    inside = size - abs(offset)
    start = max(0, -offset)
    return slice(start, start + inside), slice(start + offset, start + offset + inside)


def leave_out_dead_taps(network: nn.Module) -> nn.Module:
    """Return the network with each atrous 3x3 convolution that keeps the size replaced, in place; its keys stay.

    For networks of other libraries. Their numbers then are the same to rounding, no longer bit for bit.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is nn.Conv2d and _is_atrous(child):
                atrous = AtrousConv2d(
                    child.in_channels, child.out_channels, rate=int(child.dilation[0]), groups=child.groups
                )
                atrous.weight = child.weight
                setattr(module, name, atrous.train(child.training))
    return network


def _is_atrous(layer: nn.Conv2d) -> bool:
    rate = layer.dilation[0]
    square = layer.kernel_size == (3, 3) and layer.stride == (1, 1) and layer.dilation == (rate, rate)
    return (
        rate > 1 and square and layer.padding == (rate, rate) and layer.padding_mode == "zeros" and layer.bias is None
    )
