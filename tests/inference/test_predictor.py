"""Predictions: as scoring sees them, at every image's own size, averaged, and in tiles that leave no trace."""

from __future__ import annotations

import csv
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import segreg
import small_runs
import tiny_runs
from segreg.config.sections import Input
from segreg.data import fit_image
from segreg.data.images import read_image, read_labels
from segreg.errors import SegregError
from segreg.inference.predictor import (
    InferenceConfig,
    Predictor,
    common_threshold,
    predict,
    predict_labels,
    predict_probabilities,
    prepare_image,
)
from segreg.inference.tiles import tile_starts
from segreg.runs.trained_run import Run
from segreg.runtime.device import Precision
from segreg.task import Task

CPU = torch.device("cpu")
FLOAT32 = Precision("float32", None, scaler=False, reason="test")
BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("ground", "cell", "edge"), "multiclass")
MULTILABEL = Task(("cat", "dog"), "multilabel")
NAME = Path("the image")


class Scale(nn.Module):
    def forward(self, images):
        return images.float() / 255 - 0.5


class Seen(nn.Module):
    """A convolution with random weights that notes the shapes it was given."""

    def __init__(self, classes, *, size=1, channels=3, seed=0):
        super().__init__()
        self.shapes = []
        drawn = torch.Generator().manual_seed(seed)
        weight = torch.randn(classes, channels, size, size, generator=drawn) * 4 / size
        self.register_buffer("weight", weight)

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return nn.functional.conv2d(images, self.weight, padding=self.weight.shape[-1] // 2)


def predictor(task=BINARY, *, name="run", size=1, seed=0, model=None, threshold=0.5, **given):
    section = Input(**{"size": (24, 32), **given})
    model = (model or Seen(task.channels, size=size, channels=section.channels, seed=seed)).eval()
    return Predictor(name, model, Scale(), section, task, threshold, CPU, FLOAT32)


def drawn(height, width, channels=3, *, seed=0, kind=np.uint8):
    """Return a smooth image with every value of its range."""
    noise = torch.rand(1, channels, 5, 6, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(noise, size=(height, width), mode="bicubic")[0].clamp(0, 1)
    return (smooth.permute(1, 2, 0).numpy() * np.iinfo(kind).max).astype(kind)


def labels_of(predictors, image, config=None, **given):
    return predict_labels(predictors, prepare_image(predictors, image, NAME, config), config, **given)


def probabilities_of(predictors, image, config=None):
    return predict_probabilities(predictors, prepare_image(predictors, image, NAME, config), config)


# as scoring sees them


@pytest.fixture
def _encoder():
    with small_runs.encoder():
        yield


@pytest.mark.usefixtures("_encoder")
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_labels_are_those_that_were_scored(tmp_path, resize):
    images, masks = tiny_runs.folder_dataset(tmp_path / "set", count=12, size=(45, 71))
    text = small_runs.RECIPE.replace(
        "{name: synthetic_lesions, root: images, samples: 24, size: 48}",
        f"{{name: folder, images: {images}, masks: {masks}}}",
    )
    run = small_runs.run(
        tmp_path, "optimizer.lr=0.02", f"input.resize={resize}", "evaluate.resolution=original",
        "evaluate.overlays=0", "evaluate.threshold=0.6", text=text,
    )  # fmt: skip
    rows = list(csv.DictReader(run.directory.per_image.read_text().splitlines()))
    assert len(rows) == 2
    for row in rows:
        labels = run.predict(images / f"{row['id']}.png")
        truth = read_labels(masks / f"{row['id']}.png") > 0
        found = labels == 1
        assert labels.shape == (45, 71)
        assert 0 < found.mean() < 1
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        column = next(name for name in row if name.startswith("dice"))
        assert float(row[column]) == pytest.approx(dice, abs=1e-6)


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (24, 32), (51, 33), (199, 301)])
def test_a_whole_image_against_pillow_and_torch(task, size):
    one, image = predictor(task, size=3), drawn(*size)
    # Fitted by Pillow, restored by torch, and chosen by numpy.
    fitted = np.array(Image.fromarray(image).resize((32, 24), Image.Resampling.BILINEAR))
    assert np.abs(fitted.astype(int) - fit_image(image, one.input)).max() <= 1
    fitted = fit_image(image, one.input)
    logits = one.model(torch.from_numpy(fitted).permute(2, 0, 1)[None] / 255 - 0.5)
    logits = nn.functional.interpolate(logits, size=size, mode="bilinear", antialias=True)[0].numpy()
    exponents = np.exp(logits - logits.max(axis=0))
    expected = exponents / exponents.sum(axis=0) if task.mode == "multiclass" else 1 / (1 + np.exp(-logits))
    probabilities = probabilities_of([one], image)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    labels = labels_of([one], image, threshold=None if task.mode == "multiclass" else 0.3)
    assert labels.dtype == np.uint8
    chosen = expected.argmax(axis=0) if task.mode == "multiclass" else expected >= 0.3
    chosen = chosen[0] if task.mode == "binary" else chosen
    assert labels.shape == chosen.shape
    assert (labels != chosen).mean() < 1e-3  # a pixel may lie on the threshold


def test_many_strips_make_the_same_as_one(monkeypatch):
    one, image = predictor(MULTICLASS, size=3), drawn(120, 70)
    whole = labels_of([one], image), probabilities_of([one], image)
    monkeypatch.setattr("segreg.inference.predictor._STRIP", 500)
    np.testing.assert_array_equal(labels_of([one], image), whole[0])
    np.testing.assert_allclose(probabilities_of([one], image), whole[1], atol=1e-6)
    ((_, strips),) = predict([one], [prepare_image([one], image, NAME)])
    assert [(strip.top, strip.rows.stop) for strip in strips] == [(top, min(120, top + 7)) for top in range(0, 120, 7)]


def test_images_in_a_batch_are_what_they_are_alone():
    one = predictor(MULTICLASS, size=3)
    images = [drawn(20 + 9 * number, 50 - 3 * number, seed=number) for number in range(7)]
    input_images = [prepare_image([one], image, Path(str(number))) for number, image in enumerate(images)]
    together = list(predict([one], iter(input_images), InferenceConfig(batch_size=3)))
    assert [shape[0] for shape in one.model.shapes] == [3, 3, 1]
    assert [input_image.name for input_image, _ in together] == [Path(str(number)) for number in range(7)]
    for image, (_, strips) in zip(images, together, strict=True):
        (strip,) = strips
        np.testing.assert_allclose(strip.probabilities, probabilities_of([one], image), atol=1e-6)


def test_large_images_are_not_held_together(monkeypatch):
    monkeypatch.setattr("segreg.inference.predictor._TOGETHER", 3000)
    one = predictor()
    sizes = [(60, 60), (10, 10), (60, 60), (20, 20), (20, 20)]
    images = [prepare_image([one], drawn(*size), NAME) for size in sizes]
    assert len(list(predict([one], images, InferenceConfig(batch_size=8)))) == 5
    assert [shape[0] for shape in one.model.shapes] == [1, 2, 2]


# what is taken


@pytest.mark.parametrize("config", [InferenceConfig(), InferenceConfig(tile=(16, 16))], ids=["whole", "tiles"])
def test_grey_full_alpha_and_16_bits_are_the_image_itself(config):
    one, colours = predictor(size=3, sixteen_bit="full_range"), drawn(40, 30)
    grey = colours[..., 0]
    assert_same = np.testing.assert_array_equal
    three = np.repeat(grey[..., None], 3, axis=2)
    assert_same(probabilities_of([one], grey, config), probabilities_of([one], three, config))
    opaque = np.dstack([colours, np.full((40, 30), 255, np.uint8)])
    assert_same(probabilities_of([one], opaque, config), probabilities_of([one], colours, config))
    assert_same(
        probabilities_of([one], colours.astype(np.uint16) * 257, config), probabilities_of([one], colours, config)
    )
    with pytest.raises(SegregError, match="the image: has four channels"):
        probabilities_of([one], np.dstack([colours, grey]), config)


def test_a_16_bit_image_is_stretched_as_a_whole_before_it_is_cut_into_tiles():
    one = predictor(sixteen_bit="min_max", channels=1)
    image = drawn(60, 60, 1, kind=np.uint16)[..., 0] // 50 + 700
    stretched = np.round((image - float(image.min())) * 255 / float(image.max() - image.min())).astype(np.uint8)
    tiled = probabilities_of([one], image, InferenceConfig(tile=(16, 16)))
    np.testing.assert_allclose(tiled, probabilities_of([one], stretched, InferenceConfig(tile=(60, 60))), atol=0.02)


def test_networks_that_take_images_otherwise_go_together():
    rgb, grey = predictor(seed=1), predictor(seed=2, channels=1)
    image = np.repeat(drawn(30, 40, 1), 3, axis=2)
    mean = (probabilities_of([rgb], image) + probabilities_of([grey], image)) / 2
    np.testing.assert_allclose(probabilities_of([rgb, grey], image), mean, atol=1e-6)


def test_a_network_for_one_size_refuses_others_unless_in_tiles():
    one = predictor(resize="none")
    assert labels_of([one], drawn(24, 32)).shape == (24, 32)
    with pytest.raises(SegregError) as refused:
        labels_of([one], drawn(25, 32))
    assert str(refused.value) == (
        "the image: is 25x32 (height x width), but run was trained on images that all have 24x32 "
        "(input.resize is none)\n  predict it in tiles of 24x32"
    )
    assert labels_of([one], drawn(25, 32), InferenceConfig(tile=(24, 32))).shape == (25, 32)
    assert labels_of([one], drawn(24, 32), InferenceConfig(flips="flips", scales=(0.75, 1.0, 1.25))).shape == (24, 32)


# averages


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)
@pytest.mark.parametrize(
    "config", [InferenceConfig(), InferenceConfig(tile=(16, 20), overlap=0.3)], ids=["whole", "tiles"]
)
def test_an_ensemble_is_the_mean_of_its_networks(task, config):
    one, two = predictor(task, seed=1), predictor(task, seed=2, size=3, resize="letterbox")
    image = drawn(45, 61)
    mean = np.mean([probabilities_of([each], image, config) for each in (one, two)], axis=0)
    np.testing.assert_allclose(probabilities_of([one, two], image, config), mean, atol=1e-6)
    chosen = {"binary": mean[0] >= 0.5, "multiclass": mean.argmax(axis=0), "multilabel": mean >= 0.5}[task.mode]
    assert (labels_of([one, two], image, config) != chosen).mean() < 1e-3


FLIPS = {"none": [()], "mirror": [(), (-1,)], "flips": [(), (-1,), (-2,), (-2, -1)]}


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("task", [BINARY, MULTICLASS], ids=lambda task: task.mode)
def test_flips_are_averaged_by_hand(flips, task):
    one, image = predictor(task, size=3, resize="none"), drawn(24, 32)
    turned = [
        np.flip(probabilities_of([one], np.flip(image, [axis - 1 for axis in flip])), flip) for flip in FLIPS[flips]
    ]
    averaged = probabilities_of([one], image, InferenceConfig(flips=flips))
    np.testing.assert_allclose(averaged, np.mean(turned, axis=0), atol=1e-6)
    assert flips == "none" or np.abs(averaged - turned[0]).max() > 0.01  # the network is not symmetric


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("tile", [None, (20, 16)])
def test_a_symmetric_network_sees_in_flips_what_it_sees_without(resize, tile):
    # In tiles their places are not mirrored, but a network that looks at single pixels can't tell.
    one, image = predictor(MULTICLASS, resize=resize), drawn(61, 47)
    plain = probabilities_of([one], image, InferenceConfig(tile=tile))
    np.testing.assert_allclose(
        probabilities_of([one], image, InferenceConfig(tile=tile, flips="flips")), plain, atol=1e-5
    )


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_with_flips_a_flipped_image_has_the_flipped_prediction(resize):
    one, image = predictor(size=3, resize=resize), drawn(60, 48)
    config = InferenceConfig(flips="flips")
    flipped = probabilities_of([one], image[:, ::-1], config)
    np.testing.assert_allclose(flipped[..., ::-1], probabilities_of([one], image, config), atol=0.02)  # uint8 rounding
    assert np.abs(probabilities_of([one], image[:, ::-1])[..., ::-1] - probabilities_of([one], image)).max() > 0.05


@pytest.mark.parametrize(("tile", "shapes"), [
    (None, [(18, 24), (24, 32), (30, 40)]),
    ((16, 20), [(16, 20)]),  # that show more of the image at a smaller scale
])  # fmt: skip
def test_scales_are_the_sizes_that_the_network_sees(tile, shapes):
    one, image = predictor(), drawn(48, 60)
    scaled = probabilities_of([one], image, InferenceConfig(flips="mirror", scales=(0.75, 1.0, 1.25), tile=tile))
    assert list(dict.fromkeys(shape[2:] for shape in one.model.shapes)) == shapes
    alone = [probabilities_of([replaced(one, scale)], image) for scale in (0.75, 1.0, 1.25)]
    if tile is None:
        np.testing.assert_allclose(scaled, np.mean(alone, axis=0), atol=1e-5)


def replaced(one, scale):
    """Return the network as it would be with an input of another size."""
    height, width = one.input.size
    section = Input(size=(round(height * scale), round(width * scale)), resize=one.input.resize)
    return Predictor(one.name, one.model, one.normalize, section, one.task, one.threshold, CPU, FLOAT32)


# tiles


@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL], ids=lambda task: task.mode)
@pytest.mark.parametrize("size", [(1, 1), (9, 200), (16, 20), (45, 61), (100, 33)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.8])
def test_tiles_of_a_network_that_sees_single_pixels_are_the_whole_image(task, size, overlap):
    one, image = predictor(task), drawn(*size)
    whole = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = task.probabilities(one.model(Scale()(whole)))[0].numpy()
    one.model.shapes.clear()
    tiled = probabilities_of([one], image, InferenceConfig(tile=(16, 20), overlap=overlap, batch_size=3))
    np.testing.assert_allclose(tiled, expected, atol=1e-6)
    assert {shape[2:] for shape in one.model.shapes} == {(min(16, size[0]), min(20, size[1]))}
    assert max(shape[0] for shape in one.model.shapes) <= 3


def test_tiles_of_a_network_that_sees_around_itself_leave_no_seams():
    one, image = predictor(size=5), drawn(90, 110)
    expected = probabilities_of([one], image, InferenceConfig(tile=(90, 110)))
    config = InferenceConfig(tile=(32, 40), overlap=0.5)
    tiled = probabilities_of([one], image, config)
    # Within two pixels of a tile's border the network sees its padding; everywhere else tiles agree.
    touched = np.zeros((90, 110), bool)
    for starts, tile, length, axis in ((tile_starts(90, 32, 0.5), 32, 90, 0), (tile_starts(110, 40, 0.5), 40, 110, 1)):
        for start in starts:
            for edge in ([start, start + 1] if start else []) + (
                [start + tile - 2, start + tile - 1] if start + tile < length else []
            ):
                touched[(edge,) if axis == 0 else (slice(None), edge)] = True
    assert 0.2 < touched.mean() < 0.5
    np.testing.assert_allclose(tiled[0][~touched], expected[0][~touched], atol=1e-6)
    # And there the border counts for almost nothing: no seam is seen, where hard edges leave plain ones.
    hard = probabilities_of([one], image, InferenceConfig(tile=(32, 40), overlap=0))
    assert np.abs(tiled - expected).max() < 0.02
    assert np.abs(hard - expected).max() > 0.1


def test_scaled_tiles_are_what_the_network_sees_of_more_of_the_image():
    one, image = predictor(), drawn(200, 240)
    tiled = probabilities_of([one], image, InferenceConfig(tile=(20, 24), scales=(0.25,)))
    assert {shape[2:] for shape in one.model.shapes} == {(20, 24)}
    assert tiled.shape == (1, 200, 240)
    # A smooth image is the same at a quarter of the size, as Pillow makes it, all at once.
    small = np.array(Image.fromarray(image).resize((60, 50), Image.Resampling.BILINEAR))
    logits = one.model(Scale()(torch.from_numpy(small).permute(2, 0, 1)[None]))
    expected = nn.functional.interpolate(logits, size=(200, 240), mode="bilinear").sigmoid()[0].numpy()
    assert np.abs(tiled - expected)[:, 8:-8, 8:-8].mean() < 0.01


class Largest(TorchDispatchMode):
    """Notes the number of values of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.values = max(self.values, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


@pytest.mark.parametrize(("flips", "scales"), [("none", (1.0,)), ("mirror", (1.0,)), ("none", (0.9, 1.0))])
def test_the_memory_that_tiles_take_does_not_grow_with_the_height_of_the_image(flips, scales):
    one = predictor(MULTICLASS)
    config = InferenceConfig(tile=(32, 32), overlap=0.1, batch_size=4, flips=flips, scales=scales)
    image = prepare_image([one], np.zeros((600, 300, 3), np.uint8), NAME)  # a map of it has 540,000 values: 2.2 MB
    rows = 0
    with Largest():  # torch imports more at the first dispatch, which is not what is measured
        one.logits(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    tracemalloc.start()
    try:
        with Largest() as largest:
            for _, strips in predict([one], [image], config):
                for strip in strips:
                    rows += strip.labels.shape[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 600
    assert largest.values <= 3 * 32 * 300  # a row of tiles, for each class
    assert peak < 1.5e6  # NumPy's part, in bytes


# what is refused


@pytest.mark.parametrize("config", [InferenceConfig(), InferenceConfig(flips="mirror"), InferenceConfig(tile=(24, 32))])
@pytest.mark.parametrize("task", [BINARY, MULTICLASS, MULTILABEL])
def test_nan_is_neither_background_nor_a_class(task, config):
    network = Seen(task.channels)
    network.weight[-1] = torch.nan
    of = predictor(task, model=network, resize="crop")
    image = prepare_image([of], drawn(40, 50), NAME)
    for predicted in (predict_labels, predict_probabilities):
        with pytest.raises(SegregError, match=r"the image: the network returns NaN(?s:.*)float32"):
            predicted([of], image, config)


def test_networks_for_other_classes_are_refused_by_name():
    other = Task(("lesion",), "multilabel")
    with pytest.raises(SegregError) as refused:
        common_threshold([predictor(name="runs/a"), predictor(name="runs/b"), predictor(other, name="runs/c")], None)
    assert str(refused.value) == (
        "predictions of these runs can't be averaged, because their classes differ: "
        'runs/a has "lesion" (binary), runs/c has "lesion" (multilabel)\n'
        "  predict with each of them alone"
    )


def test_thresholds_that_differ_need_one_that_holds():
    pair = [predictor(name="runs/a"), predictor(name="runs/b", threshold=0.3)]
    with pytest.raises(SegregError) as refused:
        common_threshold(pair, None)
    assert str(refused.value) == (
        "the thresholds of these runs differ: runs/a has 0.5, runs/b has 0.3\n  give a threshold for all of them"
    )
    assert common_threshold(pair, 0.4) == 0.4
    assert common_threshold(pair[1:], None) == 0.3
    classes = [predictor(MULTICLASS), predictor(MULTICLASS, threshold=0.3)]
    assert common_threshold(classes, None) == 0.5  # means nothing there
    with pytest.raises(SegregError, match=r"exclude each other.* no threshold takes part\n  leave out the threshold"):
        common_threshold(classes, 0.4)
    with pytest.raises(SegregError, match="the threshold must be from 0 to 1, not 50"):
        common_threshold(pair, 50)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tile": (0, 5)}, "a tile must have a height and a width above 0, not 0x5"),
        ({"tile": [64, 64]}, 'a tile is (height, width), "auto", or None for whole images, not [64, 64]'),
        ({"tile": "whole"}, "a tile is (height, width), \"auto\", or None for whole images, not 'whole'"),
        ({"tile": (5, 5), "overlap": 1.0}, "the overlap of tiles must be from 0 to 0.9, not 1"),
        ({"overlap": -0.1}, "the overlap of tiles must be from 0 to 0.9, not -0.1"),
        ({"overlap": float("nan")}, "the overlap of tiles must be from 0 to 0.9, not nan"),
        ({"scales": (1.0, 0.0)}, "a scale must be from 0.01 to 100, not 0"),
        ({"scales": ()}, "there is no scale to predict at\n  1.0 is the image as it is"),
        ({"batch_size": 0}, "the batch size must be above 0, not 0"),
        ({"flips": "turns"}, '"turns" is not a set of flips; there is "none", "mirror" and "flips"'),
    ],
)
def test_ways_that_lead_nowhere(given, says):
    with pytest.raises(SegregError) as refused:
        InferenceConfig(**given)
    assert str(refused.value) == says


# runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


def test_a_run_predicts_in_every_way(finished):
    image = drawn(50, 77)
    labels, probabilities = finished.predict(image), finished.probabilities(image)
    np.testing.assert_array_equal(labels, probabilities[0] >= 0.5)
    np.testing.assert_array_equal(finished.predict(image, threshold=0.2), probabilities[0] >= np.float32(0.2))
    config = InferenceConfig(tile=(32, 32), flips="mirror")
    tiled = finished.probabilities(image, config=config)
    assert tiled.shape == (1, 50, 77)
    np.testing.assert_array_equal(finished.predict(image, config=config), tiled[0] >= 0.5)
    pair = [finished.predictor(), finished.predictor("last")]
    both = predict_probabilities(pair, prepare_image(pair, image, NAME))
    mean = (probabilities + finished.probabilities(image, weights="last")) / 2
    np.testing.assert_allclose(both, mean, atol=1e-6)
    assert finished.predictor() is pair[0]  # loaded once
    assert finished.predictor(precision="recipe").precision.name == "float32"


def test_a_run_with_auto_is_scored_in_the_precision_in_which_it_computed(finished, monkeypatch):
    monkeypatch.setattr("segreg.runtime.device.processor_flags", lambda: frozenset({"avx512_bf16"}))
    run = Run(finished.directory, ("train.precision=auto",))  # it computed in float32
    assert run.predictor(precision="recipe").precision.reason == "float32, as the run computed"
    assert run.predictor(precision="auto").precision.name == "bf16"
    monkeypatch.setattr(Run, "environment", {"precision": "fp16"})  # on a GPU
    run = Run(finished.directory, ("train.precision=auto",))
    assert run.predictor(precision="recipe").precision.reason == "bf16, because the CPU has avx512_bf16"


def test_a_run_predicts_files_and_what_its_network_says_of_them(finished):
    file = next((finished.directory.path.parents[2] / "images").glob("*/*Input/*.jpg"))
    with torch.inference_mode():
        logits = finished.model()(finished.preprocess(file))
    size = read_image(file).shape[:2]
    expected = nn.functional.interpolate(logits, size=size, mode="bilinear", antialias=True).sigmoid()[0].numpy()
    np.testing.assert_allclose(finished.probabilities(file), expected, atol=1e-5)


def test_a_run_without_weights(finished, tmp_path):
    shutil.copytree(finished.directory.path, tmp_path / "run")
    for name in ("best", "last"):
        (tmp_path / "run" / f"{name}.safetensors").unlink()
    run = segreg.load_run(tmp_path / "run")
    with pytest.raises(SegregError) as refused:
        run.predict(drawn(8, 8))
    assert str(refused.value) == (
        f"{tmp_path / 'run'} has no best weights yet\n  segreg run --resume {tmp_path / 'run'} continues with it"
    )


def test_a_device_that_is_not_there(finished):
    with pytest.raises(SegregError, match='there is no device "cuda:77" here'):
        finished.predictor(device="cuda:77")
