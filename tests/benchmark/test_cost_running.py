"""segreg.benchmark.cost.running: networks in turn, each in a process of its own, and how one fails."""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from unittest import mock

import pytest

import plugged
from segreg.benchmark.cost import running
from segreg.benchmark.cost.record import DEFINITIONS, Cost, Failed, Measurement, MemoryNeed, NetworkSpec, RoundResult
from segreg.benchmark.cost.running import check_memory, in_a_process, measure, turns
from segreg.benchmark.pool import how_it_ended
from segreg.config.recipe import Recipe
from segreg.config.resolve import resolve
from segreg.registry.registry import load_registry
from segreg.task import Task

pytestmark = pytest.mark.usefixtures("warm_workers")
PARTS = '''
import os, signal
from segreg.registry.entry import Entry
from segreg.errors import SegregError
from segreg.registry.hooks import hookimpl
from segreg.settings import PositiveInt

def net(in_channels, *, width: PositiveInt = 4):
    """One convolution.

    Args:
        width: its channels.
    """
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.channels, self.strides = (width,), (4,)
            self.only = nn.Conv2d(in_channels, width, 4, stride=4)

        def forward(self, image):
            print("words that no one is to see")
            return [self.only(image)]

    return Net()

def dying(in_channels):
    """Take its process with it."""
    os.kill(os.getpid(), signal.SIGKILL)

def leaving(in_channels):
    """End its process."""
    os._exit(3)

def raising(in_channels):
    """Can't be built."""
    raise ValueError("no such\\nluck")

def refusing(in_channels):
    """Can't be built, and says so."""
    raise SegregError("this one needs more colours", hint="give it some")

def large(in_channels):
    """Is too much for a GPU in training."""
    import torch

    made = net(in_channels)
    forward = made.forward

    def too_much(image):
        if made.training:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(image)

    made.forward = too_much
    return made

def greedy(in_channels):
    """Is too much for the machine."""
    import torch

    torch.empty(2**60)

@hookimpl
def segreg_entries():
    builders = (net, dying, leaving, raising, refusing, large, greedy)
    return [Entry("encoder", f"costly.{build.__name__}", build) for build in builders]
'''
SETTINGS = {
    "dataset": {"name": "synthetic_lesions", "root": "images"},
    "input": {"size": [16, 16]},
    "encoder": "costly.net",
    "decoder": {"name": "mlp", "channels": 4},
    "loss": "bce",
    "optimizer": {"name": "adam", "lr": 0.01},
    "train": {"batch_size": 2, "device": "cpu", "precision": "float32"},
    "evaluate": {"metrics": ["dice"]},
}


@pytest.fixture
def subject(tmp_path, monkeypatch):
    """Return a subject with one of the encoders above, which stand in a package that other processes find too."""
    info = tmp_path / "segreg_costly-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: segreg-costly\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[segreg]\ncostly = a_costly_plugin\n", encoding="utf-8")
    (tmp_path / "a_costly_plugin.py").write_text(PARTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    registry = load_registry([*plugged.builtin(), plugged.point("a_costly_plugin", distribution="segreg-costly")])

    def of(encoder, *overrides):
        recipe = resolve(Recipe(SETTINGS).changed([f"encoder=costly.{encoder}", *overrides]), registry)
        return NetworkSpec.of(recipe, Task(("lesion",), "binary"))

    return of


# in processes of their own, where that is what is tested


def in_this_process(spec, job, seconds=0.0):
    sent = []
    with warnings.catch_warnings():
        running._work(sent.append, spec, job, seconds)
    return next(found for found in sent if not isinstance(found, str))


@pytest.mark.slow
def test_networks_of_a_third_party_are_measured_and_failures_are_their_own(subject):
    ends_its_process = ("net", "dying", "leaving")

    def do(spec, *job):
        one = spec.recipe["encoder"]["name"].removeprefix("costly.")
        return in_a_process(spec, *job) if one in ends_its_process else in_this_process(spec, *job)

    names = (*ends_its_process, "raising", "refusing", "large", "greedy")
    with mock.patch.object(running, "in_a_process", do):
        found = measure({name: subject(name) for name in names}, rounds=1, seconds=0.0)
    net = found.of["net"]
    assert net.reason == ""
    assert list(net.costs) == [name for name in DEFINITIONS if "gpu" not in name]
    assert {name: cost.unit for name, cost in net.costs.items()} == {name: DEFINITIONS[name].unit for name in net.costs}
    # 3 -> 4 channels by 4x4 pixels of stride 4: 4x4 of them are left of 16x16
    assert net.costs["flops"].median >= 2 * 4 * 4 * 4 * 3 * 16
    killed = "its process was ended by signal SIGKILL in building the network, as where memory runs out"
    assert {name: one.reason for name, one in found.of.items() if name != "net"} == {
        "dying": killed,
        "leaving": "its process ended with status 3 in building the network",
        "raising": 'the encoder "costly.raising" of segreg-costly 1.0 failed: ValueError: no such luck',
        "refusing": "this one needs more colours",
        "large": "the GPU's memory ran out in training on batches of 2 images of 16x16",
        "greedy": "the machine's memory ran out in building the network",
    }
    assert all(not one.costs and not one.results for name, one in found.of.items() if name != "net")

    needed = in_a_process(subject("net"), "memory")
    assert needed.mib > 0.9 * net.costs["process_memory_rss_mib"].low
    with mock.patch.object(running, "in_a_process", return_value=needed):
        reason = check_memory(subject("net"), jobs=10**9)
    assert reason.startswith("1000000000 runs at a time need ")


def hang(send, *_):
    send("in building the network")
    time.sleep(600)


def test_a_process_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(running, "_work", hang)
    found = in_a_process("subject", "measure", timeout=3.0)
    assert found == Failed("it took longer than 3 s in building the network")


def test_a_recipe_that_the_other_process_can_t_read_says_why(subject):
    gone = subject("net")
    gone = dataclasses.replace(gone, recipe={**gone.recipe, "encoder": "costly.gone"})
    assert in_this_process(gone, "measure") == Failed('there is no encoder "costly.gone"')


def test_a_subject_is_plain_values_that_give_the_recipe_back(subject):
    one = subject("net", "encoder.width=6")
    json.dumps(one.recipe)
    recipe, task = one.resolved(load_registry())
    assert recipe.plain() == one.recipe
    assert recipe.encoder.settings == {"width": 6}
    assert task == Task(("lesion",), "binary")


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [
        (1, "its process ended with status 1"),
        (-11, "its process was ended by signal SIGSEGV"),
        (-9, "its process was ended by signal SIGKILL, as where memory runs out"),
        (-200, "its process was ended by signal 200"),
    ],
)
def test_how_a_process_ended(exitcode, words):
    assert how_it_ended(exitcode) == words


# in turn


def sample(others=None, **values):
    return RoundResult(values, "cpu", "float32", 2, others)


class Named(str):
    """A network that is nothing but its name; what follows a "+" is its loss."""

    @property
    def network(self):
        return self.split("+")[0]


class Scripted:
    """Does jobs by giving what was written down for each network, in the order in which it is asked."""

    def __init__(self, **answers):
        self.answers = {name: iter(given) for name, given in answers.items()}
        self.asked = []

    def __call__(self, subject, job, seconds):
        self.asked.append(subject)
        assert (job, seconds) == ("measure", 0.5)
        return next(self.answers[subject])


def measured(script, rounds):
    with mock.patch.object(running, "in_a_process", script):
        return measure({name: Named(name) for name in script.answers}, rounds=rounds, seconds=0.5)


def test_networks_take_turns_and_every_other_round_goes_backwards():
    assert turns(["a", "b", "c"], 3) == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]
    script = Scripted(**{name: [sample(latency_p50_ms=value) for value in (1.0, 2.0, 3.0)] for name in "abc"})
    measured(script, 3)
    assert script.asked == list("abccbaabc")


def test_rounds_end_when_all_timings_are_precise():
    exact = {name: [sample(latency_p50_ms=1.0, flops=value) for value in (1.0, 5.0)] for name in "ab"}
    script = Scripted(**exact)
    assert measured(script, 5).rounds == 2
    assert script.asked == list("abba")
    # the standard error of 10, 11 is 4.8% of their mean, and of 10, 11, 10.5 it is 2.7%, and with another 10.5 2.0%
    values = (10.0, 11.0, 10.5, 10.5, 10.5)
    script = Scripted(a=[sample(latency_p50_ms=1.0)] * 5, b=[sample(latency_p50_ms=value) for value in values])
    assert measured(script, 5).rounds == 4
    assert script.asked == list("abbaabba")


def test_a_network_is_measured_once_whatever_its_loss():
    script = Scripted(**{"a+bce": [sample(flops=1.0)] * 2, "a+dice": [], "b": [sample(flops=2.0)] * 2})
    found = measured(script, 2)
    assert script.asked == ["a+bce", "b", "b", "a+bce"]
    assert [found.of[name].costs["flops"].median for name in ("a+bce", "a+dice", "b")] == [1.0, 1.0, 2.0]
    assert "measured once, with the loss of the first: a+bce and a+dice" in found.method()


def test_what_a_network_s_costs_depend_on(subject):
    one = subject("net").network
    assert subject("net", "loss=dice", "optimizer.lr=0.1", "train.epochs=3").network == one
    others = ("encoder.width=6", "train.batch_size=4", "input.size=[32,32]", "optimizer={name: sgd, lr: 0.01}")
    assert len({one, *(subject("net", other).network for other in others)}) == 5


def test_costs_are_medians_with_the_smallest_and_the_largest():
    script = Scripted(a=[sample(latency_p50_ms=value, flops=8.0) for value in (5.0, 9.0, 6.0)])
    one = measured(script, 3).of["a"]
    assert one.costs == {"flops": Cost(8.0, 8.0, 8.0, "FLOP"), "latency_p50_ms": Cost(6.0, 5.0, 9.0, "ms")}
    assert (one.reason, len(one.results)) == ("", 3)


def test_what_fails_is_not_measured_again_and_has_no_costs():
    given = [sample(flops=1.0, latency_p50_ms=value) for value in (1.0, 2.0, 3.0)]
    script = Scripted(a=given, b=[sample(flops=1.0), Failed("it broke")], c=given)
    found = measured(script, 3)
    assert script.asked == list("abccbaac")
    assert {name: one.reason for name, one in found.of.items()} == {"a": "", "b": "it broke", "c": ""}
    assert (found.of["b"].costs, len(found.of["b"].results)) == ({}, 1)
    assert found.of["c"].costs["flops"].median == 1.0


def test_the_load_is_noted_before_each_round(monkeypatch):
    loads = iter([0.5, 1.25])
    monkeypatch.setattr("segreg.benchmark.cost.running.load", lambda: next(loads))
    found = measured(Scripted(a=[sample(0.4), sample(0.612)], b=[sample(0.1), sample(0.25)]), 2)
    assert found.load == (0.5, 1.25)
    assert found.method() == [
        "measured on cpu, float32, 2 threads, in 0 s",
        "2 rounds of 0.5 s for each timing, each round in a process of its own",
        "the largest standard error of a timing is 0.0%",
        "measured while other processes took 32% of the machine's CPUs (from 10% to 61%)",
        "load of the machine before each round: 0.50, 1.25",
    ]


def test_what_the_system_does_not_report_is_a_sentence():
    alone = Measurement(measured(Scripted(a=[sample(flops=1.0)]), 1).of, rounds=1, seconds=5.0, load=(None,))
    assert alone.method() == [
        "measured on cpu, float32, 2 threads, in 0 s",
        "1 round of 5 s for each timing, each round in a process of its own",
        "this system does not report how busy other processes kept the machine meanwhile",
    ]
    assert Measurement({}, rounds=1, seconds=5.0).method() == []


@pytest.mark.parametrize(
    ("needed", "jobs", "reason"),
    [
        (MemoryNeed(2048.0, 8192.0, "cpu"), 4, ""),
        (
            MemoryNeed(2048.0, 8191.0, "cpu"), 4,
            "4 runs at a time need 8.0 GiB of memory (2.0 GiB each), and the machine has 8.0 GiB left",
        ),
        (MemoryNeed(3072.0, 2048.0, "cpu"), 1, "it needs 3.0 GiB of memory, and the machine has 2.0 GiB left"),
        (
            MemoryNeed(3072.0, 4096.0, "cuda:0 (a GPU)"), 2,
            "2 runs at a time need 6.0 GiB of memory (3.0 GiB each), and cuda:0 (a GPU) has 4.0 GiB left",
        ),
        (MemoryNeed(3072.0, None, "cpu"), 99, ""),
        (MemoryNeed(None, None, "mps"), 99, ""),
    ],
)  # fmt: skip
def test_runs_that_need_more_than_there_is_don_t_fit(needed, jobs, reason):
    with mock.patch.object(running, "in_a_process", return_value=needed):
        assert check_memory("subject", jobs=jobs) == reason


def test_a_network_that_can_t_be_built_does_not_fit():
    with mock.patch.object(running, "in_a_process", lambda subject, job: Failed(f"no {job} of {subject}")):
        assert check_memory("subject") == "no memory of subject"


def test_definitions_are_sentences_of_their_own():
    assert len({definition.sentence for definition in DEFINITIONS.values()}) == len(DEFINITIONS)
    assert {name for name, one in DEFINITIONS.items() if one.higher_is_better} == {
        "training_images_per_second", "inference_images_per_second",
    }  # fmt: skip
    assert "multiply-add counted as two" in DEFINITIONS["flops"].sentence
    assert "process_memory_rss_mib" in DEFINITIONS["training_memory_rss_mib"].sentence
