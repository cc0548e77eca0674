"""torchvision's heads give torchvision's outputs, bit for bit, and its checkpoints are shared out rightly."""

import copy
import socket
import time

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation import deeplabv3_resnet50
from torchvision.models.segmentation.deeplabv3 import _deeplabv3_resnet
from torchvision.models.segmentation.fcn import _fcn_resnet

from segreg.errors import SegregError
from segreg.models.segmenter import Segmenter, describe
from segreg.models.verify import verify
from segreg_plugins import pretrained
from segreg_plugins.decoders import segreg_entries, torchvision_weights

BUILD = {entry.name: entry.build for entry in segreg_entries()}
TAG = "COCO_WITH_VOC_LABELS_V1"


pytestmark = pytest.mark.usefixtures("quick_networks")


class ResNetEncoder(nn.Module):
    """torchvision's ResNet by the contract, its layers under a prefix of our own."""

    def __init__(self, network: ResNet, strides=(4, 8, 8, 8), channels=(256, 512, 1024, 2048)) -> None:
        super().__init__()
        self.body = network
        self.strides, self.channels = strides, channels

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(image))))
        levels = []
        for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = layer(x)
            levels.append(x)
        return levels


def resnet(blocks=(1, 1, 1, 1), in_channels=3):
    network = ResNet(Bottleneck, list(blocks), replace_stride_with_dilation=[False, True, True])
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    del network.fc
    return ResNetEncoder(network)


def shaken(model, seed=1):
    """Statistics and affine parameters away from their neutral start, so that every one of them shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5)
    return model


@pytest.fixture(scope="module")
def small():
    """torchvision's DeepLabV3 with its auxiliary, on a ResNet of four blocks."""
    return shaken(
        _deeplabv3_resnet(ResNet(Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True]), 21, True)
    )


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "deeplab.pth"
    torch.save(small.state_dict(), path)
    return path


def assert_same(theirs, ours, size, names=("out", "aux"), modes=(False, True, False)):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for mode in modes:  # the last time with the statistics that training left behind
            outputs = []
            for network in (theirs.train(mode), ours.train(mode)):
                torch.manual_seed(3)
                outputs.append(network(image) if network is theirs else network.all_logits(image))
            assert all(torch.equal(outputs[0][name], own) for name, own in zip(names, outputs[1], strict=True))
        assert torch.equal(ours(image), theirs(image)["out"])


@pytest.mark.slow
def test_outputs_are_those_of_deeplabv3_resnet50(tmp_path):
    theirs = shaken(deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))
    path = tmp_path / "deeplab.pth"
    torch.save(theirs.state_dict(), path)
    encoder = resnet((3, 4, 6, 3))
    decoder = BUILD["torchvision.deeplabv3"](encoder, weights=str(path), dead_taps="compute")
    auxiliary = BUILD["torchvision.fcn"](encoder, level=-2, weights=str(path))
    ours = Segmenter(encoder, decoder, 21, auxiliary=auxiliary)
    assert sum(p.numel() for p in ours.parameters()) == 42_004_074  # what torchvision says of its model
    assert_same(theirs, ours, (33, 105), modes=(False,))


def test_outputs_are_those_of_torchvisions_fcn(tmp_path):
    trunk = ResNet(Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True])
    theirs = shaken(_fcn_resnet(trunk, 21, False))
    path = tmp_path / "fcn.pth"
    torch.save(theirs.state_dict(), path)
    encoder = resnet()
    ours = Segmenter(encoder, BUILD["torchvision.fcn"](encoder, output_stride=8, weights=str(path)), 21)
    assert_same(theirs, ours, (64, 65), names=("out",))


def test_a_checkpoint_fills_encoder_decoder_and_head_and_says_so(small, file):
    encoder = resnet()
    decoder = BUILD["torchvision.deeplabv3"](encoder, weights=str(file), dead_taps="compute")
    auxiliary = BUILD["torchvision.fcn"](encoder, level=-2, weights=str(file))
    ours = Segmenter(encoder, decoder, 21, auxiliary=auxiliary)
    assert_same(copy.deepcopy(small), ours, (33, 40))
    assert decoder.weights_note == f"{file}: decoder: loaded; encoder: loaded; last layer: loaded"
    assert auxiliary.weights_note == f"{file}: decoder: loaded; last layer: loaded"
    assert describe(ours)["decoder"]["weights"] == decoder.weights_note


def test_without_dead_taps_outputs_are_torchvisions_to_rounding(small, file):
    encoder = resnet()
    ours = Segmenter(encoder, BUILD["torchvision.deeplabv3"](encoder, weights=str(file)), 21).double().eval()
    image = torch.randn(2, 3, 33, 40, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        theirs = copy.deepcopy(small).double().eval()(image)["out"]
        torch.testing.assert_close(ours(image), theirs, rtol=1e-9, atol=1e-12)


def test_safetensors_and_training_checkpoints_are_read_too(small, tmp_path):
    state = {key: value.contiguous() for key, value in small.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"model": state, "epoch": 3}, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        encoder = resnet()
        decoder = BUILD["torchvision.deeplabv3"](encoder, weights=str(tmp_path / name))
        assert torch.equal(decoder.layers[1].weight, small.classifier[1].weight)
        assert torch.equal(encoder.body.layer4[0].conv2.weight, small.backbone.layer4[0].conv2.weight)


def test_the_last_layer_stays_random_for_other_classes(small, file):
    encoder = resnet()
    decoder = BUILD["torchvision.deeplabv3"](encoder, weights=str(file))
    model = Segmenter(encoder, decoder, 1)
    assert model.head.weight.shape == (1, 256, 1, 1)
    assert decoder.weights_note.endswith("; last layer: random, for the file has 21 classes and the task 1")
    verify(model, (33, 40), 3)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_layer_is_fitted_to_other_channels(file, small, channels):
    encoder = resnet(in_channels=channels)
    decoder = BUILD["torchvision.deeplabv3"](encoder, weights=str(file))
    assert f"encoder: loaded, its first layer fitted from 3 to {channels} input channels" in decoder.weights_note
    # An image whose channels are all the same gives what it gives in three channels.
    grey = torch.rand(1, 1, 32, 32)
    own = encoder.body.conv1(grey.expand(-1, channels, -1, -1))
    mean_filter = small.backbone.conv1(grey.expand(-1, 3, -1, -1))
    if channels == 1:
        assert torch.allclose(own, mean_filter, atol=1e-5)
    else:
        weights = small.backbone.conv1.weight[:, [0, 1, 2, 0]].sum(1, keepdim=True) * 0.75
        assert torch.allclose(own, nn.functional.conv2d(grey, weights, stride=2, padding=3), atol=1e-5)


def test_an_encoder_of_another_kind_is_left_alone_and_that_is_reported(file):
    class Other(nn.Module):
        channels, strides = (2048,), (8,)

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 2048, 8, stride=8)

        def forward(self, image):
            return [self.stem(image)]

    encoder = Other()
    before = encoder.stem.weight.clone()
    decoder = BUILD["torchvision.deeplabv3"](encoder, weights=str(file))
    assert torch.equal(encoder.stem.weight, before)
    assert "encoder: left as it is, for Other has not the layers of the file's backbone" in decoder.weights_note


def test_a_deeper_resnet_is_no_partial_match(file):
    encoder = resnet((1, 1, 2, 1))
    before = encoder.body.conv1.weight.clone()
    decoder = BUILD["torchvision.deeplabv3"](encoder, weights=str(file))
    assert torch.equal(encoder.body.conv1.weight, before)
    assert "layers that the file's backbone has not, such as layer3.1.conv1.weight" in decoder.weights_note


def test_rates_are_torchvisions_at_8_and_paired_elsewhere():
    def rates(decoder):
        return [
            m.dilation[0] for m in decoder.layers[0].modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
        ]

    assert rates(BUILD["torchvision.deeplabv3"](resnet())) == [12, 24, 36]
    coarse = ResNetEncoder(resnet().body, strides=(4, 8, 16, 16))
    assert rates(BUILD["torchvision.deeplabv3"](coarse, output_stride=16)) == [6, 12, 18]
    assert rates(BUILD["torchvision.deeplabv3"](resnet(), rates=(1, 2))) == [1, 2]


def test_a_batch_of_one_trains():
    encoder = resnet()
    model = Segmenter(encoder, BUILD["torchvision.deeplabv3"](encoder), 2).train()
    model(torch.randn(1, 3, 33, 33)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


class TestFilesThatCannotBe:
    def says(self, weights, encoder=None, name="torchvision.deeplabv3", **settings):
        with pytest.raises(SegregError) as raised:
            BUILD[name](encoder or resnet(), weights=str(weights), **settings)
        return str(raised.value)

    def test_none(self):
        assert self.says("there/is/none.pth") == (
            f"weights: there is no file 'there/is/none.pth'\n  the published weights are named \"{TAG}\""
        )

    @pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"no tensors at all", b"\x80\x02\x95\x00"])
    def test_no_tensors(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        assert self.says(tmp_path / name).startswith(f"weights: {tmp_path / name} can't be read: ")

    def test_code_is_not_run(self, tmp_path):
        ran = tmp_path / "ran"

        class Evil:
            def __reduce__(self):
                return (ran.mkdir, ())

        torch.save({"classifier.0": Evil()}, tmp_path / "evil.pth")
        assert "evil.pth can't be read" in self.says(tmp_path / "evil.pth")
        assert not ran.exists()

    def test_something_else(self, tmp_path):
        torch.save({"epoch": 3, "layers": [1, 2]}, tmp_path / "a.pth")
        assert self.says(tmp_path / "a.pth") == f"weights: {tmp_path / 'a.pth'} holds no state of tensors by name"
        torch.save({"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, tmp_path / "b.pth")
        assert self.says(tmp_path / "b.pth") == (
            f"{tmp_path / 'b.pth'} has no 'classifier' as torchvision's segmentation models have it\n"
            '  it has "conv1" and "fc"'
        )

    def test_other_widths(self, file):
        narrow = ResNetEncoder(resnet().body, channels=(256, 512, 1024, 512))
        assert self.says(file, narrow) == (
            f"{file} does not fit this decoder: classifier.0.convs.0.0.weight is [256, 2048, 1, 1] where "
            "[256, 512, 1, 1] was expected\n"
            "  torchvision's DeepLabV3 takes 2048 channels from a ResNet-50 or ResNet-101"
        )


class TestPublished:
    def test_addresses_are_torchvisions(self):
        fifty, more = resnet((3, 4, 6, 3)), resnet((1, 1, 23, 1))
        address = torchvision_weights._published
        assert address("deeplabv3", fifty).endswith("deeplabv3_resnet50_coco-cd0a2569.pth")
        assert address("deeplabv3", more).endswith("deeplabv3_resnet101_coco-586e9e4e.pth")
        assert address("fcn", fifty).endswith("fcn_resnet50_coco-1167a1af.pth")
        with pytest.raises(SegregError, match="for its ResNet-50 and ResNet-101; encoder ResNetEncoder is neither"):
            address("fcn", resnet())

    @pytest.fixture
    def offline(self, monkeypatch, tmp_path):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

        def refuse(*_, **__):
            raise socket.gaierror("Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        return tmp_path

    def test_offline_the_ways_out_are_reported(self, offline):
        with pytest.raises(SegregError) as raised:
            BUILD["torchvision.deeplabv3"](resnet((1, 1, 6, 1)), weights=TAG)
        said = str(raised.value)
        assert f'the weights "{TAG}" of the decoder torchvision.deeplabv3 are not available: ' in said
        assert "download https://download.pytorch.org/models/deeplabv3_resnet50_coco-cd0a2569.pth" in said
        assert str(offline / "checkpoints") in said
        assert "weights_fallback: random" in said

    def test_a_server_that_never_answers_is_given_up(self, monkeypatch, tmp_path):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        monkeypatch.setattr(pretrained, "PATIENCE", 0.1)
        monkeypatch.setattr(pretrained.urllib.request, "urlopen", lambda *_, **__: time.sleep(2))
        with pytest.raises(SegregError, match=r"no answer within 0\.1 s"):
            BUILD["torchvision.fcn"](resnet((1, 1, 6, 1)), weights=TAG)

    def test_random_weights_on_demand_are_reported_loudly(self, offline):
        decoder = BUILD["torchvision.deeplabv3"](resnet((1, 1, 6, 1)), weights=TAG, weights_fallback="random")
        assert decoder.weights_note.startswith(
            f'RANDOM weights: "{TAG}" of the decoder torchvision.deeplabv3 are not available'
        )
        assert decoder.last is None

    def test_a_file_in_the_cache_needs_no_connection(self, offline, small):
        (offline / "checkpoints").mkdir()
        state = {k: v for k, v in small.state_dict().items() if not k.startswith("backbone")}
        torch.save(state, offline / "checkpoints" / "deeplabv3_resnet50_coco-cd0a2569.pth")
        decoder = BUILD["torchvision.deeplabv3"](resnet((1, 1, 6, 1)), weights=TAG)
        assert decoder.weights_note.startswith(
            f"torchvision's deeplabv3 {TAG}: decoder: loaded; encoder: left as it is"
        )
        assert torch.equal(decoder.layers[1].weight, small.classifier[1].weight)
