"""The training loop: what it learns, writes and refuses, when it stops, micro-batches and compiling."""

from __future__ import annotations

import copy
import math
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segreg.errors import SegregError
from segreg.runtime.device import Precision, out_of_memory
from segreg.runtime.progress import Quiet
from segreg.training import history, resume, trainer
from segreg.training.checkpoint import BEST, LAST, STATE, load_state, load_weights, read_weights
from segreg.training.setup import Setup, prepare
from segreg.training.trainer import (
    COMPILE_FROM_STEPS,
    check_scale,
    dry_step,
    is_compiler_error,
    kept_bytes,
    micro_batches_that_fit,
    split,
    use_smaller_micro_batches,
    worth_compiling,
)
from segreg_plugins.optimizers import from_torch
from segreg_plugins.schedules.builders import plateau, step
from tiny_training import CPU, FLOAT32, SETTINGS, Agreement, BatchLoader, Scale, TinyNet, bce, objective, train

PLAIN = {"losses": [("bce", 1.0, bce)], "norm": False, "dropout": 0.0}
SGD = partial(from_torch.build, "SGD", lr=0.1, momentum=0.0)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


def test_it_learns_and_leaves_its_files(tmp_path):
    observed = []
    network, outcome = train(
        tmp_path,
        settings=replace(SETTINGS, epochs=8),
        observe=lambda epoch, values: observed.append((epoch, dict(values))),
    )
    rows = history.read(tmp_path)
    assert [row["epoch"] for row in rows] == list(range(1, 9)) == [epoch for epoch, _ in observed]
    *before, (_, last) = observed
    assert rows[:-1] == [values for _, values in before]
    later = ("seconds", "seconds.checkpoint", "seconds.other")  # which its own checkpoint is added to
    assert {name for name in last if rows[-1][name] != last[name]} <= set(later)
    assert rows[-1]["train.loss"] < 0.8 * rows[0]["train.loss"]
    assert rows[-1]["train.loss"] == pytest.approx(rows[-1]["train.loss.bce"] + 0.5 * rows[-1]["train.loss.dice"])
    assert {"lr.encoder", "lr.decoder", "lr.head", "val.loss", "val.agreement.pixels", "seconds"} <= rows[0].keys()
    best = min(rows, key=lambda row: row["val.loss"])
    assert (outcome.best_epoch, outcome.best_value) == (best["epoch"], best["val.loss"])
    assert (outcome.stopped_because, outcome.epochs, outcome.weights) == ("finished", 8, tmp_path / BEST)
    assert_same(read_weights(tmp_path / LAST)[0], weights(network.model))
    assert read_weights(tmp_path / BEST)[1] == {
        "epoch": str(outcome.best_epoch), "monitor": "val.loss", "value": str(outcome.best_value),
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors", "history.csv", "history.jsonl", "last.safetensors", "state.pt",
    ]  # fmt: skip


def test_the_validation_loss_is_that_of_the_saved_weights(tmp_path):
    for name, ema in (("plain", None), ("averaged", 0.5)):
        train(tmp_path / name, settings=replace(SETTINGS, ema=ema))
        fresh = objective(seed=9)
        load_weights(fresh.model, tmp_path / name / LAST)
        val = BatchLoader(count=6, shuffle=False, seed=1)
        with torch.no_grad():
            terms = fresh.eval()(val.images, val.targets)
        # The mean over images, although the last batch is smaller; dice is a batch's, so that bce is compared.
        assert history.read(tmp_path / name)[-1]["val.loss.bce"] == pytest.approx(terms["bce"].item(), rel=1e-5)


def test_the_same_seed_leads_to_the_same_weights_and_another_does_not(tmp_path):
    one, two, three = (weights(train(tmp_path / str(i), seed=seed)[0]) for i, seed in enumerate((3, 3, 4)))
    assert_same(one, two)
    assert any(not torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize("count", [20, 21, 23])
def test_accumulated_batches_equal_big_ones(tmp_path, count):
    batches = {"train": BatchLoader(count=count)}
    small, _ = train(
        tmp_path / "a", settings=replace(SETTINGS, accumulate=2), build_optimizer=SGD, objective=objective(**PLAIN),
        build_schedule=step_every_epoch, **batches,
    )  # fmt: skip
    big, _ = train(
        tmp_path / "b", train=BatchLoader(count=count, size=8), build_optimizer=SGD, objective=objective(**PLAIN),
        build_schedule=step_every_epoch,
    )  # fmt: skip
    # In batches of 4: two groups of two, and a last one that is incomplete or whose last batch is.
    assert_same(weights(small), weights(big), rtol=1e-5, atol=1e-7)
    assert history.read(tmp_path / "a")[-1]["lr.head"] == history.read(tmp_path / "b")[-1]["lr.head"] < 0.1


def step_every_epoch(optimizer, steps, epochs):
    assert steps == 3
    return step(optimizer, steps, epochs, every_epochs=1, gamma=0.5)


def test_it_does_what_a_loop_by_hand_does(tmp_path):
    network = objective(**PLAIN)
    mine, by_hand = copy.deepcopy(network), network.model.train()
    train(tmp_path, build_optimizer=SGD, objective=mine, build_schedule=lambda *_: None)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for epoch in (1, 2, 3):
        for batch in BatchLoader().epoch(epoch):
            logits = by_hand(batch.images.float() / 255 - 0.5)
            loss = F.binary_cross_entropy_with_logits(logits[:, 0], batch.targets.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert_same(weights(mine.model), weights(by_hand), rtol=1e-5, atol=1e-6)


def test_one_clock_whose_parts_add_up(tmp_path, monkeypatch):
    """The checkpoints' time counts, the last one's too; nothing is counted twice."""

    def slow(*given, real=resume.save_epoch):
        time.sleep(0.1)
        real(*given)

    monkeypatch.setattr(resume, "save_epoch", slow)
    started = time.monotonic()
    _, outcome = train(tmp_path)
    whole = time.monotonic() - started
    rows = history.read(tmp_path)
    for row in rows:
        parts = [seconds for name, seconds in row.items() if name.startswith("seconds.")]
        assert row["seconds"] == pytest.approx(sum(parts), abs=1e-6)
    first, second, third = (row["seconds.checkpoint"] for row in rows)
    assert (first, second >= 0.1, third >= 0.2) == (0, True, True)  # the last one's and the one before
    assert outcome.seconds == pytest.approx(sum(row["seconds"] for row in rows))
    assert 0.3 < outcome.seconds < whole


def test_the_losses_get_the_epoch(tmp_path):
    network, epochs = objective(), []
    network.set_epoch = lambda epoch, epochs_ahead: epochs.append((epoch, epochs_ahead))
    train(tmp_path, objective=network)
    assert epochs == [(1, 3), (2, 3), (3, 3)]


def test_a_term_that_a_networks_own_losses_replace_can_not_be_monitored(tmp_path):
    network = objective()
    network.model.own_losses = {"fit": 1.0, "size": 1.0}
    with pytest.raises(SegregError, match=r'an epoch has no value "train\.loss\.bce"') as raised:
        train(tmp_path, objective=network, settings=replace(SETTINGS, monitor="train.loss.bce"))
    assert all(name in str(raised.value) for name in ("train.loss.fit", "train.loss.size", "val.loss.bce"))


def test_gradients_are_clipped(tmp_path):
    settings = replace(SETTINGS, epochs=1, clip_gradient_norm=1e-3)
    network = objective(**PLAIN)
    before = torch.cat([p.detach().flatten() for p in network.parameters()]).clone()
    train(tmp_path, settings=settings, train=BatchLoader(count=4), build_optimizer=partial(SGD, lr=1.0),
          build_schedule=lambda *_: None, objective=network)  # fmt: skip
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_a_frozen_encoder_stays_bit_for_bit_and_then_learns(tmp_path):
    network = objective()
    start = weights(network.model.encoder)
    seen = {}

    def observe(epoch, values):
        seen[epoch] = weights(network.model.encoder)

    train(tmp_path, settings=replace(SETTINGS, epochs=3, freeze_encoder_epochs=2), objective=network, observe=observe)
    assert_same(seen[1], start)  # BatchNorm's running mean and count among them
    assert_same(seen[2], start)
    assert all(not torch.equal(seen[3][name], start[name]) for name in start)
    assert all(p.requires_grad for p in network.parameters())


def test_what_a_network_freezes_itself_stays_frozen(tmp_path):
    network = objective()
    network.model.encoder[0].weight.requires_grad_(False)
    before = network.model.encoder[0].weight.clone()
    train(tmp_path, settings=replace(SETTINGS, freeze_encoder_epochs=1), objective=network)
    assert torch.equal(network.model.encoder[0].weight, before)


def test_learning_rates_by_component(tmp_path):
    network = objective(**PLAIN)
    before = weights(network.model)
    train(
        tmp_path, settings=replace(SETTINGS, epochs=1, lr_factors={"encoder": 0.1, "head": 2.0}),
        train=BatchLoader(count=4), build_optimizer=SGD, build_schedule=lambda *_: None, objective=network,
    )  # fmt: skip
    reference = objective(**PLAIN)
    train(tmp_path / "1", settings=replace(SETTINGS, epochs=1), train=BatchLoader(count=4), build_optimizer=SGD,
          build_schedule=lambda *_: None, objective=reference)  # fmt: skip
    for name, tensor in network.model.state_dict().items():
        factor = {"encoder": 0.1, "decoder": 1.0, "head": 2.0}[name.split(".")[0]]
        moved = reference.model.state_dict()[name] - before[name]
        torch.testing.assert_close(tensor - before[name], factor * moved, rtol=1e-3, atol=1e-7)
    row = history.read(tmp_path)[0]
    assert (row["lr.encoder"], row["lr.decoder"], row["lr.head"]) == pytest.approx((0.01, 0.1, 0.2))


def test_an_unknown_component_is_refused(tmp_path):
    with pytest.raises(SegregError, match='no component "auxiliary"'):
        train(tmp_path, settings=replace(SETTINGS, lr_factors={"auxiliary": 0.1}))


def test_early_stopping(tmp_path):
    frozen = partial(SGD, lr=1e-30)
    settings = replace(SETTINGS, epochs=9, early_stopping=2)
    _, outcome = train(tmp_path, settings=settings, build_optimizer=frozen, objective=objective(**PLAIN))
    assert (outcome.stopped_because, outcome.epochs, outcome.best_epoch) == ("early stopping", 3, 1)


def test_the_time_budget_stops_after_the_epoch_that_crosses_it(tmp_path):
    _, outcome = train(tmp_path, settings=replace(SETTINGS, time_budget_minutes=1e-9))
    assert (outcome.stopped_because, outcome.epochs) == ("time budget", 1)


def test_whoever_watches_may_stop_a_training_after_an_epoch(tmp_path):
    asked = []

    def stop(epoch, values):
        asked.append((epoch, values["train.loss"]))
        return "seen enough" if epoch == 2 else None

    _, outcome = train(tmp_path, settings=replace(SETTINGS, epochs=9), stop=stop)
    assert (outcome.stopped_because, outcome.epochs) == ("seen enough", 2)
    assert asked == [(row["epoch"], row["train.loss"]) for row in history.read(tmp_path)]
    asked.clear()
    _, outcome = train(tmp_path / "other", settings=replace(SETTINGS, epochs=2), stop=stop)
    assert (outcome.stopped_because, [epoch for epoch, _ in asked]) == ("finished", [1, 2]), "nothing was left to stop"


def test_the_plateau_schedule_sees_negated_losses(tmp_path):
    # The rate is so low that nothing becomes better: with losses not negated, no epoch would count as bad.
    settings = replace(SETTINGS, epochs=4)
    train(tmp_path, settings=settings, build_optimizer=partial(SGD, lr=1e-30), objective=objective(**PLAIN),
          build_schedule=partial(plateau, patience=1, factor=0.5))  # fmt: skip
    assert [row["lr.head"] for row in history.read(tmp_path)] == pytest.approx([1e-30, 1e-30, 1e-30, 5e-31])


def test_a_metric_chooses_by_its_own_direction(tmp_path):
    settings = replace(SETTINGS, epochs=6, monitor="val.agreement.pixels")
    _, outcome = train(tmp_path, settings=settings)
    values = [row["val.agreement.pixels"] for row in history.read(tmp_path)]
    assert outcome.best_value == max(values)
    assert outcome.best_epoch == values.index(max(values)) + 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("val.agreement.pixel", 'did you mean "val.agreement.pixels"'),
        ("dice", 'there are "train.loss", "train.loss.bce", "train.loss.dice", "val.loss"'),
    ],
)
def test_an_unknown_monitor_is_refused_before_anything_trains(tmp_path, name, words):
    network = objective()
    before = weights(network)
    network.model.forward = None  # nothing is predicted either
    with pytest.raises(SegregError, match=words):
        train(tmp_path, settings=replace(SETTINGS, monitor=name), objective=network)
    assert_same(weights(network), before)
    assert list(tmp_path.iterdir()) == []


class Elsewhere(Agreement):
    """A metric that notes where it is and what it is given."""

    places: ClassVar[set[str]] = set()

    def to(self, device):
        self.places.add(device.type)
        return self

    def update(self, logits, target):
        self.places |= {logits.device.type, target.device.type}

    def compute(self):
        return {"agreement.pixels": torch.tensor(0.5)}


def test_metrics_are_computed_where_scores_are(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "scoring_device", lambda device: torch.device("meta"))
    train(tmp_path, settings=replace(SETTINGS, epochs=1), metrics=Elsewhere())
    assert Elsewhere.places == {"meta"}


def test_a_metric_without_direction_can_not_choose(tmp_path):
    metrics = Agreement()
    metrics.clone = lambda: metrics
    metrics.higher_is_better = None
    with pytest.raises(SegregError, match="does not say whether larger is better"):
        train(tmp_path, settings=replace(SETTINGS, monitor="val.agreement.pixels"), metrics=metrics)


def test_a_metric_that_is_never_defined_leaves_the_last_weights(tmp_path):
    class Undefined(Agreement):
        def compute(self):
            return {"agreement.pixels": torch.tensor(math.nan)}

        def clone(self):
            return self

        def items(self, *, copy_state=True):
            return [("agreement", self)]

    settings = replace(SETTINGS, monitor="val.agreement.pixels", early_stopping=2)
    _, outcome = train(tmp_path, settings=settings, metrics=Undefined())
    assert (outcome.stopped_because, outcome.best_epoch, outcome.best_value) == ("early stopping", 0, None)
    assert outcome.weights == tmp_path / LAST


def test_without_validation_a_training_value_is_monitored(tmp_path):
    settings = replace(SETTINGS, monitor="train.loss")
    _, outcome = train(tmp_path, val=BatchLoader(count=0), settings=settings)
    assert outcome.best_value == min(row["train.loss"] for row in history.read(tmp_path))
    with pytest.raises(SegregError, match=r'no value "val\.loss"'):
        train(tmp_path / "other", val=BatchLoader(count=0))


def test_torchmetrics_collections_are_taken(tmp_path):
    from torchmetrics import Metric, MetricCollection

    class Named(Metric):
        higher_is_better = True
        full_state_update = False

        def __init__(self):
            super().__init__()
            self.add_state("right", torch.zeros(()), "sum")
            self.add_state("count", torch.zeros(()), "sum")

        def update(self, logits, target):
            assert logits.dtype == torch.float32
            assert target.dtype == torch.int64
            self.right += ((logits[:, 0] > 0) == (target == 1)).sum()
            self.count += target.numel()

        def compute(self):
            return {"agreement.pixels": self.right / self.count, "agreement.count": self.count}

    settings = replace(SETTINGS, monitor="val.agreement.pixels")
    train(tmp_path / "a", settings=settings, metrics=MetricCollection({"agreement": Named()}))
    train(tmp_path / "b", settings=settings)
    a, b = history.read(tmp_path / "a"), history.read(tmp_path / "b")
    assert [row["val.agreement.pixels"] for row in a] == pytest.approx([row["val.agreement.pixels"] for row in b])
    assert [row["val.agreement.count"] for row in a] == [6 * 16 * 16] * 3  # reset between epochs


# What is not finite.


def spoiled(logits, target):
    """A loss that is NaN where an image of the batch has label 2."""
    value = bce(logits, target.clamp(max=1))
    return torch.where((target == 2).any(), torch.nan, 1.0) * value


@pytest.mark.parametrize("split_name", ["train", "val"])
def test_a_loss_that_is_not_finite_stops_and_is_explained(tmp_path, split_name):
    sound, bad = BatchLoader(), BatchLoader()
    bad.targets[13] = 2
    switching = Switching(sound, bad)
    losses = [("bce", 1.0, lambda logits, target: bce(logits, target.clamp(max=1))), ("spoiled", 1.0, spoiled)]
    with pytest.raises(SegregError) as caught:
        train(tmp_path, objective=objective(losses=losses), **{split_name: switching})
    order = [batch.ids for batch in BatchLoader().epoch(2 if split_name == "train" else 0)]
    number, ids = next((i, ids) for i, ids in enumerate(order) if "image13" in ids)
    doing = "training" if split_name == "train" else "validation"
    text = str(caught.value)
    assert f'{doing}, epoch 2, batch {number + 1}: loss term "spoiled" is not finite' in text
    assert all(identity in text for identity in ids)
    assert "train.clip_gradient_norm=1" in text
    # The epoch before is what is left.
    assert load_state(tmp_path / STATE).epoch == 1
    assert [row["epoch"] for row in history.read(tmp_path)] == [1]
    for file in (BEST, LAST):
        assert all(tensor.isfinite().all() for tensor in read_weights(tmp_path / file)[0].values())


@pytest.mark.parametrize("ignored", [False, True])
def test_an_image_of_which_the_network_returns_nan_is_named_in_validation(tmp_path, ignored):
    class Broken(Scale):
        def forward(self, images):
            return super().forward(images).masked_fill((images == 255).all(dim=(1, 2, 3), keepdim=True), torch.nan)

    def loss(logits, target):
        return bce(logits.nan_to_num(), target) if ignored else bce(logits, target)

    network, val, log = objective(losses=[("bce", 1.0, loss)]), BatchLoader(count=6, shuffle=False), Log()
    network.normalize = Broken()
    val.images[4] = 255
    with nullcontext() if ignored else pytest.raises(SegregError, match="not finite") as caught:
        train(tmp_path, objective=network, val=val, progress=log)
    words = [*log.lines, str(caught and caught.value)]
    assert any('the network returns NaN for 1 of 6 images ("image4")' in line for line in words)


class Switching:
    """Sound batches at first, others from the second epoch on."""

    def __init__(self, first, then):
        self.first, self.then, self.passes = first, then, 0

    def __len__(self):
        return len(self.first)

    def epoch(self, number):
        self.passes += 1
        late = number == 2 or (number == 0 and self.passes > 1)
        return (self.then if late else self.first).epoch(number)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.inf

    steps = iter(range(1000))

    def loss(logits, target):
        value = bce(logits, target)
        # The last batch of the second epoch: no later loss shows what its step does. One call tries the monitor.
        training = logits.requires_grad
        return Explodes.apply(value) if training and next(steps) == 11 else value

    with pytest.raises(SegregError, match=r"epoch 2: NaN or infinite values in \d+ tensors? of the network"):
        train(tmp_path, objective=objective(losses=[("bce", 1.0, loss)]))
    assert load_state(tmp_path / STATE).epoch == 1


# Precision.


def test_bf16_trains_with_float32_weights_and_losses(tmp_path):
    bf16 = Precision("bf16", torch.bfloat16, scaler=False, reason="test")
    seen = []

    def loss(logits, target):
        seen.append(logits.dtype)
        return bce(logits, target)

    network, _ = train(tmp_path, precision=bf16, objective=objective(losses=[("bce", 1.0, loss)]))
    assert set(seen) == {torch.float32}
    assert all(p.dtype == torch.float32 for p in network.parameters())
    rows = history.read(tmp_path)
    assert rows[-1]["train.loss"] < rows[0]["train.loss"]


SCALED = Precision("fp16", None, scaler=True, reason="float32 with fp16's gradient scaler, which a CPU has too")


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_scaled_gradients_are_unscaled_before_clipping_and_stepping(tmp_path, name):
    settings = replace(SETTINGS, clip_gradient_norm=0.05, accumulate=2)
    build = partial(from_torch.build, name, lr=0.01)
    both = [
        train(tmp_path / precision.name, settings=settings, precision=precision, build_optimizer=build)
        for precision in (SCALED, FLOAT32)
    ]
    assert_same(weights(both[0][0]), weights(both[1][0]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("scale", "enabled", "stops"), [(1e-7, True, True), (0.1, True, False), (1e-7, False, False)])
def test_gradients_that_overflow_at_any_scale_end_the_run(scale, enabled, stops):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=enabled)
    with pytest.raises(SegregError, match="epoch 2: gradients are not finite") if stops else nullcontext():
        check_scale(scaler, 2)


def test_a_step_whose_scaled_gradient_overflows_is_skipped_and_the_scale_falls(tmp_path):
    calls = iter(range(100))

    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.inf

    def loss(logits, target):
        value = bce(logits, target)
        return Overflow.apply(value) if logits.requires_grad and next(calls) == 0 else value

    settings = replace(SETTINGS, epochs=1)
    network = objective(losses=[("bce", 1.0, loss)])
    before = weights(network)
    train(tmp_path / "one", settings=settings, precision=SCALED, objective=network, train=BatchLoader(count=4))
    after = weights(network)
    assert all(torch.equal(before[n], after[n]) for n in before if "running" not in n and "batches" not in n)
    assert load_state(tmp_path / "one" / STATE).scaler["scale"] == 32768.0
    # Later steps count, and the state of the scaler is taken up again.
    calls = iter(range(100))
    network = objective(losses=[("bce", 1.0, loss)])
    train(tmp_path / "two", settings=settings, precision=SCALED, objective=network)
    assert any(not torch.equal(before[n], tensor) for n, tensor in weights(network).items() if "weight" in n)
    state = load_state(tmp_path / "two" / STATE)
    train(tmp_path / "two", settings=replace(settings, epochs=2), precision=SCALED, resume=state)
    assert load_state(tmp_path / "two" / STATE).scaler["scale"] == 32768.0


@pytest.mark.slow
def test_compile_compiles_the_objective(tmp_path, monkeypatch):
    compiled = []
    original = nn.Module.compile

    def with_eager_backend(module):  # tracing is PyTorch's; generating C++ takes too long here
        compiled.append(type(module).__name__)
        original(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", with_eager_backend)
    settings = replace(SETTINGS, epochs=2, ema=0.5, compile=True)
    data = {"train": BatchLoader(count=8), "val": BatchLoader(count=4, shuffle=False, seed=1)}  # traced once each
    network, _ = train(tmp_path / "a", settings=settings, objective=objective(dropout=0.0), **data)
    settings = replace(settings, compile=False)
    eager, _ = train(tmp_path / "b", settings=settings, objective=objective(dropout=0.0), **data)
    assert compiled == ["Objective"]
    assert_same(weights(network), weights(eager), rtol=1e-3, atol=1e-5)


# Being interrupted.


class Interrupting(BatchLoader):
    """Raises, or signals, in the middle of the second epoch."""

    how = "ctrl-c"

    def epoch(self, number):
        for index, batch in enumerate(super().epoch(number)):
            if number == 2 and index == 3:
                if self.how == "ctrl-c":
                    raise KeyboardInterrupt
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


class Terminating(Interrupting):
    how = "sigterm"


@pytest.mark.parametrize("batches", [Interrupting, Terminating])
def test_an_interrupt_ends_cleanly_and_resuming_leads_to_the_weights_of_an_unbroken_run(tmp_path, batches):
    said = []

    class Says:
        def say(self, text):
            said.append(text)

        watch = Quiet().watch

    handler = signal.getsignal(signal.SIGTERM)
    _, outcome = train(tmp_path / "broken", train=batches(), progress=Says())
    assert (outcome.stopped_because, outcome.epochs, outcome.best_epoch) == ("interrupted", 1, 1)
    assert f"segreg run --resume {tmp_path / 'broken'}" in said[-1]
    assert read_weights(tmp_path / "broken" / LAST)[1]["epoch"] == "1"
    assert signal.getsignal(signal.SIGTERM) is handler
    train(tmp_path / "broken", resume=load_state(tmp_path / "broken" / STATE))
    train(tmp_path / "whole")
    assert_same(read_weights(tmp_path / "broken" / LAST)[0], read_weights(tmp_path / "whole" / LAST)[0])


def test_an_interrupt_in_the_first_epoch_can_be_resumed(tmp_path):
    class AtOnce(BatchLoader):
        def epoch(self, number):
            raise KeyboardInterrupt

    _, outcome = train(tmp_path / "broken", train=AtOnce())
    assert (outcome.epochs, outcome.weights, outcome.stopped_because) == (0, None, "interrupted")
    train(tmp_path / "broken", resume=load_state(tmp_path / "broken" / STATE))
    train(tmp_path / "whole")
    assert_same(read_weights(tmp_path / "broken" / LAST)[0], read_weights(tmp_path / "whole" / LAST)[0])


def test_a_training_without_batches_is_refused(tmp_path):
    with pytest.raises(SegregError, match="there is no batch to train on"):
        train(tmp_path, train=BatchLoader(count=0), build_schedule=lambda *_: None)


def test_images_keep_the_layout_that_is_asked_for(tmp_path):
    seen = set()

    class Looks(TinyNet):
        def supervised(self, image, targets):
            seen.add(image.is_contiguous(memory_format=torch.channels_last))
            return super().supervised(image, targets)

    for layout in (True, False):
        network = objective()
        network.model = Looks()
        seen.clear()
        train(tmp_path / str(layout), settings=replace(SETTINGS, channels_last=layout), objective=network, device=CPU)
        assert seen == {layout}


# Micro-batches.

ADAM = partial(from_torch.build, "Adam", lr=0.1)
MOMENTUM = partial(from_torch.build, "SGD", lr=0.1, momentum=0.9)


class Small(torch.nn.Module):
    """A normalisation that fails, as a full device does, with more images than fit."""

    def __init__(self, capacity, error=None):
        super().__init__()
        self.capacity, self.given = capacity, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    def forward(self, images):
        self.given.append(len(images))
        if self.training and len(images) > self.capacity:
            raise self.error
        return Scale()(images)


class Log(Quiet):
    """Keep the lines."""

    def __init__(self):
        object.__setattr__(self, "lines", [])

    def say(self, text):
        self.lines.append(text)


def small(capacity, **network):
    network = objective(**network)
    network.normalize = Small(capacity)
    return network


def micro_batches_of(run_dir):
    return history.read(run_dir)[-1]["micro_batches"]


def same(one, other):
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(tensor, other.model.state_dict()[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_out_of_memory_a_run_continues_in_micro_batches_and_learns_the_same(tmp_path, accumulate):
    log = Log()
    settings = replace(SETTINGS, accumulate=accumulate, clip_gradient_norm=1.0)
    given = {"settings": settings, "train": BatchLoader(count=20, size=8), "build_optimizer": MOMENTUM}
    short, _ = train(tmp_path / "short", objective=small(2, **PLAIN), progress=log, **given)
    whole, _ = train(tmp_path / "whole", objective=objective(**PLAIN), **given)
    same(short, whole)
    assert micro_batches_of(tmp_path / "short") == 4
    for one, other in zip(history.read(tmp_path / "short"), history.read(tmp_path / "whole"), strict=True):
        for name in ("train.loss", "val.loss", "val.agreement.pixels"):
            assert one[name] == pytest.approx(other[name], rel=1e-5)
    notices = [line for line in log.lines if str(line).startswith("notice")]
    words = (
        "notice: out of memory; a batch of 8 is now computed in micro-batches of at most {}, and the "
        "optimizer step is still that of the whole batch"
    )
    assert notices == [words.format(4), words.format(2)]


def test_memory_may_run_out_in_the_middle_of_a_step(tmp_path):
    network = objective(**PLAIN)

    class Once(torch.nn.Module):
        calls = 0

        def forward(self, images):
            Once.calls += network.training
            if Once.calls == 4:  # the second batch of the second step: the first one's gradients are there
                Once.calls += 1
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return Scale()(images)

    network.normalize = Once()
    given = {"settings": replace(SETTINGS, accumulate=2), "build_optimizer": MOMENTUM}
    short, _ = train(tmp_path / "short", objective=network, **given)
    whole, _ = train(tmp_path / "whole", objective=objective(**PLAIN), **given)
    same(short, whole)
    assert micro_batches_of(tmp_path / "short") == 2


def test_out_of_memory_a_validation_continues_in_halves(tmp_path):
    class InValidation(Scale):
        def forward(self, images):
            if not self.training and len(images) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(images)

    network = objective(**PLAIN)
    network.normalize = InValidation()
    val = BatchLoader(count=13, size=6, shuffle=False, seed=1)
    train(tmp_path / "short", objective=network, val=val)
    train(tmp_path / "whole", objective=objective(**PLAIN), val=val)
    assert micro_batches_of(tmp_path / "short") == 1  # the training's own
    ours, theirs = (history.read(tmp_path / name)[0] for name in ("short", "whole"))
    assert ours["val.loss"] == pytest.approx(theirs["val.loss"], rel=1e-6)
    assert ours["val.agreement.pixels"] == theirs["val.agreement.pixels"]


def test_one_image_that_does_not_fit_ends_the_run(tmp_path):
    with pytest.raises(SegregError) as raised:
        train(tmp_path, objective=small(0))
    assert str(raised.value).splitlines()[0] == "out of memory: the device can't hold a training step on one image"


def test_several_processes_do_not_split_batches_on_the_way(monkeypatch):
    training = prepared(objective())
    monkeypatch.setattr("segreg.runtime.distributed.count", lambda: 2)
    with pytest.raises(SegregError, match="out of memory: the device can't hold 8 images at once") as raised:
        use_smaller_micro_batches(training, 8, print)
    assert "use a smaller train.batch_size and a larger train.accumulate" in str(raised.value)


def test_errors_of_other_kinds_stay_as_they_are(tmp_path):
    network = objective()
    network.normalize = Small(0, ValueError("no memory of it"))
    with pytest.raises(ValueError, match="no memory of it"):
        train(tmp_path, objective=network)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 5 bytes."), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDNN_STATUS_ALLOC_FAILED"), False),
    ],
)
def test_which_errors_mean_out_of_memory(error, short):
    assert out_of_memory(error) is short


def test_a_cpu_that_runs_out_of_memory():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(raised.value)


@pytest.mark.parametrize(
    ("images", "count", "sizes"), [(8, 1, [8]), (8, 3, [3, 3, 2]), (3, 8, [1, 1, 1]), (5, 2, [3, 2])]
)
def test_micro_batches_differ_by_one_image_at_most(images, count, sizes):
    batch = torch.arange(images), torch.arange(images) * 2
    given = split(batch, count)
    assert [len(image) for image, _ in given] == sizes
    assert torch.equal(torch.cat([target for _, target in given]), batch[1])


def prepared(network, batch_size="auto", device=CPU):
    settings = replace(SETTINGS, batch_size=batch_size)
    return prepare(Setup(network, ADAM, lambda *_: None, settings, device, FLOAT32), steps_per_epoch=1)


def test_what_a_pass_keeps_is_counted_and_nothing_is_changed_by_it():
    network = objective(losses=[("bce", 1.0, bce)])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = prepared(network)
    random_state = torch.get_rng_state()
    batch = next(iter(BatchLoader().epoch(1)))
    one, two = (kept_bytes(training, batch.images[:n], batch.targets[:n]) for n in (1, 2))
    # Of one image: the input and the first level's four maps [6, 8, 8] in float32 at least.
    assert one > 4 * (3 * 16 * 16 + 4 * 6 * 8 * 8)
    assert 1.8 < two / one <= 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(p.grad is None for p in network.parameters())
    assert dry_step(training, batch.images, batch.targets).keys() == {"loss", "bce"}


def test_a_trial_of_the_loss_leaves_a_frozen_encoder_frozen():
    """Several processes try it inside an epoch; running statistics would move from then on."""
    training = prepared(objective())
    training.objective.train()
    trainer.freeze_encoder(training, frozen=True)
    batch = next(iter(BatchLoader().epoch(1)))
    dry_step(training, batch.images, batch.targets)
    assert not any(module.training for module in training.encoder.modules())
    assert training.objective.model.decoder.training


def test_the_number_of_micro_batches_follows_from_the_free_memory(monkeypatch):
    training = prepared(objective())
    batch = next(iter(BatchLoader(size=8).epoch(1)))
    images, targets = batch.images, batch.targets
    each = kept_bytes(training, images[:2], targets[:2]) / 2
    weights = 3 * sum(4 * p.numel() for p in training.objective.parameters())
    for room, wanted in ((8, 1), (7, 2), (4, 2), (3, 4), (1, 8), (0.5, 8)):
        free = (each * room + weights) / trainer.SHARE_OF_MEMORY / 2**20 * 1.001
        monkeypatch.setattr(trainer, "available_mib", lambda free=free: free)
        assert micro_batches_that_fit(training, (images, targets)) == wanted
    monkeypatch.setattr(trainer, "available_mib", lambda: None)
    assert micro_batches_that_fit(training, (images, targets)) == 1
    # In bf16 the weights are kept a second time, once for all images.
    training.precision = Precision("bf16", torch.bfloat16, scaler=False, reason="test")
    free = (kept_bytes(training, images, targets) + weights) / trainer.SHARE_OF_MEMORY / 2**20 * 1.001
    monkeypatch.setattr(trainer, "available_mib", lambda: free)
    assert micro_batches_that_fit(training, (images, targets)) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tries_what_fits():
    training = prepared(small(2), batch_size=4, device=torch.device("cuda:0"))
    batch = next(iter(BatchLoader(size=8).epoch(1)))
    assert micro_batches_that_fit(training, (batch.images.cuda(), batch.targets.cuda())) == 4
    assert all(p.grad is None for p in training.objective.parameters())


def test_auto_is_logged_and_learns_what_the_whole_batch_does(tmp_path, monkeypatch):
    given = {"train": BatchLoader(count=20, size=8), "build_optimizer": MOMENTUM}
    settings = replace(SETTINGS, batch_size="auto", effective_batch_size=8)
    assert settings.batch == 8
    log = Log()
    monkeypatch.setattr("segreg.training.trainer.micro_batches_that_fit", lambda training, batch: 4)
    auto, _ = train(tmp_path / "auto", settings=settings, objective=objective(**PLAIN), progress=log, **given)
    whole, _ = train(tmp_path / "whole", objective=objective(**PLAIN), **given)
    same(auto, whole)
    assert micro_batches_of(tmp_path / "auto") == 4
    assert "batches of 8, in 4 micro-batches" in log.lines


@pytest.mark.parametrize("batch_size", ["auto", 8])
def test_a_resumed_run_keeps_its_micro_batches(tmp_path, monkeypatch, batch_size):
    settings = replace(SETTINGS, batch_size=batch_size, effective_batch_size=8)
    monkeypatch.setattr(trainer, "choose_micro_batches", lambda training, *_: setattr(training, "micro_batches", 4))
    train(tmp_path, settings=settings, train=BatchLoader(size=8), stop=lambda *_: "here")
    monkeypatch.undo()
    monkeypatch.setattr(trainer, "available_mib", lambda: None)
    train(tmp_path, settings=settings, train=BatchLoader(size=8), resume=load_state(tmp_path / STATE))
    assert {row["micro_batches"] for row in history.read(tmp_path)} == {4}


# Compiling.

CUDA = torch.device("cuda")


def test_compile_true_and_false_are_followed():
    assert worth_compiling(True, CPU, 1) == (True, "")
    assert worth_compiling(False, CUDA, 10**6) == (False, "")


def test_auto_compiles_long_runs_on_a_gpu(monkeypatch):
    assert worth_compiling("auto", CPU, 10**6) == (False, "not compiled: no faster on cpu")
    monkeypatch.setattr(trainer.importlib.util, "find_spec", lambda name: name == "triton" or None)
    long, short = COMPILE_FROM_STEPS, COMPILE_FROM_STEPS - 1
    assert worth_compiling("auto", CUDA, long) == (
        True, f"compiled for {long} steps; the first ones take longer",
    )  # fmt: skip
    assert worth_compiling("auto", CUDA, short) == (
        False, f"not compiled: {short} steps are too few to make up for the compile time",
    )  # fmt: skip
    monkeypatch.setattr(trainer.importlib.util, "find_spec", lambda name: None)
    assert worth_compiling("auto", CUDA, long) == (
        False, "not compiled: triton, which generates the GPU code, is not installed",
    )  # fmt: skip


class CompilerError(RuntimeError):
    """An error such as Inductor raises."""


CompilerError.__module__ = "torch._inductor.exc"


def failing(module):
    """In place of nn.Module.compile: the first compiled call fails."""

    def call(*args):
        raise CompilerError("backend='inductor' raised:\nno C++ compiler")

    module._compiled_call_impl = call


def test_with_auto_a_run_continues_where_compiling_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", failing)
    monkeypatch.setattr("segreg.training.trainer.worth_compiling", lambda *_: (True, "compiled, because"))
    log = Log()
    settings = replace(SETTINGS, ema=0.5, compile="auto")
    # Without dropout, which would use other random numbers where a step starts again.
    one, _ = train(tmp_path / "a", settings=settings, objective=objective(dropout=0.0), progress=log)
    other, _ = train(tmp_path / "b", settings=replace(settings, compile=False), objective=objective(dropout=0.0))
    same(one, other)
    assert "notice: compiling failed, and the run continues without it: backend='inductor' raised:" in log.lines


def test_with_true_a_run_ends_where_compiling_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", failing)
    with pytest.raises(SegregError) as raised:
        train(tmp_path, settings=replace(SETTINGS, compile=True))
    assert str(raised.value).splitlines() == [
        "train.compile: this network can't be compiled here: backend='inductor' raised:",
        "  leave train.compile out",
    ]


def test_errors_of_the_network_are_not_compiler_errors():
    assert is_compiler_error(CompilerError())
    assert not is_compiler_error(ValueError("Expected more than 1 value per channel when training"))
