"""What takes part in training, made in the order in which each needs the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segreg.errors import SegregError, listed
from segreg.runtime.device import Precision, prepare_device
from segreg.training.ema import ModelEma
from segreg.training.loss import Objective
from segreg.training.timing import Stopwatch

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from segreg.config.sections import Train
    from segreg.data.loader import Batch
    from segreg.models.segmenter import Segmenter
    from segreg.registry.protocols import Schedule


@dataclass
class Training:
    """What takes part in every step.

    Attributes:
        parts: in how many parts each batch is computed (see `segreg.training.micro_batches`).
        yields: whether a batch that does not fit into memory is computed in smaller parts.
        compiled: whether the network is compiled.
        interrupted: whether a signal came that ends the training.
    """

    objective: Objective
    optimizer: Optimizer
    schedule: Schedule | None
    scaler: torch.amp.GradScaler
    average: ModelEma | None
    device: torch.device
    precision: Precision
    settings: Train
    encoder: nn.Module
    encoder_parameters: list[nn.Parameter]
    steps_per_epoch: int
    stopwatch: Stopwatch
    seed: int = 0
    parts: int = 1
    auto_split: bool = True
    compiled: bool = False
    interrupted: bool = False

    @property
    def eval_model(self) -> nn.Module:
        """Return what is validated and saved: the averaged network where there is one."""
        return self.average.network if self.average else self.objective


def prepare(
    objective: Objective,
    *,
    steps_per_epoch: int,
    build_optimizer: Callable[[Sequence[dict[str, Any]]], Optimizer],
    build_schedule: Callable[[Optimizer, int, int], Schedule | None],
    settings: Train,
    device: torch.device,
    precision: Precision,
    seed: int = 0,
) -> Training:
    """Put the network on the device and makes what trains it, in the order in which each needs the other."""
    prepare_device(device)
    objective.to(device)
    if settings.channels_last:
        objective.model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(parameter_groups(objective.model, settings.lr_factors))
    scale_rates(optimizer, settings.lr_factors)
    encoder = objective.model.parts()["encoder"]
    return Training(
        objective=objective,
        optimizer=optimizer,
        schedule=build_schedule(optimizer, steps_per_epoch, settings.epochs),
        scaler=torch.amp.GradScaler(device.type, enabled=precision.scaler),
        average=None if settings.ema is None else ModelEma(objective, settings.ema),
        device=device,
        precision=precision,
        settings=settings,
        encoder=encoder,
        encoder_parameters=[p for p in encoder.parameters() if p.requires_grad],
        steps_per_epoch=steps_per_epoch,
        stopwatch=Stopwatch(device),
        seed=seed,
    )


def parameter_groups(model: Segmenter, lr_factors: Mapping[Any, float]) -> list[dict[str, Any]]:
    """Return the trainable parameters by part of the network, each parameter once.

    Raises:
        SegregError: `lr_factors` names a part that the network does not have or that has nothing to train.
    """
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for name, part in (*model.parts().items(), ("other", model)):
        parameters = [p for p in part.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in parameters)
        if parameters:
            groups.append({"params": parameters, "name": name})
    names = [group["name"] for group in groups]
    if unknown := [name for name in lr_factors if name not in names]:
        raise SegregError(
            f"train.lr_factors: this network has no part {listed(unknown, last='or')} to train",
            hint=f"there is {listed(names)}",
        )
    if not groups:
        raise SegregError("the network has no parameter to train")
    return groups


def scale_rates(optimizer: Optimizer, lr_factors: Mapping[Any, float]) -> None:
    """Multiply every part's learning rate with its factor."""
    for index, group in enumerate(optimizer.param_groups):
        # An optimizer that makes groups of its own may drop the names.
        if "name" not in group and lr_factors:
            raise SegregError(f"{type(optimizer).__name__} regroups the parameters; it can't be used with lr_factors")
        group.setdefault("name", str(index))
        group["lr"] = group["lr"] * lr_factors.get(group["name"], 1.0)


def freeze_encoder(training: Training, *, frozen: bool) -> None:
    """Keep the encoder's weights and BatchNorm statistics as they are, or lets them go."""
    for parameter in training.encoder_parameters:
        parameter.requires_grad_(not frozen)
    if frozen:
        training.encoder.eval()


def to_device(batch: Batch, training: Training) -> tuple[Tensor, Tensor]:
    """Return a batch's uint8 images and targets on the device. No sync: the copy is queued."""
    layout = torch.channels_last if training.settings.channels_last else torch.contiguous_format
    images, targets = batch.images, batch.targets
    if training.device.type == "cuda" and not images.is_cuda:
        # From memory that the system may move, the CPU would wait for the copy.
        images, targets = images.pin_memory(), targets.pin_memory()
    images = images.to(training.device, non_blocking=True).contiguous(memory_format=layout)
    return images, targets.to(training.device, non_blocking=True)
