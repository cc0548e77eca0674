"""A network made lighter gives the network's logits, and what isn't proven to stay the same is left alone."""

from __future__ import annotations

import copy
import json
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import weight_norm

import segreg
import tiny_runs
from segreg.models.segmenter import Segmenter, predict_logits
from segreg.prediction.lighter import convert_weights, fold_batch_norms, lighten
from segreg.runtime.device import Precision, choose_precision
from segreg_plugins.batch_norm import BatchNorm2d
from segreg_plugins.decoders.atrous import AtrousConv2d

CPU = torch.device("cpu")
FLOAT32, BF16 = (choose_precision(name, CPU) for name in ("float32", "bf16"))
FP16 = Precision("fp16", torch.float16, scaler=True, reason="test")


def trained(network, *, seed=0):
    """Return the network with statistics, factors and shifts that are not those of the beginning."""
    drawn = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            with torch.no_grad():
                if layer.weight is not None:
                    layer.weight.copy_(torch.rand(layer.weight.shape, generator=drawn) + 0.5)
                    layer.bias.copy_(torch.randn(layer.bias.shape, generator=drawn))
                if layer.running_mean is not None:
                    layer.running_mean.copy_(torch.randn(layer.running_mean.shape, generator=drawn))
                    layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=drawn) + 0.2)
    return network.eval()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def logits(network, image, precision=FLOAT32):
    with torch.inference_mode(), precision.autocast(CPU):
        return network(image)


def norms(network):
    return sum(isinstance(layer, _BatchNorm) for layer in network.modules())


def assert_same(light, network, image):
    expected = logits(network, image)
    assert (logits(light, image) - expected).abs().max() <= 1e-5 * expected.abs().max()


# networks of every family

FAMILIES = {
    "SMP's encoder, ours": ("resnet18", "deeplabv3plus", {"channels": 32}),
    "SMP's both": ("resnet18", "smp.unet", {}),
    "timm's": ("timm/test_resnet", "smp.fpn", {}),
    "timm's, with activations in its BatchNorms": ("timm/test_efficientnet", "deeplabv3plus", {"channels": 32}),
    "torchvision's, light": ("torchvision.mobilenet_v3_large", "lraspp", {}),
    "torchvision's both": ("torchvision/resnet18", "torchvision.fcn", {}),
    "without a BatchNorm in its encoder": ("timm/test_vit", "deeplabv3plus", {"channels": 32}),
}


def family(name):
    encoder_name, decoder_name, settings = FAMILIES[name]
    torch.manual_seed(0)
    encoder = segreg.build_part("encoder", encoder_name, 3)
    network = Segmenter(encoder, segreg.build_part("decoder", decoder_name, encoder, **settings), 2)
    return trained(network).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_of_every_family_keep_their_logits(name):
    network = family(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    light = lighten(network, noise(1, 3, 64, 64), FLOAT32)
    assert light.left == ""
    assert light.converted == 0
    assert light.folded == norms(network) - norms(light.network) > 0
    for size in ((64, 64), (96, 160)):  # one that it was tried on, one that it wasn't
        assert_same(light.network, network, noise(2, 3, *size, seed=1))
    # and the network itself is as it was
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert before.keys() == network.state_dict().keys()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_in_bf16_change_no_bit_of_what_autocast_gives(name):
    network = family(name)
    kept = copy.deepcopy(network)
    count = convert_weights(kept, noise(1, 3, 64, 64), BF16)
    assert count == sum(parameter.dtype == torch.bfloat16 for parameter in kept.parameters())
    layers = [layer for layer in kept.modules() if type(layer) in (nn.Conv2d, nn.Linear)]
    assert all(layer.weight.dtype == torch.bfloat16 for layer in layers)
    assert all(layer.weight.dtype == torch.float32 for layer in kept.modules() if isinstance(layer, _BatchNorm))
    for size in ((64, 64), (32, 96)):
        image = noise(1, 3, *size, seed=1)
        assert torch.equal(logits(kept, image, BF16), logits(network, image, BF16))


@pytest.mark.parametrize("name", FAMILIES)
def test_in_bf16_folding_is_about_as_exact_as_autocast(name):
    network = family(name)
    light = lighten(network, noise(1, 3, 64, 64), BF16)
    assert light.left == ""
    assert light.folded == lighten(network, noise(1, 3, 64, 64), FLOAT32).folded
    assert light.converted > 0
    image = noise(1, 3, 64, 64, seed=1)
    exact = logits(network, image)
    off, usual = ((logits(one, image, BF16).float() - exact).abs().mean() for one in (light.network, network))
    assert off < 1.5 * usual


def test_atrous_convolutions_without_dead_taps_stay_without():
    network = family("SMP's encoder, ours")
    light = lighten(network, noise(1, 3, 64, 64), FLOAT32).network
    atrous = [layer for layer in light.modules() if isinstance(layer, AtrousConv2d)]
    assert len(atrous) == 3
    assert all(layer.bias is None for layer in atrous)


def test_the_memory_format_stays():
    network = family("SMP's both")
    light = lighten(network, noise(1, 3, 64, 64), BF16).network
    convs = [layer for layer in light.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in convs)


# what may be folded


class Net(nn.Module):
    """A convolution, a BatchNorm, and a way from the one to the other."""

    def __init__(self, way, conv=None, norm=None):
        super().__init__()
        torch.manual_seed(3)
        self.way = way
        self.conv = conv or nn.Conv2d(3, 4, 3, padding=1)
        self.norm = norm or nn.BatchNorm2d(4)
        self.other = nn.Conv2d(4, 4, 1)
        trained(self)

    def forward(self, image):
        return self.way(self, image)


def straight(net, image):
    return net.other(net.norm(net.conv(image)))


def in_place_afterwards(net, image):
    return net.other(net.norm(net.conv(image)).relu_())


def dropout_between(net, image):
    return net.other(net.norm(F.dropout(net.conv(image), 0.5, net.training)))


def attributes_between(net, image):
    features = net.conv(image)
    height, width = features.shape[-2:]
    assert (features.dtype, features.dim(), features.device) == (image.dtype, 4, CPU)
    return F.interpolate(net.norm(features), size=(height, width))


@pytest.mark.parametrize("way", [straight, in_place_afterwards, dropout_between, attributes_between])
@pytest.mark.parametrize(
    "conv",
    [
        lambda: nn.Conv2d(3, 4, 3, padding=1, bias=False),
        lambda: nn.Conv2d(3, 4, 3, padding=1),
        lambda: nn.Conv2d(3, 4, (3, 5), padding=(1, 2), padding_mode="reflect"),
    ],
)
def test_a_batch_norm_right_behind_a_convolution_is_folded(way, conv):
    net = Net(way, conv())
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.folded, light.left) == (1, "")
    assert type(light.network.norm) is nn.Identity
    assert_same(light.network, net, noise(2, 3, 8, 7, seed=1))


def test_what_is_folded_is_the_formula():
    net = Net(straight, nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4, eps=0.1)).requires_grad_(False)
    light = lighten(net, noise(1, 4, 9, 9), FLOAT32).network
    for channel in range(4):
        factor = float(net.norm.weight[channel]) / math.sqrt(float(net.norm.running_var[channel]) + 0.1)
        shift = (float(net.conv.bias[channel]) - float(net.norm.running_mean[channel])) * factor
        assert torch.allclose(light.conv.weight[channel], net.conv.weight[channel] * factor, rtol=1e-6)
        assert float(light.conv.bias[channel]) == pytest.approx(shift + float(net.norm.bias[channel]), rel=1e-5)


@pytest.mark.parametrize(
    "norm",
    [
        BatchNorm2d(4),
        nn.SyncBatchNorm(4),
        nn.BatchNorm2d(4, affine=False),
        BatchNormAct2d(4, apply_act=False),
    ],
    ids=repr,
)
def test_a_batch_norm_of_another_class_that_computes_the_same_is_folded(norm):
    net = Net(straight, norm=norm)
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.folded, light.left) == (1, "")
    assert_same(light.network, net, noise(2, 3, 8, 7, seed=1))


def test_a_convolution_of_another_class_that_computes_the_same_takes_a_batch_norm():
    class Same(nn.Conv2d):
        def forward(self, image):
            return F.conv2d(F.pad(image, (0, 1, 0, 1)), self.weight, self.bias, self.stride)

    net = Net(straight, Same(3, 4, 2, stride=2))
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert light.folded == 1
    assert_same(light.network, net, noise(2, 3, 8, 7, seed=1))


def test_a_batch_norm_that_stands_at_two_places_goes_from_both():
    net = Net(straight)
    net.again = nn.Sequential(nn.Identity(), net.norm)
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.folded, norms(light.network)) == (1, 0)
    assert_same(light.network, net, noise(2, 3, 8, 7, seed=1))


# what may not


def used_twice(net, image):
    features = net.conv(image)
    return net.norm(features) + features


def used_before(net, image):
    features = net.conv(image)
    gate = features.mean()
    return net.norm(features) * gate


def used_by_a_view(net, image):
    features = net.conv(image)
    return net.norm(features) + features[:, :1]


def changed_in_place(net, image):
    return net.norm(net.conv(image).relu_())


def changed_through_its_data(net, image):
    features = net.conv(image)
    features.data.mul_(2)
    return net.norm(features)


def convolved_twice(net, image):
    return net.norm(net.conv(image)) + net.conv(image).relu()


def normalised_twice(net, image):
    return net.norm(net.conv(image)) + net.norm(image[:, :1].expand(-1, 4, -1, -1))


def with_another_use_of_the_weight(net, image):
    return net.norm(net.conv(image)) * net.conv.weight.mean()


def by_the_batch(net, image):
    return F.batch_norm(net.conv(image), None, None, training=True)


def not_called_as_a_module(net, image):
    return net.norm.forward(net.conv(image))


def with_the_weight_alone(net, image):
    return net.norm(F.conv2d(image, net.conv.weight, padding=1))


def mean(features):
    return features.mean()


with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # scripts are deprecated, and some libraries have them
    scripted = torch.jit.script(mean)


def used_in_a_script(net, image):
    features = net.conv(image)
    return net.norm(features) * scripted(features)


WAYS = [used_twice, used_before, used_by_a_view, changed_in_place, changed_through_its_data, convolved_twice,
        normalised_twice, with_another_use_of_the_weight, by_the_batch, not_called_as_a_module,
        with_the_weight_alone, used_in_a_script]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_convolution_or_a_batch_norm_that_does_more_is_left(way):
    net = Net(way)
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.folded, light.left) == (0, "nothing in it is proven to fold or to convert")
    assert light.network is net


@pytest.mark.parametrize(
    "parts",
    [
        {"norm": BatchNormAct2d(4)},  # an activation is in it
        {"norm": nn.BatchNorm2d(4, track_running_stats=False)},
        {"norm": nn.GroupNorm(2, 4)},
        {"conv": weight_norm(nn.Conv2d(3, 4, 3))},
        {"conv": nn.ConvTranspose2d(3, 4, 3)},
    ],
    ids=lambda parts: type(next(iter(parts.values()))).__name__,
)
def test_what_is_computed_otherwise_is_left(parts):
    net = Net(straight, **parts)
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.folded, light.network) == (0, net)
    assert light.left in ("nothing in it is proven to fold or to convert", "it has no BatchNorm")


def test_a_weight_that_two_convolutions_share_is_left():
    net = Net(lambda net, image: net.norm(net.conv(image)), nn.Conv2d(3, 4, 3, bias=False))
    net.twin = nn.Conv2d(3, 4, 3, bias=False)
    net.twin.weight = net.conv.weight
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.network, light.left) == (net, "nothing in it is proven to fold or to convert")


def test_only_the_branch_that_is_alone_is_folded():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.alone, self.shared = Net(straight), Net(used_twice)

        def forward(self, image):
            return self.alone(image) + self.shared(image)

    net = Two().eval()
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.folded, norms(light.network.alone), norms(light.network.shared)) == (1, 0, 1)
    assert_same(light.network, net, noise(2, 3, 8, 7, seed=1))


# bf16


def test_a_parameter_that_is_used_in_float32_as_well_stays_in_it():
    class Islands(nn.Module):
        def __init__(self):
            super().__init__()
            self.usual, self.exact, self.both = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.factor = nn.Parameter(torch.rand(1))

        def forward(self, image):
            with torch.autocast("cpu", enabled=False):
                exact = self.exact(image.float()) * self.factor
            return self.both(self.usual(exact)) * self.both.weight.sum()

    net = Islands()
    light = lighten(net, noise(1, 3, 9, 9), BF16)
    types = {name: parameter.dtype for name, parameter in light.network.named_parameters()}
    converted = {"usual.weight", "usual.bias", "both.bias"}
    assert types == {name: torch.bfloat16 if name in converted else torch.float32 for name in types}
    assert light.converted == 3
    image = noise(2, 3, 8, 8, seed=1)
    assert torch.equal(logits(light.network, image, BF16), logits(net, image, BF16))
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    net[2].weight = net[0].weight
    light = lighten(net, noise(1, 3, 9, 9), BF16)
    assert light.network[2].weight is light.network[0].weight
    assert light.converted == 3


# where it can't be


def test_fp16_is_left_to_autocast():
    net = Net(straight)
    light = lighten(net, noise(1, 3, 9, 9), FP16)
    assert (light.network, light.left) == (net, "a folded weight can exceed the range of fp16")


def test_a_network_without_a_batch_norm_is_not_even_copied(monkeypatch):
    monkeypatch.setattr(copy, "deepcopy", None)
    net = nn.Conv2d(3, 1, 1)
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.network, light.left) == (net, "it has no BatchNorm")


@pytest.mark.parametrize("precision", [FLOAT32, BF16], ids=lambda precision: precision.name)
def test_a_network_that_fails_when_it_is_tried_is_used_as_it_is(precision):
    def too_small(net, image):
        if image.shape[-1] < 16:
            raise ValueError("too small")
        return straight(net, image)

    net = Net(too_small)
    light = lighten(net, noise(1, 3, 9, 9), precision)
    assert (light.network, light.left) == (net, "ValueError: too small")


def test_a_network_that_looks_into_its_batch_norm_is_used_as_it_is():
    net = Net(lambda net, image: straight(net, image) * net.norm.eps)
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert (light.network, light.left) == (net, "AttributeError: 'Identity' object has no attribute 'eps'")


def test_a_network_that_counts_its_batch_norms_is_found_out():
    net = Net(lambda net, image: straight(net, image) * (1 + norms(net)))
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert light.network is net
    assert light.left.startswith("its logits would be off by ")


@pytest.mark.parametrize("precision", [FLOAT32, BF16], ids=lambda precision: precision.name)
def test_a_copy_that_sees_what_the_network_saw_last_is_found_out(precision):
    def way(own, image):
        own.pooling(image)
        return straight(own, image) + own.seen.mean()

    net = Net(way)
    net.pooling = nn.AdaptiveAvgPool2d(1)

    def remember(module, given, gave):
        net.seen = gave  # the network's, whichever copy of it this hook is on

    net.pooling.register_forward_hook(remember)
    net.seen = torch.ones(1)
    light = lighten(net, noise(1, 3, 9, 9), precision)
    assert light.network is net
    assert light.left.startswith("its logits would be off by ")


def test_logits_that_are_no_numbers_are_no_proof():
    net = Net(lambda net, image: straight(net, image) / 0 * 0)
    light = lighten(net, noise(1, 3, 9, 9), FLOAT32)
    assert light.network is net
    assert light.left == "its logits would be off by nan, of nan"


def test_nothing_is_left_behind_where_watching_fails():
    net = Net(lambda net, image: net.norm(net.conv(image)) @ image)
    with pytest.raises(RuntimeError):
        fold_batch_norms(net, noise(1, 3, 9, 7))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in net.modules())
    assert torch.rand(1).item() >= 0  # and operations go their usual way


# runs


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_and_its_evaluation_have_the_same_scores_to_the_last_digit(precision, tmp_path, segreg):
    run = tiny_runs.run(tmp_path, f"train.precision={precision}", "train.epochs=2", "evaluate.overlays=0")
    for side in ("test", "val"):
        out = tmp_path / side
        command = ["evaluate", run.directory.path, "--split", side, "--out", out, "--quiet"]
        printed = segreg(*command)
        assert printed.status == 0, printed.err
        assert json.loads((out / "metrics.json").read_text())["metrics"][side] == run.results["metrics"][side]
    assert (tmp_path / "test" / "per_image.csv").read_text() == run.directory.per_image.read_text()


def test_a_runs_predictor_has_the_lighter_network_and_its_model_the_whole_one(tmp_path_factory):
    finished = tiny_runs.finished(tmp_path_factory)
    whole = finished.model()
    assert norms(finished.predictor().model) < norms(whole)
    kept = finished.predictor(precision="bf16")
    assert {parameter.dtype for parameter in kept.model.parameters()} == {torch.float32, torch.bfloat16}
    images = torch.randint(256, (2, 3, 40, 32), dtype=torch.uint8)
    with torch.inference_mode():
        expected = whole(finished.predictor().normalize(images))
    assert torch.allclose(finished.predictor().logits(images), expected, atol=1e-4)
    usual = predict_logits(whole, kept.normalize, images, CPU, BF16)
    assert (kept.logits(images) - usual).abs().mean() < 2 * (usual - expected).abs().mean()
