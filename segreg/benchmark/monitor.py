"""The value that chooses a run's best epoch, before the run: whether it is a loss, and which direction is better."""

from __future__ import annotations

from segreg.config.resolve import Resolved
from segreg.errors import SegregError


def is_loss(monitor: str) -> bool:
    """Whether a value is the loss, or a term of it."""
    return monitor.partition(".")[2].partition(".")[0] == "loss"


def larger_is_better(recipe: Resolved) -> bool:
    """Whether a larger value of the monitored one is better.

    Raises:
        SegregError: no metric of the recipe has that name, or it has no direction.
    """
    from segreg.models import build

    if is_loss(recipe.train.monitor):
        return False
    metrics = build.build_metrics(recipe, build.build_dataset(recipe).task)
    name = recipe.train.monitor.removeprefix("val.")
    metric = next((m for n, m in metrics.items(copy_state=False) if name == n or name.startswith(f"{n}.")), None)
    if metric is None:
        raise SegregError(
            f'train.monitor is "{recipe.train.monitor}", and no metric of evaluate.metrics gives it',
            hint=f"those are {', '.join(metrics.keys(keep_base=True))}",
        )
    if metric.higher_is_better is None:
        problem = f'train.monitor: "{recipe.train.monitor}" does not say whether larger is better'
        raise SegregError(problem, hint="a metric declares it with its attribute higher_is_better")
    return bool(metric.higher_is_better)
