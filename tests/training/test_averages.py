"""The mean of weights over epochs against torch's own classes for it, and what of it is validated and saved."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from segreg.training import history
from segreg.training.averages import measure_batch_norm, move
from segreg.training.checkpoint import LAST, STATE, load_state, read_weights
from segreg.training.setup import Setup, prepare
from segreg.training.trainer import average_weights
from segreg_plugins.batch_norm import BatchNorm2d
from tiny_training import CPU, FLOAT32, SETTINGS, BatchLoader, Scale, objective, replace, train

SWA = replace(SETTINGS, epochs=5, swa_start=3)


def test_what_is_saved_is_torchs_average_with_its_batch_norm(tmp_path):
    own, batches, after = objective(dropout=0.0), BatchLoader(), {}

    def observe(epoch, values):
        after[epoch] = copy.deepcopy(own.model)

    train(tmp_path, settings=SWA, objective=own, train=batches, observe=observe)
    average = AveragedModel(after[3])
    for epoch in (3, 4, 5):
        average.update_parameters(after[epoch])
    update_bn((Scale()(batch.images) for batch in batches.epoch(5)), average)
    expected = {name.removeprefix("module."): t for name, t in average.state_dict().items() if name != "n_averaged"}
    found, _ = read_weights(tmp_path / LAST)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    assert load_state(tmp_path / STATE).ema_steps == 3


def test_before_its_start_nothing_differs_and_after_it_training_goes_on_as_without(tmp_path):
    rows = {}
    for name, settings in (("plain", replace(SWA, swa_start=None)), ("swa", SWA)):
        train(tmp_path / name, settings=settings)
        rows[name] = history.read(tmp_path / name)
    pairs = list(zip(rows["plain"], rows["swa"], strict=True))
    assert all(plain["train.loss"] == swa["train.loss"] for plain, swa in pairs)  # the same dropout, too
    assert [plain["val.loss"] == swa["val.loss"] for plain, swa in pairs] == [True, True, False, False, False]


def test_a_frozen_encoder_stays_as_it_is_in_the_average(tmp_path):
    own = objective()
    before = copy.deepcopy(own.model.encoder.state_dict())
    train(tmp_path, settings=replace(SWA, freeze_encoder_epochs=5), objective=own)
    found, _ = read_weights(tmp_path / LAST)
    assert all(torch.equal(found[f"encoder.{name}"], tensor) for name, tensor in before.items())
    assert not torch.equal(found["decoder.1.running_mean"], torch.zeros(6))  # measured, as those that train


def test_what_was_trained_in_micro_batches_is_measured_in_them():
    setup = Setup(
        objective(), partial(torch.optim.SGD, lr=0.1), lambda *given: None, settings=SWA, device=CPU, precision=FLOAT32
    )
    training = prepare(setup, steps_per_epoch=2)
    training.micro_batches, sizes = 3, []
    training.swa.network.normalize.register_forward_hook(lambda module, given, result: sizes.append(len(given[0])))
    average_weights(training, training.swa, BatchLoader(count=7), epoch=3)
    assert sizes == [2, 1, 1, 1, 1, 1]


def test_statistics_that_no_batch_has_stay_as_they_are():
    own = objective()
    own.model.decoder = nn.Sequential(nn.AdaptiveAvgPool2d(1), BatchNorm2d(6), nn.Upsample(scale_factor=8))
    pooled = own.eval().model.decoder[1]
    pooled.running_mean += 3
    pooled.num_batches_tracked += 2
    layers, images = [own.model.encoder[1], pooled], next(BatchLoader().epoch(1)).images
    measure_batch_norm(own, layers, images.split(1))
    assert (pooled.running_mean.tolist(), pooled.num_batches_tracked) == ([3.0] * 6, 2)
    assert own.model.encoder[1].num_batches_tracked == 4
    measure_batch_norm(own, layers, [images])
    assert pooled.num_batches_tracked == 1


def test_a_layer_that_stands_in_two_places_moves_once():
    layer, other = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    layer.num_batches_tracked += 2
    nn.init.constant_(layer.weight, 5.0)
    move(nn.Sequential(other, nn.ReLU(), other), nn.Sequential(layer, nn.ReLU(), layer), 0.25)
    assert other.weight.tolist() == [2.0, 2.0]
    assert other.num_batches_tracked == 2
