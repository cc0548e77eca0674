"""What a terminal shows: nothing wider than it, no word broken, colours and links only there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from pathlib import Path

import pytest

import plugged
import tiny_runs
from planted_runs import plant, recipe
from segreg.cli import COMMANDS, main

LEFT_OUT = {"left", "out", "at", "this", "width", "--wide", "shows", "them", "\\"}


@pytest.fixture
def terminal(monkeypatch):
    """Run a command on a pseudo-terminal of a width: `terminal(80, "list")` returns the status and what it showed."""
    for name in ("COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def run(width, *arguments):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        shown = bytearray()

        def read():
            try:
                while some := os.read(ours, 65536):
                    shown.extend(some)
            except OSError:  # the other end is closed
                pass

        reader = threading.Thread(target=read)
        reader.start()
        with monkeypatch.context() as patched, os.fdopen(theirs, "w", encoding="utf-8") as stream:
            patched.setattr(sys, "stdout", stream)
            patched.setattr(sys, "stderr", stream)
            try:
                status = main([str(argument) for argument in arguments])
            except SystemExit as stopped:
                status = stopped.code
        reader.join()
        os.close(ours)
        return status, shown.decode().replace("\r\n", "\n")

    return run


@pytest.fixture
def planted(tmp_path, monkeypatch, installed):
    """Two runs and a wrong recipe in the current folder, and the built-in parts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    plant(Path("runs/a/2026-01-31_12-00-00"))
    long = recipe(encoder={"name": "timm/convnext_tiny"}, train__epochs=30)
    plant(Path("runs/b/2026-02-01_12-00-00"), settings=long, results={"metrics": {"test": {"dice.pooled": 0.75}}})
    tiny_runs.write_recipe(tmp_path, tiny_runs.RECIPE)
    installed(*plugged.builtin())


def text_of(shown):
    """Return what is seen, without colours and links."""
    shown = shown.replace("\r", "\n")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\\\", "", shown)


def words_of(text):
    return {word.strip(",;:") for word in text.split() if not re.fullmatch(r"\(?\d+", word)}  # of milliseconds


@pytest.mark.parametrize(
    "command",
    [
        "list", "list encoder", "list augmentation", "list encoder resnet", "show decoder deeplabv3plus",
        "show augmentation ElasticTransform", "plugins", "recipes", "runs", "cache", "check nowhere.yaml", "--help",
        "diff runs/a/2026-01-31_12-00-00 runs/b/2026-02-01_12-00-00", *(f"{name} --help" for name in COMMANDS),
    ],
)  # fmt: skip
def test_nothing_is_wider_than_the_terminal_and_no_word_is_broken(command, terminal, planted):
    known = words_of(text_of(terminal(400, *command.split())[1])) | LEFT_OUT
    for width in (80,) if command.endswith("--help") else (80, 160):
        text = text_of(terminal(width, *command.split())[1])
        # A path that is wider than the terminal has a line to itself.
        assert [line for line in text.splitlines() if len(line) > width and len(line.split()) > 2] == []
        assert words_of(text) - known == set()


def test_help_is_shown_however_narrow_the_terminal_is(terminal, monkeypatch):
    assert terminal(1, "run", "--help")[0] == 0
    monkeypatch.setenv("COLUMNS", "5")
    assert terminal(80, "run", "--help")[0] == 0


def test_colours_and_links_are_for_terminals(terminal, planted, segreg, monkeypatch):
    assert "\x1b[32mfinished" in terminal(100, "runs")[1]
    assert terminal(100, "check", "nowhere.yaml")[1].startswith("\x1b[31merror:\x1b[0m there is no recipe")
    printed = segreg("runs")
    assert "\x1b" not in printed.out
    assert max(map(len, printed.out.splitlines())) > 120
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in terminal(100, "runs")[1] + terminal(100, "check", "nowhere.yaml")[1]


def test_a_narrow_terminal_names_what_it_leaves_out_and_wide_shows_it(terminal, planted):
    narrow, wide = text_of(terminal(80, "runs")[1]), text_of(terminal(80, "runs", "--wide")[1])
    assert "decoder" not in narrow.splitlines()[0]
    assert "left out at this width: recipe, begun" in " ".join(narrow.split())
    assert "decoder" in wide.splitlines()[0]


def test_a_run_ends_with_its_scores_its_report_and_commands_that_work(terminal, planted):
    status, shown = terminal(80, "run", "tiny.yaml", "train.epochs=1")
    assert status == 0
    text = text_of(shown)
    assert re.search(r"^ *epoch +train loss +val loss +val\.dice\.pooled", text, re.MULTILINE)
    assert len(re.findall(r"^ *epoch +train", text, re.MULTILINE)) == 1
    assert re.search(r"^ *1/1 .* best ", text, re.MULTILINE)
    assert "dice.pooled is 0." in text
    assert re.search(r"\x1b\]8;[^;]*;file://\S+report\.html", shown)
    commands = re.findall(r"^  segreg (.+)$", text.partition("\nnext:\n")[2], re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["report", "predict", "run"]
    assert terminal(80, *commands[1].split())[0] == 0
    assert terminal(80, "check", *commands[2].split()[1:])[0] == 0
