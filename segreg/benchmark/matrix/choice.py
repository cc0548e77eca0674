"""Which encoders and decoders a matrix has."""

from __future__ import annotations

from collections.abc import Sequence

from segreg.errors import SegregError, did_you_mean
from segreg.registry.entry import Family
from segreg.registry.registry import Part, Registry

ALL = "all"
"""Stands for every member of every family."""


def chosen(registry: Registry, kind: str, patterns: Sequence[str]) -> list[Part]:
    """Return the parts whose names match one of the patterns, each once, in the order of their names.

    Without patterns these are the entries and the members that each family names as its representatives, which are
    all members of one that names none.

    Raises:
        SegregError: a pattern matches nothing, or a family names a representative that it does not have.
    """
    if not patterns:
        parts = [part for part in _every(registry, kind) if _stands_for_others(part)]
    else:
        parts = [part for pattern in patterns for part in _matching(registry, kind, pattern)]
    return sorted({named(part, parts): part for part in parts}.values(), key=lambda part: part.name)


def named(part: Part, among: Sequence[Part]) -> str:
    """Return the part's name, with its package behind it where another one has the same name."""
    alone = len({other.plugin.distribution for other in among if other.name == part.name}) == 1
    return part.name if alone else f"{part.name}@{part.plugin.distribution}"


def family_of(part: Part) -> str:
    """Return the name of the family that a part is a member of, or else the package that offers it."""
    return part.offer.name if isinstance(part.offer, Family) else f"single entries of {part.plugin.distribution}"


def _every(registry: Registry, kind: str) -> list[Part]:
    parts = registry.parts(kind)
    for _, family in registry.families(kind):
        parts += [part for part in registry.parts(kind, f"{family.prefix}*") if part.offer is family]
    return parts


def _stands_for_others(part: Part) -> bool:
    if not isinstance(part.offer, Family) or part.offer.representatives is None:
        return True
    return part.member in set(part.offer.representatives())


def _matching(registry: Registry, kind: str, pattern: str) -> list[Part]:
    if pattern == ALL:
        return _every(registry, kind)
    bare, _, distribution = pattern.partition("@")
    found = [p for p in registry.parts(kind, bare) if not distribution or p.plugin.distribution == distribution]
    if not found:
        names = [*registry.names(kind), *registry.members(kind)]
        hint = did_you_mean(pattern.strip("*"), names) or f"`segreg list {kind}` shows every {kind}"
        raise SegregError(f'no {kind} matches "{pattern}"', hint=hint)
    return found
