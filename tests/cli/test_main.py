"""The program as a whole: exit statuses, help, pipes, and that nothing of a user's doing shows a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest import mock

import pytest

import plugged
from segreg.cli import COMMANDS, SPINS
from segreg.errors import SegregError


@pytest.fixture(autouse=True)
def _stand_ins(installed):
    installed(plugged.STAND_INS)


def test_help_names_every_command_and_each_has_examples(segreg):
    printed = segreg("--help")
    assert printed.status == 0
    for name in COMMANDS:
        assert f"\n    {name} " in printed.out
        own = segreg(name, "--help")
        assert own.status == 0
        assert "examples:" in own.out


def test_version(segreg):
    from importlib.metadata import version

    assert segreg("--version").out == f"segreg {version('segreg-toolkit')}\n"


@pytest.mark.parametrize("arguments", [(), ("chek",), ("list", "--jsn"), ("check",), ("show", "decoder")])
def test_a_wrong_command_is_a_users_mistake(arguments, segreg):
    printed = segreg(*arguments)
    assert printed.status == 2
    assert printed.err.startswith("usage: segreg")
    assert printed.out == ""


def test_every_problem_is_reported_and_the_status_is_2(segreg, monkeypatch):
    from segreg.errors import Place, Problem

    def fail():
        raise SegregError.of([Problem("one", Place("a.yaml", 1, 2), "do this"), Problem("two")])

    monkeypatch.setattr("segreg.registry.registry.load_registry", fail)
    printed = segreg("plugins")
    assert (printed.status, printed.out, printed.err) == (2, "", "error: a.yaml:1:2: one\n  do this\nerror: two\n")


def test_an_interrupt_is_no_traceback(segreg, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("segreg.registry.registry.load_registry", interrupt)
    printed = segreg("plugins")
    assert (printed.status, printed.err) == (130, "interrupted\n")


def test_a_bug_keeps_its_traceback(segreg, monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr("segreg.registry.registry.load_registry", fail)
    with pytest.raises(ZeroDivisionError):
        segreg("plugins")


def test_a_reader_that_leaves_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "segreg", "recipes"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_python_dash_m_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "segreg", "chek"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: segreg ")


def test_the_entry_point_of_the_program_is_the_one_tested_here():
    import tomllib

    import segreg.cli

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert EntryPoint("segreg", project["scripts"]["segreg"], "console_scripts").load() is segreg.cli.main


@pytest.mark.parametrize(
    ("set_before", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, None)],
)
def test_threads_that_wait_look_for_work_a_while_unless_it_is_said_otherwise(segreg, set_before, spins):
    with mock.patch.dict(os.environ, set_before):
        if "GOMP_SPINCOUNT" not in set_before:
            os.environ.pop("GOMP_SPINCOUNT", None)
        segreg("recipes")
        assert os.environ.get("GOMP_SPINCOUNT") == spins
