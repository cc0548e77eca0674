"""The twelve SMP decoders give SMP's own outputs, bit for bit, on SMP's encoders with the same weights."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

from segreg import build_part
from segreg.models.segmenter import Segmenter
from segreg.models.verify import verify
from segreg_plugins.decoders import segreg_entries
from segreg_plugins.decoders.atrous import AtrousConv2d
from segreg_plugins.decoders.smp.dpt_network import reassembled_strides
from segreg_plugins.encoders import timm_family

BUILD = {entry.name: entry.build for entry in segreg_entries()}
DILATED = {"smp.deeplabv3": 8, "smp.deeplabv3plus": 16, "smp.pan": 16}


pytestmark = pytest.mark.usefixtures("quick_networks")


class SmpEncoder(nn.Module):
    """An SMP encoder by the contract: its real levels."""

    def __init__(self, network: nn.Module, first: int = 1) -> None:
        super().__init__()
        self.network = network
        self.kept = [i for i, c in enumerate(network.out_channels) if i >= first and c > 0]
        self.channels = tuple(network.out_channels[i] for i in self.kept)
        self.strides = tuple(min(2**i, network.output_stride) for i in self.kept)

    def dilate(self, output_stride: int) -> bool:
        try:
            self.network.make_dilated(output_stride)
        except ValueError:
            return False
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)
        return True

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features = self.network(image)
        return [features[i] for i in self.kept]


class ViT(nn.Module):
    """SMP's ViT encoder by the contract: its levels without prefix tokens."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.channels, self.strides = tuple(network.out_channels), tuple(network.output_strides)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.network(image)[0]


def theirs(architecture, encoder="tu-test_resnet", **settings):
    torch.manual_seed(0)
    model = getattr(smp, architecture)(encoder, encoder_weights=None, classes=3, **settings)
    # Statistics and affine parameters away from their neutral start, so that every one of them shows.
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def ours(name, model, encoder=None, **settings):
    encoder = encoder or SmpEncoder(copy.deepcopy(model.encoder))
    if name.startswith("smp.deeplabv3"):  # whose numbers are SMP's to the last bit only so
        settings = {"dead_taps": "compute", **settings}
    segmenter = Segmenter(encoder, BUILD[name](encoder, **settings), 3)
    segmenter.decoder.network.load_state_dict(model.decoder.state_dict())
    segmenter.head.load_state_dict(model.segmentation_head.state_dict())
    return segmenter


def assert_same(model, segmenter, size=(64, 128), in_channels=3):
    image = torch.randn(2, in_channels, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(model.eval()(image), segmenter.eval()(image))
        outputs = []
        for network in (model, segmenter):
            torch.manual_seed(3)
            outputs.append(network.train()(image))
        assert torch.equal(*outputs)
        # The statistics that training left behind are the same as well.
        assert torch.equal(model.eval()(image), segmenter.eval()(image))


NARROW = {
    "Unet": ({"channels": (16, 8, 8, 8, 4)}, {"decoder_channels": (16, 8, 8, 8, 4)}),
    "MAnet": (
        {"channels": (16, 8, 8, 8, 4), "attention_channels": 4},
        {"decoder_channels": (16, 8, 8, 8, 4), "decoder_pab_channels": 4},
    ),
    "FPN": (
        {"pyramid_channels": 8, "channels": 32},
        {"decoder_pyramid_channels": 8, "decoder_segmentation_channels": 32},
    ),
    "UPerNet": ({"channels": 8}, {"decoder_channels": 8}),
    "Segformer": ({"channels": 8}, {"decoder_segmentation_channels": 8}),
    "DeepLabV3": ({"channels": 8}, {"decoder_channels": 8}),
    "DeepLabV3Plus": ({"channels": 8}, {"decoder_channels": 8}),
    "PAN": ({"channels": 8}, {"decoder_channels": 8}),
}
"""Ours and SMP's settings of few channels, where their number is not the question."""

CASES = [
    ("smp.unet", "Unet", {}, {}),
    ("smp.unet", "Unet", {"attention": "scse"}, {"decoder_attention_type": "scse"}),
    ("smp.unet", "Unet", {"channels": (64, 32, 16)}, {"encoder_depth": 3, "decoder_channels": (64, 32, 16)}),
    ("smp.unet", "Unet", {"norm": "identity"}, {"decoder_use_norm": "identity"}),
    ("smp.unetplusplus", "UnetPlusPlus", {}, {}),
    ("smp.manet", "MAnet", {"attention_channels": 16}, {"decoder_pab_channels": 16}),
    ("smp.linknet", "Linknet", {}, {}),
    ("smp.linknet", "Linknet", {"depth": 4}, {"encoder_depth": 4}),
    ("smp.fpn", "FPN", {}, {}),
    ("smp.fpn", "FPN", {"merge": "cat", "dropout": 0.5}, {"decoder_merge_policy": "cat", "decoder_dropout": 0.5}),
    ("smp.pspnet", "PSPNet", {}, {}),
    (
        "smp.pspnet",
        "PSPNet",
        {"depth": 4, "channels": 64},
        {"encoder_depth": 4, "psp_out_channels": 64, "upsampling": 16},
    ),
    ("smp.deeplabv3", "DeepLabV3", {}, {}),
    ("smp.deeplabv3", "DeepLabV3", {"output_stride": 16}, {"encoder_output_stride": 16}),
    ("smp.deeplabv3plus", "DeepLabV3Plus", {}, {}),
    ("smp.deeplabv3plus", "DeepLabV3Plus", {"output_stride": 8}, {"encoder_output_stride": 8}),
    (
        "smp.deeplabv3plus",
        "DeepLabV3Plus",
        {"convolution": "plain", "rates": (6, 12, 18), "dropout": 0.1},
        {"decoder_aspp_separable": False, "decoder_atrous_rates": (6, 12, 18), "decoder_aspp_dropout": 0.1},
    ),
    ("smp.pan", "PAN", {}, {}),
    ("smp.pan", "PAN", {"interpolation": "nearest"}, {"decoder_interpolation": "nearest"}),
    ("smp.upernet", "UPerNet", {}, {}),
    ("smp.segformer", "Segformer", {}, {}),
]


@pytest.mark.parametrize(("name", "architecture", "settings", "smp_settings"), CASES)
def test_outputs_are_smps(name, architecture, settings, smp_settings):
    model = theirs(architecture, **smp_settings)
    segmenter = ours(name, model, **settings)
    # PAN needs a map of 8x8; atrous convolutions of a small one have no taps to differ in.
    assert_same(model, segmenter, {"PAN": (128, 160)}.get(architecture, (64, 128 if "DeepLab" in architecture else 32)))
    verify(segmenter, (64, 64), 3)


@pytest.mark.parametrize(("name", "architecture"), [case[:2] for case in CASES if "DeepLab" in case[1]][1::2])
def test_without_dead_taps_outputs_and_gradients_are_smps_to_rounding(name, architecture):
    model = theirs(architecture, decoder_channels=16)
    segmenter = ours(name, model, dead_taps="exclude", channels=16)
    assert any(isinstance(module, AtrousConv2d) for module in segmenter.modules())
    assert segmenter.decoder.network.state_dict().keys() == model.decoder.state_dict().keys()
    image = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(2)).double()
    gradients = []
    for network in (model.double().eval(), segmenter.double().eval()):
        logits = network(image)
        logits.square().mean().backward()
        gradients.append((logits, next(network.encoder.parameters()).grad))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "output_stride"), DILATED.items())
def test_outputs_are_smps_when_the_decoder_has_the_encoder_dilated(name, output_stride):
    architecture = {"smp.deeplabv3": "DeepLabV3", "smp.deeplabv3plus": "DeepLabV3Plus", "smp.pan": "PAN"}[name]
    settings, its = NARROW[architecture]
    model = theirs(architecture, "resnet18", **its)
    plain = smp.encoders.get_encoder("resnet18", weights=None)
    plain.load_state_dict(model.encoder.state_dict())
    encoder = SmpEncoder(plain)
    assert encoder.strides == (2, 4, 8, 16, 32)
    segmenter = ours(name, model, encoder, **settings)
    assert max(encoder.strides) == output_stride
    assert_same(model, segmenter, size=(128, 128) if architecture == "PAN" else (64, 96))


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("smp.unet", "Unet"),
        ("smp.manet", "MAnet"),
        ("smp.fpn", "FPN"),
        ("smp.upernet", "UPerNet"),
        ("smp.segformer", "Segformer"),
    ],
)
def test_outputs_are_smps_on_a_transformer_without_a_stride_of_2(name, architecture):
    settings, its = NARROW[architecture]
    model = theirs(architecture, "mit_b0", **its)
    segmenter = ours(name, model, **settings)
    assert segmenter.encoder.strides == (4, 8, 16, 32)
    assert_same(model, segmenter, size=(64, 64))


def test_outputs_are_smps_on_an_encoder_with_a_stride_of_1():
    model = theirs("Unet", "vgg11", decoder_channels=(32, 16, 16, 8, 8))
    encoder = SmpEncoder(copy.deepcopy(model.encoder), first=0)
    segmenter = ours("smp.unet", model, encoder, center="block", channels=(32, 16, 16, 8, 8))
    assert encoder.strides == (1, 2, 4, 8, 16, 32)
    assert_same(model, segmenter, size=(64, 32))


def test_outputs_are_smps_where_the_encoder_has_deeper_levels_than_smps():
    model = theirs("PSPNet", "resnet18")
    whole = smp.encoders.get_encoder("resnet18", weights=None)
    whole.load_state_dict(model.encoder.state_dict(), strict=True)
    assert_same(model, ours("smp.pspnet", model, SmpEncoder(whole)))


def test_outputs_are_smps_with_other_input_channels():
    model = theirs("FPN", in_channels=5)
    assert_same(model, ours("smp.fpn", model), in_channels=5)


@pytest.mark.slow
def test_dpt_gives_smps_outputs_without_readout():
    model = theirs(
        "DPT",
        "tu-vit_tiny_patch16_224",
        decoder_readout="ignore",
        decoder_intermediate_channels=(16, 32, 48, 64),
        decoder_fusion_channels=32,
        img_size=64,
    )
    encoder = ViT(copy.deepcopy(model.encoder))
    segmenter = ours("smp.dpt", model, encoder, intermediate_channels=(16, 32, 48, 64), channels=32)
    assert encoder.strides == (16,) * 4
    assert segmenter.decoder.pyramid.notes == ()
    assert_same(model, segmenter, size=(64, 64))


@pytest.mark.parametrize(
    ("strides", "wanted"),
    [
        ((16,) * 4, (16,) * 4),
        ((14,) * 12, (16,) * 4),
        ((8,), (8,) * 4),
        ((64,), (32,) * 4),
        ((2, 4, 8, 16, 32), (4, 8, 16, 32)),
        ((4, 8, 16, 32), (4, 8, 16, 32)),
    ],
)
def test_dpt_takes_four_levels_of_strides_that_it_can_scale(strides, wanted):
    assert reassembled_strides(strides) == wanted


@pytest.mark.parametrize(("name", "architecture"), [("smp.unet", "Unet"), ("smp.deeplabv3plus", "DeepLabV3Plus")])
def test_weights_start_as_spread_as_smps(name, architecture):
    model = getattr(smp, architecture)("resnet18", encoder_weights=None, classes=64)
    decoder = BUILD[name](SmpEncoder(copy.deepcopy(model.encoder)))
    pairs = [*zip(decoder.network.parameters(), model.decoder.parameters(), strict=True)]
    pairs += zip(decoder.head(64).parameters(), model.segmentation_head.parameters(), strict=True)
    large = [(own.std().item(), its.std().item()) for own, its in pairs if own.numel() > 1000]
    assert len(large) >= 6
    assert [own for own, _ in large] == [pytest.approx(its, rel=0.1) for _, its in large]


@pytest.mark.parametrize("architecture", ["DeepLabV3", "DeepLabV3Plus", "UPerNet", "PAN"])
def test_a_batch_of_one_trains_where_smp_refuses_it(architecture):
    name = f"smp.{architecture.lower()}"
    model = theirs(architecture)
    image = torch.randn(1, 3, 128, 128)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model.train()(image)
    assert ours(name, model).train()(image).shape == (1, 3, 128, 128)


@pytest.mark.parametrize(
    ("encoder", "name", "architecture"),
    [
        ("test_resnet", "smp.unet", "Unet"),
        ("test_convnext", "smp.upernet", "UPerNet"),
        ("test_convnext", "smp.deeplabv3plus", "DeepLabV3Plus"),
        ("test_efficientnet", "smp.fpn", "FPN"),
        ("test_efficientnet", "smp.segformer", "Segformer"),
    ],
)
def test_timms_encoders_under_smps_decoders_give_what_smp_gives(encoder, name, architecture):
    """Whole networks, timm's encoder as segreg builds it: nothing is adapted where SMP needs no adapter either."""
    settings, its = NARROW[architecture]
    model = theirs(architecture, f"tu-{encoder}", **its)
    own = timm_family.timm_encoder(encoder, 3)
    segmenter = ours(name, model, own, **settings)
    own.network.load_state_dict(model.encoder.model.state_dict())
    assert segmenter.decoder.features.pyramid.notes == ()
    assert_same(model, segmenter)


def test_pspnet_takes_a_level_whose_channels_four_grids_do_not_divide():
    class Odd(nn.Module):
        channels, strides = (61,), (8,)

        def forward(self, image):
            return [F.avg_pool2d(image, 8).mean(1, keepdim=True).expand(-1, 61, -1, -1)]

    encoder = Odd()
    decoder = BUILD["smp.pspnet"](encoder)
    assert decoder.features.channels[-1] == 64
    level = torch.rand(2, 61, 8, 8)
    (*_, filled) = decoder.features([level])
    assert torch.equal(filled[:, :61], level)
    assert not filled[:, 61:].any()
    assert Segmenter(encoder, decoder, 1)(torch.rand(2, 3, 64, 64)).shape == (2, 1, 64, 64)


def test_deep_supervision_trains_the_blocks_of_the_top_row_and_leaves_smps_output_as_it_is():
    torch.manual_seed(0)
    encoder = build_part("encoder", "resnet18", 3)
    decoder = BUILD["smp.unetplusplus"](encoder, channels=(16, 16, 8, 8, 4), deep_supervision=True)
    given, image = {}, torch.rand(2, 3, 64, 64)
    for name, block in decoder.decoder.network.blocks.items():
        block.register_forward_hook(lambda _, __, output, name=name: given.__setitem__(name, output))
    model = Segmenter(encoder, decoder, 2).train()
    main, *nodes = model.supervised(image)[0].values()
    assert model.further == dict.fromkeys(("node1", "node2", "node3"), 1.0)
    # SMP counts rows from the coarsest: x_3_3 is the paper's X(0,1).
    for head, name, logits in zip(model.head.others, ("x_3_3", "x_2_3", "x_1_3"), nodes, strict=True):
        expected = F.conv2d(given[name], head.weight, head.bias)
        assert torch.equal(logits, F.interpolate(expected, size=(64, 64), mode="bilinear"))
    with torch.no_grad():
        own = decoder.decoder.network.eval()(decoder.decoder.features(encoder(image)))
        assert torch.equal(decoder(encoder(image))[0], own)
    assert main.shape == (2, 2, 64, 64)
