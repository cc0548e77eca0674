"""Activation checkpointing: the same step to the last bit, with less kept for it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from segreg.config.resolve import choose
from segreg.errors import SegregError
from segreg.models.checkpointing import checkpoint_activations


def step(encoder):
    """Take a training step, and return the bytes that were kept for it, without the weights."""
    kept, weights = {}, {p.untyped_storage().data_ptr() for p in encoder.parameters()}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = sum(level.square().mean() for level in encoder(torch.randn(2, 3, 64, 64)))
    loss.backward()
    torch.optim.SGD(encoder.parameters(), lr=0.1).step()
    return sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize(
    ("name", "kinds", "share"),
    [
        ("timm/test_vit", {"Block": 6}, 0.25),
        ("timm/test_convnext", {"ConvNeXtBlock": 8, "ConvNeXtStage": 1}, 0.4),
        ("torchvision/mobilenet_v3_small", {"InvertedResidual": 11}, 0.4),
        ("densenet121", {"_DenseLayer": 58}, 0.25),
    ],
)
def test_a_step_is_the_same_and_keeps_less(name, kinds, share, builtin):
    torch.manual_seed(0)
    encoder = choose("encoder", name, {}, builtin).build(3).train()
    for module in list(encoder.modules()):
        if hasattr(module, "drop_path1"):
            module.drop_path1 = nn.Dropout(0.5)
    checkpointed = copy.deepcopy(encoder)
    assert checkpoint_activations(checkpointed) == sum(kinds.values())
    checkpointed = copy.deepcopy(checkpointed)  # as for a moving average
    found = [type(module).__name__ for module in checkpointed.modules() if "forward" in vars(module)]
    assert {kind: found.count(kind) for kind in kinds} == kinds
    before, after = step(encoder), step(checkpointed)
    assert all(map(torch.equal, encoder.state_dict().values(), checkpointed.state_dict().values()))
    assert 0 < after < share * before
    with torch.no_grad():
        for one, other in zip(
            encoder.eval()(torch.ones(1, 3, 64, 64)), checkpointed.eval()(torch.ones(1, 3, 64, 64)), strict=True
        ):
            assert torch.equal(one, other)


def test_synchronised_batch_norm_is_counted_once():
    """PyTorch's needs no other process where there is none."""
    torch.manual_seed(0)
    plain = nn.Sequential(*(Normed() for _ in range(2)))
    checkpointed = copy.deepcopy(plain)
    checkpoint_activations(checkpointed)
    image = torch.randn(2, 3, 4, 4)
    for network in (plain, checkpointed):
        network(image).square().sum().backward()
    assert all(map(torch.equal, plain.state_dict().values(), checkpointed.state_dict().values()))
    assert checkpointed[0].layers[1].num_batches_tracked == 1
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.SyncBatchNorm(3))

    def forward(self, x):
        return self.layers(x)


class Careless(nn.Module):
    """A block that changes what it is given."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1))

    def forward(self, x):
        return self.layers(x)


def test_what_can_not_be_computed_again_is_an_error():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(Careless(), Careless()))
    checkpoint_activations(network)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        network(torch.randn(1, 3, 4, 4)).sum().backward()
    with pytest.raises(SegregError, match=r"train\.checkpoint_activations: Sequential has no blocks"):
        checkpoint_activations(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
