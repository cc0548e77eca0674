"""How one step is taken: alone, or by several processes together, with the gradient of the whole batch."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from segreg.runtime import distributed
from segreg.runtime.device import seed_everything
from segreg.training.micro_batches import dry_step
from segreg.training.monitor import TOTAL

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel

    from segreg.data.loader import Batch
    from segreg.training.setup import Training


class Step(Protocol):
    """What a training pass does otherwise alone than with others."""

    def terms(self, images: Tensor, targets: Tensor, *, last: bool) -> Mapping[str, Tensor]:
        """Return the loss's terms of this process's images; `last` of the batches before the optimizer's step."""

    def share(self, terms: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the total, weighted so that the gradients' mean over processes is that of the whole batch."""

    def agreed(self, *, due: bool) -> bool:
        """Whether it is time to read the losses, the same to all; is to be asked once a step.

        Raises:
            KeyboardInterrupt: one of the processes is to stop.
        """


def in_step(training: Training, epoch: int) -> Step:
    """Return how this epoch's steps are taken."""
    return SingleProcess(training) if distributed.count() == 1 else DDP(training, epoch)


class SingleProcess:
    """The step of a single process."""

    def __init__(self, training: Training) -> None:
        self.objective = training.objective

    def terms(self, images: Tensor, targets: Tensor, *, last: bool) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Return the loss's terms."""
        terms: Mapping[str, Tensor] = self.objective(images, targets)[0]
        return terms

    def share(self, terms: Mapping[str, Tensor], batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the total."""
        return terms[TOTAL]

    def agreed(self, *, due: bool) -> bool:
        """Agrees."""
        return due


class DDP:
    """The step of several processes, each with its share of the batch; PyTorch averages their gradients.

    What is drawn depends on the seed, the epoch and the rank, so that a run can continue with any number of processes.
    """

    def __init__(self, training: Training, epoch: int) -> None:
        self.training = training
        self.parallel: DistributedDataParallel | None = None
        seed_everything(_seed(training.seed, epoch, distributed.rank()))

    def terms(self, images: Tensor, targets: Tensor, *, last: bool) -> Mapping[str, Tensor]:
        """Return the terms of this process's share. Gradients are exchanged in the backward pass of the last batch."""
        if self.parallel is None:
            # Anew each epoch, for it knows the parameters that train when it is made, and freezing changes them.
            self.parallel = nn.parallel.DistributedDataParallel(
                self.training.objective, find_unused_parameters=self._leaves_some_out(images, targets)
            )
        self.parallel.require_backward_grad_sync = last
        terms: Mapping[str, Tensor] = self.parallel(images, targets)[0]
        return terms

    def share(self, terms: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the total, weighted with this process's share of the images."""
        return terms[TOTAL] * batch.weight

    def agreed(self, *, due: bool) -> bool:
        """Return what the main process says. No device sync: the words go between CPUs."""
        interrupted, due = distributed.any_of(self.training.interrupted, due and distributed.is_main())
        if interrupted:
            raise KeyboardInterrupt
        return due

    def _leaves_some_out(self, images: Tensor, targets: Tensor) -> bool:
        """Whether the loss reaches only some parameters, as with a decoder that does not take every level."""
        training = self.training
        if training.compiled:
            return True
        found = reached(dry_step(training, images, targets)[TOTAL])
        (some,) = distributed.any_of(any(p.requires_grad and p not in found for p in training.objective.parameters()))
        return some


def reached(loss: Tensor) -> set[Tensor]:
    """Return the parameters that a loss has a gradient for."""
    found, seen, ahead = set(), set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(variable)
        ahead += [before for before, _ in node.next_functions]
    return found


@contextmanager
def interrupts(training: Training) -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, do what Ctrl-C does.

    Of several processes the one that gets a signal only makes a note, so that all can stop at the same batch.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what signal passes
        raise KeyboardInterrupt

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        training.interrupted = True

    alone = distributed.count() == 1
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = (
        {signal.SIGTERM: interrupt} if alone else {signal.SIGTERM: note, signal.SIGINT: note}
    )
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _seed(seed: int, epoch: int, rank: int) -> int:
    words = f"{seed} epoch {epoch} rank {rank}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=7).digest(), "big")
