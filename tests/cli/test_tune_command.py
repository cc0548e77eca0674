"""`segreg tune`: its words, what it checks before anything runs, and its exit status."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("optuna")
WORDS = (
    "tune",
    "tiny.yaml",
    "--search",
    "optimizer.lr=log:1e-3..1e-1",
    "--search",
    "encoder=timm/test_resnet,timm/test_vit",
)


pytestmark = pytest.mark.usefixtures("tiny_place")


def test_check_tries_every_network_and_writes_nothing(segreg, monkeypatch, tmp_path):
    tried = []

    def check_memory(spec):
        tried.append(spec.recipe["encoder"]["name"])
        return "it needs 9 GiB" if "vit" in tried[-1] else ""

    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", check_memory)
    printed = segreg(*WORDS, "--check")
    assert printed.status == 1
    assert printed.out == "optimizer.lr=0.001 encoder=timm/test_vit: it needs 9 GiB\n1 of the networks fail\n"
    assert tried == ["timm/test_resnet", "timm/test_vit"], "learning rates are not networks"
    monkeypatch.setattr("segreg.benchmark.cost.running.check_memory", lambda spec: "")
    assert segreg(*WORDS, "--check").status == 0
    assert json.loads(segreg(*WORDS, "--check", "--json").out) == {"settings": 2, "wrong": []}
    assert not (tmp_path / "tunes").exists()


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (["--trials", "0"], "--trials must be at least 1"),
        (["--minutes", "0"], "--minutes must be at least 0.01"),
        (["--trials", "2", "--minutes", "2"], "not allowed with"),
        (["--epochs", "3", "--search", "train.epochs=int:1..3"], "train.epochs is searched and given by --epochs"),
        (["--search", "optimizer.lr=0.1..0.2"], '--search names "optimizer.lr" twice'),
        (["--search", "optimizer.lrr=0.1..0.2"], "--search optimizer.lrr=0.1..0.2: the optimizer"),
        (["--out", "tiny.yaml"], "tiny.yaml is a file"),
    ],
)
def test_mistakes_are_reported_and_leave_nothing(segreg, tmp_path, more, wrong):
    printed = segreg(*WORDS, *more)
    assert printed.status == 2
    assert wrong in printed.err
    assert not (tmp_path / "tunes").exists()


def test_without_optuna_the_extra_is_named(segreg, monkeypatch):
    monkeypatch.setattr("segreg.benchmark.tune.study.find_spec", lambda name: None)
    printed = segreg(*WORDS)
    assert printed.status == 2
    assert "segreg-toolkit[tune]" in printed.err
