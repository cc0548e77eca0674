"""How recipes ask for augmentations that mix the images of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

from segreg.errors import SegregError, did_you_mean, listed
from segreg.settings import PositiveFloat

if TYPE_CHECKING:
    from segreg.registry.protocols import BatchAugmentation
    from segreg.task import Task

Probability = Annotated[float, Interval(gt=0, le=1)]


def mixup(task: Task, *, alpha: PositiveFloat = 0.2, probability: Probability = 0.5) -> BatchAugmentation:  # noqa: ARG001
    """Weighted means of two images, whose loss is the same mean of the losses by either truth.

    Args:
        alpha: both parameters of the beta distribution that the first image's weight is drawn from; at 1 every weight
            is as likely, below it most are near 0 or 1.
        probability: how often a batch is mixed.
    """
    from segreg_plugins.augmentations.mixing import MixUp, Sometimes

    return Sometimes(probability, MixUp(alpha))


def cutmix(task: Task, *, alpha: PositiveFloat = 1.0, probability: Probability = 0.5) -> BatchAugmentation:
    """A box of each image, and of its mask, from another image of the batch.

    Args:
        alpha: both parameters of the beta distribution that the share of the own image is drawn from; at 1 every size
            of the box is as likely.
        probability: how often a batch is mixed.
    """
    from segreg_plugins.augmentations.mixing import CutMix, Sometimes

    return Sometimes(probability, CutMix(task, alpha))


def classmix(task: Task, *, probability: Probability = 0.5) -> BatchAugmentation:
    """The pixels of half of the classes that another image of the batch shows, pasted with their labels.

    Args:
        probability: how often a batch is mixed.
    """
    from segreg_plugins.augmentations.mixing import ClassMix, Sometimes

    return Sometimes(probability, ClassMix(task))


def copy_paste(task: Task, *, classes: tuple[str, ...] = (), probability: Probability = 0.5) -> BatchAugmentation:
    """All pixels of some classes of another image of the batch, pasted with their labels.

    Args:
        classes: names of the classes that are pasted; all but one called background where none is given.
        probability: how often a batch is mixed.

    Raises:
        SegregError: the task has no such class, or none but the background.
    """
    chosen = classes or tuple(name for name in task.classes if name.lower() != "background")
    for name in chosen:
        if name not in task.classes:
            hint = f"{did_you_mean(name, task.classes)} the classes are {listed(task.classes)}".strip()
            raise SegregError(f'"{name}" is not a class of this {task.mode} task', hint=hint)
    if not chosen:
        raise SegregError("copy_paste has no class to paste but the background", hint="name one in classes")

    from segreg_plugins.augmentations.mixing import CopyPaste, Sometimes

    return Sometimes(probability, CopyPaste(task, [task.classes.index(name) for name in chosen]))
