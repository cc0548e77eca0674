"""Every decoder on every shape of encoder: sizes, gradients, batches of one, and settings that can't be."""

import itertools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segreg.errors import SegregError
from segreg.models.segmenter import Segmenter, describe
from segreg.models.verify import verify
from segreg_plugins.batch_norm import BatchNorm2d, with_single_values
from segreg_plugins.decoders import segreg_entries

ENTRIES = {entry.name: entry for entry in segreg_entries()}
SMALL = {
    "deeplabv3plus": {"channels": 8, "low_level_channels": 4},
    "lraspp": {"channels": 8},
    "mask_transformer": {"queries": 4, "layers": 3, "channels": 8, "heads": 2, "feedforward": 8, "points": 16},
    "mlp": {"channels": 8},
    "smp.unet": {"channels": (16, 8, 8, 8, 4)},
    "smp.unetplusplus": {"channels": (16, 8, 8, 8, 4)},
    "smp.manet": {"channels": (16, 8, 8, 8, 4), "attention_channels": 4},
    "smp.linknet": {"channels": 8},
    "smp.fpn": {"pyramid_channels": 8, "channels": 64},
    "smp.pspnet": {"channels": 8},
    "smp.deeplabv3": {"channels": 8},
    "smp.deeplabv3plus": {"channels": 8},
    "smp.pan": {"channels": 4},
    "smp.upernet": {"channels": 8},
    "smp.segformer": {"channels": 8},
    "smp.dpt": {"channels": 8, "intermediate_channels": (8, 8, 8, 8)},
}


pytestmark = pytest.mark.usefixtures("quick_networks")


class Toy(nn.Module):
    """Levels of any strides, each a convolution of the pooled image; rounds sizes up or down."""

    def __init__(self, *strides: int, in_channels: int = 3, dilates: bool = False, up: bool = True) -> None:
        super().__init__()
        self.strides = strides
        self.channels = tuple(16 + 4 * i for i in range(len(strides)))
        self.convolutions = nn.ModuleList(nn.Conv2d(in_channels, c, 1) for c in self.channels)
        self.up = up
        if dilates:
            self.dilate = self._dilate

    def _dilate(self, output_stride: int) -> bool:
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)
        return True

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        pooled = [F.avg_pool2d(image, stride, ceil_mode=self.up) for stride in self.strides]
        return [convolution(p) for convolution, p in zip(self.convolutions, pooled, strict=True)]


# Those that the conformance kit does not try every decoder on (tests/testing/test_kit_builtin.py).
ENCODERS = {
    "dilated already": lambda n: Toy(2, 4, 8, 8, 8, in_channels=n),
    "vit/14": lambda n: Toy(14, 14, 14, 14, in_channels=n, up=False),
    "vit/8 with 12 levels": lambda n: Toy(*(8,) * 12, in_channels=n),
}


def build(name, encoder, **settings):
    return ENTRIES[name].build(encoder, **{**SMALL.get(name, {}), **settings})


def test_the_table_of_contents_imports_nothing_heavy():
    code = (
        "import sys, segreg_plugins.decoders as d; [e.settings for e in d.segreg_entries()]; "
        "print(sorted({'torch', 'numpy', 'timm', 'segmentation_models_pytorch', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", ENTRIES)
def test_every_decoder_runs_on_every_encoder_and_trains_it(name, encoder):
    trunk = ENCODERS[encoder](1)
    model = Segmenter(trunk, build(name, trunk), 2, auxiliary=build("torchvision.fcn", trunk))
    verify(model, (33, 49), 1)
    model.train()
    logits = model.all_logits(torch.randn(1, 1, 33, 49))
    assert [tuple(one.shape) for one in logits] == [(1, 2, 33, 49)] * 2
    sum(one.square().mean() for one in logits).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.parameters())
    # Whatever decoder and head have takes part.
    assert [n for n, p in model.decoder.named_parameters() if p.grad is None] == []
    assert [n for n, p in model.head.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ENTRIES)
def test_a_image_smaller_than_everything_still_runs(name):
    trunk = Toy(2, 4, 8, 16, 32, dilates=True)
    model = Segmenter(trunk, build(name, trunk), 1).train()
    assert model(torch.randn(1, 3, 5, 9)).shape == (1, 1, 5, 9)


def test_what_is_resampled_is_reported():
    trunk = Toy(4, 8, 16, 32)
    facts = describe(Segmenter(trunk, build("deeplabv3plus", trunk), 1))
    assert facts["decoder"]["notes"] == ["the encoder's level 4 of 4 is resampled from stride 32 to 16"]


SETTINGS = [
    ("smp.unet", {"attention": "scse", "channels": (32, 16, 16), "center": "block", "norm": "identity"}),
    ("smp.unet", {"interpolation": "bicubic", "norm": "identity", "channels": (8, 8)}),
    ("smp.unetplusplus", {"attention": "scse", "channels": (16,) * 5, "interpolation": "bilinear", "center": "block"}),
    ("smp.unetplusplus", {"deep_supervision": True, "channels": (8, 8, 4)}),
    ("smp.manet", {"interpolation": "bilinear", "channels": (8, 8, 8, 8)}),
    ("smp.linknet", {"depth": 3, "norm": "identity"}),
    ("smp.fpn", {"merge": "cat", "interpolation": "bilinear", "dropout": 0.0}),
    ("smp.pspnet", {"depth": 5, "norm": "identity", "dropout": 0.0}),
    ("smp.upernet", {"norm": "identity"}),
    ("smp.deeplabv3", {"output_stride": 16, "convolution": "separable", "rates": (1, 2, 3), "dead_taps": "compute"}),
    ("smp.deeplabv3plus", {"output_stride": 8, "convolution": "plain", "dead_taps": "compute"}),
    ("smp.pan", {"output_stride": 32, "interpolation": "nearest"}),
    ("torchvision.deeplabv3", {"output_stride": 16, "dead_taps": "compute"}),
    ("torchvision.deeplabv3", {"rates": (2, 4)}),
    ("torchvision.fcn", {"level": -2, "output_stride": 8}),
    ("deeplabv3plus", {"output_stride": 8, "convolution": "plain", "low_level_stride": 2, "rates": (1, 2)}),
    ("deeplabv3plus", {"output_stride": 32, "dropout": 0.5, "image_pooling": False}),
    ("lraspp", {"output_stride": 8, "low_level_stride": 4}),
    ("lraspp", {"output_stride": 32}),
    ("mlp", {"dropout": 0.0}),
    ("mask_transformer", {"masking": "annealed"}),
]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_other_settings_build_and_run(name, settings):
    trunk = Toy(2, 4, 8, 16, 32, dilates=True)
    decoder = build(name, trunk, **settings)
    model = Segmenter(trunk, decoder, 2)
    verify(model, (128, 96), 3)
    assert model.train()(torch.randn(2, 3, 128, 96)).shape == (2, 2, 128, 96)


def test_every_setting_but_the_weights_is_tried_away_from_its_default():
    tried = {(name, key) for name, settings in [*SMALL.items(), *SETTINGS] for key in settings}
    every = {(name, key) for name, entry in ENTRIES.items() for key in entry.settings}
    assert {key for _, key in every - tried} <= {"weights", "weights_fallback", "dropout", "norm", "rates"}


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("smp.fpn", {"channels": 100}, "channels is 100; a multiple of 32 was expected, for GroupNorm of 32 groups"),
        ("smp.unet", {"channels": (8,)}, "channels has 1 numbers; 2 to 6 were expected, one for each step"),
        (
            "smp.unetplusplus",
            {"channels": (16, 8), "attention": "scse"},
            "scse attention needs 16 channels in every step; channels has 8",
        ),
        (
            "smp.unetplusplus",
            {"channels": (8, 8), "deep_supervision": True},
            (
                "deep_supervision finds no node to train beside the last one\n"
                "  give channels one number more, or leave it out"
            ),
        ),
        ("torchvision.fcn", {"level": -6}, "level is -6, but encoder Toy has 5 levels: -5 to -1"),
        ("torchvision.fcn", {"level": 0}, "level is 0, but encoder Toy has 5 levels: -5 to -1"),
        (
            "deeplabv3plus",
            {"low_level_stride": 32},
            "low_level_stride is 32, coarser than the output_stride of 16\n  the paper has 4",
        ),
        (
            "lraspp",
            {"low_level_stride": 16, "output_stride": 8},
            "low_level_stride is 16, coarser than the output_stride of 8\n  the paper has 8",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(name, settings, says):
    with pytest.raises(SegregError) as raised:
        build(name, Toy(2, 4, 8, 16, 32), **settings)
    assert str(raised.value) == says


class TestBatchNorm:
    def test_it_is_torchs_but_on_a_single_value(self):
        ours, torchs = BatchNorm2d(4), nn.BatchNorm2d(4)
        for shape, training in itertools.product([(2, 4, 1, 1), (1, 4, 2, 3)], [True, False]):
            ours.train(training), torchs.train(training)
            x = torch.randn(shape)
            assert torch.equal(ours(x), torchs(x))
        assert all(
            torch.equal(a, b) for a, b in zip(ours.state_dict().values(), torchs.state_dict().values(), strict=True)
        )

    def test_a_single_value_takes_the_running_statistics_and_leaves_them(self):
        norm = BatchNorm2d(4)
        norm(torch.randn(8, 4, 3, 3) * 3 + 2)
        before = {key: value.clone() for key, value in norm.state_dict().items()}
        x = torch.randn(1, 4, 1, 1, requires_grad=True)
        expected = (x - norm.running_mean.view(1, 4, 1, 1)) / (norm.running_var.view(1, 4, 1, 1) + norm.eps).sqrt()
        given = norm(x)
        assert torch.allclose(given, expected)
        given.sum().backward()
        assert (x.grad != 0).all()
        assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            nn.BatchNorm2d(4)(x)

    def test_replacing_keeps_settings_and_statistics(self):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, eps=0.1, momentum=0.5)))
        network(torch.randn(2, 3, 4, 4))
        state = {key: value.clone() for key, value in network.state_dict().items()}
        norm = with_single_values(network)[1][0]
        assert type(norm) is BatchNorm2d
        assert (norm.eps, norm.momentum) == (0.1, 0.5)
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
