"""Checks of optimizers: they go downhill, obey the rate that they are given, and resume exactly."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segreg.errors import listed
from segreg.testing.check import Rule
from segreg.testing.subject import Broken, Subject, doing, saved_and_loaded

STEPS = 60
NEARLY = 0.01
"""What is left of a step at a rate of 0, as a share of one at the full rate: some add a tiny number to it."""


def it_can_be_built(subject: Subject) -> None:
    """Its builder gives a torch.optim.Optimizer."""
    optimizer = subject.try_to_build(_groups(_network()))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise Broken(f"it gives {type(optimizer).__name__}, which is not a torch.optim.Optimizer")


def groups_keep_their_names(subject: Subject) -> None:
    """Its parameter groups have the names, the parameters and a weight decay of their own that it was given."""
    network = _network()
    groups = _groups(network)
    groups[-1]["weight_decay"] = 0.0  # of "head"
    optimizer = subject.built([dict(group) for group in groups])
    found = [group.get("name") for group in optimizer.param_groups]
    if set(found) != {group["name"] for group in groups}:
        wanted = listed([group["name"] for group in groups])
        raise Broken(f"it was given groups named {wanted}, and has {listed([str(name) for name in found])}")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if lost := [name for name, p in network.named_parameters() if id(p) not in held]:
        raise Broken(f"it was given {listed(lost)}, and does not have them")
    decays = [group.get("weight_decay", 0) for group in optimizer.param_groups if group["name"] == "head"]
    if any(decays):
        raise Broken(f"it was given a group with a weight_decay of 0, and gives it {max(decays):g}")


def it_goes_downhill(subject: Subject) -> None:
    """It lowers a quadratic."""
    network = _network()
    optimizer = subject.built(_groups(network))
    with doing("stepping without a closure"):
        costs = _descend(network, optimizer, STEPS)
    if not all(torch.isfinite(torch.tensor(costs))):
        raise Broken("minimising a quadratic, it gives numbers that are not finite")
    if not costs[-1] < costs[0]:
        raise Broken(f"{STEPS} steps on a quadratic bring it from {costs[0]:.4g} to {costs[-1]:.4g}")


def the_rate_is_obeyed(subject: Subject) -> None:
    """With a group's `lr` at 0 its weights stay, or nearly, where its own rate moves them."""
    moved = []
    for factor in (1.0, 0.0):
        network = _network()
        optimizer = subject.built(_groups(network))
        for group in optimizer.param_groups:
            if "lr" not in group:
                raise Broken('a parameter group has no "lr"')
            group["lr"] = group["lr"] * factor
        before = [p.detach().clone() for p in network.parameters()]
        _descend(network, optimizer, 3)
        moved.append(
            sum(float((a - b.detach()).abs().sum()) for a, b in zip(before, network.parameters(), strict=True))
        )
    if moved[1] > NEARLY * moved[0]:
        share = moved[1] / moved[0] if moved[0] else float("inf")
        raise Broken(f"with a group's lr at 0 it moves weights all the same, {share:.0%} of the way")


def weights_without_gradient_stay(subject: Subject) -> None:
    """What has no gradient, as a frozen encoder, stays as it is."""
    network = _network()
    optimizer = subject.built(_groups(network))
    for p in network[0].parameters():
        p.requires_grad_(False)
    before = [p.detach().clone() for p in network[0].parameters()]
    with doing("stepping where some weights have no gradient"):
        _descend(network, optimizer, 3)
    if any(not torch.equal(a, b) for a, b in zip(before, network[0].parameters(), strict=True)):
        raise Broken("it moves weights that have no gradient")


def it_goes_on_where_it_stopped(subject: Subject) -> None:
    """A new one that loads its saved state takes the very same steps."""
    network = _network()
    optimizer = subject.built(_groups(network))
    _descend(network, optimizer, 5)
    state = saved_and_loaded(optimizer.state_dict())
    weights = copy.deepcopy(network.state_dict())
    torch.manual_seed(5)
    _descend(network, optimizer, 5)
    other = _network()
    other.load_state_dict(weights)
    again = subject.built(_groups(other))
    with doing("loading its saved state into a new one"):
        again.load_state_dict(state)
    torch.manual_seed(5)
    _descend(other, again, 5)
    if any(not torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True)):
        raise Broken("a new one that loaded its state takes other steps")


def _network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 1))


def _groups(network: nn.Sequential) -> list[dict[str, Any]]:
    return [
        {"params": list(part.parameters()), "name": name}
        for part, name in zip(network, ("encoder", "head"), strict=True)
    ]


def _descend(network: nn.Module, optimizer: Any, steps: int) -> Sequence[float]:
    """Take steps towards weights that are all 0.5, and return what each cost before it was taken."""
    costs = []
    for _ in range(steps):
        cost: Tensor = torch.stack([(p - 0.5).square().sum() for p in network.parameters()]).sum()
        costs.append(float(cost.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(cost)
        optimizer.step()
    return costs


RULES = (
    Rule(it_can_be_built, "the training steps, saves and loads it as torch's"),
    Rule(groups_keep_their_names, "train.lr_factors and the history know the parts of a network by these names"),
    Rule(it_goes_downhill, "this is what an optimizer is for"),
    Rule(the_rate_is_obeyed, "schedules and train.lr_factors steer by a group's lr and by nothing else"),
    Rule(weights_without_gradient_stay, "train.freeze_encoder_epochs freezes the encoder under it"),
    Rule(it_goes_on_where_it_stopped, "a run that was stopped continues as if it had not been"),
)
