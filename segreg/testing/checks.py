"""Which checks a part has, which parts of an installed package are checked, and the checks as tests of pytest."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError, did_you_mean, listed
from segreg.registry.compatibility import plain_name
from segreg.registry.entry import Entry, Family
from segreg.registry.registry import Part, Plugin, Registry, load_registry
from segreg.testing.check import Check, Rule
from segreg.testing.subject import NotChecked, part_of, subject_of, title

if TYPE_CHECKING:
    import pytest

EVERY_KIND = "declaration"
"""The module of this package with the checks that parts of every kind have; each kind's own has its name."""
_EXAMPLE = "a part is named KIND.NAME, such as loss.brier"


def checks(
    part: Entry | Family | Part,
    *,
    member: str | None = None,
    settings: Mapping[str, Any] | None = None,
    exclude: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks of one part, ready to run.

    Args:
        part: what a plugin offers, or what a registry found.
        member: which member, where it is a family.
        settings: what a recipe would set; defaults stand for the rest.
        exclude: names of checks that the part is known not to pass, each with the reason.

    Raises:
        SegregError: a setting, a member or a name of a check that there is not.
    """
    subject = subject_of(part, settings or {}, member=member)
    made = [Check(subject, rule) for rule in rules_of(subject.part.kind)]
    names = [check.name for check in made]
    for name in exclude or {}:
        if name not in names:
            hint = did_you_mean(name, names) or f"there is {listed(names, most=30)}"
            raise SegregError(f'{subject.part.kind} {subject.part.name} has no check "{name}"', hint=hint)
    return [dataclasses.replace(check, left_out=(exclude or {}).get(check.name, "")) for check in made]


def rules_of(kind: str) -> tuple[Rule, ...]:
    """Return the checks of a kind, those of every kind first."""
    rules: tuple[Rule, ...] = ()
    for name in (EVERY_KIND, kind):
        rules += importlib.import_module(f"segreg.testing.{name}").RULES
    return rules


def package_checks(
    package: str,
    patterns: Sequence[str] = (),
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    exclude: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks of what an installed package offers: its single parts, and one member of each family.

    That member is the first that the family names as a representative, or its first where it names none.

    Args:
        package: its name, as pip or as Python knows it.
        patterns: wildcards for "KIND.NAME"; then all parts and members that match.
        settings: settings by "KIND.NAME". What is named here is checked, whatever the patterns.
        exclude: reasons by the name of a check, or by "KIND.NAME.CHECK".

    Raises:
        SegregError: the package takes no part or can't be loaded, or a name matches nothing.
    """
    plugins, named = plugins_of(load_registry(), package), settings or {}
    parts = [part for plugin in plugins for offer in plugin.parts for part in _chosen(plugin, offer, patterns, named)]
    titles = [title(part) for part in parts]
    for pattern in (*patterns, *named):
        if not fnmatch.filter(titles, pattern):
            single = [f"{o.kind}.{o.name}" for plugin in plugins for o in plugin.parts if isinstance(o, Entry)]
            hint = did_you_mean(pattern, sorted({*single, *titles}), limit=1) or _EXAMPLE
            raise SegregError(f'"{pattern}" is not part of {plugins[0].title}', hint=hint)
    return checks_of(parts, settings=settings, exclude=exclude)


def checks_of(
    parts: Iterable[Entry | Family | Part],
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    exclude: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks of several parts; the arguments are those of `package_checks`.

    Raises:
        SegregError: a name in `settings` or `exclude` matches nothing.
    """
    found = [part if isinstance(part, Part) else part_of(part) for part in parts]
    titles = [title(part) for part in found]
    for name in settings or {}:
        if name not in titles:
            hint = did_you_mean(name, titles) or _EXAMPLE
            raise SegregError(f'settings are given for "{name}", which is not checked', hint=hint)
    made = [check for part in found for check in checks(part, settings=(settings or {}).get(title(part)))]
    known = sorted({name for check in made for name in check.names})
    for name in exclude or {}:
        if name not in known:
            raise SegregError(f'there is no check "{name}" to leave out', hint=did_you_mean(name, known))
    reasons = [[reason for name, reason in (exclude or {}).items() if name in check.names] for check in made]
    return [dataclasses.replace(check, left_out="".join(why[-1:])) for check, why in zip(made, reasons, strict=True)]


def plugins_of(registry: Registry, package: str) -> list[Plugin]:
    """Return the entry points of a package.

    Raises:
        SegregError: it has none, or one can't be loaded.
    """
    plugins = [plugin for plugin in registry.plugins if _is_of(plugin, package)]
    if not plugins:
        known = sorted({plugin.distribution for plugin in registry.plugins})
        hint = did_you_mean(package, known) or "`segreg plugins` lists the packages that do"
        raise SegregError(f'no installed package "{package}" has an entry point of group segreg', hint=hint)
    for plugin in plugins:
        if plugin.error:
            raise SegregError(
                f"{plugin.title} can't be loaded ({plugin.name} = {plugin.module}): {plugin.error}",
                hint="`segreg plugins --tracebacks` shows where it failed" if plugin.detail else "",
            )
        if plugin.faults:
            faults = "; ".join(map(str, plugin.faults))
            raise SegregError(f"{plugin.title} offers what can't be used ({plugin.name} = {plugin.module}): {faults}")
    return plugins


def _chosen(plugin: Plugin, offer: Entry | Family, patterns: Sequence[str], named: Collection[str]) -> list[Part]:
    """Return what is checked of an offer: what is named or matches; without patterns an entry, or a typical member."""
    typical = None
    parts: dict[str | None, Part] = {}
    if isinstance(offer, Entry):
        parts[None] = Part(offer.kind, offer.name, offer, plugin)
    else:
        parts |= {m: Part(offer.kind, f"{offer.prefix}{m}", offer, plugin, m) for m in offer.members()}
        typical = next(iter(offer.representatives() if offer.representatives else offer.members()), None)
        if typical is not None and typical not in parts:
            raise SegregError(
                f"{offer.place}: the {offer.kind} family {offer.name!r} names {typical!r} as a representative, "
                "which is none of its members",
                hint=did_you_mean(typical, list(offer.members())),
            )
    return [
        part
        for member, part in parts.items()
        if title(part) in named
        or any(fnmatch.fnmatchcase(title(part), pattern) for pattern in patterns)
        or (not patterns and member == typical)
    ]


def _is_of(plugin: Plugin, package: str) -> bool:
    """Whether an entry point is a package's, by the name that pip or that Python has for it."""
    names = (plugin.distribution, plugin.module.partition(":")[0].partition(".")[0])
    return plain_name(package) in {plain_name(name) for name in names}


def parametrize(
    parts: str | Iterable[Entry | Family | Part | Check],
    patterns: Sequence[str] = (),
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    exclude: Mapping[str, str] | None = None,
    slow: Sequence[pytest.MarkDecorator] = (),
) -> pytest.MarkDecorator:
    """Return a mark that runs a test once for every check, as its argument `check`: the test calls `check()`.

    The ids are `KIND-NAME-CHECK`. What can't be checked is skipped with the reason.

    Args:
        parts: an installed package's name, or what is to be checked: entries, and what `checks` gives.
        patterns: wildcards for "KIND.NAME" of the package's parts.
        settings: settings by "KIND.NAME".
        exclude: why a check is not to be run, by its name or by "KIND.NAME.CHECK".
        slow: marks for the checks that may take more than a second: compiling, exporting, trying decoders.

    Raises:
        SegregError: a name that there is not.
    """
    import pytest

    if isinstance(parts, str):
        made = package_checks(parts, patterns, settings=settings, exclude=exclude)
    else:
        parts = list(parts)
        offered = [part for part in parts if not isinstance(part, Check)]
        made = [part for part in parts if isinstance(part, Check)]
        made += checks_of(offered, settings=settings, exclude=exclude)
    params = [
        pytest.param(_skipping(check), id=check.id, marks=tuple(slow) if check.rule.slow else ()) for check in made
    ]
    return pytest.mark.parametrize("check", params)


def _skipping(check: Check) -> Callable[[], None]:
    """Return the check as a function that skips the test where the check says nothing."""

    def run() -> None:
        import pytest

        try:
            check()
        except NotChecked as reason:
            pytest.skip(str(reason))

    return run
