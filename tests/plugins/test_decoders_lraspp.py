"""LR-ASPP computes what torchvision's lraspp_mobilenet_v3_large computes, outputs and gradients, bit for bit."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large
from torchvision.models.segmentation.lraspp import LRASPPHead

from segreg.models.segmenter import Segmenter, describe
from segreg.models.verify import verify
from segreg_plugins.decoders.lraspp import lraspp
from segreg_plugins.encoders.torchvision_family import torchvision_encoder
from segreg_plugins.encoders.torchvision_mobilenet import mobilenet_v3_large

pytestmark = pytest.mark.usefixtures("quick_networks")


def ours_of(theirs, classes):
    encoder = mobilenet_v3_large(3)
    model = Segmenter(encoder, lraspp(encoder), classes)
    encoder.features.load_state_dict(theirs.backbone.state_dict(), strict=True)
    head = theirs.classifier.state_dict()
    model.decoder.load_state_dict({k: v for k, v in head.items() if "classifier" not in k}, strict=True)
    model.head.load_state_dict({k: v for k, v in head.items() if "classifier" in k}, strict=True)
    return model


def test_outputs_and_gradients_are_those_of_lraspp_mobilenet_v3_large():
    torch.manual_seed(0)
    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    ours = ours_of(theirs, 5)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    image = torch.rand(2, 3, 65, 97)
    for mode in (True, False):  # the second time with the statistics that training left behind
        outputs = theirs.train(mode)(image)["out"], ours.train(mode)(image)
        assert torch.equal(*outputs)
        for network, output in zip((theirs, ours), outputs, strict=True):
            network.zero_grad()
            output.square().mean().backward()
        wanted = [
            *theirs.backbone.parameters(),
            *(p for n, p in theirs.classifier.named_parameters() if "classifier" not in n),
            *theirs.classifier.low_classifier.parameters(),
            *theirs.classifier.high_classifier.parameters(),
        ]
        got = [*ours.encoder.parameters(), *ours.decoder.parameters(), *ours.head.parameters()]
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(got, wanted, strict=True))


def test_published_parameters_are_counted_as_torchvision_counts_them():
    encoder = mobilenet_v3_large(3)
    model = Segmenter(encoder, lraspp(encoder), 21)
    assert sum(p.numel() for p in model.parameters()) == 3_221_538  # what torchvision says of its model


def test_other_widths_are_torchvisions_head_of_those_widths():
    encoder = torchvision_encoder("resnet18", 3).eval()
    decoder = lraspp(encoder, output_stride=32, channels=24, low_level_stride=4).eval()
    head = decoder.head(3)
    theirs = LRASPPHead(64, 512, 3, 24).eval()
    theirs.load_state_dict({**decoder.state_dict(), **head.state_dict()}, strict=True)
    levels = encoder(torch.rand(2, 3, 64, 96))
    assert torch.equal(head(decoder(levels)), theirs({"low": levels[1], "high": levels[4]}))


def test_an_encoder_without_its_levels_is_served_by_the_pyramid():
    encoder = torchvision_encoder("resnet18", 1)  # which torchvision can't dilate
    model = Segmenter(encoder, lraspp(encoder), 1)
    verify(model, (65, 97), 1)
    assert describe(model)["decoder"]["notes"] == ["the encoder's level 5 of 5 is resampled from stride 32 to 16"]
    assert model.decoder.stride == 8


def test_a_batch_of_one_small_image_trains():
    encoder = mobilenet_v3_large(3)
    decoder = lraspp(encoder).train()
    levels = [
        torch.randn(1, c, -(-16 // s), -(-16 // s)) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert levels[-1].shape[2:] == (1, 1)
    statistics = copy.deepcopy(decoder.cbr[1].running_mean)
    decoder(levels).sum().backward()
    assert torch.equal(decoder.cbr[1].running_mean, statistics)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        LRASPPHead(40, 960, 2, 128).train()({"low": levels[2], "high": levels[4]})


def test_the_head_adds_two_linear_classifiers():
    encoder = mobilenet_v3_large(3)
    decoder = lraspp(encoder)
    assert decoder.channels == 40 + 128
    head = decoder.head(2)
    assert {name: tuple(p.shape) for name, p in head.named_parameters() if p.ndim > 1} == {
        "low_classifier.weight": (2, 40, 1, 1),
        "high_classifier.weight": (2, 128, 1, 1),
    }
    assert isinstance(decoder.cbr[1], nn.BatchNorm2d)
