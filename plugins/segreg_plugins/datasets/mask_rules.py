"""Which task and which reading of mask values the settings `classes`, `foreground` and `ignore_index` mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from segreg.errors import SegregError
from segreg.task import Task
from segreg_plugins.datasets.masks import Foreground, read_binary_mask, read_index_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.registry.protocols import Sample


@dataclass(frozen=True)
class MaskRules:
    """What a data set of mask files passes on to segreg: the task, how a mask is read, and its description."""

    task: Task
    read_mask: Callable[[Sample], NDArray[np.uint8]]
    reader: str


def mask_rules(classes: tuple[str, ...], foreground: Foreground, ignore_index: int | None) -> MaskRules:
    """Return the rules: one class is the foreground of binary masks, several are those of the values 0, 1, 2 ...

    Raises:
        SegregError: the settings contradict each other.
    """
    if len(classes) == 1:
        if ignore_index == 0:
            raise SegregError("ignore_index: 0 is the background of a binary mask; ignoring it leaves nothing to learn")
        return MaskRules(
            Task(classes, "binary"),
            partial(read_binary_mask, foreground=foreground, ignore=ignore_index),
            f"binary, foreground {foreground}, ignored {ignore_index}",
        )
    if foreground != "auto":
        raise SegregError(f"foreground: {foreground} is for one class, and {len(classes)} are named")
    if ignore_index is not None and ignore_index < len(classes):
        raise SegregError(
            f'ignore_index: {ignore_index} is the number of the class "{classes[ignore_index]}"',
            hint="the first class has the number 0",
        )
    return MaskRules(
        Task(classes, "multiclass"),
        partial(read_index_mask, classes=len(classes), ignore=ignore_index),
        f"{len(classes)} classes, ignored {ignore_index}",
    )
