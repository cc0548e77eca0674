from __future__ import annotations

import csv
import json
import math

import pytest

from segreg.errors import SegregError
from segreg.training import history


def table(run_dir):
    with (run_dir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_go_to_both_files(tmp_path):
    rows = [{"epoch": 1, "val.loss": 0.1 + 0.2}, {"epoch": 2, "val.loss": 1e-9}]
    for row in rows:
        history.append(tmp_path, row)
    assert history.read(tmp_path) == rows
    assert [{k: float(v) for k, v in row.items()} for row in table(tmp_path)] == rows


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    history.append(tmp_path, {"epoch": 1, "a": math.nan, "b": math.inf, "c": 1.0})
    line = (tmp_path / "history.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"epoch": 1, "a": None, "b": None, "c": 1.0}
    assert math.isnan(history.read(tmp_path)[0]["a"])
    assert table(tmp_path) == [{"epoch": "1", "a": "", "b": "", "c": "1.0"}]


def test_a_new_column_keeps_the_table_whole(tmp_path):
    history.append(tmp_path, {"epoch": 1, "a": 1.0})
    history.append(tmp_path, {"epoch": 2, "a": 2.0, "b": 3.0})
    history.append(tmp_path, {"epoch": 3, "b": 4.0})
    assert table(tmp_path) == [
        {"epoch": "1", "a": "1.0", "b": ""},
        {"epoch": "2", "a": "2.0", "b": "3.0"},
        {"epoch": "3", "a": "", "b": "4.0"},
    ]


def test_later_rows_are_removed(tmp_path):
    for epoch in (1, 2, 3, 4):
        history.append(tmp_path, {"epoch": epoch, "a": float(epoch)})
    history.cut_after(tmp_path, 2)
    assert [row["epoch"] for row in history.read(tmp_path)] == [1, 2]
    assert [row["epoch"] for row in table(tmp_path)] == ["1", "2"]
    history.append(tmp_path, {"epoch": 3, "a": 3.5})
    assert [row["a"] for row in table(tmp_path)] == ["1.0", "2.0", "3.5"]


def test_a_line_that_a_crash_cut_short_is_skipped(tmp_path):
    history.append(tmp_path, {"epoch": 1, "a": 1.0})
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "a"')
    assert [row["epoch"] for row in history.read(tmp_path)] == [1]
    history.cut_after(tmp_path, 1)
    history.append(tmp_path, {"epoch": 2, "a": 2.0})
    assert [row["epoch"] for row in history.read(tmp_path)] == [1, 2]


def test_a_damaged_line_is_refused(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"epoch": 1}\nnonsense\n{"epoch": 3}\n')
    with pytest.raises(SegregError, match=r"history\.jsonl:2: not a row of a history"):
        history.read(tmp_path)


def test_no_history_is_no_rows(tmp_path):
    history.cut_after(tmp_path, 3)
    assert history.read(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_history_that_is_not_text_is_reported(tmp_path):
    (tmp_path / "history.jsonl").write_bytes(b"\xff\x00")
    with pytest.raises(SegregError, match=r"history\.jsonl: damaged: .*\n  it should be a row of JSON for each epoch"):
        history.read(tmp_path)
