"""LoRA against its formula and against merged weights, and what of an encoder is trained."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.models.beit import Attention
from torch import nn

from segreg.config.resolve import choose
from segreg.config.sections import EncoderTraining
from segreg.config.sections import Lora as Settings
from segreg.errors import SegregError
from segreg.models.lora import Lora, add_lora, merge_lora, merged
from segreg.models.trained import choose_trained, settle_frozen, trained_tensors

SIZE = (32, 32)


@pytest.fixture
def vit(builtin):
    torch.manual_seed(0)
    return choose("encoder", "timm/test_vit", {"img_size": SIZE}, builtin).build(3)


def changed(network, std=0.3):
    """Return the network with B as after some training, not zero."""
    for name, parameter in network.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter, std=std)
    return network


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(6, 4, 1, stride=2), nn.Conv2d(6, 4, 1, bias=False)])
def test_a_layer_computes_the_formula_of_the_paper(layer):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 5) if isinstance(layer, nn.Conv2d) else torch.randn(2, 7, 6)
    before = layer(x)
    lora = Lora(layer, rank=3, alpha=6.0)
    assert torch.equal(lora(x), before)
    changed(lora)
    w, a, b = (t.detach().double().flatten(1) for t in (layer.weight, lora.lora_a, lora.lora_b))
    given = x.double()
    if isinstance(layer, nn.Conv2d):
        given = given[:, :, :: layer.stride[0], :: layer.stride[1]].movedim(1, -1)
    bias = 0 if layer.bias is None else layer.bias.detach().double()
    expected = torch.einsum("oi,...i->...o", w, given) + bias
    expected = expected + 6.0 / 3 * torch.einsum("or,ri,...i->...o", b, a, given)
    found = lora(x).movedim(1, -1) if isinstance(layer, nn.Conv2d) else lora(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    lora(x).sum().backward()
    assert {name for name, p in lora.named_parameters() if p.grad is not None} == {"lora_a", "lora_b"}


def test_a_network_that_reads_weights_gets_changed_ones():
    torch.manual_seed(0)
    attention = Attention(8, num_heads=2, qkv_bias=True)  # BEiT's never calls its layer qkv
    x = torch.randn(1, 5, 8)
    before = attention(x)
    add_lora(attention, rank=2, alpha=4.0, targets=["qkv"])
    assert torch.equal(attention(x), before)
    changed(attention)(x).sum().backward()
    assert attention.qkv.lora_a.grad.abs().sum() > 0
    weight = attention.qkv.frozen.weight + 4.0 / 2 * attention.qkv.lora_b @ attention.qkv.lora_a
    plain = Attention(8, num_heads=2, qkv_bias=True)
    state = {n.replace(".frozen", ""): t for n, t in attention.state_dict().items() if ".lora_" not in n}
    plain.load_state_dict({**state, "qkv.weight": weight.detach()})
    torch.testing.assert_close(attention(x), plain(x))
    assert not torch.allclose(attention(x), before, atol=1e-3)


def test_merged_weights_compute_the_same(vit):
    plain = copy.deepcopy(vit)
    choose_trained(vit, EncoderTraining(lora=Settings(rank=4, targets=("qkv", "proj", "mlp.fc1"))))
    trained = sum(p.numel() for p in vit.parameters() if p.requires_grad)
    wide = next(m for n, m in plain.named_modules() if n.endswith("blocks.0.attn.qkv")).in_features
    hidden = next(m for n, m in plain.named_modules() if n.endswith("blocks.0.mlp.fc1")).out_features
    assert trained == 6 * 4 * ((wide + 3 * wide) + (wide + wide) + (wide + hidden))
    changed(vit).eval()
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        before = vit(image)
        state = merged(vit.state_dict())
        after = merge_lora(vit)(image)
        plain.eval().load_state_dict(state)
        for one, other, unchanged in zip(before, after, plain(image), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
            assert torch.equal(other, unchanged)
    assert [type(m) for m in vit.modules()] == [type(m) for m in plain.modules()]


class Shared(nn.Module):
    """One layer in two places, and another layer with the same weight."""

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.other = nn.Sequential(self.one[0], nn.Tanh())
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.one[0].weight

    def forward(self, x):
        return self.tied(self.other(self.one(x)))


@pytest.mark.parametrize("targets", [["one.0"], ["other.0"], ["0"], ["0", "tied"]])
def test_a_layer_in_two_places_has_one_change_in_both(targets):
    torch.manual_seed(0)
    network = Shared()
    add_lora(network, rank=2, alpha=4.0, targets=targets)
    assert isinstance(network.one[0], Lora)
    assert network.one[0] is network.other[0]
    assert isinstance(network.tied, Lora) == ("tied" in targets)
    changed(network)
    model = SimpleNamespace(encoder=network, state_dict=lambda: network.state_dict(prefix="encoder."))
    assert {name.removeprefix("encoder.") for name in trained_tensors(model)} == {
        name for name in network.state_dict() if ".lora_" in name
    }
    x = torch.randn(3, 4)
    before, plain = network(x), Shared()
    plain.tied = nn.Linear(4, 4)  # which has another change, or none
    plain.load_state_dict(merged(network.state_dict()))
    torch.testing.assert_close(plain(x), before)
    torch.testing.assert_close(merge_lora(network)(x), before)
    assert not any(isinstance(module, Lora) for module in network.modules())


def test_gradients_in_bf16_are_near_those_in_float32(vit):
    choose_trained(vit, EncoderTraining(lora=Settings(rank=4)))
    changed(vit, std=0.02)
    image, gradients = torch.randn(2, 3, *SIZE), []
    for enabled in (False, True):
        vit.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            vit(image)[-1].float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in vit.parameters() if p.requires_grad]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


def trains(encoder):
    return {name for name, p in encoder.named_parameters() if p.requires_grad}


def test_what_is_trained(vit, builtin):
    every = trains(vit)
    norms = {
        f"{n}.{leaf}" for n, m in vit.named_modules() if isinstance(m, nn.LayerNorm) for leaf in ("weight", "bias")
    }
    two = {n for n in every if ".blocks." not in n or ".blocks.0." in n} - {n for n in every if ".model.norm" in n}
    low = {f"{n}.lora_{x}" for n, m in vit.named_modules() if n.endswith("qkv") for x in "ab"}
    for chosen, expected in (
        (EncoderTraining(), every),
        (EncoderTraining(trainable="none"), set()),
        (EncoderTraining(trainable="norms"), norms),
        (EncoderTraining(freeze_layers=2), every - two),
        (EncoderTraining(lora=Settings(targets=("qkv",)), trainable="norms"), low | norms),
    ):
        encoder = copy.deepcopy(vit)
        choose_trained(encoder, chosen)
        assert trains(encoder) == expected, chosen
    with pytest.raises(SegregError, match=r"freeze_layers: 7, and the encoder has 7 layers"):
        choose_trained(vit, EncoderTraining(freeze_layers=7))
    with pytest.raises(
        SegregError, match=r'called "query"\n.*there are qkv \(6\), proj \(6\), fc1 \(6\) and fc2 \(6\)'
    ):
        choose_trained(vit, EncoderTraining(lora=Settings(targets=("qkv", "query"))))


def test_frozen_norms_keep_their_statistics(builtin):
    encoder = choose("encoder", "resnet18", {}, builtin).build(3)
    choose_trained(encoder, EncoderTraining(freeze_layers=2))
    before = {name: t.clone() for name, t in encoder.named_buffers() if name.endswith("running_mean")}
    settle_frozen(encoder.train())
    encoder(torch.randn(2, 3, 32, 32))
    moved = {name for name, t in encoder.named_buffers() if name in before and not torch.equal(t, before[name])}
    assert moved == {name for name in before if any(f".layer{n}." in name for n in (2, 3, 4))}
    choose_trained(encoder, EncoderTraining(trainable="none"))
    settle_frozen(encoder.train())
    assert not any(module.training for module in encoder.modules())


def test_a_norm_without_weights_goes_with_the_layer_before_it():
    def layers():
        torch.manual_seed(0)
        first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        norms = (nn.BatchNorm2d(3, affine=False) for _ in range(3))
        return nn.Sequential(next(norms), first, next(norms), nn.ReLU(), second, next(norms))

    def moved(encoder):
        before = encoder.state_dict()
        before = {name: tensor.clone() for name, tensor in before.items() if name.endswith("running_mean")}
        settle_frozen(encoder.train())
        encoder(torch.randn(2, 3, 8, 8) + 1)
        after = encoder.state_dict()
        found = {name for name in before if not torch.equal(after[name], before[name])}
        model = SimpleNamespace(encoder=encoder, state_dict=lambda: encoder.state_dict(prefix="encoder."))
        named = {name.removeprefix("encoder.") for name in trained_tensors(model)}
        assert {name for name in named if name.endswith("running_mean")} == found
        return found

    encoder = layers()
    encoder[1].requires_grad_(requires_grad=False)
    assert moved(encoder) == {"5.running_mean"}
    add_lora(encoder := layers(), rank=1, alpha=1.0, targets=["1"])
    assert moved(encoder) == set()
    encoder = layers()
    encoder[4].requires_grad_(requires_grad=False)
    assert moved(encoder) == {"2.running_mean"}


def test_it_is_pefts_on_shared_weights():
    """A ViT with fused qkv: values, and the gradients of A and B."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    ours, theirs = (timm.create_model("test_vit", num_classes=0, img_size=SIZE) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    add_lora(ours, rank=3, alpha=7, targets=["qkv", "proj", "fc1"])
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=3, lora_alpha=7, target_modules=["qkv", "attn.proj", "fc1"]))
    changed = {name: module for name, module in ours.named_modules() if isinstance(module, Lora)}
    layers = {
        name: module
        for name, module in theirs.base_model.model.named_modules()
        if isinstance(module, peft.tuners.lora.Linear)
    }
    assert changed.keys() == layers.keys()
    for name, layer in layers.items():
        nn.init.normal_(layer.lora_B["default"].weight)
        changed[name].lora_a.data.copy_(layer.lora_A["default"].weight)
        changed[name].lora_b.data.copy_(layer.lora_B["default"].weight)
    image = torch.randn(2, 3, *SIZE)
    found, wanted = ours(image), theirs(image)
    torch.testing.assert_close(found, wanted)
    for network in (found, wanted):
        network.square().sum().backward()
    for name, layer in layers.items():
        torch.testing.assert_close(changed[name].lora_a.grad, layer.lora_A["default"].weight.grad)
        torch.testing.assert_close(changed[name].lora_b.grad, layer.lora_B["default"].weight.grad)
