"""`segreg compare`."""

from __future__ import annotations

import json

import pytest

import planted_runs
import plugged
import tiny_runs
from planted_runs import planted


@pytest.fixture(autouse=True)
def _parts(installed, tmp_path, monkeypatch):
    installed(*plugged.builtin())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the drawings of the page, which tests/reports looks at."""
    monkeypatch.setattr("segreg.reports.comparison.page", lambda *_: "<!DOCTYPE html>")


def test_runs_are_compared_and_what_cannot_be_shown_is_said(segreg, tmp_path):
    one, other = planted(tmp_path / "one", "resnet18"), planted(tmp_path / "other", "resnet34", better=0.05)
    printed = segreg("compare", one, other, "--no-cost")
    assert printed.status == 0
    lines = printed.out.splitlines()
    assert lines[0].startswith("note: The images on which models disagree are not shown: ")
    assert lines[-3:] == [f"wrote comparison/{name}" for name in ("results.json", "results.csv", "report.html")]
    assert (tmp_path / "comparison" / "report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.usefixtures("undrawn")
def test_json_is_results_json(segreg, tmp_path):
    one, other = planted(tmp_path / "one", "resnet18"), planted(tmp_path / "other", "resnet34")
    printed = segreg("compare", one, other, "--no-cost", "--json", "--out", "here", "--figures", "drawn")
    assert json.loads(printed.out) == json.loads((tmp_path / "here" / "results.json").read_text())
    assert printed.err == ""
    assert {file.stem for file in (tmp_path / "drawn").iterdir()} >= {"scores", "differences_per_image"}


@pytest.mark.usefixtures("undrawn")
def test_a_table_for_a_paper_is_printed_alone(segreg, tmp_path):
    one, other = planted(tmp_path / "one", "resnet18"), planted(tmp_path / "other", "resnet34", better=0.05)
    printed = segreg("compare", one, other, "--no-cost", "--format", "latex")
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.startswith("% needs \\usepackage{booktabs}\n% note: The images on which models disagree")
    assert printed.out.endswith("\\end{table}\n")
    assert "& resnet34 &" in printed.out
    printed = segreg("compare", one, other, "--no-cost", "--format", "csv")
    assert [line.split(",")[0] for line in printed.out.splitlines()] == ["model", "resnet34", "resnet18"]
    assert printed.err.startswith("note: The images on which models disagree are not shown: ")


def test_mistakes_are_reported(segreg, tmp_path):
    printed = segreg("compare", tmp_path / "none")
    assert (printed.status, printed.err) == (2, f"error: there is no run {tmp_path}/none\n")
    run = planted_runs.plant(tmp_path / "run")
    printed = segreg("compare", run, "--figures", run / "recipe.yaml")
    assert (printed.status, printed.err) == (2, f"error: {run}/recipe.yaml is a file\n  --figures names a folder\n")
    printed = segreg("compare", run, "--rounds", "-1")
    assert (printed.status, printed.err) == (2, "error: --rounds must be at least 0, not -1\n")


def test_real_runs_with_costs_and_the_images_they_disagree_on(warm_workers, segreg, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    short = ("train.epochs=1", "decoder={name: mlp, channels: 8}", "evaluate.overlays=0")
    one = tiny_runs.run(tmp_path, *short)
    other = tiny_runs.run(tmp_path, *short, "optimizer.lr=0.001")
    printed = segreg("compare", one.directory.path, other.directory.path, "--rounds", "1", "--quiet")
    assert printed.status == 0, printed.err
    reported = json.loads((tmp_path / "comparison" / "results.json").read_text())
    costs = {model["settings"]["optimizer.lr"]: model["costs"] for model in reported["models"]}
    assert costs.keys() == {"0.01", "0.001"}
    costs = costs["0.01"]
    assert {"parameters", "flops", "training_images_per_second", "latency_p50_ms", "seconds_to_best_epoch"} <= set(
        costs
    )
    assert set(costs) <= set(reported["definitions"])
    own = json.loads(one.directory.environment.read_text())["model"]["parameters"]["total"]
    assert costs["parameters"]["median"] == own
    page = (tmp_path / "comparison" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
