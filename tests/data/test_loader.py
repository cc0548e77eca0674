"""BatchLoader: the same for the same seed whoever makes them, nothing lost, errors that name what failed."""

import dataclasses
import gc
import os
import pickle
import re
import threading
import time

import numpy as np
import pytest
import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from segreg.config.sections import Input
from segreg.data.augment import Augmentation
from segreg.data.loader import BatchLoader, fitting_workers, worker_died
from segreg.data.native import prepare
from segreg.errors import SegregError
from segreg.runtime import distributed
from segreg.task import Task

SMALL = Input(size=(16, 16))


LESION = Task(("lesion",), "binary")


def flips():
    transforms = [
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.Rotate(p=0.5, fill_mask=255),
        A.OneOf([A.GaussNoise(p=1), A.RandomBrightnessContrast(p=1)], p=0.7),
    ]
    return Augmentation(transforms, LESION)


def tried(input, *transforms, task=LESION):
    """Try transforms out as those of a run are."""
    augmentation = Augmentation(transforms, task)
    augmentation.try_out(input)
    augmentation.refuse_idle(input)
    augmentation.refuse_type(input.complete())
    return augmentation


@pytest.fixture
def prepared(memory):
    return prepare(memory(13), SMALL)


def content(batches, epoch):
    return [(b.ids, b.indices, b.images.numpy().tobytes(), b.targets.numpy().tobytes()) for b in batches.epoch(epoch)]


def test_a_batch_holds_the_prepared_arrays(prepared):
    batches = BatchLoader(prepared, range(13), batch_size=4, order="in_order")
    found = list(batches.epoch(0))
    assert [len(b.ids) for b in found] == [4, 4, 4, 1]
    assert len(batches) == 4
    images, targets = torch.cat([b.images for b in found]), torch.cat([b.targets for b in found])
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), prepared.images)
    np.testing.assert_array_equal(targets.numpy(), prepared.masks)
    assert images.dtype == targets.dtype == torch.uint8
    assert found[0].images.shape == (4, 3, 16, 16)
    assert found[0].images.is_contiguous(memory_format=torch.channels_last)
    assert found[1].ids == ("s004", "s005", "s006", "s007")
    assert found[1].indices == (4, 5, 6, 7)


def test_the_order_of_in_order_is_that_of_the_indices(prepared):
    (batch,) = BatchLoader(prepared, [9, 2, 5], batch_size=4, order="in_order").epoch(3)
    assert batch.indices == (9, 2, 5)
    np.testing.assert_array_equal(batch.targets[1].numpy(), prepared.masks[2])


def test_indices_are_the_data_sets_where_only_some_samples_were_prepared(memory):
    dataset = memory(13)
    some, every = prepare(dataset, SMALL, indices=[3, 7, 11]), prepare(dataset, SMALL)
    (batch,) = BatchLoader(some, [11, 3], batch_size=4, order="in_order").epoch(0)
    assert batch.ids == ("s011", "s003")
    np.testing.assert_array_equal(batch.targets.numpy(), every.masks[[11, 3]])


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (13, 4, [4, 4, 5]),
        (12, 4, [4, 4, 4]),
        (11, 4, [4, 4, 3]),
        (3, 1, [1, 1, 1]),
        (1, 4, [1]),
        (5, 4, [5]),
        (2, 4, [2]),
    ],
)
def test_a_single_left_over_sample_joins_the_batch_before(prepared, count, size, expected):
    batches = BatchLoader(prepared, range(count), batch_size=size)
    found = [b.indices for b in batches.epoch(0)]
    assert [len(indices) for indices in found] == expected
    assert len(batches) == len(expected)
    assert sorted(sum(found, ())) == list(range(count))


def test_epochs_differ_and_can_be_repeated(prepared):
    batches = BatchLoader(prepared, range(13), batch_size=4, augment=flips(), seed=1)
    first, second = content(batches, 0), content(batches, 1)
    assert [ids for ids, *_ in first] != [ids for ids, *_ in second]
    assert content(batches, 0) == first
    # As a resumed run begins: another object, straight at the second epoch.
    assert content(BatchLoader(prepared, range(13), batch_size=4, augment=flips(), seed=1), 1) == second
    assert content(BatchLoader(prepared, range(13), batch_size=4, augment=flips(), seed=2), 1) != second


def test_the_order_does_not_hang_on_the_indices_order(prepared):
    one, two = BatchLoader(prepared, range(13), batch_size=4), BatchLoader(prepared, range(12, -1, -1), batch_size=4)
    assert content(one, 5) == content(two, 5)


def test_workers_change_nothing(prepared):
    whole = [
        content(BatchLoader(prepared, range(13), batch_size=4, augment=flips(), seed=7), epoch) for epoch in (0, 1)
    ]
    state = torch.get_rng_state()
    for workers in (1, 2):
        batches = BatchLoader(prepared, range(13), batch_size=4, augment=flips(), seed=7, workers=workers)
        next(iter(batches.epoch(0)))  # left early
        assert [content(batches, epoch) for epoch in (0, 1)] == whole
        batches.close()
    # Nor does it draw from the generator that the training draws from.
    assert torch.equal(torch.get_rng_state(), state)


def test_what_travels_to_a_worker_can_be_pickled(prepared):
    """Where processes are not forked, which is the rule everywhere but on Linux and there too from Python 3.14."""
    maker = BatchLoader(prepared, range(13), batch_size=4, augment=flips(), seed=7)._make
    key = (2, ((3, 0), (1, 0), (4, 0)))
    assert torch.equal(pickle.loads(pickle.dumps(maker))[key].images, maker[key].images)


def test_batches_of_workers_are_channels_last_too(prepared):
    batches = BatchLoader(prepared, range(4), batch_size=4, workers=1)
    (batch,) = batches.epoch(0)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    batches.close()


def test_augmentations_draw_independently():
    """Four outcomes of two flips, each about a quarter of the time - not both or none, as with one seed for each."""
    augmentation = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)], Task(("x",), "binary"))
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    outcomes = [tuple(augmentation(image, image[..., 0], 0, 0, f"s{i}")[0].ravel()) for i in range(400)]
    assert {outcomes.count(outcome) > 60 for outcome in set(outcomes)} == {True}
    assert len(set(outcomes)) == 4


def test_samples_and_epochs_are_augmented_differently(prepared):
    augmentation = Augmentation([A.Rotate(p=1)], Task(("x",), "binary"))
    image, mask = np.array(prepared.images[0]), np.array(prepared.masks[0])
    seen = {
        augmentation(image, mask, *seed)[0].tobytes() for seed in ((0, 0, "a"), (0, 0, "b"), (0, 1, "a"), (1, 0, "a"))
    }
    assert len(seen) == 4
    # Seeds are words with a bound between them: 1, 23 is not 12, 3.
    assert len({augmentation(image, mask, *seed)[0].tobytes() for seed in ((1, 23, "a"), (12, 3, "a"))}) == 2


def test_what_came_before_changes_nothing(prepared):
    one, two = flips(), flips()
    image, mask = np.array(prepared.images[0]), np.array(prepared.masks[0])
    for i in range(5):
        one(image.copy(), mask.copy(), "other", i)
    np.testing.assert_array_equal(one(image.copy(), mask.copy(), 3)[0], two(image.copy(), mask.copy(), 3)[0])


def test_image_and_mask_move_together(memory):
    """The mask is the image's bright part before, and after."""
    prepared = prepare(memory(6, size=(64, 64)), Input(size=(64, 64)))
    augment = tried(
        prepared.input,
        A.Rotate(p=1, fill_mask=255),
        A.HorizontalFlip(p=0.5),
        A.RandomResizedCrop((64, 64), mask_interpolation=6),
    )
    for batch in BatchLoader(prepared, range(6), batch_size=3, augment=augment).epoch(0):
        counts = batch.targets != 255
        agree = (batch.images[:, 0] > 127) == (batch.targets == 1)
        assert agree[counts].float().mean() > 0.96


def test_multilabel_masks_keep_their_planes(memory):
    dataset = memory(5, task=Task(("a", "b", "c", "d", "e"), "multilabel"), size=(32, 32))
    prepared = prepare(dataset, Input(size=(32, 32)))
    assert prepared.masks.shape == (5, 5, 32, 32)
    flip = tried(prepared.input, A.HorizontalFlip(p=1), task=prepared.task)
    (batch,) = BatchLoader(prepared, range(5), batch_size=5, augment=flip, order="in_order").epoch(0)
    np.testing.assert_array_equal(batch.targets.numpy(), prepared.masks[..., ::-1])
    turn = tried(prepared.input, A.Rotate(limit=(40, 40), p=1, fill_mask=255), task=prepared.task)
    (batch,) = BatchLoader(prepared, range(5), batch_size=5, augment=turn).epoch(0)
    assert (batch.targets[:, :, 0, 0] == 255).all()
    single = memory(2, task=Task(("a",), "multilabel"), size=(32, 32))
    batches = BatchLoader(prepare(single, Input(size=(32, 32), channels=3)), range(2), batch_size=2, augment=flips())
    assert next(iter(batches.epoch(0))).targets.shape == (2, 1, 32, 32)


def test_one_channel_stays_one_channel(memory):
    dataset = memory(3)
    grey = dataclasses.replace(dataset, read_image=lambda s: dataset.read_image(s)[..., 0])
    prepared = prepare(grey, Input(size=(16, 16), channels=1))
    transforms = A.Rotate(p=1), A.HorizontalFlip(p=1), A.GaussNoise(p=1), A.RandomBrightnessContrast(p=1)
    augment = tried(prepared.input, *transforms)
    (batch,) = BatchLoader(prepared, range(3), batch_size=3, augment=augment).epoch(0)
    assert batch.images.shape == (3, 1, 16, 16)


class TestRefusals:
    """What can't be stacked, or would falsify masks, is refused before anything trains."""

    @pytest.mark.parametrize(
        ("transform", "words"),
        [
            (A.RandomCrop(8, 8), r'"RandomCrop" turns an image of 16x16x3 into one of 8x8x3; it must keep the size'),
            (A.RandomScale(p=0.01), '"RandomScale" turns an image'),
            (A.Normalize(), r'"Normalize" turns uint8 values into float32(?s:.*)segreg normalises by itself'),
            (A.ToTensorV2(), '"ToTensorV2" gives no NumPy array'),
            (A.Affine(scale=0.7, fill_mask=9, p=0.1), '"Affine" puts 9 into masks'),
            (A.Affine(rotate=20, mask_interpolation=1, p=0.1), '"Affine" puts .* into masks, which are no classes'),
            (A.RandomCropNearBBox(p=0.1), '"RandomCropNearBBox" fails on an image of 16x16x3'),
            (lambda **given: given, "function is not an Albumentations transform"),
        ],
    )
    def test_a_transform_is_named(self, transform, words):
        with pytest.raises(SegregError, match=words):
            tried(SMALL, A.HorizontalFlip(), transform)

    @pytest.mark.parametrize(
        "transform",
        [
            A.RandomCrop(16, 16), A.CenterCrop(16, 16), A.Crop(x_max=16, y_max=16), A.CropNonEmptyMaskIfExists(16, 16),
            A.Resize(16, 16), A.LongestMaxSize(16), A.SmallestMaxSize(16), A.PadIfNeeded(16, 16), A.Pad(padding=0),
            A.Affine(), A.XYMasking(), A.NoOp(), A.OneOf([A.RandomCrop(16, 16), A.NoOp()], p=1),
        ],
        ids=lambda transform: type(transform).__name__,
    )  # fmt: skip
    def test_one_that_changes_nothing_is_named(self, transform):
        name = type(transform).__name__
        with pytest.raises(SegregError, match=f'"{name}" changes nothing of an image of 16x16x3') as caught:
            tried(SMALL, A.HorizontalFlip(p=0.01), transform)
        assert "RandomResizedCrop" in caught.value.problems[0].hint
        assert "16" not in caught.value.problems[0].hint

    @pytest.mark.parametrize(
        "transform",
        [
            A.RandomResizedCrop((16, 16), mask_interpolation=6, p=0.01), A.AutoContrast(p=0.1), A.Equalize(p=0.1),
            A.RandomRotate90(), A.Affine(scale=(0.8, 1.2)),
            A.ConstrainedCoarseDropout((1, 1), (0.5, 0.5), (0.5, 0.5), mask_indices=[1]),
            A.OneOf([A.NoOp(p=1), A.HorizontalFlip(p=0.1)]), A.PixelDropout(dropout_prob=0.001), A.MaskDropout(),
        ],
        ids=lambda transform: type(transform).__name__,
    )  # fmt: skip
    def test_one_that_seldom_changes_anything_is_taken(self, transform):
        tried(SMALL, transform)

    def test_a_grey_image_has_no_colours_to_change(self):
        with pytest.raises(SegregError, match='"ChannelShuffle" changes nothing of an image of 16x16x1'):
            tried(Input(size=(16, 16), channels=1), A.ChannelShuffle())

    def test_turns_need_a_square(self):
        for turn in (A.RandomRotate90(p=0.1), A.Transpose(p=0.1), A.D4(p=0.1)):
            with pytest.raises(SegregError, match=r"(?s)it must keep the size.*need a square input"):
                tried(Input(size=(16, 24)), turn)

    def test_a_failure_while_training_names_the_sample(self, prepared):
        def fail(image, **_):
            raise RuntimeError("out of luck")

        late = A.Lambda(image=fail, p=1)
        for workers in (0, 1):
            batches = BatchLoader(prepared, range(6), batch_size=3, workers=workers)
            batches._make.augmentation = Augmentation([late], prepared.task)
            with pytest.raises(SegregError, match=r'^sample "s00\d": the augmentation "Lambda" fails .*out of luck'):
                list(batches.epoch(0))
            batches.close()

    def test_a_batch_that_finds_no_room_in_shared_memory(self, prepared, monkeypatch):
        def full(_):
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
            )

        monkeypatch.setattr(torch.Tensor, "share_memory_", full)
        made = BatchLoader(prepared, range(6), batch_size=3)._make[0, ((0, 0), (1, 0))]  # as a worker does
        assert isinstance(made, SegregError)
        assert re.match(r"a batch of 0.0 MB finds no room .*left on device \(28\)\n.*--shm-size=8g", str(made))

    def test_no_samples(self, prepared):
        with pytest.raises(SegregError, match="no samples"):
            BatchLoader(prepared, [], batch_size=2)


def test_an_error_in_a_worker_is_not_one_that_was_killed():
    assert worker_died(RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed."))
    assert not worker_died(RuntimeError("Caught RuntimeError in DataLoader worker process 0."))


def waiting():
    return [thread for thread in threading.enumerate() if thread.name.startswith("segreg-batches")]


def test_the_thread_ends_with_the_epoch_and_when_it_is_left(prepared):
    batches = BatchLoader(prepared, range(13), batch_size=1)
    list(batches.epoch(0))
    assert not waiting()
    for _ in batches.epoch(0):
        assert len(waiting()) <= 1
        break
    gc.collect()
    assert not waiting()
    left = batches.epoch(0)
    next(left)
    other = batches.epoch(1)
    next(other)
    assert len(waiting()) == 1
    with pytest.raises(StopIteration):
        next(left)
    batches.close()
    assert not waiting()


def test_the_thread_does_not_run_far_ahead(prepared):
    batches = BatchLoader(prepared, range(13), batch_size=1)
    made, real = [], batches._make.batch
    batches._make.batch = lambda *key: (made.append(key), real(*key))[1]
    epoch = batches.epoch(0)
    next(epoch)
    time.sleep(0.3)
    assert len(made) <= 4
    epoch.close()


def test_an_unexpected_error_of_the_thread_reaches_the_consumer(prepared):
    batches = BatchLoader(prepared, range(4), batch_size=2)

    def fail(*_):
        raise ZeroDivisionError

    batches._make.batch = fail
    with pytest.raises(ZeroDivisionError):
        next(batches.epoch(0))


def test_no_workers_beside_a_network_on_the_cpu():
    assert fitting_workers("cpu") == 0
    assert 0 <= fitting_workers("cuda") <= 8
    assert fitting_workers("cuda") < len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("processes", "workers"), [(1, 8), (2, 7), (4, 3), (16, 0)])
def test_processes_that_train_together_share_the_cores(processes, workers, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(distributed, "count", lambda: 2 * processes)  # on two machines
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert fitting_workers("cuda") == workers
