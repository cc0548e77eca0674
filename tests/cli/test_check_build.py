"""`segreg check --build` and `segreg show encoder --build`: what a network is and whether it trains, in exact words."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch

import plugged

RECIPE = """\
dataset:
  name: folder
  images: images
  masks: masks
  classes: [lesion]
input:
  size: [64, 48]
encoder:
  name: resnet18
  weights: imagenet
decoder:
  name: deeplabv3plus
  channels: 8
  low_level_channels: 4
  dropout: 0
loss: dice_bce
optimizer: {name: adam, lr: 1e-3}
train: {batch_size: 4}
evaluate: {metrics: [dice]}
"""
KNOWN_PAIRS = "docs/matrix.md lists which encoders work with which decoders; `segreg matrix` tries others"
ODD = '''
from torch import nn
from segreg import Entry, hookimpl


class Level(nn.Module):
    channels, strides = [4], [2]

    def __init__(self, in_channels, failure=""):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 2, stride=2)
        self.failure = failure

    def forward(self, image):
        if self.failure == "training" and self.training:
            raise RuntimeError("no training today\\nat all")
        return [self.conv(image)]


def odd(in_channels, *, failure: str = ""):
    """An encoder that fails on request.

    Args:
        failure: when.
    """
    if failure == "building":
        raise ValueError("no such luck")
    return Level(in_channels, failure)


def odder(in_channels, *, failure: str = "never"):
    """Another one.

    Args:
        failure: when.
    """
    return Level(in_channels)


def narrow(encoder, *, least: int = 8):
    """A decoder of few strides.

    Args:
        least: stride that the encoder must have.
    """
    from segreg import SegregError

    if max(encoder.strides) < least:
        raise SegregError(f"the encoder ends at stride {max(encoder.strides)}; {least} was expected")
    return plain(encoder)


def plain(encoder):
    """A decoder that gives the last level."""

    class Last(nn.Module):
        channels, stride = encoder.channels[-1], encoder.strides[-1]

        def forward(self, levels):
            return levels[-1]

    return Last()


def mean(task):
    """A loss."""
    return lambda logits, target: logits.mean()


@hookimpl
def segreg_entries():
    return [
        Entry("encoder", "odd", odd), Entry("encoder", "odder", odder), Entry("decoder", "narrow", narrow),
        Entry("decoder", "plain", plain), Entry("loss", "mean", mean),
    ]
'''

BROKEN_DATA = '''
from pathlib import Path
from segreg import Dataset, Entry, Sample, SegregError, Task, hookimpl

def none():
    """A data set that is none."""

def twice():
    """A data set of one image."""
    samples = [Sample("a", Path("a"), Path("b"))] * 2
    return Dataset(task=Task(("x",), "binary"), samples=samples, read_image=print, read_mask=print)

def raising():
    """A data set that fails."""
    return {}["root"]

def asking():
    """A data set that is not there."""
    raise SegregError("ask the clinic")

@hookimpl
def segreg_entries():
    return [Entry("dataset", build.__name__, build) for build in (none, twice, raising, asking)]
'''


@pytest.fixture(autouse=True)
def _here(installed, tmp_path, monkeypatch, quick_networks):
    installed(*plugged.builtin())
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)


@pytest.fixture
def alone(installed, plugin):
    """Only a handful of small parts, so that what is tried is known."""
    chosen = [p for p in plugged.builtin() if p.value.rpartition(".")[2] not in ("encoders", "decoders", "losses")]
    installed(*chosen, plugin(ODD, distribution="segreg-odd"))
    Path("recipe.yaml").write_text(
        re.sub(r"encoder:.*?loss: \w+", "encoder: odd\ndecoder: plain\nloss: mean", RECIPE, flags=re.DOTALL)
    )


def images(count=3):
    from PIL import Image

    for folder, mode in (("images", "RGB"), ("masks", "L")):
        Path(folder).mkdir()
        for i in range(count):
            Image.new(mode, (20, 20)).save(f"{folder}/{i}.png")


def test_without_build_nothing_is_built(segreg):
    assert segreg("check", "recipe.yaml").out == "recipe.yaml: fine\n"


def test_a_network_that_trains_is_described(segreg):
    images()
    before = torch.get_rng_state()
    printed = segreg("check", "recipe.yaml", "--build")
    assert (printed.status, printed.err) == (0, "")
    assert (
        re.sub(r"loss [\d.]+", "loss 1.23", printed.out)
        == """\
recipe.yaml: fine
  encoder    resnet18, 11.18 M parameters, strides 2/4/8/16/16
  decoder    deeplabv3plus, 38,468 parameters, output stride 4
  levels     of 64/64/128/256/512 channels
  network    11.21 M parameters
  dilated    from strides 2/4/8/16/32 to 2/4/8/16/16
  trains     a step on 2 random images of 64x48 with 3 channels, loss 1.23
"""
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_what_trains_and_the_optimizers_groups_are_shown(segreg):
    images()
    words = ["encoder={name: timm/test_resnet, freeze_layers: 4}", "optimizer=adamw", "optimizer.lr=0.002"]
    printed = segreg("check", "recipe.yaml", "--build", *words, "train.layer_decay=0.5")
    assert (printed.status, printed.err) == (0, "")
    last = timm.create_model("test_resnet").layer4
    kernels, norms = (
        [p.numel() for p in last.parameters() if (p.ndim == 4) == is_kernel] for is_kernel in (True, False)
    )
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert lines[3].startswith("trained ")
    assert lines[3].endswith("; the first 4 layers of the encoder stay as they are")
    assert lines[-7:-4] == [
        "component layer tensors parameters lr weight decay",
        f"encoder 4 {len(kernels)} {sum(kernels):,} 0.001 0.01",
        f"encoder 4 {len(norms)} {sum(norms):,} 0.001 0",
    ]
    printed = segreg("check", "recipe.yaml", "--build", *words, "--json")
    groups = json.loads(printed.out)["networks"]["recipe.yaml"]["groups"]
    assert [(one["component"], one["lr"], one["weight_decay"]) for one in groups] == [
        (name, 0.002, decay) for name in ("encoder", "decoder", "head") for decay in (0.01, 0.0)
    ]


def test_levels_that_are_resampled_are_reported_and_the_auxiliary_decoder(segreg):
    images()
    printed = segreg(
        "check", "recipe.yaml", "--build", "encoder=torchvision/resnet18", "decoder=lraspp", "train.batch_size=1",
        "auxiliary={name: torchvision.fcn, weight: 0.3}",
    )  # fmt: skip
    assert printed.status == 0
    lines = printed.out.splitlines()
    assert lines[1] == "  encoder    torchvision/resnet18, 11.18 M parameters, strides 2/4/8/16/32"
    assert "  auxiliary  torchvision.fcn, weight 0.3" in lines
    assert "  note       decoder: the encoder's level 5 of 5 is resampled from stride 32 to 16" in lines
    assert lines[-1].startswith("  trains     a step on 1 random image of 64x48 with 3 channels, loss ")


def test_the_loss_is_that_of_the_recipe(segreg, alone):
    images()
    facts = json.loads(segreg("check", "recipe.yaml", "--build", "--json", "seed=3").out)["networks"]["recipe.yaml"]
    again = json.loads(segreg("check", "recipe.yaml", "--build", "--json", "seed=3").out)["networks"]["recipe.yaml"]
    other = json.loads(segreg("check", "recipe.yaml", "--build", "--json", "seed=4").out)["networks"]["recipe.yaml"]
    twice = json.loads(
        segreg("check", "recipe.yaml", "--build", "--json", "seed=3", "loss={name: mean, weight: 2}").out
    )
    assert facts == again
    assert facts["step"]["loss"] != other["step"]["loss"]
    assert twice["networks"]["recipe.yaml"]["step"]["loss"] == pytest.approx(2 * facts["step"]["loss"])
    assert facts["parameters"] == {"encoder": 52, "decoder": 0, "head": 5, "total": 57}
    assert facts["encoder"]["own_strides"] == [2]
    assert facts["classes_guessed"] == ""


@pytest.mark.parametrize(
    ("change", "classes", "says"),
    [
        (
            (),
            1,
            "the data set can't tell them (images is not there); tried with 1 of the settings, and without the loss",
        ),
        (
            ("dataset.classes=[a, b, c]",),
            3,
            "the data set can't tell them (images is not there); tried with 3 of the settings, and without the loss",
        ),
        (
            ("dataset={name: voc, root: gone}",),
            1,
            "the data set can't tell them (gone is not there); tried with 1, and without the loss",
        ),
    ],
)
def test_without_the_data_the_classes_are_a_guess_and_that_is_reported(change, classes, says, segreg):
    small = ("encoder=timm/test_resnet", "decoder={name: mlp, channels: 8}")
    printed = segreg("check", "recipe.yaml", "--build", *small, *change)
    assert (printed.status, printed.err) == (0, "")
    assert f"  classes    {says}\n" in printed.out
    assert printed.out.endswith("  trains     a step on 2 random images of 64x48 with 3 channels\n")
    facts = json.loads(segreg("check", "recipe.yaml", "--build", "--json", *small, *change).out)["networks"][
        "recipe.yaml"
    ]
    assert (facts["classes"], facts["classes_guessed"], facts["step"]["loss"]) == (classes, says, None)


def test_a_data_set_that_breaks_its_contract_is_no_missing_data(segreg, plugin, installed):
    point = plugin(BROKEN_DATA, distribution="segreg-odd")
    installed(*plugged.builtin(), point)
    begins = {
        "none": 'error: command line: the dataset "none" of segreg-odd 1.0 gave NoneType, but it must give a segreg.Dataset\n',
        "twice": 'error: command line: the dataset "twice" has two samples with the id "a"\n',
        "raising": "error: command line: the dataset \"raising\" of segreg-odd 1.0 failed: KeyError: 'root'\n",
    }
    for name, begin in begins.items():
        printed = segreg("check", "recipe.yaml", "--build", f"dataset={name}")
        assert (printed.status, printed.out) == (2, "")
        assert printed.err.startswith(begin)
    assert (
        "the data set can't tell them (ask the clinic)"
        in segreg("check", "recipe.yaml", "--build", "dataset=asking").out
    )


def test_no_data_is_made_and_none_is_fetched(segreg):
    Path("data").mkdir()
    for dataset in ("{name: synthetic_lesions, root: drawn}", "{name: isic2018, root: data, if_missing: synthetic}"):
        small = ("encoder=timm/test_resnet", "decoder={name: mlp, channels: 8}")
        printed = segreg("check", "recipe.yaml", "--build", f"dataset={dataset}", *small)
        assert printed.status == 0
        assert "  classes    the data set can't tell them (" in printed.out
    assert sorted(path.name for path in Path().iterdir() if path.name != "site-packages") == ["data", "recipe.yaml"]
    assert list(Path("data").iterdir()) == []


def test_a_setting_that_cannot_be_is_reported_with_its_line_and_where_to_read_what_works(segreg):
    images()
    Path("recipe.yaml").write_text(
        RECIPE.replace(
            "name: deeplabv3plus\n  channels: 8\n  low_level_channels: 4\n  dropout: 0",
            "name: smp.fpn\n  channels: 100",
        )
    )
    printed = segreg("check", "recipe.yaml", "--build")
    assert (printed.status, printed.out) == (2, "")
    assert (
        printed.err
        == f"""\
error: recipe.yaml:12:9: channels is 100; a multiple of 32 was expected, for GroupNorm of 32 groups
  {KNOWN_PAIRS}
"""
    )


def test_an_encoder_that_fails_points_to_the_matrix(segreg, alone):
    images()
    printed = segreg("check", "recipe.yaml", "--build", "encoder.name=odd", "encoder.failure=building")
    assert printed.status == 2
    said = printed.err.splitlines()
    assert said[0].startswith(
        'error: command line: the encoder "odd" of segreg-odd 1.0 failed: ValueError: no such luck'
    )
    assert said[-1] == f"  {KNOWN_PAIRS}"
    rows = json.loads(
        segreg("check", "recipe.yaml", "--build", "--json", "encoder.name=odd", "encoder.failure=building").out
    )
    assert rows["networks"] == {}
    assert rows["problems"][0]["hint"].endswith(KNOWN_PAIRS)


def test_a_decoder_that_does_not_go_with_the_encoder_points_to_the_matrix(segreg, alone):
    images()
    printed = segreg("check", "recipe.yaml", "--build", "decoder=narrow")
    assert printed.status == 2
    assert (
        printed.err
        == f"""\
error: command line: the encoder ends at stride 2; 8 was expected
  {KNOWN_PAIRS}
"""
    )


def test_an_auxiliary_decoder_in_the_way_points_to_the_matrix(segreg, alone):
    images()
    printed = segreg("check", "recipe.yaml", "--build", "auxiliary=narrow")
    assert printed.status == 2
    assert printed.err.endswith(f"  {KNOWN_PAIRS}\n")


def test_a_bug_of_a_builtin_part_is_a_sentence_too(segreg, monkeypatch):
    from segreg_plugins.encoders import smp_encoder

    def broken(member, in_channels, **settings):
        raise IndexError("list index out of range\nmore")

    images()
    monkeypatch.setattr(smp_encoder, "build", broken)
    printed = segreg("check", "recipe.yaml", "--build")
    assert printed.status == 2
    assert (
        printed.err
        == f"""\
error: recipe.yaml:9:9: the encoder "resnet18" can't be built: IndexError: list index out of range
  {KNOWN_PAIRS}
"""
    )


def test_a_step_that_fails_is_reported(segreg, alone):
    images()
    printed = segreg("check", "recipe.yaml", "--build", "encoder.name=odd", "encoder.failure=training")
    assert printed.status == 2
    assert (
        printed.err
        == "error: recipe.yaml:9:10: a training step on 2 images of 64x48 pixels fails: RuntimeError: no training today\n"
    )


def test_a_monitor_that_no_metric_gives_is_reported(segreg, alone):
    images()
    printed = segreg("check", "recipe.yaml", "--build", "train.monitor=val.dice.pool")
    assert printed.status == 2
    assert printed.err.startswith('error: train.monitor: an epoch has no value "val.dice.pool"\n')
    assert 'did you mean "val.dice.pooled"?' in printed.err


def test_an_augmentation_that_a_run_would_refuse_is_reported(segreg, alone):
    images()
    printed = segreg("check", "recipe.yaml", "--build", "augment=[{name: RandomRotate90, p: 1.0}]")
    assert printed.status == 2
    assert "RandomRotate90" in printed.err


def test_every_recipe_is_tried(segreg, alone):
    images()
    text = Path("recipe.yaml").read_text()
    Path("second.yaml").write_text(text.replace("decoder: plain", "decoder: narrow"))
    Path("third.yaml").write_text(text.replace("decoder: plain", "decoder: plan"))
    printed = segreg("check", "--build", "recipe.yaml", "second.yaml", "third.yaml")
    assert printed.status == 2
    assert [line for line in printed.err.splitlines() if not line.startswith("  ")] == [
        "error: second.yaml:9:10: the encoder ends at stride 2; 8 was expected",
        'error: third.yaml:9:10: there is no decoder "plan"',
        "2 problems",
    ]
    assert printed.out.startswith("recipe.yaml: fine\n  encoder    odd, 52 parameters, strides 2\n")


# show


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "torchvision/resnet18",
            [
                "  parameters  11,176,512",
                "  levels      64 channels at stride 2, 64 channels at stride 4, 128 channels at stride 8, 256 channels at stride 16, 512 channels at stride 32",
                "  at 16       it can't dilate; coarser levels are resampled where a decoder asks for that",
                "  at 8        it can't dilate; coarser levels are resampled where a decoder asks for that",
            ],
        ),
        (
            "torchvision.mobilenet_v3_large",
            [
                "  parameters  2,971,952",
                "  levels      16 channels at stride 2, 24 channels at stride 4, 40 channels at stride 8, 80 channels at stride 16, 960 channels at stride 16",
                "  at 16       no level is coarser",
                "  at 8        it can't dilate; coarser levels are resampled where a decoder asks for that",
            ],
        ),
        (
            "mobilenet_v2",
            [
                "  parameters  2,223,872",
                "  levels      16 channels at stride 2, 24 channels at stride 4, 32 channels at stride 8, 96 channels at stride 16, 1280 channels at stride 32",
                "  at 16       it dilates, to strides 2/4/8/16/16",
                "  at 8        it dilates, to strides 2/4/8/8/8",
            ],
        ),
    ],
)
def test_show_builds_an_encoder_on_request(name, lines, segreg):
    shown = segreg("show", "encoder", name)
    built = segreg("show", "encoder", name, "--build")
    assert (built.status, built.err) == (0, "")
    added = ["", "built with random weights for images of 3 channels", *lines]
    assert built.out == shown.out + "\n".join(added) + "\n"


def test_show_prints_levels_as_json(segreg, alone):
    plain = json.loads(segreg("show", "encoder", "odd", "--json").out)
    shown = json.loads(segreg("show", "encoder", "odd", "--json", "--build").out)
    assert shown.pop("built") == {
        "in_channels": 3, "parameters": 52, "channels": [4], "strides": [2], "dilated": {"16": [2], "8": [2]},
    }  # fmt: skip
    assert shown == plain


def test_show_builds_encoders_only(segreg):
    printed = segreg("show", "decoder", "lraspp", "--build")
    assert (printed.status, printed.out) == (2, "")
    assert printed.err == (
        "error: --build is for encoders, and lraspp is a decoder\n  `segreg check RECIPE --build` builds a whole network\n"
    )
