from __future__ import annotations

import pytest
import torch
from torch import nn

from segreg.training.averages import ModelEma
from segreg.training.setup import set_batch_norm_momentum


@pytest.mark.parametrize("decay", [0.0, 0.7, 0.9999])
def test_the_average_follows_its_formula(decay):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    average = ModelEma(network, decay)
    expected = {name: t.double() for name, t in network.state_dict().items()}
    for step in range(1, 40):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn_like(p))
            network(torch.randn(2, 1, 5, 5))
        average.update(network)
        used = min(decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            expected[name] = used * expected[name] + (1 - used) * tensor.double()
    result = average.network.state_dict()
    assert result.pop("1.num_batches_tracked") == 39
    for name, tensor in result.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in average.network.parameters())
    assert not average.network.training


def test_the_momentum_of_batch_norm_is_set_everywhere_or_nowhere():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm1d(2, momentum=0.01)))

    def momenta():
        return [m.momentum for m in network.modules() if hasattr(m, "momentum")]

    set_batch_norm_momentum(network, None)
    assert momenta() == [0.1, 0.01]
    set_batch_norm_momentum(network, 0.0003)  # the DeepLab papers' decay of 0.9997
    assert momenta() == [0.0003, 0.0003]
    network[0].train()(torch.full((1, 2, 2, 2), 10.0))
    torch.testing.assert_close(network[0].running_mean, torch.full((2,), 10 * 0.0003))
