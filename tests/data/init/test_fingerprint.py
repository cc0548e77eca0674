"""The numbers of a fingerprint, against ones worked out by hand and regions as scipy labels them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from segreg import Dataset, Sample, SegregError, Task
from segreg.data.init.fingerprint import fingerprint
from segreg.runtime.progress import Quiet

TASK = Task(("background", "disk", "bar"), "multiclass")


def scene(number):
    """Return an image, and its mask: one disk of radius 6 in the lower half, and a bar of 2 by 20 pixels above."""
    rng = np.random.default_rng(number)
    rows, columns = np.indices((64, 64))
    mask = np.zeros((64, 64), np.uint8)
    mask[(rows - 46) ** 2 + (columns - rng.integers(10, 54)) ** 2 <= 36] = 1
    mask[10:12, 20:40] = 2
    mask[0, :32] = 255
    return rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), mask


def dataset(count=12, **changed):
    samples = [Sample(str(n), Path(f"{n}"), Path(f"{n}-mask")) for n in range(count)]
    read = {"read_image": lambda s: scene(int(s.id))[0], "read_mask": lambda s: scene(int(s.id))[1]}
    return replace(Dataset(TASK, samples, **read), **changed)


def test_objects_shares_and_symmetry():
    found = fingerprint(dataset(), progress=Quiet())
    area = int((scene(0)[1] == 1).sum())
    disk, bar = found.objects["disk"], found.objects["bar"]
    assert (disk.count, disk.per_image) == (12, 1)
    assert disk.median == pytest.approx(np.sqrt(4 * area / np.pi), abs=0.05)
    assert disk.thickness == pytest.approx(2 * np.sqrt(37) - 1, abs=0.06)  # (6, 1) is the nearest outside
    assert bar.small == pytest.approx(np.sqrt(4 * 40 / np.pi), abs=0.05)
    assert bar.thickness == pytest.approx(2, abs=1)
    assert found.upright == 1.0  # each class is in one half alone
    assert found.sideways < 0.5
    assert found.ignored == pytest.approx(32 / 4096)
    assert {share.name: share.images for share in found.shares} == {"background": 12, "disk": 12, "bar": 12}
    assert (found.height, found.width, found.channels, found.dtype) == (64, 64, 3, "uint8")


def test_regions_are_those_of_scipy():
    rng = np.random.default_rng(1)
    noise = [ndimage.gaussian_filter(rng.normal(size=(64, 64)), 2) > 0.05 for _ in range(3)]
    masks = {str(n): blobs.astype(np.uint8) for n, blobs in enumerate(noise)}
    task = Task(("blob",), "binary")
    found = fingerprint(dataset(3, task=task, read_mask=lambda s: masks[s.id]), progress=Quiet()).objects["blob"]
    sizes = np.concatenate([np.bincount(ndimage.label(m, np.ones((3, 3)))[0].ravel())[1:] for m in masks.values()])
    assert found.count == (sizes >= 4).sum()


def test_a_large_set_is_sampled_by_its_seed():
    one, again = (fingerprint(dataset(30), progress=Quiet(), most=5, seed=3) for _ in range(2))
    assert (one.images, one.read) == (30, 5)
    assert one.as_data() == again.as_data()


def test_copies_and_splits():
    samples = [Sample(str(n), Path(f"{n}"), Path("m"), split="train" if n < 3 else "val") for n in range(4)]
    found = fingerprint(
        dataset(samples=samples, read_image=lambda s: np.tile(scene(int(s.id) % 3)[0], (1, 1, 1))), progress=Quiet()
    )
    assert (found.alike, found.across, found.splits) == (1, 1, {"train": 3, "val": 1})


def test_what_cannot_be_trained_on_is_kept_and_nothing_at_all_is_refused():
    def broken(sample):
        if sample.id == "0":
            raise SegregError("0: is damaged")
        return scene(int(sample.id))[0]

    found = fingerprint(dataset(4, read_image=broken), progress=Quiet())
    assert (found.read, found.faults) == (4, ["0: is damaged"])
    with pytest.raises(SegregError, match="none of the 1 images"):
        fingerprint(dataset(1, read_image=broken), progress=Quiet())


def test_bands_of_sixteen_bits():
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 4000, (64, 64, 5), dtype=np.uint16)
    found = fingerprint(dataset(2, read_image=lambda s: bands), progress=Quiet())
    assert (found.channels, found.dtype) == (5, "uint16")


def test_the_channels_are_those_of_the_images_whatever_their_masks_hold():
    alpha = lambda s: np.dstack([scene(int(s.id))[0], np.full((64, 64), 255, np.uint8)])  # noqa: E731
    masks = lambda s: scene(int(s.id))[1] if s.id != "0" else np.full((64, 64), 9, np.uint8)  # noqa: E731
    assert fingerprint(dataset(read_image=alpha, read_mask=masks), progress=Quiet()).channels == 3


def test_an_image_that_a_plugin_cannot_read_is_one_of_the_faults():
    def read(sample):
        if sample.id == "0":
            raise ValueError("strange")
        return scene(int(sample.id))[0]

    found = fingerprint(dataset(read_image=read), progress=Quiet())
    assert (found.channels, len(found.faults)) == (3, 1)


def test_a_class_in_the_middle_row_alone_is_neither_above_nor_below():
    mask = np.zeros((65, 64), np.uint8)
    mask[32, 10:20] = 1
    changed = {
        "read_mask": lambda _: mask,
        "read_image": lambda s: np.pad(scene(int(s.id))[0], ((0, 1), (0, 0), (0, 0))),
    }
    assert fingerprint(dataset(**changed), progress=Quiet()).upright == 0
