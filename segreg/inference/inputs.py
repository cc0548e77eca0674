"""Find input images, from files, folders and wildcards, and their true masks."""

from __future__ import annotations

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.errors import Problem, SegregError, did_you_mean, listed
from segreg.runtime.files import EXTENSIONS, expanded, natural_key
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.task import Task


@dataclass(frozen=True)
class ImageFile:
    """An image file and its name among the others.

    Attributes:
        file: where it is.
        name: its path, without the extension, below the folder that all of them share; with slashes.
        raster: whether it is a georeferenced raster, which rasterio reads and whose prediction is one too.
    """

    file: Path
    name: str
    raster: bool = False


def find_images(words: Sequence[str], *, without: Iterable[Path] = ()) -> list[ImageFile]:
    """Return the images that words mean: files, folders with all below them, and wildcards (`**` for any folders).

    Hidden files and folders are left out of folders and wildcards. Words keep their order, and what a folder or a
    wildcard holds is in natural order ("img2" before "img10"). An image that is meant twice is taken once. Names begin
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
        path = expanded(word)
        if path.is_dir():
            files = in_folder(path, kept_out)
            base = path
        elif path.exists():
            files, base = [path], path.parent
        elif glob.has_magic(word):
            base = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))  # above the first wildcard
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
    from segreg.data.rasters import is_raster

    try:
        root = os.path.commonpath(bases) if bases else ""
    except ValueError:  # on Windows
        hint = "predict those of each into a folder of their own"
        raise SegregError("the images are on several drives", hint=hint) from None
    named = [
        ImageFile(file, without_extension(os.path.relpath(absolute, root)), is_raster(file))
        for absolute, file in found.items()
    ]
    _refuse_same_names(named)
    return named


def in_folder(folder: Path, without: Sequence[str] = ()) -> list[Path]:
    """Return the images below a folder in natural order; links to folders are followed, once each.

    Raises:
        SegregError: a folder can't be listed.
    """
    files: list[Path] = []
    seen: set[str] = set()
    kept_out = {place for place in without if not Path(_absolute(folder)).is_relative_to(place)}
    for where, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(where)
        if real in seen or _absolute(Path(where)) in kept_out:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # of links, which one is followed
        files += [Path(where, name) for name in names if not name.startswith(".") and _is_image(name)]
    return sorted(files, key=lambda file: [natural_key(part) for part in file.parts])


def _matches(pattern: Path, without: Sequence[str]) -> Iterator[Path]:
    """Return what wildcards match: images, files with the wildcard's own extension, and the images of folders."""
    matched = sorted(glob.glob(str(pattern), recursive=True), key=natural_key)  # noqa: PTH207 - leaves hidden files out
    recursive = "**" in pattern.parts
    for path in map(Path, matched):
        if path.is_file() and (_is_image(path.name) or path.suffix.lower() == pattern.suffix.lower() != ""):
            if not any(Path(_absolute(path)).is_relative_to(place) for place in without):
                yield path
        elif path.is_dir() and not recursive:
            yield from in_folder(path, without)


def _missing(word: str, path: Path) -> Problem:
    try:
        beside = [entry.name for entry in os.scandir(path.parent) if not entry.name.startswith(".")]
    except OSError:
        return Problem(f"there is no file or folder {word}", hint=f"there is no folder {path.parent}")
    return Problem(f"there is no file or folder {word}", hint=did_you_mean(path.name, beside))


def _refuse_same_names(named: Sequence[ImageFile]) -> None:
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
    """Return a relative path without an image's extension, with slashes; only the last dot parts the extension."""
    whole = Path(path)
    known = _is_image(whole.name) or whole.suffix.lower() == ".vrt"
    return (whole.with_suffix("") if known else whole).as_posix()


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links and rename what was named


@dataclass(frozen=True)
class TrueMasks:
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
        """Return an image's true labels, uint8 `[H, W]`, where 255 is ignored; None if it has no mask.

        A mask of one class holds 0 and 1, or 0 and 255; one of several holds class numbers.

        Args:
            name: the image's.
            size: the image's height and width.

        Raises:
            SegregError: the mask can't be read, has another size, or holds a value that is not a class; it is named.
        """
        import numpy as np

        from segreg.data.images import read_labels

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
        values = np.unique(labels[~out]).tolist()
        if binary and set(values) <= {0, 255}:
            labels = labels == 255
        elif strange := [str(value) for value in values if value not in range(len(self.task.classes) + binary)]:
            expected = "0 and 1, or 0 and 255" if binary else f"0 to {len(self.task.classes) - 1}"
            raise SegregError(
                f"{file}: holds {listed(strange, quote='', most=5)}; a mask of this run's classes holds {expected}",
                hint="--mask-ignored names a value that counts for nothing",
            )
        return np.where(out, IGNORE_INDEX, labels).astype(np.uint8)


def find_masks(
    images: Sequence[ImageFile], folder: Path, task: Task, *, suffix: str = "", ignored: int | None = None
) -> TrueMasks:
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
            name = name.removesuffix(suffix)
            by_path[name].append(file)
            by_stem[name.rpartition("/")[2]].append(file)
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
    return TrueMasks(folder, files, task, ignored)
