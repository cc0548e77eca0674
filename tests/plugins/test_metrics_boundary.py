"""Boundary IoU against loops over pixels and against OpenCV's erosion, and that it streams like the other metrics."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torchmetrics import MetricCollection

from segreg.errors import SegregError
from segreg.settings import check_value, settings_of
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.metrics.boundary import contour_reach, near_contour
from segreg_plugins.metrics.builders import boundary_iou, iou

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("background", "road", "car", "tree"), "multiclass")
MULTILABEL = Task(("cell", "nucleus", "wall"), "multilabel")
TASKS = [BINARY, MULTICLASS, MULTILABEL]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)


def draw(task, *, images=4, size=(17, 23), seed=0, ignored=0.0):
    """Return logits and a target of blobs, as images have them: single pixels would be nothing but contours."""
    generator = torch.Generator().manual_seed(seed)

    def blobs(channels):
        coarse = torch.randn(images, channels, size[0] // 4 + 1, size[1] // 4 + 1, generator=generator)
        return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")

    truth = blobs(task.channels)
    logits = truth + 0.6 * blobs(task.channels)
    target = truth.argmax(1) if task.mode == "multiclass" else (truth > 0).long()
    target = target[:, 0] if task.mode == "binary" else target
    hole = torch.rand(target.shape, generator=generator) < ignored
    return logits, target.masked_fill(hole, IGNORE_INDEX)


def layers(task, logits, target):
    """Return truth, prediction and what is known as bool `[B, K, H, W]` arrays."""
    labels = task.labels(logits)
    if task.mode == "multiclass":
        parts = [torch.stack([each == k for k in range(task.channels)], 1) for each in (target, labels)]
        return parts[0].numpy(), parts[1].numpy(), (target != IGNORE_INDEX).unsqueeze(1).expand_as(logits).numpy()
    target, labels = target.view_as(logits), labels.view_as(logits)
    return (target == 1).numpy(), (labels == 1).numpy(), (target != IGNORE_INDEX).numpy()


def band_by_loops(area, known, reach):
    """Return the pixels near the contour by looking at the neighbours of every pixel."""
    height, width = area.shape
    band, outside = np.zeros_like(area), known & ~area
    for row, column in zip(*np.nonzero(area & known), strict=True):
        inside = reach <= row < height - reach and reach <= column < width - reach
        near = outside[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        band[row, column] = not inside or near.any()
    return band


def ratios(truth, found):
    """Return the mean IoU over the classes `[K, ...]` that are in one of both, 1 where none is."""
    each = [(t & f).sum() / (t | f).sum() for t, f in zip(truth, found, strict=True) if (t | f).any()]
    return np.mean(each) if each else 1.0


def streamed(metric, logits, target, sizes=2):
    metric.reset()
    for part in zip(logits.split(sizes), target.split(sizes), strict=True):
        metric.update(*part)
    return metric.compute()


@every_task
@pytest.mark.parametrize("ratio", [0.02, 0.08, 0.2])
@pytest.mark.parametrize("ignored", [0.0, 0.1])
def test_values_are_those_of_loops(task, ratio, ignored):
    logits, target = draw(task, ignored=ignored)
    truth, found, known = layers(task, logits, target)
    reach = contour_reach(17, 23, ratio)
    truth, found = (
        np.array([band_by_loops(areas[place], known[place], reach) for place in np.ndindex(areas.shape[:2])])
        .reshape(areas.shape)
        for areas in (truth, found)
    )  # fmt: skip
    metric = boundary_iou(task, 0.5, dilation_ratio=ratio)
    values = streamed(metric, logits, target)
    together = [np.moveaxis(bands, 1, 0) for bands in (truth, found)]
    assert values["boundary_iou.pooled"] == pytest.approx(ratios(*together), abs=1e-12)
    by_image = [ratios(*pair) for pair in zip(truth, found, strict=True)]
    assert values["boundary_iou.per_image_mean"] == pytest.approx(np.mean(by_image), abs=1e-12)
    own = metric.scores_of_sums(metric.sums(logits, target))["boundary_iou.pooled"]
    assert own.tolist() == pytest.approx(by_image, abs=1e-12)
    for k, name in enumerate(task.classes if task is not BINARY else ()):
        own = ratios(together[0][k : k + 1], together[1][k : k + 1])
        assert values[f"boundary_iou.class.{name}"] == pytest.approx(own, abs=1e-12)


@pytest.mark.parametrize("reach", [1, 2, 7, 40])
def test_what_is_near_is_what_erosion_takes_away(reach):
    area = draw(BINARY, size=(61, 47), images=1)[1].bool()[0]
    area[20:40, :12] = True  # reaches the image's edge
    padded = np.pad(area.numpy().astype(np.uint8), 1)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
    band = near_contour(area, torch.ones_like(area), reach)
    assert np.array_equal(band.numpy(), area.numpy() & (eroded == 0))
    assert band.any()


@pytest.mark.parametrize(("size", "ratio", "reach"), [
    ((256, 256), 0.02, 7), ((480, 640), 0.02, 16), ((10, 10), 0.02, 1), ((3, 4), 0.5, 2),
])  # fmt: skip
def test_the_reach_is_a_share_of_the_diagonal(size, ratio, reach):
    assert contour_reach(*size, ratio) == reach


def test_a_wrong_contour_costs_more_than_in_the_iou():
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    distance = torch.hypot(rows - 99.5, columns - 99.5)
    target, logits = (distance < 80).long()[None], (75 - distance)[None, None]
    near = streamed(boundary_iou(BINARY, 0.5), logits, target)["boundary_iou.pooled"]
    whole = streamed(iou(BINARY, 0.5), logits, target)["iou.pooled"].item()
    assert whole == pytest.approx((75 / 80) ** 2, abs=0.01)
    assert near < 0.25
    # A reach as large as the image leaves nothing out.
    wide = streamed(boundary_iou(BINARY, 0.5, dilation_ratio=1.0), logits, target)["boundary_iou.pooled"]
    assert wide == pytest.approx(whole, abs=1e-12)


def test_an_ignored_strip_makes_no_contour():
    target = torch.ones(1, 30, 30).long()
    target[:, :, 12:18] = IGNORE_INDEX
    logits = torch.full((1, 1, 30, 30), 4.0)
    known = (target != IGNORE_INDEX)[:, None]
    band = near_contour((target == 1)[:, None], known, 2)[0, 0]
    assert band[:, :2].all()
    assert band[2:-2, 2:12].sum() == 0
    logits[..., 12:18] = -4.0  # whatever is said there
    assert streamed(boundary_iou(BINARY, 0.5), logits, target, 1)["boundary_iou.pooled"] == 1


@every_task
def test_batches_and_processes_do_not_matter(task):
    logits, target = draw(task, images=5, ignored=0.05)
    whole = streamed(boundary_iou(task, 0.5), logits, target, 5)
    for sizes in (1, 2, [1, 3, 1]):
        for name, value in streamed(boundary_iou(task, 0.5), logits, target, sizes).items():
            assert value == pytest.approx(whole[name].item(), abs=1e-12)
    parts = [boundary_iou(task, 0.5) for _ in range(3)]
    parts[0].update(logits[:2], target[:2])
    parts[1].update(logits[2:], target[2:])
    parts[2].update(logits[:0], target[:0])
    total = parts[2]
    for state, reduce in total._reductions.items():
        setattr(total, state, reduce(torch.stack([getattr(part, state) for part in parts])))
    for name, value in total.compute().items():
        assert value == pytest.approx(whole[name].item(), abs=1e-12)


@every_task
def test_what_is_empty(task):
    logits, target = draw(task)
    nothing = streamed(boundary_iou(task, 0.5), logits, torch.full_like(target, IGNORE_INDEX))
    assert all(value.isnan() for value in nothing.values())
    if task.mode == "multiclass":
        logits, target = torch.zeros_like(logits), target * 0
        logits[:, 0] = 5.0
    else:
        logits, target = torch.full_like(logits, -5.0), target * 0
    empty = streamed(boundary_iou(task, 0.5), logits, target)
    assert empty["boundary_iou.pooled"] == empty["boundary_iou.per_image_mean"] == 1


def test_classes_left_out_are_not_in_the_mean():
    logits, target = draw(MULTICLASS)
    found = streamed(boundary_iou(MULTICLASS, 0.5, exclude=("background", "car")), logits, target)
    each = [found[f"boundary_iou.class.{name}"] for name in ("road", "tree")]
    assert found["boundary_iou.pooled"] == pytest.approx(float(sum(each) / 2), abs=1e-12)
    with pytest.raises(SegregError, match='did you mean "road"'):
        boundary_iou(MULTICLASS, 0.5, exclude=("raod",))


def test_a_collection_keeps_other_settings_apart_though_their_first_batches_agree():
    metrics = {
        "near": boundary_iou(BINARY, 0.5), "far": boundary_iou(BINARY, 0.5, dilation_ratio=0.3),
        "iou": iou(BINARY, 0.5), "low": boundary_iou(BINARY, 0.1),
    }  # fmt: skip
    together = MetricCollection({name: metric.clone() for name, metric in metrics.items()})
    empty = torch.full((1, 1, 17, 23), -9.0), torch.zeros(1, 17, 23).long()
    logits, target = draw(BINARY)
    for metric in (together, *metrics.values()):
        metric.update(*empty)
        metric.update(logits, target)
    assert sorted(together.compute_groups.values()) == [["far"], ["iou"], ["low"], ["near"]]
    found = together.compute()
    for name in ("near", "far", "low"):
        assert found[f"{name}_boundary_iou.pooled"] == metrics[name].compute()["boundary_iou.pooled"]


@every_task
def test_every_value_is_defined_formatted(task):
    metric = boundary_iou(task, 0.4, dilation_ratio=0.05)
    found = streamed(metric, *draw(task))
    assert list(metric.definitions) == list(found)
    for name, sentence in metric.definitions.items():
        assert sentence.endswith(".")
        assert "d is 0.05 of the diagonal of what is scored, rounded to pixels and at least 1" in sentence
        assert ("0.4" in sentence) == (task.mode != "multiclass")
        assert ("all images together" in sentence) == (not name.endswith("per_image_mean"))


@every_task
def test_counting_waits_for_no_device(task):
    logits, target = draw(task)
    metric = boundary_iou(task, 0.5)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        metric.update(fake.from_tensor(logits), fake.from_tensor(target))
        found = metric.scores_of_sums(metric.sums(fake.from_tensor(logits), fake.from_tensor(target)))
    assert found["boundary_iou.pooled"].shape == (4,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_task
def test_the_gpu_counts_the_same_and_is_never_waited_for(task):
    logits, target = draw(task, ignored=0.1)
    expected = streamed(boundary_iou(task, 0.5), logits, target, 4)
    metric = boundary_iou(task, 0.5).cuda()
    logits, target = logits.cuda(), target.cuda()
    metric.update(logits, target)
    metric.reset()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(logits, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name, value in metric.compute().items():
        assert value.item() == pytest.approx(expected[name].item(), abs=1e-12)


def test_labels_that_the_task_does_not_have_are_reported():
    logits, target = draw(MULTICLASS)
    target[0, 0, :3] = 7
    metric = boundary_iou(MULTICLASS, 0.5)
    metric.update(logits, target)
    with pytest.raises(SegregError, match="3 pixels of the masks carry labels that the task does not have"):
        metric.compute()


@pytest.mark.parametrize("value", [float("inf"), 1e6, 1.5, -0.1])
def test_a_share_of_the_diagonal_is_at_most_all_of_it(value):
    hint = settings_of(boundary_iou)["dilation_ratio"].hint
    with pytest.raises(ValueError, match="must be a number between 0 and 1"):
        check_value(hint, value)
    assert check_value(hint, 0) == 0  # which is 1 pixel
    assert contour_reach(17, 23, 0) == 1


@every_task
def test_half_precision_uint8_and_copies(task):
    logits, target = draw(task, ignored=0.1)
    expected = streamed(boundary_iou(task, 0.5), logits.half().float(), target)
    metric = pickle.loads(pickle.dumps(boundary_iou(task, 0.5)))
    for name, value in streamed(metric, logits.half(), target.to(torch.uint8)).items():
        assert value.item() == pytest.approx(expected[name].item(), abs=1e-12)
    assert metric.state_dict() == {}
