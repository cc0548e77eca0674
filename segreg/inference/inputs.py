"""Which images files, folders and wildcards mean, and what the outputs of each are called."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segreg.errors import Problem, SegregError, did_you_mean

EXTENSIONS = frozenset(
    ".png .jpg .jpeg .jpe .jfif .bmp .dib .tif .tiff .gif .webp .pbm .pgm .ppm .pnm".split()  # noqa: SIM905
)
"""Endings by which images are found in folders; a file that is named itself may have any."""


@dataclass(frozen=True)
class Named:
    """A image file and its name among the others.

    Attributes:
        file: where it is.
        name: its path, without the extension, below the folder that all of them share; with slashes.
    """

    file: Path
    name: str


def gather(words: Sequence[str], *, without: Iterable[Path] = ()) -> list[Named]:
    """Return the images that words mean: files, folders with all below them, and wildcards (`**` for any folders).

    Hidden files and folders are left out of folders and wildcards. Words keep their order, and what a folder or a
    wildcard holds is in natural order ("img2" before "img10"). A image that is meant twice is taken once. Names begin
    below the folder that the words share: of one folder that folder, of several the one above them.

    Args:
        words: as they are written on the command line.
        without: folders that are left out where they lie in a folder that is named.

    Raises:
        SegregError: something is not there, a folder or a wildcard holds no images, or two images that differ only
            in their extension would have one name.
    """
    kept_out = [_absolute(folder) for folder in without]
    problems: list[Problem] = []
    found: dict[str, Path] = {}
    bases: list[str] = []
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            files = in_folder(path, kept_out)
            base = path
        elif path.exists():
            files, base = [path], path.parent
        elif glob.has_magic(word):
            base = _fixed_part(path)
            files = list(_matches(path, kept_out))
        else:
            problems.append(_missing(word, path))
            continue
        if not files:
            what = "holds no images" if path.is_dir() else "means no images"
            problems.append(Problem(f"{word} {what}", hint=f"images end in {' '.join(sorted(EXTENSIONS))}"))
        bases.append(_absolute(base))
        for file in files:
            found.setdefault(_absolute(file), file)
    if problems:
        raise SegregError.of(problems)
    root = os.path.commonpath(bases) if bases else ""
    named = [Named(file, without_extension(os.path.relpath(absolute, root))) for absolute, file in found.items()]
    _refuse_same_names(named)
    return named


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts without regard to case and numbers by their value, and never calls two names equal."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def in_folder(folder: Path, without: Sequence[str] = ()) -> list[Path]:
    """Return the images below a folder in natural order; links to folders are followed, once each.

    Raises:
        SegregError: a folder can't be listed.
    """
    files: list[Path] = []
    seen: set[str] = set()
    kept_out = {place for place in without if not _within(_absolute(folder), place)}
    for where, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(where)
        if real in seen or _absolute(Path(where)) in kept_out:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(where, name) for name in names if not name.startswith(".") and _is_image(name)]
    return sorted(files, key=lambda file: [natural_key(part) for part in file.parts])


def _matches(pattern: Path, without: Sequence[str]) -> Iterator[Path]:
    """Return what wildcards match: images, files with the wildcard's own extension, and the images of folders."""
    matched = sorted(glob.glob(str(pattern), recursive=True), key=natural_key)  # noqa: PTH207 - leaves hidden files out
    recursive = "**" in pattern.parts
    for path in map(Path, matched):
        if path.is_file() and (_is_image(path.name) or path.suffix.lower() == pattern.suffix.lower() != ""):
            if not any(_within(_absolute(path), place) for place in without):
                yield path
        elif path.is_dir() and not recursive:
            yield from in_folder(path, without)


def _fixed_part(pattern: Path) -> Path:
    """Return the folder above a pattern's first wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _missing(word: str, path: Path) -> Problem:
    try:
        beside = [entry.name for entry in os.scandir(path.parent) if not entry.name.startswith(".")]
    except OSError:
        return Problem(f"there is no file or folder {word}", hint=f"there is no folder {path.parent}")
    return Problem(f"there is no file or folder {word}", hint=did_you_mean(path.name, beside))


def _refuse_same_names(named: Sequence[Named]) -> None:
    first: dict[str, Path] = {}
    problems = []
    for image in named:
        other = first.setdefault(image.name, image.file)
        if other is not image.file:
            problems.append(Problem(f'{other} and {image.file} would both be written as "{image.name}"'))
    if problems:
        raise SegregError.of(
            [*problems[:10], Problem("names must differ before their extension", hint="predict them into two folders")]
        )


def _refuse_folder(error: OSError) -> None:
    raise SegregError(f"{error.filename}: can't be listed ({error.strerror})")


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS


def without_extension(path: str) -> str:
    """Return a relative path without a image's extension, with slashes; only the last dot parts the extension."""
    whole = Path(path)
    return (whole.with_suffix("") if _is_image(whole.name) else whole).as_posix()


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links and rename what was named
