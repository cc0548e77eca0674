"""`segreg profile`: steps that are taken for real, and what is told of them."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from segreg.cli import main
from segreg.runs.profile import Operator, Profile, StageTime
from segreg.runtime.layout import plain
from segreg.training import timing
from tiny_runs import write_recipe

STAGES = ["data", "copy", "forward", "backward", "optimizer", "validation", "checkpoint", "other"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return str(write_recipe(tmp_path))


def test_a_profile_divides_an_epoch_and_leaves_a_trace_alone(recipe, tmp_path, capsys):
    before = set(tmp_path.iterdir())
    assert main(["profile", recipe, "train.accumulate=2", "--steps", "3", "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert (reported["device"], reported["precision"], reported["steps"], reported["images_per_step"]) == (
        "cpu",
        "float32",
        3,
        8,
    )
    assert [row["stage"] for row in reported["stages"]] == STAGES
    times = {row["stage"]: row["times"] for row in reported["stages"]}
    # 14 images train in 4 batches of 4, two of them in a step; 5 validate in 2.
    assert times == {**dict.fromkeys(STAGES, 2), "checkpoint": 1}
    for row in reported["stages"]:
        assert row["each"] >= 0
        assert row["seconds"] == pytest.approx(row["each"] * row["times"])
    taken = {row["stage"]: row["each"] for row in reported["stages"]}
    assert all(taken[stage] > 0 for stage in STAGES if stage != "other")
    assert reported["epoch_seconds"] == pytest.approx(math.fsum(row["seconds"] for row in reported["stages"]))
    assert reported["waiting"] == pytest.approx(taken["data"] * 2 / reported["epoch_seconds"])
    names = [operator["name"] for operator in reported["operators"]]
    assert any("conv" in name for name in names)
    seconds = [operator["seconds"] for operator in reported["operators"]]
    assert seconds == sorted(seconds, reverse=True)
    assert reported["trace"] == "traces/tiny.json"
    trace = json.loads(Path("traces/tiny.json").read_text(encoding="utf-8"))
    assert any(event.get("name") == "aten::conv2d" for event in trace["traceEvents"])
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {"traces", "cache", "images"}


def test_it_prints_tables_and_pytorchs_profiler_nothing(recipe, python, monkeypatch):
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)  # as a profile in this process has left it
    words = ["profile", recipe, "--steps", "1", "--trace", "here.json"]
    done = subprocess.run([*python, "-m", "segreg", *words], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "cpu, float32; 4 images in a step, 1 steps measured"
    assert lines[2].split() == ["stage", "ms", "each", "an", "epoch", "seconds", "share"]
    assert [line.split("  ")[0] for line in lines[3:11]] == [timing.STAGE_LABELS[stage] for stage in STAGES]
    assert "trace: here.json (ui.perfetto.dev and chrome://tracing show it)" in lines


PROFILE = Profile(
    device="cuda:0", precision="bf16", images=8, steps=20,
    rows=(StageTime("data", 0.010, 100), StageTime("forward", 0.030, 100), StageTime("checkpoint", 1.0, 1)),
    operators=(Operator("aten::cudnn_convolution", 53.0, 0.0125),), advice="", trace=Path("t.json"),
)  # fmt: skip


def test_the_words_of_a_profile():
    assert plain(replace(PROFILE, advice="wait less").lines()) == [
        "cuda:0, bf16; 8 images in a step, 20 steps measured",
        "",
        "stage               ms each  an epoch  seconds   share",
        "waiting for data       10.0       100     1.00   20.0%",
        "forward and losses     30.0       100     3.00   60.0%",
        "checkpoints          1000.0         1     1.00   20.0%",
        "an epoch                                  5.00  100.0%",
        "",
        "longest operators of a step  calls    ms",
        "aten::cudnn_convolution         53  12.5",
        "",
        "trace: t.json (ui.perfetto.dev and chrome://tracing show it)",
        "advice: wait less",
    ]
    assert PROFILE.waiting == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["profile"], "profile takes one recipe; name one, for example: segreg profile recipes/isic_v3plus.yaml"),
        (["profile", "a.yaml", "b.yaml"], "profile takes one recipe; these are 2"),
        (["profile", "tiny.yaml", "--steps", "0"], "--steps must be above 0, not 0"),
        (["profile", "tiny.yaml", "--trace", "."], "--trace .: is a folder; name a file"),
        (
            ["profile", "tiny.yaml", "--trace", "tiny.yaml/t.json"],
            "tiny.yaml/t.json: the trace can't be written: File exists",
        ),
    ],
)
def test_mistakes_are_reported(recipe, words, reported, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {reported}\n"
