"""`segreg list`: what the installed packages offer."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from segreg.cli.common import check_kind, origin, print_json
from segreg.errors import SegregError, did_you_mean
from segreg.registry.compatibility import DISTRIBUTION
from segreg.registry.protocols import KINDS

if TYPE_CHECKING:
    from segreg.registry.registry import Part, Registry

NAME = "list"
HELP = "list the parts that recipes can name"
EXAMPLES = """examples:
  segreg list                            every kind
  segreg list decoder                    every decoder
  segreg list encoder 'timm/convnext*'   a family's members that match
  segreg list loss --json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("pattern", nargs="?", default="*", help="wildcards for the name, such as 'resnet*'")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(chosen: argparse.Namespace) -> int:
    kind = chosen.kind.removesuffix("s") if chosen.kind and chosen.kind not in KINDS else chosen.kind
    if kind and kind not in KINDS:
        kind = {"losse": "loss"}.get(kind, kind)
    if kind is not None:
        check_kind(kind, chosen.kind)
    from segreg.registry.registry import load_registry

    registry = load_registry()
    kinds = [kind] if kind else list(KINDS)
    found = {name: registry.parts(name, chosen.pattern) for name in kinds}
    if kind and not found[kind] and chosen.pattern != "*":
        names = [*registry.names(kind), *registry.members(kind)]
        hint = did_you_mean(chosen.pattern.strip("*"), names) or f"`segreg list {kind}` shows every {kind}"
        hint = "\n".join([hint, *registry.may_offer()])
        raise SegregError(f'no {kind} matches "{chosen.pattern}"', hint=hint)
    if chosen.json:
        print_json([origin(part) for parts in found.values() for part in parts])
    else:
        for name, parts in found.items():
            _print_kind(registry, name, parts, chosen.pattern, whole=kind is not None)
        for plugin in registry.plugins:
            if plugin.error:
                print(f"plugin {plugin.title} is not in use: {plugin.error.splitlines()[0]}", file=sys.stderr)
            for fault in plugin.faults:
                print(f"of plugin {plugin.title} can't be used: {str(fault).splitlines()[0]}", file=sys.stderr)
    return 0


def _print_kind(registry: Registry, kind: str, parts: list[Part], pattern: str, *, whole: bool) -> None:
    """Print one kind: entries a line each; without a kind asked for, a family's bare members are only counted."""
    from segreg.registry.entry import Family

    print(f"{kind}")
    shown = parts if whole else [part for part in parts if not isinstance(part.offer, Family)]
    width = min(32, max((len(part.name) for part in shown), default=0))
    for part in shown:
        foreign = "" if part.plugin.distribution == DISTRIBUTION else f"  [{part.plugin.title}]"
        print(f"  {part.name:<{width}}  {part.summary}{foreign}")
    if not whole:
        for family in {id(p.offer): p.offer for p in parts if isinstance(p.offer, Family)}.values():
            count = sum(part.offer is family for part in parts)
            print(f"  {family.summary} ({count} names: `segreg list {kind}`)")
    if pattern == "*":
        for _, family in registry.families(kind):
            print(f"  {family.prefix}*  {family.summary} (`segreg list {kind} '{family.prefix}*'`)")
