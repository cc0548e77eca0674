"""segreg_plugins.encoders.representatives: the tables against the networks. Run as a program, it prints timm's anew."""

from __future__ import annotations

import warnings

import pytest
import torch

from segreg_plugins.encoders import representatives, smp_family, timm_family, torchvision_family

pytestmark = pytest.mark.usefixtures("quick_networks")


def features(name):
    """Return the parameters of a timm model that gives features, or None where it can't."""
    import timm

    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = timm.create_model(name, features_only=True, pretrained=False)
    except Exception:
        return None
    return sum(parameter.numel() for parameter in network.parameters())


def smallest(names):
    """Return the smallest of timm's models that gives features, by parameters and then by name."""
    sizes = {name: features(name) for name in sorted(names) if not name.startswith("test_")}
    return min((name for name in sizes if sizes[name] is not None), key=lambda name: sizes[name], default=None)


def by_file():
    found = {}
    for name, file in timm_family.catalogue().items():
        found.setdefault(file.stem, []).append(name)
    return found


def test_one_model_of_each_of_timms_files():
    chosen = list(representatives.of_timm())
    catalogue = timm_family.catalogue()
    assert {catalogue[name].stem for name in chosen} == set(by_file())
    assert len(chosen) == len(set(by_file()))
    assert list(representatives.SMALLEST_OF_TIMM) == sorted(representatives.SMALLEST_OF_TIMM)


# Files with few models; all of them take ten minutes, which is what running this file does.
@pytest.mark.parametrize("stem", ["vgg", "pit", "efficientvit_msra", "visformer", "selecsls"])
def test_it_is_the_smallest(stem):
    assert smallest(by_file()[stem]) in representatives.SMALLEST_OF_TIMM


def test_a_file_younger_than_the_table(monkeypatch, tmp_path):
    catalogue = {"zeta_b": tmp_path / "zeta.py", "zeta_a": tmp_path / "zeta.py", "vgg11": tmp_path / "vgg.py"}
    monkeypatch.setattr(timm_family, "catalogue", lambda: catalogue)
    assert representatives.of_timm() == ["vgg11", "zeta_a"]


def test_one_encoder_of_each_of_smps_kinds():
    assert representatives.of_smp() == [
        "densenet121", "dpn68", "efficientnet-b0", "inceptionresnetv2", "inceptionv4", "mit_b0", "mobilenet_v2",
        "mobileone_s0", "resnet18", "resnext50_32x4d", "se_resnet50", "se_resnext50_32x4d", "senet154", "vgg11",
        "xception",
    ]  # fmt: skip
    assert set(representatives.of_smp()) <= set(smp_family.members())


def test_one_network_of_each_of_torchvisions_files():
    import torchvision

    chosen = representatives.of_torchvision()
    assert set(chosen) == set(representatives.SMALLEST_OF_TORCHVISION)
    assert set(chosen) <= set(torchvision_family.members())

    def file(name):
        return torchvision.models.get_model_builder(name).__module__

    def size(name):
        weights = next(iter(torchvision.models.get_model_weights(name)))
        return weights.meta["num_params"]

    for name in chosen:
        same = [other for other in torchvision_family.members() if file(other) == file(name)]
        assert name == min(same, key=size)
    assert {file(name) for name in chosen} == {file(name) for name in torchvision_family.members()}


if __name__ == "__main__":
    print(*sorted(filter(None, map(smallest, by_file().values()))), sep="\n")
