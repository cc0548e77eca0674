"""Batch augmentations pixel by pixel in plain NumPy: who is whose partner, what is taken, and with which truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.augmentations import batches

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("Background", "road", "car", "tree"), "multiclass")
MULTILABEL = Task(("cell", "nucleus", "wall"), "multilabel")
TASKS = [BINARY, MULTICLASS, MULTILABEL]
by_mode = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.mode)
IMAGES, HEIGHT, WIDTH = 4, 10, 12


def draw(task, dtype=torch.uint8):
    """Return images whose every pixel is another, and targets with ignored pixels; the second image has no class 1."""
    chance = np.random.default_rng(1)
    values = chance.permutation(IMAGES * HEIGHT * WIDTH).reshape(IMAGES, 1, HEIGHT, WIDTH)
    values = values % 251 if dtype == torch.uint8 else 100 * values
    shape = (IMAGES, task.channels, HEIGHT, WIDTH) if task.mode == "multilabel" else (IMAGES, HEIGHT, WIDTH)
    targets = chance.integers(0, task.highest_label + 1, shape)
    targets[1][targets[1] == 1] = 0
    targets[chance.random(shape) < 0.1] = IGNORE_INDEX
    return torch.tensor(values).to(dtype), torch.tensor(targets).to(torch.uint8)


def partner_of(images, mixed):
    """Return how many places on each image's partner is: all that is not its own is that one's."""
    for places in range(1, IMAGES):
        if torch.equal(torch.where(mixed == images, images, images.roll(places, 0)), mixed):
            return places
    raise AssertionError("no partner explains the mixed images")


def check_pasted(task, images, targets, mixed, taken):
    """Assert that images and targets have their partners' pixels where `taken` says so, and their own elsewhere."""
    places = partner_of(images, mixed.images)
    for i in range(IMAGES):
        other = (i - places) % IMAGES
        mask = taken(other, i)
        for before, after in ((images, mixed.images), (targets, mixed.targets)):
            wanted = np.where(mask, before[other].numpy(), before[i].numpy())
            np.testing.assert_array_equal(after[i].numpy(), wanted)
    assert mixed.others is None


@by_mode
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
def test_copy_paste_takes_all_pixels_of_the_chosen_classes(task, dtype):
    images, targets = draw(task, dtype)
    chosen = {"binary": (), "multiclass": ("car", "tree"), "multilabel": ("nucleus",)}[task.mode]

    def taken(other, _):
        if task.mode == "multilabel":
            return (targets[other, 1] == 1).numpy()
        return np.isin(targets[other].numpy(), [1] if task.mode == "binary" else [2, 3])

    mix = batches.copy_paste(task, classes=chosen, probability=1.0)
    check_pasted(task, images, targets, mix(images, targets, np.random.default_rng(3)), taken)


def test_copy_paste_leaves_the_background_unless_it_is_named():
    images, targets = draw(MULTICLASS)
    first, second = (
        batches.copy_paste(MULTICLASS, classes=classes, probability=1.0)(images, targets, np.random.default_rng(3))
        for classes in ((), ("tree", "road", "car"))
    )
    assert torch.equal(first.images, second.images)
    with pytest.raises(SegregError, match='"raod" is not a class of this multiclass task\n  did you mean "road"'):
        batches.copy_paste(MULTICLASS, classes=("raod",))


@by_mode
def test_classmix_takes_half_of_the_classes_that_the_other_image_shows(task):
    images, targets = draw(task)
    labels = range(task.channels) if task.mode == "multilabel" else range(task.highest_label + 1)
    mix = batches.classmix(task, probability=1.0)
    sets = set()
    for seed in range(6):
        mixed = mix(images, targets, np.random.default_rng(seed))
        places = partner_of(images, mixed.images)
        layers = targets if task.mode == "multilabel" else None

        def of(other, label, layers=layers):
            return (layers[other, label] == 1 if layers is not None else targets[other] == label).numpy()

        def taken(other, i, of=of, mixed=mixed):
            there = [k for k in labels if of(other, k).any()]
            moved = (mixed.images[i] != images[i])[0].numpy()
            chosen = [k for k in there if moved[of(other, k)].mean() > 0.9]  # a few pixels may be alike by chance
            assert len(chosen) == len(there) // 2
            sets.add(tuple(chosen))
            return np.any([of(other, k) for k in chosen], axis=0) if chosen else np.zeros((HEIGHT, WIDTH), bool)

        check_pasted(task, images, targets, mixed, taken)
        assert places
    assert len(sets) > 1


@by_mode
def test_cutmix_takes_a_box(task):
    images, targets = draw(task, torch.float32)
    mix = batches.cutmix(task, alpha=1.0, probability=1.0)
    shares = []
    for seed in range(60):
        mixed = mix(images, targets, np.random.default_rng(seed))

        def taken(_, i, mixed=mixed):
            moved = (mixed.images[i] != images[i])[0].numpy()
            rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
            box = np.zeros_like(moved)
            if len(rows):
                box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            assert np.array_equal(box, moved)
            shares.append(moved.mean())
            return box

        if torch.equal(mixed.images, images):
            continue
        check_pasted(task, images, targets, mixed, taken)
    # Worked out: of a box of side s and centre drawn evenly, 1 - s/4 of a side is inside on average. So the mean share
    # is that of s^2 (1 - s/4)^2 with s^2 evenly drawn: 1/2 - 2/5 * 1/2 + 1/3 * 1/16 = 0.321.
    assert np.mean(shares) == pytest.approx(0.321, abs=0.06)


@by_mode
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
def test_mixup_gives_means_and_both_truths(task, dtype):
    images, targets = draw(task, dtype)
    mixed = batches.mixup(task, alpha=5.0, probability=1.0)(images, targets, np.random.default_rng(2))
    assert 0.01 < mixed.share < 0.99
    assert mixed.images.dtype == dtype
    assert torch.equal(mixed.targets, targets)
    places = next(n for n in range(1, IMAGES) if torch.equal(mixed.others, targets.roll(n, 0)))
    own, other = images.numpy().astype(float), np.roll(images.numpy().astype(float), places, 0)
    mean = mixed.share * own + (1 - mixed.share) * other
    np.testing.assert_allclose(mixed.images.numpy(), mean, atol=0.02 if dtype == torch.float32 else 0.51)


def test_mixups_weights_are_beta_distributed():
    images, targets = draw(BINARY)
    mix = batches.mixup(BINARY, alpha=0.2, probability=1.0)
    shares = [mix(images, targets, np.random.default_rng(seed)).share for seed in range(400)]
    # A beta distribution with both parameters a has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.4), abs=0.02)


def test_the_probability_is_the_share_of_batches():
    images, targets = draw(BINARY)
    mix, generator = batches.copy_paste(BINARY, probability=0.25), np.random.default_rng(0)
    changed = [not torch.equal(mix(images, targets, generator).images, images) for _ in range(400)]
    assert np.mean(changed) == pytest.approx(0.25, abs=0.06)
