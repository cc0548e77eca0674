"""What a run ran on."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

import plugged
from segreg.registry.registry import load_registry
from segreg.runs.environment import PACKAGES, environment, git_commit, group_lines

CPU = torch.device("cpu")


def test_packages_plugins_and_device_are_named(plugin):
    registry = load_registry(
        [plugged.STAND_INS, plugin(plugged.OFFERING.format(name="hinge"), distribution="segreg-hinge", version="2.5"),
         plugin("import no_such_module", distribution="segreg-broken", version="0.1")]
    )  # fmt: skip
    reported = environment(registry, CPU)
    assert json.loads(json.dumps(reported)) == reported
    assert reported["python"] == sys.version.split()[0]
    assert reported["packages"].keys() == set(PACKAGES)
    assert reported["packages"]["torch"] == version("torch")
    plugins = {p["distribution"]: p for p in reported["plugins"]}
    assert (plugins["segreg-hinge"]["version"], plugins["segreg-hinge"]["error"]) == ("2.5", "")
    assert "no_such_module" in plugins["segreg-broken"]["error"]
    assert plugins["segreg-hinge"]["digest"] == registry.plugins[1].digest != ""
    assert plugins["segreg-broken"]["digest"] == ""
    assert reported["device"]["name"] == "cpu"
    assert reported["device"]["model"]
    assert reported["device"]["threads"] == torch.get_num_threads()
    assert reported["command"] == sys.argv


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("segreg.runs.environment.PACKAGES", ("numpy", "no-such-package"))
    reported = environment(load_registry([]), CPU)["packages"]
    assert reported == {"numpy": version("numpy"), "no-such-package": None}


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def test_the_commit_and_whether_files_differ_from_it(tmp_path):
    assert git_commit(tmp_path) is None  # no checkout
    git(tmp_path, "init", "-q")
    assert git_commit(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "untracked").write_text("a run's own directory, for instance")
    assert git_commit(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == f"{commit}+changes"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_named():
    reported = environment(load_registry([]), torch.device("cuda:0"))["device"]
    assert reported["model"] == torch.cuda.get_device_name(0)
    assert reported["memory_bytes"] > 0


def test_the_header_has_a_line_for_what_has_no_weight_decay_and_one_for_the_layers_rates():
    def group(layer, parameters, lr, weight_decay):
        return {"layer": layer, "parameters": parameters, "lr": lr, "weight_decay": weight_decay}

    whole = [group(None, 200_000, 1e-3, 0.05), group(None, 50, 1e-3, 0.05)]
    assert group_lines(whole) == group_lines([group(None, 50, 1e-3, 0.0)]) == []
    layers = [group(0, 150_000, 2.5e-4, 0.05), group(0, 1_234, 2.5e-4, 0.0), group(1, 50_000, 5e-4, 0.05)]
    assert group_lines([*layers, *whole]) == [
        "decay      none for 1,234 of 0.40 M parameters (biases, norms, ...)",
        "rates      of 2 layers of the encoder from 0.00025 to 0.0005",
    ]
