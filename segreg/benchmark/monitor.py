"""Which direction of a value is better, before the run: of the one that chooses its best epoch, and of its scores."""

from __future__ import annotations

from segreg.config.resolve import Resolved
from segreg.models import build
from segreg.training.monitor import check_monitor, directions_without_images, is_loss


def larger_is_better(recipe: Resolved) -> bool:
    """Whether a larger value of the monitored one is better.

    Raises:
        SegregError: no metric of the recipe has that name, or it has no direction.
    """
    if is_loss(recipe.train.monitor):  # which needs no data set
        return False
    task = build.build_dataset(recipe).task
    return check_monitor(recipe.train.monitor, build.build_metrics(recipe, task), task)


def directions_of_scores(recipe: Resolved) -> dict[str, bool | None]:
    """Return whether larger is better, by the full name of each score of a recipe's metrics; None where it is unknown.

    Raises:
        SegregError: the data set can't be read, or a metric can't be built.
    """
    task = build.build_dataset(recipe).task
    return directions_without_images(build.build_metrics(recipe, task), task)
