"""`segreg plugin new`: what it writes runs, passes its own tests, and reads as it should; what it refuses."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import plugged
from segreg.config.recipe import read_recipe
from segreg.config.resolve import resolve
from segreg.errors import SegregError
from segreg.registry.protocols import KINDS
from segreg.registry.registry import load_registry
from segreg.testing.scaffold import TEMPLATES, Names, kinds_of, names_of, write_package

ROOT = Path(__file__).parents[2]
LONGEST = f"segreg-{'a' * 33}"


# names


@pytest.mark.parametrize(
    ("distribution", "module", "short"),
    [
        ("segreg-lung-ct", "segreg_lung_ct", "lung_ct"),
        ("Segreg_Lung.CT", "segreg_lung_ct", "lung_ct"),
        ("lungs", "lungs", "lungs"),
        ("segreg-3d", "segreg_3d", "3d"),
        (LONGEST, f"segreg_{'a' * 33}", "a" * 33),
    ],
)
def test_names(distribution, module, short):
    assert names_of(distribution) == Names(distribution, module, short)


NO_NAME = "is not a name of a package\n  letters and digits, with . - _ between them, such as segreg-lung-ct"
NO_MODULE = "\n  begin with a letter and avoid Python's own words, such as segreg-lung-ct"


@pytest.mark.parametrize(
    ("distribution", "says"),
    [
        ("", f'"" {NO_NAME}'),
        ("segreg-", f'"segreg-" {NO_NAME}'),
        ("-lung", f'"-lung" {NO_NAME}'),
        ("lung ct", f'"lung ct" {NO_NAME}'),
        ("../lung", f'"../lung" {NO_NAME}'),
        ("lüng", f'"lüng" {NO_NAME}'),
        ("lung\n", f'"lung\n" {NO_NAME}'),
        (f"{LONGEST}a", f'"{LONGEST}a" has 41 characters\n  40 at most, such as segreg-lung-ct'),
        ("3d", f'Python could not import "3d", the module of "3d"{NO_MODULE}'),
        ("class", f'Python could not import "class", the module of "class"{NO_MODULE}'),
        (
            "email",
            '"email", the module of "email", is the name of a module of Python\'s own\n  such as segreg-lung-ct',
        ),
        (
            "Segreg",
            '"segreg", the module of "Segreg", is the name of a package that is installed\n  such as segreg-lung-ct',
        ),
    ],
)
def test_names_that_will_not_do(distribution, says):
    with pytest.raises(SegregError) as reported:
        names_of(distribution)
    assert str(reported.value) == says


def test_kinds_stand_in_one_order_each_once():
    assert kinds_of(["loss", " encoder", "loss", ""]) == ("encoder", "loss")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["loss", "los"], '"los" is not a kind of part\n  did you mean "loss"?'),
        (["zzz"], '"zzz" is not a kind of part\n  the kinds are {kinds}'),
        ([""], "no kind of part is asked for\n  the kinds are {kinds}"),
    ],
)
def test_kinds_that_there_are_not(words, says):
    *first, last = (f'"{kind}"' for kind in KINDS)
    kinds = f"{', '.join(first)} and {last}"
    with pytest.raises(SegregError) as reported:
        kinds_of(words)
    assert str(reported.value) == says.format(kinds=kinds)


# what is written


def test_every_kind_has_templates():
    assert {folder.name for folder in TEMPLATES.iterdir()} == {"every", *KINDS}


PACKAGES = {kind: (f"segreg-of-{kind}", (kind,)) for kind in KINDS}
PACKAGES["every"] = ("segreg-of-every", tuple(KINDS))
PACKAGES["longest"] = (LONGEST, tuple(KINDS))


@pytest.fixture(params=PACKAGES)
def package(request, tmp_path):
    distribution, kinds = PACKAGES[request.param]
    names = names_of(distribution)
    write_package(names, kinds, tmp_path)
    yield tmp_path / distribution, names, kinds
    for module in [module for module in sys.modules if module.partition(".")[0] == names.module]:
        del sys.modules[module]


def test_the_files_of_a_package(package):
    folder, names, kinds = package
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    source = f"src/{names.module}"
    assert files >= {
        "pyproject.toml", "README.md", ".gitignore", ".github/workflows/test.yml", "example.yaml",
        "tests/test_parts.py", "tests/test_example.py", f"{source}/__init__.py", f"{source}/py.typed",
        *(f"{source}/{kind}.py" for kind in kinds), *(f"tests/test_{kind}.py" for kind in kinds),
    }  # fmt: skip
    for name in files:
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search(r"\bNAME\b|_NAME|-NAME|\bKINDS\b|\bSINCE\b|\bBEFORE\b", text), name
        assert not re.search(rf"^\[(no )?({'|'.join(KINDS)})", text, re.MULTILINE), name
        assert text.endswith("\n") or name.endswith("py.typed"), name
        if name.endswith(".py"):
            ast.parse(text)
    workflow = yaml.safe_load((folder / ".github/workflows/test.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert commands[-5:] == ["pip install -e '.[dev]'", "ruff check .", "ruff format --check .", "mypy", "pytest"]


def test_its_parts_are_found_and_its_recipe_names_them(package, monkeypatch):
    folder, names, kinds = package
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == names.distribution
    assert project["dependencies"][0] == "segreg-toolkit>=0.1,<0.2"
    assert "license" not in project
    (module,) = project["entry-points"]["segreg"].values()
    monkeypatch.syspath_prepend(folder / "src")
    own = plugged.point(module, distribution=names.distribution, requires=project["dependencies"])
    registry = load_registry([*plugged.builtin(), own])
    (plugin,) = (plugin for plugin in registry.plugins if plugin.distribution == names.distribution)
    assert plugin.error == ""
    assert tuple(part.kind for part in plugin.parts) == kinds
    chosen = resolve(read_recipe(folder / "example.yaml"), registry).choices()
    elsewhere = {"exporter", "network"} if {"encoder", "decoder"} & set(kinds) else {"exporter"}
    in_recipes = [part.name for part in plugin.parts if part.kind not in elsewhere]
    assert {c.part.name for c in chosen if c.part.plugin == plugin} == set(in_recipes)
    readme = (folder / "README.md").read_text()
    assert all(f"| {part.kind} | `{part.name}` |" in readme for part in plugin.parts)


@pytest.mark.parametrize(
    ("running", "wanted"), [("0.1.0", ">=0.1,<0.2"), ("0.9.dev3+g1", ">=0.9,<0.10"), ("1.4.2", ">=1.4,<2")]
)
def test_it_asks_for_the_segreg_of_today_up_to_the_next_that_may_break_it(running, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr("segreg.testing.scaffold.version", lambda name: running)
    write_package(names_of("segreg-lung-ct"), ("loss",), tmp_path)
    project = tomllib.loads((tmp_path / "segreg-lung-ct" / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == [f"segreg-toolkit{wanted}", "torch>=2.8"]


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
def test_ruff_finds_nothing(package):
    folder, _, _ = package
    for words in (["check"], ["format", "--check", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", "."], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def installed_package(tmp_path, python):
    """Write a package with every kind of part, and return what runs Python in it as if it were installed."""
    folder, site = tmp_path / "segreg-whole", tmp_path / "site-packages"
    write_package(names_of("segreg-whole"), tuple(KINDS), tmp_path)
    info = site / "segreg_whole-0.1.0.dist-info"
    info.mkdir(parents=True)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    requires = "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"])
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: segreg-whole\nVersion: 0.1.0\n{requires}")
    (info / "entry_points.txt").write_text("[segreg]\nparts = segreg_whole\n")
    path = [site, folder / "src", ROOT, ROOT / "plugins"]

    def run(*arguments):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run([*python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_its_own_tests_pass(installed_package):
    assert "whole.strided" in installed_package("-m", "segreg", "list", "encoder", "whole.*")
    printed = installed_package("-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-rA", "-q")
    for kind in KINDS:
        assert re.search(rf"^PASSED tests/test_{kind}\.py", printed, re.MULTILINE), kind
        assert f"PASSED tests/test_parts.py::test_parts[{kind}-whole." in printed, kind
    assert "PASSED tests/test_example.py::test_the_example_trains" in printed


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_finds_nothing(installed_package, tmp_path):
    assert "Success: no issues found" in installed_package("-m", "mypy", "--cache-dir", str(tmp_path / "cache"))


# what is refused


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "segreg-lung-ct").mkdir()
    with pytest.raises(SegregError) as reported:
        write_package(names_of("segreg-lung-ct"), ("loss",), tmp_path)
    assert str(reported.value) == (
        f"{tmp_path}/segreg-lung-ct exists already\n  name another package, or another folder with --out"
    )
    assert list((tmp_path / "segreg-lung-ct").iterdir()) == []


def test_a_place_that_can_not_be_written_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SegregError) as reported:
        write_package(names_of("segreg-lung-ct"), ("loss",), tmp_path / "file")
    assert re.fullmatch(rf"{tmp_path}/file/.* can't be written: Not a directory", str(reported.value))


# the command


def test_the_command_says_what_it_wrote_and_what_to_do(segreg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = segreg("plugin", "new", "segreg-lung-ct", "--with", "loss,metric")
    files = [file for file in Path("segreg-lung-ct").rglob("*") if file.is_file()]
    assert (printed.status, printed.err) == (0, "")
    assert printed.out == (
        f"wrote segreg-lung-ct, {len(files)} files; try:\n"
        "  pip install -e './segreg-lung-ct[dev]'\n"
        "  segreg list loss 'lung_ct.*'\n"
        "  segreg run segreg-lung-ct/example.yaml\n"
        "  cd segreg-lung-ct && ruff check . && mypy && pytest\n"
        "the licence is left to you: name it in pyproject.toml, and put its text into a file LICENSE\n"
    )
    printed = segreg("plugin", "new", "segreg-lung-ct", "--with", "loss", "--out", tmp_path / "elsewhere")
    assert f"  pip install -e '{tmp_path}/elsewhere/segreg-lung-ct[dev]'\n" in printed.out
    printed = segreg("plugin", "new", "segreg-lung-ct", "--with", "metrc")
    assert (printed.status, printed.err) == (2, 'error: "metrc" is not a kind of part\n  did you mean "metric"?\n')
