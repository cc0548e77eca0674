from __future__ import annotations

import copy
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from segreg.errors import SegregError
from segreg.registry.entry import Entry
from segreg.settings import check_value
from segreg_plugins import optimizers
from segreg_plugins.optimizers import from_timm

ENTRIES = {entry.name: entry for entry in optimizers.segreg_entries() if isinstance(entry, Entry)}

SETTINGS = {
    "adam": ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True}),
    "sgd": ("SGD", {"lr": 0.01, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "dampening": 0.0}),
    "nadam": ("NAdam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "momentum_decay": 0.01,
                        "decoupled_weight_decay": True}),
    "radam": ("RAdam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1,
                        "decoupled_weight_decay": True}),
    "adamax": ("Adamax", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    "adagrad": ("Adagrad", {"lr": 0.01, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2,
                            "eps": 1e-6}),
    "adadelta": ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.1}),
    "rmsprop": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.1, "momentum": 0.5,
                            "centered": True}),
}  # fmt: skip


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def groups_of(net: nn.Sequential) -> list[dict]:
    return [
        {"params": list(net[:2].parameters()), "name": "encoder"},
        {"params": list(net[2:].parameters()), "name": "head"},
    ]


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 6) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 6, 6, generator=draw)).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_reaches_pytorchs_optimizer(name):
    torch_name, settings = SETTINGS[name]
    assert set(settings) == set(ENTRIES[name].settings)
    mine, theirs = network(), network()
    ours = train(mine, ENTRIES[name].build(groups_of(mine), **settings))
    expected = train(theirs, getattr(torch.optim, torch_name)(theirs.parameters(), **settings, foreach=False))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    for setting, value in settings.items():  # and each of them changes something
        default = ENTRIES[name].settings[setting].default
        if setting in ("lr", "eps", "dampening") or default == value:
            continue
        other = network()
        plain = train(other, ENTRIES[name].build(groups_of(other), **{**settings, setting: default}))
        assert any(not torch.equal(a, b) for a, b in zip(ours, plain, strict=True)), setting


@pytest.mark.parametrize("name", SETTINGS)
def test_defaults_are_pytorchs(name):
    torch_name, _ = SETTINGS[name]
    theirs = getattr(torch.optim, torch_name)([torch.zeros(1)], lr=0.1).defaults
    ours = ENTRIES[name].build([{"params": [torch.zeros(1)]}], lr=0.1).defaults
    departs = {"momentum"} if name == "sgd" else set()
    reported = set(ENTRIES[name].settings) - departs
    assert {k: ours[k] for k in reported} == {k: theirs[k] for k in reported}


def test_a_learning_rate_must_be_reported():
    assert all(entry.settings["lr"].required for entry in ENTRIES.values())
    assert all(from_timm.member_settings(name)["lr"].required for name in from_timm.members())


def test_the_fused_implementation_is_taken_where_there_is_one():
    for name in ("adam", "adamw", "sgd", "adagrad"):
        assert ENTRIES[name].build(groups_of(network()), lr=0.1).defaults["fused"] is True
    on_meta = [{"params": [nn.Parameter(torch.zeros(1, device="meta"))]}]
    assert ENTRIES["adam"].build(on_meta, lr=0.1).defaults["fused"] is None


def test_group_names_and_rates_stay():
    optimizer = ENTRIES["adam"].build(groups_of(network()), lr=0.1)
    assert [(group["name"], group["lr"]) for group in optimizer.param_groups] == [("encoder", 0.1), ("head", 0.1)]


def test_nesterov_without_momentum_is_reported():
    with pytest.raises(SegregError, match=r"optimizer sgd: .*[Nn]esterov.* momentum .*dampening"):
        ENTRIES["sgd"].build(groups_of(network()), lr=0.1, nesterov=True, momentum=0.0)


def test_betas_of_one_are_refused():
    with pytest.raises(ValueError, match="of at least 0 and below 1"):
        check_value(ENTRIES["adam"].settings["betas"].hint, [0.9, 1.0])


def test_the_family_lists_what_timm_lists():
    from timm.optim import get_optimizer_info, list_optimizers

    listed = set(from_timm.members())
    missing = {name for name in list_optimizers() if name not in listed}
    for name in missing:
        info = get_optimizer_info(name)
        assert info.second_order or isinstance(info.opt_class, str) or info.name != name
    assert listed <= set(list_optimizers())
    assert {"lion", "adabelief", "lamb", "nadamw", "muon"} <= listed


def test_listing_imports_neither_torch_nor_timm():
    code = (
        "import sys; from segreg_plugins import optimizers, schedules;"
        "entries = [*optimizers.segreg_entries(), *schedules.segreg_entries()];"
        "family = next(e for e in entries if e.name == 'timm');"
        "names = list(family.members()); [family.settings(n) for n in names];"
        "heavy = {'torch', 'timm', 'numpy', 'pydantic'} & set(sys.modules);"
        "sys.exit(f'{heavy}' if heavy or len(names) < 60 else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", sorted(from_timm.members()))
def test_every_timm_optimizer_trains_and_takes_its_settings(name):
    net = network()
    before = copy.deepcopy(list(net.parameters()))
    settings = from_timm.member_settings(name)
    values = {"lr": 0.01, "weight_decay": 0.01, "momentum": 0.8, "eps": 1e-6}
    given = {key: values[key] for key in settings if key in values}
    if name.startswith("kron") and find_spec("opt_einsum") is None:
        with pytest.raises(SegregError, match=r"timm/kron[wc]? needs the package opt_einsum"):
            from_timm.build(name, groups_of(net), lr=0.01)
        return
    if "betas" in settings:
        given["betas"] = check_value(settings["betas"].hint, [0.9, 0.95, 0.99][: 3 if "adan" in name else 2])
    optimizer = from_timm.build(name, groups_of(net), **given)
    after = train(net, optimizer, steps=3)
    assert all(tensor.isfinite().all() for tensor in after)
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert [group["name"] for group in optimizer.param_groups] == ["encoder", "head"]
    # And with timm's own values for what may be null.
    from_timm.build(name, groups_of(network()), lr=0.01, weight_decay=0.0)


def test_timm_gives_the_same_as_called_directly():
    from timm.optim import create_optimizer_v2

    mine, theirs = network(), network()
    ours = train(mine, from_timm.build("lion", groups_of(mine), lr=0.003, weight_decay=0.1, betas=(0.8, 0.9)))
    direct = create_optimizer_v2(theirs.parameters(), "lion", lr=0.003, weight_decay=0.1, betas=(0.8, 0.9))
    torch.testing.assert_close(ours, train(theirs, direct), rtol=0, atol=0)
