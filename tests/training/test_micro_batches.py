"""BatchLoader computed in parts: the same step, begun anew in smaller parts where the memory does not suffice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from segreg.errors import SegregError
from segreg.runtime.device import out_of_memory
from segreg.runtime.progress import Quiet
from segreg.training import history
from segreg.training import micro_batches as parts
from segreg.training.micro_batches import dry_step, kept_bytes, micro_batches_that_fit, split, use_smaller_micro_batches
from segreg.training.setup import prepare
from segreg_plugins.optimizers import from_torch
from tiny_training import CPU, FLOAT32, SETTINGS, BatchLoader, Scale, bce, objective, train

ADAM = partial(from_torch.build, "Adam", lr=0.1)
SGD = partial(from_torch.build, "SGD", lr=0.1, momentum=0.9)
PLAIN = {"losses": [("bce", 1.0, bce)], "norm": False, "dropout": 0.0}


class Small(torch.nn.Module):
    """A normalisation that fails, as a full device does, where it is given more images than there is room for."""

    def __init__(self, room, error=None):
        super().__init__()
        self.room, self.given = room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    def forward(self, images):
        self.given.append(len(images))
        if self.training and len(images) > self.room:
            raise self.error
        return Scale()(images)


class Told(Quiet):
    """Keep what is said."""

    def __init__(self):
        object.__setattr__(self, "lines", [])

    def say(self, text):
        self.lines.append(text)


def small(room, **network):
    network = objective(**network)
    network.normalize = Small(room)
    return network


def parts_of(run_dir):
    return history.read(run_dir)[-1]["parts"]


def same(one, other):
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(tensor, other.model.state_dict()[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_whose_memory_is_short_goes_on_in_smaller_parts_and_learns_the_same(tmp_path, accumulate):
    told = Told()
    settings = replace(SETTINGS, accumulate=accumulate, clip_gradient_norm=1.0)
    given = {"settings": settings, "train": BatchLoader(count=20, size=8), "build_optimizer": SGD}
    short, _ = train(tmp_path / "short", objective=small(2, **PLAIN), progress=told, **given)
    whole, _ = train(tmp_path / "whole", objective=objective(**PLAIN), **given)
    same(short, whole)
    assert parts_of(tmp_path / "short") == 4
    for one, other in zip(history.read(tmp_path / "short"), history.read(tmp_path / "whole"), strict=True):
        for name in ("train.loss", "val.loss", "val.agreement.pixels"):
            assert one[name] == pytest.approx(other[name], rel=1e-5)
    notices = [line for line in told.lines if line.startswith("notice")]
    words = (
        "notice: the device's memory did not suffice; a batch of 8 is now computed in parts of at most {}, and the "
        "optimizer's step stays one of the whole batch"
    )
    assert notices == [words.format(4), words.format(2)]


def test_the_memory_may_run_short_in_the_middle_of_a_step(tmp_path):
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
    given = {"settings": replace(SETTINGS, accumulate=2), "build_optimizer": SGD}
    short, _ = train(tmp_path / "short", objective=network, **given)
    whole, _ = train(tmp_path / "whole", objective=objective(**PLAIN), **given)
    same(short, whole)
    assert parts_of(tmp_path / "short") == 2


def test_a_validation_whose_memory_is_short_goes_on_in_smaller_parts(tmp_path):
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
    assert parts_of(tmp_path / "short") == 2
    ours, theirs = (history.read(tmp_path / name)[0] for name in ("short", "whole"))
    assert ours["val.loss"] == pytest.approx(theirs["val.loss"], rel=1e-6)
    assert ours["val.agreement.pixels"] == theirs["val.agreement.pixels"]


def test_one_image_that_does_not_fit_ends_the_run(tmp_path):
    with pytest.raises(SegregError) as raised:
        train(tmp_path, objective=small(0))
    assert str(raised.value).splitlines()[0] == "the device's memory does not suffice for a training step on one image"


def test_several_processes_do_not_change_it_on_the_way(monkeypatch):
    training = prepared(objective())
    monkeypatch.setattr("segreg.runtime.distributed.count", lambda: 2)
    with pytest.raises(SegregError, match="the device's memory does not suffice for 8 images at once") as raised:
        use_smaller_micro_batches(training, 8, print)
    assert "take a smaller train.batch_size, and a larger train.accumulate" in str(raised.value)


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
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDNN_STATUS_ALLOC_FAILED"), False),
    ],
)
def test_which_errors_tell_of_memory(error, short):
    assert out_of_memory(error) is short


def test_the_processor_says_that_its_memory_does_not_suffice():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(raised.value)


@pytest.mark.parametrize(
    ("images", "in_parts", "sizes"), [(8, 1, [8]), (8, 3, [3, 3, 2]), (3, 8, [1, 1, 1]), (5, 2, [3, 2])]
)
def test_parts_differ_by_one_image_at_most(images, in_parts, sizes):
    batch = torch.arange(images), torch.arange(images) * 2
    given = split(batch, in_parts)
    assert [len(image) for image, _ in given] == sizes
    assert torch.equal(torch.cat([target for _, target in given]), batch[1])


def prepared(network, batch_size="auto"):
    return prepare(
        network, steps_per_epoch=1, build_optimizer=ADAM, build_schedule=lambda *_: None,
        settings=replace(SETTINGS, batch_size=batch_size), device=CPU, precision=FLOAT32,
    )  # fmt: skip


def test_what_a_pass_keeps_is_counted_and_nothing_is_changed_by_it():
    network = objective(losses=[("bce", 1.0, bce)])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = prepared(network)
    draws = torch.get_rng_state()
    batch = next(iter(BatchLoader().epoch(1)))
    one, two = (kept_bytes(training, batch.images[:n], batch.targets[:n]) for n in (1, 2))
    # Of one image: the input and the first level's four maps [6, 8, 8] in float32 at least.
    assert one > 4 * (3 * 16 * 16 + 4 * 6 * 8 * 8)
    assert 1.8 < two / one <= 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(p.grad is None for p in network.parameters())
    assert dry_step(training, batch.images, batch.targets).keys() == {"loss", "bce"}


def test_as_many_parts_are_taken_as_a_share_of_the_free_memory_asks_for(monkeypatch):
    training = prepared(objective())
    batch = next(iter(BatchLoader(size=8).epoch(1)))
    images, targets = batch.images, batch.targets
    each = kept_bytes(training, images[:2], targets[:2]) / 2
    weights = 3 * sum(4 * p.numel() for p in training.objective.parameters())
    for room, wanted in ((8, 1), (7, 2), (4, 2), (3, 4), (1, 8), (0.5, 8)):
        free = (each * room + weights) / parts.SHARE_OF_MEMORY / 2**20 * 1.001
        monkeypatch.setattr(parts, "available_mib", lambda free=free: free)
        assert micro_batches_that_fit(training, (images, targets)) == wanted
    monkeypatch.setattr(parts, "available_mib", lambda: None)
    assert micro_batches_that_fit(training, (images, targets)) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tries_out_what_fits():
    training = prepare(
        small(2), steps_per_epoch=1, build_optimizer=ADAM, build_schedule=lambda *_: None,
        settings=SETTINGS, device=torch.device("cuda:0"), precision=FLOAT32,
    )  # fmt: skip
    batch = next(iter(BatchLoader(size=8).epoch(1)))
    assert micro_batches_that_fit(training, (batch.images.cuda(), batch.targets.cuda())) == 4
    assert all(p.grad is None for p in training.objective.parameters())


def test_auto_is_told_and_learns_what_the_whole_batch_does(tmp_path, monkeypatch):
    given = {"train": BatchLoader(count=20, size=8), "build_optimizer": SGD}
    settings = replace(SETTINGS, batch_size="auto", effective_batch_size=8)
    assert settings.batch == 8
    told = Told()
    monkeypatch.setattr("segreg.training.trainer.micro_batches_that_fit", lambda training, batch: 4)
    auto, _ = train(tmp_path / "auto", settings=settings, objective=objective(**PLAIN), progress=told, **given)
    whole, _ = train(tmp_path / "whole", objective=objective(**PLAIN), **given)
    same(auto, whole)
    assert parts_of(tmp_path / "auto") == 4
    assert "batches of 8, in 4 parts" in told.lines
