"""The encoders of timm: names and weight tags, read from its source files without importing it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.settings import PositiveInt, Setting
from segreg_plugins.encoders.facts import facts_of
from segreg_plugins.pretrained import DEFAULT, FALLBACK_MEANING, Fallback

if TYPE_CHECKING:
    from segreg_plugins.encoders.timm_encoder import TimmEncoder


@cache
def catalogue() -> Mapping[str, Path]:
    """Return every model's name with the source file that defines it; empty where timm is not installed."""
    # The spec of a package that holds no dot is found without importing anything.
    spec = find_spec("timm")
    folders = spec.submodule_search_locations if spec else None
    return {
        name: file
        for folder in folders or ()
        for file in sorted(Path(folder, "models").glob("[!_]*.py"))
        for name in re.findall(r"^@register_model\s*\ndef (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def members() -> Iterable[str]:
    """Return every model's name."""
    return sorted(catalogue())


@cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def tags(member: str) -> list[str]:
    """Return the tags of a model's weights as timm's source names them, some of which may have no weights."""
    source = _text(catalogue()[member])
    found = re.findall(rf"""["']{re.escape(member)}\.([\w.-]+)\*?["']""", source)
    return list(dict.fromkeys(found))


def facts(member: str) -> Mapping[str, str]:
    """Return what a list says of a member."""
    return facts_of(f"timm/{member}", tags(member))


def member_settings(member: str) -> Mapping[str, Setting]:
    """Return what a recipe may set on a model; the weights are those that it has."""
    known = tags(member)
    settings = (
        Setting(
            "weights",
            # A few models get their tags from another model's when timm is imported; those are judged by the builder.
            Literal[(DEFAULT, *known)] | None if known else str | None,
            None,
            "tag of pretrained weights, `default` for timm's own choice; null starts from random ones",
        ),
        Setting(
            "img_size",
            tuple[PositiveInt, PositiveInt] | None,
            None,
            "height and width that the network is built for, where it can't take every size (MaxViT, BEiT...); null is "
            "the recipe's input size, rounded up to multiples of 32",
        ),
        Setting("weights_fallback", Fallback, "error", FALLBACK_MEANING),
    )
    return {setting.name: setting for setting in settings}


def timm_encoder(member: str, in_channels: int, **settings: Any) -> TimmEncoder:
    """A model of timm, of any kind, with the weights that timm has for it."""
    from segreg_plugins.encoders.timm_encoder import build

    return build(member, in_channels, **settings)
