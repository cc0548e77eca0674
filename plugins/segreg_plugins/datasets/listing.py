"""What a folder holds, by names alone, for `recognise`: quick on any number of files, and silent where it can't."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from segreg.runtime.files import EXTENSIONS

Item = TypeVar("Item")
_HEAD = 1 << 16


@dataclass(frozen=True)
class Listing:
    """The names in a folder, sorted; hidden ones are left out."""

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def images(self) -> list[str]:
        """Return the names that end as images do."""
        return [name for name in self.files if os.path.splitext(name)[1].lower() in EXTENSIONS]  # noqa: PTH122


def listing(folder: Path) -> Listing:
    """Return what a folder holds; nothing where it is not there or can't be listed."""
    try:
        return _listed(str(folder), folder.stat().st_mtime_ns)
    except OSError:
        return Listing()


@lru_cache(maxsize=256)
def _listed(folder: str, changed: int) -> Listing:  # noqa: ARG001 - a folder that has changed is listed anew
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if entry.is_dir() else files).append(entry.name)
    return Listing(tuple(sorted(files)), tuple(sorted(folders)))


def has(folder: Path, *names: str) -> bool:
    """Whether a folder has all of these folders or files below it."""
    return all((folder / name).exists() for name in names)


def images_below(folder: Path, *, most: int = 200) -> dict[str, list[str]]:
    """Return the images of a folder and of those below it, three levels deep at most, by each one's path in `folder`.

    Folders without images are left out. Of more than `most` folders the first are looked at.
    """
    found: dict[str, list[str]] = {}
    level = [""]
    for _ in range(4):
        below: list[str] = []
        for path in level[:most]:
            own = listing(folder / path)
            if images := own.images:
                found[path] = images
            below += [f"{path}/{name}" if path else name for name in own.folders]
        level = below
    return found


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def head(file: Path, size: int = _HEAD) -> str:
    """Return the first characters of a file, empty where it can't be read."""
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as opened:
            return opened.read(size).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def counted(count: int, noun: str) -> str:
    """Return "1 image" or "12,000 images"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def in_splits(counts: Iterable[tuple[str, int]]) -> str:
    """Return "117 images in train, 11 in valid"."""
    first, *others = counts
    return ", ".join(
        [f"{counted(first[1], 'image')} in {first[0]}", *(f"{count:,} in {name}" for name, count in others)]
    )
