"""What else could be had where a part of a network can't: near alternatives, each of which was tried."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from typing import Literal

from segreg import build
from segreg.errors import Problem, SegregError
from segreg.progress import Advance
from segreg.registry import Registry
from segreg.resolve import Choice, Resolved, choose
from segreg.task import Task

_WANTED = 3
"""Alternatives that work are enough."""
_TRIED = 5
"""Other parts of a kind are tried at most, the nearest names first."""

Candidate = tuple[str, Resolved]


def tried_instead(
    error: SegregError,
    failed: Literal["encoder", "decoder"],
    recipe: Resolved,
    *,
    registry: Registry,
    task: Task,
    advance: Advance,
) -> SegregError:
    """Gives the same error with what was tried in place of the part that failed, and how that went."""
    tried: list[str] = []
    works = 0
    stages = [_nearer(recipe, failed), _others(recipe, registry, failed)]
    if failed == "decoder":  # the encoder comes into question where no decoder goes with it
        stages.append(_others(recipe, registry, "encoder"))
    for candidates in stages:
        for words, candidate in candidates:
            advance(0, note=f"trying {words}")
            fine = _works(candidate, task)
            tried.append(f"- {words}: {'works' if fine else 'does not work either'}")
            works += fine
            if works == _WANTED:
                break
        if works:
            break
    first, *more = error.problems
    hint = "\n".join(filter(None, (first.hint, "tried in its place:", *tried)))
    return SegregError.of([Problem(first.message, first.place, hint), *more])


def _works(recipe: Resolved, task: Task) -> bool:
    try:
        build.build_model(recipe, task)
    except Exception:  # that it can't be had is all that is asked
        return False
    return True


def _nearer(recipe: Resolved, kind: Literal["encoder", "decoder"]) -> Iterator[Candidate]:
    """Gives the recipe with as little as possible changed: default settings, no auxiliary decoder."""
    choice: Choice = getattr(recipe, kind)
    defaults = {n: s.default for n, s in choice.part.settings.items() if not s.required}
    if set(defaults) == set(choice.settings) and defaults != dict(choice.settings):
        plain = dataclasses.replace(choice, settings=defaults)
        yield f'the {kind} "{choice.part.name}" with its default settings', _with(recipe, kind, plain)
    if kind == "decoder" and recipe.auxiliary:
        yield "no auxiliary decoder", dataclasses.replace(recipe, auxiliary=None)


def _others(recipe: Resolved, registry: Registry, kind: Literal["encoder", "decoder"]) -> Iterator[Candidate]:
    """Gives the recipe with other parts of a kind in their default settings, those of the nearest names first."""
    own: Choice = getattr(recipe, kind)
    names = {part.name for part in registry.parts(kind)} | set(registry.members(kind))
    nearest = sorted(names - {own.part.name}, key=lambda name: (-_likeness(name, own.part.name), name))
    for name in nearest[:_TRIED]:
        try:
            other = choose(kind, name, {}, registry)
        except SegregError:  # it has a setting without a default
            continue
        yield f'the {kind} "{name}"', _with(recipe, kind, other)


def _likeness(one: str, other: str) -> float:
    """Gives how alike two names are, up to 1; what stands before a slash or a dot counts for nothing."""
    bare, other_bare = (re.split(r"[/.]", name)[-1] for name in (one, other))
    return difflib.SequenceMatcher(None, bare, other_bare).ratio()


def _with(recipe: Resolved, kind: Literal["encoder", "decoder"], choice: Choice) -> Resolved:
    return (
        dataclasses.replace(recipe, encoder=choice)
        if kind == "encoder"
        else dataclasses.replace(recipe, decoder=choice)
    )
