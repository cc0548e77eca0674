"""A recipe's network with random weights, and the steps of training and prediction that it takes on random images.

The steps are a run's: `train_pass` is what `segreg run` calls, `predict_logits` what `segreg predict` calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segreg.config.resolve import Resolved
from segreg.data.loader import Batch
from segreg.inference.predictor import Predictor
from segreg.models import build
from segreg.models.segmenter import meta_forward, predict_logits
from segreg.runs.load import load_run
from segreg.runtime.device import Precision, choose_device, choose_precision, prepare_device, seed_everything
from segreg.runtime.progress import Quiet
from segreg.task import Task, mask_shape
from segreg.training.loss import Objective
from segreg.training.setup import Setup, Training, prepare
from segreg.training.trainer import compile_network, train_pass

_STEPS_PER_EPOCH = 100  # for the schedule, which is built and not used


@dataclass(frozen=True)
class Network:
    """A network on its device, with images in memory: uint8 `[B, C, H, W]`, channels-last as in a run.

    Attributes:
        recipe: what it was built from.
        objective: the network and its losses.
        device: where it runs.
        precision: of its computations.
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
        objective = Objective(model, normalize, losses).to(device).eval()
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
        """Return its training as in a run, but with learning rates of 0 and without the schedule.

        With other rates, weights might grow without bound on random labels.

        Raises:
            SegregError: the optimizer or the schedule can't be built.
        """
        setup = Setup(
            self.objective,
            build_optimizer=lambda groups: build.build_optimizer(self.recipe, groups),
            build_schedule=lambda optimizer, steps, _: build.build_schedule(self.recipe, optimizer, steps),
            settings=self.recipe.train,
            device=self.device,
            precision=self.precision,
            exclude_from_weight_decay=self.recipe.optimizer.beside.exclude_from_weight_decay,
        )
        training = prepare(setup, steps_per_epoch=_STEPS_PER_EPOCH)
        for group in training.optimizer.param_groups:
            group["lr"] = group["lr"] * 0
        if self.recipe.train.compile is True:  # `auto` depends on how long a run is
            compile_network(training)
        # What does not fit is reported, not measured in micro-batches, unless the recipe asks for them.
        return dataclasses.replace(training, schedule=None, auto_split=self.recipe.train.batch_size == "auto")

    def train(self, training: Training, *, steps: int, seconds: float = 0.0) -> int:
        """Take at least so many optimizer steps, for about so many seconds, and return the number of images.

        A sync at most once a second and at the end, as in an epoch of a run.

        Raises:
            SegregError: a loss is not finite.
        """
        settings = training.settings
        # Where the encoder is frozen at first, most of a training's time goes to the epochs after that.
        epoch = min(settings.freeze_encoder_epochs + 1, settings.epochs)
        batches: Any = Preloaded(self.batch, steps=steps, of=settings.accumulate, seconds=seconds)
        return train_pass(training, batches, epoch, Quiet())[1]

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


@dataclass(frozen=True)
class ExportedModel:
    """An exported network, with images in memory, as `Network` has them."""

    predictor: Predictor
    images: Tensor

    @classmethod
    def of(cls, folder: str, recipe: Resolved) -> ExportedModel:
        predictor = load_run(folder).predictor()
        return cls(predictor, _images(recipe, recipe.evaluate.batch_size or recipe.train.batch))

    @property
    def device(self) -> torch.device:
        return self.predictor.device

    @property
    def precision(self) -> Precision:
        return self.predictor.precision

    def predict(self, count: int | None = None) -> Tensor:
        """Return float32 logits `[B, K, H, W]` for the first `count` images."""
        return self.predictor.logits(self.images[:count])

    def synchronise(self) -> None:
        """Do nothing: a prediction is finished when it is returned."""


class Preloaded:
    """One batch repeated, instead of an epoch's.

    Args:
        steps: least number of optimizer steps.
        of: batches in a step.
        seconds: no step begins later than this, once there were enough.
    """

    def __init__(self, batch: Batch, *, steps: int, of: int, seconds: float) -> None:
        self.batch, self.steps, self.of, self.seconds = batch, steps, of, seconds

    def __len__(self) -> int:
        return self.steps * self.of

    def epoch(self, number: int) -> Iterator[Batch]:  # noqa: ARG002 - all epochs are alike
        start, steps = perf_counter(), 0
        while steps < self.steps or perf_counter() - start < self.seconds:
            for _ in range(self.of):
                yield self.batch
            steps += 1


def _images(recipe: Resolved, count: int) -> Tensor:
    shape = (count, *recipe.input.size, recipe.input.channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 3, 1, 2)


def _batch(recipe: Resolved, task: Task) -> Batch:
    count = recipe.train.batch
    shape = (count, *mask_shape(task, recipe.input.size))
    targets = torch.randint(0, task.highest_label + 1, shape, dtype=torch.uint8)
    ids = tuple(f"random {number}" for number in range(count))
    return Batch(_images(recipe, count), targets, ids, tuple(range(count)))


def count_flops(model: nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Return the operations of convolutions and matrix products for one image, a multiply-add counted as two.

    They are counted on shapes alone; on values where the network can't run on shapes. It is left in evaluation mode.
    """
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            meta_forward(model, channels, size)
    except Exception:  # it depends on values
        return _on_values(model, channels, size)
    return int(counter.get_total_flops())


def _on_values(model: nn.Module, channels: int, size: tuple[int, int]) -> int:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    image = torch.zeros(1, channels, *size, device=device)
    fast = torch.backends.mha.get_fastpath_enabled()
    # Attention in one fused kernel has no formula in every version of PyTorch; in single products it has.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())
