"""A network, losses, batches and metrics small enough to train in a second; as a script, a training that is killed."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segreg.config.sections import Ramp, Train
from segreg.runtime.device import Precision
from segreg.task import Task
from segreg.training.checkpoint import STATE, load_state
from segreg.training.loss import Objective
from segreg.training.resume import Output
from segreg.training.setup import Setup
from segreg.training.trainer import Outcome, TrainingData, fit
from segreg_plugins.augmentations import batches
from segreg_plugins.optimizers import from_torch
from segreg_plugins.schedules.builders import cosine, plateau

LESION = Task(("lesion",), "binary")
CPU = torch.device("cpu")
FLOAT32 = Precision("float32", None, scaler=False, reason="test")
SETTINGS = Train(epochs=3, batch_size=4, ema=None)


class TinyNet(nn.Module):
    """What segreg.models.segmenter.Segmenter offers to training."""

    def __init__(self, *, norm: bool = True, dropout: float = 0.2, auxiliary: bool = False) -> None:
        super().__init__()
        layer: Callable[[], nn.Module] = (lambda: nn.BatchNorm2d(6)) if norm else nn.Identity
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), layer(), nn.ReLU(), nn.Dropout(dropout))
        self.decoder = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), layer(), nn.ReLU(), nn.Dropout2d(dropout))
        self.head = nn.Conv2d(6, 1, 1)
        self.auxiliary = nn.Conv2d(6, 1, 1) if auxiliary else None
        self.further = {"auxiliary": 0.4} if auxiliary else {}
        self.own_losses = {}

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.head(self.decoder(self.encoder(image))), scale_factor=2.0, mode="bilinear")

    def supervised(self, image: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        levels = self.encoder(image)
        maps = {"": self.head(self.decoder(levels))} | ({"auxiliary": self.auxiliary(levels)} if self.auxiliary else {})
        return {name: F.interpolate(each, scale_factor=2.0, mode="bilinear") for name, each in maps.items()}, {}

    def set_epoch(self, epoch: int, epochs: int) -> None:
        self.epoch = epoch, epochs

    def parts(self) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {"encoder": self.encoder, "decoder": self.decoder, "head": self.head}
        return parts | ({"auxiliary": self.auxiliary} if self.auxiliary else {})


class Scale(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255 - 0.5


def bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits[:, 0], target.float())


def dice(logits: Tensor, target: Tensor) -> Tensor:
    probability, truth = logits[:, 0].sigmoid(), target.float()
    return 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)


@dataclass(frozen=True)
class Batch:
    images: Tensor
    targets: Tensor
    ids: tuple[str, ...]
    indices: tuple[int, ...]
    weight: float = 1.0

    @property
    def size(self) -> int:
        return len(self.images)


@dataclass
class BatchLoader:
    """Bright squares on noise, in an order that the epoch's number alone decides."""

    count: int = 22
    size: int = 4
    shuffle: bool = True
    seed: int = 0
    pause: float = 0.0

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.seed)
        self.images = torch.randint(0, 128, (self.count, 3, 16, 16), generator=draw, dtype=torch.uint8)
        self.targets = torch.zeros(self.count, 16, 16, dtype=torch.uint8)
        for index in range(self.count):
            top, left = torch.randint(0, 9, (2,), generator=draw).tolist()
            self.targets[index, top : top + 7, left : left + 7] = 1
            self.images[index, :, top : top + 7, left : left + 7] += 100

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def epoch(self, number: int) -> Iterator[Batch]:
        order = torch.arange(self.count)
        if self.shuffle:
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed(1000 + number))
        for chosen in order.split(self.size) if self.count else ():
            time.sleep(self.pause)
            ids = tuple(f"image{index}" for index in chosen.tolist())
            targets = self.targets[chosen]
            images = self.images[chosen].contiguous(memory_format=torch.channels_last)
            yield Batch(images, targets, ids, tuple(chosen.tolist()))


class Agreement:
    """What a MetricCollection offers to training, without the five seconds that importing torchmetrics takes."""

    higher_is_better = True

    def __init__(self) -> None:
        self.right = self.all = torch.zeros(())

    def update(self, logits: Tensor, target: Tensor) -> None:
        self.right = self.right + ((logits[:, 0] > 0) == (target == 1)).sum()
        self.all = self.all + target.numel()

    def compute(self) -> dict[str, Tensor]:
        return {"agreement.pixels": self.right / self.all}

    def reset(self) -> None:
        self.__init__()

    def to(self, device: torch.device) -> Agreement:
        return self

    def clone(self) -> Agreement:
        return Agreement()

    def items(self, *, copy_state: bool = True) -> list[tuple[str, Agreement]]:
        return [("agreement", self)]


def objective(seed: int = 0, *, losses: Any = (("bce", 1.0, bce), ("dice", 0.5, dice)), **network: Any) -> Objective:
    torch.manual_seed(seed)
    return Objective(TinyNet(**network), Scale(), losses)


def train(run_dir: Path, *, settings: Train = SETTINGS, **given: Any) -> tuple[Objective, Outcome]:
    """Train a tiny network with whatever is given and defaults for the rest."""
    run_dir.mkdir(exist_ok=True)
    setup = Setup(
        given.pop("objective", None) or objective(),
        given.pop("build_optimizer", partial(from_torch.build, "Adam", lr=0.02)),
        given.pop("build_schedule", cosine),
        settings,
        given.pop("device", CPU),
        given.pop("precision", FLOAT32),
        given.pop("seed", 3),
        batch_augmentations=given.pop("batch_augmentations", ()),
    )
    data = TrainingData(
        given.pop("train", BatchLoader()),
        given.pop("val", BatchLoader(count=6, shuffle=False, seed=1)),
        given.pop("metrics", Agreement()),
        LESION,
    )
    output = Output(run_dir, observe=given.pop("observe", None), trained=given.pop("trained", ()))
    return setup.objective, fit(setup, data, output, **given)


HARD = {
    "cosine": (partial(cosine, warmup_epochs=1.5, final_lr=1e-4), replace(SETTINGS, epochs=6, ema=0.9, accumulate=2)),
    "plateau": (
        partial(plateau, patience=0, factor=0.5),
        replace(SETTINGS, epochs=6, swa_start=3, freeze_encoder_epochs=2, monitor="val.agreement.pixels"),
    ),
}
"""Trainings with everything that has a state."""


def train_hard(name: str, run_dir: Path, *, pause: float = 0.0, resume: bool = False) -> Outcome:
    schedule, settings = HARD[name]
    _, outcome = train(
        run_dir,
        settings=settings,
        train=BatchLoader(count=10, pause=pause),
        build_schedule=schedule,
        objective=objective(
            losses=(("bce", 1.0, bce), ("dice", Ramp(start=0.1, end=1.0, epochs=(1, 5)), dice)), auxiliary=True
        ),
        batch_augmentations=[("mixup", batches.mixup(LESION)), ("cutmix", batches.cutmix(LESION))],
        resume=load_state(run_dir / STATE) if resume and (run_dir / STATE).exists() else None,
    )
    return outcome


def train_and_be_killed(name: str, run_dir: Path, kills: int) -> None:
    """Train in child processes, each killed after a random time, until one comes to the end."""
    run_dir.mkdir()
    torch.set_num_threads(1)
    chance = random.Random(time.time_ns())
    train_hard(name, run_dir.with_name("warm"))  # so that the children find everything imported
    for attempt in range(kills + 1):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                train_hard(name, run_dir, pause=0.1 if attempt < kills else 0.0, resume=True)
                code = 0
            finally:
                os._exit(code)
        if attempt < kills:
            time.sleep(chance.uniform(0.05, 0.6))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        epoch = load_state(run_dir / STATE).epoch if (run_dir / STATE).exists() else None
        print(f"attempt {attempt}: status {status}, epoch {epoch}", flush=True)
        if status == 0:
            break
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    train_and_be_killed(sys.argv[1], Path(sys.argv[2]), kills=int(sys.argv[3]))
