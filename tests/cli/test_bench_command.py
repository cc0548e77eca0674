"""`segreg bench`: its words, what it checks before anything runs, and its exit status."""

from __future__ import annotations

import json

import pytest

import plugged
import tiny_runs


@pytest.fixture(autouse=True)
def _place(installed, tmp_path, monkeypatch):
    installed(*plugged.builtin())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    tiny_runs.write_recipe(tmp_path)


@pytest.fixture
def fitting(monkeypatch):
    """Take the place of the processes that try a network; those of a ViT do not fit."""
    asked = []

    def check_memory(spec, *, jobs):
        name = spec.recipe["encoder"]["name"]
        asked.append((name, jobs))
        return "it needs 9 GiB of memory, and the machine has 1 GiB left" if "vit" in name else ""

    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", check_memory)
    return asked


def test_check_looks_at_everything_and_trains_nothing(segreg, fitting, tmp_path):
    words = ("bench", "tiny.yaml", "--vary", "encoder=timm/test_resnet,timm/test_vit", "--seeds", "2", "--jobs", "3")
    printed = segreg(*words, "--check")
    assert printed.status == 1
    assert printed.out == (
        "timm/test_vit: not started: it needs 9 GiB of memory, and the machine has 1 GiB left\n"
        "1 of 2 models are fine, 4 runs in all\n"
    )
    assert fitting == [("timm/test_resnet", 3), ("timm/test_vit", 3)]
    assert not list((tmp_path / "benches" / "tiny" / "runs").iterdir())
    segreg(*words, "--check")
    assert fitting[2:] == [("timm/test_vit", 3)], "what was found fine is not tried again, what was not is"


@pytest.mark.slow
def test_a_bench_from_its_command_to_its_files(warm_workers, segreg, fitting, tmp_path):
    printed = segreg(
        "bench", "tiny.yaml", "--vary", "loss=bce,dice", "--epochs", "1", "--rounds", "0", "--baseline", "loss=dice",
        "--metric", "iou.pooled", "--out", "out", "train.batch_size=8", "--json",
    )  # fmt: skip
    assert printed.status == 0, printed.err
    reported = json.loads(printed.out)
    assert reported == json.loads((tmp_path / "out" / "results.json").read_text())
    assert (reported["baseline"], reported["metric"], reported["title"]) == ("dice", "iou.pooled", "tiny: loss")
    assert {model["name"] for model in reported["models"]} == {"bce", "dice"}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"results.csv", "report.html", "runs", "trials"}
    printed = segreg("runs", "out", "--json")
    assert len(json.loads(printed.out)) == 2
    assert printed.status == 0


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("tiny.yaml", "other.yaml"), "bench takes one recipe or bench file; these are 2\n"),
        (("tiny.yaml", "--jobs", "0"), "--jobs must be at least 1, not 0\n"),
        (("tiny.yaml", "--epochs", "0"), "command line: a budget of epochs must be a whole number above 0, not 0\n"),
        (
            ("tiny.yaml", "--vary", "loss=bce", "--vary", "loss=dice"),
            '--vary names "loss" twice\n  give all of its values at once\n',
        ),
        (
            ("tiny.yaml", "--resources", "cpu=2"), '--resources has no "cpu"\n  did you mean "cpus"?\n'),
        (("tiny.yaml", "--out", "tiny.yaml"), "tiny.yaml is a file\n  --out names a folder\n"),
        (("tniy.yaml",), 'there is no recipe tniy.yaml\n  did you mean "tiny.yaml"?\n'),
        (
            ("tiny.yaml", "--vary", "loss=bce,dise"),
            'command line: with dise: there is no loss "dise"\n  did you mean "dice"',
        ),
    ],
)  # fmt: skip
def test_mistakes_are_reported_before_anything_runs(words, reported, segreg, fitting):
    printed = segreg("bench", *words)
    assert printed.status == 2
    assert printed.err.startswith(f"error: {reported}")
    assert not fitting
