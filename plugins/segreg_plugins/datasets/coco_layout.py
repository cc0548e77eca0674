"""Where an export's annotation files and its images lie, split by split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segreg.errors import Problem, SegregError, listed
from segreg.runtime.files import expanded
from segreg_plugins.datasets.images import missing_folder, near
from segreg_plugins.datasets.sources import found_root

SplitName = Literal["train", "val", "test"]

SPLITS: Mapping[str, SplitName] = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}
_ROBOFLOW = "_annotations.coco.json"
_SOURCE = (
    'export from Roboflow as "COCO Segmentation", from CVAT as "COCO 1.0" or from Label Studio as "COCO"; COCO itself '
    "is at https://cocodataset.org/#download"
)


@dataclass(frozen=True)
class AnnotationFile:
    """One annotation file, the folders that its images may lie in, and its split if it has one."""

    annotations: Path
    images: tuple[Path, ...]
    split: SplitName | None


def named_parts(
    annotations: Path | Mapping[SplitName, Path], images: Path | Mapping[SplitName, Path] | None
) -> list[AnnotationFile]:
    """Return the parts that a recipe names file by file.

    Raises:
        SegregError: a file or folder is missing, or splits don't fit together.
    """
    named = {None: annotations} if isinstance(annotations, Path) else annotations
    files: dict[SplitName | None, Path] = {split: named[split] for split in named}  # type: ignore[index]
    if not files:
        raise SegregError("annotations: name a file, or one for each of train, val and test")
    if isinstance(images, Mapping) and set(images) != set(files):
        raise SegregError(
            "images: name one folder for all annotation files, or one for each of "
            f"{listed([split or 'a single file' for split in files])}"
        )
    parts, problems = [], []
    for split, file in files.items():
        path = expanded(file)
        if not path.is_file():
            what = f"annotations: there is no file {path}"
            problems.append(Problem(what, hint=near(path)))
            continue
        folders: tuple[Path, ...] = (path.parent, path.parent / "images", path.parent.parent / "images")
        if images is not None:
            folder = expanded(images if isinstance(images, Path) else images[split])  # type: ignore[index]
            if problem := missing_folder(folder, "images"):
                problems.append(problem)
                continue
            folders = (folder,)
        parts.append(AnnotationFile(path, folders, split))
    if problems:
        raise SegregError.of(problems)
    return parts


def found_parts(root: Path) -> list[AnnotationFile]:
    """Return the parts of an export as Roboflow, COCO, CVAT or Label Studio lay it out.

    Raises:
        SegregError: `root` is missing, or holds no annotation file where one of them would have it.
    """
    root = found_root(root, [], source=_SOURCE)
    parts = [
        AnnotationFile(file, (folder, folder / "images"), SPLITS[folder.name.lower()])
        for folder in sorted(root.iterdir())
        if folder.name.lower() in SPLITS and folder.is_dir() and (file := _only_json(folder))
    ]
    parts = parts or _official(root)
    if not parts and (file := _only_json(root)):
        parts = [AnnotationFile(file, (root, root / "images"), None)]
    if not parts:
        below = [folder.name for folder in sorted(root.iterdir()) if folder.is_dir()]
        deeper = [name for name in below if any((root / name).glob("*/*.json")) and (root / name).name != "annotations"]
        hints = [f"it seems to be deeper: set dataset.root: {root / deeper[0]}" if deeper else "", _SOURCE]
        raise SegregError(
            f"root: {root} has no annotation file: neither train/{_ROBOFLOW}, nor annotations/instances_*.json, nor a "
            "single .json",
            hint="\n".join(filter(None, hints)),
        )
    _refuse_two_of_a_side(parts)
    return sorted(parts, key=lambda part: ("train", "val", "test", None).index(part.split))


def _official(root: Path) -> list[AnnotationFile]:
    """Return the parts of `annotations/instances_train2017.json` and the like."""
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files and (file := _only_json(root / "annotations")):
        files = [file]
    parts = []
    for file in files:
        name = file.stem.removeprefix("instances_")
        split = SPLITS.get(re.split(r"[^a-z]", name.lower())[0])
        folders = (root / name, root / "images" / name, root / "images", root)
        parts.append(AnnotationFile(file, folders, split))
    if len(parts) > 1 and any(part.split is None for part in parts):
        strange = [str(part.annotations) for part in parts if part.split is None]
        raise SegregError(
            f"root: of {len(parts)} annotation files, {listed(strange)} don't say train, val or test",
            hint="set annotations: and images: to those of each split",
        )
    return parts


def _only_json(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    if (folder / _ROBOFLOW).is_file():
        return folder / _ROBOFLOW
    files = sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))
    if len(files) > 1:
        raise SegregError(
            f"root: {folder} has {len(files)} .json files: {listed([file.name for file in files])}",
            hint="set annotations: to the one that is meant",
        )
    return files[0] if files else None


def _refuse_two_of_a_side(parts: list[AnnotationFile]) -> None:
    for split in ("train", "val", "test"):
        files = [str(part.annotations) for part in parts if part.split == split]
        if len(files) > 1:
            raise SegregError(
                f"root: {listed(files)} are both the export's {split}",
                hint="set annotations: and images: to those of each split",
            )
