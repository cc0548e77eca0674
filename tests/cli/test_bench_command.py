"""`segreg bench`: its words, what it checks before anything runs, and its exit status."""

from __future__ import annotations

import json
import os
import socket

import pytest

import tiny_runs
from segreg.runtime.lock import locked_folder

pytestmark = pytest.mark.usefixtures("tiny_place")


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


WORDS = ("bench", "tiny.yaml", "--vary", "encoder=timm/test_resnet,timm/test_vit", "--seeds", "2", "--jobs", "3")


def test_check_looks_at_everything_and_writes_nothing(segreg, fitting, tmp_path):
    for _ in range(2):
        printed = segreg(*WORDS, "--check")
        assert printed.status == 1
        assert printed.out == (
            "timm/test_vit: it needs 9 GiB of memory, and the machine has 1 GiB left\n"
            "1 of 2 models are fine, 4 runs in all\n"
        )
        assert not (tmp_path / "benches").exists()
    assert fitting == 2 * [("timm/test_resnet", 3), ("timm/test_vit", 3)]


def test_check_prints_json(segreg, fitting):
    printed = segreg(*WORDS, "--check", "--json")
    wrong = ["timm/test_vit: it needs 9 GiB of memory, and the machine has 1 GiB left"]
    assert (printed.status, printed.err) == (1, "")
    assert json.loads(printed.out) == {"models": 2, "runs": 4, "wrong": wrong, "notes": []}


def test_a_metric_that_the_runs_will_not_have_is_refused_before_they_begin(segreg, fitting, tmp_path):
    for words in ((), ("--check",)):
        printed = segreg(*WORDS, "--metric", "dise", *words)
        assert printed.status == 2
        assert 'not all of these runs have a metric "dise"' in printed.err
    assert not fitting
    assert not list(tmp_path.glob("benches/*/*/*"))


@pytest.mark.parametrize(
    ("name", "label", "what"), [("image", "crack", "other classes"), ("photo", "lesion", "no image in common")]
)
def test_data_sets_too_different_to_compare_are_refused_before_anything_runs(
    segreg, fitting, tmp_path, name, label, what
):
    choices = []
    for folder, of in (("one", "lesion"), ("other", label)):
        images, masks = tiny_runs.folder_dataset(tmp_path / folder, count=4)
        choices.append(f"{{name: folder, images: {images}, masks: {masks}, classes: [{of}]}}")
    for file in tmp_path.glob("other/*/*.png"):
        file.rename(file.with_name(file.name.replace("image", name)))
    printed = segreg("bench", "tiny.yaml", "--vary", f"dataset={','.join(choices)}")
    assert printed.status == 2
    assert f"can't be compared: their data sets have {what}" in printed.err
    assert not fitting


def test_what_failed_before_is_skipped_aloud_until_asked_for(segreg, fitting, monkeypatch, tmp_path):
    """The cause, here memory, may be gone."""
    started = []
    monkeypatch.setattr(
        "segreg.benchmark.bench.bench.run_locally",
        lambda trials, folder, **_: started.append([one.title for one in trials if folder.state(one) == "waiting"]),
    )
    words = ("bench", "tiny.yaml", "--vary", "encoder=timm/test_vit", "--seeds", "2")
    reason = "not started: it needs 9 GiB of memory, and the machine has 1 GiB left"
    again = "--again runs what failed anew, if the cause is gone"
    first = segreg(*words)
    assert "skipped" not in first.err
    assert again in first.err, "no run finished, and how to begin anew"
    fitting.clear()
    for skipping in (segreg(*words), segreg(*words, "--check")):
        said = skipping.err + skipping.out
        for seed in (0, 1):
            assert f"skipped: timm/test_vit, seed {seed} failed: {reason}\n" in said
        assert again in said
    assert fitting == [("timm/test_vit", 1)], "only the check tried"
    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", lambda spec, *, jobs: "")
    assert "skipped" not in segreg(*words, "--again").err
    assert started == [[], [], ["timm/test_vit, seed 0", "timm/test_vit, seed 1"]]


def test_a_second_bench_on_a_folder_is_told_who_works_there(segreg, fitting, tmp_path):
    folder = tmp_path / "benches" / "tiny"
    folder.mkdir(parents=True)
    with locked_folder(folder, "bench"):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        printed = segreg(*WORDS, "--again")
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert printed.status == 2
    assert f"another process works on this bench: process {os.getpid()} on {socket.gethostname()} since" in printed.err
    assert not fitting


@pytest.mark.slow
def test_a_bench_from_its_command_to_its_files(warm_workers, segreg, fitting, tmp_path):
    printed = segreg(
        "bench", "tiny.yaml", "--vary", "loss=bce,dice", "--epochs", "1", "--no-cost", "--baseline", "loss=dice",
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


OF_EPOCHS = "command line: a budget of epochs must be a whole number above 0 and at most 1,000,000"


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("tiny.yaml", "other.yaml"), "bench takes one recipe or bench file; these are 2\n"),
        (("tiny.yaml", "--jobs", "0"), "--jobs must be at least 1, not 0\n"),
        (("tiny.yaml", "--jobs", "100000"), "--jobs must be at most 1024, not 100000\n"),
        (("tiny.yaml", "--rounds", "9" * 400), "--rounds must be at most 1000, not 999"),
        (("tiny.yaml", "--seeds", "9" * 400), "command line: seeds must be a number of seeds, at most 10,000, or a "),
        (("tiny.yaml", "--seeds", "5001", "--vary", "loss=bce,dice"), "command line: these are 10,002 runs; "),
        (("tiny.yaml", "--epochs", "0"), f"{OF_EPOCHS}, not 0\n"),
        (("tiny.yaml", "--epochs", "9" * 400), f"{OF_EPOCHS}, not 999"),
        (("tiny.yaml", "--steps", "9" * 400), "command line: a budget of steps must be a whole number above 0 and at "),
        (("tiny.yaml", "--minutes", "inf"), "command line: a budget of minutes must be above 0 and at most 10,000,000"),
        (("tiny.yaml", "--minutes", "nan"), "command line: a budget of minutes must be above 0 and at most 10,000,000"),
        (("tiny.yaml", "--resources", "memory_gib=1e300"), "--resources: memory_gib must be a number, 1,000,000 at "),
        (
            ("tiny.yaml", "--vary", "loss=bce", "--vary", "loss=dice"),
            '--vary names "loss" twice\n  give all of its values at once\n',
        ),
        (
            ("tiny.yaml", "--resources", "cpu=2"), '--resources has no "cpu"\n  did you mean "cpus"?\n'),
        (("tiny.yaml", "--resources", "cpus=2"), "--resources goes with --executor ray\n"),
        (("tiny.yaml", "--executor", "ray", "--jobs", "2"), "--jobs goes with --executor local\n"),
        (("tiny.yaml", "--exclude", "loss="), '"loss=" is not a combination\n'),
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
