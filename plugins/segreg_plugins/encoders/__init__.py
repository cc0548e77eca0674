"""The built-in encoders: every one of segmentation_models_pytorch and of timm, and torchvision's."""

from __future__ import annotations

from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
from segreg_plugins.encoders import (
    representatives,
    smp_family,
    timm_family,
    torchvision_family,
    torchvision_mobilenet,
    torchvision_resnets,
)


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Return the encoders."""
    return [
        Family(
            "encoder",
            "smp",
            prefix="",
            build=smp_family.smp_encoder,
            members=smp_family.members,
            member_settings=smp_family.member_settings,
            representatives=representatives.of_smp,
            facts=smp_family.facts,
        ),
        Family(
            "encoder",
            "timm",
            prefix="timm/",
            build=timm_family.timm_encoder,
            members=timm_family.members,
            member_settings=timm_family.member_settings,
            representatives=representatives.of_timm,
            facts=timm_family.facts,
        ),
        Family(
            "encoder",
            "torchvision",
            prefix="torchvision/",
            build=torchvision_family.torchvision_encoder,
            members=torchvision_family.members,
            member_settings=torchvision_family.member_settings,
            representatives=representatives.of_torchvision,
            facts=torchvision_family.facts,
        ),
        Entry(
            "encoder",
            "torchvision.mobilenet_v3_large",
            torchvision_mobilenet.mobilenet_v3_large,
            paper="arXiv:1905.02244",
        ),
        Entry("encoder", "torchvision.resnet50", torchvision_resnets.resnet50, paper="arXiv:1512.03385"),
        Entry("encoder", "torchvision.resnet101", torchvision_resnets.resnet101, paper="arXiv:1512.03385"),
    ]
