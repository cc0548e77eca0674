"""What the files of runs say: which runs there are, how far each came, and which of them are listed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from planted_runs import plant, recipe, score, touch
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.runs.listing import find_runs, read_run
from segreg.runs.run import resume_run
from segreg.runs.table import SHOWN, as_data, condition, kept, notes, ordered, table
from segreg.runtime.layout import Screen, plain

STAMP = "2026-01-31_12-00-00"


def row(folder, **planted):
    return read_run(plant(folder, **planted))


# finding


def test_runs_are_found_in_nested_folders_and_their_own_folders_are_not_looked_into(tmp_path):
    wanted = [
        plant(tmp_path / name) for name in ("bench/runs/resnet18/seed-0", "bench/runs/resnet18/seed-1", f"tiny/{STAMP}")
    ]
    plant(wanted[0] / "evaluations" / "copy")
    plant(tmp_path / ".hidden" / "run")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "tiny")
    (tmp_path / "notes").mkdir()
    assert find_runs([tmp_path]) == wanted
    assert find_runs([tmp_path / "tiny", tmp_path, tmp_path / "elsewhere"]) == wanted
    assert find_runs([wanted[1]]) == [wanted[1]]


def test_an_exported_network_is_neither_listed_nor_trained(tmp_path):
    exported, pushed = (plant(tmp_path / name, finished=False) for name in ("exported", "pushed"))
    for folder in (exported, pushed):
        (folder / "network.json").write_text("{}")
    (pushed / "best.safetensors").touch()
    before = sorted(exported.iterdir())
    assert find_runs([tmp_path]) == [pushed]
    with pytest.raises(SegregError, match=r"is an exported network\n  name the run that it was exported from"):
        resume_run(exported, load_registry())
    assert sorted(exported.iterdir()) == before


def test_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(SegregError) as reported:
        find_runs([tmp_path / "rums"])
    assert str(reported.value) == f'there is no folder {tmp_path / "rums"}\n  did you mean "runs"?'
    with pytest.raises(SegregError, match=r"name the folder that holds runs: segreg runs FOLDER"):
        find_runs([tmp_path / "x" / "y"])


# what is known of one


def test_a_finished_run(tmp_path):
    run = read_run(plant(tmp_path / "tiny" / STAMP))
    assert (run.recipe, run.begun, run.state, run.epochs) == ("tiny", "2026-01-31 12:00:00", "finished", 3)
    assert (run.seconds, run.split, run.metrics("val"), run.problems) == (6.5, "test", {"dice.pooled": 0.25}, ())
    assert run.size() == sum(file.stat().st_size for file in run.directory.path.iterdir())


def test_a_run_whose_folder_has_another_name(tmp_path):
    folder = plant(tmp_path / "resnet18" / "seed-0")
    touch(folder, "2026-02-03 04:05:06")
    run = read_run(folder)
    assert (run.recipe, run.begun, run.changed) == ("tiny", "2026-02-03 04:05:06", "2026-02-03 04:05:06")
    (folder / "environment.json").unlink()
    assert read_run(folder).recipe == "resnet18"


def test_a_run_without_results_is_unfinished(tmp_path):
    run = read_run(plant(tmp_path / "run", finished=False, epochs=2))
    assert (run.state, run.epochs, run.seconds, run.split) == ("unfinished", 2, 4.0, "")
    (tmp_path / "run" / "history.jsonl").unlink()
    assert (read_run(tmp_path / "run").state, read_run(tmp_path / "run").epochs) == ("unfinished", 0)


def test_an_interrupted_run_that_goes_on_is_unfinished(tmp_path):
    stopped = {"stopped_because": "interrupted", "scored_on": None, "metrics": {}}
    assert read_run(plant(tmp_path / "run", epochs=2, results=stopped)).state == "interrupted"
    assert read_run(plant(tmp_path / "on", epochs=2, results={**stopped, "epochs": 1})).state == "unfinished"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "results.json",
            '{"epochs": 3,\n"metr',
            "results.json: damaged: not valid JSON (line 2): Unterminated string",
        ),
        ("results.json", "[1]", "results.json: damaged: it does not hold an object"),
        ("environment.json", "", "environment.json: damaged: not valid JSON (line 1): Expecting value"),
        ("resolved.yaml", "encoder: {name: [\n", "resolved.yaml is not valid YAML (line 2)"),
        ("resolved.yaml", "seed: 3\n", "resolved.yaml holds no complete recipe"),
        ("history.jsonl", "{half\n{}\n", "history.jsonl does not hold a row for each epoch"),
        ("resolved.yaml", None, "resolved.yaml is missing"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, text, problem):
    folder = plant(tmp_path / "run")
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    assert find_runs([tmp_path]) == [folder]
    run = read_run(folder)
    assert run.state == "broken"
    (found,) = run.problems
    assert found.startswith(problem)
    assert plain([table([run], SHOWN, asked=True)])[1].startswith(f"{folder}  ")
    json.dumps(as_data(run))


# choosing


@pytest.fixture
def three(tmp_path):
    """Run a, b and c: c is unfinished."""
    deep = recipe(encoder={"name": "resnet50", "weights": "imagenet"}, train__batch_size=16)
    return [
        row(tmp_path / "a", settings=recipe(encoder={"name": "resnet18", "weights": None})),
        row(tmp_path / "b", settings=deep, results={"metrics": {"val": {}, "test": {"dice.pooled": 0.9}}}),
        row(tmp_path / "c", settings=recipe(train__batch_size=8), finished=False, epochs=1),
    ]


def names(rows):
    return "".join(each.directory.path.name for each in rows)


@pytest.mark.parametrize(
    ("expressions", "left"),
    [
        (["encoder=resnet50"], "b"),
        (["encoder=resnet*"], "ab"),
        (["encoder != resnet*"], "c"),
        (["encoder.weights=null"], "ac"),
        (["loss=dice_bce", "state=finished"], "ab"),
        (["state=unfinished"], "c"),
        (["dice.pooled>0.8"], "b"),
        (["dice.pooled<=0.5"], "a"),
        (["dice.pooled!=0.9"], "a"),
        (["test.dice.pooled>=0.5", "train.batch_size<16"], "a"),
        (["train.batch_size=16"], "b"),
        (["train.batch_size=1*"], "b"),
        (["input.size=[32,32]"], "abc"),
        (["loss.0.dice_weight=1", "loss.dice_bce.weight=1.0"], "abc"),
        (["epochs<3"], "c"),
        (["score>0.1", "duration>6"], "ab"),
        (["size>1e9"], ""),
        (["begun>=2000-01-01", "changed>2999-01-01"], ""),
        (["encoder=timm/*", "seed=3"], "c"),
        ([], "abc"),
    ],
)
def test_conditions(three, expressions, left):
    assert names(kept(three, [condition(text) for text in expressions])) == left


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "encoder",
            (
                '"encoder" is not a condition\n'
                "  write NAME=VALUE, such as encoder=resnet50, or one of != < <= > >= in quotes: 'dice.pooled>0.8'"
            ),
        ),
        ("epochs==3", 'in "epochs==3", "==" is not a comparison\n  there are = != < <= > >='),
        (
            "epochs>",
            (
                'in "epochs>", nothing stands behind >\n'
                "  write NAME=VALUE, such as encoder=resnet50, or one of != < <= > >= in quotes: 'dice.pooled>0.8'"
            ),
        ),
        ("epochs>many", 'in "epochs>many", "many" is not a number\n  strings are compared by = and !=: epochs=...'),
        ("encodr=resnet18", 'no run here has "encodr"\n  did you mean "encoder", "decoder" or "encoder.name"?'),
        (
            "encoder>5",
            (
                'in "encoder>5", encoder is not a number in any run\n'
                "  strings are compared by = and !=, with wildcards: 'encoder=resnet18'"
            ),
        ),
        (
            "zzzzz=1",
            (
                'no run here has "zzzzz"\n  columns are run, recipe, begun, changed, state, epochs, score, duration, '
                "size; a metric is such as dice.pooled, a setting train.batch_size"
            ),
        ),
    ],
)
def test_a_condition_that_is_none_is_reported(three, text, says):
    with pytest.raises(SegregError) as reported:
        kept(three, [condition(text)])
    assert str(reported.value) == says


@pytest.mark.parametrize(
    ("by", "order"),
    [("dice.pooled", "abc"), ("-dice.pooled", "bac"), ("train.batch_size", "acb"), ("-train.batch_size", "bca"),
     ("-run", "cba"), ("epochs", "cab"), ("encoder", "abc"), ("-encoder", "cba"), ("state", "abc")],
)  # fmt: skip
def test_sorting_puts_runs_without_a_value_last(three, by, order):
    assert names(ordered(three, by)) == order


def test_sorting_by_what_no_run_has(three):
    with pytest.raises(SegregError, match=r'no run here has "dice\.poolde"\n  did you mean "dice\.pooled"'):
        ordered(three, "-dice.poolde")


# listing


def test_lines(three):
    columns = ["encoder", "epochs", "score", "duration", "train.batch_size", "val.dice.pooled"]
    assert plain([table(three, columns, asked=True)]) == [
        "encoder           epochs  dice.pooled  duration  train.batch_size  val.dice.pooled",
        "resnet18               3       0.5000       6 s                 4           0.2500",
        "resnet50               3       0.9000       6 s                16                -",
        "timm/test_resnet     1/3            -       2 s                 8                -",
    ]


def test_scores_of_different_metrics_and_sides_say_which(tmp_path, three):
    val = row(tmp_path / "d", results={"scored_on": "val", "metrics": {"val": {"iou.pooled": 0.25}}})
    assert [line.strip() for line in plain([table([three[0], val], ["score"], asked=True)])] == [
        "score", "dice.pooled 0.5000", "iou.pooled 0.2500 (val)",
    ]  # fmt: skip


def printed(rows, columns, width, *, asked=False):
    return "\n".join(Screen(sys.stdout, width).lines([table(rows, columns, asked=asked), *notes(rows)]))


def test_a_wide_terminal_shows_all(three):
    lines = printed(three, SHOWN, 300).splitlines()
    assert lines[0].split() == [name if name != "score" else "dice.pooled" for name in SHOWN]
    assert lines[4:] == ["1 run has not come to an end; segreg run --resume RUN continues with one"]


def test_a_narrow_terminal_leaves_out_what_it_says(three, monkeypatch):
    monkeypatch.chdir(three[0].directory.path.parent)
    rows = [read_run(Path(name)) for name in "abc"]
    lines = printed(rows, SHOWN, 70).splitlines()
    assert lines[0].split() == ["run", "state", "encoder", "decoder", "epochs", "dice.pooled"]
    assert all(len(line) <= 70 for line in lines)
    assert lines[4] == "left out at this width: recipe, begun, dataset, seed, duration, size;"
    assert printed(rows, ["run", "state"], 4, asked=True).count("left out") == 0


def test_everything_as_data(tmp_path):
    folder = score(plant(tmp_path / "tiny" / STAMP, results={"notice": "SYNTHETIC"}), {"p0": 0.5, "p1": 0.7})
    reported = as_data(read_run(folder))
    assert reported["score"] == {"name": "dice.pooled", "split": "test", "value": 0.5}
    assert reported["metrics"]["val"] == {"dice.pooled": 0.25}
    assert (reported["run"], reported["recipe"], reported["begun"]) == (str(folder), "tiny", "2026-01-31 12:00:00")
    assert (reported["encoder"], reported["epochs"], reported["notices"]) == ("timm/test_resnet", 3, ["SYNTHETIC"])
    assert reported["settings"] == recipe()
    assert reported["problems"] == []
