"""`segreg show KIND NAME`: everything about one part."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segreg.cli.common import origin, print_json, shown_progress
from segreg.errors import SegregError, with_article
from segreg.registry.protocols import KINDS, check_kind
from segreg.runtime.layout import show
from segreg.settings import format_type, plain

if TYPE_CHECKING:
    from segreg.registry.registry import Part, Registry

NAME = "show"
HELP = "show one part: its settings with type, default and meaning, its paper, where it comes from"
EXAMPLES = """examples:
  segreg show decoder deeplabv3plus
  segreg show augmentation ElasticTransform
  segreg show encoder timm/convnext_tiny --json
  segreg show encoder timm/convnext_tiny --build      its levels, and whether it dilates
"""

_IN_CHANNELS = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", help="the part's name, as recipes write it")
    parser.add_argument("--build", action="store_true", help="of an encoder: build it and tell its levels as well")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(chosen: argparse.Namespace) -> int:
    check_kind(chosen.kind)
    if chosen.build and chosen.kind != "encoder":
        raise SegregError(
            f"--build is for encoders, and {chosen.name} is {with_article(chosen.kind)}",
            hint="`segreg check RECIPE --build` builds a whole network",
        )
    from segreg.registry.registry import load_registry

    registry = load_registry()
    part = registry.find(chosen.kind, chosen.name)
    built = _built(part.name, registry) if chosen.build else {}
    if chosen.json:
        print_json({**_as_data(part), **({"built": built} if built else {})})
    else:
        show(_as_text(part), *_levels(built))
    return 0


def _built(name: str, registry: Registry) -> dict[str, Any]:
    from segreg.config.resolve import choose
    from segreg.runs.dry_run import levels_of

    with shown_progress(quiet=False).watch(f"building {name}", None, "steps"):
        return levels_of(choose("encoder", name, {}, registry), _IN_CHANNELS)


def _levels(built: Mapping[str, Any]) -> list[str]:
    """Format an encoder's levels and strides."""
    if not built:
        return []
    lines = ["", f"built with random weights for images of {built['in_channels']} channels"]
    lines.append(f"  parameters  {built['parameters']:,}")
    pairs = zip(built["channels"], built["strides"], strict=True)
    lines.append(f"  levels      {', '.join(f'{c} channels at stride {s}' for c, s in pairs)}")
    for stride, strides in built["dilated"].items():
        if strides is None:
            words = "it can't dilate; coarser levels are resampled where a decoder asks for that"
        elif strides == built["strides"]:
            words = "no level is coarser"
        else:
            words = f"it dilates, to strides {'/'.join(map(str, strides))}"
        lines.append(f"  {f'at {stride}':<11} {words}")
    return lines


def _as_data(part: Part) -> dict[str, object]:
    return {
        **origin(part),
        "paper": part.offer.paper,
        "settings": [
            {
                "name": setting.name,
                "type": format_type(setting.hint),
                "required": setting.required,
                "default": None if setting.required else plain(setting.hint, setting.default),
                "meaning": setting.meaning,
            }
            for setting in part.settings.values()
        ],
    }


def _as_text(part: Part) -> str:
    lines = [f"{part.kind} {part.name}", f"  {part.summary}"]
    if part.offer.paper:
        lines.append(f"  paper: {part.offer.paper}")
    lines += [f"  from:  {part.plugin.title}", f"  code:  {part.offer.place}", f"  write: {_example(part)}", ""]
    lines.append("settings" if part.settings else "no settings")
    for setting in part.settings.values():
        default = "required" if setting.required else f"default {json.dumps(plain(setting.hint, setting.default))}"
        lines.append(f"  {setting.name}: {format_type(setting.hint)}; {default}")
        lines.append(f"      {setting.meaning}" if setting.meaning else "")
    return "\n".join(lines)


_SECTIONS = {
    "augmentation": "augment: [{}]",
    "batch_augmentation": "batch_augment: {}",
    "metric": "evaluate: {{metrics: [{}]}}",
}


def _example(part: Part) -> str:
    """Return a line of a recipe that names the part, with the settings it needs and one that it may have."""
    required = [f"{setting.name}: ..." for setting in part.settings.values() if setting.required]
    defaults = ((s.name, plain(s.hint, s.default)) for s in part.settings.values() if not s.required)
    simple = [f"{name}: {json.dumps(value)}" for name, value in defaults if isinstance(value, (int, float, str))]
    settings = ", ".join([*required, *simple[:1]])
    written = f"{{name: {part.name}, {settings}}}" if settings else part.name
    return _SECTIONS.get(part.kind, f"{part.kind}: {{}}").format(written)
