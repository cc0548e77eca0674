"""torchvision's networks as encoders: every one builds with true levels, and their numbers are torchvision's own."""

import contextlib
from typing import get_args
from unittest import mock

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import nn
from torchvision.models import regnet

from segreg.errors import SegregError
from segreg_plugins import pretrained
from segreg_plugins.encoders import torchvision_family, torchvision_mobilenet, torchvision_resnets, torchvision_trunks
from segreg_plugins.encoders.levels import outline
from segreg_plugins.encoders.torchvision_encoder import TorchvisionEncoder

MEMBERS = list(torchvision_family.members())
LEFT_OUT = ("alexnet", "googlenet", "inception_v3", "squeezenet", "maxvit_t", "vit_")
# One of each kind, the smallest, with what torchvision's own documentation or papers say of its stages.
SMALLEST = {
    "densenet121": ([64, 256, 512, 1024, 1024], [2, 4, 8, 16, 32]),
    "convnext_tiny": ([96, 192, 384, 768], [4, 8, 16, 32]),
    "efficientnet_b0": ([16, 24, 40, 112, 1280], [2, 4, 8, 16, 32]),
    "mnasnet0_5": ([8, 16, 24, 48, 1280], [2, 4, 8, 16, 32]),
    "mobilenet_v2": ([16, 24, 32, 96, 1280], [2, 4, 8, 16, 32]),
    "mobilenet_v3_large": ([16, 24, 40, 112, 960], [2, 4, 8, 16, 32]),
    "regnet_y_400mf": ([32, 48, 104, 208, 440], [2, 4, 8, 16, 32]),
    "resnet18": ([64, 64, 128, 256, 512], [2, 4, 8, 16, 32]),
    "shufflenet_v2_x0_5": ([24, 24, 48, 96, 1024], [2, 4, 8, 16, 32]),
    "swin_t": ([96, 192, 384, 768], [4, 8, 16, 32]),
    "swin_v2_t": ([96, 192, 384, 768], [4, 8, 16, 32]),
    "vgg11": ([64, 128, 256, 512, 512, 512], [1, 2, 4, 8, 16, 32]),
}


# What the smallest do not have: other blocks or depths.
OTHERS = (
    "densenet161", "efficientnet_v2_s", "mobilenet_v3_small", "regnet_x_400mf", "resnext50_32x4d", "vgg11_bn", "vgg19",
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("quick_networks")


def build(name, in_channels=3, **settings):
    return torchvision_family.torchvision_encoder(name, in_channels, **settings)


def mobilenet(in_channels=3, **settings):
    return torchvision_mobilenet.mobilenet_v3_large(in_channels, **settings)


def assert_levels(encoder, maps, size):
    assert [m.shape[1] for m in maps] == encoder.channels
    for m, stride in zip(maps, encoder.strides, strict=True):
        for got, side in zip(m.shape[2:], size, strict=True):
            assert side // stride <= got <= -(-side // stride), (m.shape, stride)


def assert_same(ours, theirs):
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_names_and_weights_are_those_of_the_installed_torchvision():
    installed = torchvision.models.list_models(module=torchvision.models)
    assert sorted(name for name in installed if not name.startswith(LEFT_OUT)) == MEMBERS
    for name in MEMBERS:
        reported = get_args(get_args(torchvision_family.member_settings(name)["weights"].hint)[0])
        assert list(reported) == [tag.name for tag in torchvision.models.get_model_weights(name)]


def test_members_come_back_empty_without_torchvision(monkeypatch):
    torchvision_trunks.catalogue.cache_clear()
    monkeypatch.setattr(torchvision_trunks, "find_spec", lambda name: None)
    assert list(torchvision_family.members()) == []
    torchvision_trunks.catalogue.cache_clear()


def shape_of(name):
    """Return torchvision's network without values."""
    whole = regnet.RegNet

    def outlined(*given, **named):
        with torch.device("meta"):
            return whole(*given, **named)

    # A RegNet reads numbers from tensors before it makes its layers.
    with (
        mock.patch.object(regnet, "RegNet", outlined),
        contextlib.nullcontext() if name.startswith("regnet") else torch.device("meta"),
    ):
        return torchvision.models.get_model(name, weights=None)


@pytest.mark.parametrize("name", OTHERS)
def test_other_members_build_and_give_true_levels(name):
    """On shapes alone."""
    encoder = TorchvisionEncoder(name, shape_of(name), 3).eval()
    assert encoder.strides in ([1, 2, 4, 8, 16, 32], [2, 4, 8, 16, 32], [4, 8, 16, 32])
    assert_levels(encoder, outline(encoder, 3, (97, 161)), (97, 161))


@pytest.mark.parametrize("name", SMALLEST)
def test_levels_are_torchvisions_own_and_the_network_trains(name):
    channels, strides = SMALLEST[name]
    encoder = build(name)
    assert (encoder.channels, encoder.strides) == (channels, strides)
    theirs, ours = shape_of(name).eval(), dict(encoder.named_children())
    for top, layers in [*theirs.named_children()]:
        if top in ours:
            layers.load_state_dict(ours[top].state_dict(), assign=True)
        else:  # what makes classes of the last map
            setattr(theirs, top, nn.Identity())
    seen = {}
    for step in encoder.kept:  # copied, for what comes next may write into it
        theirs.get_submodule(step).register_forward_hook(
            lambda _m, _i, out, step=step: seen.update({step: out.clone()})
        )
    image = torch.rand(1, 3, 33, 49)
    with torch.no_grad():
        theirs(image)
        ours = encoder.eval()(image)
    last = [seen[step].permute(0, 3, 1, 2) if "swin" in name else seen[step] for step in encoder.kept]
    assert_same(ours, last)
    assert_levels(encoder, ours, (33, 49))
    sum(level.mean() for level in encoder.train()(torch.rand(2, 3, 32, 32))).backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize(
    ("name", "in_channels", "side", "stride", "padding"),
    [("convnext_tiny", 4, 4, 4, 0), ("regnet_y_400mf", 1, 3, 2, 1), ("vgg11", 2, 3, 1, 1)],
)
def test_other_channels(name, in_channels, side, stride, padding):
    """The first layer keeps its own shape."""
    encoder = build(name, in_channels)
    first = next(layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d))
    shape = (first.in_channels, first.kernel_size, first.stride, first.padding)
    assert shape == (in_channels, (side, side), (stride, stride), (padding, padding))
    with torch.no_grad():
        maps = encoder(torch.rand(2, in_channels, 64, 64))
    assert_levels(encoder, maps, (64, 64))
    assert len(encoder.normalization[0]) == len(encoder.normalization[1]) == in_channels


@pytest.mark.parametrize(
    ("name", "can"),
    [
        ("resnet50", (8, 16)),
        ("mobilenet_v3_small", (16,)),
        ("resnet18", ()),
        ("densenet121", ()),
    ],
)
def test_dilation_is_torchvisions_where_it_knows_how(name, can):
    for output_stride in (16, 8):
        encoder = build(name).eval()
        parameters, before = list(encoder.parameters()), list(encoder.strides)
        assert encoder.dilate(output_stride) is (output_stride in can)
        assert all(a is b for a, b in zip(parameters, encoder.parameters(), strict=True))
        if output_stride not in can:
            assert encoder.strides == before
            continue
        assert encoder.strides == [min(stride, output_stride) for stride in before]
        with torch.no_grad():
            assert_levels(encoder, encoder(torch.rand(1, 3, 65, 97)), (65, 97))
    assert encoder.dilate(32)


@pytest.mark.parametrize(
    ("output_stride", "third", "fourth"), [(32, [1] * 6, [1, 2, 4]), (16, [1] * 6, [2, 4, 8]), (8, [2] * 6, [4, 8, 16])]
)
def test_a_multi_grid_dilates_block_by_block_as_deeplabv3_does(output_stride, third, fourth):
    """The rates are listed from its section 3.2.1, which has 2, 4, 8 at an output stride of 16."""
    built = torchvision_resnets.resnet50(3, output_stride=output_stride, multi_grid=(1, 2, 4))
    changed = torchvision_resnets.resnet50(3, output_stride=32, multi_grid=(1, 2, 4))
    changed.dilate(output_stride)
    for encoder in (built, changed):
        assert [block.conv2.dilation[0] for block in encoder.layer3] == third
        assert [block.conv2.dilation[0] for block in encoder.layer4] == fourth
        assert all(block.conv2.padding == block.conv2.dilation for block in encoder.layer4)
        assert max(encoder.strides) == output_stride
    changed.load_state_dict(built.state_dict())
    image = torch.rand(1, 3, 33, 33)
    with torch.no_grad():
        assert_same(built.eval()(image), changed.eval()(image))


def test_a_multi_grid_of_ones_is_the_dilation_of_smps_resnet():
    """SMP's, too, has the stage's rate in every block."""
    ours = torchvision_resnets.resnet50(3, output_stride=8, multi_grid=(1, 1, 1)).eval()
    theirs = smp.encoders.get_encoder("resnet50", weights=None).eval()
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if k in theirs.state_dict()}, strict=False)
    theirs.make_dilated(8)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image)[-1], theirs(image)[-1], rtol=1e-4, atol=1e-4)


class TestMobileNetV3Large:
    def test_levels_are_those_of_torchvisions_segmentation_models(self):
        theirs = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
        deeplab = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, aux_loss=True
        ).eval()
        deeplab.backbone.load_state_dict(theirs.backbone.state_dict())
        ours = mobilenet().eval()
        ours.features.load_state_dict(theirs.backbone.state_dict(), strict=True)
        assert (ours.channels, ours.strides) == ([16, 24, 40, 80, 960], [2, 4, 8, 16, 16])
        image = torch.rand(1, 3, 65, 96)
        mine, backbone, other = ours(image), theirs.backbone(image), deeplab.backbone(image)
        assert_same([mine[2], mine[4]], [backbone["low"], backbone["high"]])
        assert_same([mine[2], mine[4]], [other["aux"], other["out"]])

    def test_output_strides(self):
        coarse = mobilenet(output_stride=32)
        assert coarse.strides == [2, 4, 8, 16, 32]
        assert coarse.dilate(8) is False
        assert coarse.strides == [2, 4, 8, 16, 32]
        assert coarse.dilate(16)
        built = mobilenet()
        built.load_state_dict(coarse.state_dict())
        image = torch.rand(1, 3, 64, 64)
        assert_same(coarse.eval()(image), built.eval()(image))


class TestWeights:
    @pytest.fixture(autouse=True)
    def cache(self, monkeypatch, tmp_path):
        """An empty cache and no connection."""
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(pretrained, "_asked", lambda address: "no route to host")
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        return folder

    def put(self, folder, name, tag, rename=lambda key: key):
        model = torchvision.models.get_model(name, weights=None)
        state = model.state_dict()
        for key in list(state):
            state[rename(key)] = state.pop(key)
        published = torchvision.models.get_model_weights(name)[tag]
        torch.save(state, folder / published.url.rsplit("/", 1)[1])
        return model

    @pytest.mark.parametrize("name", ["mnasnet0_5", "shufflenet_v2_x0_5", "regnet_y_400mf"])
    def test_they_come_from_the_cache(self, cache, name):
        model = self.put(cache, name, "IMAGENET1K_V1").state_dict()
        encoder = build(name, weights="IMAGENET1K_V1")
        assert encoder.weights_note == ""
        assert all(torch.equal(value, model[key]) for key, value in encoder.state_dict().items())

    def test_the_named_mobilenet_has_them_too(self, cache):
        model = self.put(cache, "mobilenet_v3_large", "IMAGENET1K_V2").state_dict()
        encoder = mobilenet(weights="IMAGENET1K_V2")
        assert all(torch.equal(value, model[key]) for key, value in encoder.state_dict().items())

    def test_densenets_old_names_are_read(self, cache):
        def old(key):
            return key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key

        model = self.put(cache, "densenet121", "IMAGENET1K_V1", old).state_dict()
        encoder = build("densenet121", weights="IMAGENET1K_V1")
        assert all(torch.equal(value, model[key]) for key, value in encoder.state_dict().items())

    def test_other_channels_adapt_the_first_layer(self, cache):
        first = self.put(cache, "convnext_tiny", "IMAGENET1K_V1").features[0][0]
        grey, four = (build("convnext_tiny", n, weights="IMAGENET1K_V1").features[0][0] for n in (1, 4))
        torch.testing.assert_close(grey.weight, first.weight.sum(1, keepdim=True))
        torch.testing.assert_close(four.weight, first.weight[:, [0, 1, 2, 0]] * 0.75)
        assert torch.equal(grey.bias, first.bias)
        assert torch.equal(four.bias, first.bias)

    def test_statistics_are_those_of_the_weights(self, cache):
        with torch.device("meta"):
            shapes = torchvision.models.vgg16(weights=None).state_dict()
        # The file holds one number for each tensor: the weights are no part of this, and there are half a gigabyte.
        state = {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}
        published = torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES
        torch.save(state, cache / published.url.rsplit("/", 1)[1])
        mean, std = build("vgg16", weights="IMAGENET1K_FEATURES").normalization
        assert mean == (0.48235, 0.45882, 0.40784)
        assert std == (1 / 255,) * 3

    def test_offline_the_ways_out_are_named(self):
        with pytest.raises(SegregError) as raised:
            build("swin_t", weights="IMAGENET1K_V1")
        said = str(raised.value)
        assert 'the weights "IMAGENET1K_V1" of the encoder torchvision/swin_t are not available: ' in said
        assert "download https://download.pytorch.org/models/swin_t-704ceda3.pth" in said
        encoder = mobilenet(weights="IMAGENET1K_V1", weights_fallback="random")
        assert encoder.weights_note.startswith(
            'RANDOM weights: "IMAGENET1K_V1" of the encoder torchvision.mobilenet_v3'
        )
