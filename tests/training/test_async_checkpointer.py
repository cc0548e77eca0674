"""Epochs that are written beside the training: the same files, of the epoch's own weights, and no error lost."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch

from segreg.errors import SegregError
from segreg.training import async_checkpointer as keeper
from segreg.training import history
from segreg.training import trainer as train
from segreg.training.async_checkpointer import AsyncCheckpointer
from segreg.training.checkpoint import BEST, LAST, STATE, load_state, read_weights
from segreg.training.resume import keep
from tiny_training import train as trained


@pytest.fixture
def beside(monkeypatch):
    """Let a training on the CPU write its epochs as one on a GPU does."""

    class Beside(AsyncCheckpointer):
        def __init__(self, *given, beside):
            assert not beside
            super().__init__(*given, beside=True)

    monkeypatch.setattr(train, "AsyncCheckpointer", Beside)


def same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_the_files_are_those_that_are_written_at_once(tmp_path, beside):
    told = []
    trained(tmp_path / "beside", observe=lambda epoch, values: told.append((epoch, values["train.loss"])))
    rows = history.read(tmp_path / "beside")
    assert told == [(row["epoch"], row["train.loss"]) for row in rows]
    assert len(rows) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "AsyncCheckpointer", AsyncCheckpointer)
        trained(tmp_path / "at_once")
    for name in (LAST, BEST):
        same(read_weights(tmp_path / "beside" / name)[0], read_weights(tmp_path / "at_once" / name)[0])
    one, other = (load_state(tmp_path / name / STATE) for name in ("beside", "at_once"))
    same(one.objective, other.objective)
    assert one.epoch == other.epoch == 3
    assert torch.equal(one.randomness["torch"], other.randomness["torch"])


def test_training_goes_on_while_an_epoch_is_written_and_does_not_change_it(tmp_path, beside, monkeypatch):
    went_on, written = threading.Event(), {}

    def slowly(state, *given):
        if state.epoch == 1:
            assert went_on.wait(30)
        keep(state, *given)
        written[state.epoch] = (threading.current_thread().name, {n: t.clone() for n, t in state.objective.items()})

    monkeypatch.setattr(keeper, "keep", slowly)
    at_the_end = {}
    original = train.validation_pass

    def noted(training, *given):
        if len(at_the_end) == 1:
            went_on.set()  # the second epoch has trained
        values = original(training, *given)
        at_the_end[len(at_the_end) + 1] = {n: t.clone() for n, t in training.objective.state_dict().items()}
        return values

    monkeypatch.setattr(train, "validation_pass", noted)
    trained(tmp_path)
    assert [written[epoch][0] for epoch in (1, 2, 3)] == ["segreg-keeper"] * 3
    for epoch in (1, 2, 3):
        same(written[epoch][1], at_the_end[epoch])


@pytest.mark.parametrize(("epoch", "observed"), [(2, [1]), (3, [1, 2])])  # the last one has no other after it
def test_what_cannot_be_written_ends_the_run_at_the_next_epochs_end(tmp_path, beside, monkeypatch, epoch, observed):
    def full(state, *given):
        if state.epoch == epoch:
            raise SegregError("the disk is full")
        keep(state, *given)

    monkeypatch.setattr(keeper, "keep", full)
    told = []
    with pytest.raises(SegregError, match="the disk is full"):
        trained(tmp_path, observe=lambda epoch, values: told.append(epoch))
    assert told == observed
    assert load_state(tmp_path / STATE).epoch == epoch - 1


def test_an_interrupted_run_has_the_epochs_that_were_being_written(tmp_path, beside, monkeypatch):
    monkeypatch.setattr(keeper, "keep", partial(_after_a_moment, keep))
    original = train.train_pass

    def interrupted(training, batches, epoch, progress):
        if epoch == 3:
            raise KeyboardInterrupt
        return original(training, batches, epoch, progress)

    monkeypatch.setattr(train, "train_pass", interrupted)
    told = []
    _, outcome = trained(tmp_path, observe=lambda epoch, values: told.append(epoch))
    assert (outcome.stopped_because, outcome.epochs, told) == ("interrupted", 2, [1, 2])
    assert [row["epoch"] for row in history.read(tmp_path)] == [1, 2]


def _after_a_moment(write, *given):
    threading.Event().wait(0.2)
    write(*given)
