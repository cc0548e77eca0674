"""The dataset `yolo`: masks drawn from the polygons of Ultralytics' YOLO format."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from segreg.errors import Place, Problem, SegregError, did_you_mean, listed
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.runtime.files import EXTENSIONS, expanded
from segreg_plugins.datasets.annotation_files import (
    MOST_BYTES_OF_AN_IMAGE,
    MOST_PROBLEMS,
    inside,
    is_file,
    is_folder,
    number,
    read_text,
    unique_ids,
)
from segreg_plugins.datasets.coco_layout import SplitName
from segreg_plugins.datasets.grouping import group_pattern, groups_of, roboflow_source
from segreg_plugins.datasets.images import images_in, near
from segreg_plugins.datasets.listing import evenly, head, listing
from segreg_plugins.datasets.shapes import Annotated, Shape, rectangle, shape_dataset

SOURCE = (
    'data: is the data.yaml of an export, as from Roboflow as "YOLOv8" or from CVAT as "Ultralytics YOLO Segmentation"'
)
_SLACK = 0.01
"""How far outside 0 to 1 a coordinate may lie, as with Ultralytics; rounding leaves some there."""
_MOST_BYTES_OF_SETTINGS = 1 << 22
_MOST_BYTES_OF_A_LIST = 1 << 28


@dataclass(frozen=True)
class _Settings:
    """What data.yaml says: the names of the classes by number, and the images of each split."""

    path: Path
    names: Mapping[int, str]
    base: str
    splits: Mapping[SplitName, Sequence[str]]


def yolo(
    *,
    data: Path,
    root: Path | None = None,
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None,
    others: Literal["error", "background", "ignore"] = "error",
    background: str = "background",
    mode: Literal["multiclass", "binary", "multilabel"] = "multiclass",
    boxes: Literal["error", "ignore", "draw", "skip"] = "error",
    groups: str | None = "auto",
) -> Dataset:
    """YOLO segmentation labels: `data.yaml`, and polygons in shares of the sides in a .txt for each image.

    The labels of `images/a.jpg` are in `labels/a.txt` (the last folder `images` of the path is exchanged), else beside
    the image; each line has a class number and a polygon. Images without a file of labels are all background. A pixel
    belongs to a polygon that its centre lies in; later lines lie on top.

    Args:
        data: the file data.yaml: `train`, `val` and `test` (folders, or lists of images in a .txt), `names`, `path`.
        root: folder that all paths start from and must stay in; null is the folder of `data`.
        classes: names in the order of the classes, or the names that make up each class, as in
            `{vehicle: [car, bus], person: [person]}`. Null takes all that something is annotated with.
        others: what names that `classes` leaves out become: with `background` they are not drawn.
        background: name of what is in no class, the first class of a multiclass task.
        mode: `multiclass` draws the classes over the background, `binary` one class, `multilabel` one layer a class, in
            which classes may overlap.
        boxes: what lines of a detection export become, which have a box and no polygon. They lie beneath all else where
            they are ignored.
        groups: images of one group are never parted by a split. `auto` takes what stands before ".rf." in Roboflow's
            names, which copies of one source share; a regular expression takes its first group in parentheses,
            searched in each name without extension; null has no groups.

    Raises:
        SegregError: files are missing or not as they should be, or settings don't fit them.
    """
    pattern = None if groups == "auto" else group_pattern(groups)
    data = expanded(data)
    settings = _settings(data)
    root = data.parent if root is None else expanded(root)
    images, notices = _images(settings, root)
    stems = [path.stem for path in images]
    sources = [roboflow_source(stem) for stem in stems] if groups == "auto" else groups_of(stems, pattern)
    labels = [_label_file(image, root) for image in images]
    if not any(labels):
        first = next(iter(images))
        raise SegregError(
            f"{data}: none of its {len(images)} images has a file of labels; {first} would have "
            f"{root / _beside(first, root)}",
            hint="YOLO has the labels of images/a.jpg in labels/a.txt",
        )
    _refuse_orphans(data, [label for label in labels if label], images)
    ids = unique_ids(list(images), root)
    samples = [
        Sample(name, image, label or data, group, split)
        for name, (image, split), label, group in zip(ids, images.items(), labels, sources, strict=True)
    ]
    return shape_dataset(
        f"yolo {json.dumps(settings.names)}",
        samples,
        partial(load_yolo, names=settings.names),
        source=data,
        names=list(settings.names.values()),
        classes=classes,
        others=others,
        background=background,
        mode=mode,
        boxes=boxes,
        size_mismatch="scale",
        notices=notices,
    )


def load_yolo(sample: Sample, *, names: Mapping[int, str]) -> Annotated:
    """Return what the lines of a file of labels say, in shares of the sides.

    Raises:
        SegregError: the file or a line in it is not as it should be, up to 20 reported at once.
    """
    assert sample.mask is not None
    if sample.mask.suffix != ".txt":  # an image without labels has data.yaml
        return Annotated((1, 1), ())
    shapes, problems = [], []
    for line, text in enumerate(read_text(sample.mask, MOST_BYTES_OF_AN_IMAGE).splitlines(), start=1):
        try:
            if words := text.split():
                shapes.append(_shape(words, f"line {line}", names))
        except ValueError as error:
            problems.append(Problem(str(error), Place(str(sample.mask), line), _line_hint(text)))
            if len(problems) == MOST_PROBLEMS:
                break
    if problems:
        raise SegregError.of(problems)
    return Annotated((1, 1), shapes)


def _shape(words: Sequence[str], where: str, names: Mapping[int, str]) -> Shape:
    """Return the shape of a line.

    Raises:
        ValueError: a number is not as it should be.
    """
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError("holds something that is not a number") from None
    name = names.get(int(values[0])) if values[0].is_integer() else None
    if name is None:
        raise ValueError(f"its class is {words[0]}, and data.yaml has {_numbers(names)}")
    if len(values) % 2 == 0 or len(values) < 5:
        raise ValueError(f"holds {len(values)} numbers, and a class and x, y of each corner were expected")
    shares = [number(value, "a coordinate", least=-_SLACK, most=1 + _SLACK) for value in values[1:]]
    if len(shares) == 4:
        x, y, width, height = shares
        box = rectangle(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return Shape(name, where, "box", (box,), box=True)
    polygon = array("d", shares)
    return Shape(name, where, outlines=(polygon,))


def _line_hint(text: str) -> str:
    words = text.split()
    if len(words) == 6:
        return "a class, a box and a confidence are a detection's prediction; export labels with polygons"
    try:
        pixels = any(number > 2 for number in [float(word) for word in words][1:])
    except ValueError:
        return "a line has a class number and x, y of each corner, parted by spaces"
    return "YOLO's coordinates are shares: divide x by the image's width and y by its height" if pixels else ""


def _numbers(names: Mapping[int, str]) -> str:
    return f"{len(names)} classes, {min(names)} to {max(names)}" if len(names) > 1 else f"the class {min(names)} alone"


def _settings(path: Path) -> _Settings:
    """Return what data.yaml says.

    Raises:
        SegregError: it is missing, is not a YAML, or is not as it should be.
    """
    import yaml

    if path.is_dir():
        found = sorted(file.name for file in path.glob("[!.]*.y*ml"))
        raise SegregError(f"data: {path} is a folder", hint=f"set data: {path / (found or ['data.yaml'])[0]}")
    if not path.is_file():
        raise SegregError(f"data: there is no file {path}", hint="\n".join(filter(None, (near(path), SOURCE))))
    try:
        content = yaml.safe_load(read_text(path, _MOST_BYTES_OF_SETTINGS))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Place(str(path), mark.line + 1, mark.column + 1) if mark else Place(str(path))
        raise SegregError(f"is not a YAML ({error.problem})", place=place) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SegregError(f"{path}: is not a YAML ({error})") from None
    if not isinstance(content, dict):
        raise SegregError(f"{path}: is not a mapping with train, val and names", hint=SOURCE)
    if "kpt_shape" in content:
        raise SegregError(f"{path}: has kpt_shape, so its labels are key points", hint="export polygons instead")
    splits: dict[SplitName, list[str]] = {}
    for split in ("train", "val", "test"):
        value = content.get("valid" if split == "val" and "val" not in content else split)
        entries = value if isinstance(value, list) else [] if value in (None, "") else [value]
        if not all(isinstance(entry, str) and entry for entry in entries):
            raise SegregError(f"{path}: {split} is {value}, and a folder or a list of folders was expected")
        if entries:
            splits[split] = entries
    if not splits:
        guess = did_you_mean("train", [key for key in content if isinstance(key, str)])
        raise SegregError(f"{path}: has neither train nor val nor test", hint=guess or SOURCE)
    base = content.get("path")
    if base is not None and not isinstance(base, str):
        raise SegregError(f"{path}: path is {base}, and a folder was expected")
    return _Settings(path, _names(path, content), base or "", splits)


def _names(path: Path, content: Mapping[Any, Any]) -> dict[int, str]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise SegregError(f"{path}: names is {names}, and a list or mapping of the classes' names was expected")
    found: dict[int, str] = {}
    for key, name in names.items():
        if type(key) is not int or key < 0 or type(name) not in (str, int) or not str(name).strip():
            raise SegregError(
                f"{path}: names holds {key}: {name}, and a class's number and its name were expected",
                hint='put a name that YAML takes for something else in quotes, as in "no"',
            )
        found[key] = str(name).strip()
    if twice := [name for name, times in Counter(found.values()).items() if times > 1]:
        raise SegregError(f"{path}: names has {listed(twice)} more than once")
    if type(count) is int and count != len(found):
        raise SegregError(f"{path}: nc is {count}, and names has {len(found)}")
    return dict(sorted(found.items()))


def _images(settings: _Settings, root: Path) -> tuple[dict[Path, SplitName], list[str]]:
    """Return each image with its split, and what is to be reported.

    Raises:
        SegregError: a folder or list is not there or empty, or an image is in two splits.
    """
    bases = [base for base in (inside(root, settings.base), root) if base is not None]
    images: dict[Path, SplitName] = {}
    notices: list[str] = []
    problems: list[Problem] = []
    for split, entries in settings.splits.items():
        for entry in entries:
            path = _located(entry, bases, root)
            if path is None and split == "test":  # Roboflow names one whether or not there is one
                notices.append(f'{settings.path.name} names the test "{entry}", which is not there')
                continue
            if path is None:
                problems.append(_not_there(settings, split, entry, bases, root))
                continue
            try:
                found = [file.path for file in images_in(path, "tree")] if path.is_dir() else _list(path, bases, root)
            except SegregError as error:
                problems += error.problems
                continue
            if not found:
                problems.append(Problem(f"{settings.path}: {split}: {path} holds no images"))
            both = [image for image in found if images.get(image, split) != split]
            if both:
                problems.append(
                    Problem(
                        f"{settings.path}: {len(both)} images of {split} are also in {images[both[0]]}: "
                        f"{listed([str(image) for image in both], quote='', most=3)}",
                        hint=f"take {split} out of {settings.path.name}; one is then drawn from train",
                    )
                )
            images |= dict.fromkeys(found, split)
    if problems:
        raise SegregError.of(problems)
    if not images:
        raise SegregError(f"{settings.path}: has no images")
    return images, notices


def _located(entry: str, bases: Sequence[Path], root: Path) -> Path | None:
    """Return the folder or list of images that an entry of data.yaml names, or None where there is none in `root`.

    Roboflow writes `../train/images` for what is beside data.yaml, in `train/images`.
    """
    plain = entry.replace("\\", "/")
    bare = "/".join(part for part in PurePosixPath(plain).parts if part != "..")
    for base in bases:
        for name in (plain, bare):
            path = inside(root, str(base.absolute() / name))
            if path is not None and (is_folder(path) or (path.suffix == ".txt" and is_file(path))):
                return path
    return None


def _not_there(settings: _Settings, split: str, entry: str, bases: Sequence[Path], root: Path) -> Problem:
    hints = []
    if Path(entry).is_absolute() or inside(root, settings.base) is None:
        hints.append(f"paths must stay in {root}; set root: to the folder that holds all of them")
    folder, missing = bases[0], ""
    for missing in PurePosixPath(entry.replace("\\", "/")).parts:
        if not is_folder(folder / missing):
            break
        folder = folder / missing
    if folder.is_dir() and (guess := did_you_mean(missing, [f.name for f in folder.iterdir() if f.is_dir()])):
        hints.append(f'no "{missing}" in {folder}; {guess}')
    looked = listed(list(dict.fromkeys(str(base) for base in bases)), quote="", last="or")
    return Problem(f'{settings.path}: {split}: there is no "{entry}" in {looked}', hint="\n".join(hints))


def _list(path: Path, bases: Sequence[Path], root: Path) -> list[Path]:
    """Return the images that a .txt lists, one a line.

    Raises:
        SegregError: lines name no image in `root`; up to 20 are reported.
    """
    images: dict[Path, None] = {}
    problems: list[Problem] = []
    for line, text in enumerate(read_text(path, _MOST_BYTES_OF_A_LIST).splitlines(), start=1):
        if not (name := text.strip().replace("\\", "/")):
            continue
        candidates = [inside(root, str(base.absolute() / name)) for base in (path.parent, *bases)]
        image = next((found for found in candidates if found and is_file(found)), None)
        if image is None or image.suffix.lower() not in EXTENSIONS:
            problems.append(Problem(f'"{name}" is not an image in {root}', Place(str(path), line)))
        else:
            images[image] = None
    if problems:
        raise SegregError.of(problems[:MOST_PROBLEMS])
    return list(images)


def _beside(image: Path, root: Path) -> Path:
    """Return where an image's labels lie, below `root`: the last folder `images` is exchanged for `labels`."""
    parts = list(image.relative_to(root).with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _label_file(image: Path, root: Path) -> Path | None:
    candidates = (root / _beside(image, root), image.with_suffix(".txt"))
    return next((path for path in candidates if is_file(path)), None)


def _refuse_orphans(data: Path, labels: Sequence[Path], images: Mapping[Path, SplitName]) -> None:
    """Refuse labels that have no image: an image that was lost would lessen the data without a word."""
    folders = {label.parent for label in labels} - {image.parent for image in images}
    stems = {path.with_suffix("").name for path in images}
    orphans = [
        file
        for folder in sorted(folders)
        for there in [stems | _image_stems(folder)]
        for file in sorted(folder.glob("[!.]*.txt"))
        if file.name != "classes.txt" and file.stem not in there
    ]
    if orphans:
        raise SegregError(
            f"{data}: {len(orphans)} files of labels have no image: "
            f"{listed([str(file) for file in orphans], quote='', most=3)}",
            hint="put their images back, or remove them",
        )


def _image_stems(labels: Path) -> set[str]:
    """Return the names of images that belong to a folder of labels, also of those that a split's list leaves out."""
    parts = list(labels.parts)
    if "labels" in parts:
        parts[len(parts) - 1 - parts[::-1].index("labels")] = "images"
    folders = [folder for folder in (Path(*parts), labels) if folder.is_dir()]
    return {file.stem for folder in folders for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS}


def recognise_yolo(root: Path) -> list[Recognised]:
    """Return the data.yaml of a folder whose labels are polygons."""
    found = []
    for name in listing(root).files:
        file = root / name
        if file.suffix.lower() not in (".yaml", ".yml") or "names" not in head(file):
            continue
        try:
            settings = _settings(file)
            images = list(_images(settings, root)[0])
        except SegregError:
            continue
        labels = [label for image in evenly(images, 10) if (label := _label_file(image, root))]
        if any(len(line.split()) > 5 for label in labels for line in head(label).splitlines()):
            saw = f"{file.name} with {len(images):,} images and {len(settings.names)} names, labels of polygons"
            found.append(Recognised({"data": file}, saw))
    return found
