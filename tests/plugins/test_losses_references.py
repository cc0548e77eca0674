"""The losses' values, against torch, torchvision, SMP, plain Python from the papers, and numbers worked by hand."""

from __future__ import annotations

import math
from functools import partial

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.losses import builders, combined
from segreg_plugins.losses.lovasz import jaccard_weights

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("background", "road", "car", "tree"), "multiclass")
MULTILABEL = Task(("cell", "nucleus", "wall"), "multilabel")
TASKS = [BINARY, MULTICLASS, MULTILABEL]
by_mode = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)


def draw(task, *, images=3, size=(9, 7), ignored=0.2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, task.channels, *size, generator=generator)
    shape = (images, task.channels, *size) if task.mode == "multilabel" else (images, *size)
    target = torch.randint(0, task.channels if task.mode == "multiclass" else 2, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < ignored] = IGNORE_INDEX
    return logits, target


def flat(task, logits, target):
    """Return the probabilities and truths of the pixels that count, a list for each class, as plain numbers."""
    if task.mode == "multiclass":
        probabilities, truths = logits.softmax(1), torch.stack([target == k for k in range(task.channels)], 1)
        counts = (target != IGNORE_INDEX).unsqueeze(1).expand_as(logits)
    else:
        target = target.unsqueeze(1) if task.mode == "binary" else target
        probabilities, truths, counts = logits.sigmoid(), target == 1, target != IGNORE_INDEX
    return [
        (probabilities[:, k][counts[:, k]].tolist(), truths[:, k][counts[:, k]].int().tolist())
        for k in range(task.channels)
    ]


@pytest.mark.parametrize("task", [BINARY, MULTILABEL], ids=lambda task: task.mode)
def test_bce_is_torchs_on_the_pixels_that_count(task):
    logits, target = draw(task)
    expected = target.unsqueeze(1) if task.mode == "binary" else target
    counts = expected != IGNORE_INDEX
    for weight in (1.0, 3.5):
        reference = F.binary_cross_entropy_with_logits(
            logits[counts], expected[counts].float(), pos_weight=torch.tensor(weight)
        )
        torch.testing.assert_close(builders.bce(task, positive_weight=weight)(logits, target), reference)


def test_bce_weights_labels_apart():
    logits, target = draw(MULTILABEL, ignored=0)
    weights = torch.tensor([0.5, 1.0, 4.0]).view(3, 1, 1)
    reference = F.binary_cross_entropy_with_logits(logits, target.float(), pos_weight=weights)
    loss = builders.bce(MULTILABEL, positive_weight=(0.5, 1.0, 4.0))
    torch.testing.assert_close(loss(logits, target), reference)


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 3.0, 0.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(weights, smoothing):
    logits, target = draw(MULTICLASS)
    reference = F.cross_entropy(
        logits,
        target,
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORE_INDEX,
        label_smoothing=smoothing,
    )
    loss = builders.cross_entropy(MULTICLASS, class_weights=weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, target), reference)


def test_cross_entropy_of_weightless_pixels_is_zero():
    logits, target = draw(MULTICLASS)
    loss = builders.cross_entropy(MULTICLASS, class_weights=(1.0, 1.0, 1.0, 0.0), label_smoothing=0.1)
    assert loss(logits, torch.full_like(target, 3)).item() == 0


@by_mode
@pytest.mark.parametrize("smooth", [1e-3, 1.0])
def test_dice_and_iou_are_smps_where_every_class_is_there(task, smooth):
    logits, target = draw(task, ignored=0)
    # SMP smooths Dice as a Tversky index, which is half as much above and below.
    dice = smp.losses.DiceLoss(task.mode, smooth=smooth / 2)
    iou = smp.losses.JaccardLoss(task.mode, smooth=smooth)
    torch.testing.assert_close(builders.dice(task, smooth=smooth)(logits, target), dice(logits, target))
    torch.testing.assert_close(builders.iou(task, smooth=smooth)(logits, target), iou(logits, target))


@by_mode
def test_dice_leaves_ignored_pixels_out_as_smp_does(task):
    logits, target = draw(task)
    reference = smp.losses.DiceLoss(task.mode, smooth=0.5, ignore_index=IGNORE_INDEX)(logits, target)
    torch.testing.assert_close(builders.dice(task)(logits, target), reference)


@by_mode
def test_tversky_is_smps(task):
    logits, target = draw(task, ignored=0)
    reference = smp.losses.TverskyLoss(task.mode, smooth=1.0, alpha=0.2, beta=0.9)(logits, target)
    torch.testing.assert_close(builders.tversky(task, alpha=0.2, beta=0.9)(logits, target), reference)


@by_mode
def test_region_losses_over_images_follow_their_formulas(task):
    logits, target = draw(task)
    dice, iou, tversky = [], [], []
    for image in range(len(logits)):
        for p, t in flat(task, logits[image : image + 1], target[image : image + 1]):
            both = sum(a * b for a, b in zip(p, t, strict=True))
            dice.append(1 - (2 * both + 2) / (sum(p) + sum(t) + 2))
            iou.append(1 - (both + 2) / (sum(p) + sum(t) - both + 2))
            tversky.append(1 - (both + 2) / (both + 0.3 * (sum(p) - both) + 0.7 * (sum(t) - both) + 2))
    for build, values in ((builders.dice, dice), (builders.iou, iou), (builders.tversky, tversky)):
        value = build(task, smooth=2.0, over="image")(logits, target).item()
        assert value == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.mark.parametrize("build", [builders.lovasz, partial(builders.dice, absent="skip")])
def test_images_weigh_the_same_however_many_classes_they_show(build):
    logits, target = draw(MULTICLASS)
    target[0], target[1] = 1, target[1].clamp(max=1)
    loss = build(MULTICLASS, over="image")
    each = [loss(logits[index : index + 1], target[index : index + 1]) for index in range(3)]
    torch.testing.assert_close(loss(logits, target), sum(each) / 3)


def test_dice_by_hand():
    # Probabilities 0.5 everywhere, 3 of 8 pixels true, 1 ignored.
    target = torch.tensor([[[1, 1, 1, 0], [0, 0, 0, 255]]])
    logits = torch.zeros(1, 1, 2, 4)
    assert builders.dice(BINARY)(logits, target).item() == pytest.approx(1 - (2 * 1.5 + 1) / (3.5 + 3 + 1))
    assert builders.iou(BINARY)(logits, target).item() == pytest.approx(1 - (1.5 + 1) / (3.5 + 3 - 1.5 + 1))


@pytest.mark.parametrize("name", ["dice", "iou", "tversky"])
def test_absent_classes_count_or_are_skipped(name):
    logits, target = draw(MULTICLASS, ignored=0)
    target[target == 3] = 0
    build = getattr(builders, name)
    present = [
        build(MULTICLASS, exclude=tuple(c for c in MULTICLASS.classes if c != kept)) for kept in MULTICLASS.classes
    ]
    values = [loss(logits, target) for loss in present]
    assert values[3] > 0.9
    torch.testing.assert_close(build(MULTICLASS)(logits, target), sum(values) / 4)
    torch.testing.assert_close(build(MULTICLASS, absent="skip")(logits, target), sum(values[:3]) / 3)


def test_an_empty_mask_pushes_the_prediction_down():
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    builders.dice(BINARY)(logits, torch.zeros(1, 4, 4, dtype=torch.long)).backward()
    assert (logits.grad > 0).all()


@pytest.mark.parametrize("task", [BINARY, MULTILABEL], ids=lambda task: task.mode)
@pytest.mark.parametrize(("alpha", "gamma"), [(None, 2.0), (0.25, 2.0), (0.8, 0.5), (None, 0.0)])
def test_sigmoid_focal_is_torchvisions(task, alpha, gamma):
    logits, target = draw(task)
    expected = target.unsqueeze(1) if task.mode == "binary" else target
    counts = expected != IGNORE_INDEX
    reference = sigmoid_focal_loss(
        logits[counts], expected[counts].float(), alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean"
    )
    torch.testing.assert_close(builders.focal(task, alpha=alpha, gamma=gamma)(logits, target), reference)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 3.0, 2.0)])
def test_softmax_focal_follows_its_formula(gamma, weights):
    logits, target = draw(MULTICLASS)
    above = below = 0.0
    for values, label in zip(logits.movedim(1, -1).reshape(-1, 4).tolist(), target.flatten().tolist(), strict=True):
        if label != IGNORE_INDEX:
            p = math.exp(values[label]) / sum(math.exp(v) for v in values)
            weight = 1.0 if weights is None else weights[label]
            above -= weight * (1 - p) ** gamma * math.log(p)
            below += weight
    value = builders.focal(MULTICLASS, gamma=gamma, class_weights=weights)(logits, target).item()
    assert value == pytest.approx(above / below, rel=1e-5)


def test_focal_without_focus_is_cross_entropy():
    logits, target = draw(MULTICLASS)
    weights = (0.5, 1.0, 3.0, 2.0)
    focal = builders.focal(MULTICLASS, gamma=0.0, class_weights=weights)(logits, target)
    torch.testing.assert_close(focal, builders.cross_entropy(MULTICLASS, class_weights=weights)(logits, target))
    logits, target = draw(BINARY)
    torch.testing.assert_close(builders.focal(BINARY, gamma=0.0)(logits, target), builders.bce(BINARY)(logits, target))


def test_focal_of_a_sure_pixel_keeps_its_small_loss():
    # 1 - p is lost in float32's p: a loss computed from p would be 0.
    q = 1 / (1 + math.exp(20))
    value = builders.focal(BINARY, gamma=1.0)(torch.full((1, 1, 1, 1), 20.0), torch.ones(1, 1, 1, dtype=torch.long))
    assert value.item() == pytest.approx(-q * math.log1p(-q), rel=1e-3)


def set_loss(truth, mispredicted):
    """Return the Jaccard loss of a set of mispredicted pixels, as the paper defines it."""
    true = {i for i, t in enumerate(truth) if t}
    union = true | mispredicted
    return len(mispredicted) / len(union) if union else 0.0


def lovasz_extension(errors, truth):
    """Return the Lovasz extension of the Jaccard loss, from its definition, in plain Python."""
    value, taken, before = 0.0, set(), 0.0
    for i in sorted(range(len(errors)), key=lambda i: -errors[i]):
        taken = taken | {i}
        after = set_loss(truth, taken)
        value += errors[i] * (after - before)
        before = after
    return value


def lovasz_rows(task, logits, target):
    rows = []
    for p, t in flat(task, logits, target):
        if task.mode == "multiclass":
            if any(t):
                rows.append(lovasz_extension([abs(a - b) for a, b in zip(p, t, strict=True)], t))
        elif t:
            z = [math.log(a / (1 - a)) for a in p]
            rows.append(lovasz_extension([max(0.0, 1 - s * (2 * b - 1)) for s, b in zip(z, t, strict=True)], t))
    return rows


@by_mode
@pytest.mark.parametrize("fill", ["random", "empty", "full", "one ignored image"])
@pytest.mark.parametrize("over", ["batch", "image"])
def test_lovasz_is_the_papers_definition(task, fill, over):
    logits, target = draw(task, size=(5, 4))
    logits, target = logits.double(), target.clone()
    if fill == "one ignored image":
        target[1] = IGNORE_INDEX
    elif fill != "random":
        target[target != IGNORE_INDEX] = int(fill == "full")
    parts = [slice(None)] if over == "batch" else [slice(i, i + 1) for i in range(len(logits))]
    rows = [row for part in parts for row in lovasz_rows(task, logits[part], target[part])]
    value = builders.lovasz(task, over=over)(logits, target).item()
    assert value == pytest.approx(sum(rows) / len(rows), rel=1e-10)


@pytest.mark.parametrize("task", [BINARY, MULTICLASS], ids=lambda task: task.mode)
def test_lovasz_and_its_gradient_are_smps(task):
    # Not multilabel, where SMP ranks the pixels of all labels together.
    logits, target = draw(task)
    logits.requires_grad_()
    loss = smp.losses.LovaszLoss(task.mode, ignore_index=IGNORE_INDEX)
    reference = loss(logits, target.unsqueeze(1) if task is BINARY else target)
    value = builders.lovasz(task)(logits, target)
    torch.testing.assert_close(value, reference)
    (expected,) = torch.autograd.grad(reference, logits)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient, expected)


def test_lovasz_weights_do_not_cancel_on_many_pixels():
    # Differences of Jaccard losses in float32 are noise here; the closed form keeps its digits.
    pixels = 2_000_000
    truth = torch.zeros(1, pixels)
    truth[0, ::3] = 1
    weights = jaccard_weights(torch.linspace(1, 0, pixels).unsqueeze(0), truth, torch.ones(1, pixels))
    exact = jaccard_weights(
        torch.linspace(1, 0, pixels, dtype=torch.float64).unsqueeze(0), truth.double(), torch.ones(1, pixels).double()
    )
    assert exact.sum().item() == pytest.approx(1, abs=1e-9)
    assert ((weights - exact).abs() / exact.clamp(min=1e-30))[exact > 0].max() < 1e-5


@pytest.mark.parametrize("over", ["batch", "image"])
def test_pairs_are_the_sums_of_their_parts(over):
    logits, target = draw(BINARY)
    value = combined.dice_bce(BINARY, dice_weight=0.3, bce_weight=2.0, smooth=0.1, over=over, positive_weight=3.0)
    parts = 0.3 * builders.dice(BINARY, smooth=0.1, over=over)(logits, target)
    parts = parts + 2 * builders.bce(BINARY, positive_weight=3.0)(logits, target)
    torch.testing.assert_close(value(logits, target), parts)
    value = combined.dice_focal(BINARY, dice_weight=0.3, focal_weight=2.0, smooth=0.1, over=over, gamma=1.0, alpha=0.3)
    parts = 0.3 * builders.dice(BINARY, smooth=0.1, over=over)(logits, target)
    parts = parts + 2 * builders.focal(BINARY, gamma=1.0, alpha=0.3)(logits, target)
    torch.testing.assert_close(value(logits, target), parts)
    logits, target = draw(MULTICLASS)
    value = combined.dice_ce(
        MULTICLASS, dice_weight=0.3, ce_weight=2.0, smooth=0.1, over=over, class_weights=(1, 2, 3, 4)
    )
    parts = 0.3 * builders.dice(MULTICLASS, smooth=0.1, over=over)(logits, target)
    parts = parts + 2 * builders.cross_entropy(MULTICLASS, class_weights=(1, 2, 3, 4))(logits, target)
    torch.testing.assert_close(value(logits, target), parts)
