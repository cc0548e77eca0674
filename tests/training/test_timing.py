"""Where the time of a training goes, with a clock that the tests turn."""

from __future__ import annotations

import pytest
import torch

from segreg.training import timing as stopwatch
from segreg.training.timing import Spent, Stopwatch, advice_on, format_shares, spent_in

STAGES = ("data", "copy", "forward", "backward", "optimizer", "validation", "checkpoint")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    return now


def spent(wall=10.0, launching=0.0, **stages):
    return Spent(wall, {**dict.fromkeys(STAGES, 0.0), **stages}, launching)


def test_stages_add_up_and_the_rest_is_other(clock):
    watch = Stopwatch(torch.device("cpu"))
    for seconds in (2.0, 3.0):
        with watch.stage("forward"):
            clock[0] += seconds

    def slow():
        for number in range(2):
            clock[0] += 0.5
            yield number
        clock[0] += 0.25  # the end is waited for too

    assert list(watch.waiting_for(slow())) == [0, 1]
    clock[0] += 1.75
    read = watch.read()
    assert (read.wall, read.launching) == (8.0, 0.0)
    assert read.whole == {**dict.fromkeys(STAGES, 0.0), "forward": 5.0, "data": 1.25, "other": 1.75}
    watch.restart()
    assert watch.read().whole == dict.fromkeys((*STAGES, "other"), 0.0)


def test_a_stage_that_fails_counts(clock):
    watch = Stopwatch(torch.device("cpu"))

    def failing():
        with watch.stage("backward"):
            clock[0] += 1.0
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        failing()
    assert watch.read().stages["backward"] == 1.0


class Mark:
    """An event of a GPU whose clock is a list of times."""

    def __init__(self, at, done):
        self.at, self.done = at, done

    def query(self):
        return self.at in self.done

    def synchronize(self):
        self.done.update(range(1000))

    def elapsed_time(self, end):
        return (end.at - self.at) * 100.0


def test_a_gpu_is_asked_for_its_own_time_and_not_waited_for(clock, monkeypatch):
    marks, done = iter(range(1000)), set()
    monkeypatch.setattr(Stopwatch, "_mark", lambda self: Mark(next(marks), done))
    watch = Stopwatch(torch.device("cpu"))
    for stage in ("data", "forward", "backward"):
        with watch.stage(stage):
            clock[0] += 1.0
    assert watch.stages["data"] == 0.0  # the device has not come so far
    done.update((0, 1))
    with watch.stage("optimizer"):
        pass
    assert (watch.stages["data"], watch.stages["forward"]) == (0.1, 0.0)
    read = watch.read()
    assert [read.stages[name] for name in ("data", "forward", "backward", "optimizer")] == [0.1] * 4
    assert read.launching == 2.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    watch = Stopwatch(torch.device("cuda:0"))
    large = torch.rand(4096, 4096, device="cuda")
    with watch.stage("forward"):
        for _ in range(20):
            large = large @ large
    read = watch.read()
    assert 0 < read.launching < read.stages["forward"] <= read.wall


def test_the_largest_shares_come_first_and_small_ones_are_left_out():
    seconds = {"data": 0.0, "forward": 3.0, "backward": 6.0, "optimizer": 0.04, "validation": 1.0, "other": 0.0}
    assert format_shares(seconds) == "backward 60%, forward and losses 30%, validation 10%"
    assert format_shares({}) == ""


def test_a_history_adds_up():
    rows = [{"epoch": 1, "seconds": 9.0, "seconds.data": 1.0, "seconds.other": 0.5}, {"epoch": 2, "seconds.data": 2.0}]
    assert spent_in(rows) == {"data": 3.0, "other": 0.5}
    assert spent_in([]) == {}
    assert advice_on(spent_in(rows)).startswith("86% of the time was waiting for data")
    assert advice_on({}) == ""


def test_advice_is_given_where_time_is_lost():
    assert spent(data=0.9, forward=9.0).advice() == ""
    assert spent(data=2.5, forward=7.0).advice() == (
        "25% of the time was waiting for data: more train.workers load batches faster, and so do fewer or cheaper "
        "augmentations"
    )
    launched = spent(forward=4.0, backward=5.0, launching=8.5)
    assert launched.advice().startswith("the GPU waited for the CPU to queue work")
    assert spent(forward=4.0, backward=5.0, launching=4.0).advice() == ""
