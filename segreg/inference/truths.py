"""Which true mask belongs to which image that is predicted, and the labels that it holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segreg.data.images import read_labels
from segreg.errors import SegregError, listed
from segreg.inference.inputs import Named, in_folder, without_extension
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.task import Task


@dataclass(frozen=True)
class Truths:
    """The true masks of images.

    Attributes:
        folder: where they are.
        files: the mask of each image that has one, by the image's name.
        task: the classes.
        ignored: value of pixels that count for nothing; None: 255 with several classes, none with one.
    """

    folder: Path
    files: Mapping[str, Path]
    task: Task
    ignored: int | None = None

    def read(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return a image's true labels, uint8 `[H, W]`, where 255 is ignored; None if it has no mask.

        A mask of one class holds 0 and 1, or 0 and 255; one of several holds class numbers.

        Args:
            name: the image's.
            size: the image's height and width.

        Raises:
            SegregError: the mask can't be read, has another size, or holds a value that is not a class; it is named.
        """
        file = self.files.get(name)
        if file is None:
            return None
        labels = read_labels(file)
        if labels.shape != size:
            raise SegregError(
                f"{file}: is {labels.shape[0]}x{labels.shape[1]} (height x width), but its image is {size[0]}x{size[1]}"
            )
        binary = self.task.mode == "binary"
        out = labels == (IGNORE_INDEX if self.ignored is None and not binary else self.ignored)
        values = set(np.unique(labels[~out]).tolist())
        if binary and values <= {0, 255}:
            labels = labels == 255
        elif not values <= set(range(len(self.task.classes) + binary)):
            strange = listed([str(v) for v in sorted(values) if v not in range(len(self.task.classes) + binary)],
                             quote="", most=5)  # fmt: skip
            expected = "0 and 1, or 0 and 255" if binary else f"0 to {len(self.task.classes) - 1}"
            raise SegregError(
                f"{file}: holds {strange}; a mask of this run's classes holds {expected}",
                hint="--mask-ignored names a value that counts for nothing",
            )
        return np.where(out, IGNORE_INDEX, labels).astype(np.uint8)


def find_truths(
    images: Sequence[Named], folder: Path, task: Task, *, suffix: str = "", ignored: int | None = None
) -> Truths:
    """Return the masks of images: the mask of `sub/a.b.jpg` is `sub/a.b.png`, or `a.b.png` wherever it lies
    where no other image has that name.

    Only the last dot parts the extension, and upper and lower case must be the same, as where images and masks of a
    data set are paired.

    Args:
        images: what is predicted.
        folder: holds masks, and folders of masks.
        task: the classes.
        suffix: ending of the masks' names, before the extension, that the images' names don't have.
        ignored: value of pixels that count for nothing; None: 255 with several classes, none with one.

    Raises:
        SegregError: classes may overlap, so that a mask can't hold them; there is no folder; no image has a mask; or
            several masks would be one image's.
    """
    if task.mode == "multilabel":
        raise SegregError("the classes of this run may overlap, and a mask with one value a pixel can't say so")
    if not folder.is_dir():
        raise SegregError(f"{folder} is not a folder of masks")
    by_path: dict[str, list[Path]] = defaultdict(list)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for file in in_folder(folder):
        name = without_extension(file.relative_to(folder).as_posix())
        if name.endswith(suffix):
            by_path[name.removesuffix(suffix)].append(file)
            by_stem[name.removesuffix(suffix).rpartition("/")[2]].append(file)
    files: dict[str, Path] = {}
    stems = Counter(image.name.rpartition("/")[2] for image in images)
    for image in images:
        stem = image.name.rpartition("/")[2]
        # Of images in several folders with one name, each has the mask in the folder of its own or none.
        found = by_path.get(image.name) or (by_stem.get(stem, []) if stems[stem] == 1 else [])
        if len(found) > 1:
            several = listed([str(file) for file in found], quote="", most=3)
            raise SegregError(
                f"the mask of {image.file} may be each of {several}",
                hint="keep one of each, or lay masks in folders of the same names as the images'",
            )
        if found:
            files[image.name] = found[0]
    if not files:
        stem = images[0].name.rpartition("/")[2]
        there = listed([file.name for file in in_folder(folder)], quote="", most=3)
        more = f"; there is {there}" if there else "; it holds no images"
        raise SegregError(
            f"no image has a mask in {folder}",
            hint=f'the mask of {images[0].file} would be named "{stem}{suffix}" and any extension{more}',
        )
    return Truths(folder, files, task, ignored)
