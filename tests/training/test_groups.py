"""The optimizer's groups, against timm's own functions, and what excludes weight decay."""

from __future__ import annotations

import re
from functools import partial

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from segreg.config.resolve import choose
from segreg.config.sections import Train
from segreg.errors import SegregError
from segreg.models.segmenter import Segmenter
from segreg.training.groups import build_optimizer, decouples, described, parameter_groups, scale_rates
from segreg_plugins.optimizers import from_timm, from_torch
from tiny_training import TinyNet

ADAMW = partial(from_torch.build, "AdamW", lr=1e-3, weight_decay=0.05)


class Last(nn.Module):
    """A decoder of one convolution, and a token of its own."""

    stride = 4

    def __init__(self, encoder):
        super().__init__()
        self.channels = encoder.channels[-1]
        self.conv = nn.Conv2d(self.channels, self.channels, 1)
        self.token = nn.Parameter(torch.zeros(1, self.channels, 1, 1))

    def forward(self, levels):
        return self.conv(levels[-1]) + self.token

    def no_weight_decay(self):
        return ["token"]


def network(registry, name):
    encoder = choose("encoder", name, {}, registry).build(3)
    return Segmenter(encoder, Last(encoder), 1)


def timms_name(name):
    """Return what the whole model calls a parameter of an encoder."""
    name = name.removeprefix("network.").removeprefix("model.")
    return re.sub(r"^(stem|stages|layers)_(\d+)\.", r"\1.\2.", name)


@pytest.mark.parametrize("member", ["test_vit", "test_convnext", "test_resnet", "swin_tiny_patch4_window7_224"])
def test_layers_and_decay_are_those_of_timm_group_for_group(member, builtin):
    model = network(builtin, f"timm/{member}")
    with torch.device("meta"):
        whole = timm.create_model(member, num_classes=1)
    names = {id(p): name for name, p in whole.named_parameters()}
    here = {timms_name(name) for name, _ in model.encoder.named_parameters()}
    reference = {
        (frozenset(here & {names[id(p)] for p in group["params"]}), group["lr_scale"] * 1e-3, group["weight_decay"])
        for group in param_groups_layer_decay(
            whole, weight_decay=0.05, no_weight_decay_list=getattr(whole, "no_weight_decay", set)(), layer_decay=0.75
        )
    }
    names = {id(p): timms_name(name) for name, p in model.encoder.named_parameters()}
    optimizer = build_optimizer(model, Train(layer_decay=0.75), ADAMW)
    groups = [group for group in optimizer.param_groups if group["name"] == "encoder"]
    ours = {(frozenset(names[id(p)] for p in g["params"]), g["lr"], g["weight_decay"]) for g in groups}
    assert len(groups) == len(ours) > 8
    assert {key: pytest.approx(rest) for key, *rest in ours} == {key: rest for key, *rest in reference if key}
    assert [group["layer"] for group in groups] == sorted(group["layer"] for group in groups)
    others = {(row["component"], row["lr"], row["weight_decay"]) for row in described(optimizer)[len(groups) :]}
    assert others == {(name, 1e-3, decay) for name in ("decoder", "head") for decay in (0.0, 0.05)}
    assert any(p is model.decoder.token for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"])


@pytest.mark.parametrize(("name", "first"), [("resnet18", "network.conv1"), ("torchvision/resnet18", "conv1")])
def test_layers_of_other_libraries_are_their_stages(name, first, builtin):
    model = network(builtin, name)
    optimizer = build_optimizer(model, Train(layer_decay=0.5), partial(from_torch.build, "SGD", lr=1.0))
    groups = [group for group in optimizer.param_groups if group["name"] == "encoder"]
    assert [group["lr"] for group in groups] == [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5]
    for group, stage in zip(groups, [first, *(first.replace("conv1", f"layer{n}") for n in range(1, 5))], strict=True):
        some = dict(model.encoder.named_parameters())
        ids = {id(p) for p in group["params"]}
        inside = {id(p) for n, p in some.items() if n.startswith((f"{stage}.", stage.replace("conv1", "bn1") + "."))}
        assert ids == inside


def test_without_layers_there_is_no_layer_decay():
    with pytest.raises(SegregError, match=r"train\.layer_decay needs an encoder that knows its layers, and Sequential"):
        build_optimizer(TinyNet(), Train(layer_decay=0.5), ADAMW)


def test_weight_decay_is_excluded_where_it_is_decoupled():
    model = TinyNet()

    def decays(build, exclude=None):
        optimizer = build_optimizer(model, Train(), build, exclude=exclude)
        return [(row["component"], row["tensors"], row["weight_decay"]) for row in described(optimizer)]

    whole = [("encoder", 4, 0.05), ("decoder", 4, 0.05), ("head", 2, 0.05)]
    parts = [(name, n, decay) for name, m in (("encoder", 1), ("decoder", 1), ("head", 1))
             for n, decay in ((m, 0.05), (3 if name != "head" else 1, 0.0))]  # fmt: skip
    assert decays(ADAMW) == parts
    assert decays(ADAMW, exclude=False) == whole
    adam = partial(from_torch.build, "Adam", lr=1e-3, weight_decay=0.05)
    assert decays(adam) == whole
    assert decays(adam, exclude=True) == parts
    undecayed = [(*row[:2], 0.0) for row in whole]
    assert decays(partial(from_torch.build, "AdamW", lr=1e-3, weight_decay=0.0)) == undecayed


def test_which_optimizers_decouple_their_weight_decay():
    """Without a gradient, decoupled decay takes the same share of each weight; in the gradient, Adam's is a step."""
    for member, decoupled in {"adamw": True, "nadamw": True, "lion": True, "muon": True, "lambw": True, "radamw": True,
                              "adan": True, "sgdp": True, "radamlegacy": True,
                              "adam": False, "nadam": False, "lamb": False, "adagrad": False}.items():  # fmt: skip
        weight = nn.Parameter(torch.tensor([[1.0, 3.0], [2.0, 5.0]]))
        optimizer = from_timm.build(member, [{"params": [weight], "name": "x"}], lr=0.01, weight_decay=0.1)
        assert decouples(optimizer) == decoupled, member
        weight.grad = torch.zeros(2, 2)
        optimizer.step()
        expected = torch.tensor([[1.0, 3.0], [2.0, 5.0]]) * (1 - 0.01 * 0.1)
        assert torch.allclose(weight, expected, rtol=1e-6) == decoupled, member
    adamp = from_timm.build("adamp", [{"params": [weight], "name": "x"}], lr=0.01, weight_decay=0.1)
    assert decouples(adamp)  # a tenth of that share, of what it projects
    sgd = torch.optim.SGD([weight], lr=0.1, weight_decay=0.1)
    assert not decouples(sgd)
    sgd.decouples_weight_decay = True  # as a plugin's optimizer says it
    assert decouples(sgd)


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
        scale_rates(torch.optim.SGD([torch.zeros(1)], lr=0.5), {}, asked=["layer_decay"])


def test_a_network_without_parameters_is_refused():
    network = TinyNet().requires_grad_(False)
    with pytest.raises(SegregError, match="no parameter to train"):
        parameter_groups(network, {})
