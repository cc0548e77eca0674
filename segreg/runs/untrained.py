"""The untrained parts of a recipe, as training begins with them, for one's own training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from segreg.config.resolve import Resolved
from segreg.data import BatchLoader
from segreg.errors import SegregError
from segreg.models import build
from segreg.models.segmenter import AUXILIARY
from segreg.runs.assembly import Assembly
from segreg.runtime.progress import Progress
from segreg.training.loss import Objective
from segreg.training.monitor import TOTAL


class Loader:
    """The batches of one split. Each iteration is one epoch: the training's is shuffled and augmented anew.

    The same recipe gives the same batches as `segreg run` has, in the same epochs.

    Attributes:
        batches: the batches as training takes them, not normalised.
    """

    def __init__(self, batches: BatchLoader, normalize: nn.Module) -> None:
        self.batches = batches
        self._normalize = normalize
        self._epoch = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches of the next epoch.

        Shape: images float32 `[B, C, H, W]`, normalised as the encoder wants them; targets int64 `[B, H, W]`, or
        `[B, K, H, W]` if multilabel, 255 for ignored pixels.
        """
        self._epoch += 1
        for batch in self.batches.epoch(self._epoch):
            yield self._normalize(batch.images), batch.targets.long()


@dataclass(frozen=True)
class Loaders:
    """The loaders of a recipe's data.

    Attributes:
        train: shuffled and augmented.
        val: in order.
        test: in order; None where the split keeps no test samples.
    """

    train: Loader
    val: Loader
    test: Loader | None


class RecipeLoss(nn.Module):
    """The weighted sum of a recipe's losses, a module so that class weights move with `.to(device)`."""

    def __init__(self, recipe: Resolved) -> None:
        super().__init__()
        task = build.build_dataset(recipe).task
        further = {AUXILIARY: recipe.auxiliary_weight} if recipe.auxiliary else {}
        # Logits come from outside.
        network: Any = SimpleNamespace(further=further, own_losses={}, set_epoch=lambda *_: None)
        # Built once more for the auxiliary decoder's, which have a state of their own.
        losses, *more = (build.build_losses(recipe, task) for _ in range(1 + len(further)))
        self._objective = Objective(network, nn.Identity(), losses, more)
        self._epochs = recipe.train.epochs

    def set_epoch(self, epoch: int) -> None:
        """Take the weights that the losses have in an epoch, from 1, and say to losses that ask for it which begins."""
        self._objective.set_epoch(epoch, self._epochs)

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the loss, a float32 scalar.

        Shape: logits `[B, K, H, W]`, or those of `model.all_logits(images)`, whose second are the auxiliary decoder's;
        targets as the loaders give them.

        Raises:
            SegregError: there are more logits, whose weights the decoder knows and not the recipe.
        """
        maps = [output] if isinstance(output, Tensor) else output
        names = ["", *self._objective.model.further]
        if len(maps) > len(names):
            raise SegregError(
                f"{len(maps)} logit maps were given, and the recipe weighs {len(names)} of them",
                hint="the decoder gives further ones for training: score each map alone, and add them up with the "
                "weights 1 and those of model.further",
            )
        return self._objective.terms_of(dict(zip(names, maps, strict=False)), target)[TOTAL]


def loaders(recipe: Resolved, progress: Progress) -> Loaders:
    """Return the loaders of a recipe's data, which is read, checked and cached as a run's is.

    Raises:
        SegregError: the recipe or its data is wrong, or the recipe mixes batches, which have two targets then.
    """
    if recipe.batch_augment:
        raise SegregError(
            "batch_augment mixes the batches of `segreg run` alone, and loaders would give them as they are",
            hint='leave it out: {"batch_augment": []}',
            place=recipe.batch_augment[0].place,
        )
    assembly = Assembly.of(recipe, progress)
    normalize = assembly.objective.normalize
    test = None
    if indices := assembly.splits["test"]:
        size, seed = assembly.val.batch_size, recipe.seed
        batches = BatchLoader(assembly.prepared, indices, batch_size=size, seed=seed, order="in_order")
        test = Loader(batches, normalize)
    return Loaders(Loader(assembly.train, normalize), Loader(assembly.val, normalize), test)
