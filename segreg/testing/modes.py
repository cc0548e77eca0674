"""The modes of a task that a loss or a metric serves; those that it does not, it refuses with a message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from segreg.errors import SegregError, listed
from segreg.task import Task
from segreg.testing import drawn
from segreg.testing.building import needs_nothing
from segreg.testing.check import Broken, NotChecked, raised
from segreg.testing.subject import Subject


def served(subject: Subject, *given: Any) -> Iterator[tuple[Task, Any]]:
    """Return each task that the part serves, with the part built for it; `given` follows the task.

    Raises:
        NotChecked: it can't be built for any.
    """
    needs_nothing(subject)
    some = False
    for task in drawn.TASKS.values():
        try:
            part = subject.build(task, *given)
        except Exception:  # noqa: S112 - it_can_be_built tells it
            continue
        some = True
        yield task, part
    if not some:
        raise NotChecked("it can't be built for any task, see it_can_be_built")


def tried_modes(subject: Subject, *given: Any) -> dict[str, Any]:
    """Return what is built for each mode that the part serves.

    Raises:
        NotChecked: settings are missing, or its defaults are refused for every mode.
        Broken: it refuses a mode with something else than a SegregError, or serves none.
    """
    needs_nothing(subject)
    found: dict[str, Any] = {}
    refusals: list[SegregError] = []
    failures: dict[str, Exception] = {}
    for mode, task in drawn.TASKS.items():
        try:
            found[mode] = subject.build(task, *given)
        except SegregError as error:
            refusals.append(error)
        except Exception as error:
            failures[mode] = error
    if failures:
        mode, failure = next(iter(failures.items()))
        others = "; a mode that it does not serve is refused with a SegregError" if found or refusals else ""
        raise Broken(f"its builder raises {raised(failure)} for a {mode} task{others}") from failure
    if not found:
        problem = f"it serves no task of {listed(list(drawn.TASKS))}: {refusals[-1]}"
        if subject.given:
            raise Broken(problem) from refusals[-1]
        raise NotChecked(f"{problem}; give settings")
    return found
