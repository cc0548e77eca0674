"""What is trained, and when each step and epoch of it ended: shared by the competitors of benchmarks/training.py."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """What is trained on what.

    Attributes:
        recipe: the file that says the same for segreg.
        images: the images' files.
        masks: theirs.
        train: how many of them train, from the first; the others validate.
        encoder: its name in segreg and in SMP.
        size: of the network's image, in pixels.
        batch: images in a batch, of which `train` is a multiple.
        classes: 1 is foreground against background.
        epochs: how many.
        workers: of the loaders; None is what fits.
        device: such as cpu or cuda.
        changed: `key.path=value` of segreg's recipe, which the others know nothing of.
    """

    recipe: str
    images: list[str]
    masks: list[str]
    train: int
    encoder: str
    size: int
    batch: int
    classes: int
    epochs: int
    workers: int | None
    device: str
    changed: list[str]


@dataclass
class Clock:
    """Notes when each optimizer step ended, and what each epoch took.

    Attributes:
        case: decides how many steps an epoch has.
        started: when the process was.
        steps: when each step ended.
        epochs: seconds of each epoch's training alone, and with its validation.
        loss: of the last validation, so that a reader sees that all learn.
    """

    case: Case
    started: float
    steps: list[float] = field(default_factory=list)
    epochs: list[tuple[float, float]] = field(default_factory=list)
    loss: float | None = None
    began: float = 0.0

    def listen(self) -> None:
        """Record every step of any optimizer from here on. Imports torch, as each competitor does."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(self.stepped)

    def stepped(self, *_: object) -> None:
        if len(self.steps) % self.per_epoch in (0, self.per_epoch - 1):
            self.wait()
        self.steps.append(time.monotonic())

    def epoch_begins(self) -> None:
        self.began = time.monotonic()

    def epoch_ends(self) -> None:
        self.wait()
        self.epochs.append((self.steps[-1] - self.began, time.monotonic() - self.began))

    def wait(self) -> None:
        import torch

        if self.case.device.startswith("cuda"):
            torch.cuda.synchronize()

    @property
    def per_epoch(self) -> int:
        return self.case.train // self.case.batch

    def as_data(self) -> dict[str, Any]:
        import torch

        case, steps = self.case, self.steps
        epochs = [steps[first : first + self.per_epoch] for first in range(0, len(steps), self.per_epoch)]
        assert [len(epoch) for epoch in epochs] == [self.per_epoch] * case.epochs == [self.per_epoch] * len(self.epochs)
        steady = sum(epoch[-1] - epoch[0] for epoch in epochs)
        images = case.batch * (self.per_epoch - 1) * case.epochs
        cuda = case.device.startswith("cuda")
        return {
            "first_s": steps[0] - self.started,
            "images_per_s": images / steady if steady else None,
            "epoch_images_per_s": case.train * case.epochs / sum(alone for alone, _ in self.epochs),
            "epoch_s": sum(whole for _, whole in self.epochs) / case.epochs,
            "epochs_s": [whole for _, whole in self.epochs],
            "val_loss": self.loss,
            "gpu_mib": torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
        }
