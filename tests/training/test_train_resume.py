"""A training that is killed at any moment and resumed ends with the weights of one that never was."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_training
from segreg.errors import SegregError
from segreg.runtime import files
from segreg.training import history, trainer
from segreg.training import resume as resuming
from segreg.training.checkpoint import (
    ADAPTER,
    BEST,
    LAST,
    STATE,
    load_state,
    random_state,
    read_weights,
    restore_random_state,
    save_state,
)
from segreg.training.resume import AsyncCheckpointer, save_epoch
from tiny_training import HARD, SETTINGS, objective, train, train_hard

TIMES = ("seconds", "images_per_second")


def result(run_dir):
    """Return the files of a training, without times."""
    state = load_state(run_dir / STATE)
    rows = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in history.read(run_dir)]
    weights = [read_weights(run_dir / file) for file in (BEST, LAST)]
    return rows, weights, [state.objective, state.ema, state.optimizer, state.schedule, state.random_state], (
        state.epoch, state.best_epoch, state.best_value, state.epochs_without_better,
    )  # fmt: skip


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@pytest.fixture
def one_thread():
    # Sums over several threads may differ in their last bit from one process to another.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_sigkill_at_random_moments(tmp_path, name, one_thread, python):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = str(Path(tiny_training.__file__))
    done = subprocess.run(
        [*python, script, name, str(tmp_path / "killed"), "5"],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("status 9") >= 2
    train_hard(name, tmp_path / "whole")
    assert_same(result(tmp_path / "killed"), result(tmp_path / "whole"))


class Killed(BaseException):
    """In place of SIGKILL: no code catches it."""


@pytest.mark.parametrize("name", HARD)
def test_a_crash_before_any_write_to_the_disk(tmp_path, name, monkeypatch, one_thread):
    writes = 0
    real = files.sync

    def count(path):
        nonlocal writes
        writes += 1
        real(path)

    monkeypatch.setattr(files, "sync", count)
    train_hard(name, tmp_path / "whole")
    expected = result(tmp_path / "whole")
    points = random.Random(0).sample(range(1, writes + 1), 4)
    for point in points:
        left_to_do = point

        def crash(path):
            nonlocal left_to_do
            left_to_do -= 1
            if left_to_do == 0:
                raise Killed
            real(path)

        monkeypatch.setattr(files, "sync", crash)
        run = tmp_path / f"crash{point}"
        with pytest.raises(Killed):
            train_hard(name, run)
        monkeypatch.setattr(files, "sync", real)
        train_hard(name, run, resume=True)
        assert_same(result(run), expected)


def test_a_finished_run_is_not_trained_further(tmp_path):
    _, first = train(tmp_path)
    before = result(tmp_path)
    network, again = train(tmp_path, resume=load_state(tmp_path / STATE))
    assert (again.stopped_because, again.epochs, again.best_value) == ("finished", 3, first.best_value)
    assert_same(result(tmp_path), before)
    assert_same(dict(network.model.state_dict()), before[1][1][0])


def test_best_weights_that_were_lost_are_written_again(tmp_path):
    train(tmp_path)
    before = result(tmp_path)
    assert before[3][0] == before[3][1], "the last epoch is the best in this training"
    (tmp_path / BEST).unlink()
    train(tmp_path, resume=load_state(tmp_path / STATE))
    assert_same(result(tmp_path), before)


def test_best_weights_of_an_earlier_epoch_that_are_lost_stop_a_run_before_it_trains(tmp_path):
    train(tmp_path)
    state = replace(load_state(tmp_path / STATE), best_epoch=2)
    (tmp_path / BEST).unlink()
    with pytest.raises(SegregError, match=r"best\.safetensors is missing: epoch 2 was the best"):
        train(tmp_path, settings=replace(SETTINGS, epochs=4), resume=state)
    assert [row["epoch"] for row in history.read(tmp_path)] == [1, 2, 3]


def test_a_state_of_another_network_is_refused(tmp_path):
    train(tmp_path)
    state = load_state(tmp_path / STATE)
    with pytest.raises(SegregError, match="the training state does not fit this recipe"):
        train(tmp_path, objective=objective(norm=False), resume=state)
    with pytest.raises(SegregError, match=r"another train\.ema or train\.swa_start"):
        train(tmp_path, settings=tiny_training.replace(SETTINGS, ema=0.9), resume=state)
    with pytest.raises(SegregError, match=r'chooses by train\.monitor "val\.loss", not by "train\.loss"'):
        train(tmp_path, settings=tiny_training.replace(SETTINGS, monitor="train.loss"), resume=state)


def test_trained_weights_name_the_frozen_ones_of_the_run_not_those_that_are_built_to_go_on(tmp_path):
    def network(seed):
        one = objective(seed, norm=False)
        for part in (one.model.encoder, one.model.decoder):
            part.requires_grad_(requires_grad=False)
        return one

    given = {"trained": ("head.weight", "head.bias")}
    train(tmp_path / "run", settings=replace(SETTINGS, epochs=1), objective=network(0), **given)
    tensors, notes = read_weights(tmp_path / "run" / ADAPTER)
    assert tensors.keys() == set(given["trained"])
    state = load_state(tmp_path / "run" / STATE)
    train(tmp_path / "run", settings=replace(SETTINGS, epochs=3), objective=network(9), resume=state, **given)
    assert read_weights(tmp_path / "run" / ADAPTER)[1]["frozen"] == notes["frozen"]
    train(tmp_path / "other", settings=replace(SETTINGS, epochs=1), objective=network(9), **given)
    assert read_weights(tmp_path / "other" / ADAPTER)[1]["frozen"] != notes["frozen"]


def test_every_generator_is_restored():
    state = random_state()
    first = (torch.rand(3).tolist(), random.random(), random.gauss(), np.random.rand(), np.random.randn())
    restore_random_state(state)
    assert (torch.rand(3).tolist(), random.random(), random.gauss(), np.random.rand(), np.random.randn()) == first


# Epochs that a thread writes while the next one trains.


@pytest.fixture
def in_background(monkeypatch):
    """Let a training on the CPU write its epochs in the background, as on a GPU."""

    class InBackground(AsyncCheckpointer):
        def __init__(self, *given, in_background):
            assert not in_background
            super().__init__(*given, in_background=True)

    monkeypatch.setattr(trainer, "AsyncCheckpointer", InBackground)


@pytest.mark.parametrize("where", ["at once", "in the background"])
def test_what_an_observer_waits_for_is_not_training(tmp_path, request, monkeypatch, where):
    if where == "in the background":
        request.getfixturevalue("in_background")
    late, real = [0.0], time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: real() + late[0])

    def observe(*_):
        late[0] += 10_000.0

    train(tmp_path, observe=observe)
    rows = history.read(tmp_path)
    assert len(rows) == 3
    assert late == [30_000.0]
    assert all(0 <= row[name] < 5_000 for row in rows for name in row if name.startswith("seconds"))


def test_the_files_written_in_the_background_are_the_same(tmp_path, in_background):
    observed_epochs = []
    train(tmp_path / "background", observe=lambda epoch, values: observed_epochs.append((epoch, values["train.loss"])))
    rows = history.read(tmp_path / "background")
    assert observed_epochs == [(row["epoch"], row["train.loss"]) for row in rows]
    assert len(rows) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "AsyncCheckpointer", AsyncCheckpointer)
        train(tmp_path / "at_once")
    for name in (LAST, BEST):
        assert_same(read_weights(tmp_path / "background" / name)[0], read_weights(tmp_path / "at_once" / name)[0])
    one, other = (load_state(tmp_path / name / STATE) for name in ("background", "at_once"))
    assert_same(one.objective, other.objective)
    assert one.epoch == other.epoch == 3
    assert torch.equal(one.random_state["torch"], other.random_state["torch"])


def test_training_continues_while_an_epoch_is_written_and_does_not_change_it(tmp_path, in_background, monkeypatch):
    continued, written = threading.Event(), {}

    def slowly(state, *given):
        if state.epoch == 1:
            assert continued.wait(30)
        save_epoch(state, *given)
        written[state.epoch] = (threading.current_thread().name, {n: t.clone() for n, t in state.objective.items()})

    monkeypatch.setattr(resuming, "save_epoch", slowly)
    at_the_end = {}
    original = trainer.validation_pass

    def noted(training, *given):
        if len(at_the_end) == 1:
            continued.set()  # the second epoch has trained
        values = original(training, *given)
        at_the_end[len(at_the_end) + 1] = {n: t.clone() for n, t in training.objective.state_dict().items()}
        return values

    monkeypatch.setattr(trainer, "validation_pass", noted)
    train(tmp_path)
    assert [written[epoch][0] for epoch in (1, 2, 3)] == ["segreg-checkpointer_0"] * 3
    for epoch in (1, 2, 3):
        assert_same(written[epoch][1], at_the_end[epoch])


@pytest.mark.parametrize(("epoch", "observed"), [(2, [1]), (3, [1, 2])])  # the last one has no other after it
def test_what_cannot_be_written_ends_the_run_at_the_next_epochs_end(
    tmp_path, in_background, monkeypatch, epoch, observed
):
    def full(state, *given):
        if state.epoch == epoch:
            raise SegregError("the disk is full")
        save_epoch(state, *given)

    monkeypatch.setattr(resuming, "save_epoch", full)
    observed_epochs = []
    with pytest.raises(SegregError, match="the disk is full"):
        train(tmp_path, observe=lambda epoch, values: observed_epochs.append(epoch))
    assert observed_epochs == observed
    assert load_state(tmp_path / STATE).epoch == epoch - 1


def test_an_interrupted_run_has_the_epochs_that_were_being_written(tmp_path, in_background, monkeypatch):
    monkeypatch.setattr(resuming, "save_epoch", partial(_after_a_moment, save_epoch))
    original = trainer.train_pass

    def interrupted(training, batches, epoch, progress):
        if epoch == 3:
            raise KeyboardInterrupt
        return original(training, batches, epoch, progress)

    monkeypatch.setattr(trainer, "train_pass", interrupted)
    observed_epochs = []
    _, outcome = train(tmp_path, observe=lambda epoch, values: observed_epochs.append(epoch))
    assert (outcome.stopped_because, outcome.epochs, observed_epochs) == ("interrupted", 2, [1, 2])
    assert [row["epoch"] for row in history.read(tmp_path)] == [1, 2]


def test_an_interrupt_before_a_state_is_written_takes_its_row_back(tmp_path, monkeypatch):
    def interrupted(state, path):
        if state.epoch == 2:
            raise KeyboardInterrupt
        save_state(state, path)

    monkeypatch.setattr(resuming, "save_state", interrupted)
    _, outcome = train(tmp_path)
    assert (outcome.stopped_because, outcome.epochs) == ("interrupted", 1)
    assert [row["epoch"] for row in history.read(tmp_path)] == [1]


def test_an_epoch_that_fails_does_not_take_the_one_that_was_being_written(tmp_path, in_background, monkeypatch):
    monkeypatch.setattr(resuming, "save_epoch", partial(_after_a_moment, save_epoch))
    original = trainer.train_pass

    def failing(training, batches, epoch, progress):
        if epoch == 3:
            raise SegregError("not finite")
        return original(training, batches, epoch, progress)

    monkeypatch.setattr(trainer, "train_pass", failing)
    observed_epochs = []
    with pytest.raises(SegregError, match="not finite"):
        train(tmp_path, observe=lambda epoch, values: observed_epochs.append(epoch))
    assert observed_epochs == [1, 2]
    assert load_state(tmp_path / STATE).epoch == 2


def _after_a_moment(write, *given):
    threading.Event().wait(0.2)
    write(*given)
