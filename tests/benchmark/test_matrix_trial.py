"""segreg.benchmark.matrix.trial: what a cell says of encoders and decoders that work, and of each way to fail."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import plugged
from segreg.benchmark.matrix.record import EncoderResult, Finished, PairResult
from segreg.benchmark.matrix.trial import Checks, Recorded, first_layer, format_error, on_shapes, results_of
from segreg.config.resolve import choose
from segreg.registry.registry import load_registry
from segreg_plugins.exporters.torch_file import TorchExporter

SMALL = Checks(sizes=((96, 64), (75, 83)), own_size=False, channels=(1, 4))


@pytest.fixture(scope="module")
def registry():
    return load_registry([plugged.point("matrix_parts")])


def cells(registry, encoder, *decoders, checks=SMALL):
    chosen = [choose("decoder", f"pair.{name}", {}, registry) for name in decoders]
    row, *found = results_of(choose("encoder", f"pair.{encoder}", {}, registry), chosen, "pairs", checks)
    return row, {cell.decoder.removeprefix("pair."): cell for cell in found}


def test_a_pair_that_works(registry):
    row, found = cells(registry, "good", "last")
    # 3 * 6 * 4 * 4 + 6 of the first layer, 12 of BatchNorm, 6 * 8 * 9 + 8 of the second
    assert (row.parameters, row.channels, row.strides, row.native) == (294 + 12 + 440, (6, 8), (4, 8), (224, 224))
    cell = found["last"]
    assert cell.ok
    assert (cell.check, cell.reason, cell.notes, cell.strides, cell.dilated) == ("", "", (), (4, 8), False)
    assert cell.parameters == {"encoder": 746, "decoder": 45, "head": 30, "total": 821}


def test_dilated_and_resampled(registry):
    _, found = cells(registry, "dilating", "last", "close", "last")
    assert found["close"].ok
    assert (found["close"].dilated, found["close"].strides, found["close"].notes) == (True, (4, 4), ())
    assert (found["last"].dilated, found["last"].strides) == (False, (4, 8))
    _, found = cells(registry, "good", "close")
    assert found["close"].ok
    assert not found["close"].dilated
    assert found["close"].notes == ("the encoder's level 2 of 2 is resampled from stride 8 to 4",)


def test_what_a_decoder_does_to_its_levels_harms_no_other(registry):
    _, found = cells(registry, "good", "writing", "last", "reading", "last")
    assert [cell.ok for cell in found.values()] == [True, True, True]


@pytest.mark.parametrize(
    ("encoder", "decoder", "check", "reason"),
    [
        (
            "refusing", "last", "the encoder is built",
            'the encoder "pair.refusing" of segreg-lab 1.0 failed: ValueError: no such luck',
        ),
        (
            "lying", "last", "its levels are as declared, 64x64",
            "encoder Net, level 2 of 2, declares stride 16, but gives 8x8 for an image of 64x64, where about 4x4 was expected",  # noqa: E501
        ),
        (
            "grey", "last", "1 channel, 67x93",
            'the encoder "pair.grey" of segreg-lab 1.0 failed: ValueError: colours only',
        ),
        ("frozen", "last", "a training step, 64x64", "no gradient reaches the encoder's first layer fine.0"),
        ("good", "overflowing", "a training step, 64x64", "logits are not finite in training mode"),
        ("good", "even", "75x332", "RuntimeError: sizes must match except in dimension 1"),
    ],
)  # fmt: skip
def test_the_first_check_that_fails_is_the_result(registry, encoder, decoder, check, reason):
    checks = Checks(sizes=((96, 64), (75, 332)), own_size=False, channels=(1,))
    _, found = cells(registry, encoder, decoder, checks=checks)
    assert not found[decoder].ok
    assert (found[decoder].check, found[decoder].reason) == (check, reason)


def test_the_encoder_s_own_size_is_checked(registry, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "segreg.benchmark.matrix.trial.on_shapes", lambda model, _, size: sizes.append(size) or torch.empty(1)
    )
    cells(registry, "good", "last", checks=Checks(channels=()))
    assert sizes == [(224, 224)]
    monkeypatch.setattr(
        "segreg.benchmark.matrix.trial.on_shapes", lambda model, _, size: sizes.append(size) or torch.empty(1, 5, *size)
    )
    cells(registry, "good", "last", checks=Checks(channels=()))
    assert sizes[1:] == [(224, 224), (320, 320), (250, 333), (416, 96)]


def test_shapes_are_those_of_values(registry):
    encoder = choose("encoder", "pair.good", {}, registry).build(3)
    recorded = Recorded(encoder, 3)
    shapes = recorded(torch.empty(1, 3, 75, 83, device="meta"))
    values = recorded(torch.zeros(1, 3, 75, 83))
    assert [level.shape for level in shapes] == [level.shape for level in values]
    assert {level.device.type for level in shapes} == {"meta"}
    assert recorded.finite
    large = recorded(torch.empty(1, 3, 800, 804, device="meta"))
    assert [tuple(level.shape) for level in large] == [(1, 6, 200, 201), (1, 8, 100, 101)]


def test_a_record_does_not_match_an_encoder_with_other_levels(registry):
    encoder = choose("encoder", "pair.good", {}, registry).build(3)
    recorded = Recorded(encoder, 3)
    assert recorded.matches(encoder, (64, 64))
    assert not Recorded(choose("encoder", "pair.good", {}, registry).build(3), 3).matches(encoder, (64, 64))


def test_what_can_not_run_on_shapes_runs_on_values():
    class Reads(nn.Module):
        def forward(self, image):
            return image * float(image.max() > 0)

    assert on_shapes(Reads(), 3, (5, 6)).device.type == "cpu"
    assert on_shapes(nn.Identity(), 3, (5, 6)).device.type == "meta"


def test_the_first_layer_is_the_one_that_runs_first():
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    with first_layer(network) as first:
        network(torch.zeros(1, 3, 2, 2))
    assert first.name == "1"
    assert [tuple(parameter.shape) for parameter in first.parameters] == [(4, 3, 1, 1), (4,)]
    network(torch.zeros(1, 3, 2, 2))
    assert not network[1]._forward_hooks


def test_reasons_are_one_line():
    assert format_error(ValueError("one\n  two\n\nthree")) == "ValueError: one two"
    assert len(format_error(ValueError("x" * 900))) == 300


def test_records_go_through_json(registry):
    import json

    row, found = cells(registry, "good", "last")
    finished = Finished(row, tuple(found.values()), {"segreg": "1"})
    assert Finished.of_data(json.loads(json.dumps(dataclasses.asdict(finished)))) == finished
    assert isinstance(finished.row, EncoderResult)
    assert isinstance(finished.cells[0], PairResult)


def test_an_encoder_of_one_size_is_given_padded_images(registry):
    row, found = cells(registry, "fixed", "last", "last", "close", checks=Checks(sizes=((75, 83),)))
    assert row.native == (96, 96)
    assert all(cell.ok for cell in found.values())
    _, found = cells(registry, "fixed", "last", checks=Checks(sizes=((75, 83), (320, 64))))
    assert (found["last"].check, found["last"].reason) == ("320x64", "96x96 pixels only")


def test_pairs_that_work_are_exported_and_compared(registry, installed, monkeypatch):
    installed(*plugged.builtin())
    checks = Checks(sizes=(), own_size=False, channels=(), exporter="torch")
    _, found = cells(registry, "good", "last", checks=checks)
    assert (found["last"].check, found["last"].exports, found["last"].exporter) == ("", "", "torch")
    right = TorchExporter.load
    monkeypatch.setattr(
        TorchExporter, "load", lambda *given, **named: lambda images: 2 * right(*given, **named)(images)
    )
    _, found = cells(registry, "good", "last", checks=checks)
    assert found["last"].exports == "its logits differ by 100.0% of the largest"
    assert found["last"].ok
