"""Everything that the installed packages offer, loaded once from the entry points of group "segreg" and then frozen."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import importlib.util
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from segreg.errors import Problem, SegregError, did_you_mean, listed, with_article
from segreg.registry import hooks, local
from segreg.registry.compatibility import DISTRIBUTION, About, about, plain_name, stranger_installed
from segreg.registry.entry import Command, Entry, Family, faults_noted, where
from segreg.registry.guard import Guard, kept_directory
from segreg.registry.protocols import KINDS, Recognised
from segreg.settings import Setting

GROUP = "segreg"
MOST_SOURCES = 2000
"""How many source files of a package its digest is made of at most."""
DISABLE = "SEGREG_DISABLE_PLUGINS"
"""Environment variable: distributions or entry points to leave out, with commas between; wildcards are allowed.

Names are compared as installers do: `-`, `_` and `.` are alike, and so are large and small letters.
"""


@dataclass(frozen=True)
class Fault:
    """Something that a plugin offers and that can't be used; the rest of the plugin can.

    Attributes:
        kind: the kind of part, or "command".
        name: its name; empty where it has none.
        message: what is wrong, after "file:line".
    """

    kind: str
    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.message}" if self.name else self.message


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed distribution, a plugin file, or an entry that was registered in this process.

    Attributes:
        name: the entry point's name.
        module: the module it names.
        distribution: the package that brought it; a file's name, or "registered".
        version: that package's version.
        parts: what it offers to recipes.
        commands: what it adds to the command line.
        error: why it could not be used; empty where it could.
        detail: the traceback of that error.
        seconds: how long it took to load.
        notice: what its authors should change, though it can be used.
        faults: what it offers that can't be used.
        output: what it printed while it was loaded, which was kept out of standard output.
        file: where it is a file.
        source: a digest of the source of `module` where that belongs to none of the packages.
    """

    name: str
    module: str
    distribution: str
    version: str
    parts: tuple[Entry | Family, ...] = ()
    commands: tuple[Command, ...] = ()
    error: str = ""
    detail: str = ""
    seconds: float = 0.0
    notice: str = ""
    faults: tuple[Fault, ...] = ()
    output: str = ""
    file: Path | None = None
    source: str = ""

    @property
    def title(self) -> str:
        """Return "distribution version"."""
        return f"{self.distribution} {self.version}"

    @cached_property
    def digest(self) -> str:
        """Return a digest of the source files of the packages that its parts are defined in."""
        own = self.module.partition(":")[0]
        modules = (own, *(_module_of(offer) for offer in self.parts))
        found = dict.fromkeys(self.source if self.source and one == own else source_digest(one) for one in modules)
        one, *more = found
        return hashlib.blake2b(" ".join(found).encode(), digest_size=16).hexdigest() if more else one


def _module_of(offer: Entry | Family) -> str:
    """Return the module that a builder is defined in; empty where it has none, as in code that `exec` runs."""
    return getattr(offer.build, "__module__", None) or ""


def source_digest(module: str) -> str:
    """Return a digest of all source files of the package that a module is in.

    An edited file changes it, also where the package's version stays: a package that is installed editable, for
    instance. Of a package of more than `MOST_SOURCES` files those that come first by name are read, and of a namespace
    the part that has an `__init__.py`. An empty string where there is no source.
    """
    names = module.split(".")
    for length in range(1, len(names) + 1):
        if root := _source_of(".".join(names[:length])):
            return _digest_of_files(root)
    return ""


def _source_of(module: str) -> Path | None:
    """Return the folder of a package, the file of a module, or None for a namespace and for what has no source."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):  # it is gone, or it was made by hand
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    origin = Path(spec.origin)
    return origin.parent if spec.submodule_search_locations is not None else origin


@cache
def _digest_of_files(root: Path) -> str:
    whole = hashlib.blake2b(digest_size=16)
    try:
        files = [root] if root.is_file() else sorted(root.rglob("*.py"))[:MOST_SOURCES]
        for file in files:
            whole.update(f"{file.relative_to(root.parent).as_posix()} ".encode(errors="surrogateescape"))
            with file.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).digest())
    except OSError as error:
        whole.update(f"unreadable {error.errno}".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class Part:
    """One part, found by its name: an entry, or one member of a family."""

    kind: str
    name: str
    offer: Entry | Family
    plugin: Plugin
    member: str | None = None

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        """Return what a recipe may set on it.

        Raises:
            SegregError: its builder declares what can't be used, or its family can't tell the member's settings.
        """
        if isinstance(self.offer, Entry):
            return self.offer.settings
        if self.offer.member_settings is None or self.plugin.distribution == DISTRIBUTION:
            return self.offer.settings(self.member or "")
        title = f"the settings of {self.kind} {self.name}"
        return _ask(self.plugin, title, lambda: self.offer.settings(self.member or ""))  # type: ignore[operator]

    @property
    def summary(self) -> str:
        """Return one line about it."""
        return self.offer.summary

    def facts(self) -> Mapping[str, str]:
        """Return what a list says of a member of a family: words by the heading of their column.

        Raises:
            SegregError: its family fails at it.
        """
        facts = self.offer.facts if isinstance(self.offer, Family) else None
        if facts is None:
            return {}
        title = f"facts about {self.name}"
        return _ask(self.plugin, title, lambda: _of_strings(dict(facts(self.member or ""))))

    @property
    def recognises(self) -> bool:
        """Whether it can be asked whether it reads a folder."""
        return isinstance(self.offer, Entry) and self.offer.recognise is not None

    def recognise(self, folder: Path) -> list[Recognised]:
        """Return the ways in which a dataset can read a folder; none where its entry does not say.

        Raises:
            SegregError: its plugin fails at it, or returns something else.
        """
        recognise = self.offer.recognise if isinstance(self.offer, Entry) else None
        if recognise is None:
            return []
        found = _ask(self.plugin, f"whether {self.name} reads {folder}", lambda: list(recognise(folder)))
        if odd := [one for one in found if not isinstance(one, Recognised)]:
            problem = f"{where(recognise)}: returned {odd[0]!r}, which is not a segreg.Recognised"
            raise SegregError(f"{self.plugin.title}: {problem}")
        return found

    @property
    def defined(self) -> str:
        """Return where it is defined and who brought it."""
        return f"{self.offer.place} ({self.plugin.title})"

    def build(self, *given: Any, **settings: Any) -> Any:
        """Build it from what segreg gives its kind and from a recipe's settings."""
        with kept_directory():
            if isinstance(self.offer, Family):
                return self.offer.build(self.member, *given, **settings)
            return self.offer.build(*given, **settings)


@dataclass(frozen=True)
class Registry:
    """The plugins that were found, and what they offer."""

    plugins: tuple[Plugin, ...]
    manager: pluggy.PluginManager = field(repr=False)

    def find(self, kind: str, name: str) -> Part:
        """Return the part of that name; `name@distribution` chooses one where two packages offer it.

        Raises:
            SegregError: nobody offers the name, or several do.
        """
        bare, _, distribution = name.partition("@")
        offers = [(p, o) for p, o in self._offers(kind) if not distribution or p.distribution == distribution]
        exact = [Part(kind, bare, o, p) for p, o in offers if isinstance(o, Entry) and o.name == bare]
        # Families are asked last, as theirs may be long to list. An entry goes before a member of its own package.
        of_entries = {part.plugin.distribution for part in exact}
        families = [(p, o) for p, o in offers if isinstance(o, Family) and p.distribution not in of_entries]
        exact += [Part(kind, bare, o, p, member) for p, o in families for member in _member(p, o, bare)]
        if not exact:
            raise self._unknown(kind, name, bare)
        if len(exact) > 1:
            raise _offered_twice(f'{kind} "{bare}"', bare, [(part.plugin, part.offer.place) for part in exact])
        return exact[0]

    def names(self, kind: str) -> list[str]:
        """Return the names of the kind's single entries, and `prefix*` for each family that has a prefix."""
        single = {offer.name for _, offer in self._offers(kind) if isinstance(offer, Entry)}
        families = {f"{o.prefix}*" for _, o in self._offers(kind) if isinstance(o, Family) and o.prefix}
        bare = {m for p, o in self._offers(kind) if isinstance(o, Family) and not o.prefix for m in _told(p, o)}
        return sorted(single | bare) + sorted(families)

    def parts(self, kind: str, pattern: str = "*") -> list[Part]:
        """Return the kind's parts whose names match a pattern with wildcards; members of prefix families on request.

        A family that fails has no members here; `lost_families` says why.
        """
        parts: list[Part] = []
        for plugin, offer in self._offers(kind):
            if isinstance(offer, Entry):
                names: Iterable[tuple[str, str | None]] = [(offer.name, None)]
            elif offer.prefix and not pattern.startswith(offer.prefix):
                continue
            else:
                names = [(offer.prefix + member, member) for member in _told(plugin, offer)]
            parts += [
                Part(kind, name, offer, plugin, member)
                for name, member in names
                if fnmatch.fnmatchcase(name.lower(), pattern.lower())
            ]
        return sorted(parts, key=lambda part: part.name)

    def families(self, kind: str) -> list[tuple[Plugin, Family]]:
        """Return the kind's families that stand behind a prefix."""
        return [(p, offer) for p, offer in self._offers(kind) if isinstance(offer, Family) and offer.prefix]

    def members(self, kind: str) -> list[str]:
        """Return the names of every member of the kind's families with a prefix; a family that fails has none here."""
        return sorted(f"{family.prefix}{m}" for plugin, family in self.families(kind) for m in _told(plugin, family))

    def lost_families(self, kind: str) -> list[str]:
        """Return why families of a kind can't tell their members, one sentence each."""
        found = []
        for plugin, offer in self._offers(kind):
            if isinstance(offer, Family):
                try:
                    _members(plugin, offer)
                except SegregError as error:
                    found += ["; ".join(filter(None, (one.message, one.hint))) for one in error.problems]
        return found

    def notify(self, hook: str, *, only: str = "", **arguments: Any) -> list[str]:
        """Report observers of a run, or one of them alone, by "DISTRIBUTION:NAME".

        One that fails is named in the answer and stops nobody else.
        """
        complaints = []
        with Guard() as guard:
            for implementation in reversed(getattr(self.manager.hook, hook).get_hookimpls()):  # as pluggy calls them
                if only not in ("", implementation.plugin_name):
                    continue
                title = f"{hook} of {implementation.plugin_name}"
                try:
                    with guard.call(title):
                        implementation.function(**{name: arguments[name] for name in implementation.argnames})
                except BaseException as error:  # a stranger's code: whatever it raises
                    if guard.interrupted:
                        raise
                    complaints.append(f"{title} failed: {type(error).__name__}: {error}")
        return complaints

    def commands(self) -> dict[str, list[tuple[Plugin, Command]]]:
        """Return by name the commands that plugins add, each with those that offer it."""
        found: dict[str, list[tuple[Plugin, Command]]] = {}
        for plugin in self.plugins:
            for command in plugin.commands:
                found.setdefault(command.name, []).append((plugin, command))
        return dict(sorted(found.items()))

    def find_command(self, name: str) -> Command:
        """Return the command of that name; `name@distribution` chooses one where two packages offer it.

        Raises:
            SegregError: nobody offers the name, or several do.
        """
        bare, _, distribution = name.partition("@")
        offers = [
            (plugin, command)
            for plugin, command in self.commands().get(bare, [])
            if not distribution or plain_name(plugin.distribution) == plain_name(distribution)
        ]
        if len(offers) == 1:
            return offers[0][1]
        if offers:
            places = [(plugin, command.place) for plugin, command in offers]
            raise _offered_twice(f'command "{bare}"', f"segreg {bare}", places)
        who = sorted(plugin.distribution for plugin, _ in self.commands().get(bare, []))
        if fault := self._fault("command", bare, distribution):
            raise fault
        hints = [f'"{bare}" is offered by {listed(who)}' if who else "", *self.may_offer()]
        raise SegregError(f'there is no command "{name}"', hint="\n".join(filter(None, hints)))

    def may_offer(self) -> list[str]:
        """Return a sentence for each plugin that is not in use, for the message of a name that nobody offers."""
        lost = [f"{p.title} could not be loaded and may offer it: {p.error}" for p in self.plugins if p.error]
        nameless = [(p, fault) for p in self.plugins for fault in p.faults if not fault.name]
        return lost + [f"{p.title} may offer it in what can't be used: {fault.message}" for p, fault in nameless]

    def _fault(self, kind: str, name: str, distribution: str = "") -> SegregError | None:
        """Return the error of a name that a plugin offers in a way that can't be used."""
        for plugin in self.plugins:
            for fault in plugin.faults:
                if (fault.kind, fault.name) == (kind, name) and distribution in ("", plugin.distribution):
                    problem = f'the {kind} "{name}" of {plugin.title} can\'t be used: {fault.message}'
                    return SegregError(problem, hint="`segreg plugins` lists what each package offers")
        return None

    def _offers(self, kind: str) -> Iterable[tuple[Plugin, Entry | Family]]:
        return ((plugin, offer) for plugin in self.plugins for offer in plugin.parts if offer.kind == kind)

    def _unknown(self, kind: str, name: str, bare: str) -> SegregError:
        for plugin, offer in self._offers(kind):
            if not isinstance(offer, Family) or not bare.startswith(offer.prefix):
                continue
            if why := _unfit(plugin, offer).get(bare.removeprefix(offer.prefix)):
                return SegregError(f'the {kind} "{bare}" can\'t be used: {why}')
        if fault := self._fault(kind, bare, name.partition("@")[2]):
            return fault
        for plugin, family in self.families(kind):
            if bare.startswith(family.prefix):
                member = bare.removeprefix(family.prefix)
                close = did_you_mean(bare, sorted(family.prefix + m for m in _members(plugin, family)))
                more = f"`segreg list {kind} '{family.prefix}*'` lists them all"
                return SegregError(f'{family.name} has no {kind} "{member}"', hint=close or more)
        hints = [did_you_mean(bare, self.names(kind))]
        others = [other for other in KINDS if other != kind and self._has(other, bare)]
        if others:
            hints = [f'"{bare}" is {with_article(others[0])}, not {with_article(kind)}']
        if "@" in name and self._has(kind, bare):
            who = sorted({p.distribution for p, o in self._offers(kind) if isinstance(o, Entry) and o.name == bare})
            hints = [f'"{bare}" is offered by {listed(who)}']
        if under := [f"{family.prefix}{bare}" for p, family in self.families(kind) if bare in _told(p, family)]:
            hints = [f"did you mean {listed(under, last='or')}?"]
        if not any(hints):
            names = self.names(kind)
            can_be = f"it can be {listed(names, most=8, last='or')}"
            hints = [can_be if names else f"no plugin offers {with_article(kind)}"]
        hints.append(f"`segreg list {kind}` shows every {kind}")
        hints += [*self.lost_families(kind), *self.may_offer()]
        return SegregError(f'there is no {kind} "{name}"', hint="\n".join(filter(None, hints)))

    def _has(self, kind: str, name: str) -> bool:
        return any(offer.name == name for _, offer in self._offers(kind) if isinstance(offer, Entry))


def _member(plugin: Plugin, offer: Entry | Family, name: str) -> list[str]:
    """Return [member] for a family that has it, and [] otherwise."""
    if isinstance(offer, Entry) or not name.startswith(offer.prefix):
        return []
    member = name.removeprefix(offer.prefix)
    return [member] if member in (_members if offer.prefix else _told)(plugin, offer) else []


def _offered_twice(what: str, written: str, offers: Sequence[tuple[Plugin, str]]) -> SegregError:
    """Return the error of a name that several offer, each given with the place of its offer."""
    choices = listed([f"{written}@{plugin.distribution}" for plugin, _ in offers], last="or")
    return SegregError(
        f"the {what} is offered more than once: " + " and ".join(f"by {p.title} ({place})" for p, place in offers),
        hint=f"say which one: {choices}" if len({plugin.distribution for plugin, _ in offers}) > 1 else "",
    )


def _members(plugin: Plugin, family: Family) -> frozenset[str]:
    title = f"the members of its family {family.name}"
    return _ask(plugin, title, lambda: frozenset(_of_strings(dict.fromkeys(family.members(), ""))))


def _told(plugin: Plugin, family: Family) -> frozenset[str]:
    """Return a family's members; none where it fails, which `Registry.lost_families` tells."""
    try:
        return _members(plugin, family)
    except SegregError:
        return frozenset()


def _unfit(plugin: Plugin, family: Family) -> Mapping[str, str]:
    """Return why members that a library has can't be used, by their names."""
    unfit = family.unfit
    if unfit is None:
        return {}
    title = f"what of its family {family.name} can't be used"
    return _ask(plugin, title, lambda: _of_strings(dict(unfit())))


def _of_strings(told: dict[str, str]) -> dict[str, str]:
    """Return what a plugin tells, or raise an error that names what is not a string."""
    for one in (*told, *told.values()):
        if not isinstance(one, str):
            raise TypeError(f"{one!r} is not a string")
    return told


def _ask(plugin: Plugin, what: str, ask: Callable[[], Any]) -> Any:
    """Return what a plugin tells of its families.

    Raises:
        SegregError: it raised something.
    """
    hint = f"{DISABLE}={plugin.distribution} continues without it"
    with Guard(keep_output=True) as guard:
        try:
            with guard.call(f"asking {plugin.title} for {what}", hint):
                return ask()
        except BaseException as error:
            if guard.interrupted or isinstance(error, SegregError):
                raise
            problem = f"{plugin.title} can't tell {what}: {type(error).__name__}: {error}"
            raise SegregError(problem, hint=hint) from error


def find_points() -> list[EntryPoint]:
    """Return the entry points of all plugins that are installed, without loading any."""
    return list(entry_points(group=GROUP))


def load_registry(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every plugin once: packages', and this process's files and registered entries, unless `points` are given.

    A package that can't be used is reported in its `Plugin.error` and stops nobody else. What a plugin prints meanwhile
    is kept in its `Plugin.output`, and one that takes long is named on standard error.

    Raises:
        SegregError: a plugin file, which somebody has named, can't be used.
    """
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    off = [plain_name(pattern.strip()) for pattern in os.environ.get(DISABLE, "").split(",") if pattern.strip()]
    plugins = []
    with Guard(keep_output=True) as guard, faults_noted():
        installed = find_points() if points is None else list(points)
        packages: dict[int, About] = {}  # of each package once, however many plugins it has
        for point in installed:
            if point.dist and id(point.dist) not in packages:
                packages[id(point.dist)] = about(point.dist)
        for point in installed:
            package = packages.get(id(point.dist), About())
            plugin = Plugin(point.name, point.value, package.name, package.version, notice=package.notice)
            names = (plain_name(package.name), plain_name(point.name))
            if any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in off):
                plugins.append(dataclasses.replace(plugin, error=f"switched off by {DISABLE}"))
            elif package.misfit:
                hint = f"pip install --upgrade segreg-toolkit {package.name} brings two that fit, where there are such"
                plugins.append(dataclasses.replace(plugin, error=str(SegregError(package.misfit, hint=hint))))
            else:
                plugins.append(_load(manager, plugin, point.load, guard))
        for file in local.plugin_files() if points is None else ():
            plugin = Plugin(file.path.stem, file.module, file.name, file.digest[:8], file=file.path, source=file.digest)
            plugins.append(_load(manager, plugin, file.load, guard))
    if points is None:
        plugins += map(_registered, local.registered())
    if broken := [plugin for plugin in plugins if plugin.file and plugin.error]:
        raise SegregError.of(Problem(f"the plugin file {p.distribution} can't be used: {p.error}") for p in broken)
    return Registry(tuple(sorted(plugins, key=lambda p: (p.distribution, p.name))), manager)


def _registered(offer: Entry | Family) -> Plugin:
    """Return the plugin that an entry registered in this process is."""
    source = hashlib.blake2b(local.text_of(offer).encode(), digest_size=16).hexdigest()
    module, name = _module_of(offer), f"{offer.kind}.{offer.name}"
    whole = hashlib.blake2b(f"{source} {source_digest(module)}".encode(), digest_size=16).hexdigest()
    return Plugin(name, module, local.REGISTERED, "in this process", parts=(offer,), source=whole)


def _load(manager: pluggy.PluginManager, plugin: Plugin, load: Callable[[], Any], guard: Guard) -> Plugin:
    start = time.perf_counter()
    title = f"{plugin.distribution}:{plugin.name}"
    if manager.has_plugin(title):
        return dataclasses.replace(plugin, error="the package has an entry point of this name already")
    words, hint = f"loading {plugin.file}", ""
    if plugin.file is None:
        words = f"loading {plugin.name} = {plugin.module} of {plugin.title}"
        hint = f"{DISABLE}={plugin.distribution} continues without it"
    try:
        with guard.call(words, hint):
            module = load()
            if other := manager.get_name(module):
                raise SegregError(f"{plugin.module} is in use already, through {other}")
            manager.register(module, title)
            plugin = _with_offers(manager, plugin, module, guard)
    except BaseException as error:  # a stranger's code: whatever it raises, the others continue
        if guard.interrupted:
            raise
        if manager.has_plugin(title):
            manager.unregister(name=title)
        message = _format_error(error, plugin.module)
        if isinstance(error, (ImportError, AttributeError)) and (happened := stranger_installed()):
            message = f"{message}\n{happened}"
        return dataclasses.replace(plugin, error=message, detail=traceback.format_exc(), output=guard.output())
    return dataclasses.replace(plugin, seconds=time.perf_counter() - start, output=guard.output())


def _format_error(error: BaseException, module: str) -> str:
    """Format what loading a module raised, after the "file:line" of its package's own code where it has one."""
    if isinstance(error, SegregError):
        return str(error)
    module = module.partition(":")[0]
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        hint = "where pyproject.toml names another one by now, install the package again"
        lacks = "which is not there" if error.name == module else f"and there is no {error.name}"
        return str(SegregError(f"its entry point names the module {module}, {lacks}", hint=hint))
    top = module if module.startswith(f"{local.__name__}.") else module.partition(".")[0]
    places = [
        f"{frame.f_code.co_filename}:{line}: "
        for frame, line in traceback.walk_tb(error.__traceback__)
        if top in (name := str(frame.f_globals.get("__name__")), name.partition(".")[0])
    ]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    return f"{places[-1] if places else ''}{type(error).__name__}: {error}"


def _with_offers(manager: pluggy.PluginManager, plugin: Plugin, module: Any, guard: Guard) -> Plugin:
    """Return a plugin with the parts and commands that its module offers."""
    callers = manager.get_hookcallers(module) or []
    known = [name for name in vars(hooks) if name.startswith("segreg_")]
    for caller in callers:
        if not caller.has_spec():
            hint = did_you_mean(caller.name, known, limit=1) or f"the hooks are {listed(known)}"
            at = where(getattr(module, caller.name))
            raise SegregError(f"{at}: it implements a hook that does not exist: {caller.name}", hint=hint)
    if not callers:
        raise SegregError(
            "it implements no hook", hint="put @segreg.hookimpl above `def segreg_entries(): ...` in the module"
        )
    parts, faults = _offered(manager, plugin, module, "segreg_entries", Entry, Family)
    try:
        commands, more = _offered(manager, plugin, module, "segreg_commands", Command)
    except BaseException as error:  # its parts can be used all the same
        if guard.interrupted:
            raise
        commands, more = [], [Fault("command", "", _format_error(error, plugin.module))]
    return dataclasses.replace(plugin, parts=tuple(parts), commands=tuple(commands), faults=(*faults, *more))


def _offered(
    manager: pluggy.PluginManager, plugin: Plugin, module: Any, hook: str, *types: type
) -> tuple[list[Any], list[Fault]]:
    """Return what a module's implementation of a hook offers that can be used, and what can't."""
    names = listed([f"segreg.{each.__name__}" for each in types], quote="", last="or")
    found: list[Any] = []
    faults: list[Fault] = []
    at = ""
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin is not module:
            continue
        returned: Any = implementation.function()
        at = where(implementation.function)
        if not isinstance(returned, Iterable):
            raise SegregError(f"{at}: {hook} returned {returned!r}, which is not a list of segreg.{types[0].__name__}")
        try:
            for offer in returned:
                if not issubclass(type(offer), types):
                    faults.append(Fault("", "", f"{at}: {hook} returned {offer!r}, which is not a {names}"))
                elif offer.fault:
                    faults.append(Fault(_kind_of(offer), str(offer.name), offer.fault))
                else:
                    found.append(offer)
        except Exception as error:  # of a generator: what it gave before can be used
            if not found:
                raise
            words = _format_error(error, plugin.module)
            faults.append(Fault("", "", f"{hook} stopped after {len(found) + len(faults)} offers: {words}"))
    single = [(_kind_of(offer), offer.name) for offer in found if not isinstance(offer, Family)]
    twice = [each for each in dict.fromkeys(single) if single.count(each) > 1]
    for kind, name in twice:
        what = repr(name) if kind == "command" else f"{kind} {name!r}"
        faults.append(Fault(kind, name, f"{at}: {hook} returned {what} twice; name one otherwise"))
    return [o for o in found if isinstance(o, Family) or (_kind_of(o), o.name) not in twice], faults


def _kind_of(offer: Entry | Family | Command) -> str:
    return "command" if isinstance(offer, Command) else offer.kind
