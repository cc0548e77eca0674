"""Albumentations' transforms: read from source as they really are, built with errors that say what was wrong."""

import importlib
import inspect
import os
import random
import subprocess
import sys
import typing
import warnings

import numpy as np
import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

import plugged
from segreg.config.sections import Input
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.settings import check_value, json_schema, plain
from segreg.task import Task
from segreg_plugins.augmentations import albumentations_transform, segreg_entries
from segreg_plugins.augmentations.source import transform_names, transform_settings
from segreg_plugins.augmentations.unfit import UNFIT

# Bases, and what is not a transform of images: volumes, spectrograms.
NOT_OFFERED = {
    "BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D", "NoOp", "ToTensor3D", "CenterCrop3D",
    "CoarseDropout3D", "CubicSymmetry", "Pad3D", "PadIfNeeded3D", "RandomCrop3D", "FrequencyMasking", "TimeMasking",
    "TimeReverse",
}  # fmt: skip
IMPORTABLE = {
    name for name in dir(A) if isinstance(getattr(A, name), type) and issubclass(getattr(A, name), A.BasicTransform)
} - NOT_OFFERED
# What a transform needs to be built or to keep the size of a 32x32 image.
NEEDED = {
    "CenterCrop": {"height": 32, "width": 32},
    "ConstrainedCoarseDropout": {"mask_indices": [1]},
    "Crop": {"x_max": 32, "y_max": 32},
    "CropAndPad": {"px": -4},
    "CropNonEmptyMaskIfExists": {"height": 32, "width": 32},
    "LongestMaxSize": {"max_size": 32},
    "Pad": {"padding": 0},
    "PadIfNeeded": {"min_height": 32, "min_width": 32},
    "RandomCrop": {"height": 32, "width": 32},
    "RandomResizedCrop": {"size": [32, 32]},
    "RandomSizedCrop": {"size": [32, 32], "min_max_height": [16, 32]},
    "Resize": {"height": 32, "width": 32},
    "SmallestMaxSize": {"max_size": 32},
}
EASY = sorted(IMPORTABLE - set(UNFIT))


def build(name, **given):
    """Build a transform as a recipe does: every setting checked, defaults filled in, everything passed."""
    settings = transform_settings(name)
    checked = {key: check_value(settings[key].hint, value) for key, value in (NEEDED.get(name, {}) | given).items()}
    complete = {key: setting.default for key, setting in settings.items() if not setting.required}
    with warnings.catch_warnings():
        # Two of them advise another transform.
        warnings.filterwarnings("ignore", message="This augmenter is very slow|ShiftScaleRotate is a special case")
        return albumentations_transform(name, **{**complete, **checked})


def test_every_transform_that_can_be_imported_is_listed():
    assert set(transform_names()) == IMPORTABLE - set(UNFIT)
    assert set(UNFIT) <= IMPORTABLE | {"ToTensorV2"}
    assert list(transform_names()) == sorted(transform_names())
    assert len(transform_names()) > 80


def test_settings_are_those_of_the_signatures():
    ours = {"fill_mask": (255,), "mask_interpolation": (0, 6)}
    for name in transform_names():
        real = dict(list(inspect.signature(getattr(A, name).__init__).parameters.items())[1:])
        settings = transform_settings(name)
        left_out = set(real) - set(settings)
        # Functions, which a recipe can't hold.
        assert left_out <= {"read_fn"}, name
        assert list(settings) == [parameter for parameter in real if parameter not in left_out]
        for key, setting in settings.items():
            theirs = real[key].default
            if setting.required:
                assert theirs is inspect.Parameter.empty
            elif setting.default != theirs:
                assert setting.default in ours[key], (name, key)
            # A setting can be described, checked and written.
            json_schema(setting.hint)
            if not setting.required:
                again = check_value(setting.hint, plain(setting.hint, setting.default))
                assert again == setting.default or list(again) == list(setting.default), (name, key)


def test_hints_are_those_of_the_signatures():
    unknown = [(n, k) for n in transform_names() for k, s in transform_settings(n).items() if s.hint is typing.Any]
    assert unknown == [("Equalize", "mask")]  # an array or a function
    assert transform_settings("Rotate")["limit"].hint == tuple[float, float] | float
    assert transform_settings("Rotate")["border_mode"].hint == typing.Literal[0, 1, 2, 3, 4]
    assert transform_settings("HueSaturationValue")["hue_shift_limit"].hint == tuple[float, float] | float
    assert json_schema(transform_settings("HorizontalFlip")["p"].hint) == {"type": "number", "minimum": 0, "maximum": 1}


def test_meanings_are_read_from_the_docstrings():
    meanings = {(n, k): s.meaning for n in transform_names() for k, s in transform_settings(n).items()}
    assert meanings["Rotate", "limit"].startswith("Range from which a random angle is picked.")
    assert meanings["HorizontalFlip", "p"].startswith("probability of applying the transform")
    assert sum(bool(meaning) for meaning in meanings.values()) > 0.95 * len(meanings)


def test_masks_are_safe_by_default():
    assert transform_settings("Rotate")["fill_mask"].default == 255
    assert transform_settings("CoarseDropout")["fill_mask"].default is None  # leaves the mask alone
    assert transform_settings("MaskDropout")["fill_mask"].default == 0  # takes objects away: background is meant
    assert transform_settings("RandomResizedCrop")["mask_interpolation"].default == 6
    with pytest.raises(ValueError, match="must be 0, not 1"):
        check_value(transform_settings("Rotate")["mask_interpolation"].hint, 1)
    with pytest.raises(ValueError, match="must be"):
        check_value(transform_settings("RandomResizedCrop")["area_for_downscale"].hint, "image_mask")


def test_listing_imports_nothing_heavy():
    code = """
import sys
from segreg_plugins.augmentations import segreg_entries
*_, family = segreg_entries()
assert "Rotate" in set(family.members())
assert family.settings("Rotate")["limit"].default == (-90, 90)
heavy = {"torch", "numpy", "cv2", "albumentations", "pydantic", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


@pytest.mark.slow
def test_building_asks_no_server():
    code = """
import os, socket
os.environ.pop("NO_ALBUMENTATIONS_UPDATE", None)
def refuse(*_): raise AssertionError("it called home")
socket.getaddrinfo = socket.create_connection = refuse
import warnings; warnings.simplefilter("error")
from segreg_plugins.augmentations import albumentations_transform
print(type(albumentations_transform("HorizontalFlip", p=0.5)).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "HorizontalFlip", done.stderr


def test_the_family():
    *_, family = segreg_entries()
    assert family.prefix == ""
    assert family.summary == "One of Albumentations' transforms, by its own name with its own settings."
    assert family.settings("VerticalFlip").keys() == {"p"}


def test_settings_arrive():
    rotate = build("Rotate", limit=[-30, 45], p=0.25)
    assert isinstance(rotate, A.Rotate)
    assert (rotate.limit, rotate.p, rotate.fill_mask) == ((-30.0, 45.0), 0.25, 255)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("Rotate", {"p": 2.0}, '"p": Input should be less than or equal to 1'),
        ("ImageCompression", {"quality_range": (200, 300)}, '"quality_range"'),
        ("CropAndPad", {}, "px and percent"),
        ("Rotate", {"angle": 3}, "angle"),
        ("MedianBlur", {"blur_limit": (-1, 3)}, '"MedianBlur"'),
        ("RandomRotate90", {"angle": 3}, "angle"),
        ("ToSepia", {"tone": 3}, "tone"),
    ],
)
def test_refused_settings_are_reported(name, settings, words):
    with pytest.raises(SegregError, match=f'the augmentation "{name}" refuses its settings.*{words}|{words}') as caught:
        albumentations_transform(name, **settings)
    assert f"segreg show augmentation {name}" in str(caught.value)
    assert "pydantic.dev" not in str(caught.value)


def test_an_unknown_transform_is_reported():
    with pytest.raises(SegregError, match=r'(?s)no transform "Rotat".*did you mean "Rotate"'):
        transform_settings("Rotat")


# What those that can't be used need to be built.
NEEDED_IN_VAIN = {
    "AtLeastOneBBoxRandomCrop": {"height": 32, "width": 32},
    "Mosaic": {"target_size": (32, 32), "cell_shape": (32, 32)},
    "RandomSizedBBoxSafeCrop": {"height": 32, "width": 32},
    "TextImage": {"font_path": "a.ttf"},
}
# They could be applied: one is a plain crop without boxes, the others do nothing.
HARMLESS = {"AtLeastOneBBoxRandomCrop", "Lambda", "ToRGB"}


# They run, and falsify masks.
FALSE = {
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 8},
    "Morphological": {"scale": [3, 3], "operation": "erosion"},
}


@pytest.mark.parametrize("name", FALSE)
def test_what_falsifies_masks_is_refused(name):
    transform = getattr(A, name)(**FALSE[name], p=1.0)
    image, mask = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 255, np.uint8)
    mask[30, 30] = 1
    transform.set_random_seed(0)
    found = transform(image=image, mask=mask)["mask"]
    assert (found == 0).any() or (found == 1).sum() > 1, "border without a label, or one pixel grown over ignored ones"


@pytest.mark.parametrize("name", sorted(set(UNFIT) - set(FALSE)))
def test_what_is_refused_by_name_does_not_work(name):
    from segreg.data.augment import Augmentation

    if name == "ToTensorV2":
        pytest.importorskip("albumentations.pytorch")
        transform = importlib.import_module("albumentations.pytorch").ToTensorV2(p=1.0)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a Lambda of nothing
            transform = getattr(A, name)(**NEEDED_IN_VAIN.get(name, {}), p=1.0)
    one = Augmentation([transform], Task(("x",), "binary"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in HARMLESS:
            one.try_out(Input(size=(32, 32)))
        else:
            with pytest.raises(SegregError, match=f'the augmentation "{name}" (fails|turns|gives)'):
                one.try_out(Input(size=(32, 32)))


@pytest.mark.parametrize("name", ["Normalize", "FDA", "ToTensorV2"])
def test_a_recipe_that_names_one_is_reported_why(name):
    registry = load_registry(plugged.builtin())
    with pytest.raises(SegregError) as reported:
        registry.find("augmentation", name)
    assert str(reported.value) == f'the augmentation "{name}" can\'t be used: {UNFIT[name]}'


def test_what_wants_a_mask_of_one_layer_says_so_of_several():
    from segreg.data.augment import Augmentation

    with pytest.raises(SegregError) as reported:
        Augmentation([build("MaskDropout", p=1.0)], Task(("x", "y"), "multilabel")).try_out(Input(size=(32, 32)))
    assert str(reported.value).startswith('the augmentation "MaskDropout" fails on an image of 32x32x3: ')
    assert str(reported.value).endswith(", or a mask of one layer, where a multilabel task has one for each class")


def blocks(seed=0):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 2, (4, 4), dtype=np.uint8), np.ones((8, 8), np.uint8))
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return image, mask


@pytest.mark.parametrize("name", EASY)
def test_every_transform_is_decided_by_its_seed_and_keeps_masks(name):
    """Two objects, the second used before: same seed, same result; and labels are 0, 1 or 255."""
    from segreg.data.augment import Augmentation

    one, two = (Augmentation([build(name, p=1.0)], Task(("x",), "binary")) for _ in range(2))
    one.try_out(Input(size=(32, 32)))
    two(*blocks(1), "before")
    first, second = one(*blocks(), 5), two(*blocks(), 5)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert set(np.unique(first[1])) <= {0, 1, 255}


FILLING = sorted(
    name
    for name in EASY
    if "fill_mask" in transform_settings(name) and transform_settings(name)["fill_mask"].default == 255
)
STRONG = {
    "Affine": {"scale": 0.5},
    "CropAndPad": {"px": 6},
    "OpticalDistortion": {"distort_limit": [0.9, 0.9]},
    "Perspective": {"scale": [0.3, 0.3], "fit_output": True},
    "SafeRotate": {"limit": [30, 30]},
    "Rotate": {"limit": [30, 30]},
    "ElasticTransform": {"alpha": 300, "sigma": 5},
    "GridDistortion": {"distort_limit": [0.9, 0.9], "normalized": False},
    "ShiftScaleRotate": {"scale_limit": [-0.5, -0.5]},
    "ThinPlateSpline": {"scale_range": [0.8, 0.8]},
}


@pytest.mark.parametrize("name", sorted(STRONG))
def test_what_is_filled_counts_for_nothing(name):
    """On a mask of one class everywhere, new pixels are 255 - and there are some."""
    transform = build(name, p=1.0, **STRONG[name])
    image, mask = blocks()[0], np.ones((32, 32), np.uint8)
    seen = set()
    for seed in range(5):
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        seen |= set(np.unique(transform(image=image, mask=mask)["mask"]))
    assert seen == {1, 255}


def test_all_that_fill_are_among_the_strong():
    at_size = {"CenterCrop", "Crop", "Pad", "PadIfNeeded", "RandomCrop"}  # they fill where the image is smaller
    never = {"PiecewiseAffine"}  # repeats the border whatever it is told
    assert set(FILLING) == set(STRONG) | at_size | never


@pytest.mark.parametrize("layers", [2, 5])
@pytest.mark.parametrize("name", sorted(STRONG))
def test_what_is_filled_counts_for_nothing_in_every_layer(name, layers):
    transform = build(name, p=1.0, **STRONG[name])
    image, mask = blocks()[0], np.ones((32, 32, layers), np.uint8)
    transform.set_random_state(np.random.default_rng(0), random.Random(0))
    after = transform(image=image, mask=mask)["mask"]
    assert set(np.unique(after)) == {1, 255}
    assert (after == after[..., :1]).all()
