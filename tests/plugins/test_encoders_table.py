"""The table of encoders: complete, true to the installed libraries, and listed without importing them."""

import subprocess
import sys
import textwrap
from typing import get_args

import pytest

from segreg.registry.entry import Entry, Family
from segreg.settings import check_value
from segreg_plugins import encoders
from segreg_plugins.encoders import facts, normalization, smp_family, timm_family


def family(name: str) -> Family:
    return next(e for e in encoders.segreg_entries() if isinstance(e, Family) and e.name == name)


def test_listing_and_checking_import_nothing_heavy():
    code = """
        import sys
        from segreg_plugins import encoders
        names = [
            member
            for entry in encoders.segreg_entries()
            if hasattr(entry, "members")
            for member in entry.members()
            if entry.settings(member)
        ]
        heavy = {"torch", "timm", "segmentation_models_pytorch", "torchvision", "numpy", "huggingface_hub"}
        print(len(names), sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    count, heavy = done.stdout.split(maxsplit=1)
    assert int(count) > 1000
    assert heavy.strip() == "[]"


def test_smp_names_and_weights_are_those_of_the_installed_smp():
    import segmentation_models_pytorch as smp

    installed = {
        name: set(entry["pretrained_settings"])
        for name, entry in smp.encoders.encoders.items()
        if not name.startswith("timm-")
    }
    assert {name: set(tags) for name, tags in smp_family.WEIGHTS.items()} == installed


def test_timm_names_are_those_of_the_installed_timm():
    import timm

    assert list(timm_family.members()) == sorted(timm.list_models())


def test_timm_tags_are_those_of_the_installed_timm():
    import timm

    pretrained = {}
    for name in timm.list_models(pretrained=True, include_tags=True):
        model, _, tag = name.partition(".")
        pretrained.setdefault(model, set()).add(tag)
    for model, tags in pretrained.items():
        read = set(timm_family.tags(model))
        assert tags - {""} <= read or not read, model  # none read: the builder judges, not the check


@pytest.mark.parametrize(
    ("name", "member", "tag", "accepted"),
    [
        ("smp", "resnet50", "imagenet", True),
        ("smp", "resnet50", "swsl", True),
        ("smp", "resnet34", "swsl", False),
        ("smp", "efficientnet-b0", "advprop", True),
        ("timm", "resnet50", "a1_in1k", True),
        ("timm", "resnet50", "default", True),
        ("timm", "resnet50", "imagenet", False),
        ("timm", "vit_tiny_patch16_224", "augreg_in21k", True),
    ],
)
def test_weights_are_judged_before_anything_is_built(name, member, tag, accepted):
    hint = family(name).settings(member)["weights"].hint
    assert check_value(hint, None) is None
    if accepted:
        assert check_value(hint, tag) == tag
    else:
        tags = [value for inner in get_args(hint) for value in get_args(inner)]
        with pytest.raises(ValueError, match=f'or null, not the string "{tag}"') as caught:
            check_value(hint, tag)
        assert all(known in str(caught.value) for known in tags)


def test_every_setting_has_a_meaning():
    for entry in encoders.segreg_entries():
        settings = entry.settings if isinstance(entry, Entry) else entry.settings(next(iter(entry.members())))
        assert set(settings) >= {"weights", "weights_fallback"}
        assert all(setting.meaning and not setting.required for setting in settings.values())
        assert settings["weights"].default is None


@pytest.mark.parametrize(
    ("member", "weights", "mean", "std"),
    [
        ("resnet50", "imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet50", None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("efficientnet-b0", "imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("efficientnet-b0", "advprop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("xception", "imagenet", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("inceptionv4", "imagenet+background", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("dpn68", "imagenet", (0.4863, 0.4588, 0.4078), (0.2348, 0.2348, 0.2348)),
    ],
)
def test_smp_statistics(member, weights, mean, std):
    # The values stand in SMP's own documentation of each encoder's weights.
    reported = normalization.smp_statistics(member, weights)
    assert reported[0] == pytest.approx(mean, abs=1e-4)
    assert reported[1] == pytest.approx(std, abs=1e-4)


def test_members_come_back_empty_without_timm(monkeypatch):
    timm_family.catalogue.cache_clear()
    monkeypatch.setattr(timm_family, "find_spec", lambda name: None)
    assert list(timm_family.members()) == []
    timm_family.catalogue.cache_clear()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_what_a_list_says_of_a_network_is_so(builtin, name):
    part = builtin.find("encoder", name)
    network = part.build(3, **{setting.name: setting.default for setting in part.settings.values()})
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert part.facts() == {
        "parameters": f"{parameters / 1e6:.1f} M",
        "strides": "/".join(map(str, network.strides)),
        "weights": ", ".join(smp_family.WEIGHTS[name]),
    }


def test_networks_in_the_table_are_there(builtin):
    assert set(facts.networks()) <= {*builtin.names("encoder"), *builtin.members("encoder")}
