"""The conformance kit on the built-in parts: every single part, and light members of the families."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import plugged
import segreg.testing
from exported import remembered_operators
from quick_init import quick_init
from segreg.registry.registry import load_registry

REGISTRY = load_registry(plugged.builtin())

# Families have hundreds of members, which differ in what the kit checks by their kind of network alone.
QUICK_ENCODERS = ("timm/test_efficientnet",)
ENCODERS = ("timm/test_vit", "resnet18")
TRANSFORMS = (
    "Affine", "CoarseDropout", "ColorJitter", "D4", "GaussianBlur", "GridDistortion", "HorizontalFlip", "RandomCrop",
    "Rotate", "ThinPlateSpline",
)  # fmt: skip
OPTIMIZERS = ("timm/lion", "timm/adopt")

# Compiling and exporting take most of the time, and SMP tests them for its decoders: one of them, and DPT, is enough.
# tests/plugins/test_atrous.py compiles and exports DeepLabV3+, whose atrous pyramid SMP's and torchvision's have too.
NOT_COMPILED = (
    "smp.unet", "smp.unetplusplus", "smp.manet", "smp.linknet", "smp.pan", "smp.upernet", "smp.pspnet",
    "smp.fpn", "smp.deeplabv3", "smp.deeplabv3plus", "deeplabv3plus", "torchvision.deeplabv3",
)  # fmt: skip

# tests/runs/test_export_run.py writes ONNX for images of 16 bits and of floating-point numbers;
# tests/plugins/test_mask_transformer.py exports that decoder for any size. Other networks are either compiled or
# exported, as both go through the same code. Encoders are trained under decoders by tests/plugins/test_decoders_smp.py,
# and decoders on one image by tests/plugins/test_decoders.py.
TRIED_ELSEWHERE = {
    ("onnx", "every_depth_is_taken"),
    ("mask_transformer", "it_exports"), ("mlp", "it_exports"), ("smp.segformer", "it_exports"),
    ("lraspp", "it_compiles"), ("smp.dpt", "it_compiles"),
    *((part.name, "one_image_can_be_trained_on") for part in REGISTRY.parts("decoder")),
    ("timm/test_vit", "it_compiles"),
    ("timm/test_efficientnet", "it_exports"), ("timm/test_efficientnet", "it_works_with_decoders"),
    ("resnet18", "it_compiles"), ("resnet18", "it_exports"), ("resnet18", "it_works_with_decoders"),
}  # fmt: skip

# tests/plugins/test_losses.py checks the gradients of all of them and that better answers have lower losses.
LEARNED = ("dice", "ohem", "boundary")

# As they are published decoders have hundreds of channels; the kit asks nothing that depends on their number.
SETTINGS = {
    "decoder.deeplabv3plus": {"channels": 8, "low_level_channels": 4},
    "decoder.mask_transformer": {"queries": 5, "layers": 1, "channels": 8, "heads": 2, "feedforward": 8, "points": 16},
    "decoder.smp.unet": {"channels": (16, 8, 8, 8, 4)},
    "decoder.smp.unetplusplus": {"channels": (8, 8, 8, 4), "deep_supervision": True},
    "decoder.smp.manet": {"channels": (8, 8, 4), "attention_channels": 4},
    "decoder.smp.linknet": {"channels": 8},
    "decoder.smp.fpn": {"pyramid_channels": 8, "channels": 64},
    "decoder.smp.pspnet": {"channels": 8},
    "decoder.smp.deeplabv3": {"channels": 8},
    "decoder.smp.deeplabv3plus": {"channels": 8},
    "decoder.smp.pan": {"channels": 4},
    "decoder.smp.upernet": {"channels": 8},
    "decoder.smp.segformer": {"channels": 8},
    "decoder.smp.dpt": {"channels": 8, "intermediate_channels": (8, 8, 8, 8)},
    "loss.class_balanced_focal": {"class_counts": (40, 9, 2)},
    "augmentation.RandomCrop": {"height": 64, "width": 64},
    "dataset.synthetic_lesions": {"samples": 2, "size": 32},
}
NOT_HELD = {
    **{
        f"augmentation.{name}.settings_are_described": "Albumentations says nothing of border_mode"
        for name in ("GridDistortion", "ThinPlateSpline")
    },
    "augmentation.RandomCrop.it_changes_something": "a crop of the input's own size",
}
"""Why a part does not pass a check."""


def parts(kind, *members):
    """Return the kind's single parts, and these members of its families."""
    single = [part for part in REGISTRY.parts(kind) if part.member is None]
    return [*single, *(REGISTRY.find(kind, member) for member in members)]


def known(table, chosen):
    """Return what a table has for these parts."""
    titles = [f"{part.kind}.{part.name}" for part in chosen]
    return {key: value for key, value in table.items() if any(f"{key}.".startswith(f"{title}.") for title in titles)}


def every_check(chosen):
    return segreg.testing.parametrize(
        chosen, settings=known(SETTINGS, chosen), exclude=known(NOT_HELD, chosen), slow=[pytest.mark.slow]
    )


def checks_not_made_elsewhere(chosen):
    checks = [check for part in chosen for check in segreg.testing.checks(part, settings=settings_of(part))]
    left = [
        check
        for check in checks
        if (name := check.subject.part.name, check.name) not in TRIED_ELSEWHERE
        and not (check.rule.slow and name in NOT_COMPILED)
    ]
    return segreg.testing.parametrize(left, slow=[pytest.mark.slow])


def settings_of(part):
    return SETTINGS.get(f"{part.kind}.{part.name}")


@segreg.testing.parametrize(
    [
        check
        for part in parts("loss")
        for check in segreg.testing.checks(part, settings=settings_of(part))
        if check.name != "it_can_be_learned_from" or part.name in LEARNED
    ],
    slow=[pytest.mark.slow],
)
def test_losses(check):
    check()


@every_check(parts("metric"))
def test_metrics(check):
    check()


@every_check(parts("optimizer", *OPTIMIZERS))
def test_optimizers(check):
    check()


@every_check(parts("schedule"))
def test_schedules(check):
    check()


@checks_not_made_elsewhere([part for part in parts("exporter") if find_spec(part.name)])
def test_exporters(check):
    with remembered_operators():
        check()


@every_check(parts("dataset"))
def test_datasets_without_their_data(check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check()


@every_check(parts("augmentation", *TRANSFORMS))
def test_augmentations(check):
    check()


@every_check(parts("batch_augmentation"))
def test_batch_augmentations(check):
    check()


# Its decoder is compiled and exported by itself.
@segreg.testing.parametrize(
    [
        check
        for part in parts("network", "torchvision/deeplabv3_mobilenet_v3_large")
        for check in segreg.testing.checks(part)
        if not check.rule.slow
    ]
)
def test_networks_of_torchvision(check):
    with quick_init():
        check()


@every_check(parts("network", "hf/segformer_b0"))
def test_networks_of_transformers(check):
    pytest.importorskip("transformers")
    check()


@checks_not_made_elsewhere(parts("decoder"))
def test_decoders(check):
    with quick_init():
        check()


@checks_not_made_elsewhere([REGISTRY.find("encoder", name) for name in QUICK_ENCODERS])
def test_a_light_encoder(check, installed):
    installed(*plugged.builtin())
    check()


@pytest.mark.slow
@checks_not_made_elsewhere([REGISTRY.find("encoder", name) for name in ENCODERS])
def test_encoders(check, installed):
    installed(*plugged.builtin())
    with quick_init():
        check()


def test_a_dataset_with_its_data(tmp_path):
    part = REGISTRY.find("dataset", "synthetic_lesions")
    settings = {"root": str(tmp_path / "drawn"), "samples": 4, "size": 32}
    outcomes = {check.name: check.outcome() for check in segreg.testing.checks(part, settings=settings)}
    not_checked = {name: o.what for name, o in outcomes.items() if o.status == "not checked"}
    assert not_checked == {
        "splits_are_disjoint": "it has no split of its own",
        "recognise_is_careful": "its entry has no recognise, so that `segreg init` does not know it",
        "missing_data_is_named": 'it makes what is not there: "root"',
    }
    assert [str(outcome) for outcome in outcomes.values() if outcome.status == "failed"] == []
