"""Losses of distances and centre lines, against SciPy's distances and morphology, and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.losses import shapes
from segreg_plugins.losses.distances import distance_to

BINARY = Task(("vessel",), "binary")
MULTICLASS = Task(("background", "road", "car"), "multiclass")
MULTILABEL = Task(("cell", "nucleus"), "multilabel")
by_mode = pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)


def draw(task):
    """Return smooth logits and a target of blobs with ignored pixels; one image has no class but the first."""
    chance = np.random.default_rng(0)
    fields = ndimage.gaussian_filter(chance.normal(size=(3, 2 * task.channels, 14, 11)), (0, 0, 2, 2)) * 12
    logits, truths = torch.tensor(fields[:, : task.channels]).float(), fields[:, task.channels :]
    target = truths.argmax(1) if task.mode == "multiclass" else (truths > 0).astype(int)
    target[1] = 0
    target[0, ..., 4:7, 2:9] = IGNORE_INDEX
    target = torch.tensor(target)
    return logits, target[:, 0] if task.mode == "binary" else target


def layers(task, logits, target):
    """Yield each image's and class's probabilities, its truth, and which pixels count, as arrays."""
    probabilities = (logits.softmax(1) if task.mode == "multiclass" else logits.sigmoid()).double().numpy()
    for image in range(len(logits)):
        for k in range(task.channels):
            own = (target[image, k] if task.mode == "multilabel" else target[image]).numpy()
            yield probabilities[image, k], own == (k if task.mode == "multiclass" else 1), own != IGNORE_INDEX


def across(inside, counts):
    """Return the distance of each pixel to the nearest one on the other side; None where a side is missing."""
    if not (inside & counts).any() or not (~inside & counts).any():
        return None
    return np.where(
        inside,
        ndimage.distance_transform_edt(~(~inside & counts)),
        ndimage.distance_transform_edt(~(inside & counts)),
    )


@by_mode
def test_boundary_is_the_mean_of_signed_distances(task):
    logits, target = draw(task)
    total, counted, without = 0.0, 0, 0
    for p, t, counts in layers(task, logits, target):
        counted += counts.sum()
        distance = across(t, counts)
        without += distance is None
        if distance is not None:
            signed = np.where(t, -(distance - 1), distance)  # as the authors take it
            total += (signed * (p - t))[counts].sum()
    assert 0 < without < 3 * task.channels
    assert shapes.boundary(task)(logits, target).item() == pytest.approx(total / counted, rel=1e-5)


def test_distances_are_the_roots_of_whole_numbers_wherever_an_image_lies_in_memory():
    """OpenCV's own differ in their last bit from call to call, and a run could not be repeated."""
    truth = torch.from_numpy(np.random.default_rng(0).random((40, 1, 37, 45)) < 0.002)
    truth[:, :, 0, 0] = True
    exact = np.stack([ndimage.distance_transform_edt(~one[0].numpy()) for one in truth])
    assert np.array_equal(distance_to(truth)[:, 0].numpy(), exact.astype(np.float32))


def test_boundary_by_hand():
    # Two true pixels at the left of five: the inner is 1 inside, the others 1, 2 and 3 outside.
    target = torch.tensor([[[1, 1, 0, 0, 0]]])
    value = shapes.boundary(BINARY)(torch.zeros(1, 1, 1, 5), target)
    assert value.item() == pytest.approx(((-1 - 0) * (0.5 - 1) + 0.5 * (1 + 2 + 3)) / 5)


@by_mode
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_hausdorff_is_the_mean_of_squared_errors_by_both_distances(task, alpha):
    logits, target = draw(task)
    total, counted, borrowed = 0.0, 0, 0
    for p, t, counts in layers(task, logits, target):
        counted += counts.sum()
        of_truth, of_predicted = across(t, counts), across(p > 0.5, counts)
        found = [distance for distance in (of_truth, of_predicted) if distance is not None]
        borrowed += len(found) == 1
        if found:
            total += ((p - t) ** 2 * (found[0] ** alpha + found[-1] ** alpha))[counts].sum()
    assert borrowed
    assert shapes.hausdorff_dt(task, alpha=alpha)(logits, target).item() == pytest.approx(total / counted, rel=1e-5)


@pytest.mark.parametrize("build", [shapes.boundary, shapes.hausdorff_dt, shapes.cldice])
def test_classes_left_out_are_those_of_a_smaller_task(build):
    logits, target = draw(MULTILABEL)
    one = build(Task(("nucleus",), "binary"))(logits[:, 1:], target[:, 1])
    torch.testing.assert_close(build(MULTILABEL, exclude=("cell",))(logits, target), one)


def skeleton(mask, iterations):
    """Return the soft skeleton by SciPy's grey morphology, its own border included."""
    cross = ndimage.generate_binary_structure(2, 1)

    def eroded(x):
        return ndimage.grey_erosion(np.pad(x, 1, constant_values=np.inf), footprint=cross)[1:-1, 1:-1]

    def ridge(x):
        opened = ndimage.grey_dilation(np.pad(eroded(x), 1, constant_values=-np.inf), size=(3, 3))[1:-1, 1:-1]
        return np.maximum(x - opened, 0)

    found = ridge(mask)
    for _ in range(iterations):
        mask = eroded(mask)
        found = found + np.maximum(ridge(mask) - found * ridge(mask), 0)
    return found


@by_mode
def test_cldice_is_the_papers_on_scipys_morphology(task):
    logits, target = draw(task)
    found = list(layers(task, logits, target))
    values = []
    for k in range(task.channels):
        own = [(p * counts, (t & counts).astype(float)) for p, t, counts in found[k :: task.channels]]
        lines = [(skeleton(p, 3), skeleton(t, 3)) for p, t in own]
        precision = (sum((s * t).sum() for (s, _), (_, t) in zip(lines, own, strict=True)) + 1) / (
            sum(s.sum() for s, _ in lines) + 1
        )
        sensitivity = (sum((s * p).sum() for (_, s), (p, _) in zip(lines, own, strict=True)) + 1) / (
            sum(s.sum() for _, s in lines) + 1
        )
        values.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
    assert shapes.cldice(task)(logits, target).item() == pytest.approx(np.mean(values), rel=1e-5)


def test_a_gap_in_a_thin_line_costs_more_than_the_same_pixels_at_its_rim():
    target = torch.zeros(1, 9, 24, dtype=torch.long)
    target[:, 3:6, 2:22] = 1
    gap, rim = target.clone(), target.clone()
    gap[:, 3:6, 10:12] = 0
    rim[:, 3, 10:16] = 0
    loss = shapes.cldice(BINARY)
    broken, rough = (loss(20.0 * (2 * mask.unsqueeze(1) - 1), target).item() for mask in (gap, rim))
    assert broken > 2 * rough
