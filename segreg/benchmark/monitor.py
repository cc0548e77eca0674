"""Which direction of the value that chooses a run's best epoch is better, before the run."""

from __future__ import annotations

from segreg.config.resolve import Resolved
from segreg.training.monitor import check_monitor, is_loss


def larger_is_better(recipe: Resolved) -> bool:
    """Whether a larger value of the monitored one is better.

    Raises:
        SegregError: no metric of the recipe has that name, or it has no direction.
    """
    from segreg.models import build

    if is_loss(recipe.train.monitor):  # which needs no data set
        return False
    task = build.build_dataset(recipe).task
    return check_monitor(recipe.train.monitor, build.build_metrics(recipe, task), task)
