"""Images at their own size: any window is the image's own, damage is noticed and mended, crops are as the rules say."""

import os
import pickle
from dataclasses import replace
from unittest import mock

import albumentations
import numpy as np
import pytest
import torch

from segreg.config.sections import Crop, Input
from segreg.data import Augmentation, BatchLoader, Crops, NativeDataset, prepare
from segreg.data import native as native_module
from segreg.data.blocks import SIDE, BlockFile, BlockLayout, BlockWriter, DamagedBlocksError
from segreg.data.crops import counts_of
from segreg.data.native import OneImage
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.task import Task

SIZES = [(20, 31), (128, 128), (129, 300), (300, 257), (64, 400), (64, 400)]
STREET = Task(("background", "road", "car"), "multiclass")


def drawn(size, channels, number):
    """Pixels that tell where they are from: channel 0 the row, channel 1 the column, channel 2 the image."""
    rows, columns = np.indices(size) % 251
    return np.stack([rows, columns, np.full(size, 10 + number)][:channels], axis=-1).astype(np.uint8)


def labelled(size):
    _, columns = np.indices(size)
    mask = (columns >= size[1] // 2).astype(np.uint8)
    mask[:6, :6] = 2
    return mask


def dataset(tmp_path, sizes=SIZES, task=STREET):
    size_of = dict(zip((f"s{i}" for i in range(len(sizes))), sizes, strict=True))
    samples = [Sample(name, tmp_path / name, tmp_path / f"{name}-mask") for name in size_of]
    return Dataset(
        task, samples, lambda s: drawn(size_of[s.id], 3, int(s.id[1:])), lambda s: labelled(size_of[s.id]),
        reader="drawn",
    )  # fmt: skip


def crop_input(size=(32, 32)):
    return Input(size=size, resize="crop")


@pytest.fixture
def data(tmp_path):
    return dataset(tmp_path)


@pytest.fixture
def native(data):
    return prepare(data, crop_input())


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("dtype", "channels", "layers"), [("uint8", 3, None), ("uint16", 1, 2), ("float32", 5, None)])
def test_each_window_is_the_images_own(tmp_path, dtype, channels, layers):
    chance = generator()
    layout = BlockLayout(dtype, channels, layers)
    writer = BlockWriter(tmp_path / "blocks", layout)
    given, stored, sums = [], [], []
    for height, width in [(1, 1), (SIDE, SIDE), (SIDE + 1, 3 * SIDE - 1), (2 * SIDE + 7, 5)]:
        image = (chance.random((height, width, channels)) * 250).astype(dtype)
        mask = chance.integers(0, 3, (*((layers,) if layers else ()), height, width), dtype=np.uint8)
        where, crcs = writer.add(image, mask)
        given.append((image, mask))
        stored.append(where)
        sums.append(crcs)
    writer.close()
    blocks = BlockFile(tmp_path / "blocks", layout, stored, np.concatenate(sums))
    for number, (image, mask) in enumerate(given):
        for _ in range(30):
            top, left = chance.integers(image.shape[0]), chance.integers(image.shape[1])
            height, width = chance.integers(1, image.shape[0] - top + 1), chance.integers(1, image.shape[1] - left + 1)
            seen, labels = blocks.window(number, top, left, height, width)
            assert np.array_equal(seen, image[top : top + height, left : left + width])
            assert np.array_equal(labels, mask[..., top : top + height, left : left + width])
            assert seen.dtype == np.dtype(dtype)


def test_a_window_reads_its_own_blocks_whatever_the_size_of_the_image(tmp_path):
    layout = BlockLayout("uint8", 3)
    read = []
    for side in (4 * SIDE, 12 * SIDE):
        file = tmp_path / str(side)
        writer = BlockWriter(file, layout)
        stored, sums = writer.add(np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8))
        writer.close()
        blocks = BlockFile(file, layout, [stored], sums)
        with mock.patch("segreg.data.blocks.os.pread", wraps=os.pread) as reads:
            blocks.window(0, SIDE // 2, SIDE // 2, SIDE, SIDE)
        read.append(sum(size for _, size, _ in (call.args for call in reads.call_args_list)))
    assert read == [4 * SIDE * SIDE * 4] * 2


def test_samples_have_their_own_size_and_what_is_known_of_them(native, data):
    assert isinstance(native, NativeDataset)
    for index, sample in enumerate(data.samples):
        image, mask = native.sample(index)
        assert np.array_equal(image, data.read_image(sample))
        assert np.array_equal(mask, data.read_mask(sample))
        assert native.original_size(index) == SIZES[index]
        assert np.allclose(native.image_statistics(index).mean, image.mean(axis=(0, 1)))
        assert np.array_equal(native.labels[index][:3], np.bincount(mask.ravel(), minlength=3))


def test_it_is_prepared_once_whatever_the_size_of_the_crops(native, data, monkeypatch):
    monkeypatch.setattr(native_module, "read_sample", lambda *_: pytest.fail("decoded again"))
    again = prepare(data, crop_input((48, 16)))
    assert again.folder == native.folder
    assert pickle.loads(pickle.dumps(native)).sample(3)[0].shape == (300, 257, 3)


def test_only_the_labels_that_an_image_shows_are_searched_for(monkeypatch):
    """Of many classes most are not there, and each search reads the whole mask."""
    searched, real = [], np.flatnonzero
    monkeypatch.setattr(np, "flatnonzero", lambda found: (searched.append(found), real(found))[1])
    task = Task(tuple(map(str, range(150))), "multiclass")
    found = native_module._positions(np.array([[7, 255], [7, 0]], np.uint8), task, "a")
    assert len(searched) == 2
    assert [(label, list(pixels)) for label, pixels in enumerate(found) if len(pixels)] == [(0, [3]), (7, [0, 2])]


def test_damage_is_noticed_and_mended(native, data):
    before = native.sample(2)
    with (native.folder / "blocks.bin").open("r+b") as file:
        file.seek(native.blocks.images[2].offset + 100)
        file.write(b"\xff\xff\xff")
    fresh = prepare(data, crop_input())
    with pytest.warns(RuntimeWarning, match="was damaged; what is damaged of it was prepared again"):
        image, mask = fresh.window(2, 0, 0, 129, 300)
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])
    assert np.array_equal(prepare(data, crop_input()).sample(2)[0], before[0])


def test_damage_of_files_that_have_changed_since_is_no_other_image(tmp_path, monkeypatch):
    """Also where the cache is read-only, so that nothing is written that could be compared."""
    sizes = [(40, 40)]
    before = prepare(dataset(tmp_path, sizes), crop_input())
    with (before.folder / "blocks.bin").open("r+b") as file:
        file.write(b"\xff" * 50)
    fresh = prepare(dataset(tmp_path, sizes), crop_input())
    image, mask, *rest = fresh.prepare_again(0)
    changed = replace(fresh, prepare_again=lambda _: (255 - image, mask, *rest))

    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(native_module, "write_blocks", fail)
    with pytest.raises(SegregError, match="the sample's files have changed since it was made"):
        changed.sample(0)


def test_damage_that_can_not_be_mended_removes_the_entry(native, data):
    with (native.folder / "blocks.bin").open("r+b") as file:
        file.seek(native.blocks.images[0].offset)  # images lie in the order in which threads were done
        file.write(b"\xff" * 50)
    fresh = pickle.loads(pickle.dumps(prepare(data, crop_input())))  # of a worker, which can't read the files again
    with pytest.raises(SegregError, match='the cache entry is damaged; seen at the sample "s0"'):
        fresh.sample(0)
    assert not native.folder.exists()


def test_a_file_that_is_cut_short_is_no_crash(native):
    os.truncate(native.folder / "blocks.bin", 1000)
    with pytest.raises(SegregError, match="was cut short while it was in use"):
        native.sample(3)
    with pytest.raises(DamagedBlocksError):
        native.blocks.window(3, 0, 0, 2, 2)


def test_a_cut_entry_is_made_anew(data):
    os.truncate(prepare(data, crop_input()).folder / "blocks.bin", 1000)
    assert prepare(data, crop_input()).sample(5)[0].shape == (64, 400, 3)


def test_there_must_be_room(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE_LIMIT_GB", "0.0002")
    with pytest.raises(SegregError, match=r"6 images at their own size would take .* whose limit is 0.2 MB") as caught:
        prepare(dataset(tmp_path), crop_input())
    (problem,) = caught.value.problems  # not one for each image
    assert problem.hint.endswith("smaller images, or another input.resize, take less")
    monkeypatch.setenv("SEGREG_CACHE_LIMIT_GB", "0.01")
    assert prepare(dataset(tmp_path), crop_input()).sample(0)[0].shape == (20, 31, 3)


def crops(native, **rules):
    return Crops(native.input, Crop(**rules), native.task)


def test_a_crop_at_scale_1_is_a_part_of_the_image(native):
    seen = set()
    for seed in range(40):
        image, _ = crops(native).draw(native, 3, generator(seed))
        top, left = (int(value) for value in image[0, 0, :2])
        seen.add((top, left))
        whole = native.sample(3)
        if top < 250 - 32 and left < 250 - 32:  # the drawn values begin again at 251
            assert np.array_equal(image, whole[0][top : top + 32, left : left + 32])
    assert len(seen) > 30


def test_scale_shows_more_or_less_of_the_image(native):
    """Half the size shows twice as many rows in a crop; double the size half as many."""
    for factor, rows in ((0.5, 64), (1.0, 32), (2.0, 16)):
        image, mask = crops(native, scale=(factor, factor)).draw(native, 3, generator(3))
        assert image.shape == (32, 32, 3)
        assert mask.shape == (32, 32)
        steps = np.diff(image[4:-4, 16, 0].astype(int))
        assert abs(np.median(steps) - rows / 32) < 0.51


def test_what_an_image_lacks_is_its_mean_and_ignored(native):
    image, mask = crops(native).draw(native, 0, generator())  # 20 x 31 pixels
    assert np.array_equal(image[:20, :31], native.sample(0)[0])
    assert (mask[20:] == 255).all()
    assert (mask[:, 31:] == 255).all()
    assert (mask[:20, :31] != 255).all()
    assert np.array_equal(image[31, 31], np.rint(native.image_statistics(0).mean).astype(np.uint8))


def test_the_crop_in_the_middle(native):
    image, _ = crops(native).centre(native, 1)
    assert np.array_equal(image, native.sample(1)[0][48:80, 48:80])


def test_crops_are_centred_on_foreground_as_often_as_asked(native):
    """Of the car there are 36 pixels of 77,100, in the corner: few crops drawn anywhere show it."""

    def share(**rules):
        rule = crops(native, **rules)
        return np.mean([(rule.draw(native, 3, generator(seed))[1] == 2).any() for seed in range(300)])

    assert share() < 0.05
    assert 0.25 < share(foreground=0.33, classes=("car",)) < 0.45
    assert share(foreground=1.0, classes=("car",)) == 1
    assert Crops(crop_input(), Crop(), Task(("Background", "road"), "multiclass")).labels == (1,)
    # Without names all but the background, each as often as the others.
    assert 0.4 < share(foreground=1.0) < 0.6


def test_a_crop_with_too_much_of_one_class_is_drawn_again(native):
    def shares(most):
        rule, found = crops(native, cat_max_ratio=most), []
        for seed in range(60):
            counts = np.bincount(rule.draw(native, 3, generator(seed))[1].ravel(), minlength=3)
            found.append(counts.max() / counts.sum())
        return np.array(found)

    anything, mixed = shares(1.0), shares(0.75)
    assert (anything >= 0.75).mean() > 0.7
    # Half of the crops within 28 columns of the border are mixed enough: one in 16 places, of which ten are tried.
    assert (mixed >= 0.75).mean() < (anything >= 0.75).mean() - 0.2


def test_repeat_factors_are_those_of_the_paper(native):
    """LVIS: r(image) is the largest of max(1, sqrt(t / f(class))) over its classes."""
    counts = native.present.copy()
    counts[:, 2] = [True, False, False, False, False, False]
    native.__dict__["labels"] = np.concatenate([counts, np.zeros((6, 1))], axis=1).astype(np.int64)
    times = crops(native, repeat_threshold=0.5, per_image=2).times(native, range(6))
    expected = np.sqrt(0.5 / (1 / 6))
    assert np.allclose(times, [2 * expected, 2, 2, 2, 2, 2])


def test_epochs_have_one_length_and_the_mean_of_the_factors():
    times = generator(5).uniform(1, 3, 50)
    counts = np.array([counts_of(times, offset) for offset in np.linspace(0, 1, 1000, endpoint=False)])
    assert set(counts.sum(axis=1)) == {round(times.sum())}
    assert np.allclose(counts.mean(axis=0)[:-1], times[:-1], atol=2e-3)
    assert (np.abs(counts - times)[:, :-1] < 1).all()


def content(loader, epoch):
    return [
        (batch.ids, batch.images.numpy().tobytes(), batch.targets.numpy().tobytes()) for batch in loader.epoch(epoch)
    ]


def test_the_seed_decides_whatever_the_number_of_workers(native):
    rules = crops(native, scale=(0.5, 2.0), foreground=0.5, cat_max_ratio=0.9, per_image=3, repeat_threshold=0.9)

    def loader(**given):
        return BatchLoader(native, range(6), batch_size=4, seed=3, crops=rules, **given)

    first = content(loader(), 1)
    assert content(loader(), 1) == first
    assert content(loader(), 2) != first
    workers = loader(workers=2)
    assert content(workers, 1) == first
    workers.close()
    halves = [list(loader(rank=rank, world_size=2).epoch(1)) for rank in (0, 1)]
    together = [a.ids + b.ids for a, b in zip(*halves, strict=True)]
    assert together == [ids for ids, *_ in first]
    images = [torch.cat([a.images, b.images]).numpy().tobytes() for a, b in zip(*halves, strict=True)]
    assert images == [pixels for _, pixels, _ in first]


def test_an_epoch_has_each_image_as_often_as_asked(native):
    loader = BatchLoader(native, range(6), batch_size=4, crops=crops(native, per_image=3))
    names = [name for batch in loader.epoch(0) for name in batch.ids]
    assert sorted(names) == sorted([f"s{i}" for i in range(6)] * 3)
    assert len(loader) == len(list(loader.epoch(0))) == 5
    assert loader.samples_per_epoch == 18
    pixels = {batch.images[i].numpy().tobytes() for batch in loader.epoch(0) for i in range(len(batch.ids))}
    assert len(pixels) > 12  # an image's crops differ (the smallest image has one crop only)


def test_whole_images_of_one_size_are_batched(native, monkeypatch):
    loader = BatchLoader(native, range(6), batch_size=4, order="in_order")
    assert loader.plan(0) == [(0,), (1,), (2,), (3,), (4, 5)]
    assert [tuple(batch.images.shape) for batch in loader.epoch(0)][-1] == (2, 3, 64, 400)
    assert len(loader) == 5
    monkeypatch.setattr("segreg.data.loader.MOST_PIXELS", 64 * 400)
    assert loader.plan(0)[-2:] == [(4,), (5,)]
    ranks = [BatchLoader(native, range(6), batch_size=4, order="in_order", rank=r, world_size=2) for r in (0, 1)]
    assert [loader.plan(0) for loader in ranks] == [[(0,), (2,), (4,)], [(1,), (3,), (5,)]]


def test_centres_are_batched_as_any_images_of_one_size(native):
    loader = BatchLoader(native, range(6), batch_size=4, order="in_order", crops=crops(native))
    assert [tuple(batch.images.shape) for batch in loader.epoch(0)] == [(4, 3, 32, 32), (2, 3, 32, 32)]


def test_one_image_in_memory_has_the_crops_of_a_prepared_one(native):
    image, mask = native.sample(4)
    one = OneImage(image, mask, native.task, native.id_of(4))
    rules = crops(native, scale=(0.5, 2.0), foreground=0.3)
    for seed in range(10):
        for found, prepared in zip(
            rules.draw(one, 0, generator(seed)), rules.draw(native, 4, generator(seed)), strict=True
        ):
            assert np.array_equal(found, prepared)


def test_rules_that_can_not_be_kept_are_refused(native):
    with pytest.raises(SegregError, match='"cat" is not a class') as caught:
        crops(native, foreground=0.3, classes=("cat",))
    assert '"car"' in caught.value.problems[0].hint
    with pytest.raises(SegregError, match="overlap"):
        Crops(native.input, Crop(cat_max_ratio=0.5), Task(("a", "b"), "multilabel"))
    large = Crops(crop_input((512, 512)), Crop(), native.task)
    sizes = {native.id_of(index): native.original_size(index) for index in range(6)}
    with pytest.raises(SegregError, match=r'larger than every training image: the largest, "s3", is 300x257') as caught:
        large.refuse_too_large(sizes)
    assert "at most 300x257" in caught.value.problems[0].hint
    Crops(crop_input((512, 512)), Crop(scale=(0.5, 2.0)), native.task).refuse_too_large(sizes)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("normalize", ["dataset", "per_image"])
def test_crops_keep_wide_values_and_ignore_what_holds_nothing(tmp_path, dtype, normalize):
    narrow = dataset(tmp_path)
    images = {
        sample.id: (generator(number).random((*SIZES[number], 3)) * 9000 + 10).astype(dtype)
        for number, sample in enumerate(narrow.samples)
    }
    images["s1"][:5, :5, 1] = 3
    data = replace(narrow, read_image=lambda sample: images[sample.id])
    native = prepare(data, replace(crop_input((128, 128)), nodata=3, normalize=normalize))
    assert native.input.dtype == dtype
    image, mask = native.sample(1)
    assert (mask[:5, :5] == 255).all()
    assert np.array_equal(image[5:], images["s1"][5:])
    chosen = images["s1"][native.sample(1)[1] != 255].astype(float)
    assert np.allclose(native.image_statistics(1).mean, chosen.mean(axis=0))
    assert np.allclose(native.channel_statistics([1])[0], chosen.mean(axis=0) / native.input.value_range)
    flip = Augmentation([albumentations.HorizontalFlip(p=1)], native.task)
    loader = BatchLoader(native, [1], batch_size=1, crops=crops(native), augment=flip)
    (batch,) = loader.epoch(0)
    assert batch.images.dtype == torch.float32
    seen = batch.images[0].permute(1, 2, 0).numpy()[:, ::-1]
    wanted = image if normalize == "dataset" else (image - chosen.mean(axis=0)) / chosen.std(axis=0)
    assert np.allclose(seen, wanted, atol=1e-4)
