"""Standard output that outlives its reader, and text that is safe to print."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from segreg.runtime.output import (
    as_file_name,
    as_folder_names,
    csv_cell,
    csv_text,
    from_csv_cell,
    printable,
    read_csv,
)  # fmt: skip

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


TEXTS = {
    "plain é 例": "plain é 例",
    'a,b"c\ttab': 'a,b"c\ttab',
    "=1+2": "'=1+2",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-x": "'-x",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    " =1": "' =1",
    "-5": "-5",
    "+1e3": "+1e3",
    "-inf": "-inf",
    "'=1": "''=1",
    "'-5": "''-5",
    "it's": "it's",
    "'quoted'": "'quoted'",
    "a\rb": "a\\rb",
    "a\r\nb": "a\\r\\nb",
    "a\\nb": "a\\\\nb",
    "a\\\nb": "a\\\\\\nb",
    "\\": "\\",
    "\\\\": "\\\\\\",
    "C:\\folder": "C:\\folder",
    "C:\\new": "C:\\\\new",
    "\x1b[2J\x00": "\\x1b[2J\\x00",
    "caf\udce9": "caf\\udce9",
    "\\\udce9": "\\\\\\udce9",
    "\u202ertl\u2028": "\\u202ertl\\u2028",
    "": "",
}


@pytest.mark.parametrize(("text", "cell"), TEXTS.items())
def test_text_for_csv_and_back(text, cell):
    assert csv_cell(text) == cell
    assert from_csv_cell(cell) == text
    cell.encode("utf-8")


def test_any_text_comes_back_from_csv():
    drawn = random.Random(0)
    letters = "'=+-@ \\nrxu0aé例\n\r\t\x00\x1b\u202e\udce9\ud800,\""
    for _ in range(5000):
        text = "".join(drawn.choices(letters, k=drawn.randrange(8)))
        cell = csv_cell(text)
        assert from_csv_cell(cell) == text, (text, cell)
        assert not set("\n\r\x00\x1b\udce9\ud800") & set(cell)


def test_numbers_stay_what_they_are_in_csv():
    assert [csv_cell(value) for value in (-1, 0.5, None, True)] == [-1, 0.5, None, True]


def test_a_csv_file_comes_back(tmp_path):
    rows = [[text, str(number)] for number, text in enumerate(TEXTS)]
    file = tmp_path / "a.csv"
    file.write_text(csv_text(["=id", "number"], [{"=id": rows[0][0], "number": "0"}, *rows[1:], {"number": -1}]))
    assert file.read_text().splitlines()[0] == "'=id,number"
    assert file.read_bytes().count(b"\n") == len(TEXTS) + 2
    assert read_csv(file) == (["=id", "number"], [*rows, ["", "-1"]])
    file.write_text("")
    assert read_csv(file) == ([], [])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("left lung", "left_lung"), ("../../etc", ".._.._etc"), ("caf\udce9\r\n\0", "caf_"), ("a" * 300, "a" * 80),
        ("\u4f8b" * 100, "\u4f8b" * 66), ("\U00020000" * 100, "\U00020000" * 50),
    ],
)  # fmt: skip
def test_text_as_a_file_name(text, name):
    assert as_file_name(text) == name
    assert len(as_file_name(text).encode()) <= 200


def test_texts_as_folder_names_differ():
    assert as_folder_names(("a b", "a/b", "..")) == ["0_a_b", "1_a_b", "2__"]
    assert as_folder_names(("Cat", "dög")) == ["Cat", "dög"]
    assert as_folder_names(("..",)) == ["_"]
