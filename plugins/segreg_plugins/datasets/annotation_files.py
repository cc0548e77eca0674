"""Reading annotation files: checked JSON, paths that stay in the folder that was named, and ids of images."""

from __future__ import annotations

import json
import math
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from segreg.errors import Place, Problem, SegregError, listed
from segreg_plugins.datasets.coco_layout import SPLITS, SplitName
from segreg_plugins.datasets.images import near

MOST_BYTES_OF_AN_IMAGE = 1 << 28
"""The size that an annotation file of one image may have; LabelMe's hold the image itself."""
MOST_BYTES = 1 << 32
MOST_PROBLEMS = 20
"""How many things that are wrong are reported at once."""
FARTHEST = 1e6
"""The largest coordinate, in pixels, that is taken for one."""


def read_text(path: Path, most: int) -> str:
    """Return the text of a UTF-8 file of at most `most` bytes.

    Raises:
        SegregError: it can't be read, is a named pipe or a device, is larger, or is not UTF-8.
    """
    from segreg.data.images import refuse_special

    refuse_special(path)
    try:
        if (size := path.stat().st_size) > most:
            raise SegregError(f"{path}: has {size} bytes, and at most {most} are read")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = near(path) if isinstance(error, FileNotFoundError) else ""
        raise SegregError(f"{path}: can't be read ({error.strerror})", hint=hint) from None
    except UnicodeDecodeError:
        raise SegregError(f"{path}: is not a UTF-8 file") from None


def read_json(path: Path, most: int = MOST_BYTES_OF_AN_IMAGE) -> Any:
    """Return what a JSON file of at most `most` bytes holds.

    Raises:
        SegregError: it can't be read, or is not a JSON; the message has the line and column.
    """
    try:
        return json.loads(read_text(path, most))
    except json.JSONDecodeError as error:
        place = Place(str(path), error.lineno, error.colno)
        raise SegregError(f"is not a JSON ({error.msg})", place=place) from None
    except (RecursionError, ValueError):  # also an integer of thousands of digits
        raise SegregError(f"{path}: can't be read as JSON: it is nested too deeply, or a number is too long") from None


def first_of(problems: Sequence[Problem], source: Path) -> SegregError:
    """Return the error of the first of several problems, and of how many more there are in `source`."""
    more = len(problems) - MOST_PROBLEMS
    rest = [Problem(f"{source}: and {more} more things are wrong")] if more > 0 else []
    return SegregError.of([*problems[:MOST_PROBLEMS], *rest])


def inside(folder: Path, name: str) -> Path | None:
    """Return the path that `name` has in `folder`, or None where it would lie outside (`..`, another root).

    Links are not followed: one that lies in the folder was put there on purpose.
    """
    absolute = os.path.abspath(folder)  # noqa: PTH100 - resolve() would follow links
    path = os.path.normpath(os.path.join(absolute, name.replace("\\", "/")))  # noqa: PTH118
    if path != absolute and not path.startswith(absolute.rstrip(os.sep) + os.sep):
        return None
    return folder / os.path.relpath(path, absolute)


def is_file(path: Path) -> bool:
    """Whether a file is there; False also for names that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises where a name is too long


def is_folder(path: Path) -> bool:
    """Whether a folder is there; False also for names that no folder can have."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def unique_ids(images: Sequence[Path], root: Path) -> list[str]:
    """Return an id for each image: its name without extension, or its path below `root` where two have the same.

    Raises:
        SegregError: paths that differ only in / and __ would make the same id.
    """
    stems = Counter(path.stem for path in images)
    ids = [
        path.stem if stems[path.stem] == 1 else os.path.relpath(path, root).replace(os.sep, "__").lstrip(".")
        for path in images
    ]
    if twice := sorted(name for name, count in Counter(ids).items() if count > 1):
        raise SegregError(f"paths that differ only in / and __ make the same id: {listed(twice, most=3)}")
    return ids


def splits_of(folders: Sequence[str]) -> list[SplitName | None]:
    """Return the split of each folder name, or None for all where one is not the name of a split."""
    found = [SPLITS.get(name.lower()) for name in folders]
    return found if all(found) else [None] * len(found)


def outline(points: Any, *, scale: tuple[float, float] = (1, 1)) -> array[float]:
    """Return corners `[[x, y], ...]` as x and y in turns, multiplied by `scale` (x, y).

    Raises:
        ValueError: they are something else, or too far away to be pixels of an image.
    """
    if not isinstance(points, list):
        raise ValueError(f"its points are {_kind(points)}, and a list of [x, y] was expected")
    flat = array("d")
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise ValueError(f"its points hold {shown(point)}, and [x, y] was expected")
        flat.extend(number(value, "a coordinate") * factor for value, factor in zip(point, scale, strict=True))
    return flat


def number(value: Any, what: str, *, least: float = -FARTHEST, most: float = FARTHEST) -> float:
    """Return a number between two limits.

    Raises:
        ValueError: it is something else; the message begins with `what`.
    """
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{what} is {shown(value)}, and a number was expected")
    if not least <= value <= most:
        words = f"{value:g}" if isinstance(value, float) else shown(value)
        raise ValueError(f"{what} is {words}, and {least:g} to {most:g} was expected")
    return float(value)


def side(value: Any) -> int:
    """Return a side's length in pixels, or 0 where it is none."""
    return value if type(value) is int and 0 < value <= FARTHEST else 0


def what_it_holds(content: Any) -> str:
    """Return "an object with ..." for a JSON's content."""
    return f"an object with {listed(list(content))}" if isinstance(content, dict) else _kind(content)


def _kind(value: Any) -> str:
    kinds: Iterable[tuple[type, str]] = ((list, "a list"), (dict, "an object"), (str, "a string"))
    return next((name for kind, name in kinds if isinstance(value, kind)), shown(value))


def shown(value: Any) -> str:
    """Return a JSON's value as a message quotes it, 40 characters at most."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
