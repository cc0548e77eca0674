"""Settings that speak of a task's classes and modes, checked: weights, classes left out, modes a loss can't serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segreg.errors import SegregError, did_you_mean, listed

if TYPE_CHECKING:
    from segreg.task import Task


def kept_classes(task: Task, exclude: Sequence[str]) -> tuple[bool, ...]:
    """Return for each class, in index order, whether it takes part.

    Raises:
        SegregError: a name that the task does not have, or no class is kept.
    """
    for name in exclude:
        if name not in task.classes:
            guess = did_you_mean(name, task.classes)
            raise SegregError(
                f'exclude names "{name}", which is not a class of this {task.mode} task',
                hint=" ".join(filter(None, (guess, f"the classes are {listed(task.classes)}"))),
            )
    if len(set(exclude)) == len(task.classes):
        raise SegregError("exclude names every class, so that none is left", hint="leave at least one class in")
    return tuple(name not in exclude for name in task.classes)


def one_each(task: Task, setting: str, numbers: Sequence[float] | None) -> tuple[float, ...]:
    """Return `numbers` if there is one for each class, and ones for None.

    Raises:
        SegregError: there are more or fewer, or all are 0.
    """
    if numbers is None:
        return (1.0,) * len(task.classes)
    if len(numbers) != len(task.classes):
        raise SegregError(
            f"{setting} has {len(numbers)} numbers, but the task has {len(task.classes)} classes",
            hint=f"give one for each, in this order: {listed(task.classes)}",
        )
    if not any(numbers):
        raise SegregError(f"{setting} is 0 for every class, so that the loss is always 0")
    return tuple(numbers)


def refuse(task: Task, modes: Sequence[str], subject: str, hint: str) -> None:
    """Refuse a task of one of `modes`.

    Raises:
        SegregError: the task's mode is one of them.
    """
    if task.mode in modes:
        raise SegregError(f"{subject} does not serve a {task.mode} task", hint=hint)
