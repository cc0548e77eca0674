"""Which checks a part has, and which parts of an installed package are checked."""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segreg.errors import SegregError, did_you_mean, listed
from segreg.registry.entry import Entry, Family
from segreg.registry.registry import Part, Plugin, Registry, load_registry
from segreg.testing.check import Check, Rule
from segreg.testing.subject import part_of, subject_of

EVERY_KIND = "declaration"
"""The module of this package with the checks that parts of every kind have; each kind's own has its name."""


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
    rules = rules_of(subject.part.kind)
    reasons = dict(exclude or {})
    names = [rule.check.__name__ for rule in rules]
    for name in reasons:
        if name not in names:
            hint = did_you_mean(name, names) or f"there is {listed(names, most=30)}"
            raise SegregError(f'{subject.title} has no check "{name}"', hint=hint)
    return [Check(subject, rule, reasons.get(rule.check.__name__, "")) for rule in rules]


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
    parts = parts_of(load_registry(), package, patterns, named=settings or {})
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
    titles = [f"{part.kind}.{part.name}" for part in found]
    _all_known(settings or {}, titles, "settings are given for", "which is not checked")
    made: list[Check] = []
    used: set[str] = set()
    for part, title in zip(found, titles, strict=True):
        names = [rule.check.__name__ for rule in rules_of(part.kind)]
        reasons = {n: r for n in names for key, r in (exclude or {}).items() if key in (n, f"{title}.{n}")}
        used |= {key for key in exclude or {} for n in names if key in (n, f"{title}.{n}")}
        made += checks(part, settings=(settings or {}).get(title), exclude=reasons)
    titled = {f"{check.subject.part.kind}.{check.subject.part.name}.{check.name}" for check in made}
    known = sorted(titled | {check.name for check in made})
    for key in set(exclude or {}) - used:
        raise SegregError(f'there is no check "{key}" to leave out', hint=did_you_mean(key, known))
    return made


def parts_of(
    registry: Registry, package: str, patterns: Sequence[str] = (), *, named: Iterable[str] = ()
) -> list[Part]:
    """Return the parts of a package that are checked; the arguments are those of `package_checks`.

    Raises:
        SegregError: the package takes no part or can't be loaded, or a pattern matches nothing.
    """
    plugins = plugins_of(registry, package)
    wanted = [*patterns, *named]
    parts: list[Part] = []
    for plugin in plugins:
        for offer in plugin.parts:
            parts += _members(plugin, offer, patterns, set(named))
    titles = [f"{part.kind}.{part.name}" for part in parts]
    for pattern in wanted:
        if not fnmatch.filter(titles, pattern):
            single = [f"{o.kind}.{o.name}" for plugin in plugins for o in plugin.parts if isinstance(o, Entry)]
            hint = (
                did_you_mean(pattern, sorted({*single, *titles}), limit=1)
                or "a part is named KIND.NAME, such as loss.brier"
            )
            raise SegregError(f'"{pattern}" is not part of {plugins[0].title}', hint=hint)
    return parts


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
    return plugins


def _members(plugin: Plugin, offer: Entry | Family, patterns: Sequence[str], named: set[str]) -> list[Part]:
    if isinstance(offer, Entry):
        title = f"{offer.kind}.{offer.name}"
        chosen = title in named or any(fnmatch.fnmatchcase(title, pattern) for pattern in patterns)
        return [Part(offer.kind, offer.name, offer, plugin)] if chosen or not patterns else []
    found = []
    members = list(offer.members())
    typical = next(iter(offer.representatives()), None) if offer.representatives else next(iter(members), None)
    if typical is not None and typical not in members:
        raise SegregError(
            f"{offer.place}: the {offer.kind} family {offer.name!r} names {typical!r} as a representative, "
            "which is none of its members",
            hint=did_you_mean(typical, members),
        )
    for member in members:
        title = f"{offer.kind}.{offer.prefix}{member}"
        chosen = any(fnmatch.fnmatchcase(title, pattern) for pattern in patterns) if patterns else member == typical
        if chosen or title in named:
            found.append(Part(offer.kind, f"{offer.prefix}{member}", offer, plugin, member))
    return found


def _is_of(plugin: Plugin, package: str) -> bool:
    """Whether an entry point is a package's, by the name that pip or that Python has for it."""
    names = (plugin.distribution, plugin.module.partition(":")[0].partition(".")[0])
    return _plain(package) in {_plain(name) for name in names}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _all_known(named: Iterable[str], titles: Sequence[str], problem: str, why: str) -> None:
    for name in named:
        if name not in titles:
            hint = did_you_mean(name, titles) or "a part is named KIND.NAME, such as loss.brier"
            raise SegregError(f'{problem} "{name}", {why}', hint=hint)
