"""The encoders of torchvision as a family: every network that its source files name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from segreg.settings import Setting
from segreg_plugins.encoders.facts import facts_of
from segreg_plugins.encoders.torchvision_trunks import catalogue
from segreg_plugins.pretrained import FALLBACK_MEANING, Fallback

if TYPE_CHECKING:
    from segreg_plugins.encoders.torchvision_encoder import TorchvisionEncoder


def members() -> Iterable[str]:
    """Return every network's name."""
    return sorted(catalogue())


def facts(member: str) -> Mapping[str, str]:
    """Return what a list says of a member."""
    return facts_of(f"torchvision/{member}", catalogue()[member][1])


def member_settings(member: str) -> Mapping[str, Setting]:
    """Return what a recipe may set on a network; the weights are those that it has."""
    settings = (
        Setting(
            "weights",
            Literal[catalogue()[member][1]] | None,
            None,
            "pretrained weights as torchvision names them; null starts from random ones",
        ),
        Setting("weights_fallback", Fallback, "error", FALLBACK_MEANING),
    )
    return {setting.name: setting for setting in settings}


def torchvision_encoder(member: str, in_channels: int, **settings: Any) -> TorchvisionEncoder:
    """A classification network of torchvision: the last features of each stride, with torchvision's weights."""
    from segreg_plugins.encoders.torchvision_encoder import build

    return build(f"torchvision/{member}", member, in_channels, **settings)
