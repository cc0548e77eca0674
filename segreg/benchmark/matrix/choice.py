"""Which encoders and decoders a matrix has."""

from __future__ import annotations

from collections.abc import Sequence

from segreg.errors import SegregError, did_you_mean
from segreg.registry.entry import Family
from segreg.registry.registry import Part, Registry

ALL = "all"
"""Selects every member of every family."""


def choose_parts(registry: Registry, kind: str, patterns: Sequence[str]) -> list[Part]:
    """Return the parts whose names match one of the patterns, each once, sorted by name.

    Without patterns these are all entries and the representatives of each family; of a family without
    representatives, all members.

    Raises:
        SegregError: a pattern matches nothing, or a family names a representative that is not a member.
    """
    if not patterns:
        parts = [part for part in _every(registry, kind) if _is_representative(part)]
    else:
        parts = [part for pattern in patterns for part in _matching(registry, kind, pattern)]
    return sorted({unique_name(part, parts): part for part in parts}.values(), key=lambda part: part.name)


def unique_name(part: Part, among: Sequence[Part]) -> str:
    """Return the part's name, followed by `@` and its package if another one has the same name."""
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


def _is_representative(part: Part) -> bool:
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
