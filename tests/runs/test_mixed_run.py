"""Runs whose batches are mixed: the same again, whatever the workers and wherever they stopped."""

from __future__ import annotations

import pytest
import torch

import segreg
import small_runs
import tiny_runs
from segreg.config.resolve import read_resolved
from segreg.errors import SegregError
from segreg.training.checkpoint import read_weights

RECIPE = small_runs.RECIPE.replace(
    "encoder:", "batch_augment: [mixup, cutmix, classmix, {name: copy_paste, probability: 0.8}]\nencoder:"
)


pytestmark = pytest.mark.usefixtures("three_convolutions")


@pytest.fixture(scope="module")
def whole(three_convolutions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    return folder, small_runs.run(folder, "train.epochs=2", text=RECIPE)


def weights(run):
    return read_weights(run.directory.last)[0]


def test_a_run_that_goes_on_with_other_workers_ends_with_the_same_weights(whole):
    folder, run = whole
    begun = small_runs.run(folder, "train.epochs=1", "train.workers=0", text=RECIPE)
    first = weights(begun)
    with tiny_runs.undrawn():
        resumed = segreg.resume(begun, ["train.epochs=2", "train.workers=1"], progress="quiet")
    expected, found = weights(run), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    plain = weights(small_runs.run(folder, "train.epochs=1", text=small_runs.RECIPE))
    assert not all(torch.equal(plain[name], first[name]) for name in first)


def test_the_section_is_in_the_resolved_recipe(whole):
    _, run = whole
    written = segreg.load_recipe(run.directory.resolved)
    assert [part["name"] for part in written.values["batch_augment"]] == ["mixup", "cutmix", "classmix", "copy_paste"]


def test_batches_of_one_image_are_refused(whole):
    folder, _ = whole
    with pytest.raises(SegregError, match="batches of one image have nothing to be mixed with"):
        read_resolved(small_runs.write_recipe(folder, RECIPE), ["train.batch_size=1"])
