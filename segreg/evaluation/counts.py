"""The one counter of pixels: each image's confusion matrices, the TP, FP, FN and TN of its classes, and `counts.csv`.

`sums.npz` has the sums of metrics that don't follow from these counts.

Pooled scores of any choice of images follow from both, which is what intervals and tests of pooled scores need.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segreg.errors import SegregError
from segreg.runtime.files import replacing, write_text
from segreg.runtime.output import csv_text, read_csv
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from segreg.task import Task

TP, FP, FN, TN = range(4)
"""The places of the numbers in the last dimension of counts."""
COLUMNS = ("id", "class", "tp", "fp", "fn", "tn")
"""Of `counts.csv`."""


class PixelCounts(NamedTuple):
    """The pixels of a batch, counted.

    Attributes:
        confusion: int64 `[B, G, L, L]`, each image's confusion matrices, true labels in rows and predicted ones in
            columns; G and L are those of `matrix_layout`. Ignored pixels are in none of them.
        unknown: int64 scalar, how many pixels carry labels that the task does not have.
    """

    confusion: Tensor
    unknown: Tensor


def matrix_layout(task: Task) -> tuple[int, int]:
    """Return how many confusion matrices a task has, and of how many labels: 2 x 2 for each class if not multiclass."""
    return (1, task.channels) if task.mode == "multiclass" else (task.channels, 2)


def check_shapes(task: Task, logits: Tensor, target: Tensor) -> None:
    """Refuse logits and a target that are not of the same pixels, or not of the task.

    Raises:
        SegregError: the shapes do not match.
    """
    expected = logits.shape if task.mode == "multilabel" else (logits.shape[0], *logits.shape[2:])
    if logits.shape[1] != task.channels or tuple(target.shape) != tuple(expected):
        raise SegregError(
            f"logits {list(logits.shape)} and target {list(target.shape)} do not match in a {task.mode} task "
            f"of {len(task.classes)} classes"
        )


def count_pixels(task: Task, logits: Tensor, target: Tensor, threshold: float) -> PixelCounts:
    """Count the pixels of each image by true and predicted label, without waiting for the device.

    Args:
        task: any task.
        logits: `[B, K, H, W]`.
        target: as described in `Task`; 255 is ignored.
        threshold: probability from which a pixel is foreground (binary and multilabel).

    Raises:
        SegregError: the shapes do not match.
    """
    import torch

    check_shapes(task, logits, target)
    predicted = task.labels(logits, threshold=threshold)
    images, pixels = target.shape[0], target.shape[-2] * target.shape[-1]
    groups, labels = matrix_layout(task)
    # A row for every label from -1 to 256, so that ignored and impossible ones need no mask. Int32 keys are fastest.
    rows = IGNORE_INDEX + 3
    truth = target.to(torch.int32).clamp(-1, IGNORE_INDEX + 1).reshape(images, groups, pixels)
    matrix = torch.arange(images * groups, dtype=torch.int32, device=target.device).view(images, groups, 1)
    keys = (matrix * rows + 1 + truth) * labels + predicted.reshape(images, groups, pixels).to(torch.int32)
    found = torch.zeros(images * groups * rows * labels, dtype=torch.int64, device=target.device)
    found = add_ones(found, keys).view(images, groups, rows, labels)
    known = found[:, :, 1 : labels + 1]
    return PixelCounts(known, found.sum() - known.sum() - found[:, :, IGNORE_INDEX + 1].sum())


def add_ones(numbers: Tensor, places: Tensor) -> Tensor:
    """Add 1 to `numbers` `[N]` at every place, as often as the place occurs, and return them."""
    # Not torch.bincount, which waits for the device to learn the largest place.
    return numbers.index_add_(0, places.flatten(), numbers.new_ones(()).expand(places.numel()))


def class_counts(task: Task, confusion: Tensor) -> Tensor:
    """Return each class's true positives, false positives, false negatives and true negatives.

    Shape: int64 `[..., G, L, L]` to int64 `[..., K, 4]`. A multiclass pixel is counted once for each class.
    """
    import torch

    if task.mode != "multiclass":
        tn, fp, fn, tp = confusion.flatten(-2).unbind(-1)
        return torch.stack([tp, fp, fn, tn], dim=-1)
    matrix = confusion[..., 0, :, :]
    tp = matrix.diagonal(dim1=-2, dim2=-1)
    fp, fn = matrix.sum(-2) - tp, matrix.sum(-1) - tp
    return torch.stack([tp, fp, fn, matrix.sum((-2, -1)).unsqueeze(-1) - tp - fp - fn], dim=-1)


def image_counts(task: Task, logits: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Return each image's counts, int64 `[B, K, 4]`; those of several images together are their sum.

    Raises:
        SegregError: the shapes do not match.
    """
    return class_counts(task, count_pixels(task, logits, target, threshold).confusion)


def write_counts(file: Path, ids: Sequence[str], classes: Sequence[str], counts: NDArray[np.int64]) -> None:
    """Write a row for each class of each image.

    Args:
        file: the CSV file to write.
        ids: of the N images.
        classes: names of the K classes.
        counts: int64 `[N, K, 4]`, as `class_counts` returns them.
    """
    rows = (
        [identity, name, *numbers]
        for identity, image in zip(ids, counts.tolist(), strict=True)
        for name, numbers in zip(classes, image, strict=True)
    )
    write_text(file, csv_text(COLUMNS, rows))


def read_counts(file: Path) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Return the ids, class names and counts that `write_counts` wrote.

    Raises:
        SegregError: the file is not as it was written.
    """
    import numpy as np

    try:
        header, rows = read_csv(file)
        if tuple(header) != COLUMNS:
            raise ValueError
        ids = list(dict.fromkeys(row[0] for row in rows))
        classes = list(dict.fromkeys(row[1] for row in rows))
        numbers = np.array([[int(number) for number in row[2:]] for row in rows], np.int64)
        if [row[:2] for row in rows] != [[identity, name] for identity in ids for name in classes]:
            raise ValueError
        return ids, classes, numbers.reshape(len(ids), len(classes), 4)
    except (IndexError, ValueError):
        hint = "each image has a row for each class, in one order; segreg writes it when a run ends"
        raise SegregError(f"{file} does not hold the counts of images", hint=hint) from None


def write_sums(file: Path, ids: Sequence[str], sums: Mapping[str, NDArray[Any]]) -> None:
    """Write what each image adds to the pooled values of metrics with `sums`; without any the file is removed.

    Args:
        file: the NumPy archive to write: `ids`, and for each metric `sums.NAME`.
        ids: of the N images.
        sums: by a metric's name `[N, ...]`.
    """
    import numpy as np

    if not sums:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as aside, aside.open("wb") as archive:
        arrays: dict[str, Any] = {f"sums.{name}": each for name, each in sums.items()}
        np.savez(archive, ids=np.array(ids, np.str_), **arrays)


def read_sums(file: Path) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Return the ids and sums that `write_sums` wrote.

    Raises:
        SegregError: the file is not as it was written.
    """
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as archive:
            ids = [str(identity) for identity in archive["ids"]]
            names = [name for name in archive.files if name.startswith("sums.")]
            sums = {name.removeprefix("sums."): archive[name] for name in names}
        if any(len(each) != len(ids) for each in sums.values()):
            raise ValueError
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        hint = "segreg writes it when a run ends"
        raise SegregError(f"{file} does not hold the sums of images", hint=hint) from None
    return ids, sums
