"""`segreg show KIND NAME`: everything about one part."""

from __future__ import annotations

import argparse
import json
import textwrap

from segreg.errors import SegregError, did_you_mean, listed
from segreg.kinds import KINDS
from segreg.registry import Part, load_registry
from segreg.settings import plain, type_in_words

NAME = "show"
HELP = "show one part: its settings with type, default and meaning, its paper, where it comes from"
EXAMPLES = """examples:
  segreg show decoder deeplabv3plus
  segreg show augmentation ElasticTransform
  segreg show encoder timm/convnext_tiny --json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", help="the part's name, as recipes write it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(chosen: argparse.Namespace) -> int:
    if chosen.kind not in KINDS:
        hint = did_you_mean(chosen.kind, KINDS) or f"the kinds are {listed(list(KINDS))}"
        raise SegregError(f'"{chosen.kind}" is no kind of part', hint=hint)
    part = load_registry().find(chosen.kind, chosen.name)
    print(json.dumps(_as_data(part), indent=2) if chosen.json else _as_text(part))
    return 0


def _as_data(part: Part) -> dict[str, object]:
    return {
        "kind": part.kind,
        "name": part.name,
        "summary": part.summary,
        "paper": part.offer.paper,
        "defined": part.offer.place,
        "distribution": part.plugin.distribution,
        "version": part.plugin.version,
        "settings": [
            {
                "name": setting.name,
                "type": type_in_words(setting.hint),
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
    lines += [f"  from:  {part.plugin.title}", f"  code:  {part.offer.place}", ""]
    lines.append("settings" if part.settings else "no settings")
    for setting in part.settings.values():
        default = "required" if setting.required else f"default {json.dumps(plain(setting.hint, setting.default))}"
        lines.append(f"  {setting.name}: {type_in_words(setting.hint)}; {default}")
        lines += textwrap.wrap(setting.meaning, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
