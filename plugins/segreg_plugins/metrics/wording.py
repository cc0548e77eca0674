"""What metrics of several classes have in common: the names of their values, their definitions, and a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segreg.errors import SegregError, listed
from segreg_plugins.metrics.counts import layout

if TYPE_CHECKING:
    from torch import Tensor

    from segreg.task import Task

_END = "ignored pixels left out."


def refuse_strays(task: Task, number: int) -> None:
    """Refuse masks with pixels whose labels the task does not have.

    Raises:
        SegregError: there are such pixels.
    """
    if number:
        raise SegregError(
            f"{number} pixels of the masks carry labels that the task does not have",
            hint=f"a {task.mode} task of {listed(task.classes)} has 0 to {layout(task)[1] - 1} "
            "and 255, which is ignored",
        )


def by_class(task: Task, metric: str, pooled: Tensor, each: Tensor) -> dict[str, Tensor]:
    """Return scalars by their names: `METRIC.pooled` and, of several classes, `METRIC.class.CLASS`."""
    classes = task.classes if len(task.classes) > 1 else ()
    return {f"{metric}.pooled": pooled, **{f"{metric}.class.{name}": each[k] for k, name in enumerate(classes)}}


def definitions_of(
    task: Task, metric: str, kept: Sequence[bool], *, title: str, undefined: str, common: str = "", absent: str = ""
) -> dict[str, str]:
    """Return a sentence for each name that `by_class` gives.

    Args:
        task: the metric's.
        metric: its name.
        kept: for each class whether it takes part in the pooled value.
        title: what is measured, up to " of CLASS".
        undefined: when a class has no value.
        common: how the pooled value is found, if it is not the mean over classes.
        absent: when a class takes no part in the pooled value, if that is not when it has none of its own.
    """
    pixels = "counted over the pixels of all images together"
    rest = " against the rest" if task.mode == "multiclass" else ""
    if len(task.classes) == 1:
        return {f"{metric}.pooled": f'{title} of "{task.classes[0]}", {pixels}; undefined {undefined}; {_END}'}
    out = [name for name, keep in zip(task.classes, kept, strict=True) if not keep]
    which = f"all classes but {listed(out)}" if out else "all classes"
    mean = common or "then the mean"
    found = {
        f"{metric}.pooled": f"{title} of each class{rest}, {pixels}, {mean} over {which}; "
        f"a class {absent or undefined} is left out; {_END}"
    }
    for name in task.classes:
        found[f"{metric}.class.{name}"] = f'{title} of "{name}"{rest}, {pixels}; undefined {undefined}; {_END}'
    return found
