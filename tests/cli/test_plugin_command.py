"""`segreg plugin check`: what it prints of a package, its exit status, and where settings come from."""

# ruff: noqa: E501 - messages stand here as they are printed

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import plugged

SOURCE = '''
from pathlib import Path
from segreg import Dataset, Entry, SegregError, Task, hookimpl

def fair(task):
    """A mean over the pixels that count."""
    def loss(logits, target):
        truth, counts = task.one_hot(target)
        return ((task.probabilities(logits) - truth).square() * counts).sum() / counts.sum().clamp(min=1)
    return loss

def careless(task):
    """A mean over all pixels."""
    return lambda logits, target: (task.probabilities(logits) - task.one_hot(target)[0]).square().mean()

def folder(*, root: Path):
    """Images in a folder.

    Args:
        root: the folder.
    """
    if not root.is_dir():
        raise SegregError(f"{root} is not there", hint="get it from https://example.org")
    return Dataset(task=Task(("a",), "binary"), samples=[], read_image=None, read_mask=None)

@hookimpl
def segreg_entries():
    return [Entry("loss", "fair", fair), Entry("loss", "careless", careless), Entry("dataset", "folder", folder)]
'''


@pytest.fixture
def point(plugin, installed):
    made = plugin(SOURCE, distribution="segreg-lab")
    installed(made)
    return made


@pytest.mark.usefixtures("point")
def test_what_holds_is_counted(segreg):
    printed = segreg("plugin", "check", "segreg-lab", "loss.fair", "--all")
    lines = printed.out.splitlines()
    assert lines.pop(2).startswith("  passed: settings_are_described, it_can_be_shown, ")
    assert lines == [
        "loss fair: 17 passed, 1 not checked",
        "  not checked: defaults_fit_their_hints: it has no setting with a default",
        "1 part of segreg-lab: 17 passed, 1 not checked",
    ]
    assert (printed.status, printed.err) == (0, "")


def test_what_does_not_hold_is_reported_with_why_and_where(segreg, point):
    printed = segreg("plugin", "check", "segreg-lab", "loss.careless")
    file = sys.modules[point.module].__file__
    line = SOURCE[: SOURCE.index("return lambda")].count("\n") + 1
    assert printed.status == 1
    assert printed.out.splitlines() == [
        "loss careless: 16 passed, 1 failed, 1 not checked",
        "  FAILED ignored_pixels_count_for_nothing: on a binary task ignored pixels get a gradient",
        "    why it matters: 255 marks pixels of which nobody knows the truth",
        f"    look at: {file}:{line}",
        "  not checked: defaults_fit_their_hints: it has no setting with a default",
        "1 part of segreg-lab: 16 passed, 1 failed, 1 not checked",
    ]


@pytest.mark.usefixtures("point")
def test_checks_can_be_left_out(segreg):
    printed = segreg(
        "plugin", "check", "segreg_lab", "loss.*", "--without", "loss.careless.ignored_pixels_count_for_nothing"
    )
    assert printed.status == 0
    assert "  not checked: ignored_pixels_count_for_nothing: left out by --without" in printed.out
    assert printed.out.endswith("2 parts of segreg_lab: 33 passed, 3 not checked\n")
    assert segreg("plugin", "check", "segreg-lab", "--without", "is_fine").err == (
        'error: there is no check "is_fine" to leave out\n'
    )


@pytest.mark.usefixtures("point")
def test_a_dataset_is_checked_with_the_settings_that_are_given(segreg, tmp_path):
    printed = segreg("plugin", "check", "segreg-lab", "dataset.*", "--json")
    rows = {row["check"]: row for row in json.loads(printed.out)}
    assert printed.status == 0
    assert rows["missing_data_is_named"]["status"] == "passed"
    assert (rows["it_can_be_built"]["status"], rows["it_can_be_built"]["what"]) == ("not checked", 'needs "root"')
    assert set(rows["it_can_be_built"]) == {"kind", "part", "check", "status", "what", "why", "place", "seconds"}

    printed = segreg("plugin", "check", "segreg-lab", "dataset.*", "--set", f"dataset.folder.root={tmp_path}")
    assert printed.status == 1
    assert "  FAILED it_can_be_built: it has no samples" in printed.out


@pytest.mark.usefixtures("point")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segreg-lob"], 'no installed package "segreg-lob" has an entry point of group segreg\n  did you mean "segreg-lab"?'),
        (["segreg-lab", "loss.fare"], '"loss.fare" is not part of segreg-lab 1.0\n  did you mean "loss.fair"?'),
        (["segreg-lab", "--set", "root=a"], '"root=a" is not a KIND.NAME.SETTING=VALUE\n  for example --set dataset.disks.root=data/disks'),
        (["segreg-lab", "--set", "dataset.folder.rot=a"], 'the dataset "folder" has no setting "rot"\n  did you mean "root"?'),
        (["segreg-lab", "--set", "dataset.folder.root=1"], '"root" of the dataset "folder" must be a path, not 1'),
    ],
)  # fmt: skip
def test_mistakes_are_reported(segreg, arguments, message):
    printed = segreg("plugin", "check", *arguments)
    assert (printed.status, printed.out, printed.err) == (2, "", f"error: {message}\n")


def test_a_plugin_that_cannot_be_loaded(segreg, plugin, installed, tmp_path, monkeypatch):
    made = plugin("import nothing_of_that_name", distribution="segreg-lab")
    installed(made)
    assert segreg("plugin", "check", "segreg-lab").err == (
        f"error: segreg-lab 1.0 can't be loaded (parts = {made.module}): {tmp_path}/site-packages/{made.module}.py:1: "
        "ModuleNotFoundError: No module named 'nothing_of_that_name'\n"
        "  `segreg plugins --tracebacks` shows where it failed\n"
    )
    monkeypatch.setenv("SEGREG_DISABLE_PLUGINS", "segreg-lab")
    assert segreg("plugin", "check", "segreg-lab").err == (
        f"error: segreg-lab 1.0 can't be loaded (parts = {made.module}): switched off by SEGREG_DISABLE_PLUGINS\n"
    )


RECIPE = """
dataset: {name: synthetic_lesions, samples: 4}
encoder: resnet18
decoder: smp.fpn
loss: {name: tversky, alpha: 0.0, beta: 1.0}
optimizer: {name: sgd, lr: 0.1}
schedule: {name: step, milestones: [1]}
evaluate: {metrics: [dice]}
"""


def test_settings_of_a_recipe(segreg, installed, tmp_path):
    installed(*plugged.builtin())
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    printed = segreg("plugin", "check", "segreg-toolkit", "schedule.step", "--recipe", file)
    assert printed.out.endswith("1 part of segreg-toolkit: 11 passed, 1 not checked\n")


def test_defaults_that_a_part_refuses_itself(segreg, installed):
    installed(*plugged.builtin())
    printed = segreg("plugin", "check", "segreg-toolkit", "augmentation.CropAndPad")
    reported = 'its defaults are refused, give settings: the augmentation "CropAndPad" refuses its settings: '
    assert re.search(f"not checked: it_can_be_built.*: {reported}", printed.out), printed.out


@pytest.mark.usefixtures("point")
def test_quick_leaves_out_what_takes_long(segreg, installed, tmp_path):
    installed(*plugged.builtin())
    printed = segreg("plugin", "check", "segreg-toolkit", "decoder.torchvision.fcn", "--quick", "--json")
    left_out = [row["check"] for row in json.loads(printed.out) if row["what"] == "left out by --quick"]
    assert left_out == ["it_compiles", "it_exports"]


def test_the_kit_needs_no_pytest(python):
    program = (
        "import sys; sys.modules['pytest'] = None; import segreg.testing; from segreg.testing.checks import rules_of; "
        "from segreg.registry.protocols import KINDS; [rules_of(kind) for kind in KINDS]; print('fine')"
    )
    path = os.pathsep.join(str(Path(__file__).parents[2] / folder) for folder in ("", "plugins"))
    done = subprocess.run(
        [*python, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout == "fine\n", done.stderr
