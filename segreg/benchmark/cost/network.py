"""A recipe's network with random weights, and the steps of training and prediction that it takes on random images.

The steps are those of a real run: `train_pass` is what `segreg run` calls, `predict_logits` what `segreg predict` does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from segreg.config.resolve import Resolved
from segreg.data.loader import Batch
from segreg.models import build
from segreg.models.segmenter import predict_logits
from segreg.runtime.device import Precision, choose_device, choose_precision, prepare_device, seed_everything
from segreg.runtime.progress import Quiet
from segreg.task import Task
from segreg.training.compiling import compile_network
from segreg.training.loss import Objective
from segreg.training.setup import Training, prepare
from segreg.training.trainer import train_pass

_STEPS_PER_EPOCH = 100  # for the schedule, which is built and then left out


@dataclass(frozen=True)
class Network:
    """A network on its device, with images in memory: uint8 `[B, C, H, W]`, channels-last as a run has them.

    Attributes:
        recipe: what it was built from.
        objective: the network and its losses.
        device: where it computes.
        precision: what it computes in.
        batch: a batch to train on.
        images: a batch to predict.
    """

    recipe: Resolved
    objective: Objective
    device: torch.device
    precision: Precision
    batch: Batch
    images: Tensor

    @classmethod
    def of(cls, recipe: Resolved, task: Task) -> Network:
        """Build it, in evaluation mode. Nothing is downloaded, and the process's random numbers are seeded.

        Raises:
            SegregError: a part can't be built, or the device is not there.
        """
        recipe = build.without_pretrained(recipe)
        device = choose_device(recipe.train.device)
        precision = choose_precision(recipe.train.precision, device)
        prepare_device(device)
        losses = build.build_losses(recipe, task)
        seed_everything(recipe.seed)
        model = build.build_model(recipe, task)
        normalize = build.build_normalize(recipe, model.encoder)  # type: ignore[arg-type]
        auxiliary = recipe.auxiliary.weight if recipe.auxiliary else 0.0
        objective = Objective(model, normalize, losses, auxiliary_weight=auxiliary).to(device).eval()
        if recipe.train.channels_last:
            objective.model.to(memory_format=torch.channels_last)
        return cls(
            recipe, objective, device, precision, _batch(recipe, task),
            _images(recipe, recipe.evaluate.batch_size or recipe.train.batch),
        )  # fmt: skip

    def predict(self, count: int | None = None) -> Tensor:
        """Return float32 logits `[B, K, H, W]` on the device, for the first `count` images. On a GPU no sync."""
        images = self.images[:count]
        return predict_logits(self.objective.model, self.objective.normalize, images, self.device, self.precision)

    def prepared(self) -> Training:
        """Return what trains it, as a run has it, but with learning rates of 0 and without the schedule.

        With rates of their own, weights might grow without bound on labels that mean nothing.

        Raises:
            SegregError: the optimizer or the schedule can't be built.
        """
        training = prepare(
            self.objective,
            steps_per_epoch=_STEPS_PER_EPOCH,
            build_optimizer=lambda groups: build.build_optimizer(self.recipe, groups),
            build_schedule=lambda optimizer, steps, _: build.build_schedule(self.recipe, optimizer, steps),
            settings=self.recipe.train,
            device=self.device,
            precision=self.precision,
        )
        for group in training.optimizer.param_groups:
            group["lr"] = group["lr"] * 0
        if self.recipe.train.compile is True:  # `auto` depends on how long a run is
            compile_network(training)
        # What does not fit is to be told, not measured in smaller parts.
        return dataclasses.replace(training, schedule=None, auto_split=False)

    def train(self, training: Training, *, steps: int, seconds: float = 0.0) -> int:
        """Take at least so many optimizer steps, for about so many seconds, and return the number of images.

        A sync at most once a second and at the end, as in an epoch of a run.

        Raises:
            SegregError: a loss is not finite.
        """
        settings = training.settings
        # Where the encoder is frozen at first, it is the epochs after that most of a training's time goes to.
        epoch = min(settings.freeze_encoder_epochs + 1, settings.epochs)
        batches: Any = Preloaded(self.batch, steps=steps, of=settings.accumulate, seconds=seconds)
        return train_pass(training, batches, epoch, Quiet())[1]

    def synchronise(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


class Preloaded:
    """One batch again and again, in place of an epoch's.

    Args:
        batch: the batch.
        steps: how many groups of it there are at least.
        of: batches in a group; an epoch ends with a whole one.
        seconds: no group begins later than this, once there were enough.
    """

    def __init__(self, batch: Batch, *, steps: int, of: int, seconds: float) -> None:
        self.batch, self.steps, self.of, self.seconds = batch, steps, of, seconds

    def __len__(self) -> int:
        return self.steps * self.of

    def epoch(self, number: int) -> Iterator[Batch]:  # noqa: ARG002 - all epochs are alike
        """Return the batches of one epoch."""
        start, groups = perf_counter(), 0
        while groups < self.steps or perf_counter() - start < self.seconds:
            for _ in range(self.of):
                yield self.batch
            groups += 1


def _images(recipe: Resolved, count: int) -> Tensor:
    shape = (count, *recipe.input.size, recipe.input.channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 3, 1, 2)


def _batch(recipe: Resolved, task: Task) -> Batch:
    count = recipe.train.batch
    layers = (task.channels,) if task.mode == "multilabel" else ()
    labels = task.channels if task.mode == "multiclass" else 2
    targets = torch.randint(0, labels, (count, *layers, *recipe.input.size), dtype=torch.uint8)
    ids = tuple(f"random {number}" for number in range(count))
    return Batch(_images(recipe, count), targets, ids, tuple(range(count)))
