"""The cache: right arrays, reused when nothing changed, never half-written, never too large, every wrong file told."""

import dataclasses
import errno
import fcntl
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segreg.config.sections import Input
from segreg.data import BatchLoader
from segreg.data import cache as cache_module
from segreg.data.cache import original_mask
from segreg.data.cache_folder import clear, entry_folder, list_entries, new_folder
from segreg.data.images import read_image as read_file
from segreg.data.native import prepare
from segreg.data.resize import fit_image, fit_mask, placement
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.task import Task

SMALL = Input(size=(16, 16))


def read_image(sample):
    with Image.open(sample.image) as image:
        return np.asarray(image)


def read_mask(sample):
    with Image.open(sample.mask) as image:
        return np.asarray(image)


def on_disk(folder, count=6, task=None):
    """A data set of PNG files."""
    folder.mkdir(exist_ok=True)
    samples = []
    for i in range(count):
        rng = np.random.default_rng(i)
        image, mask = folder / f"p{i}.png", folder / f"p{i}_mask.png"
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.integers(0, 2, (20 + i, 30), dtype=np.uint8)).save(mask)
        samples.append(Sample(f"p{i}", image, mask))
    return Dataset(task or Task(("x",), "binary"), samples, read_image, read_mask, reader="png")


@pytest.fixture
def files(tmp_path):
    return on_disk(tmp_path / "images")


@pytest.fixture
def reads(monkeypatch):
    """Counts how many samples were decoded."""
    seen = []
    real = cache_module.fitted_sample
    monkeypatch.setattr(cache_module, "fitted_sample", lambda d, s, i: (seen.append(s.id), real(d, s, i))[1])
    return seen


def test_arrays_hold_the_fitted_samples(files):
    prepared = prepare(files, SMALL)
    assert prepared.images.shape == (6, 16, 16, 3)
    assert prepared.masks.shape == (6, 16, 16)
    assert prepared.images.dtype == prepared.masks.dtype == np.uint8
    assert prepared.ids == tuple(f"p{i}" for i in range(6))
    assert prepared.original_size(4) == (24, 30)
    for i, sample in enumerate(files.samples):
        np.testing.assert_array_equal(prepared.images[i], fit_image(read_image(sample), SMALL))
        np.testing.assert_array_equal(prepared.masks[i], fit_mask(read_mask(sample), SMALL))
    assert not prepared.images.flags.writeable


def test_multilabel_masks_have_a_plane_a_class(memory):
    dataset = memory(3, task=Task(("a", "b"), "multilabel"))
    prepared = prepare(dataset, Input(size=(16, 16), resize="letterbox"))
    assert prepared.masks.shape == (3, 2, 16, 16)
    assert set(np.unique(prepared.masks)) == {0, 1, 255}


def test_some_samples_keep_their_indices(files):
    prepared = prepare(files, SMALL, indices=[4, 1])
    assert prepared.indices == (1, 4)
    assert prepared.id_of(4) == "p4"
    np.testing.assert_array_equal(prepared.images[prepared.rows[4]], prepare(files, SMALL).images[4])


def test_what_is_prepared_is_not_prepared_again(files, reads):
    reported = []
    first = prepare(files, SMALL, progress=lambda done, total: reported.append((done, total)))
    assert len(reads) == 6
    assert reported == [(i, 6) for i in range(1, 7)]
    second = prepare(files, SMALL, progress=lambda *_: pytest.fail("nothing is to be done"))
    assert len(reads) == 6
    assert second.folder == first.folder


def test_a_change_of_content_or_settings_prepares_anew(files, tmp_path, reads):
    one = prepare(files, SMALL)
    changes = [
        prepare(files, Input(size=(16, 20))),
        prepare(files, Input(size=(16, 16), resize="letterbox")),
        prepare(dataclasses.replace(files, reader="png, other classes"), SMALL),
        prepare(dataclasses.replace(files, task=Task(("y",), "binary")), SMALL),
        prepare(files, SMALL, indices=[0, 1]),
    ]
    image = files.samples[2].image
    before = image.stat()
    Image.fromarray(np.zeros((22, 30, 3), np.uint8)).save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and archives do
    changes.append(prepare(files, SMALL))
    assert len({one.folder, *(found.folder for found in changes)}) == 7
    assert not changes[-1].images[2].any()
    # The other settings of the input don't matter here.
    assert prepare(files, Input(size=(16, 16), normalize="none")).folder == changes[-1].folder


def test_without_a_reader_what_is_read_counts(files):
    def inverted(sample):
        return 1 - read_mask(sample)

    nameless = dataclasses.replace(files, reader="")
    one, other = (prepare(dataclasses.replace(nameless, read_mask=read), SMALL) for read in (read_mask, inverted))
    np.testing.assert_array_equal(other.masks[0], 1 - one.masks[0])
    assert prepare(nameless, SMALL).folder == one.folder


def test_the_same_content_elsewhere_is_the_same_entry(files, tmp_path, reads):
    first = prepare(files, SMALL)
    shutil.copytree(tmp_path / "images", tmp_path / "moved")
    moved = dataclasses.replace(
        files,
        samples=[
            dataclasses.replace(s, image=tmp_path / "moved" / s.image.name, mask=tmp_path / "moved" / s.mask.name)
            for s in files.samples
        ],
    )
    assert prepare(moved, SMALL).folder == first.folder


def test_unchanged_files_are_read_once(files, monkeypatch):
    import segreg.data.cache as digests

    read = []
    real = digests._digest
    monkeypatch.setattr(digests, "_digest", lambda file: (read.append(file), real(file))[1])
    prepare(files, SMALL)
    assert len(read) == 12
    # They are seconds old: a change within the clock's tick could pass unseen, so nothing is remembered yet.
    prepare(files, SMALL)
    assert len(read) == 24
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)
    prepare(files, SMALL)
    prepare(files, SMALL)
    assert len(read) == 36
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(files.samples[0].image)
    prepare(files, SMALL)
    assert read[36:] == [files.samples[0].image]


def test_what_changes_while_the_others_are_read_is_not_remembered(files, monkeypatch):
    """By the end of a long reading its clock would seem settled."""
    read, now, real = [], time.time_ns, cache_module._digest
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9 * len(read))
    monkeypatch.setattr(cache_module, "_digest", lambda file: (read.append(file), real(file))[1])
    prepare(files, SMALL)
    read.clear()
    prepare(files, SMALL)
    assert len(read) == 12


def test_a_damaged_index_costs_time_and_nothing_else(files, cache, monkeypatch):
    import segreg.data.cache as digests

    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)
    folder = prepare(files, SMALL).folder
    (cache / "digests.sqlite3").write_bytes(b"no database at all " * 100)
    assert prepare(files, SMALL).folder == folder
    assert prepare(files, SMALL).folder == folder
    assert (cache / "digests.sqlite3").read_bytes().startswith(b"SQLite format 3")


def test_a_folder_of_masks_counts_as_content(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "one.png").write_bytes(b"1")
    sample = Sample("a", tmp_path / "none.png", folder)
    empty = np.zeros((9, 9), np.uint8)
    dataset = Dataset(Task(("x",), "binary"), [sample], lambda _: empty, lambda _: empty, reader="folders")
    first = prepare(dataset, SMALL).folder
    assert prepare(dataset, SMALL).folder == first
    (folder / "two.png").write_bytes(b"2")
    assert prepare(dataset, SMALL).folder != first


def test_what_is_no_file_is_known_by_what_is_read(memory):
    dataset = memory(3)
    first = prepare(dataset, SMALL)
    assert prepare(memory(3), SMALL).folder == first.folder
    other = dataclasses.replace(dataset, read_image=lambda s: 255 - dataset.read_image(s))
    assert prepare(other, SMALL).folder != first.folder


def test_what_is_no_file_is_read_once_for_its_key(memory):
    """Whichever of the types its values turn out to have."""
    read, dataset = [], memory(3)
    counted = replace(dataset, read_image=lambda sample: (read.append(sample.id), dataset.read_image(sample))[1])
    prepare(counted, SMALL)
    read.clear()
    prepare(counted, SMALL)
    assert read == ["s000", "s001", "s002"]


def of_arrays(*images, masks=None):
    """Return a data set of these images."""
    samples = [Sample(f"s{i}", Path(f"{i}.tif"), Path(f"{i}_mask.png")) for i in range(len(images))]
    masks = masks or [np.zeros(image.shape[:2], np.uint8) for image in images]
    by_id = {sample.id: (image, mask) for sample, image, mask in zip(samples, images, masks, strict=True)}
    return Dataset(Task(("x",), "binary"), samples, lambda s: by_id[s.id][0], lambda s: by_id[s.id][1])


def test_sixteen_bits_are_kept_or_become_eight(cache):
    dataset = of_arrays(np.full((16, 16), 257 * 130, np.uint16))
    kept = prepare(dataset, SMALL)
    assert (kept.images == 257 * 130).all()
    assert kept.input.dtype == "uint16"
    reduced = prepare(dataset, replace(SMALL, sixteen_bit="full_range"))
    assert (reduced.images == 130).all()
    assert reduced.input.dtype == "uint8"
    assert reduced.statistics is None


def test_the_widest_integers_are_the_data_sets_type(cache):
    wide, narrow = np.full((9, 9), 1000, np.uint16), np.full((9, 9), 7, np.uint8)
    dataset = of_arrays(narrow, narrow, wide, narrow)
    prepared = prepare(dataset, SMALL)
    assert prepared.input.dtype == "uint16"
    assert [int(image.max()) for image in prepared.images] == [7 * 257, 7 * 257, 1000, 7 * 257]
    # Found again, whether or not the type is known by then, and not taken for that of a part of the images.
    assert prepare(dataset, SMALL).folder == prepare(dataset, prepared.input).folder == prepared.folder
    asked = prepare(dataset, replace(SMALL, dtype="uint16"), indices=[0, 1])
    assert asked.images.max() == 7 * 257
    assert prepare(dataset, SMALL, indices=[0, 1]).images.max() == 7
    with pytest.raises(SegregError, match=r"2\.tif: has 16 bits(.|\n)*input\.sixteen_bit"):
        prepare(dataset, replace(SMALL, dtype="uint8"))
    with pytest.raises(SegregError, match=r"4\.tif: holds floating-point values, and \d\.tif"):
        prepare(of_arrays(narrow, narrow, wide, narrow, narrow.astype(np.float32)), SMALL)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_wide_values_are_resized_and_letterboxed(cache, dtype):
    ramp = np.add.outer(np.arange(64), np.arange(32)).astype(dtype) * 600
    prepared = prepare(of_arrays(ramp), replace(SMALL, channels=1, resize="letterbox"))
    image, mask = prepared.sample(0)
    place = placement((64, 32), prepared.input)
    inside = image[place.rows, place.columns, 0].astype(float)
    expected = ramp.reshape(16, 4, 8, 4).astype(float).mean((1, 3))
    assert np.abs(inside - expected)[2:-2, 2:-2].max() < 2
    assert (mask[:, 0] == 255).all()
    np.testing.assert_allclose(image[:, 0], 0 if dtype == "uint16" else ramp.mean(), rtol=1e-6)


@pytest.mark.parametrize("height", [1, 5])
def test_a_tensor_can_be_made_of_a_flipped_mask(height):
    mask = np.arange(height * 4, dtype=np.uint8).reshape(height, 4)
    flipped = SimpleNamespace(read_mask=lambda _: mask[::-1])
    np.testing.assert_array_equal(torch.from_numpy(original_mask(flipped, None, SMALL)), mask[::-1])


def test_invalid_pixels_are_ignored_and_filled(cache):
    image = np.random.default_rng(0).normal(-40, 9, (16, 16, 3)).astype(np.float32)
    image[:4, :4, 1] = np.nan
    image[8:, 8:, 2] = -1000
    masks = [np.ones((16, 16), np.uint8)]
    prepared = prepare(of_arrays(image, masks=masks), replace(SMALL, nodata=-1000))
    invalid = np.zeros((16, 16), np.bool_)
    invalid[:4, :4] = invalid[8:, 8:] = True
    np.testing.assert_array_equal(prepared.masks[0], np.where(invalid, 255, 1))
    np.testing.assert_array_equal(prepared.images[0][~invalid], image[~invalid])
    np.testing.assert_allclose(prepared.images[0][invalid], np.tile(image[~invalid].mean(0), (80, 1)), rtol=1e-5)
    assert prepared.labels.tolist() == [[0, 256 - 80, 80]]
    dataset, input = of_arrays(image, masks=masks), prepared.input
    np.testing.assert_array_equal(original_mask(dataset, dataset.samples[0], input), prepared.masks[0])
    assert prepared.channel_statistics([0])[0] == pytest.approx(image[~invalid].astype(float).mean(0), rel=1e-9)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_statistics_of_wide_images_are_numpys_in_any_order(cache, dtype):
    drawn = np.random.default_rng(0)
    images = [(drawn.random((16, 16, 3)) * 900 + 100 * i).astype(dtype) for i in range(5)]
    prepared = prepare(of_arrays(*images), SMALL)
    mean, std = prepared.channel_statistics([0, 2, 3])
    chosen = np.concatenate([images[i].reshape(-1, 3).astype(float) for i in (0, 2, 3)])
    chosen /= prepared.input.value_range
    np.testing.assert_allclose((mean, std), (chosen.mean(0), chosen.std(0)), rtol=1e-12)
    assert prepared.channel_statistics([3, 0, 2]) == (mean, std)
    with pytest.raises(SegregError, match=r"channel 1, channel 2 and channel 3 of 3.*have the value 7"):
        prepare(of_arrays(np.full((16, 16), 7, dtype)), SMALL).channel_statistics([0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_batches_of_z_scores_are_of_the_whole_image(cache, dtype):
    image = (np.random.default_rng(0).random((16, 16, 3)) * 200).astype(dtype)
    prepared = pickle.loads(pickle.dumps(prepare(of_arrays(image), replace(SMALL, normalize="per_image"))))
    found = prepared.network_input(0, prepared.images[0][2:5, 3:9])
    expected = (image.astype(float) - image.mean((0, 1), float)) / image.std((0, 1), float)
    np.testing.assert_allclose(found, expected[2:5, 3:9], atol=1e-5)
    assert found.dtype == np.float32


def test_every_wrong_file_is_reported_and_nothing_is_kept(files, cache):
    samples = list(files.samples)
    samples[0].image.write_bytes(b"no image")
    samples[1].mask.unlink()
    Image.fromarray(np.zeros((9, 30), np.uint8)).save(samples[2].mask)
    Image.fromarray(np.full((23, 30), 7, np.uint8)).save(samples[3].mask)
    samples[4] = dataclasses.replace(samples[4], mask=None)
    with pytest.raises(SegregError) as caught:
        prepare(dataclasses.replace(files, samples=samples), SMALL)
    reported = [str(problem) for problem in caught.value.problems]
    assert len(reported) == 5
    assert reported[0].startswith(f"{samples[0].image}: can't be read: UnidentifiedImageError")
    assert str(samples[1].mask) in reported[1]
    assert "FileNotFoundError" in reported[1]
    assert reported[2] == f"{samples[2].image}: is 22x30 but its mask {samples[2].mask} is 9x30 (height x width)"
    assert reported[3].startswith(
        f"{samples[3].mask}: the mask holds 7, which is not a class: the binary task has 0 to 1, and 255"
    )
    assert reported[4] == f"{samples[4].image}: has no mask"
    assert list_entries() == []
    assert not list((cache / "prepared").iterdir())


def test_many_wrong_files_are_counted(files):
    dataset = dataclasses.replace(files, samples=[dataclasses.replace(s, mask=None) for s in files.samples] * 5)
    with pytest.raises(SegregError) as caught:
        prepare(dataset, SMALL)
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1].message == "and 10 more files are wrong"


@pytest.mark.parametrize(
    ("task", "value", "words"),
    [
        (Task(("a", "b", "c"), "multiclass"), 3, "holds 3, which is not a class: the multiclass task has 0 to 2"),
        (Task(("a", "b", "c"), "multiclass"), 254, "holds 254"),
        (Task(("a",), "binary"), 2, "holds 2, which is not a class: the binary task has 0 to 1"),
    ],
)
def test_values_that_are_no_class_are_reported(tmp_path, task, value, words):
    mask = np.zeros((8, 8), np.uint8)
    mask[0, 0], mask[1, 1] = value, 255
    sample = Sample("a", tmp_path / "a.png", tmp_path / "a_mask.png")
    dataset = Dataset(task, [sample], lambda _: np.zeros((8, 8), np.uint8), lambda _: mask)
    with pytest.raises(SegregError, match=words):
        prepare(dataset, SMALL)
    mask[0, 0] = 1
    assert set(np.unique(prepare(dataset, Input(size=(8, 8))).masks)) == {0, 1, 255}


def test_what_a_reader_may_not_give_is_reported(tmp_path):
    sample = Sample("a", tmp_path / "a.png", tmp_path / "a_mask.png")
    good_image, good_mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)

    def attempt(image, mask, task=None):
        prepare(Dataset(task or Task(("x",), "binary"), [sample], lambda _: image, lambda _: mask), SMALL)

    with pytest.raises(SegregError, match=r"image of shape \[8, 8, 3\] and type complex128; it must be \[H, W\]"):
        attempt(good_image.astype(complex), good_mask)
    with pytest.raises(SegregError, match=r"mask of shape \[8, 8\] and type int64; .* must be uint8, \[H, W\]"):
        attempt(good_image, good_mask.astype(np.int64))
    with pytest.raises(SegregError, match=r"must be uint8, \[2, H, W\]"):
        attempt(good_image, good_mask, Task(("a", "b"), "multilabel"))


def test_none_reports_files_and_sizes(files):
    with pytest.raises(SegregError) as caught:
        prepare(files, Input(size=(20, 30), resize="none"))
    assert len(caught.value.problems) == 5
    assert str(caught.value.problems[0]).startswith(
        f"{files.samples[1].image}: the image is 21x30 (height x width) and input.size is 20x30"
    )


def test_a_kill_leaves_nothing_that_is_used(files, cache, tmp_path, python):
    """A process is killed in the middle of building; what it leaves is neither used nor kept."""
    code = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from pathlib import Path
from types import SimpleNamespace
import test_cache
dataset = test_cache.on_disk(Path({str(tmp_path / "images")!r}))
test_cache.prepare(dataset, test_cache.SMALL, progress=lambda done, total: done == 3 and os.kill(os.getpid(), 9))
"""
    killed = subprocess.run([*python, "-c", code], env={**os.environ, "SEGREG_CACHE": str(cache)})
    assert killed.returncode == 128 + 9
    (left,) = (cache / "prepared").iterdir()
    assert left.name.startswith(".building-")
    assert list_entries() == []
    prepared = prepare(files, SMALL)
    assert not left.exists()
    np.testing.assert_array_equal(prepared.images[5], fit_image(read_image(files.samples[5]), SMALL))


def test_a_folder_under_construction_is_left_alone(files, cache):
    building, held = new_folder("0" * 32)
    prepare(files, SMALL)
    assert building.exists()
    held.release()
    prepare(files, Input(size=(8, 8)))
    assert not building.exists()


@pytest.mark.parametrize("damage", ["short", "meta", "gone", "lock", "checksums", "another id", "header"])
def test_a_damaged_entry_is_made_again(files, damage, reads):
    prepared = prepare(files, SMALL)
    folder, image = prepared.folder, np.array(prepared.images[1])
    del prepared
    if damage == "short":
        os.truncate(folder / "images.npy", 500)
    elif damage == "meta":
        (folder / "meta.json").write_text("{")
    elif damage == "checksums":
        (folder / "checksums.npy").unlink()
    elif damage == "another id":
        (folder / "meta.json").write_text((folder / "meta.json").read_text().replace('"p1"', '"p9"'))
    elif damage == "header":
        content = (folder / "images.npy").read_bytes()
        (folder / "images.npy").write_bytes(content.replace(b"'fortran_order': False", b"'fortran_order': True ", 1))
    elif damage == "lock":
        (folder / "lock").unlink()
    else:
        (folder / "masks.npy").unlink()
    np.testing.assert_array_equal(prepare(files, SMALL).images[1], image)
    assert len(reads) == 12


def overwrite(file, begin, count):
    with file.open("r+b") as opened:
        opened.seek(begin)
        opened.write(b"\0" * count)


@pytest.mark.parametrize("file", ["images.npy", "masks.npy"])
@pytest.mark.parametrize("workers", [0, 1])
def test_bytes_that_are_not_what_was_written_are_never_given(files, file, workers, recwarn):
    prepared = prepare(files, SMALL)
    images, masks = np.array(prepared.images), np.array(prepared.masks)
    del prepared
    folder = list_entries()[0].folder
    size = (folder / file).stat().st_size
    overwrite(folder / file, size // 2, size - size // 2)
    prepared = prepare(files, SMALL)
    loader = BatchLoader(prepared, range(6), batch_size=4, order="in_order", workers=workers)
    for _ in range(2):
        batches = list(loader.epoch(0))
        np.testing.assert_array_equal(np.concatenate([b.images.permute(0, 2, 3, 1) for b in batches]), images)
        np.testing.assert_array_equal(np.concatenate([b.targets for b in batches]), masks)
    loader.close()
    if not workers:
        said = [str(warning.message) for warning in recwarn]
        assert len(set(said)) == 1  # which Python shows once
        assert str(folder) in said[0]
    np.testing.assert_array_equal(np.load(folder / "images.npy"), images)
    np.testing.assert_array_equal(np.load(folder / "masks.npy"), masks)


def test_an_entry_that_cannot_be_repaired_is_removed_and_named(files):
    prepared = prepare(files, SMALL)
    overwrite(prepared.folder / "masks.npy", 200, 400)
    copied = pickle.loads(pickle.dumps(prepared))
    with pytest.raises(SegregError, match=r'is damaged; seen at the sample "p0"') as caught:
        copied.sample(0)
    assert str(prepared.folder) in str(caught.value)
    assert "run the same command again" in caught.value.problems[0].hint
    assert not prepared.folder.exists()

    prepared = prepare(files, SMALL)
    overwrite(prepared.folder / "masks.npy", 200, 400)
    Image.fromarray(np.ones((20, 30), np.uint8)).save(files.samples[0].mask)
    with pytest.raises(SegregError, match="is damaged, and the sample's files have changed"):
        prepared.sample(0)
    assert not prepared.folder.exists()


def test_a_damaged_cache_that_cannot_be_written_to_serves_what_is_prepared_again(files, monkeypatch):
    prepared = prepare(files, SMALL)
    image = np.array(prepared.images[0])
    overwrite(prepared.folder / "images.npy", 200, 400)
    real = np.load

    def read_only(file, mmap_mode=None, **options):
        if mmap_mode == "r+":
            raise PermissionError(13, "Permission denied")
        return real(file, mmap_mode=mmap_mode, **options)

    monkeypatch.setattr(np, "load", read_only)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="it can't be written to: Permission denied"):
            np.testing.assert_array_equal(prepared.sample(0)[0], image)


@pytest.mark.parametrize("file", ["images.npy", "masks.npy"])
def test_an_entry_cut_short_while_it_is_in_use_does_not_kill_the_process(files, file):
    prepared = prepare(files, SMALL)
    prepared.sample(5)
    os.truncate(prepared.folder / file, 300)
    with pytest.raises(SegregError, match="was cut short while it was in use"):
        list(BatchLoader(prepared, range(6), batch_size=3).epoch(0))
    assert not prepared.folder.exists()


def test_an_entry_cut_short_before_a_worker_opens_it_is_reported(files):
    prepared = prepare(files, SMALL)
    sent = pickle.dumps(prepared)
    os.truncate(prepared.folder / "images.npy", 300)
    with pytest.raises(SegregError, match=r"images\.npy: is damaged"):
        pickle.loads(sent).sample(0)


def test_alpha_that_is_left_out_is_counted(tmp_path):
    dataset = on_disk(tmp_path / "images", 3)
    Image.fromarray(np.full((20, 30, 4), 255, np.uint8)).save(dataset.samples[0].image)
    for _ in range(2):
        assert prepare(dataset, SMALL).without_alpha == 1
    assert prepare(on_disk(tmp_path / "others", 3), SMALL).without_alpha == 0


@pytest.mark.parametrize(("bands", "channels", "lost"), [(3, 2, 1), (3, 3, 0), (4, 3, 1), (5, 4, 1), (5, 5, 0)])
def test_alpha_is_left_out_where_the_network_has_a_channel_less(bands, channels, lost, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (20, 30, bands), dtype=np.uint8)
    values[..., -1] = 255
    extra = [0] * (bands - 2) + [2]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig", extrasamples=extra)
    sample = Sample("a", tmp_path / "a.tif", tmp_path / "drawn")
    mask = np.ones((20, 30), np.uint8)
    dataset = Dataset(Task(("x",), "binary"), [sample], lambda one: read_file(one.image), lambda _: mask)
    assert prepare(dataset, replace(SMALL, channels=channels)).without_alpha == lost


def _prepare_there(folder, cache, start, results):
    os.environ["SEGREG_CACHE"] = str(cache)
    dataset = on_disk_again(folder)
    start.wait()
    prepared = prepare(dataset, SMALL)
    results.put((str(prepared.folder), int(np.asarray(prepared.images).sum())))


def on_disk_again(folder):
    samples = [Sample(f"p{i}", folder / f"p{i}.png", folder / f"p{i}_mask.png") for i in range(6)]
    return Dataset(Task(("x",), "binary"), samples, _slow_read_image, read_mask, reader="png")


def _slow_read_image(sample):
    time.sleep(0.2)
    return read_image(sample)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_statistics_of_the_channels_are_numpys_over_the_images_without_their_borders(memory, resize):
    bands = [np.random.default_rng(n).integers(20 * n, 256, (10 + n, 20 + 7 * n, 5), np.uint8) for n in range(6)]
    dataset = dataclasses.replace(
        memory(6),
        read_image=lambda sample: bands[int(sample.id[1:])],
        read_mask=lambda sample: np.zeros(bands[int(sample.id[1:])].shape[:2], np.uint8),
    )
    settings = Input(size=(16, 24), channels=5, resize=resize)
    prepared, seen = prepare(dataset, settings), []
    mean, std = prepared.channel_statistics([0, 2, 5], lambda: seen.append(1))
    pixels = []
    for index in (0, 2, 5):
        place = placement(bands[index].shape[:2], settings)
        pixels.append(prepared.images[index][place.rows, place.columns].reshape(-1, 5))
    values = np.concatenate(pixels).astype(np.float64) / 255
    assert (len(values) < 3 * 16 * 24) == (resize == "letterbox")
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(axis=0), rtol=1e-12)
    assert len(seen) == 3
    assert prepared.channel_statistics([5, 0, 2]) == (mean, std)


def test_constant_channels_have_no_statistics(memory):
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 5), np.uint8)
    image[..., [1, 4]] = (0, 255)
    dataset = dataclasses.replace(memory(4), read_image=lambda _: image)
    prepared = prepare(dataset, Input(size=(16, 16), channels=5, resize="letterbox"))
    with pytest.raises(SegregError, match=r"channel 2 and channel 5 of 5.* 0 and 255 .*4 training") as caught:
        prepared.channel_statistics(range(4))
    assert "input.mean and input.std" in caught.value.problems[0].hint


def test_two_processes_may_prepare_at_once(files, cache, tmp_path):
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    both = [context.Process(target=_prepare_there, args=(tmp_path / "images", cache, start, results)) for _ in "ab"]
    for process in both:
        process.start()
    start.wait()
    found = {results.get(timeout=60) for _ in both}
    for process in both:
        process.join()
    prepared = prepare(files, SMALL)
    assert found == {(str(prepared.folder), int(prepared.images.sum()))}
    assert [place.name for place in (cache / "prepared").iterdir()] == [prepared.folder.name]


def _sized(side):
    return Input(size=(side, side), channels=3)


def test_the_least_recently_used_goes_first_and_never_what_is_used(memory, monkeypatch):
    """Three entries of about 0.8 MB fit into 3 MB, a fourth does not."""
    monkeypatch.setenv("SEGREG_CACHE_LIMIT_GB", "0.003")
    dataset = memory(20)
    folders = {}
    for age, side in ((300, 100), (200, 101), (100, 102)):
        folders[side] = prepare(dataset, _sized(side)).folder
        then = time.time() - age
        os.utime(folders[side] / "lock", (then, then))
    assert [entry.folder for entry in list_entries()] == [folders[102], folders[101], folders[100]]
    kept = prepare(dataset, _sized(100))  # in use, and now the last used too
    then = time.time() - 1000
    os.utime(folders[100] / "lock", (then, then))
    newest = prepare(dataset, _sized(103))
    left = {entry.folder for entry in list_entries()}
    assert left == {folders[100], folders[102], newest.folder}
    assert kept.images.shape[1] == 100


def test_what_is_used_stays_on_file_systems_that_lock_only_what_is_open_for_writing(files, monkeypatch):
    """NFS calls a descriptor bad that is to be locked exclusively and is open for reading alone."""
    real = fcntl.flock

    def locked(descriptor, operation):
        if operation & fcntl.LOCK_EX and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", locked)
    prepared = prepare(files, SMALL)
    assert [entry.in_use for entry in list_entries()] == [True]
    assert clear() == []
    prepared.held.release()
    assert len(clear()) == 1


def test_what_never_fits_is_refused_and_nothing_removed(memory, monkeypatch):
    dataset = memory(20)
    prepare(dataset, _sized(64))
    monkeypatch.setenv("SEGREG_CACHE_LIMIT_GB", "0.0005")
    with pytest.raises(
        SegregError, match=r"20 images at 100x100 would take 0.8 MB in the cache, whose limit is 0.5 MB"
    ):
        prepare(dataset, _sized(100))
    assert len(list_entries()) == 1
    monkeypatch.setenv("SEGREG_CACHE_LIMIT_GB", "many")
    with pytest.raises(SegregError, match='SEGREG_CACHE_LIMIT_GB must be a number of gigabytes above 0, not "many"'):
        prepare(dataset, _sized(100))


def test_a_full_disk_is_reported(memory, monkeypatch):
    monkeypatch.setattr("segreg.data.cache_folder._free", lambda _: 1000)
    with pytest.raises(SegregError, match=r"20 images at 100x100 would take 0.8 MB in the cache, and the disk of .*"):
        prepare(memory(20), _sized(100))


def test_a_cache_that_cannot_be_written_to_is_reported(memory, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "file"))
    with pytest.raises(SegregError, match=r"can't write to the cache: Not a directory"):
        prepare(memory(2), SMALL)


def test_entries_are_listed_and_cleared(files, memory, tmp_path):
    held = prepare(files, SMALL)
    other = prepare(memory(4), _sized(20)).folder
    first, second = sorted(list_entries(), key=lambda entry: entry.samples)
    assert (first.samples, second.samples) == (4, 6)
    assert second.description == f"{tmp_path / 'images'}: 6 samples at 16x16x3"
    assert second.in_use
    assert not first.in_use
    assert second.bytes == sum(file.stat().st_size for file in held.folder.iterdir()) > 6 * 16 * 16 * 4
    assert abs(second.last_used - time.time()) < 60
    assert [entry.folder for entry in clear()] == [other]
    assert held.images.any()
    key = held.folder.name
    del held
    assert clear(keys=["another"]) == []
    assert [entry.key for entry in clear(keys=[key])] == [key]
    assert list_entries() == []
    assert not entry_folder(key).exists()


def test_it_can_be_sent_to_another_process(files):
    prepared = prepare(files, SMALL)
    sent = pickle.dumps(prepared)
    assert len(sent) < 2000  # the files' names, not what they hold
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.images, prepared.images)
    del prepared
    assert list_entries()[0].in_use


def test_an_empty_data_set_is_reported(memory):
    with pytest.raises(SegregError, match="the data set has no samples"):
        prepare(memory(0), SMALL)
