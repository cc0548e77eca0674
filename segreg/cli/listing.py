"""`segreg list`: what the installed packages offer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from segreg.cli.common import origin, print_json
from segreg.errors import SegregError, did_you_mean
from segreg.registry.compatibility import DISTRIBUTION
from segreg.registry.entry import Family
from segreg.registry.protocols import KINDS, check_kind
from segreg.runtime.layout import Block, Column, Screen, Table, show

if TYPE_CHECKING:
    from segreg.registry.registry import Part, Registry

NAME = "list"
HELP = "list the parts that recipes can name"
EXAMPLES = """examples:
  segreg list                            every kind
  segreg list decoder                    every decoder
  segreg list encoder resnet             names with this word
  segreg list encoder 'timm/convnext*'   a family's members that match
  segreg list loss --json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("pattern", nargs="?", default="*", help="a word of the name, or wildcards such as 'resnet*'")
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
    pattern = _pattern(chosen.pattern, registry, kind)
    found = {name: registry.parts(name, pattern) for name in kinds}
    beyond = kind and any(registry.parts(kind, f"{f.prefix}{pattern}") for _, f in registry.families(kind))
    if kind and not found[kind] and chosen.pattern != "*" and not beyond:
        names = [*registry.names(kind), *registry.members(kind)]
        hint = did_you_mean(chosen.pattern.strip("*"), names) or f"`segreg list {kind}` shows every {kind}"
        hint = "\n".join([hint, *registry.lost_families(kind), *registry.may_offer()])
        raise SegregError(f'no {kind} matches "{chosen.pattern}"', hint=hint)
    if chosen.json:
        print_json([origin(part) for parts in found.values() for part in parts])
    else:
        for name, parts in found.items():
            show(*_blocks(registry, name, parts, pattern, whole=kind is not None))
    for plugin in registry.plugins:
        if plugin.error:
            Screen.of(sys.stderr).show(f"plugin {plugin.title} is not in use: {plugin.error.splitlines()[0]}")
        for fault in plugin.faults:
            Screen.of(sys.stderr).show(f"of plugin {plugin.title} can't be used: {str(fault).splitlines()[0]}")
    for name in kinds:
        for why in registry.lost_families(name):
            Screen.of(sys.stderr).show(f"members of a family are not listed: {why}")
    return 0


def _pattern(word: str, registry: Registry, kind: str | None) -> str:
    """Return wildcards for what was asked: a plain word is looked for anywhere in a name."""
    if any(character in word for character in "*?["):
        return word
    prefixes = [family.prefix for _, family in registry.families(kind)] if kind else []
    prefix = next((prefix for prefix in prefixes if word.startswith(prefix)), "")
    return f"{prefix}*{word.removeprefix(prefix)}*"


def _blocks(registry: Registry, kind: str, parts: list[Part], pattern: str, *, whole: bool) -> Iterator[Block]:
    """Yield one kind: its entries, then each family's members, which are only counted where no kind was asked for."""
    yield kind
    single = [part for part in parts if not isinstance(part.offer, Family)]
    if single:
        rows = [[part.name, f"{part.summary}  {_from(part)}".rstrip()] for part in single]
        yield Table([Column(), Column(wraps=True)], rows, indent=2)
    for family in {id(p.offer): p.offer for p in parts if isinstance(p.offer, Family)}.values():
        members = [part for part in parts if part.offer is family]
        if whole:
            yield f"  {family.summary.removesuffix('.')} {_from(members[0])}".rstrip() + ":"
            yield _members(members)
        else:
            yield f"  {family.summary} ({len(members)} names: `segreg list {kind}`)"
    for _, family in registry.families(kind):
        if pattern == "*":
            yield f"  {family.prefix}*  {family.summary} (`segreg list {kind} '{family.prefix}*'`)"
        elif not pattern.startswith(family.prefix) and whole:
            also = f"{family.prefix}{pattern}"
            if count := len(registry.parts(kind, also)):
                yield f"  {family.prefix}*  {count} more (`segreg list {kind} '{also}'`)"


def _members(members: list[Part]) -> Table:
    """Return a table of a family's members, with what the family reports of them."""
    facts = [part.facts() for part in members]
    heads = list(dict.fromkeys(head for each in facts for head in each))
    columns = [Column(), *(Column(head, right=head == "parameters", wraps=head != "parameters") for head in heads)]
    rows = [[part.name, *(each.get(head, "") for head in heads)] for part, each in zip(members, facts, strict=True)]
    return Table(columns, rows, indent=2)


def _from(part: Part) -> str:
    return "" if part.plugin.distribution == DISTRIBUTION else f"[{part.plugin.title}]"
