"""A run from beginning to end: what it leaves, that it can be repeated, and that a mistake leaves nothing."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pty
import re
import select
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file

import segreg
import small_runs
import tiny_runs
from segreg.config.recipe import read_recipe
from segreg.config.resolve import resolve
from segreg.errors import SegregError
from segreg.registry.local import REGISTERED
from segreg.registry.registry import load_registry
from segreg.runs.dry_run import _task
from segreg.runs.run import _as_read, start_run, with_absolute_paths
from segreg.runs.scored import read_scored
from segreg.runtime.progress import Quiet
from segreg.training import history
from segreg.training.checkpoint import read_notes

pytestmark = pytest.mark.usefixtures("three_convolutions", "undrawn")
BRIEF = ("train.epochs=1", "dataset.samples=10", "evaluate.overlays=0")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


@pytest.fixture(scope="module")
def trained(three_convolutions, tmp_path_factory):
    """A run of two epochs."""
    return small_runs.run(tmp_path_factory.mktemp("trained"), "train.epochs=2")


def same_weights(one, other):
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_leaves_all_that_it_is_to_leave_and_nothing_else(finished):
    path = finished.directory.path
    assert {file.name for file in path.iterdir()} == tiny_runs.LEAVES
    assert path.parent.name == "tiny"
    assert all(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    assert len(list(finished.directory.overlays.glob("*.png"))) == 2


def test_the_recipe_is_kept_as_it_was_read(finished):
    path = finished.directory.path
    assert finished.directory.recipe.read_text() == (path.parents[2] / "tiny.yaml").read_text()


def test_overrides_are_noted_below_the_recipe_wherever_they_came_from(tmp_path):
    few = small_runs.RECIPE.replace("samples: 24", "samples: 10").replace("overlays: 2", "overlays: 0")
    file = small_runs.write_recipe(tmp_path, few)
    once = segreg.load_recipe(file, ["train.epochs=2", "encoder=timm/test_vit", "encoder.weights=null"])
    run = segreg.run_recipe(once.changed(["train.epochs=1", "loss=[bce]"]), out=tmp_path, progress="quiet")
    text = run.directory.recipe.read_text()
    kept, _, changes = text.partition("\n# overrides:\n")
    assert kept == file.read_text()
    assert set(changes.splitlines()) == {
        "#   train.epochs=1",
        "#   encoder={name: timm/test_vit, weights: null}",
        "#   encoder.weights=null",
        "#   loss=[bce]",
    }
    assert read_recipe(run.directory.recipe).values == read_recipe(file).values


def test_an_override_of_several_lines_is_noted_on_one(tmp_path):
    file = small_runs.write_recipe(tmp_path, small_runs.RECIPE)
    text = _as_read(segreg.load_recipe(file).changed({"dataset.root": "two\nlines"}))
    assert text.splitlines()[-1] == r'#   dataset.root="two\nlines"'


def test_paths_of_every_part_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resolved = resolve(read_recipe(small_runs.write_recipe(tmp_path, small_runs.RECIPE)), load_registry())
    weights = dataclasses.replace(resolved.loss[0], settings={"weights": Path("own/weights.csv")})
    absolute = with_absolute_paths(dataclasses.replace(resolved, loss=(weights,)))
    assert absolute.loss[0].settings == {"weights": tmp_path / "own/weights.csv"}


def test_the_resolved_recipe_is_complete_and_resolves_to_itself(finished):
    resolved = finished.recipe
    assert resolved.train.epochs == 6
    assert resolved.decoder.settings["output_stride"] == 16  # a default, written out
    again = resolve(read_recipe(finished.directory.resolved), load_registry())
    assert again.plain() == resolved.plain()
    assert again.yaml() == finished.directory.resolved.read_text().split("\n", 1)[1]


def test_the_resolved_recipe_repeats_the_run_to_the_bit_from_another_folder(trained, tmp_path, monkeypatch, segreg):
    first = trained
    monkeypatch.chdir(tmp_path)
    assert segreg("run", first.directory.resolved, "--quiet").status == 0
    (again,) = Path("runs/tiny").absolute().iterdir()  # under the first recipe's name
    again = load_run(again)
    assert same_weights(again.directory.best, first.directory.best)
    assert same_weights(again.directory.last, first.directory.last)
    assert again.results["metrics"] == first.results["metrics"]
    assert again.recipe.plain() == first.recipe.plain()


def load_run(path):
    return segreg.load_run(path)


def test_relative_paths_in_the_resolved_recipe_are_absolute(tmp_path, monkeypatch):
    tiny_runs.folder_dataset(tmp_path / "set", count=8)
    ids = [f"image {number:02}" for number in range(8)]
    for name, members in {"train": ids[:4], "val": ids[4:6], "test": ids[6:]}.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(members))
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        "{name: folder, images: set/images, masks: set/masks}",
    ).replace(
        "{method: random, val: 0.2, test: 0.2}",
        "{method: lists, lists: {train: train.txt, val: val.txt, test: test.txt}}",
    )
    monkeypatch.chdir(tmp_path)
    run = small_runs.run(tmp_path, "train.epochs=1", text=text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = segreg.run_recipe(run.directory.resolved, progress="quiet")
    assert again.recipe.dataset.settings["images"] == tmp_path / "set" / "images"
    assert again.recipe.split.lists["val"] == tmp_path / "val.txt"
    assert json.loads(again.directory.split.read_text()) == {"train": ids[:4], "val": ids[4:6], "test": ids[6:]}
    assert same_weights(again.directory.last, run.directory.last)


NESTED = """
from collections.abc import Mapping
from pathlib import Path
from segreg import Entry, hookimpl

def pages(*, parts: tuple[Path, ...], named: Mapping[str, Path], words: tuple[str, ...] = ()):
    \"\"\"A data set in several files.

    Args:
        parts: files.
        named: more files.
        words: no files.
    \"\"\"

@hookimpl
def segreg_entries():
    return [Entry("dataset", "pages", pages)]
"""


def test_paths_inside_lists_and_mappings_are_made_absolute_too(plugin, tmp_path, monkeypatch):
    import plugged

    monkeypatch.chdir(tmp_path)
    registry = load_registry([*plugged.builtin(), plugin(NESTED)])
    dataset = "{name: pages, parts: [a/b, /c, ~/d], named: {e: f}, words: [g/h]}"
    resolved = resolve(read_recipe(tiny_runs.write_recipe(tmp_path), [f"dataset={dataset}"]), registry)
    assert with_absolute_paths(resolved).dataset.plain() == {
        "name": "pages",
        "parts": [f"{tmp_path}/a/b", "/c", str(Path("~/d").expanduser())],
        "named": {"e": f"{tmp_path}/f"},
        "words": ["g/h"],
    }


def test_another_seed_gives_other_weights_and_the_same_split(trained, tmp_path):
    other = small_runs.run(tmp_path, "seed=4", "train.epochs=2")
    assert not same_weights(other.directory.last, trained.directory.last)
    assert other.directory.split.read_text() == trained.directory.split.read_text()


def test_the_environment_names_every_plugin_with_its_version(finished):
    reported = json.loads(finished.directory.environment.read_text())
    assert reported["python"] == sys.version.split()[0]
    assert reported["packages"]["torch"] == version("torch")
    installed = {(p.name, p.distribution, p.version) for p in load_registry().plugins if p.distribution != REGISTERED}
    named = {(p["name"], p["distribution"], p["version"]) for p in reported["plugins"]}
    assert {one for one in named if one[1] != REGISTERED} == installed  # tests register some parts in this process
    assert reported["model"]["parameters"]["total"] == sum(p.numel() for p in finished.model().parameters())
    assert reported["precision"] == "float32"
    assert reported["device"]["name"] == "cpu"
    assert reported["previous"] == []


def test_the_history_has_a_row_for_each_epoch_in_both_files(finished):
    rows = finished.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    with finished.directory.history.open() as file:
        table = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in table] == rows
    assert rows == history.read(finished.directory.path)
    assert rows[-1]["train.loss"] < rows[0]["train.loss"]
    names = {"lr.encoder", "val.loss", "val.dice.pooled", "val.iou.per_image_mean", "images_per_second"}
    assert names <= rows[0].keys()


def test_the_best_epoch_is_that_of_the_best_row(finished):
    scores = [row["val.dice.pooled"] for row in finished.history]
    assert finished.results["best_epoch"] == 1 + int(np.argmax(scores))
    assert finished.results["best_value"] == max(scores)
    assert int(read_notes(finished.directory.best)["epoch"]) == finished.results["best_epoch"]
    # The best weights are those that were validated then, and so they score as they did then.
    assert finished.results["metrics"]["val"]["dice.pooled"] == pytest.approx(max(scores), abs=1e-6)


def test_the_best_epoch_is_what_is_scored_not_the_last(tmp_path, monkeypatch):
    # As if nothing after the first epoch were better.
    monkeypatch.setattr("segreg.training.trainer.better", lambda _, best: best is None)
    run = small_runs.run(tmp_path, "train.epochs=3", "evaluate.overlays=0")
    results, first = run.results, run.history[0]
    assert (results["best_epoch"], results["epochs"]) == (1, 3)
    assert not same_weights(run.directory.best, run.directory.last)
    for name, value in results["metrics"]["val"].items():
        assert value == pytest.approx(first[f"val.{name}"], abs=1e-6)


def test_weights_explain_themselves(finished):
    for file in (finished.directory.best, finished.directory.last):
        notes = read_notes(file)
        assert notes["recipe"] == finished.recipe.yaml()
        assert json.loads(notes["task"]) == {"classes": ["lesion"], "mode": "binary"}
        halves = {"mean": [0.5] * 3, "std": [0.5] * 3, "value_range": 255.0}  # the encoder's own
        assert json.loads(notes["normalize"]) == halves
        assert notes["notice"].startswith("SYNTHETIC")
        assert notes["monitor"] == "val.dice.pooled"


def test_synthetic_can_not_be_overlooked(finished):
    assert finished.results["notice"].startswith("SYNTHETIC IMAGES")
    for file in finished.directory.overlays.iterdir():
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert (pixels[:4, :4] == (200, 0, 0)).all()  # the banner's colour
        assert (pixels[:18].min(axis=-1) > 200).sum() > 100  # its words


def test_lines_of_a_run_name_its_parts_epochs_scores_and_directory(tmp_path, segreg):
    printed = segreg("run", tiny_runs.write_recipe(tmp_path), "train.epochs=2", "--out", tmp_path / "runs")
    (path,) = (tmp_path / "runs" / "tiny").iterdir()
    run = load_run(path)
    lines = printed.out.splitlines()
    assert printed.err == ""
    header, _, end = printed.out.partition("epoch 1/2")
    for part in (header, end):
        assert "!!!!!!!!" in part
        assert "!! SYNTHETIC IMAGES: 24 drawn" in part
    assert f"run        {path}" in lines
    assert "data       synthetic_lesions: 14 train, 5 val, 5 test" in lines
    assert any(line.startswith("encoder    timm/test_resnet, 0.37 M parameters, strides 2/4/8/16/") for line in lines)
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch ")] == ["epoch 1/2", "epoch 2/2"]
    assert "test (5 images, at input resolution, best weights):" in lines
    for name, value in run.results["metrics"]["test"].items():
        low, high = run.results["intervals"]["test"][name]
        assert f"  {name:<23}  {value:.4f}  [{low:.4f}, {high:.4f}]" in lines
    assert f"everything is in {path}" in lines


def test_quiet_prints_the_results_only(tmp_path, segreg):
    printed = segreg("run", small_runs.write_recipe(tmp_path), *BRIEF, "--quiet", "--out", tmp_path / "runs")
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].startswith("!!!!")
    assert lines[-1].startswith("everything is in")
    assert any(line.startswith("  dice.pooled ") for line in lines)
    assert not any(line.startswith(("recipe", "epoch", "encoder")) for line in lines)


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_json_prints_json_and_nothing_else(quiet, tmp_path, segreg):
    recipe = small_runs.write_recipe(tmp_path)
    printed = segreg("run", recipe, *BRIEF, "--json", *quiet, "--out", tmp_path / "runs")
    assert (printed.status, printed.err) == (0, "")
    reported = json.loads(printed.out)
    run = load_run(reported.pop("run"))
    assert reported == run.results


def test_a_bar_moves_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    terminal, its_end = pty.openpty()
    recipe = tiny_runs.write_recipe(tmp_path)
    arguments = ("run", recipe, "train.epochs=2", "--out", tmp_path / "runs")
    started = tiny_runs.process(*arguments, out=os.ttyname(its_end))
    shown = b""
    while started.is_alive():
        while select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536)
    os.close(its_end)
    os.close(terminal)
    text = shown.decode()
    assert started.exitcode == 0, text
    assert "\x1b[?25l" in text  # the cursor is hidden while a bar moves
    assert "\x1b[?25h" in text  # and shown again
    assert "epoch 1/2" in text
    assert re.search(
        r"^ *2/2 +\d\.\d{4} +\d\.\d{4}", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n"), re.MULTILINE
    )
    assert "batches" in text
    assert "everything is in" in text
    (path,) = (tmp_path / "runs" / "tiny").iterdir()
    assert {file.name for file in path.iterdir()} | tiny_runs.DRAWN == tiny_runs.LEAVES


OBSERVER = """
import json
from pathlib import Path
from segreg.registry.hooks import hookimpl

def note(**told):
    with Path({log!r}).open("a") as file:
        file.write(json.dumps(told, default=str) + "\\n")

@hookimpl
def segreg_run_start(run, recipe):
    note(hook="start", run=run, seed=recipe["seed"], files=sorted(p.name for p in run.iterdir()))

@hookimpl
def segreg_epoch_end(run, epoch, values):
    rows = (run / "history.jsonl").read_text().splitlines()
    note(hook="epoch", run=run, epoch=epoch, values=values, rows=len(rows))

@hookimpl
def segreg_run_end(run, results):
    note(hook="end", run=run, results=results)
"""
BROKEN = """
from segreg.registry.hooks import hookimpl

@hookimpl
def segreg_epoch_end(epoch):
    raise RuntimeError(f"no disk for epoch {epoch}")

@hookimpl
def segreg_run_end():
    raise SystemExit(3)
"""


def test_observers_are_reported_and_a_failing_one_is_named_and_stops_nothing(plugin, tmp_path, capsys, reported):
    import plugged

    log = tmp_path / "log.jsonl"
    registry = load_registry(
        [
            *plugged.builtin(),
            plugin(BROKEN, name="tracker", distribution="segreg-broken"),
            plugin(OBSERVER.format(log=str(log)), name="notes", distribution="segreg-notes"),
        ]
    )
    light = ("train.epochs=2", "evaluate.metrics=[dice]", "decoder={name: mlp, channels: 8}")
    recipe = read_recipe(tiny_runs.write_recipe(tmp_path), [*BRIEF, *light])
    run = start_run(recipe, resolve(recipe, registry), registry, out=tmp_path / "runs", progress=Quiet())
    reported = [json.loads(line) for line in log.read_text().splitlines()]
    assert [note["hook"] for note in reported] == ["start", "epoch", "epoch", "end"]
    assert {note["run"] for note in reported} == {str(run.directory.path)}
    assert reported[0]["seed"] == 3
    assert {"resolved.yaml", "recipe.yaml", "split.json", "environment.json"} <= set(reported[0]["files"])
    assert [(note["epoch"], note["rows"]) for note in reported[1:3]] == [(1, 1), (2, 2)]  # once it is on the disk
    assert {key for key, value in reported[2]["values"].items() if value != run.history[1][key]} <= {
        "seconds", "seconds.checkpoint", "seconds.other"
    }  # fmt: skip
    assert {**reported[3]["results"], "warnings": run.results["warnings"]} == run.results
    complaints = [
        "segreg_epoch_end of segreg-broken:tracker failed: RuntimeError: no disk for epoch 1",
        "segreg_epoch_end of segreg-broken:tracker failed: RuntimeError: no disk for epoch 2",
        "segreg_run_end of segreg-broken:tracker failed: SystemExit: 3",
    ]
    said = capsys.readouterr().err.splitlines()  # though nothing else is shown
    assert [line for line in said if line.startswith("warning:")] == [f"warning: {words}" for words in complaints]
    assert run.results["warnings"] == complaints
    assert run.directory.warnings.read_text().splitlines() == complaints
    page = run.directory.report.read_text()
    assert all(words in page for words in complaints)
    environment = json.loads(run.directory.environment.read_text())
    assert {"segreg-notes", "segreg-broken"} <= {p["distribution"] for p in environment["plugins"]}


# What goes wrong before training leaves nothing behind.


def nothing_left(folder):
    return not (folder / "runs").exists()


MISTAKES = {
    "an unknown monitor": (["train.monitor=val.dise"], 'an epoch has no value "val.dise"', "val.dice.pooled"),
    "a part that is not there": (["train.lr_factors={auxiliary: 2}"], "auxiliary", "encoder"),
    "an unknown device": (["train.device=cuda:7"], 'there is no device "cuda:7"', "cpu"),
    "a split that leaves nothing": (["split.val=0.01", "dataset.samples=2"], "leaves train empty", "of 2 samples"),
    "a metric twice": (["evaluate.metrics=[dice, iou, dice]"], 'the metric "dice" is given twice', "command line"),
    "a loss for other tasks": (["loss=cross_entropy"], "cross_entropy", "binary"),
    "a rate too large for float32": (["optimizer.lr=1e30"], "finite", "smaller optimizer.lr"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_reported_and_leaves_nothing_behind(case, tmp_path, segreg):
    overrides, *words = MISTAKES[case]
    printed = segreg("run", small_runs.write_recipe(tmp_path), *overrides, "--out", tmp_path / "runs")
    assert printed.status == 2
    assert printed.err.startswith("error: ")
    for word in words:
        assert word in printed.err
    if case != "a rate too large for float32":  # that one has trained
        assert nothing_left(tmp_path)


def test_an_unknown_monitor_is_refused_before_an_image_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr("segreg.runs.assembly.prepare_images", lambda *_: pytest.fail("images are prepared"))
    with pytest.raises(SegregError, match=r'an epoch has no value "val\.dice\.pool"'):
        small_runs.run(tmp_path, "train.monitor=val.dice.pool")


def test_an_output_folder_that_is_a_file_is_reported(tmp_path, segreg):
    (tmp_path / "taken").write_text("")
    printed = segreg("run", small_runs.write_recipe(tmp_path), "--quiet", "--out", tmp_path / "taken")
    assert printed.status == 2
    assert "taken/tiny: can't be written: a part of the path is a file, not a folder" in printed.err
    assert (tmp_path / "taken").read_text() == ""


def test_a_bug_before_training_leaves_nothing_and_keeps_the_folder_that_was_there(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr("segreg.runs.run.fit", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small_runs.run(tmp_path, *BRIEF)
    assert list((tmp_path / "runs").iterdir()) == []


def folder_recipe(tmp_path, classes="[disc]"):
    return small_runs.write_recipe(
        tmp_path,
        small_runs.RECIPE.replace(
            "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
            f"{{name: folder, images: {tmp_path}/images, masks: {tmp_path}/masks, classes: {classes}}}",
        ),
    )


def damage_nothing_there(images, masks):
    for folder in (images, masks):
        for file in folder.iterdir():
            file.unlink()
    return ["images"]


def damage_no_folder(images, masks):
    images.rename(images.with_name("elsewhere"))
    return ["images"]


def damage_image(images, masks):
    (images / "image 03.png").write_bytes((images / "image 03.png").read_bytes()[:200])
    (images / "image 05.png").write_bytes(b"this is not an image")
    return ["image 03.png", "image 05.png"]


def damage_mask_missing(images, masks):
    (masks / "image 03.png").unlink()
    return ["image 03"]


def damage_size(images, masks):
    Image.new("L", (39, 40)).save(masks / "image 07.png")
    return ["image 07.png", "40x40", "40x39"]


def damage_values(images, masks):
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40).astype(np.uint8)).save(masks / "image 11.png")
    return ["image 11.png", "foreground: nonzero"]


@pytest.mark.parametrize(
    "damage",
    [damage_nothing_there, damage_no_folder, damage_image, damage_mask_missing, damage_size, damage_values],
    ids=lambda f: f.__name__.removeprefix("damage_"),
)
def test_wrong_data_is_reported_by_its_files_and_leaves_nothing_behind(damage, tmp_path, segreg):
    named = damage(*tiny_runs.folder_dataset(tmp_path))
    printed = segreg("run", folder_recipe(tmp_path), "--out", tmp_path / "runs")
    assert printed.status == 2
    for words in named:
        assert words in printed.err
    assert "Traceback" not in printed.err
    assert nothing_left(tmp_path)


def test_a_mask_with_a_class_too_many_is_reported(tmp_path, segreg):
    tiny_runs.folder_dataset(tmp_path, classes=4)
    recipe = folder_recipe(tmp_path, "[ground, red, green]")
    printed = segreg("run", recipe, "loss=cross_entropy", "--out", tmp_path / "runs")
    assert printed.status == 2
    assert "holds the value 3, and 3 classes have the numbers 0 to 2" in printed.err
    assert nothing_left(tmp_path)


def test_weights_that_can_not_be_had_are_reported_and_leave_nothing_behind(tmp_path, monkeypatch, segreg):
    offline(monkeypatch)
    recipe = tiny_runs.write_recipe(tmp_path)
    printed = segreg("run", recipe, "encoder=resnet18", "encoder.weights=imagenet", "--out", tmp_path / "runs")
    assert printed.status == 2
    assert 'command line: the weights "imagenet" of the encoder resnet18 are not available' in printed.err
    assert "weights_fallback: random" in printed.err
    assert nothing_left(tmp_path)


def offline(monkeypatch):
    monkeypatch.setattr("segreg_plugins.pretrained.unreachable", lambda address: "the tests allow no network")


@pytest.mark.usefixtures("quick_networks")
def test_random_weights_in_the_place_of_others_are_said_loudly_and_recorded(tmp_path, monkeypatch, segreg):
    offline(monkeypatch)
    encoder = "encoder={name: efficientnet-b0, weights: advprop, weights_fallback: random}"
    words = [encoder, "optimizer={name: sgd, lr: 0.01}", *BRIEF]
    printed = segreg("run", small_runs.write_recipe(tmp_path), *words, "--out", tmp_path / "runs")
    assert printed.status == 0
    words = 'RANDOM weights: "advprop" of the encoder efficientnet-b0 are not available (the tests allow no network)'
    header, _, end = printed.out.partition("epoch 1/1")
    for part in (header, end):
        shouted = [line.strip("! ") for line in part.splitlines() if line.startswith("!! ")]
        assert words in " ".join(shouted)
    (path,) = (tmp_path / "runs" / "tiny").iterdir()
    run = load_run(path)
    assert run.results["weights"] == words
    environment = json.loads(run.directory.environment.read_text())
    assert environment["model"]["encoder"]["weights"] == words
    halves = {"mean": [0.5] * 3, "std": [0.5] * 3, "value_range": 255.0}  # those of the weights "advprop" alone
    assert json.loads(read_notes(run.directory.last)["normalize"]) == halves

    # Going on with the run does not ask for them again, and does not forget; nor does loading it ask for anything.
    monkeypatch.setattr("segreg_plugins.pretrained.obtain", lambda *_, **__: pytest.fail("asked for weights"))
    assert segreg("run", "--resume", path, "--quiet").status == 0
    for name in ("socket", "getaddrinfo"):
        monkeypatch.setattr(socket, name, lambda *_, **__: pytest.fail("asked the network"))
    again = load_run(path)
    assert again.results == run.results
    assert json.loads(read_notes(again.directory.last)["normalize"]) == halves
    assert again.recipe.encoder.settings["weights"] == "advprop"
    assert again.predict(np.zeros((33, 35, 3), np.uint8)).shape == (33, 35)


def test_an_augmentation_that_does_nothing_is_reported_where_the_recipe_names_it(tmp_path):
    text = small_runs.RECIPE.replace(
        "augment: [{name: HorizontalFlip, p: 0.5}]",
        "augment:\n  - {name: HorizontalFlip, p: 0.5}\n  - {name: RandomCrop, height: 32, width: 32}",
    )
    with pytest.raises(SegregError, match='"RandomCrop" changes nothing of an image of 32x32x3') as caught:
        small_runs.run(tmp_path, text=text)
    assert caught.value.problems[0].place.source.endswith("tiny.yaml")
    assert caught.value.problems[0].place.line == 1 + text[: text.index("{name: RandomCrop")].count("\n")
    assert not list((tmp_path / "cache").rglob("*.npy"))


ODD_NAMES = [
    b"caf\xe9", b"a\rb", b"a\nb", b"=1+2", b"-x", b"@x", b"'=q", b"x" * 251, b'a,b"c', b"back\\nslash", b"esc\x1b[2J",
    ("\u4f8b" * 83).encode(), "\u202ertl".encode(), b"plain",
]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_of_any_bytes_survive_a_run(tmp_path, reported):
    for folder, values in (("photos", 90), ("masks", 1)):
        (tmp_path / folder).mkdir()
        for name in ODD_NAMES:
            with open(os.path.join(os.fsencode(tmp_path / folder), name + b".png"), "wb") as file:  # noqa: PTH118, PTH123
                Image.fromarray(np.pad(np.full((20, 20), values, np.uint8), 6)).save(file, format="PNG")
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {tmp_path}/photos, masks: {tmp_path}/masks}}",
    )
    run = small_runs.run(tmp_path, "split.test=0.7", "train.epochs=1", "evaluate.overlays=9", text=text, drawn=True)
    ids = {os.fsdecode(name) for name in ODD_NAMES}
    split = json.loads(run.directory.split.read_text())
    assert {name for names in split.values() for name in names} == ids
    lines = run.directory.per_image.read_text(encoding="utf-8").splitlines()
    scored = read_scored(run)
    assert set(scored.ids) == set(split["test"])
    assert len(lines) == 1 + len(split["test"])
    assert len(list(run.directory.overlays.glob("*.png"))) == 9


def bands(folder, *, constant=False):
    """Write 16 TIFFs of five bands and their masks, and return the recipe's text for them."""
    for name in ("photos", "masks"):
        (folder / name).mkdir()
    drawn = np.random.default_rng(0)
    for number in range(16):
        mask = np.pad(np.ones((20, 16), np.uint8), ((6, 6), (number % 5, 16 - number % 5)))
        values = drawn.integers(0, 60, (5, *mask.shape)) + 40 * np.arange(5)[:, None, None] * mask
        if constant:
            values[3] = 7
        tifffile.imwrite(folder / "photos" / f"{number:02}.tif", values.astype(np.uint8), photometric="minisblack")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
    return small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {folder}/photos, masks: {folder}/masks}}",
    ).replace("input: {size: [32, 32]}", "input: {size: [32, 32], channels: 5}")


def test_bands_are_normalised_by_the_training_images_and_never_otherwise(tmp_path, monkeypatch, segreg):
    text = bands(tmp_path)
    file = small_runs.write_recipe(tmp_path, text)
    reported = segreg("run", file, "train.epochs=2", "input.normalize=dataset", "--out", tmp_path / "runs")
    assert reported.status == 0, reported.err
    assert "normalize  mean " in reported.out
    assert "red, green and blue" not in reported.out
    (path,) = (tmp_path / "runs" / "tiny").iterdir()
    run = load_run(path)
    split = json.loads(run.directory.split.read_text())
    pixels = np.stack([tifffile.imread(tmp_path / "photos" / f"{name}.tif") for name in split["train"]]) / 255
    section = run.recipe.input
    assert section.normalize == "dataset"
    assert section.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-12)
    assert section.std == pytest.approx(pixels.std(axis=(0, 2, 3)), rel=1e-12)
    notes = json.loads(read_notes(run.directory.best)["normalize"])
    assert notes["mean"] == np.float32(section.mean).tolist()
    assert notes["std"] == np.float32(section.std).tolist()

    def recomputed(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr("segreg.data.cache.PreprocessedDataset.channel_statistics", recomputed)
    before = run.directory.resolved.read_bytes()
    for command in (
        ("run", "--resume", path, "train.epochs=3", "--quiet"),
        ("evaluate", path, "--out", tmp_path / "scores"),
        ("predict", path, tmp_path / "photos", "--out", tmp_path / "predicted"),
    ):
        reported = segreg(*command)
        assert reported.status == 0, reported.err
    assert run.directory.resolved.read_bytes() == before.replace(b"epochs: 2", b"epochs: 3")
    photo = tmp_path / "photos" / "00.tif"
    mean, std = (np.reshape(notes[name], (5, 1, 1)) for name in ("mean", "std"))
    by_hand = (tifffile.imread(photo) / 255 - mean) / std
    np.testing.assert_allclose(load_run(path).preprocess(photo)[0].numpy(), by_hand, atol=1e-5)


def test_a_threshold_of_classes_that_exclude_each_other_is_warned_of(tmp_path):
    images, masks = tiny_runs.folder_dataset(tmp_path / "data", classes=3)
    data = f"dataset: {{name: folder, images: {images}, masks: {masks}, classes: [none, a, b]}}"
    text = re.sub("dataset: .*", data, small_runs.RECIPE).replace("dice_bce", "dice_ce")
    done = small_runs.run(tmp_path, "train.epochs=1", "evaluate.threshold=0.9", text=text)
    (warning,) = done.results["warnings"]
    assert warning.startswith("evaluate.threshold has no effect")


def test_bands_that_borrow_colours_statistics_are_warned_of_and_a_constant_one_is_refused(tmp_path, segreg, reported):
    file = small_runs.write_recipe(tmp_path, bands(tmp_path, constant=True))
    reported = segreg("run", file, "train.epochs=1", "--out", tmp_path / "runs")
    assert reported.status == 0, reported.err
    assert "warning    the 5 channels are normalised by statistics of red, green and blue" in reported.out
    (path,) = (tmp_path / "runs" / "tiny").iterdir()
    (warning,) = load_run(path).results["warnings"]
    assert "input.normalize: dataset" in warning
    assert "`input.normalize: dataset`" in (path / "report.html").read_text()
    reported = segreg("run", file, "input.normalize=dataset", "--out", tmp_path / "others")
    assert reported.status == 2
    complaint = "channel 4 of 5 (the first is 1) has the value 7 in every pixel"
    assert complaint in reported.err
    reported = segreg("data", "check", file, "input.normalize=dataset")
    assert reported.status == 2
    assert complaint in reported.out
    assert not (tmp_path / "others").exists()


def test_the_folder_of_a_user_that_does_not_exist_is_one_that_is_not_there(tmp_path):
    recipe = read_recipe(small_runs.write_recipe(tmp_path), ["dataset.root=~nosuchuser/images"])
    resolved = resolve(recipe, load_registry())
    assert with_absolute_paths(resolved).dataset.settings["root"] == Path("~nosuchuser/images").absolute()
    assert "~nosuchuser/images is not there" in _task(resolved)[1]
