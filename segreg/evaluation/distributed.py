"""Scoring in several processes, each with its share of the images: the results are those of one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError
from segreg.runtime import distributed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torchmetrics import MetricCollection

    Block = NDArray[Any] | None


def disable_sync(metrics: MetricCollection) -> MetricCollection:
    """Return metrics that each process computes by itself: torchmetrics' own exchange wants equal states everywhere."""
    if distributed.count() > 1:
        for metric in metrics.values(copy_state=False):
            metric.distributed_available_fn = _never
    return metrics


def _never() -> bool:  # a lambda could not be pickled
    return False


def compute(metrics: MetricCollection) -> dict[str, float]:
    """Return every metric's values by their names. One sync for each.

    Raises:
        SegregError: a metric returns something other than named numbers.
    """
    values = metrics.compute()
    for name, value in values.items():
        if value.numel() != 1:
            raise SegregError(f'the metric "{name}" returns {value.numel()} numbers at once; give each a name')
    return {name: float(value) for name, value in values.items()}


def compute_over_processes(metrics: MetricCollection) -> dict[str, float]:
    """Return every metric's values over the images of all processes. The main one's metrics then hold all counts.

    Raises:
        SegregError: a metric returns something other than named numbers, or can't merge the state of another process.
    """
    if distributed.count() == 1:
        return compute(metrics)
    own = {name: _moved(metric.metric_state, "cpu") for name, metric in metrics.items(copy_state=False)}
    states = distributed.gathered(own)
    if distributed.is_main():
        for name, metric in metrics.items(copy_state=False):
            for state in states[1:]:
                try:
                    metric.merge_state(_moved(state[name], metric.device))
                except RuntimeError as error:
                    raise SegregError(
                        f'the metric "{name}" can\'t merge the state of another process',
                        hint="torchmetrics asks for full_state_update = False, or for a merge_state of its own; "
                        "a single process can score it",
                    ) from error
    return distributed.from_main(lambda: compute(metrics))


def _moved(state: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """Return a metric's state on a device."""

    def moved(value: Any) -> Any:
        return [moved(each) for each in value] if isinstance(value, (list, tuple)) else value.to(device)

    return {name: moved(value) for name, value in state.items()}


def in_batch_order(
    lengths: Sequence[int], rows: list[dict[str, Any]], blocks: Mapping[str, Block]
) -> tuple[list[dict[str, Any]], dict[str, Block]]:
    """Return the results of all processes in the images' order, where the processes took the batches in turn.

    Args:
        lengths: of this process's batches.
        rows: one for each image of this process.
        blocks: by name an array `[N, ...]` with an entry for each image, or None.
    """
    if distributed.count() == 1:
        return rows, dict(blocks)
    found = distributed.gathered((list(lengths), rows, dict(blocks)))
    lengths_of = [each[0] for each in found]
    turns = [(turn, rank) for turn in range(max(map(len, lengths_of))) for rank in range(len(found))]
    turns = [(turn, rank) for turn, rank in turns if turn < len(lengths_of[rank])]
    ends = [list(accumulate(each)) for each in lengths_of]

    def slices(of: Sequence[Any]) -> list[Any]:
        return [of[rank][ends[rank][turn] - lengths_of[rank][turn] : ends[rank][turn]] for turn, rank in turns]

    def joined(of: Sequence[Block]) -> Block:
        import numpy as np

        return None if of[0] is None else np.concatenate(slices(of))

    in_turn = [row for rows_of_batch in slices([each[1] for each in found]) for row in rows_of_batch]
    return in_turn, {name: joined([each[2][name] for each in found]) for name in blocks}
