"""The folder and file names of ISIC 2018 Task 1, as the challenge hands it out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segreg.registry.protocols import Dataset, Sample
from segreg_plugins.datasets.mask_rules import mask_rules
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.pairing import pairs_of_splits
from segreg_plugins.datasets.sources import as_published

Part = Literal["training", "validation", "test"]

PARTS: tuple[Part, ...] = ("training", "validation", "test")
PAGE = "https://challenge.isic-archive.com/data/#2018"
SOURCE = f"the masks of ISIC 2018 Task 1 are at {PAGE}"
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
    folders = {part: (root / input_folder(part), root / truth_folder(part)) for part in parts}
    # Superpixels lie among the images in some copies.
    pairs = pairs_of_splits(folders, search="folder", mask_suffix=MASK_SUFFIX, skipped_suffix="_superpixels")
    rules = mask_rules(("lesion",), "auto", None)
    read_mask, palettes = as_published(rules, [mask for *_, mask in pairs], source=SOURCE)
    return Dataset(
        rules.task,
        [
            Sample(name, image, mask, None, _SPLITS[part] if len(parts) > 1 else None)
            for part, name, image, mask in pairs
        ],
        read_image,
        read_mask,
        notice=notice,
        reader=f"isic2018: binary, foreground auto{palettes}",
        folders=[folder for both in folders.values() for folder in both],
    )
