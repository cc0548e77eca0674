"""Checks that parts of every kind have: what is declared can be listed, shown, checked and completed by editors."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from functools import cache

import pluggy

from segreg.config.schema import recipe_schema
from segreg.errors import SegregError, listed
from segreg.registry.entry import Family
from segreg.registry.hooks import PROJECT
from segreg.registry.registry import Registry
from segreg.settings import check_value, format_type, plain
from segreg.testing.check import Rule
from segreg.testing.subject import Broken, NotChecked, Subject

HEAVY = (
    "albumentations", "cv2", "numpy", "scipy", "segmentation_models_pytorch", "tensorflow", "timm", "torch",
    "torchmetrics", "torchvision", "transformers",
)  # fmt: skip
"""Packages that take long to import, and that a table of contents leaves to its builders."""

_PROGRAM = """
import json, sys
from importlib.metadata import EntryPoint
from segreg.registry.entry import Family
from segreg.registry.registry import load_registry
if sys.argv[2] == "plugin":
    plugin = load_registry([EntryPoint("parts", sys.argv[1], "segreg")]).plugins[0]
    problem = plugin.error
    for part in plugin.parts:
        if isinstance(part, Family):
            for member in list(part.members())[:1]:
                part.settings(member)
        else:
            part.settings
else:
    import importlib
    importlib.import_module(sys.argv[1])
    problem = ""
print()
print(json.dumps([problem, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def settings_are_described(subject: Subject) -> None:
    """Every setting has a type hint that can be evaluated, and a meaning."""
    settings = subject.part.settings
    if untold := [name for name, setting in settings.items() if not setting.meaning]:
        raise Broken(f"nothing says what {listed(untold, last='or')} means")


def defaults_fit_their_hints(subject: Subject) -> None:
    """Each default is a value that a recipe could write."""
    try:
        _ = subject.part.settings
    except SegregError as error:
        if error.__cause__ is not None:  # what evaluating a hint has raised
            raise NotChecked("its settings can't be read, see settings_are_described") from error
        raise Broken(error.problems[0].message) from error
    optional = {name: s for name, s in subject.part.settings.items() if not s.required}
    if not optional:
        raise NotChecked("it has no setting with a default")
    for name, setting in optional.items():
        back = check_value(setting.hint, plain(setting.hint, setting.default))
        written, read = (json.dumps(plain(setting.hint, value)) for value in (setting.default, back))
        if back != setting.default and written != read:
            raise Broken(f'the default of "{name}" is {setting.default!r}, but a recipe that writes it gets {back!r}')


def it_can_be_shown(subject: Subject) -> None:
    """`segreg list` and `segreg show` have words for the part and for each setting."""
    _readable(subject)
    part = subject.part
    if not part.summary:
        raise Broken("its docstring has no first line")
    for name, setting in part.settings.items():
        try:
            words = format_type(setting.hint)
            json.dumps(None if setting.required else plain(setting.hint, setting.default))
        except Exception as error:
            raise Broken(f'"{name}" can\'t be shown: {type(error).__name__}: {error}') from error
        if not words:
            raise Broken(f'there are no words for the type of "{name}", {setting.hint!r}')


def its_schema_is_valid(subject: Subject) -> None:
    """The JSON Schema of a recipe with this part is valid, and each default keeps to its own."""
    _readable(subject)
    part = subject.part
    offer = part.offer
    if isinstance(offer, Family):  # the others have checks of their own, and may be many
        offer = dataclasses.replace(offer, members=lambda: [part.member or ""])
    alone = dataclasses.replace(part.plugin, parts=(offer,))
    schema = recipe_schema(Registry((alone,), pluggy.PluginManager(PROJECT)))
    json.dumps(schema)
    try:
        jsonschema = importlib.import_module("jsonschema")
    except ImportError:
        raise NotChecked("it was made, but not validated: the package jsonschema is not installed") from None
    definitions = schema["$defs"]
    rest = {name: value for name, value in schema.items() if name != "$defs"}
    for place, part_of_it in (("", rest), *((f"$defs/{name}/", value) for name, value in definitions.items())):
        if fault := _fault(json.dumps(part_of_it)):
            at, message = fault
            raise Broken(f"the schema of its settings is not valid at {f'{place}{at}'.rstrip('/')}: {message}")
    values = {n: plain(s.hint, s.default) for n, s in part.settings.items() if not s.required}
    if subject.missing:
        raise NotChecked(f"the schema is valid, but the settings were not tried: needs {listed(subject.missing)}")
    values |= {name: plain(part.settings[name].hint, value) for name, value in subject.settings.items()}
    section = {"$defs": definitions, "$ref": f"#/$defs/{part.kind}"}
    if not jsonschema.Draft202012Validator(section).is_valid({"name": part.name, **values}):
        raise Broken("its schema refuses a recipe that names it with these settings, or its defaults")


def the_table_of_contents_is_light(subject: Subject) -> None:
    """What lists the part imports no torch and no other heavy package."""
    plugin = subject.part.plugin
    if plugin.file:
        raise NotChecked("a plugin file is loaded only where it is named, and may import anything")
    problem, modules = _imported(plugin.module, "plugin" if plugin.name else "module", os.pathsep.join(sys.path))
    if problem:
        raise NotChecked(f"{plugin.module} can't be imported alone: {problem}")
    if heavy := [name for name in HEAVY if name in modules]:
        raise Broken(f"importing {plugin.module}, and listing what it offers, brings {listed(heavy)} in")


def _readable(subject: Subject) -> None:
    """Stop where the settings can't be read: one check says why."""
    try:
        _ = subject.part.settings
    except SegregError as error:
        raise NotChecked("its settings can't be read, see settings_are_described") from error


@cache
def _fault(schema: str) -> tuple[str, str] | None:
    """Return where a JSON Schema is not valid and why, if it isn't; recipes of different parts share most of theirs."""
    jsonschema = importlib.import_module("jsonschema")
    try:
        jsonschema.Draft202012Validator.check_schema(json.loads(schema))
    except jsonschema.SchemaError as error:
        return "/".join(str(step) for step in error.absolute_path), error.message
    return None


@cache
def _imported(module: str, form: str, path: str) -> tuple[str, frozenset[str]]:
    """Return what went wrong and the top-level modules that a fresh process has once it has loaded a plugin."""
    done = subprocess.run(  # noqa: S603 - this Python, and a module that is imported already
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, module, form],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1], frozenset()
    problem, modules = json.loads(done.stdout.splitlines()[-1])
    return problem, frozenset(modules)


RULES = (
    Rule(settings_are_described, "`segreg show` and editors tell users what a setting means in these words"),
    Rule(defaults_fit_their_hints, "resolved.yaml writes the defaults out, and has to run again"),
    Rule(it_can_be_shown, "`segreg show` is how users learn what they may set"),
    Rule(its_schema_is_valid, "editors complete and check recipes by it; one bad part spoils the schema of all"),
    Rule(
        the_table_of_contents_is_light, "`segreg list` and `segreg check` load every plugin and should answer at once"
    ),
)
