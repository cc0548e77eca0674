"""Atrous convolutions without dead taps are the ordinary ones: values, gradients, state, however it is run."""

import copy

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP as SmpASPP
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation.deeplabv3 import ASPP as TorchvisionASPP

from segreg.models.segmenter import Segmenter
from segreg_plugins.decoders import atrous
from segreg_plugins.decoders.atrous import (
    AtrousConv2d,
    leave_out_dead_taps,
    live_parts,
    live_share,
    live_taps,
    shifted_multiples,
    way,
)
from segreg_plugins.decoders.deeplabv3plus import deeplabv3plus
from segreg_plugins.decoders.deeplabv3plus_network import ASPP

SIZES = [(1, 1), (2, 3), (3, 17), (17, 3), (8, 8), (12, 12), (13, 12), (15, 20), (16, 16), (33, 33), (5, 40)]
RATES = [2, 3, 6, 12, 16, 18, 36]


class Stem(nn.Module):
    """Two levels of strides 4 and 16, so that images of 256 pixels give maps of 16x16."""

    channels, strides = (6, 8), (4, 16)

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 6, 4, stride=4), nn.Conv2d(6, 8, 4, stride=4)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        fine = self.fine(image)
        return [fine, self.coarse(fine)]


def results(compute, features, weight):
    """The values and all gradients of a weighed sum."""
    features, weight = features.clone().requires_grad_(), weight.clone().requires_grad_()
    values = compute(features, weight)
    pull = torch.linspace(-1, 1, values.numel()).bfloat16().to(values.dtype).view(values.shape)
    return [values.detach(), *torch.autograd.grad((values * pull).sum(), (features, weight))]


def reference(rate, groups):
    return lambda x, w: F.conv2d(x, w, padding=rate, dilation=rate, groups=groups)


def drawn(size, kind, dtype=torch.float64, batch=2):
    generator = torch.Generator().manual_seed(size[0] * 100 + size[1])
    channels, groups = (5, 5) if kind == "depthwise" else (4, 1)
    features = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, channels // groups, 3, 3, generator=generator, dtype=torch.float64)
    return features.to(dtype), weight.to(dtype), groups


def ordinary(network):
    """A copy whose atrous convolutions are torch's."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, AtrousConv2d):
            layer.__class__ = nn.Conv2d
    return network


@pytest.fixture
def avx2(monkeypatch):
    """The ways of the CPU where most is left out, whichever this one is."""
    monkeypatch.setattr(atrous, "CPU", "AVX2")


@pytest.fixture
def network(avx2):
    torch.manual_seed(0)
    encoder = Stem()
    return Segmenter(
        encoder, deeplabv3plus(encoder, channels=8, low_level_channels=4, dropout=0.0, rates=(6, 18)), 2
    ).eval()


@pytest.mark.parametrize(
    ("size", "rate", "dtype", "error"),
    [
        *((size, rate, torch.float64, 1e-12) for size in SIZES for rate in RATES),
        *((size, 6, torch.float32, 2e-4) for size in SIZES),
    ],
)
@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_every_way_gives_the_values_and_gradients_of_the_ordinary_convolution(kind, size, rate, dtype, error):
    features, weight, groups = drawn(size, kind, dtype)
    expected = results(reference(rate, groups), features, weight)
    ways = [live_taps, shifted_multiples] if kind == "depthwise" else [live_taps]
    for compute in ways:
        for layout in (torch.contiguous_format, torch.channels_last):
            given = features.to(memory_format=layout)
            for found, wanted in zip(results(lambda x, w: compute(x, w, rate), given, weight), expected, strict=True):  # noqa: B023
                assert found.shape == wanted.shape
                assert (found - wanted).abs().max() <= error


def test_second_gradients_are_the_ordinary_ones():
    features, weight, _ = drawn((3, 4), "depthwise", batch=1)
    features, weight = features[:, :2].clone().requires_grad_(), weight[:2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, w: shifted_multiples(x, w, 2), (features, weight))


def test_bf16_is_as_exact_as_the_ordinary_convolution():
    features, weight, groups = drawn((16, 16), "depthwise", torch.bfloat16)
    exact = results(reference(6, groups), features.double(), weight.double())
    for found, wanted in zip(results(lambda x, w: shifted_multiples(x, w, 6), features, weight), exact, strict=True):
        assert found.dtype == torch.bfloat16
        # Half a unit in the last of 8 bits, of the largest value; the sums are made in float32.
        assert (found.double() - wanted).abs().max() <= wanted.abs().max() * 2**-8


@pytest.mark.parametrize(("size", "rate"), [((16, 16), 18), ((16, 16), 12), ((3, 17), 6), ((33, 33), 2)])
def test_live_parts_are_the_products_that_are_not_with_padding(size, rate):
    # A convolution of ones counts the taps that see the map.
    count = F.conv2d(torch.ones(1, 1, *size), torch.ones(1, 1, 3, 3), padding=rate, dilation=rate).sum().item()
    parts = live_parts(*size, rate)
    found = sum(torch.ones(1, 1, *size)[there].numel() for _, there, _ in parts)
    assert found == count == pytest.approx(live_share(*size, rate) * 9 * size[0] * size[1])


@pytest.mark.parametrize(
    ("size", "rate", "kind", "dtype", "device", "processor", "expected"),
    [
        ((16, 16), 18, "dense", torch.float32, "cpu", "AVX2", "live"),
        ((16, 16), 16, "dense", torch.bfloat16, "cuda", "AVX2", "live"),
        ((16, 16), 15, "dense", torch.float32, "cpu", "AVX2", "ordinary"),
        ((3, 17), 6, "dense", torch.float32, "cpu", "AVX2", "ordinary"),
        ((3, 17), 6, "dense", torch.float32, "cuda", "AVX2", "ordinary"),
        ((3, 17), 6, "dense", torch.bfloat16, "cpu", "AVX2", "ordinary"),
        ((16, 16), 18, "depthwise", torch.float32, "cpu", "AVX2", "shifted"),
        ((16, 16), 6, "depthwise", torch.float32, "cpu", "AVX2", "shifted"),
        ((32, 32), 6, "depthwise", torch.float32, "cpu", "AVX2", "ordinary"),
        ((16, 16), 12, "depthwise", torch.bfloat16, "cpu", "AVX512", "shifted"),
        ((16, 16), 6, "depthwise", torch.bfloat16, "cpu", "AVX512", "ordinary"),
        ((16, 16), 18, "depthwise", torch.float32, "cpu", "NO AVX", "ordinary"),
        ((16, 16), 18, "depthwise", torch.float64, "cpu", "AVX2", "ordinary"),
        ((16, 16), 18, "depthwise", torch.float16, "cuda", "AVX2", "ordinary"),
    ],
)
def test_only_what_was_measured_to_pay_is_left_out(size, rate, kind, dtype, device, processor, expected):
    assert way(*size, rate, kind=kind, dtype=dtype, device=device, cpu=processor) == expected


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (8, 8), (5, 40)])
def test_the_pooling_is_the_ordinary_one(avx2, separable, training, autocast, size):
    torch.manual_seed(0)
    ours = ASPP(8, 6, rates=(6, 12, 18), separable=separable, dropout=0.0).train(training)
    theirs = ordinary(ours)
    assert type(theirs.atrous[0][0]) is nn.Conv2d
    features = torch.randn(2, 8, *size).to(memory_format=torch.channels_last)
    gradients = []
    for network in (ours, theirs):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            given = features.clone().requires_grad_()
            out = network(given)
        assert out.dtype == (torch.bfloat16 if autocast else torch.float32)
        out.float().square().mean().backward()
        gradients.append([out.float(), given.grad, *(p.grad for p in network.parameters())])
    # BatchNorm's gradients are differences of near numbers, which bf16 blurs; a wrong tap is off by more than half.
    error = 0.2 if autocast else 1e-4
    for found, wanted in zip(*gradients, strict=True):
        assert (found - wanted).norm() <= error * wanted.norm() + 1e-6


@pytest.mark.parametrize("separable", [True, False])
def test_where_every_tap_lives_it_is_the_ordinary_pooling_bit_for_bit(avx2, separable):
    ours = ASPP(8, 6, rates=(2, 6), separable=separable, dropout=0.0).eval()
    features = torch.randn(1, 8, 40, 40)
    assert torch.equal(ours(features), ordinary(ours)(features))


def test_parameters_are_torchs():
    ours, theirs = AtrousConv2d(4, 4, rate=6, groups=4), nn.Conv2d(4, 4, 3, padding=6, dilation=6, groups=4, bias=False)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(3)
    ours.reset_parameters()
    torch.manual_seed(3)
    theirs.reset_parameters()
    assert torch.equal(ours.weight, theirs.weight)
    network = ASPP(8, 6, rates=(6, 12), separable=True, dropout=0.0)
    assert list(network.state_dict()) == list(ordinary(network).state_dict())


def test_a_folded_bias_is_kept(avx2):
    layer, norm = AtrousConv2d(4, 4, rate=6, groups=4).eval(), nn.BatchNorm2d(4).eval()
    nn.init.uniform_(norm.bias, 1.0, 2.0)
    features = torch.randn(1, 4, 8, 8)
    folded = torch.nn.utils.fuse_conv_bn_eval(layer, norm)
    assert torch.allclose(folded(features), norm(layer(features)), atol=1e-5)


def test_the_compiled_network_is_the_same(network):
    image = torch.randn(1, 3, 256, 256)
    expected = ordinary(network)(image)
    assert torch.allclose(network(image), expected, atol=1e-5)
    torch.compiler.reset()
    assert torch.allclose(torch.compile(network, backend="eager")(image), expected, atol=1e-5)
    torch.compiler.reset()


def test_the_exported_network_is_the_same_and_leaves_out_dead_taps(network):
    image = torch.randn(1, 3, 256, 256)
    exported = torch.export.export(network, (image,))
    assert torch.allclose(exported.module()(image), ordinary(network)(image), atol=1e-5)
    whole = torch.export.export(ordinary(network), (image,))
    assert convolutions(exported) == convolutions(whole) - 2


def convolutions(program):
    return sum("conv2d" in str(node.target) for node in program.graph.nodes)


def test_exported_for_any_size_it_is_the_ordinary_convolution(avx2):
    layer = AtrousConv2d(4, 4, rate=6, groups=4).eval()
    side = torch.export.Dim("side", min=2, max=64)
    exported = torch.export.export(layer, (torch.randn(1, 4, 8, 8),), dynamic_shapes=({2: side, 3: side},))
    assert convolutions(exported) == 1
    for size in (4, 8, 40):
        features = torch.randn(1, 4, size, size)
        assert torch.allclose(exported.module()(features), layer(features), atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_traced_it_fits_every_size(avx2):
    layer = AtrousConv2d(4, 4, rate=6, groups=4).eval()
    traced = torch.jit.trace(layer, torch.randn(1, 4, 8, 8))
    for size in (4, 8, 40):
        features = torch.randn(1, 4, size, size)
        assert torch.allclose(traced(features), layer(features), atol=1e-5)


def test_the_work_is_less_at_256_pixels(avx2):
    def flops(network):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.randn(1, 32, 16, 16))
        return counter.get_total_flops()

    plain = ASPP(32, 16, rates=(6, 12, 18), separable=False, dropout=0.0).eval()
    # 1x1, three 3x3 and the projection of five: rate 18 is left with one tap of nine. Image pooling is a single pixel.
    map_, pixel = 2 * 16 * 16 * 16, 2 * 16 * 32
    assert flops(ordinary(plain)) == map_ * (32 + 27 * 32 + 5 * 16) + pixel
    assert flops(plain) == map_ * (32 + 19 * 32 + 5 * 16) + pixel
    separable = ASPP(32, 16, rates=(6, 12, 18), separable=True, dropout=0.0).eval()
    # What is multiplied and added by hand isn't counted; live_parts says how much it is: 8.3 of 27 products.
    assert flops(ordinary(separable)) - flops(separable) == 2 * 16 * 16 * 32 * 27
    live = sum(9 * live_share(16, 16, rate) for rate in (6, 12, 18))
    assert live == pytest.approx(5.0625 + 2.25 + 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TorchvisionASPP(8, (6, 12, 18), out_channels=6),
        lambda: SmpASPP(8, 6, (12, 24, 36), separable=True, dropout=0.1),
    ],
)
def test_other_libraries_poolings_can_leave_them_out(avx2, make):
    theirs = make().eval()
    ours = leave_out_dead_taps(copy.deepcopy(theirs))
    assert sum(isinstance(layer, AtrousConv2d) for layer in ours.modules()) == 3
    assert list(ours.state_dict()) == list(theirs.state_dict())
    features = torch.randn(2, 8, 16, 16)
    assert torch.allclose(ours(features), theirs(features), atol=1e-5)


def test_shapes_alone_pass_through():
    """Tensors of the device "meta" have no autocast, and operations are counted on them."""
    with torch.device("meta"):
        layers = [AtrousConv2d(8, 8, rate=6, groups=groups) for groups in (1, 8)]
        for layer in layers:
            assert layer(torch.empty(1, 8, 5, 5)).shape == (1, 8, 5, 5)
