"""A part with the settings that it is checked with, how it is built for a check, and where its code stands."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from segreg.errors import SegregError, did_you_mean, listed
from segreg.registry.entry import Entry, Family, where
from segreg.registry.registry import Part, Plugin
from segreg.settings import check_value

ALWAYS_GIVEN = {"optimizer": {"lr": 0.01}}
"""Settings that a part of a kind may require and the kit gives."""


@dataclass(frozen=True)
class Subject:
    """A part under test.

    Attributes:
        part: the part.
        settings: its settings as Python values, defaults filled in.
        given: names of the settings that the author gave.
        missing: names of the required settings that nobody gave.
    """

    part: Part
    settings: Mapping[str, Any]
    given: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return kind and name."""
        return f"{self.part.kind} {self.part.name}"

    def build(self, *given: Any) -> Any:
        """Build the part; whatever its builder raises is passed on."""
        return self.part.build(*given, **self.settings)

    def look_at(self, thing: Any = None, error: BaseException | None = None) -> str:
        """Return "file:line" of the plugin's own code that is nearest to what is wrong.

        Args:
            thing: where the check would look: a function, a class or an object of one.
            error: what was raised; its innermost frame in the plugin is nearest of all.
        """
        places = [*_frames(error, self._own), *self._definitions(thing), self.part.offer.place]
        return places[0]

    def _definitions(self, thing: Any) -> Iterator[str]:
        if isinstance(thing, FunctionType) and self._own(thing.__code__.co_filename):
            yield where(thing)
        for one in (thing if inspect.isclass(thing) else type(thing)).__mro__:
            try:
                file, (_, line) = inspect.getsourcefile(one), inspect.getsourcelines(one)
            except (OSError, TypeError):
                continue
            if file and self._own(file):
                yield f"{file}:{line}"

    def _own(self, file: str) -> bool:
        """Whether a file belongs to the package that the builder stands in."""
        top = sys.modules.get(self.part.offer.build.__module__.partition(".")[0])
        return any(Path(file).is_relative_to(root) for root in _roots(top))


def subject_of(offer: Entry | Family | Part, settings: Mapping[str, Any], *, member: str | None = None) -> Subject:
    """Return a part with its settings checked as a recipe's are.

    Raises:
        SegregError: a family without a member, an unknown member or setting, or a value of the wrong type.
    """
    part = offer if isinstance(offer, Part) else part_of(offer, member)
    try:
        known = part.settings
    except SegregError:  # a check tells it
        if settings:
            raise
        return Subject(part, {})
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            hint = did_you_mean(name, known) or (
                f"it accepts {listed(list(known), most=30)}" if known else "it has none"
            )
            raise SegregError(f'the {part.kind} "{part.name}" has no setting "{name}"', hint=hint)
        try:
            checked[name] = check_value(known[name].hint, value)
        except ValueError as error:
            raise SegregError(f'"{name}" of the {part.kind} "{part.name}" {error}') from None
    given = frozenset(checked)
    required = [name for name, setting in known.items() if setting.required]
    always = ALWAYS_GIVEN.get(part.kind, {})
    checked = {**{name: always[name] for name in required if name in always}, **checked}
    missing = tuple(name for name in required if name not in checked)
    defaults = {name: setting.default for name, setting in known.items() if not setting.required}
    return Subject(part, {**defaults, **checked}, given, missing)


def part_of(offer: Entry | Family, member: str | None = None) -> Part:
    """Return an offer that no registry found as a part of the package that its builder stands in.

    Raises:
        SegregError: a family without one of its members, or an entry with a member.
    """
    module = offer.build.__module__
    plugin = Plugin("", module, module.partition(".")[0], "", (offer,))
    if isinstance(offer, Entry):
        if member is not None:
            raise SegregError(f"{offer.kind} {offer.name!r} is not a family; it has no member {member!r}")
        return Part(offer.kind, offer.name, offer, plugin)
    members = list(offer.members())
    if member not in members:
        hint = did_you_mean(member, members) if member else f"such as member={members[0]!r}" if members else ""
        problem = f"has no member {member!r}" if member else "is checked by one of its members"
        raise SegregError(f"the {offer.kind} family {offer.name!r} {problem}", hint=hint)
    return Part(offer.kind, f"{offer.prefix}{member}", offer, plugin, member)


def _frames(error: BaseException | None, own: Any) -> Iterator[str]:
    """Return the innermost frame in the plugin of what was raised first."""
    chain: list[BaseException] = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    for raised in reversed(chain):
        frames = []
        traceback = raised.__traceback__
        while traceback is not None:
            if own(traceback.tb_frame.f_code.co_filename):
                frames.append(f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}")
            traceback = traceback.tb_next
        if frames:
            yield frames[-1]


def _roots(module: ModuleType | None) -> list[Path]:
    if module is None:
        return []
    folders = getattr(module, "__path__", None)
    file = getattr(module, "__file__", None)
    return [Path(folder) for folder in folders] if folders else [Path(file)] if file else []
