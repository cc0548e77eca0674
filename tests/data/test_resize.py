"""Geometry: images and masks against Pillow, masks against the image that they were drawn from, and the way back."""

import numpy as np
import pytest
import torch
from PIL import Image

from segreg.config.sections import Input
from segreg.data.resize import Placement, fit_image, fit_mask, placement, restore
from segreg.errors import SegregError

SIZES = [((37, 53), (16, 24)), ((20, 30), (64, 48)), ((101, 33), (32, 32)), ((7, 9), (8, 8))]


def noise(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("original", "size"), SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_an_image_is_resized_as_pillow_does(original, size, channels):
    image = noise(*original, channels)
    ours = fit_image(image, Input(size=size, channels=channels))
    planes = [Image.fromarray(image[..., c]).resize(size[::-1], Image.Resampling.BILINEAR) for c in range(channels)]
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous
    np.testing.assert_allclose(ours.astype(int), np.stack(planes, axis=2).astype(int), atol=1)


def test_one_row_of_a_flipped_image_is_resized():
    """NumPy calls it contiguous, whatever its first stride is."""
    row = noise(1, 9, 3)
    np.testing.assert_array_equal(fit_image(row[::-1], Input(size=(4, 4))), fit_image(row, Input(size=(4, 4))))


@pytest.mark.parametrize(("original", "size"), SIZES)
def test_a_mask_takes_the_label_at_its_centre_as_pillow_does(original, size):
    mask = noise(*original)
    theirs = np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
    np.testing.assert_array_equal(fit_mask(mask, Input(size=size)), theirs)
    np.testing.assert_array_equal(fit_mask(np.stack([mask, 255 - mask]), Input(size=size))[1], 255 - theirs)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize(("original", "size"), [((300, 400), (64, 96)), ((50, 40), (128, 128)), ((97, 61), (64, 64))])
def test_a_mask_stays_aligned_with_its_image(original, size, resize):
    """A disk, drawn with soft edges: the resized mask has the resized image's centre of gravity and threshold."""
    H, W = original
    y, x = np.mgrid[:H, :W]
    distance = np.hypot((y - 0.43 * H) / H, (x - 0.58 * W) / W)
    soft = (255 / (1 + np.exp((distance - 0.25) * 60))).astype(np.uint8)
    rule = Input(size=size, resize=resize, channels=1)
    image, mask = fit_image(soft[..., None], rule)[..., 0], fit_mask((soft > 127).astype(np.uint8), rule)
    inside = mask == 1
    # Only pixels on the edge may differ.
    assert (inside != (image > 127)).mean() < 0.02
    for axis in (0, 1):
        grid = np.indices(inside.shape)[axis]
        assert abs(grid[inside].mean() - grid[image > 127].mean()) < 0.15


def test_a_half_pixel_shift_would_be_seen():
    """Every second pixel of 2n columns: the centre of a new pixel lies between the two, on the second's corner."""
    mask = np.tile(np.arange(12, dtype=np.uint8), (12, 1))
    np.testing.assert_array_equal(fit_mask(mask, Input(size=(4, 4)))[0], [1, 4, 7, 10])


def test_letterbox_keeps_the_aspect_ratio_and_marks_the_border():
    rule = Input(size=(64, 64), resize="letterbox", channels=3)
    image, mask = np.full((30, 61, 3), 200, np.uint8), np.ones((30, 61), np.uint8)
    place = placement((30, 61), rule)
    assert place == Placement(16, 0, 31, 64)
    fitted, labels = fit_image(image, rule), fit_mask(mask, rule)
    assert (fitted[16:47] == 200).all()
    assert (labels[16:47] == 1).all()
    assert not fitted[:16].any()
    assert not fitted[47:].any()
    assert (labels[:16] == 255).all()
    assert (labels[47:] == 255).all()
    assert placement((1, 4000), rule) == Placement(31, 0, 1, 64)


def test_none_takes_only_the_inputs_size():
    rule = Input(size=(8, 12), resize="none", channels=1)
    image, mask = noise(8, 12, 1), noise(8, 12)
    np.testing.assert_array_equal(fit_image(image, rule), image)
    np.testing.assert_array_equal(fit_mask(mask, rule), mask)
    with pytest.raises(SegregError, match=r"12x8 \(height x width\) and input.size is 8x12"):
        fit_image(noise(12, 8, 1), rule)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_there_and_back(resize):
    """A map of large areas comes back from the input's size but for its edges."""
    mask = np.kron(np.random.default_rng(0).integers(0, 3, (3, 4), dtype=np.uint8), np.ones((40, 25), np.uint8))
    rule = Input(size=(96, 96), resize=resize)
    small = fit_mask(mask, rule)
    probabilities = np.stack([small == k for k in range(3)]).astype(np.float32)
    restored = restore(torch.from_numpy(probabilities), mask.shape, rule).numpy()
    assert restored.shape == (3, *mask.shape)
    np.testing.assert_allclose(restored.sum(0), 1, atol=1e-5)
    assert (restored.argmax(0) != mask).mean() < 0.04


def test_restoring_an_unresized_map_changes_nothing():
    rule = Input(size=(8, 8), resize="none")
    values = torch.from_numpy(np.random.default_rng(0).random((2, 8, 8), dtype=np.float32))
    assert torch.equal(restore(values, (8, 8), rule), values)
    with pytest.raises(SegregError, match=r"a map of 9x8 .* can't be restored: input.size is 8x8"):
        restore(torch.zeros(9, 8), (8, 8), rule)


@pytest.mark.parametrize("length", [7, 50])
def test_what_is_one_pixel_wide_is_resized_as_what_is_one_pixel_high(length):
    values = torch.rand(2, 24, 9, generator=torch.Generator().manual_seed(0))
    narrow = restore(values, (length, 1), Input(size=(24, 9)))
    flat = restore(values.mT.contiguous(), (1, length), Input(size=(9, 24)))
    torch.testing.assert_close(narrow, flat.mT)
    image = noise(24, 1, 6).astype(np.uint16)
    narrow = fit_image(image, Input(size=(length, 1), channels=6))
    flat = fit_image(image.swapaxes(0, 1), Input(size=(1, length), channels=6))
    np.testing.assert_array_equal(narrow, flat.swapaxes(0, 1))


def test_enlarged_labels_are_pillows():
    labels = noise(15, 23)  # of odd sides: no new centre lies on an edge between two
    theirs = np.asarray(Image.fromarray(labels).resize((53, 37), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(fit_mask(labels, Input(size=(37, 53))), theirs)
