"""`segreg runs`, with what it prints."""

from __future__ import annotations

import json
import re

import pytest

from planted_runs import plant, recipe
from segreg.runtime.lock import locked_folder
from test_architecture import HEAVY, modules_of


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Three runs in the folder runs of the current folder."""
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "runs" / "tiny" / "2026-01-31_12-00-00")
    deep = recipe(encoder={"name": "resnet50"})
    better = {"metrics": {"test": {"dice.pooled": 0.9}}}
    plant(tmp_path / "runs" / "deep" / "2026-01-30_12-00-00", settings=deep, results=better)
    plant(tmp_path / "runs" / "bench" / "runs" / "seed-0", finished=False, epochs=1)
    return tmp_path / "runs"


def columns(printed, *names):
    """Return the words of the lines of what was printed."""
    assert printed.status == 0, printed.err
    heading, *lines = [line.split() for line in printed.out.splitlines()]
    return [[line[heading.index(name)] for name in names] for line in lines]


def test_the_oldest_stands_first(segreg, planted):
    printed = segreg("runs", "--columns", "run", "state")
    assert columns(printed, "run", "state") == [
        ["runs/deep/2026-01-30_12-00-00", "finished"],
        ["runs/tiny/2026-01-31_12-00-00", "finished"],
        ["runs/bench/runs/seed-0", "unfinished"],
    ]
    assert printed.err == ""


def test_sorted_and_filtered(segreg, planted):
    printed = segreg("runs", planted, "--sort=-dice.pooled", "--where", "state=finished", "--columns", "score")
    assert printed.out.split() == ["dice.pooled", "0.9000", "0.5000"]
    printed = segreg("runs", "--where", "dice.pooled>0.1", "--where", "encoder=timm/*", "--columns", "encoder")
    assert printed.out == "encoder\ntimm/test_resnet\n"
    printed = segreg("runs", "--where", "dice.pooled>0.95", "seed=3")
    assert (printed.status, printed.out) == (0, "none of 3 runs meets dice.pooled>0.95 seed=3\n")


def test_a_broken_run_is_named_and_the_rest_listed(segreg, planted):
    broken = planted / "tiny" / "2026-01-31_12-00-00"
    (broken / "results.json").write_text('{"half')
    printed = segreg("runs", "--columns", "run", "state")
    assert [state for _, state in columns(printed, "run", "state")] == ["finished", "broken", "unfinished"]
    assert (
        printed.err == "warning: runs/tiny/2026-01-31_12-00-00: results.json: damaged: not valid JSON "
        "(line 1): Unterminated string starting at\n"
    )


def test_json_has_everything_and_nothing_else(segreg, planted):
    (planted / "deep" / "2026-01-30_12-00-00" / "history.jsonl").write_text("{}\nhalf\n\n")
    printed = segreg("runs", "--json")
    reported = json.loads(printed.out)
    assert printed.err == ""
    assert [run["state"] for run in reported] == ["broken", "finished", "unfinished"]
    assert reported[0]["problems"] == ["history.jsonl does not hold a row for each epoch"]
    assert reported[1]["settings"] == recipe()
    assert json.loads(segreg("runs", "--json", "--where", "encoder=none").out) == []


def test_a_terminal_gets_a_table(segreg, planted, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    lines = re.sub(r"\x1b\[\d+m", "", segreg("runs").out).splitlines()
    assert lines[0].split() == ["run", "state", "dice.pooled"]
    assert any(line.startswith("left out at this width: recipe, ") for line in lines)
    assert " ".join(lines).endswith("1 run has not come to an end; segreg run --resume RUN   continues with one")


def test_mistakes_are_reported(segreg, planted, monkeypatch):
    printed = segreg("runs", "nowhere")
    assert (printed.status, printed.err) == (
        2, "error: there is no folder nowhere\n  name the folder that holds runs: segreg runs FOLDER\n",
    )  # fmt: skip
    printed = segreg("runs", "--columns", "run", "stat")
    assert (printed.status, printed.err) == (2, 'error: no run here has "stat"\n  did you mean "state"?\n')
    assert segreg("runs", "--sort=-dice").err.startswith('error: no run here has "dice"\n  did you mean "')
    (planted / "empty").mkdir()
    printed = segreg("runs", planted / "empty", "--where", "nothing=here")
    assert (printed.status, printed.err) == (
        2, f"error: there are no runs in {planted / 'empty'}\n  segreg run makes them\n",
    )  # fmt: skip
    assert segreg("runs", planted / "empty", "--json").out == "[]\n"


def test_nothing_heavy_is_imported(planted):
    ((status, modules),) = modules_of([["runs", str(planted)]]).values()
    assert status == 0
    assert modules & (HEAVY | {"rich", "pydantic"}) == set()


def test_states_of_finished_runs_are_pruned_once_confirmed(segreg, planted, monkeypatch):
    names = ("tiny/2026-01-31_12-00-00", "deep/2026-01-30_12-00-00", "bench/runs/seed-0")
    tiny, deep, unfinished = (planted / name / "state.pt" for name in names)
    for file in (tiny, deep, unfinished):
        file.write_bytes(bytes(2048))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    printed = segreg("runs", "--prune")
    assert printed.out.endswith("nothing was deleted; --yes deletes them\n")
    assert tiny.exists()
    assert deep.exists()
    with locked_folder(deep.parent, "run"):
        printed = segreg("runs", "--prune", "--yes")
    assert (tiny.exists(), deep.exists(), unfinished.exists()) == (False, True, True), "one is running, one unfinished"
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, there in (("", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert segreg("runs", "--prune").status == 0
        assert deep.exists() == there
    assert segreg("runs", "--prune").out == "no finished run has a state.pt\n"
