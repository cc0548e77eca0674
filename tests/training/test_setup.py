from __future__ import annotations

import pytest
import torch
from torch import nn

from segreg.errors import SegregError
from segreg.training.setup import ModelEma, parameter_groups, scale_rates, set_batch_norm_momentum
from tiny_training import TinyNet


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


def test_every_parameter_is_in_one_group():
    network = TinyNet(auxiliary=True)
    network.head.weight = network.auxiliary.weight  # shared between two components
    network.extra = nn.Parameter(torch.zeros(2))
    network.encoder[0].bias.requires_grad_(False)
    groups = parameter_groups(network, {"head": 2.0})
    assert [group["name"] for group in groups] == ["encoder", "decoder", "head", "auxiliary", "other"]
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in network.parameters() if p.requires_grad}
    assert groups[-1]["params"][0] is network.extra
    optimizer = torch.optim.SGD(groups, lr=0.5)
    scale_rates(optimizer, {"head": 2.0})
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5, 1.0, 0.5, 0.5]


def test_an_optimizer_that_drops_the_names_can_not_have_factors():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    scale_rates(optimizer, {})
    assert optimizer.param_groups[0]["name"] == "0"
    with pytest.raises(SegregError, match="SGD regroups the parameters"):
        scale_rates(torch.optim.SGD([torch.zeros(1)], lr=0.5), {"encoder": 0.1})


def test_a_network_without_parameters_is_refused():
    network = TinyNet().requires_grad_(False)
    with pytest.raises(SegregError, match="no parameter to train"):
        parameter_groups(network, {})


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
