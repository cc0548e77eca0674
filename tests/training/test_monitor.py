from __future__ import annotations

import math

import pytest
import torch
from torchmetrics import MetricCollection

from segreg.errors import SegregError
from segreg.task import Task
from segreg.training.monitor import LossMeter, better, check_monitor, choose_monitor
from segreg_plugins.metrics.builders import dice, mse
from tiny_training import CPU


def terms(*values):
    return {"loss": torch.tensor(sum(values)), **{f"term{i}": torch.tensor(v) for i, v in enumerate(values)}}


def test_a_meter_is_the_mean_over_images():
    meter = LossMeter("training, epoch 1", CPU)
    assert meter.read() == {}
    meter.add(terms(1.0, 2.0), ("a", "b", "c"))
    meter.add(terms(5.0, 0.0), ("d",))
    assert meter.read() == {"loss": 3.5, "term0": 2.0, "term1": 1.5}
    assert meter.images == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_meter_blames_the_first_batch_and_its_terms(bad):
    meter = LossMeter("training, epoch 4", CPU)
    meter.add(terms(1.0, 2.0), ("a", "b"))
    meter.add(terms(1.0, bad), ("c", "d"))
    meter.add(terms(bad, bad), ("e", "f"))
    with pytest.raises(SegregError) as caught:
        meter.read()
    assert str(caught.value).startswith('training, epoch 4, batch 2: loss term "term1" is not finite')
    assert "the batch's samples: c and d" in str(caught.value)


def test_a_total_that_overflows_alone_is_blamed_itself():
    meter = LossMeter("training, epoch 1", CPU)
    meter.add({"loss": torch.tensor(math.inf), "term": torch.tensor(3e38)}, ("a",))
    with pytest.raises(SegregError, match='loss term "loss" is not finite'):
        meter.read()


def test_better():
    assert better(0.5, None)
    assert better(0.5, 0.4)
    assert not better(0.5, 0.5)
    assert not better(math.nan, 0.4)
    assert not better(math.nan, None)


def test_a_monitor_negates_losses():
    loss = choose_monitor("val.loss", {"val.loss": False})
    assert loss.oriented({"val.loss": 0.25}) == -0.25
    assert loss.plain(-0.25) == 0.25
    score = choose_monitor("val.dice", {"val.dice": True, "val.loss": False})
    assert score.oriented({"val.dice": 0.25}) == score.plain(0.25) == 0.25


TASKS = [Task(("a",), "binary"), Task(("a", "b", "c"), "multiclass"), Task(("a", "b"), "multilabel")]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
def test_a_monitor_is_checked_without_an_image(task):
    metrics = MetricCollection({"dice": dice(task, 0.5), "mse": mse(task, 0.5)})
    assert check_monitor("val.dice.pooled", metrics, task)
    assert not check_monitor("val.mse.pooled", metrics, task)
    assert not check_monitor("val.loss.dice", metrics, task)
    with pytest.raises(SegregError, match=r'an epoch has no value "val\.dice\.pool"'):
        check_monitor("val.dice.pool", metrics, task)
    assert all(metric.update_count == 0 for metric in metrics.values())
