"""Clean labels: regions that are too small are dropped, and small holes are filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segreg.errors import SegregError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.task import Task


@dataclass(frozen=True)
class Cleaning:
    """What is cleaned. A region's pixels touch at edges or corners, a hole's at edges.

    Attributes:
        min_area: regions of fewer pixels become background; 0 drops none.
        fill_holes: holes of fewer pixels are filled; 0 fills none.

    Raises:
        SegregError: one of them is below 0.
    """

    min_area: int = 0
    fill_holes: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise SegregError(f"{name} must be a number of pixels, 0 at least, not {value}")

    def __bool__(self) -> bool:
        return bool(self.min_area or self.fill_holes)

    def check(self, task: Task) -> None:
        """Refuse classes of which none is the background.

        Raises:
            SegregError: the classes exclude each other, and the first is not called background.
        """
        if self and task.mode == "multiclass" and task.classes[0].lower() != "background":
            raise SegregError(
                f'small regions become background and holes are of it, and the first class is "{task.classes[0]}"',
                hint='of classes that exclude each other the first must be called "background"',
            )


def clean(labels: NDArray[np.uint8], task: Task, cleaning: Cleaning) -> NDArray[np.uint8]:
    """Return labels without small regions, and then without small holes; each layer for itself if multilabel.

    A hole is a region of the background that does not touch the image's edge and that one class alone surrounds.

    Shape: uint8 `[H, W]`, or `[K, H, W]` if multilabel, to the same.

    Raises:
        SegregError: no class is the background.
    """
    cleaning.check(task)
    cleaned = labels.copy()
    for layer in cleaned if task.mode == "multilabel" else cleaned[None]:
        if cleaning.min_area:
            _drop(layer, cleaning.min_area)
        if cleaning.fill_holes:
            _fill(layer, cleaning.fill_holes)
    return cleaned


def _drop(labels: NDArray[np.uint8], area: int) -> None:
    import cv2
    import numpy as np

    for label in np.unique(labels):
        if label:
            _, regions, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=8)
            small = stats[:, cv2.CC_STAT_AREA] < area
            small[0] = False  # all that is not of this class
            labels[small[regions]] = 0


def _fill(labels: NDArray[np.uint8], area: int) -> None:
    import cv2
    import numpy as np

    _, regions, stats, _ = cv2.connectedComponentsWithStats((labels == 0).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < area
    small[0] = False
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        small[edge] = False
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for number in np.flatnonzero(small):
        left, top, width, height = stats[number, :4]
        window = slice(top - 1, top + height + 1), slice(left - 1, left + width + 1)
        hole = regions[window] == number
        around = cv2.dilate(hole.astype(np.uint8), cross).astype(bool) & ~hole
        classes = np.unique(labels[window][around])
        if len(classes) == 1:
            labels[window][hole] = classes[0]
