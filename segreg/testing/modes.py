"""What losses and metrics share: the modes of a task that a part serves, and those that it refuses with a message."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from segreg.errors import SegregError, listed
from segreg.task import Task
from segreg.testing import inputs
from segreg.testing.subject import Broken, NotChecked, Subject, doing, raised

THRESHOLD = 0.5
"""The threshold that metrics are built with."""


def build_for(subject: Subject, task: Task, threshold: float = THRESHOLD) -> Any:
    """Build the part for a task; whatever its builder raises is passed on."""
    return subject.build(task, threshold) if subject.part.kind == "metric" else subject.build(task)


def served(subject: Subject, threshold: float = THRESHOLD) -> Iterator[tuple[Task, Any]]:
    """Return each task that the part serves, with the part built for it, a metric with this threshold.

    Raises:
        NotChecked: it can't be built for any.
    """
    subject.needs_nothing()
    some = False
    for task in inputs.TASKS.values():
        try:
            part = build_for(subject, task, threshold)
        except Exception:  # noqa: S112 - it_can_be_built reports it
            continue
        some = True
        yield task, part
    if not some:
        raise NotChecked("it can't be built for any task, see it_can_be_built")


def on_each_task(check: Callable[[Task, Any], None]) -> Callable[[Subject], None]:
    """Make a check of a part from one of what it gives for a task: each task that it serves, named where it fails."""

    @functools.wraps(check)
    def run(subject: Subject) -> None:
        for task, part in served(subject):
            with doing(f"on a {task.mode} task"):
                try:
                    check(task, part)
                except Broken as error:
                    raise Broken(f"on a {task.mode} task {error}", at=error.at) from error

    return run


@on_each_task
def it_leaves_its_inputs_alone(task: Task, part: Any) -> None:
    """Logits and target are the same before and after."""
    target = inputs.truth(task, ignored=True)
    logits = torch.randn_like(inputs.answers(task, target, 1.0))
    before = logits.clone(), target.clone()
    part.update(logits, target) if hasattr(part, "update") else part(logits, target)
    for name, old, new in (("logits", before[0], logits), ("target", before[1], target)):
        if not torch.equal(old, new):
            raise Broken(f"it changes the {name} in place")


def shape_of(value: Any) -> str:
    """Return a tensor's shape, or the type of what is not a tensor."""
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def try_every_mode(subject: Subject) -> dict[str, Any]:
    """Return what is built for each mode that the part serves.

    Raises:
        NotChecked: settings are missing, or its defaults are refused for every mode.
        Broken: it refuses a mode with something else than a SegregError, or serves none.
    """
    subject.needs_nothing()
    found: dict[str, Any] = {}
    refusals: list[SegregError] = []
    failures: dict[str, Exception] = {}
    for mode, task in inputs.TASKS.items():
        try:
            found[mode] = build_for(subject, task)
        except SegregError as error:
            refusals.append(error)
        except Exception as error:
            failures[mode] = error
    if failures:
        mode, failure = next(iter(failures.items()))
        others = "; a mode that it does not serve is refused with a SegregError" if found or refusals else ""
        raise Broken(f"its builder raises {raised(failure)} for a {mode} task{others}") from failure
    if not found:
        problem = f"it serves no task of {listed(list(inputs.TASKS))}: {refusals[-1]}"
        if subject.given:
            raise Broken(problem) from refusals[-1]
        raise NotChecked(f"{problem}; give settings")
    return found
