"""What a run's JSON files hold is checked where it is read, and everybody who reads one names the file and the key."""

import json

import pytest

from segreg.errors import SegregError
from segreg.runs.records import read_environment, read_results, read_split
from segreg.training import history

RESULTS = {
    "classes": ["cell"], "seed": 0, "epochs": 2, "stopped_because": "finished", "best_epoch": 2, "best_value": None,
    "scored_on": "test", "metrics": {"test": {"dice.pooled": 0.5, "iou.pooled": None}}, "definitions": {},
    "training_seconds": 3, "intervals": {"test": {"dice.pooled": [0.4, 0.6]}},
}  # fmt: skip

NESTED = "a mapping of names to values, each a mapping of names to values, each"


def written(folder, name, content):
    file = folder / name
    file.write_text(json.dumps(content))
    return file


def test_what_a_run_writes_is_read(tmp_path):
    assert read_results(written(tmp_path, "results.json", RESULTS)) == RESULTS


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("classes", None, "a list of strings"),
        ("classes", ["cell", 3], "a list of strings"),
        ("seed", "x", "an integer"),
        ("seed", True, "an integer"),
        ("epochs", None, "an integer"),
        ("best_epoch", [[1]], "an integer"),
        ("best_value", float("nan"), "a number or null"),
        ("training_seconds", float("inf"), "a number"),
        ("training_seconds", "x", "a number"),
        ("metrics", [], f"{NESTED} a number or null"),
        (
            "metrics",
            {"test": {"dice": "0.5"}},
            f"{NESTED} a number or null",
        ),
        (
            "intervals",
            {"test": {"dice": 0.5}},
            f"{NESTED} a list of values, each a number or null",
        ),
        ("definitions", 1e308, "a mapping of names to strings"),
        ("alerts", -1, "a list of strings"),
        ("images", "x", "a mapping of names to integers"),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path, key, value, expected):
    file = written(tmp_path, "results.json", {**RESULTS, key: value})
    with pytest.raises(SegregError) as raised:
        read_results(file)
    assert raised.value.problems[0].message == f'{file}: "{key}" must be {expected}'


@pytest.mark.parametrize("key", ["metrics", "classes", "scored_on", "definitions"])
def test_a_missing_value_is_named(tmp_path, key):
    file = written(tmp_path, "results.json", {name: value for name, value in RESULTS.items() if name != key})
    with pytest.raises(SegregError, match=f'"{key}" is missing'):
        read_results(file)


def test_scores_that_are_not_there_are_named(tmp_path):
    file = written(tmp_path, "results.json", {**RESULTS, "scored_on": "val"})
    with pytest.raises(SegregError, match='no scores of "val"'):
        read_results(file)


def test_environment_and_split(tmp_path):
    with pytest.raises(SegregError, match='"packages" must be a mapping of names to'):
        read_environment(written(tmp_path, "environment.json", {"packages": []}))
    with pytest.raises(SegregError, match='"val" must be a list of strings'):
        read_split(written(tmp_path, "split.json", {"train": ["a"], "val": "a"}))


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": 1, "seconds": []}',
        '{"epoch": 1, "val.loss": "x"}',
        '{"val.loss": 1}',
        '{"epoch": null}',
        "7",
        "null",
        "[" * 9000,
    ],
)
def test_a_row_of_a_history_holds_numbers(tmp_path, line):
    (tmp_path / history.JSON_LINES).write_text('{"epoch": 0}\n' + line + "\n")
    with pytest.raises(SegregError, match=r"history.jsonl:2: not a row of a history"):
        history.read(tmp_path)
