"""Samples in batches: which ones, in which order, augmented how - all from the seed, whoever does the work."""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
import weakref
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np

from segreg.data.augment import Augmentation, generators
from segreg.data.cache import PreprocessedDataset
from segreg.data.crops import Crops, counts_of
from segreg.data.native import NativeDataset
from segreg.data.split import drawn
from segreg.errors import SegregError
from segreg.runtime.device import cores
from segreg.runtime.distributed import local_count

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.utils.data import DataLoader

Item = TypeVar("Item")
AHEAD = 2
"""How many batches are made ahead, by the thread or by each worker."""

Drawn = tuple[int, int]
"""A sample as an index into `Dataset.samples`, and how often it was drawn before in the epoch."""
Key = tuple[int, tuple[Drawn, ...]]
"""What a batch is made from: the epoch's number, and the samples."""
MOST_PIXELS = 1 << 21
"""Pixels of a batch of whole images at their own size; a larger image is a batch of its own."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples side by side, not yet normalised.

    Shape: images `[B, C, H, W]`, channels-last in memory, uint8 in 0..255, or float32: 16-bit values in 0..65535,
    floating-point ones in their own units, z-scores where `input.normalize` is `per_image`. Targets uint8 `[B, H, W]`
    (`[B, K, H, W]` if multilabel) as `Task` has them, 255 = ignored.

    Attributes:
        images: the images.
        targets: the masks.
        ids: the samples' ids; none where the one image only stands in for a share that has none.
        indices: the samples' indices into `Dataset.samples`.
        weight: how much it counts in the mean over the processes that share a batch; 1 where all have as many images.
        shared: images of the batch in all processes that share it; 0 where nobody else does.
    """

    images: Tensor
    targets: Tensor
    ids: tuple[str, ...]
    indices: tuple[int, ...]
    weight: float = 1.0
    shared: int = 0

    @property
    def size(self) -> int:
        """Return the number of images of the batch, those of other processes included."""
        return self.shared or len(self.images)


class BatchLoader:
    """The batches of one split, epoch by epoch.

    The order of an epoch depends on the seed and the epoch's number, a sample's augmentation on these and its id. So
    the same seed gives the same batches whatever the number of workers, and an epoch can be repeated or begun at.

    A shuffled epoch keeps its incomplete last batch, except that a single left-over sample joins the batch before it:
    BatchNorm can't train on one value a channel, which is what pooled branches of some decoders have there. In order,
    no batch is larger than `batch_size`.

    Several processes share the batches that one process would have. In order, they take them in turn. Shuffled, each
    has a share of every batch, as many samples as the others or one less, so that all have as many batches. A share
    without a sample, in a batch of fewer samples than processes, has the batch's first one as an image that does not
    count.

    Where the images have their own sizes, a shuffled epoch is of drawn crops, each image as often as `Crops.times` has
    it, and in order batches are of neighbours of one size, of few pixels together, or of crops in the images' middles.

    Args:
        prepared: the arrays.
        indices: which samples, as indices into `Dataset.samples`.
        batch_size: samples in a batch.
        augment: what becomes of each sample, if anything.
        seed: the seed.
        order: `shuffled` anew each epoch, or `in_order` of `indices`.
        workers: processes that make batches; 0 is one thread beside the consumer.
        rank: which of the processes that share the batches this is for, from 0.
        world_size: how many there are.
        crops: which crops the batches are of, where the images have their own sizes; None in order: whole images.

    Raises:
        SegregError: there are no samples.
        ValueError: an index is given twice.
    """

    def __init__(
        self,
        prepared: PreprocessedDataset,
        indices: Sequence[int],
        *,
        batch_size: int,
        augment: Augmentation | None = None,
        seed: int = 0,
        order: Literal["shuffled", "in_order"] = "shuffled",
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        crops: Crops | None = None,
    ) -> None:
        if not len(indices):
            raise SegregError("there are no samples to make batches of")
        if len(set(indices)) < len(indices):
            raise ValueError("a sample is given twice among the indices")
        self.prepared = prepared
        self.indices = tuple(int(index) for index in indices)
        self.batch_size = batch_size
        self.seed = seed
        self.order = order
        self.workers = workers
        self.rank, self.world_size = rank, world_size
        self._times: NDArray[np.float64] | None = None
        if isinstance(prepared, NativeDataset) and crops is not None and order == "shuffled":
            times = crops.times(prepared, self.indices)
            self._times = times if (times != 1).any() else None
        self._make = _Maker(prepared, augment, seed, crops, order)
        self._plan: list[Key] = []
        self._loader: DataLoader[Any] | None = None
        self._under_way: weakref.ref[Generator[Batch, None, None]] | None = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch; in order, of the rank that has most."""
        if self.order == "in_order":
            return math.ceil(len(self._in_order()) / self.world_size)
        return batches_of(self.samples_per_epoch, self.batch_size)

    @property
    def samples_per_epoch(self) -> int:
        """Return how many samples an epoch has, those that are repeated as often as they are."""
        return len(self.indices) if self._times is None else round(float(self._times.sum()))

    def plan(self, number: int) -> list[tuple[int, ...]]:
        """Return the samples of each batch of an epoch, as indices; of this rank alone."""
        return [tuple(index for index, _ in own) for _, own in self._shared(number)]

    def _shared(self, number: int) -> list[tuple[tuple[Drawn, ...], tuple[Drawn, ...]]]:
        """Return the samples of each batch that this rank has a share of, and those of the share."""
        if self.order == "in_order":
            return [(batch, batch) for batch in self._in_order()[self.rank :: self.world_size]]
        whole = _cut(self._shuffled(number), self.batch_size, merge=True)
        shares = [np.array_split(np.arange(len(batch)), self.world_size)[self.rank] for batch in whole]
        return [(batch, tuple(batch[place] for place in share)) for batch, share in zip(whole, shares, strict=True)]

    def _shuffled(self, number: int) -> list[Drawn]:
        """Return an epoch's samples in their order."""
        counts = np.ones(len(self.indices), np.int64)
        if self._times is not None:
            # In another order each epoch, or neighbours that are repeated now and then would be so together.
            order = drawn(map(str, range(len(self.indices))), self.seed, "repeat", number)
            places = np.array([int(place) for place in order])
            offset = generators(self.seed, "repeat", number)[0].random()
            counts[places] = counts_of(self._times[places], offset)
        names: dict[str, Drawn] = {}
        for index, count in zip(self.indices, counts, strict=True):
            identity = self.prepared.id_of(index)
            names |= {identity if again == 0 else f"{identity}\0{again}": (index, again) for again in range(count)}
        return [names[name] for name in drawn(names, self.seed, "epoch", number)]

    def _in_order(self) -> list[tuple[Drawn, ...]]:
        """Return the batches of all ranks, in order."""
        samples = [(index, 0) for index in self.indices]
        if not isinstance(self.prepared, NativeDataset) or self._make.crops is not None:
            return _cut(samples, self.batch_size, merge=False)
        batches = []
        for (height, width), same in itertools.groupby(samples, lambda one: self.prepared.original_size(one[0])):
            most = max(1, min(self.batch_size, MOST_PIXELS // (height * width)))
            batches += _cut(list(same), most, merge=False)
        return batches

    def epoch(self, number: int) -> Iterator[Batch]:
        """Return an epoch's batches.

        It may be left early. Only one epoch at a time is under way: beginning another ends the one before.

        Raises:
            SegregError: an augmentation fails; the message names it and the sample.
        """
        self._leave()
        shared = self._shared(number)
        keys = [(number, own or whole[:1]) for whole, own in shared]
        begun = self._by_processes(keys) if self.workers else self._by_thread(keys)
        if self.world_size > 1 and self.order == "shuffled":
            begun = _weighed(begun, [(len(own), len(whole), self.world_size) for whole, own in shared])
        # Weakly, so that it ends by itself where a loop over it is left.
        self._under_way = weakref.ref(begun)
        return begun

    def close(self) -> None:
        """End the epoch under way and the worker processes, which otherwise wait for the next one."""
        self._leave()
        self._loader = None

    def _leave(self) -> None:
        if self._under_way is not None and (begun := self._under_way()) is not None:
            begun.close()

    def _by_thread(self, keys: list[Key]) -> Generator[Batch, None, None]:
        pool = ThreadPoolExecutor(1, "segreg-batches")
        rest = iter(keys)
        try:
            waiting = deque(pool.submit(self._make.batch, *key) for key in islice(rest, AHEAD + 1))
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(self._make.batch, *key) for key in islice(rest, 1))
                yield made
        finally:
            pool.shutdown(cancel_futures=True)

    def _by_processes(self, keys: list[Key]) -> Generator[Batch, None, None]:
        if self._loader is None:
            import torch
            from torch.utils.data import DataLoader

            self._loader = DataLoader(
                cast("Any", self._make),
                batch_size=None,  # a key stands for a whole batch
                sampler=self._plan,
                num_workers=self.workers,
                prefetch_factor=AHEAD,
                persistent_workers=True,
                worker_init_fn=_begin_worker,
                # Its own, or each epoch would draw from the generator that the training draws from.
                generator=torch.Generator(),
            )
        self._plan[:] = keys
        for made in self._loader:
            if isinstance(made, SegregError):
                raise made
            yield made


def places_by_size(prepared: PreprocessedDataset, indices: Sequence[int]) -> list[int]:
    """Return the places of samples among `indices`, those of one size together where images have their own."""
    places = list(range(len(indices)))
    if isinstance(prepared, NativeDataset):
        places.sort(key=lambda place: prepared.original_size(indices[place]))
    return places


def fitting_workers(device_type: str) -> int:
    """Return the number of worker processes that fits the machine: what `workers: auto` means.

    On a CPU the network needs every core, and workers would compete with it: none, that is one thread. Beside an
    accelerator as many as there are cores but one, 8 at most, of the cores that processes training together have each.
    """
    return 0 if device_type == "cpu" else max(0, min(8, cores() // local_count() - 1))


def _cut(samples: Sequence[Item], size: int, *, merge: bool) -> list[tuple[Item, ...]]:
    starts = list(range(0, len(samples), size))
    if merge and size > 1 and len(starts) > 1 and len(samples) % size == 1:
        starts.pop()
    ends = [*starts[1:], len(samples)]
    return [tuple(samples[start:end]) for start, end in zip(starts, ends, strict=True)]


def batches_of(samples: int, batch_size: int) -> int:
    """Return how many batches a shuffled epoch has."""
    return len(_cut(range(samples), batch_size, merge=True))


def _weighed(
    begun: Generator[Batch, None, None], shares: Sequence[tuple[int, int, int]]
) -> Generator[Batch, None, None]:
    """Return shares of batches with their weights, and without the ids of an image that only stands in."""
    with closing(begun):
        for batch, (own, whole, world_size) in zip(begun, shares, strict=True):
            weight = own * world_size / whole
            yield replace(batch, ids=batch.ids[:own], indices=batch.indices[:own], weight=weight, shared=whole)


@dataclass
class _Maker:
    """Make the batch of a key; all that travels to a worker."""

    prepared: PreprocessedDataset
    augmentation: Augmentation | None
    seed: int
    crops: Crops | None
    order: Literal["shuffled", "in_order"]

    def __getitem__(self, key: Key) -> Batch | SegregError:
        """Return the batch, in shared memory, or the error that says why not.

        An exception would lose its message on the way. And a batch that finds no room in shared memory only when it is
        sent, by a thread of the worker's queue, is dropped there, and waited for without end.
        """
        try:
            made = self.batch(*key)
        except SegregError as error:
            return error
        try:
            made.images.share_memory_()  # type: ignore[no-untyped-call]
            made.targets.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            size = (made.images.nbytes + made.targets.nbytes) / 1e6
            return SegregError(
                f"a batch of {size:,.1f} MB finds no room in shared memory: {error}",
                hint="give it more, as `docker run --shm-size=8g` does, or take fewer train.workers; 0 needs none",
            )
        return made

    def batch(self, epoch: int, samples: tuple[Drawn, ...]) -> Batch:
        import torch

        images: Any = None
        masks: Any = None
        for place, (index, again) in enumerate(samples):
            image, mask = self._sample(epoch, index, again)
            if self.augmentation is not None:
                # Copies: transforms that work in place may write.
                image, mask = self._augmented(np.array(image), np.array(mask), epoch, index, again)
            image = self.prepared.network_input(index, image)
            if images is None:
                images = np.empty((len(samples), *image.shape), image.dtype)
                masks = np.empty((len(samples), *mask.shape), np.uint8)
            # Row by row: indexing uint8 arrays with a list is many times slower.
            images[place], masks[place] = image, mask
        indices = tuple(index for index, _ in samples)
        ids = tuple(self.prepared.id_of(index) for index in indices)
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks), ids, indices)

    def _sample(self, epoch: int, index: int, again: int) -> tuple[Any, Any]:
        if self.crops is None or not isinstance(self.prepared, NativeDataset):
            return self.prepared.sample(index)
        if self.order == "in_order":
            return self.crops.centre(self.prepared, index)
        chance, _ = generators(self.seed, epoch, self.prepared.id_of(index), "crop", again)
        return self.crops.draw(self.prepared, index, chance)

    def _augmented(self, image: Any, mask: Any, epoch: int, index: int, again: int) -> tuple[Any, Any]:
        assert self.augmentation is not None
        name = self.prepared.id_of(index)
        try:
            return self.augmentation(image, mask, self.seed, epoch, name, *([again] if again else []))
        except SegregError as error:
            problem = error.problems[0]
            raise SegregError(f'sample "{name}": {problem.message}', hint=problem.hint) from error


def worker_died(error: BaseException) -> bool:
    """Whether an error says that a worker process was killed; PyTorch raises it wherever the main process is."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def _begin_worker(_: int) -> None:
    """Keep a worker to its one core; torch is limited by the loader. SIGTERM ends it as if it had finished.

    A scheduler sends SIGTERM to the main process too, which then stops in good order: a worker that is "killed by
    signal" would interrupt that.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)
