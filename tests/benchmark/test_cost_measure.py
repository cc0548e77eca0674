"""segreg.benchmark.cost: one network measured in this process, against counts by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import plugged
from segreg.benchmark.cost import measure
from segreg.benchmark.cost.machine import CpuWatch, cpu_seconds
from segreg.benchmark.cost.measure import measure_round, memory_need
from segreg.benchmark.cost.network import Network, Preloaded, count_flops
from segreg.benchmark.cost.record import DEFINITIONS
from segreg.config.recipe import Recipe
from segreg.config.resolve import resolve
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.runtime.device import available_mib, peak_rss_mib
from segreg.task import Task

LESION = Task(("lesion",), "binary")
SETTINGS = {
    "dataset": {"name": "synthetic_lesions", "root": "images"},
    "input": {"size": [32, 32]},
    "encoder": "pair.good",
    "decoder": "pair.last",
    "loss": "dice_bce",
    "optimizer": {"name": "sgd", "lr": 1e6},
    "train": {"batch_size": 2, "device": "cpu", "precision": "float32"},
    "evaluate": {"metrics": ["dice"], "batch_size": 3},
}
"""A network of tests/matrix_parts.py; with a learning rate like this, real steps would end in infinite weights."""


@pytest.fixture(scope="module")
def registry():
    return load_registry([*plugged.builtin(), plugged.point("matrix_parts", distribution="segreg-pairs")])


@pytest.fixture
def recipe(registry):
    """Return the recipe with overrides: `recipe("train.accumulate=2")`."""
    return lambda *overrides: resolve(Recipe(SETTINGS).changed(overrides), registry)


def convolution(height, width, channels, outputs, kernel, groups=1):
    """Return a convolution's operations for one image, by its output's size."""
    return 2 * height * width * outputs * (channels // groups) * kernel**2


# 32x32 pixels: 4x4 of stride 4 gives 8x8, 3x3 of stride 2 gives 4x4; the decoder and the head are 1x1
PAIR = convolution(8, 8, 3, 6, 4) + convolution(4, 4, 6, 8, 3) + convolution(4, 4, 8, 5, 1) + convolution(4, 4, 5, 1, 1)
PAIR_PARAMETERS = (3 * 6 * 16 + 6) + 2 * 6 + (6 * 8 * 9 + 8) + (8 * 5 + 5) + (5 * 1 + 1)


def test_every_cost_is_measured_and_defined(recipe):
    stages = []
    sample = measure_round(recipe(), LESION, seconds=0.0, at=stages.append)
    on_a_gpu = {"training_memory_gpu_mib", "inference_memory_gpu_mib"}
    assert list(sample.values) == [name for name in DEFINITIONS if name not in on_a_gpu]
    assert all(math.isfinite(value) and value > 0 for value in sample.values.values())
    assert sample.values["parameters"] == PAIR_PARAMETERS
    assert sample.values["flops"] == PAIR
    assert sample.values["latency_p50_ms"] <= sample.values["latency_p95_ms"]
    process, inference, training = (
        sample.values[f"{name}_memory_rss_mib"] for name in ("process", "inference", "training")
    )
    assert process <= inference <= training <= peak_rss_mib()
    assert (sample.device, sample.precision, sample.threads) == ("cpu", "float32", torch.get_num_threads())
    assert stages == [
        "in building the network",
        "in predicting batches of 3 images of 32x32",
        "in training on batches of 2 images of 32x32",
        "in counting the network's operations",
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_reports_its_own_memory(recipe):
    sample = measure_round(recipe("train.device=cuda", "train.precision=auto"), LESION, seconds=0.1)
    assert sample.values["training_memory_gpu_mib"] >= sample.values["inference_memory_gpu_mib"] > 0
    assert not [name for name in sample.values if "rss" in name]
    assert sample.device.startswith("cuda:0 (")
    found = memory_need(recipe("train.device=cuda"), LESION)
    assert found.available > found.mib > 0


@pytest.mark.parametrize(
    ("device", "names"),
    [("cuda", ["training_memory_gpu_mib"]), ("cpu", ["training_memory_rss_mib"]), ("mps", [])],
)
def test_the_name_of_a_memory_says_which_it_is(monkeypatch, device, names):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    monkeypatch.setattr(measure, "peak_rss_mib", lambda: 3.0)
    assert measure._memory(torch.device(device), "training") == dict.fromkeys(names, 3.0)


# operations


class Attention(nn.Module):
    """A convolution in groups, attention over its pixels, and a matrix product."""

    def __init__(self, *, looks: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(4, 8, 2, stride=2, groups=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mix = nn.Linear(8, 3)
        self.looks = looks

    def forward(self, image):
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        if self.looks and float(tokens.sum()) == math.pi:
            return tokens
        return self.mix(tokens)


@pytest.mark.parametrize("looks", [False, True], ids=["on shapes", "on values"])
def test_operations_are_those_that_a_hand_counts(looks):
    tokens, width = 6 * 4, 8
    attention = 2 * tokens * width * 3 * width + 2 * tokens**2 * width * 2 + 2 * tokens * width**2
    by_hand = convolution(6, 4, 4, 8, 2, groups=2) + attention + 2 * tokens * width * 3
    assert count_flops(Attention(looks=looks), 4, (12, 8)) == by_hand
    assert torch.backends.mha.get_fastpath_enabled()


def test_operations_of_a_recipe_s_own_attention(recipe):
    """A vision transformer of timm, whose products are counted by what goes through its layers."""
    network = Network.of(recipe("encoder=timm/test_vit", "decoder=pair.last"), LESION)
    seen = []

    def count(module, given, output):
        each = module.weight[0].numel()  # products for one value of the output
        seen.append(2 * output.numel() * each)

    model = network.objective.model
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    tokens, width = [], []
    attentions = [m for m in model.modules() if type(m).__name__ == "Attention"]
    hooks += [m.register_forward_pre_hook(lambda _, given: tokens.append(given[0].shape[1])) for m in attentions]
    hooks += [m.register_forward_pre_hook(lambda _, given: width.append(given[0].shape[2])) for m in attentions]
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert attentions
    products = sum(2 * 2 * n**2 * d for n, d in zip(tokens, width, strict=True))
    assert count_flops(model, 3, (32, 32)) == sum(seen) + products


# steps


def test_training_takes_real_steps_that_leave_the_weights(recipe):
    network = Network.of(recipe("train.accumulate=2", "train.ema=0.9"), LESION)
    before = {name: tensor.clone() for name, tensor in network.objective.state_dict().items()}
    training = network.prepared()
    steps, forwards = [], []
    training.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    network.objective.register_forward_hook(lambda *_: forwards.append(network.objective.training))
    assert network.train(training, steps=3) == 3 * 2 * 2  # steps, batches, images
    assert (len(steps), forwards) == (3, [True] * 6)
    assert training.ema.steps == 3
    after = network.objective.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}


def test_a_frozen_encoder_is_measured_as_most_epochs_train_it(recipe):
    thawing = Network.of(recipe("train.freeze_encoder_epochs=5", "train.epochs=20"), LESION)
    training = thawing.prepared()
    thawing.train(training, steps=1)
    assert all(parameter.requires_grad for parameter in training.encoder_parameters)
    frozen = Network.of(recipe("train.freeze_encoder_epochs=20", "train.epochs=20"), LESION)
    training = frozen.prepared()
    frozen.train(training, steps=1)
    assert not any(parameter.requires_grad for parameter in training.encoder_parameters)


@pytest.mark.parametrize(
    ("task", "shape", "labels"),
    [
        (LESION, (2, 32, 32), 2),
        (Task(("a", "b", "c"), "multiclass"), (2, 32, 32), 3),
        (Task(("a", "b", "c"), "multilabel"), (2, 3, 32, 32), 2),
    ],
    ids=["binary", "multiclass", "multilabel"],
)
def test_random_batches_are_what_the_task_has(recipe, task, shape, labels):
    network = Network.of(recipe("loss=cross_entropy" if task.mode == "multiclass" else "loss=bce"), task)
    images, targets = network.batch.images, network.batch.targets
    assert images.shape == (2, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (targets.shape, targets.dtype, int(targets.max())) == (shape, torch.uint8, labels - 1)
    assert network.predict().shape == (3, task.channels, 32, 32)  # evaluate.batch_size
    assert network.predict(1).dtype == torch.float32
    assert network.train(network.prepared(), steps=1) == 2


def test_an_epoch_of_one_batch_ends_with_a_whole_group(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("segreg.benchmark.cost.network.perf_counter", lambda: float(next(now)))
    batches = Preloaded("batch", steps=2, of=3, seconds=4.5)
    assert len(batches) == 6
    assert (
        list(batches.epoch(1)) == ["batch"] * 3 * 6
    )  # two without a look at the clock, then those begun at 1, 2, 3, 4
    assert list(Preloaded("batch", steps=2, of=1, seconds=0.0).epoch(1)) == ["batch"] * 2


def test_a_network_that_can_t_be_trained_says_why(recipe):
    with pytest.raises(SegregError, match=r"loss term \"dice_bce\" is not finite"):
        measure_round(recipe("decoder=pair.overflowing"), LESION, seconds=0.0)


def test_what_is_needed_is_found_in_two_steps_and_a_prediction(recipe, monkeypatch):
    did, stages = [], []
    monkeypatch.setattr(measure, "available_mib", lambda: 1234.0)
    monkeypatch.setattr(Network, "train", lambda self, training, *, steps: did.append(steps))
    monkeypatch.setattr(Network, "predict", lambda self: did.append("predict"))
    found = memory_need(recipe(), LESION, at=stages.append)
    assert 0 < found.mib <= peak_rss_mib()
    assert (found.available, found.device) == (1234.0, "cpu")
    assert did == [2, "predict"]
    assert stages == [
        "in building the network",
        "in training on batches of 2 images of 32x32",
        "in predicting batches of 3 images of 32x32",
    ]


# the machine


def test_available_memory_is_read_as_linux_reports_it(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  4096000 kB\nMemFree:   1024 kB\nMemAvailable:   2097152 kB\n")
    assert available_mib(file) == 2048
    file.write_text("MemTotal:  4096000 kB\n")
    assert available_mib(file) is None
    assert available_mib(tmp_path / "none") is None


def test_what_others_take_is_what_this_process_does_not(monkeypatch, tmp_path):
    file = tmp_path / "stat"
    # user nice system idle iowait irq softirq steal guest guest_nice: 3 + 1 + 2 + 2 + 1 + 1 busy, 6 + 4 idle
    file.write_text("cpu  300 100 200 600 400 200 100 100 50 0\ncpu0 1 2 3 4\n")
    monkeypatch.setattr("segreg.benchmark.cost.machine.os.sysconf", lambda name: 100)
    assert cpu_seconds(file) == (10.0, 20.0)
    assert cpu_seconds(tmp_path / "none") is None

    system, own = iter([(10.0, 20.0), (13.0, 24.0), (20.0, 50.0), (25.0, 56.0)]), iter([1.0, 2.0, 2.0, 5.0])
    monkeypatch.setattr("segreg.benchmark.cost.machine.cpu_seconds", lambda: next(system))
    monkeypatch.setattr("segreg.benchmark.cost.machine.time.process_time", lambda: next(own))
    watch = CpuWatch()
    assert watch.others is None
    with watch:
        pass
    assert watch.others == pytest.approx((3 - 1) / 4)
    with watch:
        pass
    assert watch.others == pytest.approx((3 - 1 + 5 - 3) / (4 + 6))


def test_a_system_that_reports_nothing_leaves_it_unknown(monkeypatch):
    monkeypatch.setattr("segreg.benchmark.cost.machine.cpu_seconds", lambda: None)
    watch = CpuWatch()
    with watch:
        pass
    assert watch.others is None


def test_the_definition_of_operations_says_what_is_left_out():
    from segreg.benchmark.cost.record import DEFINITIONS

    assert "the taps of plain atrous convolutions that see only padding" in DEFINITIONS["flops"].sentence


def test_a_batch_is_computed_in_parts_where_the_recipe_asks_for_that_alone(recipe, monkeypatch):
    for changes, fits in (
        (("train.batch_size=auto", "train.effective_batch_size=4"), True),
        (("train.batch_size=4",), False),
    ):
        network = Network.of(recipe(*changes), LESION)
        forward = network.objective.forward

        def small(images, *more, forward=forward):
            if len(images) > 2:
                raise torch.OutOfMemoryError("no memory left")
            return forward(images, *more)

        monkeypatch.setattr(network.objective, "forward", small)
        training = network.prepared()
        if fits:
            assert network.train(training, steps=1) == 4
            assert training.micro_batches == 2
        else:
            with pytest.raises(torch.OutOfMemoryError):
                network.train(training, steps=1)
