"""The built-in encoders: every one of segmentation_models_pytorch and of timm, and torchvision's dilated ResNets."""

from __future__ import annotations

from segreg.entry import Entry, Family
from segreg.hooks import hookimpl
from segreg_plugins.encoders import smp_family, timm_family, torchvision_resnets


@hookimpl
def segreg_entries() -> list[Entry | Family]:
    """Gives the encoders."""
    return [
        Family(
            "encoder",
            "smp",
            prefix="",
            build=smp_family.smp_encoder,
            members=smp_family.members,
            member_settings=smp_family.member_settings,
        ),
        Family(
            "encoder",
            "timm",
            prefix="timm/",
            build=timm_family.timm_encoder,
            members=timm_family.members,
            member_settings=timm_family.member_settings,
        ),
        Entry("encoder", "torchvision.resnet50", torchvision_resnets.resnet50, paper="arXiv:1512.03385"),
        Entry("encoder", "torchvision.resnet101", torchvision_resnets.resnet101, paper="arXiv:1512.03385"),
    ]
