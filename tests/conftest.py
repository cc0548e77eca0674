"""Registries of stand-in parts, plugins written on the spot, and the command line with what it prints."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from unittest import mock

import pytest

import hub_server
import plugged
import tiny_runs
import warm_python
from quick_init import quick_init
from segreg.cli import main
from segreg.registry.registry import load_registry
from segreg.runtime.output import say_once

# Networks here are tiny: more threads than one only wait for each other, above all where tests run side by side. It is
# read when PyTorch is imported, and by every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C. Some are about it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers():
    """Let `-n auto` run one test more than there are cores: some only wait for processes that they have started."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else None


@dataclass(frozen=True)
class Printed:
    """What a command left: exit status, standard output and standard error."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def lab():
    """The registry of tests/stand_ins.py."""
    return load_registry([plugged.STAND_INS])


@pytest.fixture(scope="session")
def builtin():
    """The registry of the built-in parts, and of no others that may be installed."""
    return load_registry(plugged.builtin())


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a plugin's module and gives its entry point: `plugin(source, distribution="segreg-foo")`."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def write(source, **named):
        return plugged.point(plugged.write_module(folder, source), **named)

    return write


@pytest.fixture
def installed(monkeypatch):
    """Make these entry points the only ones of segreg's group: `installed(point, ...)`."""

    def install(*points):
        monkeypatch.setattr(
            "segreg.registry.registry.entry_points", lambda group: [p for p in points if p.group == group]
        )

    return install


@pytest.fixture
def tiny_place(installed, tmp_path, monkeypatch):
    """Work in an empty folder with the recipe tiny.yaml, a cache there, and the built-in plugins alone."""
    installed(*plugged.builtin())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    tiny_runs.write_recipe(tmp_path)


@pytest.fixture
def segreg(capsys):
    """Run a command in this process: `segreg("check", "recipe.yaml").err`."""

    def run(*arguments):
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse's way
            status = stopped.code
        printed = capsys.readouterr()
        return Printed(status, printed.out, printed.err)

    return run


@pytest.fixture
def quick_networks():
    """Let networks whose random numbers are all the same to a test be built in a fraction of the time."""
    with quick_init():
        yield


@pytest.fixture(scope="session")
def warm_workers(tmp_path_factory):
    """Let worker processes of `segreg.benchmark.pool` start at once: as forks of one that has imported everything.

    A bench looks more often whether one has ended.
    """
    names = {"SEGREG_CACHE": "workers' cache", "XDG_STATE_HOME": "workers' state"}
    with mock.patch.dict(os.environ, {key: str(tmp_path_factory.getbasetemp() / name) for key, name in names.items()}):
        tiny_runs._forge()
    with mock.patch("segreg.benchmark.bench.local._POLL_SECONDS", 0.2):
        yield


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a stand-in of the Hugging Face hub, which this process's client asks; its cache is in `tmp_path`.

    The client reads HF_ENDPOINT and the like once, when it is imported, so that its constants are replaced.
    """
    from huggingface_hub import constants

    with hub_server.serving() as served:
        for name, value in {
            "ENDPOINT": served.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        say_once.cache_clear()
        yield served


@pytest.fixture(scope="session")
def python():
    """Return, as a list, a program that does what `python` does, without the seconds of heavy imports.

    For what is about a command and its result; what is about imports or memory takes `sys.executable`.
    """
    with warm_python.started() as program:
        yield program
