"""`segreg check`, `list`, `show`, `plugins`, `recipes` and `schema`, with what each prints."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import jsonschema
import pytest

import plugged
from segreg.cli.common import print_json
from segreg.config.recipe import shipped_recipes

RIGHT = (Path(__file__).parents[1] / "wrong_recipes" / "right.yaml").read_text()


@pytest.fixture(autouse=True)
def _stand_ins(installed, tmp_path, monkeypatch):
    installed(plugged.STAND_INS)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe():
    Path("recipe.yaml").write_text(RIGHT)
    return "recipe.yaml"


# check


def test_check_says_fine(segreg, recipe):
    printed = segreg("check", recipe)
    assert (printed.status, printed.out, printed.err) == (0, "recipe.yaml: fine\n", "")


def test_check_goes_through_every_file(segreg, recipe):
    Path("wrong.yaml").write_text(RIGHT.replace("epochs: 3", "epochs: 0"))
    printed = segreg("check", recipe, "wrong.yaml", "missing.yaml", "folder")
    assert printed.status == 2
    assert printed.out == "recipe.yaml: fine\n"
    assert [line for line in printed.err.splitlines() if not line.startswith("  ")] == [
        'error: wrong.yaml:23:11: "epochs" of the section "train" must be an integer between 1 and 1000000, not 0',
        "error: there is no recipe missing.yaml",
        "error: there is no recipe folder",
        "3 problems",
    ]


def test_check_applies_overrides_to_every_file(segreg, recipe):
    Path("second.yaml").write_text(RIGHT)
    assert segreg("check", recipe, "second.yaml", "train.epochs=5", "encoder=timm/resnet18").status == 0
    printed = segreg("check", "train.epochs=0", recipe, "second.yaml")
    assert printed.err.count("error: command line: ") == 2


def test_check_without_a_recipe(segreg):
    printed = segreg("check", "train.epochs=3")
    assert printed.status == 2
    assert printed.err == "error: name at least one recipe to check\n  for example: segreg check recipes/*.yaml\n"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("recipe.yml", 'error: there is no recipe recipe.yml\n  did you mean "recipe.yaml"?\n'),
        ("folder.yaml", "error: folder.yaml is a folder, not a recipe file\n"),
        (
            "no/recipe.yaml",
            "error: there is no recipe no/recipe.yaml\n  `segreg recipes` lists the recipes that came with segreg\n",
        ),
        (
            "train.epochs",
            (
                "error: there is no recipe train.epochs\n  `segreg recipes` lists the recipes that came with segreg\n"
                "  an override is written key.path=value, such as train.epochs=3\n"
            ),
        ),
        (
            "train-epochs=3",
            (
                "error: there is no recipe train-epochs=3\n  `segreg recipes` lists the recipes that came with segreg\n"
                "  an override is written key.path=value, such as train.epochs=3\n"
            ),
        ),
    ],
)
def test_check_of_what_is_no_file(name, says, segreg, recipe):
    Path("folder.yaml").mkdir()
    printed = segreg("check", name)
    assert (printed.status, printed.out, printed.err) == (2, "", says)


def test_check_prints_json(segreg, recipe):
    assert json.loads(segreg("check", recipe, "--json").out) == []
    printed = segreg("check", "--json", recipe, "missing.yaml", "train.epochs=0", "seed=-1")
    assert printed.status == 2
    assert printed.err == ""
    wrong_epochs, wrong_seed, missing = sorted(json.loads(printed.out), key=lambda row: row["message"])
    assert wrong_epochs == {
        "message": '"epochs" of the section "train" must be an integer between 1 and 1000000, not 0',
        "hint": "epochs: epochs at most.",
        "file": "command line",
        "line": None,
        "column": None,
    }
    assert wrong_seed["file"] == "command line"
    assert "file" not in missing


# list


def test_list_prints_every_kind(segreg):
    printed = segreg("list")
    assert (printed.status, printed.err) == (0, "")
    assert (
        printed.out
        == """\
encoder
  resnet50  A residual network.  [segreg-lab 1.0]
  tiny      Two convolutions.  [segreg-lab 1.0]
  timm/*  A model of timm. (`segreg list encoder 'timm/*'`)
decoder
  deeplabv3plus  Atrous pyramid pooling and one skip connection.  [segreg-lab 1.0]
  unet           Skip connections at every scale.  [segreg-lab 1.0]
network
loss
  bce      Binary cross-entropy.  [segreg-lab 1.0]
  dice     Soft Dice.  [segreg-lab 1.0]
  tversky  Tversky's index.  [segreg-lab 1.0]
dataset
  drawn   Images that are drawn.  [segreg-lab 1.0]
  folder  Images and masks in two folders.  [segreg-lab 1.0]
augmentation
  A transform of Albumentations. (2 names: `segreg list augmentation`)
batch_augmentation
metric
  dice  Dice's coefficient.  [segreg-lab 1.0]
  iou   Intersection over union.  [segreg-lab 1.0]
optimizer
  adam  Adam.  [segreg-lab 1.0]
schedule
  cosine  Half a cosine, down to zero.  [segreg-lab 1.0]
exporter
"""
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("encoder",), ["resnet50", "tiny", "timm/*"]),
        (("encoders",), ["resnet50", "tiny", "timm/*"]),
        (("losses",), ["bce", "dice", "tversky"]),
        (("augmentation",), ["HorizontalFlip", "Rotate"]),
        (("encoder", "RES*"), ["resnet50", "timm/*"]),
        (("encoder", "timm/*e*t*"), [f"timm/{n}" for n in ("convnext_small", "convnext_tiny", "resnet18")]),
        (("encoder", "timm/convnext_?????"), ["timm/convnext_small"]),
    ],
)  # fmt: skip
def test_list_prints_one_kind(arguments, names, segreg):
    printed = segreg("list", *arguments)
    assert printed.status == 0
    assert [line.split()[0] for line in printed.out.splitlines()[1:] if not line.endswith(":")] == names


def test_list_prints_json(segreg):
    rows = json.loads(segreg("list", "loss", "b*", "--json").out)
    assert re.sub(r"\S*/stand_ins\.py:\d+", "stand_ins.py", rows[0].pop("defined")) == "stand_ins.py"
    assert rows == [
        {
            "kind": "loss",
            "name": "bce",
            "summary": "Binary cross-entropy.",
            "distribution": "segreg-lab",
            "version": "1.0",
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("encodr",), 'error: "encodr" is not a kind of part\n  did you mean "encoder" or "decoder"?\n'),
        (
            ("zzz",),
            ('error: "zzz" is not a kind of part\n  the kinds are "encoder", "decoder", "network", "loss", "dataset", '
            '"augmentation", "batch_augmentation", "metric", "optimizer", "schedule" and "exporter"\n'),
        ),
        (("encoder", "resnet51"), 'error: no encoder matches "resnet51"\n  did you mean "resnet50" or "timm/resnet18"?\n'),
        (("loss", "q*"), 'error: no loss matches "q*"\n  `segreg list loss` shows every loss\n'),
    ],
)  # fmt: skip
def test_list_of_what_is_not_there(arguments, says, segreg):
    printed = segreg("list", *arguments)
    assert (printed.status, printed.out, printed.err) == (2, "", says)


def test_list_says_which_plugin_is_not_in_use(segreg, plugin, installed, tmp_path):
    broken = plugin("import nothing_of_that_name", distribution="segreg-broken")
    installed(plugged.STAND_INS, broken)
    why = f"{tmp_path}/site-packages/{broken.module}.py:1: ModuleNotFoundError: No module named 'nothing_of_that_name'"
    printed = segreg("list", "loss", "bce")
    assert (printed.status, printed.err) == (0, f"plugin segreg-broken 1.0 is not in use: {why}\n")
    assert segreg("list", "loss", "q*").err == (
        'error: no loss matches "q*"\n  `segreg list loss` shows every loss\n'
        f"  segreg-broken 1.0 could not be loaded and may offer it: {why}\n"
    )
    listed = segreg("list", "loss", "bce", "--json")
    assert (json.loads(listed.out)[0]["name"], listed.err) == ("bce", printed.err)


def test_list_without_any_plugin(segreg, installed):
    installed()
    printed = segreg("list")
    assert (printed.status, printed.err) == (0, "")


# show


def test_show_prints_everything_about_a_part(segreg):
    printed = segreg("show", "decoder", "deeplabv3plus")
    assert printed.status == 0
    assert (
        re.sub(r"\S*/stand_ins\.py:\d+", "stand_ins.py", printed.out)
        == """\
decoder deeplabv3plus
  Atrous pyramid pooling and one skip connection.
  paper: arXiv:1802.02611
  from:  segreg-lab 1.0
  code:  stand_ins.py
  write: decoder: {name: deeplabv3plus, output_stride: 16}

settings
  output_stride: one of 8, 16; default 16
      stride of the coarsest level.
  rates: a list of 3 integers above 0; default [6, 12, 18]
      of the three atrous convolutions.
  dropout: a number between 0 and 1; default 0.1
      share of features dropped before the head.
  separable: true or false; default true
      whether convolutions are separable.
"""
    )


def test_show_of_a_part_without_settings_or_with_a_required_one(segreg):
    assert segreg("show", "loss", "bce").out.endswith("\nno settings\n")
    assert "  alpha: a number between 0 and 1; required\n" in segreg("show", "loss", "tversky").out
    assert segreg("show", "encoder", "timm/resnet18").out.startswith("encoder timm/resnet18\n  A model of timm.\n")


def test_show_prints_json(segreg):
    shown = json.loads(segreg("show", "augmentation", "Rotate", "--json").out)
    assert (shown["kind"], shown["name"], shown["distribution"], shown["version"]) == (
        "augmentation", "Rotate", "segreg-lab", "1.0",
    )  # fmt: skip
    assert shown["settings"][0] == {
        "name": "limit",
        "type": "a number or a list of 2 numbers",
        "required": False,
        "default": [-90.0, 90.0],
        "meaning": "range of the angle in degrees",
    }


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("decodr", "unet", 'error: "decodr" is not a kind of part\n  did you mean "decoder" or "encoder"?\n'),
        (
            "decoder",
            "resnet50",
            (
                'error: there is no decoder "resnet50"\n  "resnet50" is an encoder, not a decoder\n'
                "  `segreg list decoder` shows every decoder\n"
            ),
        ),
    ],
)
def test_show_of_what_is_not_there(kind, name, says, segreg):
    printed = segreg("show", kind, name)
    assert (printed.status, printed.out, printed.err) == (2, "", says)


# plugins


def test_plugins_prints_who_offers_what_and_who_is_out_of_use(segreg, installed, plugin, monkeypatch):
    monkeypatch.setenv("SEGREG_DISABLE_PLUGINS", "segreg-off")
    installed(
        plugin("raise ValueError('one\\ntwo')", name="losses", distribution="segreg-broken", version="0.3"),
        plugin("", name="losses", distribution="segreg-off"),
        plugin(plugged.OFFERING.format(name="ours"), name="losses", distribution="segreg-good", version="2.0"),
        plugin(
            "from segreg.registry.hooks import hookimpl\n@hookimpl\ndef segreg_run_end(): pass",
            distribution="segreg-watch",
        ),
    )
    printed = segreg("plugins")
    assert (printed.status, printed.err) == (0, "")
    assert (
        re.sub(r"(/\S+/)?a_plugin_of_the_tests_\d+", "module", re.sub(r"\d+ ms", "1 ms", printed.out))
        == """\
segreg-broken 0.3  losses (module)
  NOT IN USE: module.py:1: ValueError: one
  two
segreg-good 2.0  losses (module)
  offers loss: ours (1 ms)
segreg-off 1.0  losses (module)
  NOT IN USE: switched off by SEGREG_DISABLE_PLUGINS
segreg-watch 1.0  parts (module)
  offers nothing; it observes runs (1 ms)
"""
    )
    assert "Traceback" in segreg("plugins", "--tracebacks").out
    rows = json.loads(segreg("plugins", "--json").out)
    assert [(row["distribution"], bool(row["error"])) for row in rows] == [
        ("segreg-broken", True), ("segreg-good", False), ("segreg-off", True), ("segreg-watch", False),
    ]  # fmt: skip
    assert rows[1]["parts"] == [{"kind": "loss", "name": "ours", "family": False}]


BAD_BESIDE_GOOD = """
from segreg.registry.entry import Entry, Family
from segreg.registry.hooks import hookimpl
print("hello")

def good(task):
    '''A loss.'''

def many(member, task, **settings):
    '''Losses.'''

def bad(task):
    pass

def members():
    print("looking for members")
    return ["a"]

def settings(member):
    print("looking for settings")
    {settings}
    return {{}}

@hookimpl
def segreg_entries():
    return [
        Entry("loss", "good", good), Entry("loss", "bad", bad), Family("loss", "zoo", "zoo/", many, members, settings)
    ]
"""


def test_a_part_that_can_not_be_used_and_what_a_plugin_prints_are_shown(segreg, installed, plugin):
    installed(plugin(BAD_BESIDE_GOOD.format(settings=""), distribution="segreg-lab"))
    printed = segreg("plugins")
    assert "  offers loss: good, zoo/* (" in printed.out
    assert re.search(r"  CAN'T BE USED: loss bad: \S+\.py:12: loss 'bad' has no docstring", printed.out)
    assert printed.out.endswith("  it printed while it was loaded:\n    hello\n")
    (row,) = json.loads(segreg("plugins", "--json").out)
    assert row["faults"][0]["name"] == "bad"
    printed = segreg("list", "loss")
    assert "good" in printed.out
    assert "of plugin segreg-lab 1.0 can't be used: loss bad: " in printed.err
    printed = segreg("show", "loss", "bad")
    assert printed.status == 2
    assert re.match(r'error: the loss "bad" of segreg-lab 1.0 can.t be used: \S+\.py:12: ', printed.err)


def test_json_is_alone_on_standard_output_whatever_plugins_print(segreg, installed, plugin):
    installed(plugin(BAD_BESIDE_GOOD.format(settings="")))
    assert [row["name"] for row in json.loads(segreg("list", "loss", "zoo/*", "--json").out)] == ["zoo/a"]
    assert json.loads(segreg("show", "loss", "zoo/a", "--json").out)["name"] == "zoo/a"
    assert json.loads(segreg("schema").out)


def test_json_has_null_for_numbers_that_are_not_finite(capsys):
    print_json({"score": math.nan, "bounds": (-math.inf, 1.5), "file": Path("a.png")})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "score": None, "bounds": [None, 1.5], "file": "a.png",
    }  # fmt: skip


def test_a_family_that_can_not_tell_the_settings_of_a_member_is_named(segreg, installed, plugin):
    installed(plugin(BAD_BESIDE_GOOD.format(settings="raise SystemExit(0)"), distribution="segreg-lab"))
    printed = segreg("show", "loss", "zoo/a")
    assert printed.status == 2
    assert "error: segreg-lab 1.0 can't tell the settings of loss zoo/a: SystemExit: 0" in printed.err


TALKATIVE = """
import atexit, os, sys
os.write(2, b"caf\\xe9, which is not UTF-8")
atexit.register(lambda: print("refused", file=sys.stderr))
"""


def test_plugins_verify_names_the_one_that_ends_its_process(segreg, installed, plugin):
    leaves = "import ctypes; ctypes.CDLL(None)._exit(0)"
    crashes = "import os; os.abort()"
    installed(
        plugin(leaves, distribution="segreg-leaves"),
        plugin(crashes, distribution="segreg-crashes"),
        plugin("import not_there", distribution="segreg-raises"),
        plugin(plugged.OFFERING.format(name="ours"), distribution="segreg-good"),
        plugin(TALKATIVE + plugged.OFFERING.format(name="mine"), distribution="segreg-talks"),
    )
    printed = segreg("plugins", "--verify")
    assert printed.status == 1
    leaving, crashing, raising, good, talking = re.split(r"^(?=segreg-)", printed.out, flags=re.MULTILINE)[1:]
    assert "it ended the process: exit status 0" in leaving
    assert "SEGREG_DISABLE_PLUGINS=segreg-leaves continues without it" in leaving
    assert "it ended the process: signal 6" in crashing
    assert re.search(r"a_plugin_of_the_tests_\d+\.py., line 1", crashing)  # where the interpreter crashed
    assert ")  it can't be used\n" in raising
    assert "ModuleNotFoundError: No module named 'not_there'" in raising
    assert good.endswith(")  loads\n")
    assert talking.endswith(")  loads\n")
    rows = json.loads(segreg("plugins", "--verify", "--json").out)
    assert [(row["distribution"], row["problem"]) for row in rows] == [
        ("segreg-leaves", "it ended the process: exit status 0"),
        ("segreg-crashes", "it ended the process: signal 6"),
        ("segreg-raises", "it can't be used"),
        ("segreg-good", ""),
        ("segreg-talks", ""),
    ]


# recipes


def test_recipes_lists_prints_and_copies(segreg):
    printed = segreg("recipes")
    assert printed.status == 0
    assert [line.split()[0] for line in printed.out.splitlines()[:-1]] == list(shipped_recipes())
    assert [row["name"] for row in json.loads(segreg("recipes", "--json").out)] == list(shipped_recipes())

    text = shipped_recipes()["isic_v3plus"].read_text(encoding="utf-8")
    assert segreg("recipes", "print", "isic_v3plus").out == text
    assert segreg("recipes", "copy", "isic_v3plus").out == "wrote isic_v3plus.yaml; try: segreg run isic_v3plus.yaml\n"
    assert Path("isic_v3plus.yaml").read_text(encoding="utf-8") == text
    for action in ("print", "copy"):
        refused = segreg("recipes", action, "isic_v3plus", "--json")
        assert (refused.status, refused.out) == (2, ""), refused
        assert refused.err == f"error: --json prints the list, and does not go with {action}\n"
    Path("folder").mkdir()
    assert segreg("recipes", "copy", "isic_v3plus", "folder").status == 0
    assert segreg("recipes", "copy", "isic_v3plus.yaml", "mine.yaml").status == 0
    assert Path("folder/isic_v3plus.yaml").exists()
    assert Path("mine.yaml").exists()


def test_recipes_never_replaces_a_file_unasked(segreg):
    Path("mine.yaml").write_text("mine")
    printed = segreg("recipes", "copy", "isic_v3plus", "mine.yaml")
    assert (printed.status, printed.err) == (
        2,
        "error: mine.yaml exists already\n  --force replaces it, or name another file\n",
    )
    assert Path("mine.yaml").read_text() == "mine"
    assert segreg("recipes", "copy", "isic_v3plus", "mine.yaml", "--force").status == 0
    assert Path("mine.yaml").read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("copy",), "error: name the recipe to copy\n  segreg recipes copy isic_v3plus\n"),
        (("print",), "error: name the recipe to print\n  segreg recipes print isic_v3plus\n"),
        (("copy", "isic_v3plus", "no/such/folder.yaml"), "error: no/such/folder.yaml can't be written: No such file or directory\n"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be_had(arguments, says, segreg):
    printed = segreg("recipes", *arguments)
    assert (printed.status, printed.out, printed.err) == (2, "", says)


# schema


def test_schema_prints_or_writes_the_schema(segreg, recipe):
    printed = json.loads(segreg("schema").out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert segreg("schema", "recipes.schema.json").out == "wrote recipes.schema.json\n"
    assert json.loads(Path("recipes.schema.json").read_text()) == printed
    printed = segreg("schema", "no/such/folder.json")
    assert printed.status == 2
    assert printed.err == (
        "error: no/such/folder.json: can't be written: there is no such file or folder\n"
        "  what was there before is unchanged\n"
    )
    before = Path(recipe).read_text()
    printed = segreg("schema", str(recipe))
    assert printed.status == 2
    assert printed.err == (
        f"error: {recipe} is there, and is not a schema of recipes\n"
        "  name another file; `segreg check` looks at a recipe\n"
    )
    assert Path(recipe).read_text() == before
    assert segreg("schema", "recipes.schema.json").out == "wrote recipes.schema.json\n"
