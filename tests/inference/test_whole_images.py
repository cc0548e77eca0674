"""Images at their own size: tiles that score as the whole image does, scales and flips, windows of large files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

import segreg
from segreg.config.sections import Evaluate, Input
from segreg.data.loader import Batch
from segreg.errors import SegregError
from segreg.evaluation.scores import evaluate
from segreg.inference import predictor as module
from segreg.inference.predictor import (
    InferenceConfig,
    InputImage,
    Predictor,
    check_tile,
    common_config,
    described,
    fits_whole,
    logits_of,
    predict,
    predict_labels,
    shown,
)
from segreg.runtime.device import Precision
from segreg.task import Task

CPU = torch.device("cpu")
FLOAT32 = Precision("float32", None, scaler=False, reason="test")
BINARY = Task(("cell",), "binary")
MULTICLASS = Task(("ground", "cell", "edge"), "multiclass")
MULTILABEL = Task(("cat", "dog"), "multilabel")
TASKS = [BINARY, MULTICLASS, MULTILABEL]


class Near(nn.Module):
    """Three convolutions of 3x3 pixels: a receptive field of 7, three to each side. Whole numbers, so nothing rounds.

    The last bias keeps every logit, and any two classes', apart from what a rounded probability could confuse.
    """

    def __init__(self, classes):
        super().__init__()
        drawn = torch.Generator().manual_seed(classes)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
                                    nn.Conv2d(4, classes, 3, padding=1))  # fmt: skip
        for parameter in self.parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape, generator=drawn).float()
        self.layers[-1].bias.data += 0.25 * torch.arange(1, classes + 1)
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return self.layers(images) / 256


class Whole(nn.Module):
    def forward(self, images):
        return (images.float() - 128).div(32).round()


def predictor(task=MULTICLASS, *, size=(24, 32), resize="crop", model=None, threshold=0.5, **config):
    section = Input(size=size, resize=resize)
    return Predictor("run", (model or Near(task.channels)).eval(), Whole(), section, task, threshold, CPU, FLOAT32,
                     InferenceConfig(**config))  # fmt: skip


def images_of(count, height, width, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 3, height // 3, width // 3, generator=drawn)
    smooth = nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    return (smooth * 255).byte().contiguous(memory_format=torch.channels_last)


def targets_of(task, images, seed=1):
    count, _, height, width = images.shape
    shape = (count, *([task.channels] if task.mode == "multilabel" else []), height, width)
    drawn = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, task.highest_label + 1, shape, generator=drawn, dtype=torch.uint8)
    targets[torch.rand(shape, generator=drawn) < 0.1] = 255
    return targets


def scores_of(one, batches):
    names = ("dice", "iou", "accuracy")
    metrics = MetricCollection({name: segreg.build_part("metric", name, one.task, one.threshold) for name in names})

    def predicted(batch):
        yield batch.ids, logits_of(one, batch.images), batch.targets

    return evaluate(predicted, batches, metrics, task=one.task, threshold=one.threshold, device=CPU)


# tiles


@pytest.mark.parametrize(("task", "tile", "overlap"), [
    (BINARY, (24, 32), 0.5), (MULTICLASS, (40, 17), 0.6), (MULTICLASS, (24, 32), 0.5), (MULTILABEL, (16, 200), 0.8),
])  # fmt: skip
def test_tiles_score_exactly_as_whole_images_where_the_network_sees_less_than_they_overlap(task, tile, overlap):
    batches = []
    for number, size in enumerate([(70, 91), (24, 32), (100, 33), (20, 150)]):
        images = images_of(2, *size, seed=number)
        ids = (f"{number}a", f"{number}b")
        batches.append(Batch(images, targets_of(task, images), ids, (2 * number, 2 * number + 1)))
    whole, tiled = predictor(task, tile=None), predictor(task, tile=tile, overlap=overlap)
    for batch in batches:
        labels = [task.labels(logits_of(one, batch.images)) for one in (whole, tiled)]
        assert torch.equal(*labels)
        assert len(labels[0].unique()) > 1
    one, other = scores_of(whole, batches), scores_of(tiled, batches)
    np.testing.assert_array_equal(one.counts, other.counts)
    assert one.values == other.values
    assert one.per_image == other.per_image
    assert {shape[2:] for shape in whole.model.shapes} == {(70, 91), (24, 32), (100, 33), (20, 150)}
    assert all(height <= tile[0] and width <= tile[1] for *_, height, width in tiled.model.shapes)


def test_a_network_that_sees_farther_than_its_tiles_overlap_is_not_scored_as_whole():
    images = images_of(1, 70, 91)
    whole, tiled = predictor(tile=None), predictor(tile=(24, 32), overlap=0)
    assert not torch.equal(*[MULTICLASS.labels(logits_of(one, images)) for one in (whole, tiled)])


@pytest.mark.parametrize("config", [
    {"tile": None}, {"tile": (24, 32)}, {"tile": None, "flips": "flips"}, {"tile": (24, 32), "scales": (0.5, 1.0, 1.7)},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
def test_scores_are_of_the_labels_that_are_predicted(task, config):
    one, images = predictor(task, threshold=0.3, **config), images_of(3, 61, 50)
    scored = task.labels(logits_of(one, images), threshold=0.3).numpy()
    for image, labels in zip(images.permute(0, 2, 3, 1).numpy(), scored, strict=True):
        np.testing.assert_array_equal(predict_labels([one], InputImage(Path("image"), (image,), (None,))), labels)


def test_automatic_tiles_are_of_images_that_are_too_large(monkeypatch):
    monkeypatch.setattr(module, "MOST_PIXELS", 60 * 60)
    one = predictor()
    logits_of(one, images_of(2, 60, 60))
    assert one.model.shapes == [(2, 3, 60, 60)]
    one.model.shapes.clear()
    logits_of(one, images_of(1, 61, 60))
    assert {shape[2:] for shape in one.model.shapes} == {(24, 32)}
    one.model.encoder = type("Encoder", (), {"image_size": (48, 48)})
    assert shown(one, (48, 40), 1.0, one.config)[0] == (48, 40)
    assert shown(one, (49, 40), 1.0, one.config)[0] == (48, 40)
    assert shown(one, (48, 40), 2.0, one.config) == ((24, 24), replace(one.input, size=(48, 48), resize="stretch"))


@pytest.mark.parametrize(("size", "classes", "fits"), [
    ((2048, 2048), 1, True), ((2048, 2049), 1, False), ((1024, 1024), 128, True), ((1024, 1024), 129, False),
])  # fmt: skip
def test_what_fits_whole(size, classes, fits):
    assert fits_whole(size, classes) is fits


def test_images_that_were_resized_to_the_networks_size_are_never_cut():
    one = predictor(resize="stretch", size=(60, 60), tile=(24, 32), flips="mirror")
    logits_of(one, images_of(2, 60, 60))
    assert {shape[2:] for shape in one.model.shapes} == {(60, 60)}


class Windows:
    """An image that lies in a file: only windows of it can be read."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.shape = pixels.shape
        self.read = []

    def __getitem__(self, window):
        rows, columns = window
        self.read.append((rows.start, rows.stop, columns.start, columns.stop))
        return np.array(self.pixels[window])


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0)])
def test_of_a_large_file_a_row_of_tiles_is_read_at_a_time(scales):
    pixels = images_of(1, 400, 90)[0].permute(1, 2, 0).numpy()
    lazy = Windows(pixels)
    one = predictor(tile=(24, 32), overlap=0.25, scales=scales, batch_size=2)
    rows = []
    for _, strips in predict([one], [InputImage(Path("scene"), (lazy,), (None,))]):
        for strip in strips:
            rows.append(strip.labels)
            tops = {top for top, *_ in lazy.read}
            assert len(tops) <= len(scales)  # the row that each scale's tiles have in the image
            assert all(bottom - top <= 24 / min(scales) and right - left <= 32 / min(scales)
                       for top, bottom, left, right in lazy.read)  # fmt: skip
            lazy.read.clear()
    whole = predict_labels([one], InputImage(Path("scene"), (pixels,), (None,)))
    np.testing.assert_array_equal(np.concatenate(rows), whole)


# scales and flips


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
def test_scales_and_flips_against_a_plain_implementation(task):
    images = images_of(2, 60, 45)
    one = predictor(task, tile=None, scales=(0.5, 1.0, 1.75), flips="mirror")
    total = torch.zeros(2, task.channels, 60, 45)
    for height, width in ((30, 22), (60, 45), (105, 79)):
        resized = images
        if (height, width) != (60, 45):
            resized = nn.functional.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
        for mirrored in (False, True):
            seen = resized.flip(3) if mirrored else resized
            with torch.no_grad():
                logits = one.model(Whole()(seen))
            logits = logits.flip(3) if mirrored else logits
            logits = nn.functional.interpolate(logits, size=(60, 45), mode="bilinear", antialias=True)
            total += logits.softmax(1) if task.mode == "multiclass" else logits.sigmoid()
    expected = total / 6
    found = logits_of(one, images)
    torch.testing.assert_close(task.probabilities(found), expected, atol=1e-5, rtol=0)
    plain = task.probabilities(logits_of(predictor(task, tile=None), images))
    assert (plain - expected).abs().max() > 0.05


def test_at_the_same_scale_one_tile_is_the_whole_image():
    images = images_of(1, 60, 45)
    settings = {"scales": (0.5, 0.8), "flips": "flips"}
    whole, tiled = predictor(tile=None, **settings), predictor(tile=(60, 45), **settings)
    assert torch.equal(logits_of(whole, images), logits_of(tiled, images))


# what is said and refused


def test_how_images_are_predicted_in_words():
    assert described(predictor(resize="stretch")) == ""
    whole = "predicted whole at their own size"
    assert described(predictor()) == (
        f"{whole}, in tiles of 24x32 that overlap by 0.25 where they have more than 4,194,304 pixels"
    )
    assert described(predictor(tile=(40, 48), overlap=0.5)) == (
        f"{whole}, in tiles of 40x48 that overlap by 0.5 where they are larger"
    )
    assert described(predictor(tile=None)) == whole
    assert described(predictor(resize="stretch", scales=(0.5, 1.0), flips="mirror")) == (
        "predicted at 0.5 and 1 times their size, also flipped left-right, and probabilities are averaged"
    )


def test_tiles_that_a_network_cannot_take():
    model = nn.Module()
    model.size_divisor = 32
    check_tile(model, InferenceConfig(tile=(32, 40)), "runs/a")
    with pytest.raises(SegregError) as refused:
        check_tile(model, InferenceConfig(tile=(64, 31)), "runs/a")
    assert "runs/a: tiles of 64x31 are too small" in str(refused.value)
    assert "multiples of 32\n  take tiles of about the size" in str(refused.value)
    model.encoder = type("Encoder", (), {"image_size": (64, 64)})
    with pytest.raises(SegregError, match=r"a: tiles of 64x65 are too large .* 64x64 alone\n  take tiles of 64x64"):
        check_tile(model, InferenceConfig(tile=(64, 65)), "runs/a")
    one = predictor(tile=(1, 99))
    one.model.size_divisor = 2
    with pytest.raises(SegregError, match="run: tiles of 1x99 are too small"):
        logits_of(one, images_of(1, 60, 60))


def test_runs_that_are_evaluated_otherwise_need_what_holds_for_both():
    pair = [predictor(flips="mirror"), replace(predictor(), name="other")]
    with pytest.raises(SegregError) as refused:
        common_config(pair)
    assert str(refused.value) == (
        "evaluate.flips of these runs differs: run has mirror, other has none\n  give flips for all of them"
    )
    assert common_config(pair, flips="none") == InferenceConfig()


def test_a_recipe_says_how_its_run_predicts():
    section = Evaluate(tile=(64, 48), overlap=0.5, scales=(0.5, 1.0), flips="mirror")
    of_crops = InferenceConfig(tile=(64, 48), overlap=0.5, scales=(0.5, 1.0), flips="mirror")
    assert InferenceConfig.of(section, Input(resize="crop")) == of_crops
    # Images that are resized to the network's size are scored in no tiles.
    assert InferenceConfig.of(section, Input(resize="stretch")) == replace(of_crops, tile="auto")


# logits of probabilities


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.7, 1.0])
def test_logits_have_the_labels_of_the_probabilities_that_they_come_from(task, threshold):
    drawn = torch.Generator().manual_seed(0)
    near = torch.tensor(threshold, dtype=torch.float32)
    steps = [near.nextafter(torch.tensor(end)) for end in (0.0, 1.0)]
    values = torch.tensor([0.0, 1.0, 1e-30, 1e-7, 0.3, 1 - 6e-8, threshold, *steps])
    probabilities = values[torch.randint(0, len(values), (2, task.channels, 40, 40), generator=drawn)]
    if task.mode == "multiclass":  # also two that are nearly the same
        probabilities[:, 1] = probabilities[:, 0] + torch.randint(-1, 2, (2, 40, 40), generator=drawn) * 3e-8
        probabilities.clamp_(0, 1)
    logits = task.logits_of(probabilities, threshold=threshold)
    assert logits.isfinite().all()
    assert torch.equal(task.labels(logits, threshold=threshold), task.labels_of(probabilities, threshold=threshold))
    if task.mode != "multiclass":
        torch.testing.assert_close(task.probabilities(logits), probabilities, atol=1e-5, rtol=0)
