"""Scores against counts made here, in NumPy, from the files and the network, without segreg's data path."""

from __future__ import annotations

import copy
import csv
import json
import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryJaccardIndex

import segreg
import small_runs
import tiny_runs
from segreg.data.loader import Batch
from segreg.errors import SegregError
from segreg.evaluation.scores import ImageScorer, compute_over_processes, disable_sync, evaluate
from segreg.models.segmenter import predict_logits
from segreg.runtime import distributed
from segreg.runtime.device import choose_precision
from segreg.task import Task

CPU = torch.device("cpu")
FLOAT32 = choose_precision("float32", CPU)
INPUT = (32, 32)
SIZE = (44, 60)
"""Of the images: neither square nor a multiple of the input's."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    with small_runs.encoder():
        yield


def test_what_an_apple_gpu_predicts_is_scored_on_the_cpu():
    class Far:
        def __init__(self, tensor):
            self.tensor = tensor

        def to(self, device):
            assert device == CPU
            return self.tensor

    task = Task(("lesion",), "binary")
    metrics = MetricCollection({"dice": segreg.build_part("metric", "dice", task, 0.5)})
    scorer = ImageScorer(metrics, task=task, threshold=0.5, device=torch.device("mps"))
    scorer.add(["a"], Far(torch.ones(1, 1, 4, 4)), Far(torch.ones(1, 4, 4)))
    assert scorer.rows == [{"id": "a", "dice": 1.0}]


def nearest(mask, size):
    """Return the mask resized: each pixel takes the label under its centre."""
    rows = np.floor((np.arange(size[0]) + 0.5) * mask.shape[0] / size[0]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5) * mask.shape[1] / size[1]).astype(int)
    return mask[rows][:, columns]


def fitted_truth(mask, resize):
    """Return the mask as the network's input has it, 255 in a letterbox's border."""
    if resize == "stretch":
        return nearest(mask, INPUT)
    scale = min(INPUT[0] / mask.shape[0], INPUT[1] / mask.shape[1])
    height, width = (round(side * scale) for side in mask.shape)
    top, left = (INPUT[0] - height) // 2, (INPUT[1] - width) // 2
    fitted = np.full(INPUT, 255, np.uint8)
    fitted[top : top + height, left : left + width] = nearest(mask, (height, width))
    return fitted


def dice(tp, fp, fn):
    return 2 * tp / (2 * tp + fp + fn)


def iou(tp, fp, fn):
    return tp / (tp + fp + fn)


def counts(prediction, truth, label):
    counted = truth != 255
    ours, theirs = (prediction == label) & counted, (truth == label) & counted
    return np.array([(ours & theirs).sum(), (ours & ~theirs).sum(), (~ours & theirs).sum()], dtype=float)


def pairs(run, folder, resize, resolution):
    """Return prediction and truth of each test image, as they are to be compared."""
    for name in json.loads(run.directory.split.read_text())["test"]:
        file = folder / "images" / f"{name}.png"
        mask = np.asarray(Image.open(folder / "masks" / f"{name}.png"))
        truth = np.where(mask == 255, 1, mask) if run.task.mode == "binary" else mask
        if resolution == "original":
            yield name, run.predict(file), truth
        else:
            with torch.inference_mode():
                logits = run.model()(run.preprocess(file))[0]
            labels = (logits[0] >= 0).int() if run.task.mode == "binary" else logits.argmax(0)
            yield name, labels.numpy(), fitted_truth(truth, resize)


def recipe(folder, *, classes, resize, resolution, loss):
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {folder}/images, masks: {folder}/masks, classes: {classes}}}",
    )
    text = text.replace("size: [32, 32]", f"size: [32, 32], resize: {resize}").replace(
        "loss: dice_bce", f"loss: {loss}"
    )
    return text.replace("overlays: 2", f"overlays: 0, resolution: {resolution}")


@pytest.mark.parametrize(("resize", "resolution"), [("stretch", "original"), ("letterbox", "input")])
def test_binary_scores_are_those_of_the_files(resize, resolution, tmp_path):
    tiny_runs.folder_dataset(tmp_path, count=24, size=SIZE)
    text = recipe(tmp_path, classes="[disc]", resize=resize, resolution=resolution, loss="dice_bce")
    run = small_runs.run(tmp_path, "augment=[]", text=text)
    each = {name: counts(prediction, truth, 1) for name, prediction, truth in pairs(run, tmp_path, resize, resolution)}
    scored = run.results["metrics"]["test"]
    assert run.results["scored_on"] == "test"
    assert run.results["resolution"] == resolution
    assert 0.05 < dice(*sum(each.values())) < 0.999  # something right and something wrong, or nothing would be compared
    assert scored["dice.pooled"] == pytest.approx(dice(*sum(each.values())), abs=1e-6)
    assert scored["iou.pooled"] == pytest.approx(iou(*sum(each.values())), abs=1e-6)
    assert scored["dice.per_image_mean"] == pytest.approx(np.mean([dice(*c) for c in each.values()]), abs=1e-6)
    assert scored["iou.per_image_mean"] == pytest.approx(np.mean([iou(*c) for c in each.values()]), abs=1e-6)
    with run.directory.per_image.open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows.keys() == each.keys()
    for name, own in each.items():
        assert float(rows[name]["dice"]) == pytest.approx(dice(*own), abs=1e-6)
        assert float(rows[name]["iou"]) == pytest.approx(iou(*own), abs=1e-6)


@pytest.mark.parametrize(("resize", "resolution"), [("stretch", "input"), ("letterbox", "original")])
def test_multiclass_scores_are_those_of_the_files(resize, resolution, tmp_path):
    tiny_runs.folder_dataset(tmp_path, count=24, size=SIZE, classes=3)
    text = recipe(tmp_path, classes="[ground, red, green]", resize=resize, resolution=resolution, loss="cross_entropy")
    run = small_runs.run(tmp_path, "augment=[]", text=text)
    total = {label: np.zeros(3) for label in range(3)}
    right = pixels = 0
    for _, prediction, truth in pairs(run, tmp_path, resize, resolution):
        for label in range(3):
            total[label] += counts(prediction, truth, label)
        right += ((prediction == truth) & (truth != 255)).sum()
        pixels += (truth != 255).sum()
    scored = run.results["metrics"]["test"]
    assert sum(total[1]) + sum(total[2]) > 100
    assert 0.1 < right / pixels < 1
    for label, name in enumerate(["ground", "red", "green"]):
        assert scored[f"dice.class.{name}"] == pytest.approx(dice(*total[label]), abs=1e-6)
        assert scored[f"iou.class.{name}"] == pytest.approx(iou(*total[label]), abs=1e-6)
    assert scored["dice.pooled"] == pytest.approx(np.mean([dice(*total[label]) for label in range(3)]), abs=1e-6)
    assert scored["accuracy.pooled"] == pytest.approx(right / pixels, abs=1e-6)


# The function alone, with logits that are known.


class Given(nn.Module):
    """Return as logits what its image holds."""

    def forward(self, image):
        return image[:, :1].float() - 100


def batch(*images, targets, first=0):
    stacked = torch.stack([torch.full((3, 2, 2), v, dtype=torch.uint8) if isinstance(v, int) else v for v in images])
    indices = tuple(range(first, first + len(images)))
    return Batch(stacked, torch.tensor(targets, dtype=torch.uint8), tuple(f"s{i}" for i in indices), indices)


BINARY = Task(("disc",), "binary")
SETTINGS = {"task": BINARY, "threshold": 0.5, "device": CPU}


def by(network, normalize):
    """Return how a network predicts a batch."""
    return lambda batch: [(batch.ids, predict_logits(network, normalize, batch.images, CPU, FLOAT32), batch.targets)]


BATCHES = [
    batch(200, 0, targets=[[[1, 1], [1, 0]], [[0, 0], [0, 1]]]),
    batch(200, targets=[[[255, 255], [1, 1]]], first=2),
]


def test_counts_stream_over_batches_and_ignored_pixels_do_not_count():
    metrics = MetricCollection({"dice": segreg.build_part("metric", "dice", BINARY, 0.5)})
    scores = evaluate(by(Given(), nn.Identity()), BATCHES, metrics, **SETTINGS)
    # tp 3 + 0 + 2, fp 1 + 0 + 0, fn 0 + 1 + 0
    assert scores.values["dice.pooled"] == pytest.approx(10 / 12)
    assert [row["id"] for row in scores.per_image] == ["s0", "s1", "s2"]
    assert [row["dice"] for row in scores.per_image] == pytest.approx([6 / 7, 0, 1])
    assert scores.values["dice.per_image_mean"] == pytest.approx((6 / 7 + 0 + 1) / 3)
    assert scores.definitions.keys() == scores.values.keys()


def test_sums_of_images_give_them_rows_without_being_counted_again():
    metric = segreg.build_part("metric", "boundary_iou", BINARY, 0.5)
    metrics = MetricCollection({"boundary_iou": metric})
    counted = type(metric)._counted
    with mock.patch.object(type(metric), "_counted", autospec=True, side_effect=counted) as calls:
        scores = evaluate(by(Given(), nn.Identity()), BATCHES, metrics, **SETTINGS)
    assert calls.call_count == 2 * len(BATCHES)
    assert [list(row) for row in scores.per_image] == [["id", "boundary_iou"]] * 3


def test_a_second_call_counts_from_nothing():
    metrics = MetricCollection({"dice": segreg.build_part("metric", "dice", BINARY, 0.5)})
    evaluate(by(Given(), nn.Identity()), BATCHES, metrics, **SETTINGS)
    scores = evaluate(by(Given(), nn.Identity()), BATCHES[1:], metrics, **SETTINGS)
    assert scores.values["dice.pooled"] == 1
    assert [row["id"] for row in scores.per_image] == ["s2"]


def test_a_metric_that_knows_nothing_of_segreg_is_scored_and_named_by_its_class():
    class Jaccard(BinaryJaccardIndex):
        def update(self, logits, target):
            super().update(logits[:, 0], target)

    metrics = MetricCollection({"jaccard": Jaccard(ignore_index=255)})
    scores = evaluate(by(Given(), nn.Identity()), BATCHES, metrics, **SETTINGS)
    assert scores.values == {"jaccard": pytest.approx(5 / 7)}
    assert scores.definitions == {"jaccard": "torchmetrics Jaccard"}
    assert scores.per_image == [{"id": "s0"}, {"id": "s1"}, {"id": "s2"}]


def test_images_of_a_batch_may_be_scored_at_sizes_of_their_own():
    def predict(batch):
        for name, index in zip(batch.ids, batch.indices, strict=True):
            size = (1, 3, 4) if index else (1, 1, 5)
            yield (name,), torch.full((1, *size), -9.0 if index == 1 else 9.0), torch.ones(size, dtype=torch.uint8)

    metrics = MetricCollection({"recall": segreg.build_part("metric", "recall", BINARY, 0.5)})
    scores = evaluate(predict, BATCHES, metrics, **SETTINGS)
    assert [row["id"] for row in scores.per_image] == ["s0", "s1", "s2"]
    assert scores.values["recall.pooled"] == pytest.approx((5 + 12) / (5 + 12 + 12))


def test_images_of_which_the_network_returns_nan_are_named():
    class Broken(Given):
        def forward(self, image):
            return super().forward(image).where(image[:, :1] > 0, torch.nan)

    metrics = MetricCollection({"dice": segreg.build_part("metric", "dice", BINARY, 0.5)})
    scores = evaluate(by(Broken(), nn.Identity()), BATCHES, metrics, **SETTINGS)
    assert scores.nan.tolist() == [False, True, False]
    (alert,) = scores.alerts("test")
    assert alert.startswith(
        'NaN: the network returns NaN for 1 of the 3 images of test ("s1"), whose labels mean nothing'
    )
    assert evaluate(by(Given(), nn.Identity()), BATCHES, metrics, **SETTINGS).alerts("test") == []


def test_a_network_is_scored_without_gradients():
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Dropout(0.9), nn.BatchNorm2d(1)).train()
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    metrics = MetricCollection({"dice": segreg.build_part("metric", "dice", BINARY, 0.5)})
    given = [Batch(images, torch.zeros(2, 4, 4, dtype=torch.uint8), ("a", "b"), (0, 1))]
    evaluate(by(network.eval(), Float()), given, metrics, **SETTINGS)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    logits = predict_logits(network, Float(), images, CPU, FLOAT32)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert torch.equal(logits, predict_logits(network, Float(), images, CPU, FLOAT32))


class Float(nn.Module):
    def forward(self, images):
        return images.float() / 255


def test_logits_are_float32_whatever_the_network_computes_in():
    bf16 = choose_precision("bf16", CPU)
    logits = predict_logits(nn.Conv2d(3, 1, 1), Float(), torch.zeros(1, 3, 4, 4, dtype=torch.uint8), CPU, bf16)
    assert logits.dtype == torch.float32


def test_exact_predictions_do_without_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []

    class Watching(nn.Conv2d):
        def forward(self, images):
            seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
            return super().forward(images)

    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    for exact in (True, False):
        predict_logits(Watching(3, 1, 1), Float(), images, CPU, replace(FLOAT32, exact=exact))
    assert seen == [(False, "highest"), (True, torch.get_float32_matmul_precision())]


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_take_the_layout_of_the_weights(channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    seen = []

    class Watching(Float):
        def forward(self, images):
            seen.append(images.is_contiguous(memory_format=layout))
            return super().forward(images)

    network = nn.Conv2d(3, 2, 3).to(memory_format=layout)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        predict_logits(network, Watching(), given, CPU, FLOAT32)
    assert seen == [True, True]


def test_a_batch_that_memory_has_no_room_for_is_scored_in_halves():
    sizes = []

    class Small(Float):
        def forward(self, images):
            sizes.append(len(images))
            if len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(images)

    network, images = nn.Conv2d(3, 2, 1), torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    logits = predict_logits(network, Small(), images, CPU, FLOAT32)
    torch.testing.assert_close(logits, predict_logits(network, Float(), images, CPU, FLOAT32))
    assert sizes == [5, 3, 2, 1, 2]


def test_what_is_not_defined_is_not_a_number():
    metrics = MetricCollection({"dice": segreg.build_part("metric", "dice", BINARY, 0.5)})
    ignored = [batch(200, targets=[[[255, 255], [255, 255]]])]
    scores = evaluate(by(Given(), nn.Identity()), ignored, metrics, **SETTINGS)
    assert math.isnan(scores.values["dice.pooled"])
    assert math.isnan(scores.per_image[0]["dice"])


class Foreground(Metric):
    """The share of foreground, whose states are reduced as a test says."""

    full_state_update = False

    def __init__(self, reduce="sum"):
        super().__init__()
        for name in ("foreground", "pixels"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx=reduce)

    def update(self, logits, target):
        self.foreground += target.sum()
        self.pixels += target.numel()

    def compute(self):
        return self.foreground / self.pixels


class Wrapping(Metric):
    """Computes with another metric, and has no state of its own."""

    full_state_update = False

    def __init__(self, other):
        super().__init__()
        self.other = other

    def update(self, logits, target):
        self.other.update(logits, target)

    def compute(self):
        return self.other.compute()

    def reset(self):
        super().reset()
        self.other.reset()


class Whole(Foreground):
    full_state_update = True


class Careful(Whole):
    """Knows itself how."""

    def merge_state(self, incoming_state):
        self.foreground, self.pixels = (getattr(self, n) + incoming_state[n] for n in ("foreground", "pixels"))


@pytest.mark.parametrize("metric", [Foreground(), Wrapping(Foreground()), Careful("mean"), Wrapping(Careful("mean"))])
def test_the_states_of_two_processes_are_those_of_one(metric, monkeypatch):
    metrics, other = (MetricCollection({"share": copy.deepcopy(metric)}) for _ in range(2))
    monkeypatch.setattr(distributed, "count", lambda: 2)
    disable_sync(metrics)
    assert not any(part.distributed_available_fn() for part in metrics.modules() if isinstance(part, Metric))
    for each, images in ((metrics, 3), (other, 1)):
        each.update(torch.zeros(images, 1, 2, 2), torch.full((images, 2, 2), int(each is other)))
    states = [[dict(part.metric_state) for part in other.modules() if isinstance(part, Metric)]]
    monkeypatch.setattr(distributed, "gathered", lambda own: [own, *states])
    monkeypatch.setattr(distributed, "is_main", lambda: True)
    monkeypatch.setattr(distributed, "from_main", lambda make: make())
    assert compute_over_processes(metrics) == {"share": 0.25}


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (Foreground("mean"), 'its state "foreground" is not reduced by sum, max, min or cat'),
        (Wrapping(Foreground(torch.mean)), 'its state "foreground" is not reduced by sum, max, min or cat'),
        (Foreground(None), 'its state "foreground" is not reduced by sum, max, min or cat'),
        (Whole(), "torchmetrics asks for full_state_update = False"),
    ],
)
def test_a_metric_that_two_processes_would_compute_otherwise_is_refused(metric, reason, monkeypatch):
    metrics = MetricCollection({"share": metric})
    assert disable_sync(metrics) is metrics  # of one process
    monkeypatch.setattr(distributed, "count", lambda: 2)
    with pytest.raises(SegregError) as refused:
        disable_sync(metrics)
    assert str(refused.value) == (
        f'the metric "share" can\'t merge the state of another process: {reason}\n'
        "  it may have a merge_state of its own; a single process can score it"
    )
