"""Augmentations of many samples at once against Albumentations' own of each: the same draws, the same pixels."""

import copy
import os
import warnings

import numpy as np
import pytest
import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from segreg.data.augment import Augmentation
from segreg.data.batched import BatchedAugmentation, Images, disagreeing, without_equivalent
from segreg.data.batched.augmentation import EQUIVALENTS, Group, grouped
from segreg.data.batched.values import normal, splitmix64
from segreg.task import Task

BINARY = Task(("x",), "binary")
SQUARE = Images(32, 32, 3, layered=False)
FILLED = {"fill": 90, "fill_mask": 255}


def with_shift_scale_rotate():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is a special case of Affine, says Albumentations
        return A.ShiftScaleRotate(p=0.7, **FILLED)


EXACT = [
    A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=0.8), A.Transpose(p=0.5), A.D4(p=0.9),
    A.RandomBrightnessContrast(p=0.8),
    A.RandomBrightnessContrast(brightness_limit=(-0.7, 0.7), contrast_limit=0.9, ensure_safe_range=True, p=0.8),
]  # fmt: skip
WARPS = [
    A.Rotate(limit=15, p=0.5, **FILLED),
    A.Rotate(limit=(90, 90), p=1, fill=(1, 2, 3)),
    A.Affine(scale=(0.75, 1.33), translate_percent=(-0.05, 0.05), rotate=(-10, 10), p=0.5, **FILLED),
    A.Affine(scale={"x": (0.5, 2), "y": (0.5, 2)}, shear=(-20, 20), translate_px=5, balanced_scale=True, p=0.9),
    with_shift_scale_rotate(),
]  # fmt: skip
MIDWAY = A.Affine(scale=0.5, p=1, fill_mask=255)
"""Each pixel lies midway between four; which is taken for a mask of several layers is OpenCV's own affair."""
named = pytest.mark.parametrize


def smooth(count, input_images, seed=0):
    """Images `[n, H, W, C]` of a few waves, and masks of what is bright, of five labels."""
    drawn = np.random.default_rng(seed)
    rows, columns = np.indices((input_images.height, input_images.width)) / 32
    images = []
    for _ in range(count * input_images.channels):
        a, b, c, d = drawn.uniform(-3, 3, 4)
        images.append(np.sin(a * rows + b * columns + c) * 120 + 128 + d)
    images = np.array(images).reshape(count, input_images.channels, input_images.height, input_images.width)
    images = images.transpose(0, 2, 3, 1).clip(0, 255).astype(np.uint8)
    masks = images[..., 0] // 52
    return images, np.stack([masks, masks // 2], axis=1) if input_images.layered else masks


def seeds(count):
    return [(7, 2, f"s{i:03}") for i in range(count)]


def one_by_one(transforms, images, masks, task=BINARY):
    alone = Augmentation(transforms, task)
    done = [alone(i.copy(), m.copy(), *s) for i, m, s in zip(images, masks, seeds(len(images)), strict=True)]
    return np.stack([image for image, _ in done]), np.stack([mask for _, mask in done])


def together(transforms, images, masks, of=None):
    """Augment some samples, all if `of` is left out, as one batch."""
    of = range(len(images)) if of is None else of
    input_images = Images(*images.shape[1:], layered=masks.ndim == 4)
    augmentation = BatchedAugmentation(transforms, input_images)
    drawn = [augmentation.draw(*seeds(len(images))[i]) for i in of]
    groups, numbers = grouped(drawn)
    batch = torch.from_numpy(images[list(of)].copy()).permute(0, 3, 1, 2)
    after, labels = augmentation(batch, torch.from_numpy(masks[list(of)].copy()), groups, torch.from_numpy(numbers))
    assert after.dtype == labels.dtype == torch.uint8
    assert after.is_contiguous(memory_format=torch.channels_last)
    return after.permute(0, 2, 3, 1).numpy(), labels.numpy()


def ids(transform):
    return type(transform).__name__


@named("transform", EXACT, ids=ids)
def test_flips_turns_brightness_and_contrast_are_albumentations_to_the_last_bit(transform):
    images, masks = smooth(24, SQUARE)
    expected, labels = one_by_one([transform], images, masks)
    assert (expected != images).any(axis=(1, 2, 3)).sum() > 8
    found, found_labels = together([transform], images, masks)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_labels, labels)


@named("size", [(32, 32), (40, 28)])
@named("transform", [*WARPS, MIDWAY], ids=ids)
def test_warps_are_albumentations_to_a_grey_level_and_keep_labels(transform, size):
    images, masks = smooth(24, Images(*size, 3, layered=False))
    expected, labels = one_by_one([transform], images, masks)
    found, found_labels = together([transform], images, masks)
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.01
    np.testing.assert_array_equal(found_labels, labels)


def test_what_is_left_as_it_is_stays_as_it_is():
    images, masks = smooth(12, SQUARE)
    found, labels = together([A.Rotate(limit=15, p=0), A.Affine(p=1), A.RandomBrightnessContrast(p=0)], images, masks)
    np.testing.assert_array_equal(found, images)
    np.testing.assert_array_equal(labels, masks)


def chain():
    """Every transform that the shipped recipes use, and those that draw from NumPy's generator after the noise."""
    return [
        A.HorizontalFlip(p=0.5), A.GaussNoise(std_range=(0.0, 0.0), p=0.5), A.D4(p=0.5), A.VerticalFlip(p=0.5),
        A.RandomRotate90(p=0.5), A.Rotate(limit=15, p=0.5, **FILLED), A.Affine(scale=(0.75, 1.33), p=0.5, **FILLED),
        A.RandomBrightnessContrast(p=0.5),
    ]  # fmt: skip


def test_one_after_the_other_they_draw_what_albumentations_draws():
    images, masks = smooth(48, SQUARE)
    expected, labels = one_by_one(chain(), images, masks)
    found, found_labels = together(chain(), images, masks)
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 3
    assert difference.mean() < 0.05
    np.testing.assert_array_equal(found_labels, labels)


def test_a_sample_is_augmented_alike_in_any_batch():
    images, masks = smooth(10, SQUARE)
    noisy = [*chain(), A.GaussNoise(p=0.8)]
    whole, labels = together(noisy, images, masks)
    for some in ([3], [9, 0, 4], [5, 3]):
        part, part_labels = together(noisy, images, masks, of=some)
        np.testing.assert_array_equal(part, whole[some])
        np.testing.assert_array_equal(part_labels, labels[some])


@named("transform", [*EXACT, *WARPS], ids=ids)
def test_masks_of_several_layers_and_images_of_other_channels(transform):
    if isinstance(getattr(transform, "fill", None), tuple):
        pytest.skip("it fills three channels")
    task = Task(("a", "b"), "multilabel")
    for channels in (1, 5):
        images, masks = smooth(8, Images(32, 32, channels, layered=True))
        expected, labels = one_by_one([transform], images, masks, task)
        found, found_labels = together([transform], images, masks)
        assert np.abs(found.astype(int) - expected).max() <= 1
        np.testing.assert_array_equal(found_labels, labels)


# noise, which has numbers of its own


def test_the_words_behind_noise_are_splitmix64s():
    """Against the generator in Python's own integers."""
    whole = (1 << 64) - 1

    def words(state, count):
        for _ in range(count):
            state = (state + 0x9E3779B97F4A7C15) & whole
            z = state
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
            yield z ^ (z >> 31)

    keys = [0, 1, 1234567, (1 << 48) - 1]
    found = splitmix64(torch.tensor(keys), 50)
    assert [[word & whole for word in row] for row in found.tolist()] == [list(words(key, 50)) for key in keys]
    # The first of seed 1234567, as other implementations of it have it.
    assert found[2, 0].item() & whole == 6457827717110365317


def test_noise_is_normal_and_its_pixels_are_independent():
    from scipy import stats

    drawn = normal(torch.tensor([5, 6]), 40_001).double().numpy()
    assert drawn.shape == (2, 40_001)
    for one in drawn:
        assert stats.kstest(one, "norm").pvalue > 0.01
        assert abs(stats.kurtosis(one)) < 0.1
        for lag in (1, 3, 96, 20_000, 20_001):
            assert abs(np.corrcoef(one[:-lag], one[lag:])[0, 1]) < 0.03
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.02
    assert np.unique(drawn).size > 79_000


@named("per_channel", [True, False])
def test_noise_has_albumentations_distribution(per_channel):
    """Of values, of each image's deviation, and between channels; the level is drawn exactly as there."""
    from scipy import stats

    transform = A.GaussNoise(std_range=(0.02, 0.2), mean_range=(-0.1, 0.1), per_channel=per_channel, p=0.7)
    images = np.full((300, 16, 16, 3), 128, np.uint8)
    masks = np.zeros((300, 16, 16), np.uint8)
    theirs, _ = one_by_one([transform], images, masks)
    ours, labels = together([transform], images, masks)
    assert not labels.any()
    changed = (theirs != 128).any(axis=(1, 2, 3))
    np.testing.assert_array_equal((ours != 128).any(axis=(1, 2, 3)), changed)
    theirs, ours = theirs[changed].astype(float), ours[changed].astype(float)
    # Image by image, both have numbers of one distribution: in one of a hundred they seem not to.
    channels = slice(None) if per_channel else slice(1)
    pairs = zip(theirs[..., channels], ours[..., channels], strict=True)
    assert np.mean([stats.ks_2samp(a.ravel(), b.ravel()).pvalue < 0.01 for a, b in pairs]) < 0.03
    assert abs(np.mean(theirs - ours)) < (0.3 if per_channel else 0.5)
    assert stats.ks_2samp(theirs.std(axis=(1, 2, 3)), ours.std(axis=(1, 2, 3))).pvalue > 0.5
    for one in (theirs, ours):
        alike = np.mean([np.corrcoef(image[..., 0].ravel(), image[..., 1].ravel())[0, 1] for image in one])
        assert alike == pytest.approx(0.0 if per_channel else 1.0, abs=0.02)


def test_each_step_epoch_and_sample_has_noise_of_its_own():
    augmentation = BatchedAugmentation([A.GaussNoise(p=1), A.GaussNoise(p=1)], SQUARE)
    drawn = [augmentation.draw(*seed) for seed in ((0, 0, "a"), (0, 0, "b"), (0, 1, "a"), (1, 0, "a"))]
    assert len({one.numbers[2:] for of_sample in drawn for one in of_sample}) == 8


# which have an equivalent


def test_those_of_the_shipped_recipes_have_one():
    assert without_equivalent([*EXACT, *WARPS, *chain(), A.GaussNoise()], SQUARE) == []
    assert {type(one).__name__ for one in (*EXACT, *WARPS, A.GaussNoise())} == set(EQUIVALENTS)


@named(
    ("transform", "words"),
    [
        (A.CoarseDropout(), "CoarseDropout"),
        (A.OneOf([A.HorizontalFlip()]), "OneOf"),
        (A.Rotate(border_mode=4), "Rotate with border_mode: 4"),
        (A.Rotate(crop_border=True), "Rotate with crop_border: true"),
        (A.Rotate(interpolation=2), "Rotate with interpolation: 2"),
        (A.Affine(mask_interpolation=1), "Affine with mask_interpolation: 1"),
        (A.Affine(fit_output=True), "Affine with fit_output: true"),
        (A.Affine(fill=(1, 2)), "Affine with fill: (1.0, 2.0)"),
        (A.Affine(fill=0.5), "Affine with fill: 0.5"),
        (A.Affine(fill_mask=(255, 255, 255)), "Affine with fill_mask: (255.0, 255.0, 255.0)"),
        (A.RandomBrightnessContrast(brightness_by_max=False), "RandomBrightnessContrast with brightness_by_max: false"),
        (A.GaussNoise(noise_scale_factor=0.5), "GaussNoise with noise_scale_factor: 0.5"),
    ],
)
def test_others_are_named_with_the_setting(transform, words):
    assert without_equivalent([A.HorizontalFlip(), transform], SQUARE) == [words]


def test_a_transform_of_another_that_has_the_name_of_one():
    class HorizontalFlip(A.HorizontalFlip):
        pass

    assert without_equivalent([HorizontalFlip()], SQUARE) == ["HorizontalFlip"]


def test_all_agree_with_the_albumentations_that_is_installed():
    assert disagreeing([*EXACT, *WARPS, *chain(), A.GaussNoise()], SQUARE, BINARY) == []
    layered = Images(50, 60, 1, layered=True)
    assert disagreeing(chain(), layered, Task(("a", "b"), "multilabel")) == []


@named("what", ["other direction", "other labels", "no such draw"])
def test_one_that_does_otherwise_is_named(monkeypatch, what):
    """As a version to come might."""
    real = A.Rotate.get_params_dependent_on_data
    if what == "other direction":
        monkeypatch.setattr(A.Rotate, "apply", lambda self, img, matrix, **more: np.ascontiguousarray(img[::-1]))
    elif what == "other labels":
        monkeypatch.setattr(A.Rotate, "apply_to_mask", lambda self, mask, matrix, **more: mask)
    else:
        monkeypatch.setattr(A.Rotate, "apply", lambda self, img, turn, **more: img)
        monkeypatch.setattr(A.Rotate, "apply_to_mask", lambda self, mask, turn, **more: mask)
        monkeypatch.setattr(
            A.Rotate, "get_params_dependent_on_data", lambda self, params, data: {"turn": real(self, params, data)}
        )
    transforms = [A.HorizontalFlip(), A.Rotate(limit=45)]
    assert disagreeing(transforms, SQUARE, BINARY) == [f"Rotate as Albumentations {A.__version__} does it"]


def test_noise_of_another_strength_is_named(monkeypatch):
    real = A.GaussNoise.apply
    monkeypatch.setattr(A.GaussNoise, "apply", lambda self, img, noise_map, **more: real(self, img, noise_map / 2))
    assert len(disagreeing([A.GaussNoise(std_range=(0.1, 0.2))], SQUARE, BINARY)) == 1


def test_the_recipes_transforms_are_left_alone():
    transforms = chain()
    before = [copy.deepcopy(vars(one)) for one in transforms]
    BatchedAugmentation(transforms, SQUARE).draw(0)
    disagreeing(transforms, SQUARE, BINARY)
    assert [one.p for one in transforms] == [one["p"] for one in before]


def test_what_was_drawn_is_one_array():
    augmentation = BatchedAugmentation([A.HorizontalFlip(p=1), A.RandomRotate90(p=1), A.GaussNoise(p=0)], SQUARE)
    groups, numbers = grouped([augmentation.draw(0, 0, f"s{i}") for i in range(6)])
    assert groups[0] == Group(0, "", 6, 0)
    assert {group.way for group in groups[1:]} <= {"0", "1", "2", "3"}
    assert {group.step for group in groups} == {0, 1}
    assert numbers.dtype == np.float32
    assert len(numbers) == 12
