"""The docs against the code: what they name is there, what is there is named, and what they show runs.

`python tests/test_docs.py` writes what is made from the code: docs/parts.md, the tables of docs/recipes.md, and the
index's counts.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

import plugged
import segreg
import tiny_runs
from segreg.cli import added_commands, parser
from segreg.config.recipe import read_recipe
from segreg.config.resolve import SECTIONS, SETTINGS, resolve
from segreg.config.sections import BESIDE, Lora
from segreg.registry import hooks
from segreg.registry import protocols as contracts
from segreg.registry.entry import Entry, Family
from segreg.registry.protocols import KINDS
from segreg.registry.registry import load_registry
from segreg.runs.directory import RunDirectory
from segreg.runs.trained_run import Run
from segreg.settings import format_type, plain, settings_of
from test_architecture import LAYERS, PUBLIC

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
INDEX = DOCS / "index.md"
PAGES = {str(page.relative_to(ROOT)): page for page in (README, *sorted(DOCS.rglob("*.md")))}
PLUGINS, CONTRACTS = DOCS / "plugins", DOCS / "plugins" / "contracts.md"
RECIPES, PARTS, COMMANDS_PAGE = DOCS / "recipes.md", DOCS / "parts.md", DOCS / "commands.md"

TABLES = {**SETTINGS, "encoder": BESIDE["encoder"], "optimizer": BESIDE["optimizer"], "lora": Lora}
"""Settings whose tables are in docs/recipes.md, by name."""

EXAMPLES = {"worst", "look"}
"""Commands that the docs' own plugins add."""

each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page, *languages):
    """Return the fenced blocks of a page in these languages, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def prose(page):
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def spans(page):
    """Return what stands between backticks, line breaks as blanks."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def sections(page):
    """Return the text below each heading of the second level, by the heading."""
    pieces = re.split(r"^## (.+)$", text_of(page), flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# what is made from the code


def settings_table(section):
    rows = ["| setting | default | is | meaning |", "|---|---|---|---|"]
    for setting in settings_of(section).values():
        words = format_type(setting.hint)
        default = json.dumps(plain(setting.hint, setting.default))
        rows.append(f"| `{setting.name}` | `{default}` | {words} | {setting.meaning} |")
    return "\n".join(rows)


def with_tables(text):
    """Return the text of docs/recipes.md with its tables made anew."""
    for name, section in TABLES.items():
        table = f"<!-- settings: {name} -->\n{settings_table(section)}\n<!-- end -->"
        text = re.sub(rf"<!-- settings: {name} -->\n.*?<!-- end -->", lambda _, new=table: new, text, flags=re.DOTALL)
    return text


def in_short(settings):
    reported = [
        f"`{s.name}`" if s.required else f"`{s.name}: {json.dumps(plain(s.hint, s.default))}`"
        for s in settings.values()
    ]
    return ", ".join(reported)


def parts_page(registry):
    """Return the text of docs/parts.md."""
    lines = [
        "# Parts",
        "",
        "<!-- made from the code by `python tests/test_docs.py`; don't edit -->",
        "",
        "Every built-in part, with its settings and their defaults; a setting without a default must be given.",
        "`segreg show KIND NAME` says what each means, which values it takes, and where the part is defined.",
    ]
    for kind in KINDS.values():
        lines += ["", f"## {heading(kind)}", "", f"Returns {kind.returns}.", ""]
        offers = [offer for plugin in registry.plugins for offer in plugin.parts if offer.kind == kind.name]
        entries = sorted((o for o in offers if isinstance(o, Entry)), key=lambda entry: entry.name)
        if entries:
            lines += ["| name | | settings |", "|---|---|---|"]
        for entry in entries:
            paper = f" {entry.paper}" if entry.paper else ""
            lines.append(f"| `{entry.name}` | {entry.summary}{paper} | {in_short(entry.settings)} |")
        for family in (o for o in offers if isinstance(o, Family)):
            lines += ["", *family_lines(family)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def heading(kind):
    """Return a kind's name as a heading has it: "Batch augmentation"."""
    return kind.name.replace("_", " ").capitalize()


def family_lines(family):
    pattern = f" '{family.prefix}*'" if family.prefix else ""
    lines = [f"{family.summary} `segreg list {family.kind}{pattern}` lists them."]
    if family.name != "smp":  # which there are depends on the version that is installed
        return lines
    members = sorted(family.members())
    common = [name for name in family.settings(members[0]) if name != "weights"]
    settings = {name: family.settings(members[0])[name] for name in common}
    lines[0] += f" Settings: `weights: null`, {in_short(settings)}. Each has the weights in parentheses:"
    tags = {member: get_args(get_args(family.settings(member)["weights"].hint)[0]) for member in members}
    listed = ", ".join(f"`{member}` ({', '.join(tags[member])})" for member in members)
    return [*lines, "", textwrap.fill(listed, 120, break_long_words=False, break_on_hyphens=False)]


def with_counts(text, registry):
    """Return the index with its counts of single parts made anew."""
    for kind in KINDS:
        text = re.sub(rf"^(\| {kind} \| )\d+", rf"\g<1>{len(registry.parts(kind))}", text, flags=re.MULTILINE)
    return text


def write():
    """Write what is made from the code."""
    registry = load_registry(plugged.builtin())
    PARTS.write_text(parts_page(registry), encoding="utf-8")
    RECIPES.write_text(with_tables(text_of(RECIPES)), encoding="utf-8")
    INDEX.write_text(with_counts(text_of(INDEX), registry), encoding="utf-8")


def test_the_tables_of_settings_are_those_of_the_code():
    assert text_of(RECIPES) == with_tables(text_of(RECIPES)), "python tests/test_docs.py writes them"
    for name in TABLES:
        assert f"<!-- settings: {name} -->" in text_of(RECIPES)


def test_the_page_of_parts_is_that_of_the_code(builtin):
    assert text_of(PARTS) == parts_page(builtin), "python tests/test_docs.py writes it"


# what is there is named


@each_page
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def test_every_page_is_in_the_index():
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", text_of(DOCS / "index.md")))
    assert linked == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}


def test_the_site_has_every_page_and_every_public_name():
    site = tomllib.loads(text_of(ROOT / ".zensical.toml"))["project"]
    pages = [page for group in site["nav"] for inside in group.values() for page in inside]
    assert sorted(pages) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    referred = re.findall(r"^::: segreg\.(\w+)$", text_of(DOCS / "reference.md"), re.MULTILINE)
    assert set(referred) == {name for name in segreg.__all__ if not name.startswith("_")}


def test_every_public_function_is_called_in_a_page_that_runs():
    code = "".join(text for page in PAGES.values() for text in blocks(page, "python"))
    code += text_of(DOCS / "first_hour.ipynb")
    functions = {name for name in segreg.__all__ if inspect.isfunction(getattr(segreg, name))}
    assert [name for name in sorted(functions) if f"segreg.{name}(" not in code] == []


def test_every_section_of_a_recipe_is_reported():
    reported = {word.split(".")[0] for word in spans(RECIPES)} | set(re.findall(r"^### (\w+)$", text_of(RECIPES), re.M))
    assert set(SECTIONS) <= reported


def test_every_kind_is_reported_with_what_it_is_given():
    reported = sections(CONTRACTS)
    for kind in KINDS.values():
        text = reported[heading(kind)]
        assert "Given:" in text
        assert "Returns:" in text or kind.name == "dataset"
        builder = re.search(r"^def \w+\((.*?)\)( ->.*)?:$", text, re.MULTILINE).group(1)
        given = [word.strip().split(":")[0] for word in builder.partition("*")[0].split(",") if word.strip()]
        assert given == list(kind.gives)


def test_every_hook_is_reported_with_its_arguments():
    reported = {span for span in spans(CONTRACTS) if re.fullmatch(r"segreg_\w+\(.*\)", span)}
    specs = {name: hook for name, hook in vars(hooks).items() if name.startswith("segreg_")}
    assert {f"{name}({', '.join(inspect.signature(hook).parameters)})" for name, hook in specs.items()} == reported


def test_every_public_name_is_reported():
    reported = " ".join(spans(DOCS / "python.md"))
    for name in segreg.__all__:
        assert re.search(rf"\b{name}\b", reported), name
    for name in vars(Run):
        assert name.startswith("_") or re.search(rf"\bRun\.{name}\b", reported), name
    assert "Run.directory" in reported


def test_what_plugins_may_import_is_reported_and_there():
    own, modules = sections(PLUGINS / "index.md")["What a plugin may import"].split("And these modules:")
    assert sorted(re.findall(r"`(\w+)`", own.partition(":")[2])) == sorted(segreg.__all__)
    rows = dict(re.findall(r"^\| `segreg\.([\w.]+)` \| (.+) \|$", modules, re.MULTILINE))
    assert set(rows) | {""} == PUBLIC | {"testing"}
    for module, names in rows.items():
        there = importlib.import_module(f"segreg.{module}")
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(there, name), f"segreg.{module} has no {name}"


def test_what_a_kind_reserves_is_reported():
    reported = sections(CONTRACTS)["An entry"]
    assert "`name` can't be a setting" in " ".join(reported.split())
    for kind in KINDS.values():
        assert set(settings_of(BESIDE[kind.name]) if kind.name in BESIDE else ()) <= kind.reserved
        for word in kind.reserved - {"name"}:
            assert re.search(rf"`{word}`[^.:]* of [^.:]*\b{kind.name}\b", reported), f"{kind.name}: {word}"


@pytest.mark.parametrize("kind", ["encoder", "decoder", "metric", "schedule"])
def test_what_a_kind_promises_and_may_offer_besides_is_reported(kind):
    protocol = vars(contracts)[kind.title()]
    besides = protocol.__doc__.partition("may be offered besides")
    bullets = re.findall(r"^ *\* (.*?)(?::|, a)", besides[2], re.MULTILINE)
    offered = re.findall(r"`(\w+)", " ".join(bullets) or besides[0].splitlines()[-1])
    assert offered
    methods = [name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_")]
    reported = sections(CONTRACTS)[kind.title()]
    for name in (*offered, *methods, *vars(protocol).get("__annotations__", {})):
        assert re.search(rf"`{name}\b", reported), f"{kind}: {name}"


@pytest.mark.parametrize(
    ("section", "form"),
    [
        ("Dataset", contracts.Dataset),
        ("Dataset", contracts.Sample),
        ("Metric", contracts.Curve),
        ("Metric", contracts.Matrix),
        ("Metric", contracts.Reliability),
    ],
)
def test_every_field_that_a_plugin_fills_in_is_reported(section, form):
    reported = " ".join(re.findall(r"`([^`]+)`", sections(CONTRACTS)[section].replace("```", "")))
    for field in dataclasses.fields(form):
        assert re.search(rf"\b{field.name}\b", reported), f"{form.__name__}.{field.name}"


def test_what_is_refused_is_said_in_these_words():
    source = " ".join(text_of(file) for file in (ROOT / "segreg").rglob("*.py"))
    rows = [
        line.strip("| ").split(" | ") for line in sections(CONTRACTS)["What is refused"].splitlines() if "|" in line
    ]
    for *_, words in rows[2:]:
        assert words.strip("`").replace("255", "{IGNORE_INDEX}") in source, words
    assert len(rows) > 15


def test_a_plugin_for_another_segreg_is_reported_in_these_words(segreg, installed, monkeypatch):
    page = PLUGINS / "index.md"
    project = tomllib.loads(blocks(page, "toml")[0])["project"]
    names = {"distribution": project["name"], "version": project["version"], "requires": project["dependencies"]}
    installed(plugged.point("segreg_lung_ct", **names))
    monkeypatch.setattr("segreg.registry.compatibility.version", lambda name: "0.3.0")
    assert segreg("plugins").out == blocks(page, "text")[0]


def test_every_file_of_a_run_is_reported():
    reported = set(spans(DOCS / "training.md"))
    files = [file.name for name, file in vars(RunDirectory(Path("run"))).items() if name != "path"]
    for name in [*files, "state.pt", "history.jsonl"]:
        assert {name, f"{name}/"} & reported, name


def test_every_environment_variable_is_reported_and_exists():
    read = set()
    for file in (*(ROOT / "segreg").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"), Path(__file__)):
        read |= set(re.findall(r"\bSEGREG_[A-Z_]+\b", text_of(file)))
    reported = set(re.findall(r"\bSEGREG_[A-Z_]+\b", " ".join(text_of(page) for page in PAGES.values())))
    assert read | {"SEGREG_REAL_DATA"} == reported
    assert reported <= set(re.findall(r"`(\w+)`", sections(COMMANDS_PAGE)["Environment variables"]))


def test_every_package_has_its_layer_in_the_picture():
    drawn = re.search(r"^```text\n(cli.*?)^```$", text_of(DOCS / "design.md"), re.MULTILINE | re.DOTALL).group(1)
    layers = [set(re.split(r" {3,}", line)[0].split()) for line in drawn.splitlines()]
    assert list(reversed(layers)) == [{name or "segreg" for name in names} for names in LAYERS]


# what is named is there


@cache
def commands():
    """Return the options of each command and its actions by its name; those of segreg itself under ""."""
    top = parser(added_commands(load_registry(plugged.builtin())))
    own = {option for action in top._actions for option in action.option_strings}
    return {"": own, **{name: options(command) for name, command in choices(top).items()}}


def choices(one):
    return {k: v for a in one._actions if isinstance(a, argparse._SubParsersAction) for k, v in a.choices.items()}


def options(one):
    inside = [options(below) for below in choices(one).values()]
    return {option for action in one._actions for option in action.option_strings}.union(*inside)


@each_page
def test_commands_and_options_exist(page):
    known = commands()
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    for text in (*spans(page), *lines):
        for reported in re.findall(r"(?:^|[ /;])segreg ([^|;&#]+)", text):
            words = reported.split()
            command = words[0] if words[0].isalpha() and words[0].islower() else ""
            if command in EXAMPLES:
                continue
            assert command in known, f"{page.name}: there is no command {command} in {text!r}"
            options = {word for word in words if word.startswith("--")}
            assert options <= known[command] | {"--help"}, f"{page.name}: {text!r}"


def test_every_command_and_option_is_reported():
    reported = sections(COMMANDS_PAGE)
    table = reported["The commands"]
    for name in filter(None, commands()):
        assert f"`segreg {name}`" in table
        section = reported[f"segreg {name}"]
        for option in commands()[name] - {"-h", "--help", "--plugin"}:  # which every command has
            assert f"`{option}" in section, f"{name} {option}"
    for option in commands()[""]:
        assert f"`{option}`" in reported["segreg"]


@each_page
def test_python_is_python(page):
    for block in blocks(page, "python"):
        ast.parse(block)


def whole_recipes():
    for page in PAGES.values():
        if page.is_relative_to(PLUGINS):  # the parts are the pages' own; their own tests check them
            continue
        for number, block in enumerate(blocks(page, "yaml"), start=1):
            if re.search(r"^encoder:", block, re.MULTILINE) and re.search(r"^evaluate:", block, re.MULTILINE):
                yield pytest.param(page, block, id=f"{page.name}-{number}")


@pytest.mark.parametrize(("page", "block"), list(whole_recipes()))
def test_recipes_are_fine(page, block, tmp_path, builtin):
    file = tmp_path / "recipe.yaml"
    file.write_text(block, encoding="utf-8")
    resolve(read_recipe(file), builtin)


def overrides_shown():
    page = DOCS / "coming-from.md"
    for line in text_of(page).splitlines():
        if line.startswith("| "):
            ours = line.split(" | ")[1]
            yield from (span for span in re.findall(r"`([^`]+)`", ours) if re.match(r"[a-z][\w.]*=", span))


@pytest.mark.parametrize("span", [span for span in dict.fromkeys(overrides_shown()) if span != "a.b=c"])
def test_what_other_toolkits_say_is_accepted_here(span, tmp_path, builtin):
    file = tmp_path / "recipe.yaml"
    file.write_text(blocks(DOCS / "tutorial.md", "yaml")[0], encoding="utf-8")
    resolve(read_recipe(file, re.split(r" (?=[a-z_.]+=)", span)), builtin)


def test_the_test_command_stands_where_ci_looks_for_it():
    lines = text_of(README).splitlines()
    begin, end = lines.index("<!-- test command -->"), lines.index("<!-- end -->")
    command = [line for line in lines[begin + 1 : end] if not line.startswith("```")]
    assert command == ["python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest -n auto"]


def test_the_counts_of_built_in_parts(builtin):
    reported = dict(re.findall(r"^\| (\w+) \| (\d+)", sections(INDEX)["What is built in"], re.MULTILINE))
    there = {kind: len(builtin.parts(kind)) for kind in KINDS}
    reported["augmentation"] = there["augmentation"]  # which is Albumentations', and told with its version
    assert {kind: int(count) for kind, count in reported.items()} == there, "python tests/test_docs.py writes them"


def test_licences_are_those_that_the_packages_state():
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    names = [re.match(r"[\w-]+", requirement).group() for requirement in project["dependencies"]]
    page = sections(DOCS / "licences.md")["Licences of what it depends on"]
    reported = dict(re.findall(r"^\| ([\w-]+) \| (.+) \|$", page, re.M))
    reported.pop("dependency")
    assert list(reported) == names
    reasons = re.findall(r"^\| ([\w-]+) \|", sections(DOCS / "design.md")["Why each dependency is there"], re.M)
    assert reasons == ["package", *names]
    for name, licence in reported.items():
        metadata = importlib.metadata.metadata(name)
        fields = ("License-Expression", "License", "Classifier")
        stated = " ".join(text for field in fields for text in metadata.get_all(field) or [])
        assert licence.split(",")[0].split(" (")[0] in stated, f"{name}: {stated[:200]}"


# what is shown runs


NETWORK = ("resnet18", "timm/test_resnet")
"""Which network it is is not the pages' matter."""
SMALLER = (
    ("samples: 80", "samples: 12"), ("size: [96, 96]", "size: [32, 32]"), ("epochs: 8", "epochs: 1"), NETWORK,
)  # fmt: skip


def replaced(text, *changes):
    """Return a text in which each of these is there once, and replaced."""
    for written, instead in changes:
        assert text.count(written) == 1, written
        text = text.replace(written, instead)
    return text


def smaller(recipe):
    """Return a recipe of the docs that trains in a moment."""
    return replaced(recipe, *SMALLER)


UNDRAWN = f"""
from unittest import mock
for name in {tiny_runs._SLOW!r}:
    mock.patch(name).start()
for name in ("segreg.reports.comparison.page", "segreg.reports.tune.page"):
    mock.patch(name, return_value="").start()
"""
"""Python that begins with it makes neither diagrams nor reports."""


@pytest.fixture
def place(tmp_path, python):
    """An empty folder in which docs are followed: `place.sh(text)`, `place.python(text)`, `place.install(...)`."""
    return Place(tmp_path, python)


class Place:
    def __init__(self, folder, python):
        self.beginning = python
        self.folder = folder / "here"
        self.site = folder / "site-packages"
        binaries = folder / "bin"
        for made in (self.folder, self.site, binaries):
            made.mkdir()
        for name, runs in (("segreg", "-m segreg"), ("python", "")):  # as in an activated virtual environment
            (binaries / name).write_text(f'#!/bin/sh\nexec {shlex.join(python)} {runs} "$@"\n')
            (binaries / name).chmod(0o755)
        path = [str(self.site), str(ROOT), str(ROOT / "plugins")]
        self.environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path),
            "SEGREG_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def sh(self, text):
        return self._done(["bash", "-euo", "pipefail", "-c", text])

    def python(self, text):
        return self._done([*self.beginning, "-c", text])

    def _done(self, command):
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def write(self, name, text):
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)

    def shrink(self, name, *changes):
        file = self.folder / name
        file.write_text(replaced(text_of(file), *changes), encoding="utf-8")

    def write_files(self, page):
        """Write the fenced files of a page, which begin with their names; "(continued)" continues with one."""
        for block in blocks(page, "python", "yaml"):
            name, more = re.match(r"# (\S+\.(?:py|yaml))( \(continued\))?\n", block).groups()
            if not more:
                (self.folder / name).unlink(missing_ok=True)
            self.write(name, block)

    def install(self, project, *modules):
        """Does what `pip install` leaves: the modules, and beside them the package's name and entry points."""
        reported = tomllib.loads(project)["project"]
        info = self.site / f"{reported['name'].replace('-', '_')}-{reported['version']}.dist-info"
        info.mkdir(exist_ok=True)
        lines = [f"Name: {reported['name']}", f"Version: {reported['version']}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in reported["dependencies"]]
        (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))
        points = "".join(f"{name} = {module}\n" for name, module in reported["entry-points"]["segreg"].items())
        (info / "entry_points.txt").write_text(f"[segreg]\n{points}")
        for module in modules:
            if not (self.site / module.name).exists():
                (self.site / module.name).symlink_to(module)


@pytest.mark.slow
def test_the_tutorial(place):
    page = DOCS / "tutorial.md"
    place.write("first.yaml", smaller(blocks(page, "yaml")[0]))
    reported = {}
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL):
        reported[block] = place.sh(block) if language == "sh" else place.python(block)
    printed = "\n".join(reported.values())
    assert "first.yaml: fine" in printed
    # The messages that the page shows are those that came, but for numbers and what it cut short.
    shown = blocks(page, "text")
    for line in shown[0].splitlines():
        assert line.strip().removesuffix("...") in printed
    epoch = re.sub(r"[\d.]+", "N", shown[1].strip())
    printed_epochs = [re.sub(r"[\d.]+", "N", line) for line in printed.splitlines() if line.startswith("epoch ")]
    assert epoch.removesuffix("best").split("  ")[:4] == printed_epochs[0].split("  ")[:4]
    assert "!! SYNTHETIC" in printed
    assert "(256, 256) uint8 share of lesion:" in printed
    assert re.search(r"^removed (1 entry|2 entries)", printed, re.MULTILINE)
    assert len(list((place.folder / "runs" / "first").iterdir())) == 2


@pytest.mark.slow
def test_segreg_from_python(place):
    recipe = smaller(blocks(DOCS / "tutorial.md", "yaml")[0])
    # The page predicts an overlay, which is some images wide.
    place.write("first.yaml", replaced(recipe, ("samples: 12", "samples: 12, size: 64")))
    page = replaced(
        "".join(blocks(DOCS / "python.md", "python")),
        ("scales=(0.75, 1.0, 1.25)", "scales=(0.25, 0.5)"),  # of an overlay, which is 936 pixels wide
        ("for _ in range(24):", "for _ in range(12):"),
    )
    printed = place.python(UNDRAWN + page)
    assert "('lesion',) binary" in printed
    assert "[2, 4, 8, 16, 16] 4 " in printed


@pytest.mark.slow
def test_ones_own_training_loop(place):
    recipe = smaller(blocks(DOCS / "tutorial.md", "yaml")[0])
    place.write("first.yaml", recipe)
    *plain, own = blocks(DOCS / "pytorch.md", "python")
    assert len(plain[0].strip().splitlines()) <= 17  # fifteen lines and what separates them
    printed = place.python(UNDRAWN + replaced("".join(plain), ("for epoch in range(3):", "for epoch in range(1):")))
    assert "dice.pooled" in printed
    if importlib.util.find_spec("lightning"):
        place.python(replaced(own, ("max_epochs=3", "max_epochs=1")))


CELLS = """
import ast, json
namespace = {}
for source in json.load(open("cells.json", encoding="utf-8")):
    *lines, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        exec(source, namespace)
        continue
    exec(compile(ast.Module(lines, []), "cell", "exec"), namespace)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
    print("shown:", getattr(value, "_repr_html_", value.__repr__)())
"""


@pytest.mark.slow
def test_the_notebook(place):
    """Its cells are executed in order in one process, what a notebook would show below them included."""
    notebook = json.loads(text_of(DOCS / "first_hour.ipynb"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells), "store it without outputs"
    sources = ["".join(cell["source"]) for cell in cells]
    fewer = json.dumps(sources).replace('epochs\\": 10', 'epochs\\": 1').replace('epochs\\": 12', 'epochs\\": 2')
    fewer = replaced(fewer, ("samples: 40, size: 96", "samples: 12, size: 48"), ("size: [64, 64]", "size: [32, 32]"))
    assert fewer.count('epochs\\": 2') == 2
    place.write("cells.json", fewer)
    place.environment["MPLBACKEND"] = "agg"
    printed = place.python(CELLS)
    assert 'did you mean "dice_bce"' in printed
    assert printed.count("shown:") == 9
    assert len(list(place.folder.glob("runs/lesions/*/report.html"))) == 2


@pytest.mark.slow
def test_the_readme(place):
    """Its plugin is installed, its recipe names the plugin's loss, and its Python runs it."""
    recipe, module, python = *blocks(README, "yaml"), *blocks(README, "python")
    source = [line for line in module.splitlines() if line.strip()]
    assert len(source) <= 20
    place.write("segreg_brier.py", module)
    place.install(*blocks(README, "toml"), place.folder / "segreg_brier.py")
    place.write("lesions.yaml", smaller(recipe))
    printed = place.sh("segreg list loss; segreg show loss brier; segreg check lesions.yaml loss=brier")
    assert re.search(
        r"brier +Brier loss: the mean distance of probabilities from the truth, to a power\.  \[segreg-", printed
    )
    assert "power: a number above 0; default 2.0" in printed
    assert "lesions.yaml: fine" in printed
    assert "must be a number above 0, not -1" in place.sh("! segreg check lesions.yaml loss=brier loss.power=-1")
    place.python(f"""
import numpy as np, segreg, torch
from PIL import Image
Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("photo.jpg")
{python.replace('"train.epochs=3"', '"train.epochs=1", "loss=brier"')}
assert labels.shape == (20, 30) and labels.dtype == np.uint8
assert isinstance(network, torch.nn.Module)
logits, target = torch.randn(2, 1, 4, 5), torch.randint(0, 2, (2, 4, 5))
loss = segreg.build_part("loss", "brier", segreg.Task(("a",), "binary"))(logits, target)
torch.testing.assert_close(loss, torch.nn.functional.mse_loss(logits.sigmoid()[:, 0], target.float()))
target[0] = 255
loss = segreg.build_part("loss", "brier", segreg.Task(("a",), "binary"))(logits, target)
torch.testing.assert_close(loss, torch.nn.functional.mse_loss(logits[1, 0].sigmoid(), target[1].float()))
""")


@pytest.mark.slow
def test_the_plugin_of_the_docs(place):
    page = CONTRACTS
    project = blocks(page, "toml")[0]
    place.write_files(page)
    place.write_files(PLUGINS / "checking.md")
    place.shrink("disks.yaml", ("size: [64, 64]", "size: [32, 32]"))
    place.install(project, place.folder / "segreg_example")
    printed = place.sh(blocks(page, "sh")[0])
    assert "segreg-example 0.1  example-log (segreg_example.log)\n  offers nothing; it observes runs" in printed
    assert "example/large" in printed
    assert printed.count("disks.yaml: fine") == 2
    run = next((place.folder / "runs" / "disks").iterdir())
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["monitor"] == "val.area_error"
    assert results["definitions"]["area_error"].startswith("Absolute difference")
    assert (run / "log.txt").read_text(encoding="utf-8").startswith("1 ")
    with (run / "history.csv").open(encoding="utf-8") as file:
        columns = file.readline().strip().split(",")
    assert {"train.loss.brier", "train.loss.auxiliary.dice", "val.area_error"} <= set(columns)
    printed = place.sh("segreg plugin check segreg-example --recipe disks.yaml --quick")
    assert re.search(r"^12 parts of segreg-example: \d+ passed, \d+ not checked$", printed, re.MULTILINE)
    listed = place.sh("python -m pytest --collect-only -q test_parts.py")
    assert "test_parts.py::test_my_parts[encoder-halving-gradients_reach_every_parameter]" in listed


@pytest.mark.slow
def test_the_tutorial_of_plugins(place):
    page = PLUGINS / "tutorial.md"
    pip = "pip install -e './segreg-coins[dev]'\n"
    begin, use, check, run, worst = blocks(page, "sh")
    shown = blocks(page, "text")
    assert place.sh(begin).startswith(shown[0])
    for name in re.findall(r"`([\w./]+\.(?:py|yaml|toml))`", sections(page)["Write the package"]):
        assert list(place.folder.glob(f"segreg-coins/**/{Path(name).name}")), name
    assert use.startswith(pip)
    place.install(
        text_of(place.folder / "segreg-coins" / "pyproject.toml"),
        place.folder / "segreg-coins" / "src" / "segreg_coins",
    )
    printed = place.sh(use.removeprefix(pip))
    assert "coins.disks" in printed
    assert "Brier loss" in printed
    assert "example.yaml: fine" in printed
    place.write_files(page)
    (entry_point,) = blocks(page, "toml")
    project = place.folder / "segreg-coins" / "pyproject.toml"
    heading = "[project.entry-points.segreg]\n"
    project.write_text(text_of(project).replace(heading, heading + entry_point.split("\n", 1)[1]), encoding="utf-8")
    place.install(text_of(project), place.folder / "segreg-coins" / "src" / "segreg_coins")
    printed = place.sh(check)
    assert shown[1].strip() in printed
    assert " passed" in printed.splitlines()[-1]
    few = (("samples: 40", "samples: 12"), ("size: [64, 64]", "size: [32, 32]"), ("epochs: 4", "epochs: 1"), NETWORK)
    place.shrink("segreg-coins/example.yaml", *few)
    place.sh(run)
    (made,) = (place.folder / "runs" / "example").iterdir()
    assert len(place.sh(worst).splitlines()) == 2
    environment = json.loads((made / "environment.json").read_text(encoding="utf-8"))
    assert ("segreg-coins", "0.1.0") in [(p["distribution"], p["version"]) for p in environment["plugins"]]
    assert "steepness: 6.0" in text_of(made / "resolved.yaml")
    for words in ("check", "format --check"):
        place.sh(f"cd segreg-coins && {sys.executable} -m ruff {words} --no-cache .")


@pytest.mark.slow
def test_the_how_to_of_plugins(place, monkeypatch):
    page = PLUGINS / "how-to.md"
    place.write_files(page)
    place.shrink("scenes.yaml", ("size: [64, 64]", "size: [32, 32]"), NETWORK)
    place.install(blocks(page, "toml")[0], place.folder / "segreg_howto")
    monkeypatch.chdir(place.folder)
    exec(HOW_TO_DATA, {})
    place.environment["LAB_LOG"] = "lab.jsonl"
    assert "margin: a number; default 1.0" in place.sh("segreg show loss hinge --plugin my_parts.py")
    assert "hookimpl" not in place.sh("segreg plugin check my_parts.py --plugin my_parts.py --quick")
    for kind in ("encoder", "loss"):
        assert f"segreg plugin check segreg-howto '{kind}.*'" in spans(page)
    place.sh(
        "segreg plugin check segreg-howto 'encoder.*' 'loss.*' 'dataset.*'"
        " --set dataset.howto.database.file=images.sqlite3 --set dataset.howto.bucket.url=file://$PWD/bucket"
        " --set dataset.howto.bucket.copies=data/copies --set dataset.howto.scenes.root=scenes"
    )
    assert len(list((place.folder / "data" / "copies").glob("*/images/*.png"))) == 6
    place.sh("segreg run scenes.yaml --quiet")
    (line,) = text_of(place.folder / "lab.jsonl").splitlines()
    assert set(json.loads(line)) == {"run", "monitor", "metrics"}
    assert list((place.folder / "runs" / "scenes").glob("*/asked_by.txt"))
    assert "NOT IN USE" in place.sh("SEGREG_DISABLE_PLUGINS=tracker segreg plugins")
    predicted = text_of(place.folder / "predict_scenes.py")
    place.python(f"{HOW_TO_NUMBERS}\n{predicted}\nassert labels.shape == scenes.read_mask(scenes.samples[0]).shape")


HOW_TO_DATA = """
import io, sqlite3
from pathlib import Path
import numpy as np, tifffile
from PIL import Image
noise = np.random.default_rng(0)
def png(values):
    held = io.BytesIO()
    Image.fromarray(values).save(held, "PNG")
    return held.getvalue()
for folder in ("bucket/images", "bucket/masks", "scenes"):
    Path(folder).mkdir(parents=True)
with sqlite3.connect("images.sqlite3") as opened:
    opened.execute("CREATE TABLE images (id TEXT, patient TEXT, image BLOB, mask BLOB)")
    for number in range(6):
        image = noise.integers(0, 256, (40, 32, 3)).astype(np.uint8)
        mask = (noise.random((40, 32)) < 0.3).astype(np.uint8) * 255
        values = (str(number), f"patient {number // 2}", png(image), png(mask))
        opened.execute("INSERT INTO images VALUES (?, ?, ?, ?)", values)
        Path(f"bucket/images/{number}.png").write_bytes(values[2])
        Path(f"bucket/masks/{number}.png").write_bytes(values[3])
for number in range(12):
    values = noise.integers(0, 10000, (64, 64, 8)).astype(np.uint16)
    tifffile.imwrite(f"scenes/{number // 2}_{number}.tif", values, photometric="minisblack", planarconfig="contig")
    Path(f"scenes/{number // 2}_{number}.labels.png").write_bytes(png(noise.integers(0, 3, (64, 64)).astype(np.uint8)))
"""

HOW_TO_NUMBERS = """
from pathlib import Path
import numpy as np, pytest, segreg, tifffile, torch
from segreg_howto.their_model import TheirNet
theirs = TheirNet(dim=8)
torch.save({"model": theirs.state_dict()}, "theirs.pt")
encoder = segreg.build_part("encoder", "howto.theirs", 3, weights=Path("theirs.pt"), dim=8)
image = torch.randn(1, 3, 32, 32)
wanted = theirs.forward_features(image)["stage2"].permute(0, 3, 1, 2)
torch.testing.assert_close(encoder(image)[1], wanted)
with pytest.raises(segreg.SegregError, match="nowhere.pt is not there"):
    segreg.build_part("encoder", "howto.theirs", 3, weights=Path("nowhere.pt"))
scenes = segreg.build_part("dataset", "howto.scenes", root=Path("scenes"))
first = scenes.samples[0]
values = tifffile.imread(first.image)[..., [3, 2, 1, 7]].astype(float) / 10000
assert scenes.read_image(first) == pytest.approx(values * 255, abs=1)
with pytest.raises(segreg.SegregError, match="has 8 bands, but band 9 is asked for"):
    segreg.build_part("dataset", "howto.scenes", root=Path("scenes"), bands=(1, 9)).read_image(first)
loss = segreg.build_part("loss", "howto.balanced", segreg.Task(("a",), "binary"), momentum=0.0)
logits, target = torch.randn(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
target[0, 0] = 1
found = loss(logits, target)
assert loss.share.tolist() == [0.25]
weight = torch.where(target == 1, 1 / 0.25, 1 / 0.75)
wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target.float(), weight=weight / 2)
torch.testing.assert_close(found, wanted)
loss.eval()
loss(logits, 1 - target)
assert loss.share.tolist() == [0.25]
"""


if __name__ == "__main__":
    sys.exit(write())


def test_the_tests_that_the_docs_name_are_there():
    named = [
        (file.name, *found) for file in DOCS.rglob("*.md")
        for found in re.findall(r"`([\w/]+\.py)::(test_\w+)`", file.read_text(encoding="utf-8"))
    ]  # fmt: skip
    assert len(named) > 50
    tests = ROOT / "tests"
    sources = {test.relative_to(tests).as_posix(): text_of(test) for test in tests.rglob("test_*.py")}
    assert [one for one in named if f"def {one[2]}(" not in sources.get(one[1], "")] == []
