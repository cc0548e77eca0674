"""RandAugment against torchvision's, operation by operation, and how it draws them."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import RandAugment as Theirs
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import affine

from segreg.config.sections import Input
from segreg.data.augment import Augmentation
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.augmentations.random_operations import RandAugment, operations_of
from segreg_plugins.augmentations.transform import rand_augment

SIDE = 64
TASK = Task(("thing",), "binary")
SPACE = Theirs()._augmentation_space(31, (SIDE, SIDE))
APART = {"ShearX": 2.0, "ShearY": 2.0, "Equalize": 4.0}
"""Mean difference of values of 255, where the middle is half a pixel beside or a histogram is divided otherwise."""
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def scene():
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(SIDE, SIDE, 3)), (3, 3, 0))
    image = np.uint8(30 + 180 * (smooth - smooth.min()) / np.ptp(smooth))
    return image, np.uint8(image[..., 0] > 120)


def theirs(name, image, magnitude):
    """Return torchvision's image; where it shears about a corner, as PIL does, sheared about its middle."""
    given = torch.tensor(image).movedim(-1, 0)
    if name.startswith("Shear"):
        angle = math.degrees(math.atan(magnitude))
        way = [angle, 0.0] if name == "ShearX" else [0.0, angle]
        return affine(given, 0.0, [0, 0], 1.0, way, InterpolationMode.BILINEAR).movedim(0, -1).numpy()
    done = _apply_op(given, name, magnitude, InterpolationMode.BILINEAR, fill=[0.0] * len(given))
    return done.movedim(0, -1).numpy()


def test_the_operations_are_torchvisions():
    assert list(operations_of(9)) == list(SPACE)


@pytest.mark.parametrize("magnitude", [9, 24])
@pytest.mark.parametrize("name", SPACE)
def test_an_operation_is_torchvisions_of_that_magnitude(name, magnitude):
    image, mask = scene()
    sizes, signed = SPACE[name]
    size = float(sizes[magnitude]) if sizes.ndim else float(sizes)
    wanted = [theirs(name, image, by) for by in ((size, -size) if signed else (size,))]
    if name == "Sharpness":
        wanted = wanted[:1]
    operation = operations_of(magnitude)[name]
    found = set()
    for seed in range(12):
        operation.set_random_state(np.random.default_rng(seed), random.Random(seed))
        done = operation(image=image.copy(), mask=mask.copy())
        apart = [np.abs(done["image"].astype(float) - each).mean() for each in wanted]
        assert min(apart) < APART.get(name, 1.0)
        found.add(int(np.argmin(apart)))
        if name in GEOMETRIC:
            moved = theirs(name, mask[..., None] * 100 + 100, (size, -size)[int(np.argmin(apart))])[..., 0]
            known = done["mask"] != IGNORE_INDEX
            # All that is outside is ignored, and the rest is the mask, moved as the image, but for its border.
            assert ((moved == 0) != known).mean() > 0.97
            assert (done["mask"] == (moved > 150))[known].mean() > 0.97
        else:
            assert np.array_equal(done["mask"], mask)
    assert len(found) == len(wanted)


def test_so_many_are_drawn_each_as_likely():
    transform, drawn = rand_augment(operations=3, magnitude=5), Counter()
    for seed in range(300):
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        chosen = transform._get_idx()
        assert len(chosen) == 3
        drawn.update(int(index) for index in chosen)
    # 900 draws among 14: 64.3 each, with a standard deviation of 7.7.
    assert len(drawn) == 14
    assert all(abs(count - 900 / 14) < 4 * 7.7 for count in drawn.values())


def test_it_is_applied_as_every_augmentation_by_its_name():
    image, mask = scene()
    augmentation = Augmentation([RandAugment(2, 15, 1.0)], TASK)
    augmentation.try_out(Input(size=image.shape[:2]))
    assert augmentation.names == ["RandAugment"]
    first, second = (augmentation(image, mask, 0, 1, "a")[0] for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, augmentation(image, mask, 0, 2, "a")[0])
