"""Which image files a folder holds, in an order that is the same everywhere."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from segreg.errors import Problem, SegregError, did_you_mean, listed
from segreg.runtime.files import EXTENSIONS, natural_key

Search = Literal["folder", "tree", "mirrored_tree"]


@dataclass(frozen=True)
class ImageFile:
    """One image file.

    Attributes:
        path: the file, as it is named in messages.
        name: what identifies it: its name, or its path inside the folder, without the extension.
    """

    path: Path
    name: str


def missing_folder(folder: Path, what: str) -> Problem | None:
    """Return the problem with a folder that is not there or is none, or None where all is well."""
    if folder.is_dir():
        return None
    if folder.exists():
        return Problem(f"{what}: {folder} is a file, not a folder")
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links and rename what was named
    parent = next(above for above in absolute.parents if above.is_dir())
    try:
        beside = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    except OSError:
        beside = []
    hints = [] if folder.is_absolute() else [f"it is looked for in the current folder, {Path.cwd()}"]
    missing = absolute.relative_to(parent).parts[0]
    hints.append(f'{parent} is there, but has no folder "{missing}"; {did_you_mean(missing, beside)}'.rstrip("; "))
    return Problem(f"{what}: there is no folder {folder}", hint="\n".join(hints))


def near(path: Path) -> str:
    """Return a hint about a file that is not there: the name beside it that is most like its own, or ""."""
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        return ""
    try:
        with os.scandir(path.parent) as entries:
            return did_you_mean(path.name, [entry.name for entry in islice(entries, 10_000)])
    except OSError:
        return f"there is no folder {path.parent}"


def images_in(folder: Path, search: Search) -> list[ImageFile]:
    """Return a folder's images in natural order ("img2" before "img10"), hidden files left out.

    Raises:
        SegregError: the folder can't be listed, or a link in it leads nowhere.
    """
    found: list[ImageFile] = []
    try:
        _collect(folder, "", search, found, set())
    except OSError as error:
        raise SegregError(f"{error.filename or folder}: can't be listed ({error.strerror})") from None
    return sorted(found, key=lambda image: (natural_key(image.name), image.path.name))


def nothing_found(folder: Path, what: str, search: Search) -> Problem:
    """Return the problem with a folder in which no image was found, saying what it holds instead."""
    names = [entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")]
    folders = [name for name in names if (folder / name).is_dir()]
    if not names:
        return Problem(f"{what}: {folder} is empty")
    if folders and search == "folder":
        return Problem(
            f"{what}: {folder} holds no images, only folders such as {listed(sorted(folders)[:3])}",
            hint="name the folder that holds the images, or set search: tree (or mirrored_tree)",
        )
    endings = Counter(Path(name).suffix.lower() or "no extension" for name in names if name not in folders)
    kinds = ", ".join(f"{count} with {ending}" for ending, count in endings.most_common(3))
    return Problem(
        f"{what}: {folder} holds no images" + (f" (its files: {kinds})" if kinds else ""),
        hint=f"images end in {' '.join(sorted(EXTENSIONS))}",
    )


def _collect(folder: Path, inside: str, search: Search, found: list[ImageFile], seen: set[str]) -> None:
    # A link to a folder above would be walked for ever.
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if search != "folder":
                    _collect(folder / entry.name, f"{inside}{entry.name}/", search, found, seen)
                continue
            # Only the last dot parts the extension: names such as a.rf.0f3e.jpg differ before it.
            stem, extension = Path(entry.name).stem, Path(entry.name).suffix
            if extension.lower() not in EXTENSIONS:
                continue
            if not entry.is_file():
                from segreg.data.images import refuse_special

                refuse_special(folder / entry.name)
                raise SegregError(f"{folder / entry.name}: is a link to a file that is not there")
            name = f"{inside}{stem}" if search == "mirrored_tree" else stem
            # One accented letter can be written as one character or two; file systems differ in it.
            found.append(ImageFile(folder / entry.name, unicodedata.normalize("NFC", name)))
