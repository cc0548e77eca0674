"""What a plugin offers: named builders whose signatures are the schemas of their settings, and commands."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from segreg.errors import SegregError, listed
from segreg.registry.protocols import KINDS, Recognised
from segreg.settings import Setting, check_default, check_hint, documented_arguments, settings_of

_TOLERANT: ContextVar[bool] = ContextVar("tolerant", default=False)


@contextmanager
def faults_noted() -> Iterator[None]:
    """Let what a plugin offers note what is wrong with it in `fault`, so that it takes nothing else out of use."""
    token = _TOLERANT.set(True)
    try:
        yield
    finally:
        _TOLERANT.reset(token)


@dataclass(frozen=True)
class _Noted:
    """What refuses to be made if something is wrong with it, or notes that in `fault` within `faults_noted`."""

    fault: str = field(default="", init=False, compare=False, repr=False)
    """Why it can't be used; empty where it can."""

    def __post_init__(self) -> None:
        try:
            self._check()
        except Exception as error:
            if not _TOLERANT.get():
                raise
            words = str(error) if isinstance(error, SegregError) else f"{type(error).__name__}: {error}"
            object.__setattr__(self, "fault", words)

    def _check(self) -> None:
        raise NotImplementedError


class _Offer(_Noted):
    """What entries and families have in common."""

    build: Callable[..., Any]

    @property
    def summary(self) -> str:
        """Return the first line of the builder's docstring."""
        return _first_line(self.build)

    @property
    def place(self) -> str:
        """Return "file:line" of the builder."""
        return where(self.build)


@dataclass(frozen=True)
class Entry(_Offer):
    """One part that a recipe can name.

    `build`'s positional parameters are what segreg gives its kind (see `segreg.KINDS`), its keyword-only parameters
    what a recipe may set; each of those has a type hint and a line under "Args:" in the docstring. A default makes a
    setting optional. The docstring's first line is what `segreg list` prints. Heavy imports stand inside `build`, so
    that reading a recipe imports no torch.

    Attributes:
        kind: one of `segreg.KINDS`.
        name: as recipes write it.
        build: the builder.
        paper: the source, for instance "arXiv:1802.02611".
        recognise: of a dataset: returns the ways in which it can read a folder, for `segreg init`; none where it
            can't. It looks at names, headers and a few files, because it is asked about any folder, of any size.

    Raises:
        SegregError: the builder does not keep to this; the message names its file and line.
    """

    kind: str
    name: str
    build: Callable[..., Any]
    paper: str = ""
    recognise: Callable[[Path], Sequence[Recognised]] | None = None

    def _check(self) -> None:
        _check_builder(self.kind, f"{self.kind} {self.name!r}", self.build, first=())
        if not isinstance(self.name, str) or not self.name or "@" in self.name or any(c.isspace() for c in self.name):
            raise SegregError(f"{where(self.build)}: {self.name!r} can't be a name: no blanks and no @ in names")
        if self.recognise is not None and (self.kind != "dataset" or not callable(self.recognise)):
            raise SegregError(
                f"{where(self.build)}: {self.kind} {self.name!r} has recognise={self.recognise!r}",
                hint="recognise is a function of a dataset, from a folder's path to a list of segreg.Recognised",
            )

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        """Return what a recipe may set.

        Raises:
            SegregError: a type hint can't be evaluated, or a default does not fit its own.
        """
        return _declared_settings(f"{self.kind} {self.name!r}", self.build)


@dataclass(frozen=True)
class Family(_Offer):
    """Many parts behind one prefix, listed only when they are asked for, such as `timm/<model>`.

    Attributes:
        kind: one of `segreg.KINDS`.
        name: what `segreg list` calls the family.
        prefix: what stands before a member's name in recipes; may be empty.
        build: as an `Entry`'s, with the member's name as first positional parameter.
        members: gives every member's name, quickly and without importing torch.
        member_settings: gives one member's settings, where members differ; `build` then takes `**settings`.
        paper: the source.
        representatives: names a few members that stand for all where every one would be too many, as in
            `segreg matrix`; without it, all members do.
        facts: returns for a member, quickly, what a list of them shows: strings by the heading of their column.
        unfit: gives names that users may take for members, each with the reason why it can't be used.

    Raises:
        SegregError: the builder does not keep to this; the message names its file and line.
    """

    kind: str
    name: str
    prefix: str
    build: Callable[..., Any]
    members: Callable[[], Iterable[str]]
    member_settings: Callable[[str], Mapping[str, Setting]] | None = None
    paper: str = ""
    representatives: Callable[[], Iterable[str]] | None = None
    unfit: Callable[[], Mapping[str, str]] | None = None
    facts: Callable[[str], Mapping[str, str]] | None = None

    def _check(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.prefix, str) or not callable(self.members):
            raise SegregError(
                f"{where(self.build)}: a family has a name, a prefix and a function that gives its members"
            )
        own_settings = self.member_settings is not None
        _check_builder(self.kind, f"{self.kind} family {self.name!r}", self.build, ("member",), open_ended=own_settings)

    def settings(self, member: str) -> Mapping[str, Setting]:
        """Return what a recipe may set on `member`.

        Raises:
            SegregError: a type hint can't be evaluated, or a default does not fit its own.
        """
        if self.member_settings:
            return _checked(f"{self.kind} {self.prefix + member!r}", self.build, self.member_settings(member))
        return _declared_settings(f"{self.kind} family {self.name!r}", self.build)


@dataclass(frozen=True)
class Command(_Noted):
    """One command.

    `execute` does the work and returns the exit status: 0 done, 1 done in part. A mistake of the user is a
    `SegregError`, which is printed without a traceback and ends with status 2. Heavy imports stand inside `execute`,
    because the modules of all packages are imported for `segreg --help`.

    Attributes:
        name: what is written behind `segreg`: lower-case letters, digits and hyphens.
        help: one line for `segreg --help`, without a full stop.
        arguments: adds the command's arguments to its parser.
        execute: runs the command with the parsed arguments.
        examples: printed below the command's own help.

    Raises:
        SegregError: the name or the help can't be used; the message names the file and line of `execute`.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], int]
    examples: str = ""

    def _check(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.name):
            raise SegregError(
                f"{self.place}: {self.name!r} can't be a command's name",
                hint="lower-case letters, digits and hyphens, beginning with a letter",
            )
        if not self.help or "\n" in self.help:
            raise SegregError(f"{self.place}: the command {self.name!r} needs a help text of one line")

    @property
    def place(self) -> str:
        """Return "file:line" of `execute`."""
        return where(self.execute)


def where(function: Callable[..., Any]) -> str:
    """Return "file:line" of a function."""
    source = function.__init__ if inspect.isclass(function) else inspect.unwrap(function)
    code = getattr(source, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)


def where_made(thing: Any) -> str:
    """Return "file:line" of what a builder returned: of the function, or of the method that calls the object."""
    for candidate in (getattr(thing, "func", thing), getattr(type(thing), "forward", None), type(thing).__call__):
        code = getattr(inspect.unwrap(candidate), "__code__", None) if callable(candidate) else None
        if code:
            return f"{code.co_filename}:{code.co_firstlineno}"
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _declared_settings(title: str, build: Callable[..., Any]) -> Mapping[str, Setting]:
    try:
        return _checked(title, build, settings_of(build))
    except NameError as error:
        raise SegregError(
            f"{where(build)}: {title} has a type hint that can't be evaluated: {error}",
            hint="import what the hints of settings name at run time, not under TYPE_CHECKING alone",
        ) from error
    except SegregError:
        raise
    except Exception as error:  # a hint in quotes is evaluated as code
        raise SegregError(
            f"{where(build)}: {title} has a type hint that can't be evaluated: {type(error).__name__}: {error}",
            hint="its author must change the type hint; until then the part can't be used",
        ) from error


def _checked(title: str, build: Callable[..., Any], settings: Mapping[str, Setting]) -> Mapping[str, Setting]:
    """Return settings whose defaults a recipe could write, as `resolved.yaml` does."""
    for setting in settings.values():
        try:
            check_hint(setting.hint)
        except ValueError as error:
            raise SegregError(
                f'{where(build)}: the type hint of "{setting.name}" of {title} {error}',
                hint="its author must change it; until then the part can't be used",
            ) from None
        try:
            check_default(setting)
        except ValueError as error:
            raise SegregError(
                f'{where(build)}: the default of "{setting.name}" of {title} {error}',
                hint="its author must change the default or the type hint; until then the part can't be used",
            ) from None
    return settings


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().split("\n", 1)[0].strip()


_signature = cache(inspect.signature)  # plugins offer the same builders each time that a registry is loaded


def _check_builder(
    kind: str, title: str, build: Callable[..., Any], first: tuple[str, ...], *, open_ended: bool = False
) -> None:
    """Refuse a builder whose signature or docstring can't serve as a schema."""
    at = where(build)
    if kind not in KINDS:
        raise SegregError(f"{at}: {kind!r} is not a kind of part; the kinds are {listed(list(KINDS))}")
    if not (inspect.isclass(build) or inspect.isfunction(inspect.unwrap(build))):
        raise SegregError(f"{title}: its builder must be a function or a class, not {build!r}")
    parameters = list(_signature(build).parameters.values())
    given = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    wanted = (*first, *KINDS[kind].gives)
    if len(given) != len(wanted):
        words = ", ".join(wanted) or "nothing"
        raise SegregError(
            f"{at}: {title} is given {words} by position, but its builder takes {len(given)}: "
            f"({', '.join(p.name for p in given)})",
            hint="what a recipe may set stands after a * in the signature",
        )
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL or (p.kind is p.VAR_KEYWORD and not open_ended):
            star = "*" if p.kind is p.VAR_POSITIONAL else "**"
            raise SegregError(
                f"{at}: {title} takes {star}{p.name}, which would swallow misspelled settings; name each setting"
            )
    settings = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    if not _first_line(build):
        raise SegregError(f"{at}: {title} has no docstring; its first line is what `segreg list` prints")
    if bare := [p.name for p in settings if p.annotation is p.empty]:
        raise SegregError(f"{at}: {title} has no type hint for {listed(bare)}")
    meanings = documented_arguments(build.__doc__ or "")
    if untold := [p.name for p in settings if p.name not in meanings]:
        raise SegregError(f'{at}: {title} has no line under "Args:" for {listed(untold)}')
    if taken := [p.name for p in settings if p.name in KINDS[kind].reserved]:
        raise SegregError(f"{at}: {title} has a setting {listed(taken)}, a word that recipes use for themselves")
