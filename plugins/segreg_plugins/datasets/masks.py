"""What the values of a mask file mean: foreground, a class's number, or nothing that counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError
from segreg.task import IGNORE_INDEX
from segreg_plugins.datasets.mask_files import first_bytes, lossy_format, read_values
from segreg_plugins.datasets.mask_values import ValueTable, described, value_counts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.registry.protocols import Sample

Foreground = Literal["auto", "nonzero", "above_127"]


def read_image(sample: Sample) -> NDArray[np.uint8 | np.uint16 | np.float32]:
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
    sample: Sample,
    *,
    foreground: Foreground = "auto",
    ignore: int | None = None,
    read: Callable[[Path], NDArray[Any]] = read_values,
) -> NDArray[np.uint8]:
    """Return `[H, W]`, uint8: 1 is foreground, 0 is not, 255 is ignored.

    Raises:
        SegregError: the mask can't be read, or holds values that `foreground` has no rule for.
    """
    file = _mask_of(sample)
    if foreground == "nonzero":
        _refuse_lossy(file, "foreground: above_127 takes a mask of 0 and 255 with damaged edges")
    values = _whole(read(file), file)
    import numpy as np

    ignored = values == ignore if ignore is not None else np.zeros(values.shape, np.bool_)
    match foreground:
        case "nonzero":
            chosen = values != 0
        case "above_127":
            chosen = values > 127
        case "auto":
            chosen = values != 0
            found = list(value_counts(values[~ignored]))
            if not (set(found) <= {0, 1} or set(found) <= {0, 255}):
                raise _not_binary(sample.mask, found)
    chosen = chosen.astype(np.uint8)
    chosen[ignored] = IGNORE_INDEX
    return chosen


def read_index_mask(
    sample: Sample,
    *,
    classes: int,
    ignore: int | None = None,
    read: Callable[[Path], NDArray[Any]] = read_values,
    indices: bool = False,
) -> NDArray[np.uint8]:
    """Return `[H, W]`, uint8: the classes' numbers from 0, 255 where ignored.

    `ignore` is the file's value for pixels that count for nothing; 255 where it is None. `indices` says that a GIF's
    indices are class numbers.

    Raises:
        SegregError: the mask can't be read, its format doesn't keep class numbers, or it holds a value that is neither
            a class's number nor ignored.
    """
    file = _mask_of(sample)
    _refuse_lossy(file)
    if not indices:
        _refuse_gif(file)
    values = _whole(read(file), file)
    import numpy as np

    found = list(value_counts(values))
    ignored_value = IGNORE_INDEX if ignore is None else ignore
    strange = [value for value in found if not 0 <= value < classes and value != ignored_value]
    if strange:
        raise SegregError(
            f"{sample.mask}: holds {described(strange)}, and {classes} classes have the numbers 0 to {classes - 1} "
            f"({ignored_value} is ignored)",
            hint=f"its values are {described(found)}; name all classes, or set ignore_index to the value that counts "
            "for nothing",
        )
    if ignore is None and classes == 2 and IGNORE_INDEX in found and 1 not in found:
        raise SegregError(
            f"{sample.mask}: holds only {described(found)}; with two classes, 255 may be the foreground or ignored",
            hint="name one class, the foreground, if 255 is the foreground; set ignore_index: 255 if it is ignored",
        )
    return np.where(values == ignored_value, IGNORE_INDEX, values).astype(np.uint8)


def read_valued_mask(
    sample: Sample, *, table: ValueTable, read: Callable[[Path], NDArray[Any]], indices: bool = False
) -> NDArray[np.uint8]:
    """Return `[H, W]`, uint8: the labels that `table` gives a mask's values or colours, as `read` returns them.

    Raises:
        SegregError: the mask can't be read, its format doesn't keep its values, or it holds one that has no class.
    """
    file = _mask_of(sample)
    _refuse_lossy(file)
    if not indices and not table.colours:
        _refuse_gif(file)
    return table.labels_of(read(file), file)


def _mask_of(sample: Sample) -> Path:
    if sample.mask is None:
        raise SegregError(f"{sample.image}: has no mask")
    return sample.mask


def _refuse_lossy(file: Path, way_out: str = "") -> None:
    if name := lossy_format(file):
        what = name if name.startswith("a ") else f"a {name}"
        hint = "save the masks as PNG, from where they were drawn: what the format changed can't be undone"
        raise SegregError(
            f"{file}: is {what}, which stores values near those of the mask, and so those of other classes",
            hint="\n".join(filter(None, (hint, way_out))),
        )


def _refuse_gif(file: Path) -> None:
    if first_bytes(file).startswith(b"GIF8"):
        raise SegregError(
            f"{file}: is a GIF, whose encoder may give the colours other indices in each file",
            hint="save the masks as PNG, or name the classes by colour in values\n"
            "set palette: indices if the indices are the class numbers nevertheless",
        )


def _whole(values: NDArray[Any], file: Path) -> NDArray[Any]:
    """Return a mask's values as integers."""
    import numpy as np

    if values.dtype.kind != "f":
        return values
    if not (np.isfinite(values).all() and np.array_equal(values, np.round(values)) and np.abs(values).max() < 2**31):
        raise SegregError(
            f"{file}: holds fractions, and a mask's values are class numbers",
            hint="save it with 8-bit class numbers, or set values to what they mean",
        )
    return values.astype(np.int64)


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
        f"{path}: holds {described(found)}, and a mask of one class holds 0 and 1, or 0 and 255",
        hint="\n".join(ways),
    )
