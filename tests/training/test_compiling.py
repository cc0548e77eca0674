"""When a network is compiled, and what happens where that fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_micro_batches import Told, same
from torch import nn

from segreg.errors import SegregError
from segreg.training import compiling
from segreg.training.compiling import STEPS_WORTH_IT, from_the_compiler, worth_compiling
from tiny_training import SETTINGS, objective, train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_what_is_asked_for_is_done():
    assert worth_compiling(True, CPU, 1) == (True, "")
    assert worth_compiling(False, CUDA, 10**6) == (False, "")


def test_auto_compiles_long_runs_on_a_gpu(monkeypatch):
    assert worth_compiling("auto", CPU, 10**6) == (False, "not compiled: it gains nothing on cpu")
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: name == "triton" or None)
    long, short = STEPS_WORTH_IT, STEPS_WORTH_IT - 1
    assert worth_compiling("auto", CUDA, long) == (
        True, f"compiled, because there are {long} steps to gain by it; the first ones take longer",
    )  # fmt: skip
    assert worth_compiling("auto", CUDA, short) == (
        False, f"not compiled: {short} steps are too few to gain what compiling takes",
    )  # fmt: skip
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    assert worth_compiling("auto", CUDA, long) == (
        False, "not compiled: there is no triton here, which makes a GPU's code",
    )  # fmt: skip


class CompilerError(RuntimeError):
    """An error such as Inductor raises."""


CompilerError.__module__ = "torch._inductor.exc"


def failing(module):
    """Stands for nn.Module.compile: the first call of what is compiled fails."""

    def call(*args):
        raise CompilerError("backend='inductor' raised:\nno C++ compiler")

    module._compiled_call_impl = call


def test_where_compiling_was_segregs_choice_the_run_goes_on_without(tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", failing)
    monkeypatch.setattr("segreg.training.compiling.worth_compiling", lambda *_: (True, "compiled, because"))
    told = Told()
    settings = replace(SETTINGS, ema=0.5, compile="auto")
    # Dropout draws once more where a step begins anew.
    one, _ = train(tmp_path / "a", settings=settings, objective=objective(dropout=0.0), progress=told)
    other, _ = train(tmp_path / "b", settings=replace(settings, compile=False), objective=objective(dropout=0.0))
    same(one, other)
    assert "notice: compiling failed, and the run continues without it: backend='inductor' raised:" in told.lines


def test_where_it_was_asked_for_the_run_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", failing)
    with pytest.raises(SegregError) as raised:
        train(tmp_path, settings=replace(SETTINGS, compile=True))
    assert str(raised.value).splitlines() == [
        "train.compile: this network can't be compiled here: backend='inductor' raised:",
        "  leave train.compile out",
    ]


def test_errors_of_the_network_are_not_the_compilers():
    assert from_the_compiler(CompilerError())
    assert not from_the_compiler(ValueError("Expected more than 1 value per channel when training"))
