"""Where a run's files are, and that no reader sees half of one."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from segreg.errors import SegregError
from segreg.runs.directory import RunDirectory, new_run_directory, open_run_directory, replacing_folder
from segreg.runtime.files import write_json


def test_directories_of_one_second_are_numbered(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "2026-01-31_12-00-00")
    parent = tmp_path / "runs" / "tiny"
    made = [new_run_directory(parent, None, lambda run: {"resolved.yaml": str(run.path)}).path for _ in range(3)]
    assert [(run / "resolved.yaml").read_text() for run in made] == [str(run) for run in made]
    made = [run.name for run in made]
    assert made == ["2026-01-31_12-00-00", "2026-01-31_12-00-00-2", "2026-01-31_12-00-00-3"]
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 3


def test_a_folder_that_can_not_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegregError, match=r"tiny: can't be written: a part of the path is a file, not a folder"):
        new_run_directory(tmp_path / "file" / "tiny", None, lambda _: {})


def test_a_folder_that_weights_could_not_be_read_from_is_refused(tmp_path):
    with pytest.raises(SegregError, match="weights can't be read from a folder whose name is not UTF-8"):
        new_run_directory(tmp_path / "caf\udce9", None, lambda _: {})
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_there_is_reported_with_near_names(tmp_path):
    (tmp_path / "2026-01-31_12-00-00").mkdir()
    with pytest.raises(SegregError) as reported:
        open_run_directory(tmp_path / "2026-01-31_12-00-01")
    assert str(reported.value).startswith(f"there is no run {tmp_path / '2026-01-31_12-00-01'}")
    assert 'did you mean "2026-01-31_12-00-00"?' in str(reported.value)
    with pytest.raises(SegregError, match="there is no run"):
        open_run_directory(tmp_path / "no" / "where")


def test_a_folder_that_is_no_run_is_reported_with_the_runs_in_it(tmp_path):
    with pytest.raises(SegregError, match=r"a run's folder holds a resolved\.yaml"):
        open_run_directory(tmp_path)
    run = tmp_path / "tiny" / "2026-01-31_12-00-00"
    run.mkdir(parents=True)
    (run / "resolved.yaml").write_text("")
    with pytest.raises(SegregError, match=f"runs inside it: {run}"):
        open_run_directory(tmp_path)
    assert open_run_directory(str(run)).path == run


def test_files_of_a_run_have_names_of_their_own(tmp_path):
    files = [file for name, file in vars(RunDirectory(tmp_path)).items() if name != "path"]
    assert len(files) == len(set(files)) > 9
    assert all(file.parent == tmp_path for file in files)


def test_json_has_no_numbers_that_json_does_not_have(tmp_path):
    file = tmp_path / "told.json"
    write_json(file, {"a": math.nan, "b": [1.5, -math.inf, {"c": (math.inf, "NaN", True, None, 3)}], "ä": "ö"})
    text = file.read_text(encoding="utf-8")
    reported = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert reported == {"a": None, "b": [1.5, None, {"c": [None, "NaN", True, None, 3]}], "ä": "ö"}
    assert "ä" in text


def test_what_was_there_stays_where_writing_fails(tmp_path):
    file = tmp_path / "told.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": 1, "b": object()})
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_what_another_machine_is_beginning_in_the_same_folder_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node8")
    monkeypatch.setattr("segreg.runtime.files.is_alive", lambda pid: pid != 7)  # this machine's
    theirs, longer, killed = (tmp_path / f".{node}.7-ab.beginning" for node in ("node7", "node8.lab", "node8"))
    for folder in (theirs, longer, killed):
        folder.mkdir()
    new_run_directory(tmp_path, None, lambda _: {})
    assert theirs.exists()
    assert longer.exists()
    assert not killed.exists()


def test_a_folder_takes_the_place_of_another_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node8")
    monkeypatch.setattr("segreg.runtime.files.is_alive", lambda pid: pid != 7)
    (tmp_path / ".node8.7-ab.beginning").mkdir()  # of a process that was killed
    (out := tmp_path / "onnx").mkdir()
    (out / "of before").touch()
    with pytest.raises(ZeroDivisionError), replacing_folder(out) as folder:
        (folder / "half").write_text(str(1 / 0))
    assert sorted(tmp_path.rglob("*")) == [out, out / "of before"]
    with replacing_folder(out) as slow:
        (slow / "slow").touch()
        with replacing_folder(out) as quick:
            (quick / "quick").touch()
        assert [file.name for file in out.iterdir()] == ["quick"]
    assert sorted(tmp_path.rglob("*")) == [out, out / "slow"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_a_folder_that_another_one_replaces_is_there_until_the_other_is(tmp_path, monkeypatch):
    out, rename = tmp_path / "onnx", Path.rename

    def renamed(path, target):
        rename(path, target)
        assert out.exists(), "a process that is killed now has lost both"

    monkeypatch.setattr(Path, "rename", renamed)
    for name in ("before", "after"):
        with replacing_folder(out) as folder:
            (folder / name).touch()
    assert sorted(tmp_path.rglob("*")) == [out, out / "after"]


def test_a_name_that_another_process_takes_at_the_last_moment_is_replaced(tmp_path, monkeypatch):
    out, rename, others = tmp_path / "onnx", Path.rename, iter(["theirs"])

    def renamed(path, target):
        if target == out and (other := next(others, "")):
            (out / other).mkdir(parents=True)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)
    with replacing_folder(out) as folder:
        (folder / "mine").touch()
    assert sorted(tmp_path.rglob("*")) == [out, out / "mine"]
