"""Data sets that are Python objects: what is taken, what is refused and by which index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segreg
import small_runs
import tiny_runs
from segreg.data.python_data import adapt
from segreg.errors import SegregError

GREY = np.arange(24 * 32, dtype=np.int64).reshape(24, 32)
IMAGE = np.stack([GREY % 256, GREY * 3 % 256, GREY * 7 % 256], 2).astype(np.uint8)
MASK = (GREY % 5 == 0).astype(np.int64)


class Blobs(torch.utils.data.Dataset):
    """Bright blobs, as tensors."""

    classes = ("blob",)

    def __init__(self, first=0, count=12):
        self.first, self.count = first, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(self.first + index)
        coarse = rng.integers(0, 256, (5, 5), dtype=np.uint8)
        grey = np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC))
        return torch.from_numpy(np.stack([grey, 255 - grey, grey // 2])), torch.from_numpy(grey > 127).long()


@pytest.fixture
def _encoder():
    with small_runs.encoder():
        yield


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        Image.fromarray(IMAGE),
        torch.from_numpy(IMAGE).permute(2, 0, 1),
        torch.from_numpy(IMAGE).permute(2, 0, 1).float() / 255,  # as ToTensor gives it
    ],
    ids=["array", "PIL", "uint8 tensor", "float tensor"],
)
@pytest.mark.parametrize("mask", [MASK, torch.from_numpy(MASK), Image.fromarray(MASK.astype(np.uint8)), MASK > 0])
def test_images_and_masks_are_read_exactly(image, mask):
    dataset = adapt([(image, mask)], ["spot"]).dataset
    sample = dataset.samples[0]
    np.testing.assert_array_equal(dataset.read_image(sample), IMAGE)
    np.testing.assert_array_equal(dataset.read_mask(sample), MASK)
    assert dataset.read_mask(sample).dtype == np.uint8
    assert dataset.task == segreg.Task(("spot",), "binary")


def _as_it_is(sample):
    return MASK


def _inverted(sample):
    return 1 - MASK


def test_a_data_sets_reader_names_the_source_of_its_functions():
    def reader(read_mask, name):
        sample = segreg.Sample("one", Path("a.png"))
        task = segreg.Task(("spot",), "binary")
        return adapt(segreg.Dataset(task, [sample], _inverted, read_mask, reader=name)).dataset.reader

    assert reader(_as_it_is, "ours") == reader(_as_it_is, "ours") != reader(_inverted, "ours")
    assert reader(_as_it_is, "") == ""


def test_sixteen_bits_and_several_masks_are_taken():
    wide, both = GREY.astype(np.uint16) * 60, np.stack([MASK, 1 - MASK])
    dataset = adapt([(wide, both)], ["a", "b"]).dataset
    assert dataset.task.mode == "multilabel"
    np.testing.assert_array_equal(dataset.read_image(dataset.samples[0]), wide)
    np.testing.assert_array_equal(dataset.read_mask(dataset.samples[0]), both)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (None, "(image, mask) was expected, not None"),
        ((IMAGE, None), "the mask is None"),
        ((None, MASK), "the image is None"),
        ((IMAGE, MASK / 2), "the mask is float64"),
        ((IMAGE, MASK - 1), "the value -1"),
        ((IMAGE, MASK * 300), "the value 300"),
        ((IMAGE, MASK[:5]), "the sizes differ"),
        ((IMAGE, np.stack([MASK, MASK])), "the mask has the shape [2, 24, 32]"),
        ((IMAGE.astype(np.int32), MASK), "the image is int32"),
        ((IMAGE[None], MASK), "the image has the shape [1, 24, 32, 3]"),
    ],
)
def test_what_is_wrong_is_named_by_the_index(pair, words):
    dataset = adapt([(IMAGE, MASK), pair], ["spot"]).dataset
    with pytest.raises(SegregError) as reported:
        dataset.read_mask(dataset.samples[1])
    assert str(reported.value).startswith("data[1]: ")
    assert words in str(reported.value)


def test_floating_point_images_are_as_the_first_one_is():
    units = IMAGE.astype(np.float32) / 7 - 12
    dataset = adapt([(units, MASK), (IMAGE.astype(np.float64) / 255, MASK)], ["spot"]).dataset
    assert [dataset.read_image(sample).dtype for sample in dataset.samples] == ["float32", "float32"]
    np.testing.assert_array_equal(dataset.read_image(dataset.samples[0]), units)
    dataset = adapt([(IMAGE.astype(np.float32) / 255, MASK), (units, MASK)], ["spot"]).dataset
    np.testing.assert_array_equal(dataset.read_image(dataset.samples[0]), IMAGE)
    with pytest.raises(SegregError, match=r"data\[1\]: .* not k/255"):
        dataset.read_image(dataset.samples[1])


def test_an_empty_first_image_says_nothing_of_the_others():
    empty, units = np.zeros(IMAGE.shape, np.float32), IMAGE.astype(np.float32) / 7 - 12
    dataset = adapt([(empty, MASK), (units, MASK)], ["spot"]).dataset
    assert [dataset.read_image(sample).dtype for sample in dataset.samples] == ["float32", "float32"]
    dataset = adapt([(empty, MASK), (IMAGE.astype(np.float32) / 255, MASK)], ["spot"]).dataset
    assert [dataset.read_image(sample).dtype for sample in dataset.samples] == ["uint8", "uint8"]


def test_an_empty_split_has_the_mode_of_the_others():
    layers = np.stack([MASK, 1 - MASK])
    data = {"train": [(IMAGE, layers)], "val": [(IMAGE, layers)], "test": []}
    assert adapt(data, ["spot", "ground"]).dataset.task.mode == "multilabel"


def test_an_exception_and_a_random_sample_are_named_by_the_index():
    class Random(Blobs):
        def __getitem__(self, index):
            if index == 3:
                raise ValueError("no such row")
            return np.random.default_rng().integers(0, 9, (8, 8, 3), np.uint8), np.zeros((8, 8), int)

    dataset = adapt(Random()).dataset
    with pytest.raises(SegregError, match=r"data\[3\]: __getitem__ raised ValueError: no such row"):
        dataset.read_image(dataset.samples[3])
    for index in (0, 1):
        dataset.read_image(dataset.samples[index])
    with pytest.raises(SegregError, match=r"data\[0\]: it gives another image or mask each time"):
        dataset.read_image(dataset.samples[0])


@pytest.mark.parametrize(
    ("data", "classes", "words"),
    [
        (5, ["a"], "no __len__ and __getitem__"),
        ([(IMAGE, MASK)], None, "nothing names the classes"),
        ([(IMAGE, MASK)], "spot", "a list of names"),
        ({"valid": Blobs()}, None, "'valid'"),
        ({"train": Blobs()}, None, '"val" is not among them'),
        ([], ["a"], "data is empty"),
    ],
)
def test_objects_that_are_no_data_set_are_refused(data, classes, words):
    with pytest.raises(SegregError) as reported:
        adapt(data, classes)
    assert words in str(reported.value)


@pytest.mark.usefixtures("_encoder")
def test_a_run_of_python_data_is_resumed_scored_and_used(tmp_path, monkeypatch):
    for name in tiny_runs._SLOW[:2]:  # diagrams take longer than all the rest
        monkeypatch.setattr(name, lambda *_, **__: None)
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", lambda *_: None)
    recipe = segreg.load_recipe(small_runs.write_recipe(tmp_path), {"train.epochs": 1, "train.workers": 1})
    data = {"train": Blobs(), "val": Blobs(20, 4), "test": Blobs(30, 4)}
    run = segreg.run_recipe(recipe, out=tmp_path / "runs", progress="quiet", data=data)
    split = json.loads(run.directory.split.read_text())
    assert split["test"] == ["test-0", "test-1", "test-2", "test-3"]
    section = segreg.load_recipe(run.directory.resolved).values["dataset"]
    assert (section["name"], section["classes"], section["mode"]) == ("python", ["blob"], "binary")
    assert section["class_name"].endswith("Blobs")
    assert section["file"] == __file__
    assert section["source"]

    for use in (segreg.evaluate, segreg.resume):
        with pytest.raises(SegregError, match="the data came from Python") as reported:
            use(run.directory.path)
        assert "segreg.resume(run, data=...)" in str(reported.value)
    assert segreg.predict(run, IMAGE)[0].shape == (24, 32)
    assert segreg.report(run).parent == run.directory.path

    scored = segreg.evaluate(run.directory.path, data=data)
    assert scored.split == "test"
    assert scored.scores["dice.pooled"] == pytest.approx(run.results["metrics"]["test"]["dice.pooled"], abs=1e-6)
    others = [segreg.evaluate(run, data=Blobs(seed, 5)) for seed in (40, 60)]
    assert [other.data["images"] for other in others] == [{"all": 5}] * 2
    assert others[0].folder != others[1].folder
    assert segreg.evaluate(run, data=Blobs(40, 5)).folder == others[0].folder
    more = segreg.resume(run, {"train.epochs": 2}, progress="quiet", data=data)
    assert more.results["epochs"] == 2
    with pytest.raises(SegregError, match="have changed"):
        segreg.resume(run, data={**data, "val": Blobs(50, 4)}, progress="quiet")
