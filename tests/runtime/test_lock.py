"""A folder that one process works in at a time: the second is told who it is, and death frees it."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from segreg.errors import SegregError
from segreg.runtime.files import UNFINISHED, own_name, replacing
from segreg.runtime.lock import is_locked, locked_folder

HOLD = """
import sys
from pathlib import Path
from segreg.runtime.files import UNFINISHED, own_name, replacing
from segreg.runtime.lock import locked_folder
with locked_folder(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_works_there(holder, tmp_path):
    assert is_locked(tmp_path)
    message = f"another process works on this run: process {holder.pid} on .* since 20"
    with pytest.raises(SegregError, match=message), locked_folder(tmp_path, "run"):
        pytest.fail("both hold it")


def test_a_process_that_is_killed_holds_it_no_longer(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert json.loads((tmp_path / ".lock.json").read_text())["pid"] == holder.pid
    assert not is_locked(tmp_path)
    with locked_folder(tmp_path, "run"):
        assert json.loads((tmp_path / ".lock.json").read_text())["pid"] == os.getpid()


def test_it_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with locked_folder(tmp_path, "bench"):
            assert is_locked(tmp_path)
        assert not is_locked(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_a_folder_of_somebody_elses(holder, tmp_path, monkeypatch):
    def refuse(*given, **named):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".lock"))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert is_locked(tmp_path)
    with pytest.raises(SegregError, match="can't be written: permission denied"), locked_folder(tmp_path, "run"):
        pytest.fail("it is not held")
    holder.kill()
    holder.wait()
    assert not is_locked(tmp_path)
    (tmp_path / ".lock.json").unlink()
    assert not is_locked(tmp_path)


def test_what_the_dead_left_unfinished_is_removed(holder, tmp_path):
    with replacing(tmp_path / "state.pt") as aside:
        mine = aside.parent
        dead = mine.with_name(mine.name.replace(f".{os.getpid()}-", f".{holder.pid}-"))
        dead.mkdir()
        (dead / ".tmp0a1b2c").touch()  # what safetensors makes beside the file it writes
        holder.kill()
        holder.wait()
        with locked_folder(tmp_path, "run"):
            assert (mine.exists(), dead.exists()) == (True, False)
        aside.write_text("whole")
    assert (tmp_path / "state.pt").read_text() == "whole"


def test_what_another_machine_writes_is_left_for_a_day(tmp_path, monkeypatch):
    """On a shared file system, its processes have numbers that mean others here, or nobody."""
    monkeypatch.setattr("segreg.runtime.files.is_alive", lambda pid: False)
    for hours in (23, 25):
        with monkeypatch.context() as there:
            there.setattr("socket.gethostname", lambda: "node7")
            folder = tmp_path / own_name(UNFINISHED)
        folder.mkdir()
        (folder / "state.pt").touch()
        for path in (folder / "state.pt", folder):
            os.utime(path, (time.time() - hours * 3600,) * 2)
        with locked_folder(tmp_path, "run"):
            assert folder.exists() == (hours < 24)
