"""What a known data set's folder must hold, and the message where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.errors import Problem, SegregError, did_you_mean, listed
from segreg.runtime.files import expanded
from segreg_plugins.datasets.images import missing_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.registry.protocols import Sample
    from segreg_plugins.datasets.mask_rules import MaskRules

    ReadMask = Callable[[Sample], NDArray[np.uint8]]


def found_root(root: Path, wanted: Sequence[str], *, source: str, archives: Sequence[str] = ()) -> Path:
    """Return `root`, once it is a folder that holds all of `wanted` (paths of folders or files below it).

    Args:
        root: the setting of that name.
        wanted: what must be there.
        source: where the data comes from, reported where something is missing.
        archives: names of the archives it comes in, so that one that was not unpacked is noticed.

    Raises:
        SegregError: something is missing. The hint says where it may lie, what may be misspelt, and the source.
    """
    root = expanded(root)
    if problem := missing_folder(root, "root"):
        raise source_error([problem], source)
    absent = [name for name in wanted if not (root / name).exists()]
    if not absent:
        return root
    hints = [_misspelt(root, absent[0]), _deeper(root, wanted), _packed(root, archives), source]
    raise SegregError(f"root: {root} has no {listed(absent, last='or')}", hint="\n".join(filter(None, hints)))


def source_error(problems: Sequence[Problem], source: str) -> SegregError:
    """Return one error of several problems, the last of which says where the data comes from."""
    *others, last = problems
    return SegregError.of([*others, Problem(last.message, last.place, "\n".join(filter(None, (last.hint, source))))])


def as_published(rules: MaskRules, masks: Sequence[Path], *, source: str) -> tuple[ReadMask, str]:
    """Return the function that reads a known data set's masks, and what its name has beside the usual one.

    Messages say where the data comes from, in place of settings that such a data set has not.

    Args:
        rules: what the masks' values mean.
        masks: the files, whose palettes are compared: what shrinks a PNG may give it a palette in another order.
        source: where the data comes from.

    Raises:
        SegregError: the files' palettes contradict each other.
    """
    try:
        read, name = rules.reading(masks)
    except SegregError as error:
        raise _unlike_published(error, source) from None
    return partial(_read_published, read=read, source=source), name.removeprefix(rules.reader)


def _read_published(sample: Sample, *, read: ReadMask, source: str) -> NDArray[np.uint8]:
    try:
        return read(sample)
    except SegregError as error:
        raise _unlike_published(error, source) from None


def _unlike_published(error: SegregError, source: str) -> SegregError:
    hint = f"the published masks are not like this; has a program saved them anew?\n{source}"
    return SegregError.of([Problem(one.message, one.place, hint) for one in error.problems])


def _misspelt(root: Path, name: str) -> str:
    """Return what `name` may be called there, looking where its path breaks off."""
    folder = root
    for part in Path(name).parts:
        if (folder / part).exists():
            folder = folder / part
            continue
        guess = did_you_mean(part, [entry.name for entry in folder.iterdir()] if folder.is_dir() else [])
        return f'no "{part}" in {folder}; {guess}' if guess else ""
    return ""


def _deeper(root: Path, wanted: Sequence[str]) -> str:
    try:
        below = sorted(inside for inside in root.iterdir() if inside.is_dir())
        # Archives often hold one folder of the data set's name, and some two.
        below += [inner for inside in below[:50] for inner in sorted(inside.iterdir()) if inner.is_dir()]
    except OSError:
        return ""
    for inside in below:
        if all((inside / name).exists() for name in wanted):
            return f"it seems to be deeper: set dataset.root: {inside}"
    return ""


def _packed(root: Path, archives: Sequence[str]) -> str:
    packed = [name for name in archives if (root / name).is_file()]
    return f"{listed(packed)} {'is' if len(packed) == 1 else 'are'} there, but not unpacked" if packed else ""
