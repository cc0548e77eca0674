"""What the values of a mask file mean: foreground, a class's number, or nothing that counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.registry.protocols import Sample

Foreground = Literal["auto", "nonzero", "above_127"]


def read_image(sample: Sample) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return a sample's image as its file has it."""
    from segreg.data.images import read_image as read

    return read(sample.image)


def upright_size(path: Path) -> tuple[int, int]:
    """Return an image's height and width as it is read, from a JPEG's header and from the pixels of all else."""
    from PIL import Image, UnidentifiedImageError

    from segreg.data.images import read_image as read

    try:
        with Image.open(path, formats=("JPEG",)) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (width, height) if turned else (height, width)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        height, width = read(path).shape[:2]  # tells what is wrong where something is
        return height, width


def read_binary_mask(
    sample: Sample, *, foreground: Foreground = "auto", ignore: int | None = None
) -> NDArray[np.uint8]:
    """Return `[H, W]`, uint8: 1 is foreground, 0 is not, 255 is ignored.

    Raises:
        SegregError: the mask can't be read, or holds values that `foreground` has no rule for.
    """
    values = _labels(sample)
    import numpy as np

    ignored = values == ignore if ignore is not None else np.zeros(values.shape, np.bool_)
    match foreground:
        case "nonzero":
            chosen = values != 0
        case "above_127":
            chosen = values > 127
        case "auto":
            chosen = values != 0
            found = _distinct(values[~ignored])
            if not (set(found) <= {0, 1} or set(found) <= {0, 255}):
                raise _not_binary(sample.mask, found)
    chosen = chosen.astype(np.uint8)
    chosen[ignored] = IGNORE_INDEX
    return chosen


def read_index_mask(sample: Sample, *, classes: int, ignore: int | None = None) -> NDArray[np.uint8]:
    """Return `[H, W]`, uint8: the classes' numbers from 0, 255 where ignored.

    `ignore` is the file's value for pixels that count for nothing; 255 where it is None.

    Raises:
        SegregError: the mask can't be read, or holds a value that is neither a class's number nor ignored.
    """
    values = _labels(sample)
    import numpy as np

    found = _distinct(values)
    ignored_value = IGNORE_INDEX if ignore is None else ignore
    strange = [value for value in found if not 0 <= value < classes and value != ignored_value]
    if strange:
        raise SegregError(
            f"{sample.mask}: holds {_values(strange)}, and {classes} classes have the numbers 0 to {classes - 1} "
            f"({ignored_value} is ignored)",
            hint=f"its values are {_values(found)}; name all classes, or set ignore_index to the value that counts "
            "for nothing",
        )
    if ignore is None and classes == 2 and IGNORE_INDEX in found and 1 not in found:
        raise SegregError(
            f"{sample.mask}: holds only {_values(found)}; with two classes, 255 may be the foreground or ignored",
            hint="name one class, the foreground, if 255 is the foreground; set ignore_index: 255 if it is ignored",
        )
    return np.where(values == ignored_value, IGNORE_INDEX, values).astype(np.uint8)


def _labels(sample: Sample) -> NDArray[Any]:
    if sample.mask is None:
        raise SegregError(f"{sample.image}: has no mask")
    from segreg.data.images import read_labels

    return read_labels(sample.mask)


def _distinct(values: NDArray[Any]) -> list[int]:
    """Return the values that occur, in order."""
    import numpy as np

    if values.dtype in (np.uint8, np.uint16):  # many times faster than sorting
        return [int(value) for value in np.flatnonzero(np.bincount(values.ravel()))]
    return [int(value) for value in np.unique(values)]


def _not_binary(path: Path | None, found: list[int]) -> SegregError:
    soft = len(found) > 2 and found[-1] <= 255 and found[0] == 0 and found[-1] > 200
    ways = [
        "set foreground: nonzero if every value but 0 is foreground (numbered instances)",
        "set foreground: above_127 if it is a grey mask with soft or JPEG-damaged edges",
        "name several classes if its values are class numbers",
        "set ignore_index if one of its values counts for nothing",
    ]
    if soft:
        ways[:2] = ways[1::-1]
    return SegregError(
        f"{path}: holds {_values(found)}, and a mask of one class holds 0 and 1, or 0 and 255",
        hint="\n".join(ways),
    )


def _values(values: list[int]) -> str:
    """Return "the value 7", "the values 0, 1 and 7", or the first of many and the last."""
    if len(values) == 1:
        return f"the value {values[0]}"
    if len(values) <= 8:
        return f"the values {', '.join(str(v) for v in values[:-1])} and {values[-1]}"
    return f"{len(values)} values ({', '.join(str(v) for v in values[:5])}, ... {values[-1]})"
