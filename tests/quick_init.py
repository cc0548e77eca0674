"""Networks whose weights are random as ever, but drawn once for all: a ResNet-50 in a fifth of the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import torch
from torch import Tensor

SMALL = 4096
"""Tensors of fewer numbers are drawn as ever."""


@cache
def _pool(kind: str) -> Tensor:
    draw = {"normal": torch.randn, "uniform": torch.rand}[kind]
    return draw(2**20 + 2**12, generator=torch.Generator().manual_seed(0))


def _fill(kind: str, drawn, tensor: Tensor, first: float = 0.0, second: float = 1.0, generator=None) -> Tensor:
    """Copy a piece of the pool that torch's seed chooses; the arguments are those of `normal_` and `uniform_`."""
    if tensor.device.type == "meta":  # where torch derives in Python what there is nothing to draw for
        return tensor
    count = tensor.numel()
    if count < SMALL or tensor.device.type != "cpu" or not tensor.is_contiguous() or not tensor.is_floating_point():
        return drawn(tensor, first, second, generator=generator)
    pool = _pool(kind)
    start = int(torch.randint(2**12, (), generator=generator))
    for piece in tensor.view(-1).split(2**20):
        piece.copy_(pool[start : start + len(piece)])
    return tensor.mul_(second if kind == "normal" else second - first).add_(first)


@contextmanager
def quick_init() -> Iterator[None]:
    """Let torch's initialisers, and those that build on them, copy numbers in place of drawing them.

    For tests to which it is all the same which random numbers a network has. The seed still decides.
    """
    normal, uniform = Tensor.normal_, Tensor.uniform_

    def normal_(tensor, mean=0.0, std=1.0, *, generator=None):
        return _fill("normal", normal, tensor, mean, std, generator)

    def uniform_(tensor, low=0.0, high=1.0, *, generator=None, **named):
        return _fill("uniform", uniform, tensor, named.get("from", low), named.get("to", high), generator)

    @torch.no_grad()
    def trunc_normal_(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, generator=None):
        return tensor.normal_(mean, std, generator=generator).clamp_(a, b)

    with (
        mock.patch.object(Tensor, "normal_", normal_),
        mock.patch.object(Tensor, "uniform_", uniform_),
        mock.patch.object(torch.nn.init, "trunc_normal_", trunc_normal_),
    ):
        yield
