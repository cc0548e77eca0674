"""A part with the settings that it is checked with: how checks build it, what they raise, and where its code is."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

from segreg.errors import SegregError, did_you_mean, listed
from segreg.registry import local
from segreg.registry.entry import Entry, Family, where
from segreg.registry.registry import Part, Plugin
from segreg.settings import check_value

ALWAYS_GIVEN = {"optimizer": {"lr": 0.01}}
"""Settings that a part of a kind may require and the kit gives."""
NETWORKS = ("encoder", "decoder")
"""Kinds whose parts are networks."""
COPIES: Mapping[str, Callable[[Any], Any]] = {
    "deep-copied": copy.deepcopy,
    "pickled": lambda part: pickle.loads(pickle.dumps(part)),  # noqa: S301 - what was pickled is what is loaded
}
"""How the training and its worker processes copy parts."""


class Broken(Exception):  # noqa: N818 - it is caught and reported
    """What a check found wrong.

    Args:
        what: what is wrong, in a sentence.
        at: the function, class or object to look at; what was built last if None.
    """

    def __init__(self, what: str, *, at: Any = None) -> None:
        super().__init__(what)
        self.at = at


class NotChecked(Exception):  # noqa: N818 - it is not an error
    """Why a check says nothing of a part: it does not apply, or lacks a setting."""


def raised(error: Exception) -> str:
    """Format an exception: its type and message."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


@contextmanager
def doing(words: str) -> Iterator[None]:
    """Report what was being done where something is raised: `{words}, it raises ...`."""
    try:
        yield
    except (Broken, NotChecked):
        raise
    except SegregError as error:
        raise Broken(f"{words}: {error}") from error
    except Exception as error:
        raise Broken(f"{words}, it raises {raised(error)}") from error


@contextmanager
def accepted(words: str = "") -> Iterator[None]:
    """Report what segreg refuses, in its own message behind `words`."""
    try:
        yield
    except SegregError as error:
        raise Broken(f"{words}{error.problems[0].message}") from error


def needs_method(part: Any, name: str) -> None:
    """Stop where a part does not offer a method."""
    if not callable(getattr(part, name, None)):
        raise NotChecked(f"it offers no {name}")


def saved_and_loaded(state: Any) -> Any:
    """Return a state as a checkpoint gives it back: saved by `torch.save` and loaded with `weights_only`.

    Raises:
        Broken: it holds objects that can't be loaded so.
    """
    import torch

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        return torch.load(file, weights_only=True)
    except Exception as error:
        what = "its state holds more than tensors, numbers, strings, lists and mappings"
        raise Broken(f"{what}: {raised(error).splitlines()[0]}") from error


@dataclass
class Subject:
    """A part under test.

    Attributes:
        part: the part.
        settings: its settings as Python values, defaults filled in.
        given: names of the settings that the author gave.
        missing: names of the required settings that nobody gave.
        last: what was built last; None before.
    """

    part: Part
    settings: Mapping[str, Any]
    given: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    last: Any = field(default=None, init=False)

    def build(self, *given: Any) -> Any:
        """Build the part; whatever its builder raises is passed on."""
        self.last = self.part.build(*given, **self.settings)
        return self.last

    def try_to_build(self, *given: Any) -> Any:
        """Build the part for the check of whether it can be built.

        Raises:
            NotChecked: settings are missing, or its defaults are refused with a message.
            Broken: it refuses what its author gave, or its builder fails.
        """
        self.needs_nothing()
        try:
            return self.build(*given)
        except SegregError as error:
            if self.given:
                raise Broken(f"it refuses the settings that it was given: {error}") from error
            raise NotChecked(f"its defaults are refused, give settings: {error}") from error
        except Exception as error:
            raise Broken(f"its builder raises {raised(error)}") from error

    def built(self, *given: Any) -> Any:
        """Build the part for every other check.

        Raises:
            NotChecked: it can't be built, or is not a network where it must be one.
        """
        from torch import nn

        self.needs_nothing()
        try:
            part = self.build(*given)
        except Exception as error:
            raise NotChecked("it can't be built, see it_can_be_built") from error
        if self.part.kind in NETWORKS and not isinstance(part, nn.Module):
            raise NotChecked("it is not a nn.Module, see it_can_be_built")
        return part

    def needs_nothing(self) -> None:
        """Stop where a setting is missing."""
        if self.missing:
            raise NotChecked(f"needs {listed(self.missing)}")

    def look_at(self, error: Exception) -> str:
        """Return "file:line" of the plugin's own code that is nearest to what is wrong.

        That is the innermost frame in the plugin of what was raised first, or else the definition of what the check
        names or has built last, or else the builder.
        """
        at = getattr(error, "at", None)
        thing = self.last if at is None else at
        return next(iter((*self._frames(error), *self._definitions(thing), self.part.offer.place)))

    def _frames(self, error: BaseException | None) -> Iterator[str]:
        chain = []
        while error is not None:
            chain.append(error)
            error = error.__cause__
        for raised_ in reversed(chain):
            frames = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(raised_.__traceback__)]
            yield from [f"{file}:{line}" for file, line in frames if self._own(file)][-1:]

    def _definitions(self, thing: Any) -> Iterator[str]:
        function = getattr(thing, "__func__", thing)  # a method's
        if isinstance(function, FunctionType) and self._own(function.__code__.co_filename):
            yield where(function)
        for one in (thing if inspect.isclass(thing) else type(thing)).__mro__:
            try:
                file, (_, line) = inspect.getsourcefile(one), inspect.getsourcelines(one)
            except (OSError, TypeError):
                continue
            if file and self._own(file):
                yield f"{file}:{line}"

    def _own(self, file: str) -> bool:
        """Whether a file belongs to the package, or is the plugin file, that the builder is in."""
        module = self.part.offer.build.__module__
        top = sys.modules.get(module if module.startswith(f"{local.__name__}.") else module.partition(".")[0])
        roots = getattr(top, "__path__", None) or [getattr(top, "__file__", None)]
        return any(Path(file).is_relative_to(root) for root in roots if root)


def title(part: Part) -> str:
    """Return "KIND.NAME"."""
    return f"{part.kind}.{part.name}"


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
