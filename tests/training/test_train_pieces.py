"""What the trainer stands on: the moving average, the tally of losses, the monitor, the progress."""

from __future__ import annotations

import copy
import io
import math
import time

import pytest
import torch
from torch import nn

from segreg.errors import SegregError
from segreg.runtime.progress import Bar, Lines, Quiet, duration, progress
from segreg.training.ema import ModelEma
from segreg.training.loss_meter import LossMeter
from segreg.training.monitor import better, choose_monitor
from segreg.training.setup import parameter_groups, scale_rates
from tiny_training import CPU, TinyNet


@pytest.mark.parametrize("decay", [0.0, 0.7, 0.9999])
def test_the_average_follows_its_formula(decay):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    average = ModelEma(network, decay)
    expected = {name: t.double() for name, t in network.state_dict().items()}
    for step in range(1, 40):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn_like(p))
            network(torch.randn(2, 1, 5, 5))
        average.update(network)
        used = min(decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            expected[name] = used * expected[name] + (1 - used) * tensor.double()
    result = average.network.state_dict()
    assert result.pop("1.num_batches_tracked") == 39
    for name, tensor in result.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in average.network.parameters())
    assert not average.network.training


def terms(*values):
    return {"loss": torch.tensor(sum(values)), **{f"term{i}": torch.tensor(v) for i, v in enumerate(values)}}


def test_a_tally_is_the_mean_over_images():
    tally = LossMeter("training, epoch 1", CPU)
    assert tally.read() == {}
    tally.add(terms(1.0, 2.0), ("a", "b", "c"))
    tally.add(terms(5.0, 0.0), ("d",))
    assert tally.read() == {"loss": 3.5, "term0": 2.0, "term1": 1.5}
    assert tally.images == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_tally_blames_the_first_batch_and_its_terms(bad):
    tally = LossMeter("training, epoch 4", CPU)
    tally.add(terms(1.0, 2.0), ("a", "b"))
    tally.add(terms(1.0, bad), ("c", "d"))
    tally.add(terms(bad, bad), ("e", "f"))
    with pytest.raises(SegregError) as caught:
        tally.read()
    assert str(caught.value).startswith('training, epoch 4, batch 2: loss term "term1" is not finite')
    assert "the batch's samples: c and d" in str(caught.value)


def test_a_total_that_overflows_alone_is_blamed_itself():
    tally = LossMeter("training, epoch 1", CPU)
    tally.add({"loss": torch.tensor(math.inf), "term": torch.tensor(3e38)}, ("a",))
    with pytest.raises(SegregError, match='loss term "loss" is not finite'):
        tally.read()


def test_better():
    assert better(0.5, None)
    assert better(0.5, 0.4)
    assert not better(0.5, 0.5)
    assert not better(math.nan, 0.4)
    assert not better(math.nan, None)


def test_a_monitor_turns_losses_round():
    loss = choose_monitor("val.loss", {"val.loss": False})
    assert loss.oriented({"val.loss": 0.25}) == -0.25
    assert loss.plain(-0.25) == 0.25
    score = choose_monitor("val.dice", {"val.dice": True, "val.loss": False})
    assert score.oriented({"val.dice": 0.25}) == score.plain(0.25) == 0.25


def test_every_parameter_is_in_one_group():
    network = TinyNet(auxiliary=True)
    network.head.weight = network.auxiliary.weight  # shared between two parts
    network.extra = nn.Parameter(torch.zeros(2))
    network.encoder[0].bias.requires_grad_(False)
    groups = parameter_groups(network, {"head": 2.0})
    assert [group["name"] for group in groups] == ["encoder", "decoder", "head", "auxiliary", "other"]
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in network.parameters() if p.requires_grad}
    assert groups[-1]["params"][0] is network.extra
    optimizer = torch.optim.SGD(groups, lr=0.5)
    scale_rates(optimizer, {"head": 2.0})
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5, 1.0, 0.5, 0.5]


def test_an_optimizer_that_drops_the_names_can_not_have_factors():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    scale_rates(optimizer, {})
    assert optimizer.param_groups[0]["name"] == "0"
    with pytest.raises(SegregError, match="SGD regroups the parameters"):
        scale_rates(torch.optim.SGD([torch.zeros(1)], lr=0.5), {"encoder": 0.1})


def test_nothing_to_train_is_told():
    network = TinyNet().requires_grad_(False)
    with pytest.raises(SegregError, match="no parameter to train"):
        parameter_groups(network, {})


def test_lines_are_written_now_and_then(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    lines = Lines(stream, every=10.0)
    with lines.watch("epoch 1/3", 8, "batches") as advance:
        for step in range(8):
            now += 4.0
            advance(1, f"loss {step}")
    lines.say("done")
    assert stream.getvalue().splitlines() == [
        "  epoch 1/3: 3/8 batches, 20 s left  loss 2",
        "  epoch 1/3: 6/8 batches, 8 s left  loss 5",
        "done",
    ]


def test_a_bar_shows_what_is_done():
    from rich.console import Console

    stream = io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=100, color_system=None))
    with bar.watch("epoch 1/3", 4, "batches") as advance:
        advance(3, "loss [0.5]")
        bar.say("a [line] that stays")
    text = stream.getvalue()
    assert "epoch 1/3" in text
    assert "3/4" in text
    assert "loss [0.5]" in text
    assert "a [line] that stays\n" in text.replace("\r", "")


def test_progress_fits_its_stream():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert isinstance(progress("auto", io.StringIO()), Lines)
    assert isinstance(progress("auto", Terminal()), Bar)
    assert isinstance(progress("quiet"), Quiet)
    stream = io.StringIO()
    quiet = copy.copy(progress("quiet", stream))
    with quiet.watch("x", None, "files") as advance:
        advance(1, "note")
    quiet.say("nothing")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
