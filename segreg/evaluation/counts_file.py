"""`counts.csv`: how many pixels of each class each image had, found, invented and missed, for statistics afterwards.

Pooled scores of any choice of the images can be computed from it, which is what intervals and tests of pooled scores
need.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.errors import SegregError
from segreg.runtime.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = ("id", "class", "tp", "fp", "fn", "tn")


def write_counts(file: Path, ids: Sequence[str], classes: Sequence[str], counts: NDArray[np.int64]) -> None:
    """Write a row for each class of each image.

    Args:
        file: where to.
        ids: of the N images.
        classes: names of the K classes.
        counts: int64 `[N, K, 4]`: true positives, false positives, false negatives and true negatives.
    """
    with replacing(file) as aside, aside.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for identity, image in zip(ids, counts.tolist(), strict=True):
            writer.writerows([identity, name, *numbers] for name, numbers in zip(classes, image, strict=True))


def read_counts(file: Path) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Return ids, class names and counts as `write_counts` took them.

    Raises:
        SegregError: the file is not as it was written.
    """
    import numpy as np

    with file.open(encoding="utf-8", newline="") as text:
        rows = list(csv.reader(text))
    try:
        if tuple(rows[0]) != COLUMNS:
            raise ValueError
        ids = list(dict.fromkeys(row[0] for row in rows[1:]))
        classes = list(dict.fromkeys(row[1] for row in rows[1:]))
        numbers = np.array([[int(number) for number in row[2:]] for row in rows[1:]], np.int64)
        if [row[:2] for row in rows[1:]] != [[identity, name] for identity in ids for name in classes]:
            raise ValueError
        return ids, classes, numbers.reshape(len(ids), len(classes), 4)
    except (IndexError, ValueError):
        hint = "each image has a row for each class, in one order; segreg writes it when a run ends"
        raise SegregError(f"{file} does not hold the counts of images", hint=hint) from None
