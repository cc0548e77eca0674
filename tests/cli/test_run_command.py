"""`segreg run`: what it takes, what it refuses, and its exit statuses. What a run leaves: tests/runs/test_run.py."""

from __future__ import annotations

import json

import pytest

import segreg as package
import small_runs
import tiny_runs


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _encoder():
    with small_runs.encoder():
        yield


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ([], "run takes one recipe; name one, for example: segreg run recipes/isic_v3plus.yaml"),
        (["train.epochs=3"], "run takes one recipe; name one"),
        (["a.yaml", "b.yaml"], "run takes one recipe; these are 2"),
        (["missing.yaml"], "there is no recipe missing.yaml"),
    ],
)
def test_one_recipe_is_taken(words, reported, segreg):
    printed = segreg("run", *words)
    assert (printed.status, printed.out) == (2, "")
    assert printed.err.startswith(f"error: {reported}")


@pytest.mark.usefixtures("_encoder")
def test_runs_go_to_the_folder_runs_under_the_recipes_name_and_nothing_to_standard_error(tmp_path, segreg):
    printed = segreg("run", small_runs.write_recipe(tmp_path, name="mine"), "train.epochs=1")
    assert (printed.status, printed.err) == (0, "")
    (path,) = (tmp_path / "runs" / "mine").iterdir()
    assert package.load_run(path).results["epochs"] == 1


@pytest.mark.usefixtures("_encoder")
def test_overrides_stand_anywhere(tmp_path, segreg):
    recipe = small_runs.write_recipe(tmp_path)
    words = ("run", "train.epochs=1", recipe, "--json", "seed=9", "--out", "elsewhere", "evaluate.overlays=0")
    with tiny_runs.undrawn():
        printed = segreg(*words)
    assert printed.status == 0, printed.err
    reported = json.loads(printed.out)
    assert (reported["epochs"], reported["seed"]) == (1, 9)
    assert reported["run"].startswith("elsewhere/tiny/")


def test_folds_are_a_bench_of_one_model(tmp_path, segreg, monkeypatch):
    recipe = tiny_runs.write_recipe(tmp_path)
    asked = []
    monkeypatch.setattr("segreg.cli.bench.execute", lambda chosen: asked.append(chosen) or 0)
    assert segreg("run", recipe, "seed=9", "--folds", "5", "--out", "elsewhere", "--json").status == 0
    (chosen,) = asked
    assert (chosen.words, chosen.seeds) == ([str(recipe)], "[9]"), "the seed is that of a run without folds"
    assert segreg("run", small_runs.write_recipe(tmp_path, name="own", text="seed: 42\n"), "--folds", "5").status == 0
    assert asked[1].seeds == "[42]"
    assert (chosen.folds, chosen.rounds, str(chosen.out), chosen.json) == (5, 0, "elsewhere", True)
    printed = segreg("run", "--resume", "RUN", "--folds", "5")
    assert printed.err.startswith("error: --folds and --resume don't go together")


def test_every_mistake_of_a_recipe_is_reported_before_anything_is_imported_or_written(tmp_path, segreg, monkeypatch):
    recipe = tiny_runs.write_recipe(tmp_path)
    monkeypatch.setattr("segreg.runs.run.start_run", lambda *_, **__: pytest.fail("it began"))
    printed = segreg("run", recipe, "train.epoch=1", "encoder=resnet81", "loss.smoth=1")
    assert printed.status == 2
    assert len([line for line in printed.err.splitlines() if line.startswith("error: command line: ")]) == 3
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.yaml"}
