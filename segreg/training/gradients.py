"""The gradient of one optimizer step: of its batches, each in the parts that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from segreg.runtime.device import out_of_memory
from segreg.training.compiling import from_the_compiler, go_on_without
from segreg.training.micro_batches import split, use_smaller_micro_batches
from segreg.training.setup import to_device

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.data.loader import Batch
    from segreg.training.setup import Training
    from segreg.training.step import Step


def add_gradients(
    training: Training, step: Step, group: Sequence[Batch], say: Callable[[str], None]
) -> list[Mapping[str, Tensor]]:
    """Add the gradients of a step's batches up in the parameters, and return each batch's terms, detached.

    Where the memory does not suffice, or a network that was to be compiled can't be, the step begins anew: in smaller
    parts, or without compiling.

    Raises:
        SegregError: one image does not fit, or compiling was asked for and fails.
    """
    while True:
        try:
            return [_of_batch(training, step, batch, group) for batch in group]
        except Exception as error:
            if not (too_large := training.auto_split and out_of_memory(error)):
                if not (training.compiled and from_the_compiler(error)):
                    raise
                go_on_without(training, error, say)
        # Only here: inside the except block the error would keep the tensors that there was no room for.
        if too_large:
            use_smaller_micro_batches(training, max(len(batch.images) for batch in group), say)


def _of_batch(training: Training, step: Step, batch: Batch, group: Sequence[Batch]) -> Mapping[str, Tensor]:
    watch = training.stopwatch
    with watch.stage("copy"):
        whole = to_device(batch, training)
    parts = split(whole, training.parts)
    means: dict[str, Tensor] = {}
    for number, (images, targets) in enumerate(parts, start=1):
        share = len(images) / len(whole[0])
        with watch.stage("forward"), training.precision.autocast(training.device):
            terms = step.terms(images, targets, last=batch is group[-1] and number == len(parts))
        with watch.stage("backward"):
            # The mean over the batches that this group really has: the last one of an epoch may be shorter.
            total = step.share(terms, batch) * share / len(group)
            training.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        for name, term in terms.items():
            means[name] = means.get(name, 0) + term.detach() * share
    return means
