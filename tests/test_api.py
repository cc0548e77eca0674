"""segreg from Python: few public names, and what each does."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import plugged
import segreg
import tiny_runs
from segreg.errors import SegregError

PUBLIC = [
    "IGNORE_INDEX", "KINDS", "Command", "Dataset", "Decoder", "Encoder", "Entry", "Family", "Loss", "Recipe", "Run",
    "Sample", "Schedule", "SegregError", "Task", "build_part", "hookimpl", "load_recipe", "load_run", "run_recipe",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


def test_the_public_names_are_these():
    assert sorted(segreg.__all__) == sorted(PUBLIC)
    for name in segreg.__all__:
        assert getattr(segreg, name) is not None
    with pytest.raises(AttributeError, match="module 'segreg' has no attribute 'train_everything'"):
        _ = segreg.train_everything


def test_importing_segreg_and_loading_a_recipe_import_nothing_heavy(tmp_path):
    recipe = tiny_runs.write_recipe(tmp_path)
    heavy = ["torch", "numpy", "timm", "segmentation_models_pytorch", "albumentations", "torchmetrics", "matplotlib"]
    code = (
        "import segreg, sys\n"
        f"segreg.load_recipe({str(recipe)!r}, ['train.epochs=3']).changed(['seed=1'])\n"
        "segreg.Run, segreg.load_run, segreg.Task(('a',), 'binary')\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_recipe_is_loaded_changed_run_and_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = segreg.load_recipe(tiny_runs.write_recipe(tmp_path), ["train.epochs=3"])
    changed = recipe.changed(["train.epochs=1", "evaluate.overlays=1"])
    assert recipe.values["train"]["epochs"] == 3  # the one it was made of stays as it was
    run = segreg.run_recipe(changed)
    assert run.results["epochs"] == 1
    assert run.directory.path.parts[:2] == ("runs", "tiny")
    assert "epoch 1/1" in capsys.readouterr().out  # plain lines, for this is not a terminal
    again = segreg.load_run(run.directory.path)
    assert isinstance(again, segreg.Run)
    assert again.results == run.results


def test_a_file_is_run_as_well(tmp_path, capsys):
    file = tiny_runs.write_recipe(tmp_path, tiny_runs.RECIPE.replace("epochs: 6", "epochs: 1"))
    run = segreg.run_recipe(str(file), out=str(tmp_path / "out"), progress="quiet")
    assert run.directory.path.parent == tmp_path / "out" / "tiny"
    assert capsys.readouterr() == ("", "")


def test_a_recipe_made_in_python_runs(tmp_path):
    values = {
        "dataset": {"name": "synthetic_lesions", "root": str(tmp_path / "images"), "samples": 12, "size": 32},
        "split": {"val": 0.25, "test": 0.25},
        "input": {"size": [32, 32]},
        "encoder": "timm/test_resnet",
        "decoder": {"name": "deeplabv3plus", "channels": 16},
        "loss": "bce",
        "optimizer": {"name": "adam", "lr": 1e-3},
        "train": {"epochs": 1, "batch_size": 4, "device": "cpu"},
        "evaluate": {"metrics": "dice", "overlays": 0},
    }
    run = segreg.run_recipe(segreg.Recipe(values), out=tmp_path / "runs", progress="quiet")
    assert run.directory.path.parent.name == "recipe"
    written = segreg.load_recipe(run.directory.recipe)  # complete, as there was no text to keep
    assert written.values["seed"] == 0
    assert written.values["encoder"]["name"] == "timm/test_resnet"


def test_mistakes_in_a_recipe_are_reported_together(tmp_path):
    recipe = segreg.load_recipe(tiny_runs.write_recipe(tmp_path), ["encoder=resnet81", "train.epoch=1"])
    with pytest.raises(SegregError) as reported:
        segreg.run_recipe(recipe, out=tmp_path / "runs", progress="quiet")
    assert len(reported.value.problems) == 2
    assert not (tmp_path / "runs").exists()


def test_any_part_is_built_by_its_name():
    task = segreg.Task(("lesion",), "binary")
    loss = segreg.build_part("loss", "bce", task)
    logits = torch.tensor([[[[0.0, 2.0]]]])
    target = torch.tensor([[[1, 0]]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())
    assert torch.isclose(loss(logits, target), expected)
    encoder = segreg.build_part("encoder", "resnet18", 3, depth=4)
    decoder = segreg.build_part("decoder", "deeplabv3plus", encoder, channels=8, rates=(1, 2, 3))
    assert decoder.channels == 8
    transform = segreg.build_part("augmentation", "Rotate", limit=(-5, 5))
    assert type(transform).__name__ == "Rotate"
    optimizer = segreg.build_part("optimizer", "sgd", [{"params": [torch.nn.Parameter(torch.zeros(1))]}], lr=0.1)
    assert isinstance(optimizer, torch.optim.SGD)


def test_a_dataset_is_built_from_paths(tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path, count=3)
    dataset = segreg.build_part("dataset", "folder", images=images, masks=masks)
    assert isinstance(dataset, segreg.Dataset)
    assert [sample.id for sample in dataset.samples] == ["image 00", "image 01", "image 02"]


NETWORK = torch.nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("arguments", "wanted", "hint"),
    [
        (("optimizer", "adam", NETWORK.parameters()), 'a list of groups, mappings with "params"', "list(network.para"),
        (("optimizer", "adam", list(NETWORK.parameters())), 'a list of groups, mappings with "params"', "[{"),
        (("optimizer", "adam", []), 'a list of groups, mappings with "params"', "[{"),
        (("loss", "dice", "binary"), "a segreg.Task was expected, not 'binary'", "segreg.Task("),
        (("metric", "dice", segreg.Task(("a",), "binary"), 50), "a number between 0 and 1 was expected, not 50", "0.5"),
        (("encoder", "resnet18", "RGB"), "an integer above 0 was expected, not 'RGB'", "defined at"),
        (("decoder", "smp.fpn", NETWORK), "a segreg.Encoder was expected, not a Linear", 'build_part("encoder"'),
        (("schedule", "cosine", NETWORK, 10, 2), "a torch.optim.Optimizer was expected, not a Linear", "defined at"),
        (("schedule", "cosine", torch.optim.SGD(NETWORK.parameters()), 10, 0), "an integer above 0", "defined at"),
    ],
)
def test_what_a_part_can_not_be_built_from_is_reported(arguments, wanted, hint):
    settings = {"lr": 0.1} if arguments[0] == "optimizer" else {}
    with pytest.raises(SegregError) as error:
        segreg.build_part(*arguments, **settings)
    message, hints = str(error.value).split("\n", 1)
    assert message.startswith(f'{arguments[0]} "{arguments[1]}" is built from ')
    assert wanted in message
    assert hint in hints
    assert "defined at " in hints


@pytest.mark.parametrize(
    ("arguments", "settings", "reported"),
    [
        (("los", "bce", None), {}, '"los" is not a kind of part\n  did you mean "loss"?'),
        (("loss", "bcee", None), {}, 'there is no loss "bcee"\n  did you mean "bce"'),
        (("loss", "bce"), {}, "loss 'bce' is built from task; 0 values were given"),
        (("dataset", "folder", 1), {}, "dataset 'folder' is built from nothing; 1 values were given"),
        (("loss", "dice", None), {"smoth": 1.0}, 'the loss "dice" has no setting "smoth"\n  did you mean "smooth"?'),
        (("loss", "dice", None), {"smooth": "much"}, '"smooth" of the loss "dice" must be'),
        (("dataset", "folder"), {}, 'the dataset "folder" needs "images"'),
    ],
)
def test_what_can_not_be_built_is_reported(arguments, settings, reported):
    with pytest.raises(SegregError) as error:
        segreg.build_part(*arguments, **settings)
    assert str(error.value).startswith(reported)


FAILING = """
from segreg import Entry, hookimpl

def hinge(task):
    '''A loss that can't be built.'''
    return prepared(task)

def prepared(task):
    raise ZeroDivisionError("the author's mistake")

@hookimpl
def segreg_entries():
    return [Entry("loss", "hinge", hinge)]
"""


def test_a_strangers_builder_that_fails_is_reported_by_its_name_with_a_traceback_for_its_author(
    plugin, installed, tmp_path, segreg
):
    installed(*plugged.builtin(), plugin(FAILING, distribution="segreg-hinge", version="1.2"))
    printed = segreg("run", tiny_runs.write_recipe(tmp_path), "loss=hinge", "--out", tmp_path / "runs")
    assert printed.status == 2
    lines = printed.err.splitlines()
    assert lines[0] == (
        'error: command line: the loss "hinge" of segreg-hinge 1.2 failed: ZeroDivisionError: the author\'s mistake'
    )
    assert lines[1].startswith("  defined at ")
    assert "(segreg-hinge 1.2)" in lines[1]
    assert lines[2] == "  Traceback (most recent call last):"
    assert any("in prepared" in line for line in lines)
    assert not any("segreg/config/resolve.py" in line or "segreg/registry/registry.py" in line for line in lines)
    assert not (tmp_path / "runs").exists()


def test_a_builder_of_segregs_own_that_fails_is_a_bug_and_keeps_its_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr("segreg_plugins.losses.builders.refuse", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        segreg.build_part("loss", "cross_entropy", segreg.Task(("a",), "binary"))
