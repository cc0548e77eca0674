"""The encoders of segmentation_models_pytorch: names and weights, known without importing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from segreg.settings import Setting
from segreg_plugins.encoders.facts import facts_of
from segreg_plugins.pretrained import FALLBACK_MEANING, Fallback

if TYPE_CHECKING:
    from segreg_plugins.encoders.smp_encoder import SmpEncoder

# SMP's own names that begin with "timm-" are left out: it has deprecated them in favour of timm itself.
WEIGHTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("resnet18", "resnet50", "resnext50_32x4d"), ("imagenet", "ssl", "swsl")),
    **dict.fromkeys(("resnet34", "resnet101", "resnet152"), ("imagenet",)),
    "resnext101_32x4d": ("ssl", "swsl"),
    "resnext101_32x8d": ("imagenet", "instagram", "ssl", "swsl"),
    "resnext101_32x16d": ("instagram", "ssl", "swsl"),
    **dict.fromkeys(("resnext101_32x32d", "resnext101_32x48d"), ("instagram",)),
    **dict.fromkeys(("dpn68", "dpn98", "dpn131"), ("imagenet",)),
    **dict.fromkeys(("dpn68b", "dpn92", "dpn107"), ("imagenet+5k",)),
    **dict.fromkeys((f"vgg{layers}{norm}" for layers in (11, 13, 16, 19) for norm in ("", "_bn")), ("imagenet",)),
    **dict.fromkeys(("senet154", "se_resnet50", "se_resnet101", "se_resnet152"), ("imagenet",)),
    **dict.fromkeys(("se_resnext50_32x4d", "se_resnext101_32x4d"), ("imagenet",)),
    **dict.fromkeys(("densenet121", "densenet161", "densenet169", "densenet201"), ("imagenet",)),
    **dict.fromkeys(("inceptionresnetv2", "inceptionv4"), ("imagenet", "imagenet+background")),
    **dict.fromkeys((f"efficientnet-b{size}" for size in range(8)), ("imagenet", "advprop")),
    "mobilenet_v2": ("imagenet",),
    "xception": ("imagenet",),
    **dict.fromkeys((f"mit_b{size}" for size in range(6)), ("imagenet",)),
    **dict.fromkeys((f"mobileone_s{size}" for size in range(5)), ("imagenet",)),
}
"""Every encoder's name with the tags of its pretrained weights."""


def members() -> Iterable[str]:
    """Return every encoder's name."""
    return sorted(WEIGHTS)


def facts(member: str) -> Mapping[str, str]:
    """Return what a list says of a member."""
    return facts_of(member, WEIGHTS[member])


def member_settings(member: str) -> Mapping[str, Setting]:
    """Return what a recipe may set on an encoder; the weights are those that it has."""
    settings = (
        Setting("weights", Literal[WEIGHTS[member]] | None, None, "pretrained weights; null starts from random ones"),
        Setting(
            "depth",
            Literal[3, 4, 5],
            5,
            "how many halvings of the image are kept: 5 ends at stride 32, 4 at stride 16, 3 at stride 8",
        ),
        Setting("weights_fallback", Fallback, "error", FALLBACK_MEANING),
    )
    return {setting.name: setting for setting in settings}


def smp_encoder(member: str, in_channels: int, **settings: Any) -> SmpEncoder:
    """An encoder of segmentation_models_pytorch, under its own name, with its own weights."""
    from segreg_plugins.encoders.smp_encoder import build

    return build(member, in_channels, **settings)
