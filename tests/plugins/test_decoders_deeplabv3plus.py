"""The from-scratch DeepLabV3+ has the paper's structure, and computes what independent implementations compute."""

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP as SmpASPP
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP as TorchvisionASPP

from segreg.models.segmenter import Segmenter
from segreg_plugins.decoders.deeplabv3plus import deeplabv3plus
from segreg_plugins.decoders.deeplabv3plus_network import ASPP, convolution, paired_rates


class CNN(nn.Module):
    """A small convolutional network of strides 2 to 32 that can be dilated."""

    def __init__(self, channels=(8, 16, 16, 24, 32), in_channels: int = 3) -> None:
        super().__init__()
        self.channels, self.strides = tuple(channels), (2, 4, 8, 16, 32)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
            )
            for before, after in zip((in_channels, *channels[:-1]), channels, strict=True)
        )

    def dilate(self, output_stride: int) -> bool:
        for stage, stride in zip(self.stages, self.strides, strict=True):
            if stride > output_stride:
                stage[0].stride = (1, 1)
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)
        return True

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        levels = [image]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return levels[1:]


def count(module):
    return sum(p.numel() for p in module.parameters())


def dilations(decoder):
    return [branch[0].dilation[0] for branch in decoder.aspp.atrous]


def shaken(module):
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor in (m.weight, m.bias, m.running_mean, m.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module.eval()


@pytest.mark.parametrize(("stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_rates_are_paired_with_the_output_stride_as_in_the_paper(stride, rates):
    encoder = CNN()
    decoder = deeplabv3plus(encoder, output_stride=stride)
    assert max(encoder.strides) == stride
    assert dilations(decoder) == rates == list(paired_rates(stride))
    assert decoder.pyramid.strides == (4, stride)
    assert decoder.stride == 4


def test_rates_follow_the_stride_that_the_encoder_really_has():
    encoder = CNN()
    encoder.dilate(8)
    decoder = deeplabv3plus(encoder, output_stride=16)
    assert dilations(decoder) == [12, 24, 36]
    assert dilations(deeplabv3plus(encoder, rates=(2, 5))) == [2, 5]


@pytest.mark.parametrize("kind", ["plain", "separable"])
@pytest.mark.parametrize("rate", [6, 12, 18])
def test_an_atrous_branch_sees_nine_places_at_its_rate(kind, rate):
    branch = convolution(2, 3, 3, rate=rate, separable=kind == "separable").eval()
    for p in branch.parameters():
        nn.init.constant_(p, 1.0)
    image = torch.zeros(1, 2, 41, 41, requires_grad=True)
    branch(image)[0, :, 20, 20].sum().backward()
    seen = image.grad[0].abs().sum(0).nonzero().tolist()
    assert seen == [[20 + i, 20 + j] for i in (-rate, 0, rate) for j in (-rate, 0, rate)]


def test_plain_aspp_computes_what_torchvisions_does():
    theirs = shaken(TorchvisionASPP(20, (6, 12, 18), out_channels=16))
    ours = ASPP(20, 16, rates=(6, 12, 18), separable=False, dropout=0.5)
    # The same layers in the same order, under other names.
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    features = torch.randn(2, 20, 9, 13)
    # Not bit for bit: torchvision's bilinear weights for the single pooled value don't add up to exactly 1.
    assert torch.allclose(ours.eval()(features), theirs(features), rtol=1e-5, atol=1e-5)


def test_without_image_pooling_no_feature_sees_beyond_the_largest_rate():
    settings = {"rates": (1, 2), "separable": False, "dropout": 0.0}
    torch.manual_seed(0)  # with unlucky weights a ReLU hides what was seen
    for pooled, width in ((True, 15), (False, 5)):
        aspp = ASPP(3, 4, image_pooling=pooled, **settings).eval()
        features = torch.rand(1, 3, 15, 15, requires_grad=True)
        aspp(features)[..., 7, 7].sum().backward()
        assert int((features.grad.abs().sum((0, 1)) > 0).any(0).sum()) == width
    assert aspp.project[0].in_channels == 3 * 4
    without = deeplabv3plus(CNN(), image_pooling=False)
    assert count(deeplabv3plus(CNN())) - count(without) == 32 * 256 + 2 * 256 + 256 * 256


def test_parameters_are_smps_but_for_the_batchnorm_between_the_separable_steps():
    plain = {s: SmpASPP(40, 16, (6, 12, 18), separable=s, dropout=0.1) for s in (False, True)}
    assert count(ASPP(40, 16, rates=(6, 12, 18), separable=False, dropout=0.1)) == count(plain[False])
    between = 3 * 2 * 40
    assert count(ASPP(40, 16, rates=(6, 12, 18), separable=True, dropout=0.1)) == count(plain[True]) + between
    # At the paper's widths on a ResNet: SMP refines before and after joining (once each), the paper twice after.
    decoder = deeplabv3plus(CNN(channels=(64, 256, 512, 1024, 2048)))
    smp = DeepLabV3PlusDecoder(
        [3, 64, 256, 512, 1024, 2048], 5, 256, (6, 12, 18), 16, aspp_separable=True, aspp_dropout=0.1
    )
    assert count(decoder.aspp) == count(smp.aspp[0]) + 3 * 2 * 2048
    assert count(decoder.reduce) == count(smp.block1) == 48 * 256 + 2 * 48
    assert count(decoder.refine[0]) == count(smp.block2) + 2 * 304
    assert count(decoder.refine[1]) == count(smp.aspp[1:]) + 2 * 256
    assert count(decoder) == count(smp) + 3 * 2 * 2048 + 2 * 304 + 2 * 256


def test_the_decoder_is_the_papers():
    decoder = deeplabv3plus(CNN(channels=(64, 256, 512, 1024, 2048)), convolution="plain")
    convolutions = [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.bias) for m in decoder.modules() if isinstance(m, nn.Conv2d)
    ]
    assert convolutions == [
        (2048, 256, 1, None),
        *[(2048, 256, 3, None)] * 3,
        (2048, 256, 1, None),
        (5 * 256, 256, 1, None),
        (256, 48, 1, None),
        (304, 256, 3, None),
        (256, 256, 3, None),
    ]
    model = Segmenter(encoder := CNN(), deeplabv3plus(encoder), 7)
    assert (model.head.kernel_size, model.head.in_channels, model.head.out_channels) == ((1, 1), 256, 7)


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_the_whole_forward_is_the_papers_figure_2(size):
    encoder = shaken(CNN())
    decoder = shaken(deeplabv3plus(encoder, convolution="plain", channels=12, low_level_channels=6))
    levels = encoder(torch.randn(2, 3, *size))
    weights = decoder.state_dict()

    def layer(name, x, rate=1):
        kernel = weights[f"{name}.0.weight"]
        x = F.conv2d(x, kernel, padding=rate * (kernel.shape[-1] // 2), dilation=rate)
        mean, var, gamma, beta = (
            weights[f"{name}.1.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * gamma + beta).clamp(min=0)

    coarse, fine = levels[4], levels[1]
    branches = [layer("aspp.pointwise", coarse)]
    branches += [layer(f"aspp.atrous.{i}", coarse, rate) for i, rate in enumerate((6, 12, 18))]
    branches.append(layer("aspp.image_pooling.1", coarse.mean((2, 3), keepdim=True)) + torch.zeros_like(branches[0]))
    x = layer("aspp.project", torch.cat(branches, 1))
    x = F.interpolate(x, fine.shape[-2:], mode="bilinear", align_corners=False)
    x = torch.cat([x, layer("reduce", fine)], 1)
    x = layer("refine.1", layer("refine.0", x))
    assert x.shape == (2, 12, -(-size[0] // 4), -(-size[1] // 4))
    assert torch.allclose(decoder(levels), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "separable"])
@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_a_batch_of_one_image_trains_every_parameter(kind, size):
    encoder = CNN(in_channels=1)
    model = Segmenter(encoder, deeplabv3plus(encoder, convolution=kind, channels=16, dropout=0.0), 2).train()
    image = torch.randn(1, 1, *size)
    model(image)  # moves the running statistics, so that the ReLU after image pooling is not all on one side
    model(image).square().mean().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert still == []
    assert [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []
    assert torch.isfinite(model.eval()(image)).all()


def test_it_learns_one_image():
    torch.manual_seed(0)
    encoder = CNN()
    model = Segmenter(encoder, deeplabv3plus(encoder, channels=32, dropout=0.0), 1).train()
    image = torch.randn(1, 3, 64, 64)
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., 20:45, 10:40] = 1
    image = image + 2 * truth
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = F.binary_cross_entropy_with_logits(model(image), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 < 0.5 < losses[0]
