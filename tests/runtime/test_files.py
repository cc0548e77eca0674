"""The door to the disk: what it refuses is reported with the file, the cause and what is safe."""

import contextlib
import errno
import json
import os
import stat
import subprocess

import pytest

from segreg.errors import SegregError
from segreg.runtime import files
from segreg.runtime.files import expanded, read_json, replacing, write_json

LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from segreg.errors import SegregError
from segreg.runtime.files import write_json
from segreg.training.checkpoint import State, save_state, save_weights

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
folder = Path(sys.argv[1])
tensors = {"a": torch.zeros(100_000)}
state = State(**{**dict.fromkeys(State.__dataclass_fields__), "objective": tensors})
for write in (
    lambda: save_weights(tensors, folder / "weights", notes={}),
    lambda: save_state(state, folder / "state"),
    lambda: write_json(folder / "json", ["x" * 1000] * 1000),
):
    try:
        write()
    except SegregError as error:
        print(str(error).splitlines()[0])
"""


def failing(path, number, name=None):
    with replacing(path) as aside:
        aside.write_text("ne")
        raise OSError(number, os.strerror(number), str(name or aside))


@pytest.mark.parametrize(
    ("number", "cause", "hint"),
    [
        (errno.ENOSPC, "the disk is full", "free some space"),
        (errno.EDQUOT, "the disk quota is used up", "free some space"),
        (errno.EROFS, "the file system is read-only", "what was there before is unchanged"),
        (errno.EACCES, "permission denied", "unchanged"),
        (errno.EIO, "the disk reports an error", "unchanged"),
    ],
)
def test_what_the_disk_refuses_is_reported_and_the_old_file_stays(number, cause, hint, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(SegregError) as caught:
        failing(path, number)
    assert str(caught.value).startswith(f"{path}: can't be written: {cause}\n")
    assert hint in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_another_files_error_is_not_taken_for_this_ones(tmp_path):
    with pytest.raises(OSError, match=r"image\.png"):
        failing(tmp_path / "file", errno.EIO, tmp_path / "image.png")


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_every_library_that_writes_is_understood(python, tmp_path):
    """PyTorch says "unexpected pos", safetensors "os error 27"."""
    done = subprocess.run([*python, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        str(tmp_path / name) for name in ("weights", "state", "json")
    ]
    assert all("can't be written: the " in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_not_to_fit_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: Usage())
    message = r"the disk is full: 2\.0 MB are needed, 1\.0 MB are free"
    with pytest.raises(SegregError, match=message), replacing(tmp_path / "file", needed=2_000_000):
        pytest.fail("it was begun")
    assert list(tmp_path.iterdir()) == []


class Usage:
    free = 1_000_000


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_file_system_need_not_know_how_to_sync_a_folder(number, tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.nullcontext() if number == errno.EINVAL else pytest.raises(OSError, match="error"):
        write_json(tmp_path / "file", {"a": 1})
    assert read_json(tmp_path / "file") == {"a": 1}


def test_names_as_long_as_the_system_allows_can_be_written(tmp_path):
    name = "\u4f8b" * 85  # 255 bytes
    write_json(tmp_path / name, {"a": 1})
    assert read_json(tmp_path / name) == {"a": 1}


def test_two_that_write_one_file_don_t_disturb_each_other(tmp_path):
    with replacing(tmp_path / "file") as one, replacing(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"{", "damaged: "), (b"\xff", "damaged: "), (b"[" * 100_000, "damaged: "), (None, "can't be read: there is no")],
)
def test_a_file_that_is_no_json(content, cause, tmp_path):
    file = tmp_path / "results.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SegregError) as caught:
        read_json(file, "the results of a run")
    assert str(caught.value).startswith(f"{file}: {cause}")
    assert "it should be the results of a run" in str(caught.value)


def test_numbers_that_are_not_finite_are_null(tmp_path):
    write_json(tmp_path / "a", {"x": float("nan"), "y": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "a").read_text()) == {"x": None, "y": [None, 1.5]}


def test_the_home_of_a_user_that_does_not_exist_is_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert str(expanded("~/images")) == "/home/anna/images"
    assert str(expanded("~nosuchuser/images")) == "~nosuchuser/images"
