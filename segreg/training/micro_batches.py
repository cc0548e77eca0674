"""In how many parts a batch is computed, one after the other, so that each fits into the device's memory.

The parts' gradients add up to the batch's, so the optimizer's step stays one of the whole batch. What differs is what
looks at a batch as a whole: BatchNorm's statistics, and losses that pool all pixels, are each part's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segreg.errors import SegregError
from segreg.runtime import distributed
from segreg.runtime.device import out_of_memory
from segreg.runtime.memory import available_mib
from segreg.training.monitor import TOTAL

if TYPE_CHECKING:
    from segreg.training.setup import Training

SHARE_OF_MEMORY = 0.5
"""How much of a computer's free memory a step may take where the number of parts is chosen for it."""


def split(tensors: tuple[Tensor, ...], parts: int) -> list[tuple[Tensor, ...]]:
    """Return a batch in parts that differ by one image at most; no more parts than there are images."""
    parts = min(parts, len(tensors[0]))
    return list(zip(*(tensor.tensor_split(parts) for tensor in tensors), strict=True))


def use_smaller_micro_batches(training: Training, images: int, say: Callable[[str], None]) -> None:
    """Double the number of parts, of training and validation, after the memory did not suffice for `images` images.

    Raises:
        SegregError: the parts have one image each already, or several processes would have to do it together.
    """
    forget_gradients(training)
    if distributed.count() > 1:
        raise SegregError(
            f"the device's memory does not suffice for {images} images at once",
            hint="take a smaller train.batch_size, and a larger train.accumulate for it; "
            "several processes don't change it on the way",
        )
    if training.parts >= images:
        raise SegregError(
            "the device's memory does not suffice for a training step on one image",
            hint="take a smaller input.size, a smaller encoder, or train.precision bf16 or fp16; "
            "or see what else uses the device",
        )
    training.parts *= 2
    largest = -(-images // min(training.parts, images))
    say(
        f"notice: the device's memory did not suffice; a batch of {images} is now computed in parts of at most "
        f"{largest}, and the optimizer's step stays one of the whole batch"
    )


def eval_in_micro_batches(
    training: Training, images: Tensor, targets: Tensor, say: Callable[[str], None]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the judged network's terms, each a mean over the batch's images, and its logits `[B, K, H, W]`.

    Raises:
        SegregError: one image does not fit.
    """
    while True:
        try:
            with training.precision.autocast(training.device):
                given = [training.eval_model(*part) for part in split((images, targets), training.parts)]
            break
        except Exception as error:
            if not (training.auto_split and out_of_memory(error)):
                raise
        use_smaller_micro_batches(training, len(images), say)  # here, where the error no longer keeps its tensors
    logits = torch.cat([part for _, part in given])
    shares = [len(part) / len(images) for _, part in given]
    names = given[0][0]
    return {name: sum(s * terms[name] for s, (terms, _) in zip(shares, given, strict=True)) for name in names}, logits


def micro_batches_that_fit(training: Training, batch: tuple[Tensor, Tensor]) -> int:
    """Return in how many parts a batch fits, 1, 2, 4 ..., as `train.batch_size: auto` has it; nothing is trained.

    A GPU tries it out; elsewhere the system would rather end the process than refuse, so what a step keeps is counted.
    """
    parts = 1
    while parts < len(batch[0]) and not _fits(training, split(batch, parts)[0]):
        parts *= 2
    return parts


def _fits(training: Training, part: tuple[Tensor, ...]) -> bool:
    images, targets = part
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    of_weights = sum(p.numel() * p.element_size() for p in parameters)
    # An optimizer like Adam makes two more of each parameter at its first step.
    if training.device.type != "cuda":
        free = available_mib()
        a_few = min(2, len(images))
        needed = kept_bytes(training, images[:a_few], targets[:a_few]) / a_few * len(images) + 3 * of_weights
        return free is None or needed <= SHARE_OF_MEMORY * free * 2**20
    reserve: list[Tensor] = []
    try:
        reserve = [torch.empty_like(p) for p in parameters for _ in range(2)]
        training.scaler.scale(dry_step(training, images, targets)[TOTAL]).backward()  # type: ignore[no-untyped-call]
        fits = True
    except Exception as error:
        if not out_of_memory(error):
            raise
        fits = False
    reserve.clear()
    forget_gradients(training)
    return fits


def forget_gradients(training: Training) -> None:
    """Drop what a step that could not be finished left behind."""
    training.optimizer.zero_grad(set_to_none=True)
    if training.device.type == "cuda":
        torch.cuda.empty_cache()


def dry_step(training: Training, images: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """Return the terms of a pass that leaves BatchNorm's statistics and the random numbers as they are."""
    objective = training.objective.train()
    buffers = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    devices = [training.device] if training.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), training.precision.autocast(training.device):
        terms: Mapping[str, Tensor] = torch.func.functional_call(objective, buffers, (images, targets))[0]
    return terms


def kept_bytes(training: Training, images: Tensor, targets: Tensor) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, weights not among them."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in training.objective.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms = dry_step(training, images, targets)
    del terms
    return sum(kept.values())
