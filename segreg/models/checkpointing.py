"""Activation checkpointing: an encoder's blocks keep their input alone, and compute the rest again (arXiv:1604.06174).

What a block has computed in the forward pass is computed once more in the backward pass. torch restores the random
numbers for it, so that dropout draws the same ones, and BatchNorm's running statistics are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from segreg.errors import SegregError

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_activations(encoder: Any) -> int:
    """Let each block of an encoder keep its input alone while it trains, in place; return the number of blocks.

    Raises:
        SegregError: there are no blocks to be found.
    """
    found = blocks(encoder)
    if len(found) < 2:
        raise SegregError(
            f"train.checkpoint_activations: {type(encoder).__name__} has no blocks that follow one another in a "
            "Sequential, a ModuleList or a ModuleDict",
            hint="leave it out; a smaller batch with train.accumulate needs less memory too",
        )
    for block in found:
        block.forward = partial(_checkpointed, block)  # an attribute, which copies of the network get too
    return len(found)


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the modules with layers of their own that stand in containers, and of those that repeat one the repeated.

    So a Swin or a ConvNeXt is divided into its blocks, not into its stages.
    """
    found = []
    for child in module.children():
        found += [child] if _in_container(module, child) and not _repeats(child) else blocks(child)
    return found


def _in_container(module: nn.Module, child: nn.Module) -> bool:
    """Whether a module is a block: in a container, none itself, with layers inside."""
    whole = not isinstance(child, _CONTAINERS) and any(child.children())
    return isinstance(module, _CONTAINERS) and whole and any(True for _ in child.parameters())


def _repeats(stage: nn.Module) -> bool:
    """Whether two blocks with the same parameters follow one another somewhere in it."""
    for container in stage.modules():
        inside = [child for child in container.children() if _in_container(container, child)]
        if any(_shapes(one) == _shapes(other) for one, other in pairwise(inside)):
            return True
    return False


def _shapes(block: nn.Module) -> list[Any]:
    return [type(block), *((name, parameter.shape) for name, parameter in block.named_parameters())]


def _checkpointed(block: nn.Module, *given: Any, **named: Any) -> Any:
    """Return what a block gives; in training it keeps no more than what it was given."""
    forward = partial(type(block).forward, block)
    if not block.training or not torch.is_grad_enabled():
        return forward(*given, **named)
    # DenseNet's blocks are given a list that grows afterwards.
    kept = (list(each) if isinstance(each, list) else each for each in given)
    return checkpoint(
        forward, *kept, use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_left(block)),  # around the first pass, and the second
        **named,
    )  # fmt: skip


@contextmanager
def _statistics_left(block: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch, and take nothing of it into its running statistics."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(module, module.momentum, module.num_batches_tracked) for module in norms]
    try:
        for module, _, count in before:
            # SyncBatchNorm wants something to count in.
            module.momentum, module.num_batches_tracked = 0.0, None if count is None else count.clone()
        yield
    finally:
        for module, momentum, count in before:
            module.momentum, module.num_batches_tracked = momentum, count
