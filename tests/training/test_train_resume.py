"""That a training which is killed at any moment ends with the weights of one that never was."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_training
from segreg.errors import SegregError
from segreg.runtime import files
from segreg.training import history
from segreg.training.checkpoint import BEST, LAST, STATE, load_state, random_state, read_weights, restore_random_state
from tiny_training import HARD, SETTINGS, objective, train, train_hard

TIMES = ("seconds", "images_per_second")


def left(run_dir):
    """Return what a training left, but for the clock."""
    state = load_state(run_dir / STATE)
    rows = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in history.read(run_dir)]
    weights = [read_weights(run_dir / file) for file in (BEST, LAST)]
    return rows, weights, [state.objective, state.average, state.optimizer, state.schedule, state.randomness], (
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
def test_sigkill_at_random_moments(tmp_path, name, one_thread):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = str(Path(tiny_training.__file__))
    done = subprocess.run(
        [sys.executable, script, name, str(tmp_path / "killed"), "5"],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("status 9") >= 2
    train_hard(name, tmp_path / "whole")
    assert_same(left(tmp_path / "killed"), left(tmp_path / "whole"))


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("name", HARD)
def test_a_crash_before_any_write_to_the_disk(tmp_path, name, monkeypatch, one_thread):
    train_hard(name, tmp_path / "whole")
    expected = left(tmp_path / "whole")
    writes = 0
    real = files._sync

    def count(path):
        nonlocal writes
        writes += 1
        real(path)

    monkeypatch.setattr(files, "_sync", count)
    train_hard(name, tmp_path / "counted")
    points = random.Random(0).sample(range(1, writes + 1), 6)
    for point in points:
        left_to_do = point

        def crash(path):
            nonlocal left_to_do
            left_to_do -= 1
            if left_to_do == 0:
                raise Killed
            real(path)

        monkeypatch.setattr(files, "_sync", crash)
        run = tmp_path / f"crash{point}"
        with pytest.raises(Killed):
            train_hard(name, run)
        monkeypatch.setattr(files, "_sync", real)
        train_hard(name, run, resume=True)
        assert_same(left(run), expected)


def test_a_finished_run_is_not_trained_further(tmp_path):
    _, first = train(tmp_path)
    before = left(tmp_path)
    network, again = train(tmp_path, resume=load_state(tmp_path / STATE))
    assert (again.stopped_because, again.epochs, again.best_value) == ("finished", 3, first.best_value)
    assert_same(left(tmp_path), before)
    assert_same(dict(network.model.state_dict()), before[1][1][0])


def test_best_weights_that_were_lost_are_written_again(tmp_path):
    train(tmp_path)
    before = left(tmp_path)
    assert before[3][0] == before[3][1], "the last epoch is the best in this training"
    (tmp_path / BEST).unlink()
    train(tmp_path, resume=load_state(tmp_path / STATE))
    assert_same(left(tmp_path), before)


def test_a_state_of_another_network_is_told(tmp_path):
    train(tmp_path)
    state = load_state(tmp_path / STATE)
    with pytest.raises(SegregError, match="the training state does not fit this recipe"):
        train(tmp_path, objective=objective(norm=False), resume=state)
    with pytest.raises(SegregError, match=r"another train\.ema"):
        train(tmp_path, settings=tiny_training.replace(SETTINGS, ema=0.9), resume=state)
    with pytest.raises(SegregError, match=r'chooses by train\.monitor "val\.loss", not by "train\.loss"'):
        train(tmp_path, settings=tiny_training.replace(SETTINGS, monitor="train.loss"), resume=state)


def test_every_generator_is_put_back():
    state = random_state()
    first = (torch.rand(3).tolist(), random.random(), random.gauss(), np.random.rand(), np.random.randn())
    restore_random_state(state)
    assert (torch.rand(3).tolist(), random.random(), random.gauss(), np.random.rand(), np.random.randn()) == first
