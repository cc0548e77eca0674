"""Layers of packages, what plugins may import, and what is imported when no tensor is made."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "segreg"
PLUGINS = ROOT / "plugins" / "segreg_plugins"

LAYERS = (
    {"errors", "settings", "task"},
    {"runtime"},
    {"registry"},
    {"config"},
    {"visualize"},
    {"models"},
    {"data"},
    {"inference"},
    {"evaluation"},
    {"training"},
    {"deployment"},
    {"runs"},
    {"benchmark"},
    {"reports"},
    {"serve"},
    {"", "api"},  # the package itself: its public names
    {"testing"},
    {"cli", "__main__"},
)
"""Packages, and the files beside them, from the lowest layer up. Each imports from its own layer or from lower ones."""
KNOW_NO_RECIPE = {"data", "evaluation", "inference", "runtime", "training", "visualize"}
"""Packages that are given what they need: they read neither a recipe file nor the registry."""
PUBLIC = {
    "", "data.cache_folder", "data.images", "data.rasters", "errors", "evaluation.counts", "models.pyramid",
    "registry.entry", "registry.hooks", "registry.protocols", "runtime.files", "runtime.hub", "settings", "task",
}  # fmt: skip
"""What a plugin may import of segreg."""
MOST_ROOT_MODULES, MOST_ROOMS, MOST_ARROWS = 6, 24, 140
"""A room is a folder, or a file that lies beside the folders. An arrow is an import from one room into another."""
HEAVY = {
    "PIL", "albumentations", "cv2", "matplotlib", "numpy", "safetensors", "scipy", "segmentation_models_pytorch",
    "sklearn", "tifffile", "timm", "torch", "torchmetrics", "torchvision",
}  # fmt: skip


def name_of(file):
    """Return the dotted name below segreg: "data.split" for segreg/data/split.py, "" for segreg/__init__.py."""
    parts = file.relative_to(CORE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


CORE_FILES = {name_of(file): file for file in sorted(CORE.rglob("*.py"))}
PLUGIN_FILES = sorted(PLUGINS.rglob("*.py"))


@cache
def all_imports(file):
    """Return (module, imported name or None, line, whether only type checkers import it) for each import in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    unseen = {
        id(node)
        for test in nodes
        if isinstance(test, ast.If) and ast.unparse(test.test).endswith("TYPE_CHECKING")
        for statement in test.body
        for node in ast.walk(statement)
    }
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(alias.name, None, node.lineno, id(node) in unseen) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            found += [(node.module, alias.name, node.lineno, id(node) in unseen) for alias in node.names]
    return found


def imports(file, package="segreg", *, type_checking=False):
    """Return (module, imported name or None, line) for each import of `package`, wherever in the file it stands.

    What only type checkers import is left out unless it is asked for.
    """
    return [
        item for *item, unseen in all_imports(file)
        if item[0].split(".")[0] == package and (type_checking or not unseen)
    ]  # fmt: skip


def core_imports(file, *, type_checking=False):
    """Return (dotted name below segreg, line) for each module of the core that a file imports."""
    for module, name, line in imports(file, type_checking=type_checking):
        below = module.removeprefix("segreg").removeprefix(".")
        submodule = f"{below}.{name}".lstrip(".")
        yield (submodule if submodule in CORE_FILES else below), line


def room(name):
    """Return the room of a module: its package, or the file that lies beside the packages."""
    return name.split(".")[0]


def layer(name):
    return next(i for i, names in enumerate(LAYERS) if room(name) in names)


def arrows(*, type_checking=True):
    """Return the rooms that each room imports from; also of what only type checkers import."""
    found: dict[str, set[str]] = {}
    for name, file in CORE_FILES.items():
        imported = {room(other) for other, _ in core_imports(file, type_checking=type_checking)}
        found[room(name)] = found.get(room(name), set()) | imported - {room(name)}
    return found


def test_the_layers_name_every_package():
    assert set().union(*LAYERS) == {room(name) for name in CORE_FILES}
    assert sum(map(len, LAYERS)) == len(set().union(*LAYERS))
    assert set(CORE_FILES) >= KNOW_NO_RECIPE | PUBLIC


def test_few_rooms_and_few_arrows():
    files = [name for name, file in CORE_FILES.items() if file.parent == CORE]
    between = sum(map(len, arrows().values()))
    assert len(files) <= MOST_ROOT_MODULES, files
    assert len(arrows()) <= MOST_ROOMS
    assert between <= MOST_ARROWS


def test_no_two_folders_import_each_other():
    found = arrows()
    both = sorted(f"{one or 'segreg'} and {other}" for one in found for other in found[one] if one in found[other])
    assert both == []


@pytest.mark.parametrize("name", CORE_FILES)
def test_the_core_imports_from_its_own_layer_or_lower(name):
    file = CORE_FILES[name]
    for imported, line in core_imports(file):
        assert layer(imported) <= layer(name), (
            f"{file}:{line}: {name or 'segreg'} may not import {imported or 'segreg'}"
        )


def test_the_core_imports_in_no_circle():
    graph = {name: {imported for imported, _ in core_imports(file)} for name, file in CORE_FILES.items()}
    done: set[str] = set()

    def visit(name, path):
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for imported in sorted(graph[name] - {name}):
                visit(imported, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("name", [name for name in CORE_FILES if room(name) in KNOW_NO_RECIPE])
def test_pieces_of_a_run_know_no_recipe(name):
    for imported, line in core_imports(CORE_FILES[name]):
        forbidden = ("config.recipe", "config.resolve", "registry.registry")
        assert imported not in forbidden, f"{CORE_FILES[name]}:{line}: {name} reads {imported}"


@pytest.mark.parametrize("name", CORE_FILES)
def test_the_core_does_not_even_name_the_plugins(name):
    assert "segreg_plugins" not in CORE_FILES[name].read_text(encoding="utf-8")


@pytest.mark.parametrize("file", PLUGIN_FILES, ids=lambda file: str(file.relative_to(PLUGINS)))
def test_plugins_import_only_what_is_public(file):
    for imported, line in core_imports(file):
        assert imported in PUBLIC, f"{file}:{line}: segreg.{imported} is not public"
    for module, name, line in imports(file):
        assert name is None or not name.startswith("_"), f"{file}:{line}: {name} of {module} is private"


@pytest.mark.parametrize("file", PLUGIN_FILES, ids=lambda file: str(file.relative_to(PLUGINS)))
def test_private_names_of_other_plugin_modules_stay_private(file):
    for module, name, line in imports(file, "segreg_plugins"):
        assert name is None or not name.startswith("_"), f"{file}:{line}: {name} of {module} is private"


def test_the_public_names_are_those_that_are_listed():
    import segreg

    assert sorted(segreg.__all__) == [
        "BatchAugmentation", "Calibration", "Command", "Dataset", "Decoder", "Encoder", "Entry", "Evaluation",
        "Exporter", "Family", "IGNORE_INDEX", "KINDS", "Loss", "MixedBatch", "Recipe", "Recognised", "Run", "Sample",
        "Schedule", "SegregError", "Task", "__version__", "bench", "build_loaders", "build_loss", "build_model",
        "build_part", "check", "compare", "data_check", "evaluate", "export", "hookimpl", "init", "load_recipe",
        "load_run", "predict", "register", "report", "resume", "run_recipe", "tune",
    ]  # fmt: skip
    for name in segreg.__all__:
        assert getattr(segreg, name) is not None
    with pytest.raises(AttributeError, match="module 'segreg' has no attribute 'encoder'"):
        segreg.encoder  # noqa: B018


# what is imported when no tensor is made

PROGRAM = """
import json, os, sys
import plugged, segreg.registry.registry
segreg.registry.registry.entry_points = lambda group: plugged.builtin()
from segreg.cli import main
for point in plugged.builtin():
    point.load()
for words in json.load(sys.stdin):
    if (child := os.fork()) == 0:
        try:
            status = main(words)
        except SystemExit as stopped:
            status = stopped.code
        print()
        print(json.dumps([words, status, sorted({name.split('.')[0] for name in sys.modules})]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
"""Does commands, each in a process that has imported the command line and what every registry loads."""
COMMANDS = [
    (["--help"], 0),
    (["run", "--help"], 0),
    (["plugins"], 0),
    (["list"], 0),
    (["list", "encoder", "timm/convnext*"], 0),
    (["list", "augmentation", "*Flip"], 0),
    (["show", "encoder", "resnet50"], 0),
    (["show", "encoder", "timm/convnext_tiny"], 0),
    (["show", "decoder", "deeplabv3plus"], 0),
    (["show", "augmentation", "Rotate"], 0),
    (["check", *map(str, sorted((ROOT / "recipes").glob("*.yaml")))], 0),
    (["check", str(ROOT / "recipes" / "isic_v3plus.yaml"), "encoder=timm/convnext_tinny", "loss=dicee"], 2),
    (["recipes"], 0),
    (["schema"], 0),
]


def modules_of(commands):
    """Return, by each command's words, its exit status and the top-level modules that it left imported."""
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "plugins", ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(commands),
        env={**os.environ, "PYTHONPATH": path}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("[["))
    return {tuple(words): (status, set(modules)) for words, status, modules in found}


@pytest.fixture(scope="module")
def modules_after():
    return modules_of([words for words, _ in COMMANDS])


@pytest.mark.parametrize(
    ("arguments", "status"), COMMANDS, ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else ""
)
def test_commands_that_only_read_import_nothing_heavy(arguments, status, modules_after):
    found, modules = modules_after[tuple(arguments)]
    assert found == status
    assert modules & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["list"]])
def test_listing_does_without_pydantic_and_rich(arguments, modules_after):
    _, modules = modules_after[tuple(arguments)]
    assert modules & {"pydantic", "rich"} == set()
