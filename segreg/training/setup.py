"""What takes part in training: optimizer, schedule, gradient scaler, averages and synchronised BatchNorm."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segreg.data.mixing import Mixing
from segreg.errors import SegregError
from segreg.models.checkpointing import checkpoint_activations
from segreg.models.segmenter import predict_logits
from segreg.runtime.device import Precision, prepare_device
from segreg.training.averages import ModelEma, ModelSwa
from segreg.training.groups import build_optimizer
from segreg.training.loss import Objective
from segreg.training.timing import Stopwatch

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from segreg.config.sections import Train
    from segreg.registry.protocols import BatchAugmentation, Schedule


@dataclass(frozen=True)
class Setup:
    """What a training is built from.

    Attributes:
        objective: the network and its losses.
        build_optimizer: builds the optimizer from parameter groups; the partial application of an optimizer entry.
        build_schedule: builds the schedule from optimizer, steps per epoch and epochs; None keeps the rates.
        settings: the recipe's `train` section.
        device: where to compute.
        precision: in which precision.
        seed: seed of dropout and everything else that is random in training.
        predict: returns the logits of a batch of images that are validated; None: as the images are.
        exclude_from_weight_decay: the recipe's setting of the optimizer.
        batch_augmentations: name and function of what mixes the images of a training batch, in their order.
    """

    objective: Objective
    build_optimizer: Callable[[Sequence[dict[str, Any]]], Optimizer]
    build_schedule: Callable[[Optimizer, int, int], Schedule | None]
    settings: Train
    device: torch.device
    precision: Precision
    seed: int = 0
    predict: Callable[[Objective, Tensor], Tensor] | None = None
    exclude_from_weight_decay: bool | None = None
    batch_augmentations: Sequence[tuple[str, BatchAugmentation]] = ()

    def optimizer(self) -> Optimizer:
        """Return the optimizer over the network's parameters as they are now, each group with its rate.

        Raises:
            SegregError: as for `segreg.training.groups.build_optimizer`.
        """
        return build_optimizer(
            self.objective.model, self.settings, self.build_optimizer, exclude=self.exclude_from_weight_decay
        )


@dataclass
class Training:
    """What takes part in every step.

    Attributes:
        predict: returns the logits of a batch of images, by the network that is validated.
        mixing: mixes the images of a batch.
        ema: the moving average of the network, where `train.ema` asks for one.
        swa: its mean over epochs, where `train.swa_start` asks for one.
        micro_batches: in how many micro-batches each batch is computed.
        auto_split: whether a batch that does not fit into memory is computed in smaller micro-batches.
        compiled: whether the network is compiled.
        interrupted: whether a signal came that ends the training.
        validated: the logits of the last epoch's validation, by the ids and the shape of a batch's images.
    """

    objective: Objective
    optimizer: Optimizer
    schedule: Schedule | None
    scaler: torch.amp.GradScaler
    ema: ModelEma | None
    swa: ModelSwa | None
    device: torch.device
    precision: Precision
    settings: Train
    encoder: nn.Module
    encoder_parameters: list[nn.Parameter]
    steps_per_epoch: int
    stopwatch: Stopwatch
    predict: Callable[[Objective, Tensor], Tensor]
    mixing: Mixing
    seed: int = 0
    micro_batches: int = 1
    auto_split: bool = True
    compiled: bool = False
    interrupted: bool = False
    validated: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    @property
    def eval_model(self) -> Objective:
        """Return the model that is validated and saved: an average where there is one."""
        return self.average.network if self.average else self.objective

    @property
    def average(self) -> ModelEma | ModelSwa | None:
        """Return the average of the network, where there is one by now."""
        return self.swa if self.swa and self.swa.steps else self.ema


def prepare(setup: Setup, *, steps_per_epoch: int) -> Training:
    """Move the network to the device and build what trains it, in the order in which each needs the other.

    Raises:
        SegregError: as for `Setup.optimizer`, or the encoder has no blocks to checkpoint.
    """
    objective, settings, device = setup.objective, setup.settings, setup.device
    prepare_device(device)
    objective.to(device)
    if settings.channels_last:
        objective.model.to(memory_format=torch.channels_last)
    optimizer = setup.optimizer()
    encoder = objective.model.parts()["encoder"]
    if settings.checkpoint_activations:
        checkpoint_activations(encoder)

    def plainly(own: Objective, images: Tensor) -> Tensor:
        return predict_logits(own.model, own.normalize, images, device, setup.precision)

    return Training(
        objective=objective,
        optimizer=optimizer,
        schedule=setup.build_schedule(optimizer, steps_per_epoch, settings.epochs),
        scaler=torch.amp.GradScaler(device.type, enabled=setup.precision.scaler),
        ema=None if settings.ema is None else ModelEma(objective, settings.ema),
        swa=None if settings.swa_start is None else ModelSwa(objective, settings.swa_start),
        device=device,
        precision=setup.precision,
        settings=settings,
        encoder=encoder,
        encoder_parameters=[p for p in encoder.parameters() if p.requires_grad],
        steps_per_epoch=steps_per_epoch,
        stopwatch=Stopwatch(device),
        predict=setup.predict or plainly,
        mixing=Mixing(setup.batch_augmentations, setup.seed),
        seed=setup.seed,
    )


def set_batch_norm_momentum(model: nn.Module, momentum: float | None) -> None:
    """Set the momentum of each BatchNorm of a network's running statistics, in place; None changes nothing."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and momentum is not None:
            module.momentum = momentum


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Replace each BatchNorm of a network, in place, by PyTorch's SyncBatchNorm; weights, statistics and names stay.

    timm's BatchNorm keeps its built-in activation.

    Raises:
        SegregError: the device is not a GPU, or a BatchNorm is of a kind that would compute something else afterwards.
    """
    from timm.layers import convert_sync_batchnorm

    if device.type != "cuda":
        raise SegregError(
            f'train.sync_batch_norm needs GPUs: PyTorch has no such BatchNorm for "{device.type}"',
            hint="leave it out; each process then normalises with the statistics of its own share of the batch",
        )
    first_of_its_kind: dict[type, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            first_of_its_kind.setdefault(type(module), module)
    for kind, module in first_of_its_kind.items():
        if not _computes_the_same(module, convert_sync_batchnorm(copy.deepcopy(module))):
            raise SegregError(f"train.sync_batch_norm: {kind.__module__}.{kind.__name__} can't be synchronised")
    convert_sync_batchnorm(model)


def _computes_the_same(norm: nn.Module, other: nn.Module) -> bool:
    """Whether two layers agree in evaluation mode, which needs no other process."""
    for size in ((4, 4), (4,), (4, 4, 4)):  # two, one and three dimensions
        image = torch.linspace(-3, 3, 2 * int(norm.num_features) * 4 ** len(size)).view(2, -1, *size)  # type: ignore[arg-type]
        try:
            mine = copy.deepcopy(norm).cpu().eval()(image)
        except ValueError:  # not this number of dimensions
            continue
        return torch.allclose(mine, copy.deepcopy(other).cpu().eval()(image), atol=1e-5)
    return False
