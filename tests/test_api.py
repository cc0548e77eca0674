"""segreg from Python: few public names, and what each does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import plugged
import segreg
import small_runs
import tiny_runs
from segreg.config.recipe import override_words
from segreg.config.resolve import read_resolved
from segreg.errors import SegregError
from segreg.runs.evaluate_run import Request, _folder_name, _of_other_data
from segreg.runtime.progress import Quiet


@pytest.fixture(scope="module", autouse=True)
def _encoder():
    with small_runs.encoder():
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


def test_a_name_that_is_not_there_is_refused():
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
    recipe = segreg.load_recipe(small_runs.write_recipe(tmp_path), ["train.epochs=3"])
    changed = recipe.changed(["train.epochs=1", "evaluate.overlays=1"])
    assert recipe.values["train"]["epochs"] == 3  # the one it was made of stays as it was
    with tiny_runs.undrawn():
        run = segreg.run_recipe(changed)
    assert run.results["epochs"] == 1
    assert run.directory.path.parts[:2] == ("runs", "tiny")
    assert "epoch 1/1" in capsys.readouterr().out  # plain lines, for this is not a terminal
    again = segreg.load_run(run.directory.path)
    assert isinstance(again, segreg.Run)
    assert again.results == run.results


def test_a_file_is_run_as_well(tmp_path, capsys):
    file = small_runs.write_recipe(tmp_path, small_runs.RECIPE.replace("epochs: 6", "epochs: 1"))
    with tiny_runs.undrawn():
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
    with tiny_runs.undrawn():
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


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        (("encoder", "resnet18", 3), {"trainable": "none"}),
        (("encoder", "resnet18", 3), {"lora": {"rank": 4}}),
        (("optimizer", "adamw", [{"params": []}]), {"exclude_from_weight_decay": True, "lr": 0.1}),
    ],
)
def test_what_training_applies_is_not_built_in_silence(part, settings):
    with pytest.raises(
        SegregError, match=f'"{next(iter(settings))}" is not a setting of the {part[0]} "{part[1]}" itself'
    ):
        segreg.build_part(*part, **settings)


# the command line's commands as functions


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a recipe and its run of one epoch without augmentation."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, small_runs.run(folder, "train.epochs=1", "augment=[]", "evaluate.overlays=0")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("train.epochs=3", ["train.epochs=3"]),
        (["a=1", "b=2"], ["a=1", "b=2"]),
        ({"train.epochs": 3, "seed": np.int64(4)}, ["train.epochs=3", "seed=4"]),
        ({"train": {"epochs": 3, "ema": None}}, ["train.epochs=3", "train.ema=null"]),
        ({"encoder": {"name": "resnet18", "weights": None}}, ["encoder={name: resnet18, weights: null}"]),
        ({"encoder": {"weights": None}, "loss": "dice"}, ["encoder.weights=null", "loss=dice"]),
        (
            {"dataset.root": Path("/data/a b"), "input.size": (32, 64)},
            ["dataset.root=/data/a b", "input.size=[32, 64]"],
        ),
        ({"train.device": "1"}, ["train.device='1'"]),
        ({"loss": ["dice", {"name": "bce", "weight": 0.5}]}, ["loss=[dice, {name: bce, weight: 0.5}]"]),
    ],
)
def test_overrides_are_strings_or_a_mapping(overrides, words):
    assert override_words(overrides) == words


def test_an_override_that_no_recipe_can_hold_is_refused_by_its_key():
    with pytest.raises(SegregError, match=r'"train.epochs" is a Task, which a recipe can.t hold'):
        override_words({"train.epochs": segreg.Task(("a",), "binary")})


def test_a_mapping_of_overrides_changes_a_recipe_as_the_command_line_does(tmp_path):
    file = tiny_runs.write_recipe(tmp_path)
    words = ["train.epochs=1", "encoder={name: resnet18, weights: null}"]
    given = {"train": {"epochs": 1}, "encoder": {"name": "resnet18", "weights": None}}
    assert segreg.load_recipe(file, given).values == segreg.load_recipe(file, words).values


def test_what_is_wrong_with_a_recipe_is_returned(tmp_path):
    file = tiny_runs.write_recipe(tmp_path)
    assert segreg.check(file) == []
    problems = segreg.check(segreg.load_recipe(file), {"encoder": "resnet81", "train": {"epoch": 1}})
    assert sorted(problem.message for problem in problems) == [
        'the section "train" has no setting "epoch"', 'there is no encoder "resnet81"',
    ]  # fmt: skip
    assert segreg.check(tmp_path / "missing.yaml")[0].message.startswith("there is no recipe")
    assert segreg.check(file, {"encoder.weights": None}, build=True) == []


def test_a_run_is_scored_predicted_reported_and_continued(trained, tmp_path, monkeypatch):
    folder, run = trained
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", lambda *_: None)
    found = segreg.evaluate(run.directory.path, {"evaluate.threshold": 0.4}, split="val", out=tmp_path / "scores")
    assert (found.split, found.folder) == ("val", tmp_path / "scores")
    assert {"dice.pooled", "iou.pooled"} < set(found.scores)
    assert len(found.intervals["dice.per_image_mean"]) == 2
    assert repr(found).startswith("val (5 images, at input resolution, best weights, threshold 0.4 (given)):")
    half = segreg.evaluate(run, split="val", precision="bf16", out=tmp_path / "half")
    assert half.data["precision"] == "bf16"
    image = next((folder / "images").rglob("*.png"))
    (labels,) = segreg.predict(run, image, device="cpu")
    assert np.array_equal(labels, run.predict(image))
    two = segreg.predict(run, [str(image), np.zeros((20, 30, 3), np.uint8)], device="cpu")
    assert [one.shape for one in two] == [(48, 48), (20, 30)]
    summary = segreg.predict(run, image, out=tmp_path / "predicted", kinds=["overlays"], device="cpu")
    assert len(summary.predicted) == 1
    with pytest.raises(SegregError, match='"overlays" are written beside masks'):
        segreg.predict(run, image, kinds=["overlays"], device="cpu")
    assert len(list((tmp_path / "predicted").rglob("*.png"))) == 2
    assert segreg.report(run, tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    notice, first, *_ = segreg.data_check(run.directory.resolved).lines()
    assert str(notice).startswith("SYNTHETIC IMAGES: 24 drawn")
    assert first == "24 images, binary: lesion"


def test_the_parts_of_a_recipe_train_as_a_run_does(trained):
    _, run = trained
    recipe = segreg.load_recipe(run.directory.resolved, {"train.channels_last": False})
    model, loaders, loss = segreg.build_model(recipe), segreg.build_loaders(recipe), segreg.build_loss(recipe)
    again = segreg.build_model(recipe).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    slow = segreg.build_model(segreg.load_recipe(run.directory.resolved, {"train.batch_norm_momentum": 0.01}))
    assert {layer.momentum for layer in slow.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.01}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses, model = [], model.train()
    for images, targets in loaders.train:
        assert (images.dtype, targets.dtype) == (torch.float32, torch.int64)
        assert images.shape[2:] == targets.shape[1:] == (32, 32)
        value = loss(model(images), targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item() * len(images))
    assert len(losses) == len(loaders.train)
    assert sum(losses) / 14 == pytest.approx(run.history[0]["train.loss"], rel=0.01)
    assert len(loaders.val) == 2
    assert sum(len(images) for images, _ in loaders.test) == 5


def test_a_loss_takes_the_auxiliary_decoders_logits_too(trained):
    _, run = trained
    recipe = {"auxiliary": {"name": "deeplabv3plus", "channels": 16, "weight": 0.5}}
    model, loss = (build(run.directory.resolved, recipe) for build in (segreg.build_model, segreg.build_loss))
    images, targets = torch.zeros(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long)
    main, auxiliary = maps = model.eval().all_logits(images)
    assert torch.isclose(loss(maps, targets), loss(main, targets) + 0.5 * loss(auxiliary, targets))
    with pytest.raises(SegregError, match="3 logit maps were given, and the recipe weighs 2 of them"):
        loss([*maps, main], targets)


def test_a_run_continues_from_python(trained, tmp_path):
    run = segreg.load_run(shutil.copytree(trained[1].directory.path, tmp_path / "run"))
    with tiny_runs.undrawn():
        assert segreg.resume(run, {"train.epochs": 2}, progress="quiet").results["epochs"] == 2
    with pytest.raises(SegregError, match=r'"loss" can.t be changed'):
        segreg.resume(run.directory.path, {"loss": "dice"}, progress="quiet")


def test_runs_are_compared(trained, tmp_path):
    folder, run = trained
    other = small_runs.run(folder, "train.epochs=1", "augment=[]", "evaluate.overlays=1", "loss=bce")
    found = segreg.compare(run, other.directory.path, out=tmp_path / "compared")
    assert {model.name for model in found.models} == {
        "dice_bce, evaluate.overlays=0",
        "bce, evaluate.overlays=1",
    }
    assert (tmp_path / "compared" / "report.html").is_file()
    assert repr(found).startswith("<Comparison of 2 models by dice.per_image_mean: ")
    assert "<td>bce, evaluate.overlays=1</td>" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (
            {"encoder": "resnet18"},
            '"encoder" varies over a list of values, not the string "resnet18"\n  for ',
        ),
        ({"loss": []}, '"loss" varies over a list of values, not []'),
        ({"loss": ["bce"], "vary": {"loss": ["dice"]}}, '"loss" varies twice: loss= and vary='),
        ({"loss": ["bce", "dise"]}, 'with dise: there is no loss "dise"\n  did you mean "dice"'),
        ({"vary": {"train.epoch": [1, 2]}}, 'did you mean "epochs"'),
        ({"seeds": 0}, "seeds must be a number of seeds"),
        ({"epochs": 1, "steps": 3}, 'a bench has one budget, not "epochs" and "steps"'),
        ({"epochs": 0}, "a budget of epochs must be a whole number above 0"),
        ({"loss": ["bce"], "baseline": {"loss": "dice"}}, "baseline names loss=dice, which is not among its values"),
        ({"jobs": 0}, "jobs must be at least 1, not 0"),
        ({"rounds": -1}, "rounds must be at least 0, not -1"),
    ],
)
def test_mistakes_in_a_bench_are_reported_before_anything_starts(options, reported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = segreg.load_recipe(tiny_runs.write_recipe(tmp_path))
    with pytest.raises(SegregError) as caught:
        segreg.bench(recipe, **options)
    assert reported in str(caught.value)
    assert not (tmp_path / "benches").exists()


def test_what_is_wrong_with_the_models_of_a_bench_is_returned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    looked = []

    def check_memory(spec, *, jobs):
        looked.append((spec.recipe["seed"], spec.recipe["train"]["epochs"], spec.recipe["optimizer"]["lr"], jobs))
        return "too large" if spec.recipe["loss"][0]["name"] == "bce" else ""

    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", check_memory)
    file = tmp_path / "bench.yaml"
    file.write_text(f"recipe: {tiny_runs.write_recipe(tmp_path)}\nvary: {{loss: [bce, dice, iou]}}\nseeds: 2\n")
    given = {"exclude": [{"loss": "iou"}], "seeds": range(4, 6), "epochs": 1, "jobs": 2, "progress": "quiet"}
    for recipe in (file, segreg.load_recipe(file)):
        problems = segreg.bench(recipe, {"optimizer.lr": 0.5}, check=True, **given)
        assert [str(problem) for problem in problems] == ["bce: too large"]
    assert looked == [(4, 1, 0.5, 2)] * 4
    assert not (tmp_path / "benches").exists()


def test_a_run_shows_itself_in_a_notebook(trained, tmp_path):
    _, run = trained
    assert repr(run) == f"<Run {run.directory.path}: 1 epoch, finished>"
    shown = run._repr_html_()
    assert "<td>dice.pooled</td>" in shown
    (tmp_path / "resolved.yaml").write_text("seed: 0", encoding="utf-8")
    assert repr(segreg.load_run(tmp_path)) == f"<Run {tmp_path}: no results yet; segreg.resume(run) continues>"


def test_an_error_shows_itself_without_frames_in_a_notebook():
    error = SegregError("it is wrong", hint="do this")
    assert error._render_traceback_() == ["SegregError: it is wrong\n  do this"]


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ({"threshold": "bset"}, "the threshold is a number from 0 to 1, or \"best\", not 'bset'"),
        ({"threshold": 2}, "the threshold must be from 0 to 1, not 2"),
        ({"resolution": "orginal"}, 'there is no resolution "orginal"\n  did you mean "original"?'),
        ({"weights": "Best"}, 'there are no weights "Best"\n  they are "best" or "last"'),
        ({"libraries": ["sklern"]}, 'there is no library "sklern"\n  did you mean "sklearn"?'),
    ],
)
def test_a_word_that_evaluate_does_not_know_is_refused(trained, options, reported, tmp_path):
    with pytest.raises(SegregError) as refused:
        segreg.evaluate(trained[1], device="cpu", out=tmp_path / "scored", **options)
    assert str(refused.value) == reported


@pytest.mark.parametrize("threshold", [1, np.float32(0.25)])
def test_a_threshold_of_another_type_than_float_is_taken(trained, threshold, tmp_path):
    found = segreg.evaluate(trained[1], split="val", threshold=threshold, device="cpu", out=tmp_path / "scored")
    assert found.data["threshold"] == threshold


def test_scores_of_other_data_are_not_put_where_those_of_a_split_are(trained, tmp_path):
    file = shutil.copy(trained[1].directory.resolved, tmp_path / "test.yaml")
    assert _of_other_data(trained[1], read_resolved(file), None, Quiet()).name == "data-test"
    overrides = [f"evaluate.metrics=[{', '.join(['iou'] * 80 + [last])}]" for last in ("iou", "dice")]
    assert len({_folder_name("test", Request(overrides=[each])) for each in overrides}) == 2


def test_a_loss_has_the_weights_of_the_epoch(trained):
    weight = {"start": 0.5, "end": 1.0, "epochs": [1, 3]}
    loss = segreg.build_loss(trained[1].directory.resolved, {"loss": [{"name": "dice", "weight": weight}]})
    logits, targets = torch.zeros(2, 1, 8, 8), torch.ones(2, 8, 8, dtype=torch.long)
    values = []
    for epoch in (1, 2, 3):
        loss.set_epoch(epoch)
        values.append(loss(logits, targets).item())
    assert values == pytest.approx([values[2] * share for share in (0.5, 0.75, 1)])
    assert values[2] > 0


def test_loaders_refuse_to_leave_batches_unmixed(trained):
    with pytest.raises(SegregError, match="batch_augment mixes the batches of `segreg run` alone"):
        segreg.build_loaders(trained[1].directory.resolved, {"batch_augment": ["mixup"]})
