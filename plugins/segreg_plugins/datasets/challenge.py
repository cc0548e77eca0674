"""The folder and file names of ISIC 2018 Task 1, as the challenge hands it out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from segreg.errors import Problem, SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.task import Task
from segreg_plugins.datasets.masks import read_binary_mask, read_image
from segreg_plugins.datasets.pairing import pairs_in

Part = Literal["training", "validation", "test"]

PARTS: tuple[Part, ...] = ("training", "validation", "test")
MASK_SUFFIX = "_segmentation"
_SPLITS: dict[Part, str] = {"training": "train", "validation": "val", "test": "test"}


def input_folder(part: Part) -> str:
    """Return the name of the folder that holds a part's images."""
    return f"ISIC2018_Task1-2_{part.title()}_Input"


def truth_folder(part: Part) -> str:
    """Return the name of the folder that holds a part's masks."""
    return f"ISIC2018_Task1_{part.title()}_GroundTruth"


def challenge_dataset(root: Path, parts: Sequence[Part], *, notice: str = "") -> Dataset:
    """Return the images of the parts, with the challenge's own split where there is more than one part.

    Raises:
        SegregError: images or masks are missing, reported for all parts together.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    for part in parts:
        try:
            pairs = pairs_in(
                root / input_folder(part),
                root / truth_folder(part),
                search="folder",
                mask_suffix=MASK_SUFFIX,
                skipped_suffix="_superpixels",  # lie among the images in some copies
            )
        except SegregError as error:
            problems += error.problems
            continue
        split = _SPLITS[part] if len(parts) > 1 else None
        samples += [Sample(name, image, mask, None, split) for name, image, mask in pairs]
    if problems:
        raise SegregError.of(problems)
    folders = [root / name for part in parts for name in (input_folder(part), truth_folder(part))]
    return Dataset(
        Task(("lesion",), "binary"),
        samples,
        read_image,
        partial(read_binary_mask, foreground="auto"),
        notice=notice,
        reader="isic2018: binary, foreground auto",
        folders=folders,
    )
