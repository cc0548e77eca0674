"""Standard output that outlives its reader, and text that is safe to print."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segreg.runtime.output import printable

LISTING = [sys.executable, "-m", "segreg", "list", "loss"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9 \u4f8b\n\ttext", "plain \u00e9 \u4f8b\n\ttext"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb\x00", "a\\rb\\x00"),
        ("caf\udce9.png", "caf\\udce9.png"),
        ("a\u202eb", "a\\u202eb"),
    ],
)
def test_control_characters_and_undecodable_bytes_are_shown(text, shown):
    assert printable(text) == shown


@pytest.mark.skipif(os.name != "posix", reason="pipes of a shell")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_goes_on_when_its_reader_leaves(unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        LISTING, stdout=writing, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": unbuffered}
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_is_lost_is_a_failure():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(LISTING, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: standard output can't be written: the disk is full\n"


@pytest.mark.skipif(os.name != "posix", reason="a shell")
def test_closed_output_is_no_mistake():
    done = subprocess.run(f"{sys.executable} -m segreg list loss >&-", shell=True, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
