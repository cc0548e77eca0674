"""BatchNorm with the statistics of the whole batch where several GPUs share it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from segreg.errors import SegregError

if TYPE_CHECKING:
    import torch
    from torch import nn


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Make each BatchNorm in a network, in place, PyTorch's SyncBatchNorm; weights, statistics and names stay.

    timm's BatchNorm keeps the activation that it brings.

    Raises:
        SegregError: the device is not a GPU, or a BatchNorm is of a kind that would compute something else afterwards.
    """
    from timm.layers import convert_sync_batchnorm
    from torch.nn.modules.batchnorm import _BatchNorm

    if device.type != "cuda":
        raise SegregError(
            f'train.sync_batch_norm needs GPUs: PyTorch has no such BatchNorm for "{device.type}"',
            hint="leave it out; each process then normalises with the statistics of its own share of the batch",
        )
    first_of_its_kind: dict[type, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            first_of_its_kind.setdefault(type(module), module)
    for kind, module in first_of_its_kind.items():
        if not _computes_the_same(module, convert_sync_batchnorm(copy.deepcopy(module))):
            raise SegregError(f"train.sync_batch_norm: {kind.__module__}.{kind.__name__} can't be synchronised")
    convert_sync_batchnorm(model)


def _computes_the_same(norm: nn.Module, other: nn.Module) -> bool:
    """Whether two layers agree where they take their running statistics, which needs no other process."""
    import torch

    for size in ((4, 4), (4,), (4, 4, 4)):  # of two dimensions, one and three
        image = torch.linspace(-3, 3, 2 * int(norm.num_features) * 4 ** len(size)).view(2, -1, *size)  # type: ignore[arg-type]
        try:
            mine = copy.deepcopy(norm).cpu().eval()(image)
        except ValueError:  # not of these dimensions
            continue
        return torch.allclose(mine, copy.deepcopy(other).cpu().eval()(image), atol=1e-5)
    return False
