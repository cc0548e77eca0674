"""The encoders themselves: levels as declared, dilation, and outputs equal to the libraries' own."""

import copy

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from timm.layers import resample_abs_pos_embed

from segreg.errors import SegregError
from segreg.registry.protocols import Encoder
from segreg_plugins.encoders import levels, smp_family, timm_family, torchvision_resnets

SMP = [
    "resnet18",
    "dpn68",
    "vgg11",
    "se_resnet50",
    "densenet121",
    "inceptionv4",
    "efficientnet-b0",
    "mobilenet_v2",
    "xception",
    "mit_b0",
    "mobileone_s0",
]
# name, what the strides are known to be
TIMM = {
    "test_resnet": [2, 4, 8, 16, 32],
    "test_convnext": [4, 8, 16, 32],
    "test_efficientnet": [2, 4, 8, 16, 32],
    "test_vit": [16, 16, 16, 16],
    "mobilevit_xxs": [2, 4, 8, 16, 32],
    "pvt_v2_b0": [4, 8, 16, 32],
    "swin_tiny_patch4_window7_224": [4, 8, 16, 32],  # channels last
    "dla34": [2, 4, 8, 16, 32],  # only multiples of 32
}


pytestmark = pytest.mark.usefixtures("quick_networks")


def smp_encoder(name, in_channels=3, **settings):
    return smp_family.smp_encoder(name, in_channels, **settings)


def timm_encoder(name, in_channels=3, **settings):
    return timm_family.timm_encoder(name, in_channels, **settings)


def assert_true(encoder, in_channels, size, slack=0):
    """What comes out has the channels declared, and H / stride rounded up or down."""
    assert isinstance(encoder, Encoder)
    height, width = size
    with torch.no_grad():
        maps = encoder(torch.rand(2, in_channels, height, width))
    assert [m.shape[1] for m in maps] == list(encoder.channels)
    assert all(channels > 0 for channels in encoder.channels)
    assert list(encoder.strides) == sorted(encoder.strides)
    for m, stride in zip(maps, encoder.strides, strict=True):
        for got, side in zip(m.shape[2:], (height, width), strict=True):
            assert side // stride - slack <= got <= -(-side // stride), (m.shape, stride)
    mean, std = encoder.normalization
    assert len(mean) == len(std) == in_channels
    assert encoder.weights_note == ""


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "in_channels", "size"),
    [*((name, 4, (65, 79)) for name in SMP), *((name, 1, (64, 64)) for name in ("resnet18", "mit_b0"))],
)
def test_smp_levels_are_as_declared(name, in_channels, size):
    assert_true(smp_encoder(name, in_channels), in_channels, size)


@pytest.mark.parametrize(("name", "depth"), [("resnet18", 3), ("efficientnet-b0", 4), ("mit_b0", 3)])
def test_smp_depth_keeps_the_first_levels_and_drops_what_they_do_not_need(name, depth):
    torch.manual_seed(0)
    whole = smp_encoder(name).eval()
    torch.manual_seed(0)
    part = smp_encoder(name, depth=depth).eval()
    kept = len(part.channels)
    assert part.strides == whole.strides[:kept]
    assert part.strides[-1] == 2**depth
    image = torch.rand(1, 3, 64, 64)
    assert_same(part(image), whole(image)[:kept])
    sum(level.sum() for level in part(image)).backward()
    assert all(parameter.grad is not None for parameter in part.parameters())


@pytest.mark.parametrize("name", ["resnet18", "mit_b0", "efficientnet-b0"])
def test_smp_outputs_are_smps_own(name):
    theirs = smp.encoders.get_encoder(name, in_channels=3, weights=None).eval()
    ours = smp_encoder(name).eval()
    ours.network.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 3, 64, 64)
    real = [f for f in theirs(image) if f is not image and f.shape[1]]
    assert_same(ours(image), real)


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("resnet18", 8), ("resnet18", 16), ("efficientnet-b0", 8), ("mobilenet_v2", 16), ("mit_b0", 8)],
)
def test_smp_dilation_is_smps_own(name, output_stride):
    theirs = smp.encoders.get_encoder(name, weights=None, output_stride=output_stride).eval()
    ours = smp_encoder(name).eval()
    ours.network.load_state_dict(theirs.state_dict())
    parameters = list(ours.parameters())
    assert ours.dilate(output_stride)
    assert ours.strides[-1] == output_stride
    assert all(a is b for a, b in zip(parameters, ours.parameters(), strict=True))
    assert_true(ours, 3, (64, 64))
    image = torch.rand(1, 3, 64, 64)
    assert_same(ours(image), [f for f in theirs(image) if f is not image and f.shape[1]])


@pytest.mark.parametrize("name", ["vgg11", "densenet121", "xception"])
def test_smp_encoders_that_pool_say_so_and_stay_as_they_are(name):
    encoder = smp_encoder(name).eval()
    image = torch.rand(1, 3, 64, 64)
    before, strides = encoder(image), list(encoder.strides)
    assert encoder.dilate(16) is False
    assert encoder.strides == strides
    assert_same(encoder(image), before)


def test_dilating_to_what_is_already_there_changes_nothing():
    encoder = smp_encoder("resnet18", depth=4)
    assert encoder.dilate(16)
    assert encoder.dilate(32)
    assert encoder.strides == [2, 4, 8, 16]
    assert smp_encoder("resnet18").dilate(4) is False


@pytest.mark.parametrize(
    ("name", "in_channels", "size"),
    [*((name, 1, (97, 113)) for name in TIMM), ("test_vit", 3, (64, 64))],
)
def test_timm_levels_are_as_declared(name, in_channels, size):
    encoder = timm_encoder(name, in_channels)
    assert encoder.strides == TIMM[name]
    padded = tuple(-(-side // encoder.size_divisor) * encoder.size_divisor for side in size)
    if encoder.size_divisor == 1:
        assert_true(encoder, in_channels, size)
    else:
        with torch.no_grad():
            maps = encoder(torch.rand(1, in_channels, *size))
        assert [m.shape[1] for m in maps] == encoder.channels
        for m, stride in zip(maps, encoder.strides, strict=True):
            assert tuple(m.shape[2:]) == tuple(-(-side // stride) for side in padded)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_mambaout"])
def test_timm_outputs_are_timms_own(name):
    theirs = timm.create_model(name, pretrained=False, features_only=True).eval()
    ours = timm_encoder(name).eval()
    ours.network.load_state_dict(theirs.state_dict())
    assert any(level.channels_last for level in ours.levels) is (name == "test_mambaout")
    image = torch.rand(1, 3, 96, 64)
    real = [f if f.shape[1] == c else f.permute(0, 3, 1, 2) for f, c in zip(theirs(image), ours.channels, strict=True)]
    assert_same(ours(image), real)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_timm_dilation_keeps_the_parameters_and_follows_timm(name):
    encoder = timm_encoder(name, 4).eval()
    parameters = dict(encoder.named_parameters())
    assert encoder.dilate(16)
    assert max(encoder.strides) == 16
    assert_true(encoder, 4, (64, 96))
    assert all(parameters[key] is parameter for key, parameter in encoder.named_parameters())
    assert not encoder.training
    assert not any(module.training for module in encoder.modules())
    theirs = timm.create_model(name, pretrained=False, features_only=True, in_chans=4, output_stride=16).eval()
    theirs.load_state_dict(encoder.network.state_dict())
    image = torch.rand(1, 4, 64, 64)
    assert_same(encoder(image), theirs(image))
    assert encoder.dilate(8)
    assert max(encoder.strides) == 8
    assert_true(encoder, 4, (64, 64))


def test_a_timm_model_that_can_not_dilate_stays_as_it_is():
    encoder = timm_encoder("pvt_v2_b0").eval()
    image = torch.rand(1, 3, 64, 64)
    before = encoder(image)
    assert encoder.dilate(16) is False
    assert encoder.strides == [4, 8, 16, 32]
    assert_same(encoder(image), before)


def test_a_timm_model_of_one_size_refuses_others_with_the_way_out():
    encoder = timm_encoder("mixer_s16_224")
    assert encoder.image_size == (224, 224)
    with pytest.raises(SegregError, match=r"built for images of 224x224 pixels and takes no other size") as caught:
        encoder(torch.rand(1, 3, 64, 96))
    assert "set img_size: [64, 96]" in str(caught.value)
    assert_true(timm_encoder("mixer_s16_224", img_size=(64, 96)), 3, (64, 96))


def test_a_timm_model_that_resizes_its_input_counts_as_one_of_one_size():
    assert timm_encoder("crossvit_tiny_240").image_size == (240, 240)


def test_a_timm_model_whose_tables_are_too_short_for_larger_images_counts_as_one_of_one_size():
    encoder = timm_encoder("mvitv2_tiny", img_size=(64, 64))
    assert encoder.image_size == (64, 64)
    assert_true(encoder, 3, (64, 64))


@pytest.mark.parametrize("name", ["skresnet18", "rexnet_100"])
def test_a_timm_model_that_normalises_pooled_channels_trains_on_one_image(name):
    encoder = timm_encoder(name).train()
    levels = encoder(torch.rand(1, 3, 64, 64))
    levels[-1].mean().backward()
    assert all(level.isfinite().all() for level in levels)
    assert next(encoder.parameters()).grad.isfinite().all()


def test_img_size_where_there_is_none():
    with pytest.raises(SegregError, match='"test_resnet" is not built for a chosen size: it has no img_size'):
        timm_encoder("test_resnet", img_size=(64, 64))


@pytest.mark.filterwarnings("ignore:CSATv2 is designed for 3-channel RGB input:UserWarning")
def test_channels_that_a_timm_model_can_not_take():
    # CSATv2 begins with a fixed cosine transform of three colours.
    with pytest.raises(SegregError, match='"csatv2" can\'t take images of 4 channels and 512x512 pixels'):
        timm_encoder("csatv2", 4)


def test_timm_statistics_come_from_its_own_record():
    encoder = timm_encoder("test_resnet")
    config = timm.models.get_pretrained_cfg("test_resnet")
    assert encoder.normalization == (tuple(config.mean), tuple(config.std))
    mean, std = timm_encoder("test_resnet", 1).normalization
    assert mean == pytest.approx((sum(config.mean) / 3,))
    assert std == pytest.approx((sum(config.std) / 3,))
    assert timm_encoder("test_resnet", 4).normalization[0] == (*config.mean, config.mean[0])


def test_torchvision_names_outputs_and_strides_are_torchvisions_own():
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    theirs = theirs.eval().backbone
    ours = torchvision_resnets.resnet50(3).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.rand(1, 3, 65, 64)
    out = theirs(image)
    mine = ours(image)
    assert_same([mine[-1], mine[-2]], [out["out"], out["aux"]])
    assert ours.strides == [2, 4, 8, 8, 8]
    assert_true(ours, 3, (64, 96))


@pytest.mark.parametrize("output_stride", [8, 16])
def test_torchvision_dilation_after_the_fact_is_the_same_network(output_stride):
    ours = torchvision_resnets.resnet50(4, output_stride=32).eval()
    built = torchvision_resnets.resnet50(4, output_stride=output_stride).eval()
    built.load_state_dict(ours.state_dict())
    assert ours.strides == [2, 4, 8, 16, 32]
    parameters = list(ours.parameters())
    assert ours.dilate(output_stride)
    assert ours.strides == built.strides
    assert all(a is b for a, b in zip(parameters, ours.parameters(), strict=True))
    image = torch.rand(1, 4, 64, 64)
    assert_same(ours(image), built(image))
    assert ours.dilate(4) is False


def test_torchvision_first_layer_for_other_channels():
    from segreg_plugins.encoders.torchvision_encoder import _first_layer

    layer = torch.nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    grey = torch.rand(1, 1, 16, 16)
    one = _first_layer(layer, 1, pretrained=True)
    torch.testing.assert_close(one(grey), layer(grey.expand(-1, 3, -1, -1)))
    six = _first_layer(layer, 6, pretrained=True)
    colour = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(six(torch.cat([colour, colour], dim=1)), layer(colour))


def test_measuring_leaves_a_network_and_the_random_numbers_as_they_were():
    network = timm.create_model("test_resnet", pretrained=False, features_only=True)
    network.train()
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    maps = levels.outline(network, 3, (64, 64))
    assert [tuple(m.shape[1:]) for m in maps][-1] == (96, 2, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())


def test_a_network_that_reads_values_can_not_be_outlined():
    class Reader(torch.nn.Module):
        def forward(self, image):
            return [image * image.mean().item()]

    assert levels.outline(Reader(), 3, (8, 8)) is None


def test_a_vit_gives_four_levels_spaced_over_its_blocks_and_interpolates_its_positions_to_the_image():
    ours = timm_encoder("test_vit").eval()
    built = timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=(96, 208)).eval()
    state = ours.network.model.state_dict()
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], new_size=[6, 13], num_prefix_tokens=1)
    built.load_state_dict(state, strict=False)
    image = torch.rand(1, 3, 96, 208)
    expected = built.forward_intermediates(image, intermediates_only=True, norm=False)
    assert len(expected) == 6
    for level, reference in zip(ours(image), [expected[block] for block in (0, 2, 3, 5)], strict=True):
        assert torch.allclose(level, reference, atol=1e-5)


@pytest.mark.parametrize(("name", "prefix"), [("test_vit", 1), ("vit_tiny_patch16_dinov3_qkvb", 5)])
def test_class_and_register_tokens_are_no_place_of_the_map(name, prefix):
    """The last map is what timm's own network has after its class and register tokens."""
    ours = timm_encoder(name).eval()
    whole = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    whole.load_state_dict(ours.network.model.state_dict(), strict=False)
    whole.norm = torch.nn.Identity()
    image = torch.rand(1, 3, 64, 96)
    tokens = whole.forward_features(image)
    assert tokens.shape[1] == prefix + 4 * 6
    assert whole.num_prefix_tokens == prefix
    last = ours(image)[-1]
    assert torch.allclose(last.flatten(2).transpose(1, 2), tokens[:, prefix:], atol=1e-5)


def test_measuring_leaves_tensors_that_several_layers_share_where_they_were():
    encoder = timm_encoder("coat_lite_tiny")
    assert len(dict(encoder.named_parameters(remove_duplicate=False))) > len(dict(encoder.named_parameters()))
    assert {parameter.device.type for parameter in encoder.parameters()} == {"cpu"}
    assert encoder.channels == [64, 128, 256, 320]


def test_maps_that_lack_the_images_border_get_it_back_around_their_middle():
    """Inception's convolutions don't pad: at 128 pixels its map of stride 8 has 13 places, and 16 were expected."""
    ours = timm_encoder("inception_v3").eval()
    image = torch.rand(1, 3, 128, 128)
    assert_true(ours, 3, (128, 128))
    assert_true(ours, 3, (131, 170))
    with torch.no_grad():
        for level, own in zip(ours(image), ours.network(image), strict=True):
            before = (level.shape[-1] - own.shape[-1]) // 2
            inside = level[..., before : before + own.shape[-2], before : before + own.shape[-1]]
            assert torch.equal(inside, own)
            assert torch.equal(level[..., 0, before], own[..., 0, 0])
            assert torch.equal(level[..., -1, -1], own[..., -1, -1])
