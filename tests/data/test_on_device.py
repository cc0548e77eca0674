"""Images on the device: the batches that the host would make, where they are kept, and what is told of it."""

import os

import numpy as np
import pytest
import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from segreg.config.sections import Input
from segreg.data import on_device
from segreg.data.batched import BatchedAugmentation, Images
from segreg.data.cache import prepare
from segreg.data.keep import keep_images, where
from segreg.data.loader import BatchLoader
from segreg.data.on_device import OnDevice, Uploaded, bytes_taken
from segreg.errors import SegregError
from segreg.task import Task

CPU = torch.device("cpu")
GB = 10**9


@pytest.fixture
def prepared(memory):
    return prepare(memory(13), Input(size=(16, 16)))


def exact():
    """Augmentations that are the same to the last bit."""
    return [A.HorizontalFlip(p=0.5), A.RandomRotate90(p=0.5), A.RandomBrightnessContrast(p=0.5)]


def both(prepared, indices, *, augment=None, device=CPU, **more):
    """Return the batches of the host and those of the device."""
    uploaded = Uploaded.of(prepared, indices, device)
    augmentation = BatchedAugmentation(augment, Images.of(prepared)) if augment else None
    maker = OnDevice(uploaded, augmentation, more.get("seed", 0))
    return [BatchLoader(prepared, indices, augment=augment, maker=m, **more) for m in (None, maker)]


def assert_same(one, other, epochs=(0, 1)):
    assert len(one) == len(other)
    for epoch in epochs:
        assert one.plan(epoch) == other.plan(epoch)
        pairs = list(zip(one.epoch(epoch), other.epoch(epoch), strict=True))
        assert pairs
        for a, b in pairs:
            assert (a.ids, a.indices, a.weight) == (b.ids, b.indices, b.weight)
            assert torch.equal(a.images, b.images.cpu())
            assert torch.equal(a.targets, b.targets.cpu())
            assert b.images.is_contiguous(memory_format=torch.channels_last)
            assert a.images.dtype == b.images.dtype == a.targets.dtype == b.targets.dtype == torch.uint8


@pytest.mark.parametrize("augment", [None, exact()], ids=["as they are", "augmented"])
@pytest.mark.parametrize("order", ["shuffled", "in_order"])
def test_batches_are_those_of_the_host(prepared, augment, order):
    # 13 samples in batches of 4: where they are shuffled the last one joins those before it.
    one, other = both(prepared, range(13), augment=augment, order=order, batch_size=4, seed=5)
    assert_same(one, other)


def test_some_samples_in_an_order_of_their_own(memory):
    some = prepare(memory(13), Input(size=(16, 16)), indices=[2, 3, 7, 11, 12])
    one, other = both(some, [12, 2, 11], batch_size=2, order="in_order")
    assert_same(one, other)
    # As the test's images, which are prepared but not needed here.
    assert len(Uploaded.of(some, [12, 2, 11], CPU).images) == 3


def test_masks_of_several_layers_and_grey_images(memory):
    dataset = memory(5, task=Task(("a", "b", "c", "d", "e"), "multilabel"), size=(32, 32))
    assert_same(*both(prepare(dataset, Input(size=(24, 24))), range(5), augment=exact(), batch_size=2))


@pytest.mark.parametrize("order", ["shuffled", "in_order"])
@pytest.mark.parametrize("parts", [2, 5])
def test_processes_share_batches_as_those_of_the_host(prepared, order, parts):
    """In 13 samples by 11, two are left for a last batch of fewer samples than processes."""
    for part in range(parts):
        more = {"batch_size": 11, "order": order, "part": part, "parts": parts, "seed": 2}
        one, other = both(prepared, range(13), augment=exact(), **more)
        if list(one.epoch(0)):
            assert_same(one, other)


def test_an_epoch_can_be_repeated_left_and_begun_at(prepared):
    _, batches = both(prepared, range(13), augment=[A.GaussNoise(p=0.9), A.Rotate(p=0.9)], batch_size=4, seed=1)

    def content(epoch):
        return [(b.ids, b.images.numpy().tobytes(), b.targets.numpy().tobytes()) for b in batches.epoch(epoch)]

    second = content(1)
    assert content(0) != second
    left = batches.epoch(0)
    next(left)
    assert content(1) == second
    assert list(left) == []  # ended by the epoch that was begun
    batches.close()


def test_a_batch_may_be_written_to(prepared):
    _, batches = both(prepared, range(4), batch_size=4, order="in_order")
    for batch in batches.epoch(0):
        batch.images.zero_()
        batch.targets.fill_(1)
    (again,) = batches.epoch(0)
    np.testing.assert_array_equal(again.images.permute(0, 2, 3, 1).numpy(), prepared.images[:4])


def test_they_go_up_in_pieces(prepared, monkeypatch):
    whole = Uploaded.of(prepared, range(13), CPU)
    monkeypatch.setattr(on_device, "PIECE", 3 * 16 * 16 * 3 + 5)
    stacked, stack = [], np.stack
    monkeypatch.setattr(on_device.np, "stack", lambda rows: stacked.append(len(rows)) or stack(rows))
    pieces = Uploaded.of(prepared, range(13), CPU)
    assert torch.equal(pieces.images, whole.images)
    assert torch.equal(pieces.masks, whole.masks)
    assert stacked == [3, 3, 3, 3, 1, 9, 4]
    assert whole.images.shape == (13, 16, 16, 3)
    assert whole.images.numel() + whole.masks.numel() == bytes_taken(prepared, 13)


def test_what_fails_while_batches_are_planned_is_told(prepared):
    _, batches = both(prepared, range(13), batch_size=4)
    batches.maker.images.rows.clear()
    with pytest.raises(KeyError):
        list(batches.epoch(0))


# where images are kept


@pytest.mark.parametrize(
    ("asked", "device", "needed", "free", "missing", "expected"),
    [
        ("auto", "cuda:0", 3 * GB, 10 * GB, [],
         (True, "3.0 GB on cuda:0, and augmented there, because they are at most 30% of the 10.0 GB free on it")),
        ("auto", "cuda:0", 3 * GB + 1, 10 * GB, [],
         (False, "in files, because 3.0 GB are more than 30% of the 10.0 GB free on cuda:0")),
        ("auto", "cuda:1", GB, 10 * GB, ["CLAHE"], (False, 'in files, because "CLAHE" is not done on the device')),
        ("auto", "cuda:1", GB, 10 * GB, ["CLAHE", "Blur"],
         (False, 'in files, because "CLAHE" and "Blur" are not done on the device')),
        ("auto", "cpu", GB, None, [], (False, "")),
        ("auto", "mps", GB, None, ["Blur"], (False, "")),
        (False, "cuda:0", 1, 10 * GB, [], (False, "in files, as asked for")),
        (True, "cuda:0", 9 * GB, 10 * GB, [], (True, "9.0 GB on cuda:0, and augmented there, as asked for")),
        (True, "cpu", 2 * 10**6, None, [], (True, "2.0 MB on cpu, and augmented there, as asked for")),
    ],
)  # fmt: skip
def test_where_images_are_kept(asked, device, needed, free, missing, expected):
    assert where(asked, device=device, needed=needed, free=free, missing=missing) == expected


def test_what_can_not_be_as_asked_for():
    with pytest.raises(SegregError) as told:
        where(True, device="cpu", needed=1, free=None, missing=["Rotate with border_mode: 4"])
    assert str(told.value) == (
        'train.images_on_device: "Rotate with border_mode: 4" is not done on the device\n'
        "  leave the setting at auto or make it false: Albumentations does every augmentation on the host"
    )
    with pytest.raises(SegregError) as told:
        where(True, device="cuda:0", needed=11 * GB, free=10 * GB, missing=[])
    assert str(told.value) == (
        "train.images_on_device: the images take 11.0 GB; on cuda:0 10.0 GB are free\n"
        "  leave the setting at auto or make it false: then images are read from the cache's files"
    )


def test_images_are_put_where_they_are_kept(prepared, monkeypatch):
    def kept(asked, augment=()):
        return keep_images(prepared, [1, 2, 3], asked=asked, augment=augment, seed=0, device=CPU)

    assert (kept("auto").train, kept("auto").val) == (None, None)
    assert kept(False).words == "in files, as asked for"
    there = kept(True, exact())
    assert there.train.images is there.val.images
    assert there.train.augmentation is not None
    assert there.val.augmentation is None
    assert kept(True).train.augmentation is None
    assert there.words == "0.0 MB on cpu, and augmented there, as asked for"
    with pytest.raises(SegregError, match='"Rotate with border_mode: 1" is not done on the device'):
        kept(True, [A.Rotate(border_mode=1)])
    monkeypatch.setattr(A.VerticalFlip, "apply", lambda self, img, **_: img)
    with pytest.raises(SegregError, match=f'"VerticalFlip as Albumentations {A.__version__} does it" is not done'):
        kept(True, [A.VerticalFlip()])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_batches_of_the_host_without_waiting(prepared):
    device = torch.device("cuda:0")
    one, other = both(prepared, range(13), augment=exact(), batch_size=4, seed=5, device=device)
    assert_same(one, other)
    augment = [*exact(), A.Rotate(limit=15), A.Affine(scale=(0.75, 1.33), rotate=(-10, 10)), A.GaussNoise()]
    _, there = both(prepared, range(13), augment=augment, batch_size=4, seed=5, device=device)
    _, here = both(prepared, range(13), augment=augment, batch_size=4, seed=5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = list(there.epoch(0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(made, here.epoch(0), strict=True):
        assert (a.images.cpu().int() - b.images.int()).abs().max() <= 3
        assert (a.targets.cpu() == b.targets).float().mean() > 0.99
    words = keep_images(prepared, range(13), asked="auto", augment=augment, seed=0, device=device).words
    assert words.startswith("0.0 MB on cuda:0, and augmented there, because they are at most 30% of the ")
