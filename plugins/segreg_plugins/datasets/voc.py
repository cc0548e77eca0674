"""The dataset `voc`: Pascal VOC's semantic segmentation (doi:10.1007/s11263-014-0733-5)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segreg.errors import Problem, SegregError, listed
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.task import Task
from segreg_plugins.datasets.listing import counted, has, listing
from segreg_plugins.datasets.mask_rules import mask_rules
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.sources import as_published, found_root, source_error

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SOURCE = "VOCtrainval_11-May-2012.tar is at http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
AUGMENTED_SOURCE = (
    "SegmentationClassAug holds the masks of the Semantic Boundaries Dataset "
    "(https://doi.org/10.1109/ICCV.2011.6126343) as class numbers"
)


def voc(
    *,
    root: Path = Path("data/VOCdevkit/VOC2012"),
    masks: Literal["standard", "augmented"] = "standard",
) -> Dataset:
    """Pascal VOC: 20 kinds of object and background, objects' borders ignored.

    `root` holds `JPEGImages`, `SegmentationClass` and the lists `ImageSets/Segmentation/train.txt` and `val.txt`, which
    are the split; `trainval.txt` serves where they are not there, without a split. VOC's test has no published masks.

    Args:
        root: folder of one year's data.
        masks: `standard` takes `SegmentationClass`. `augmented` takes `SegmentationClassAug`, and trains on
            `trainaug.txt`, or without this list on all that has a mask there and is not in val.txt.

    Raises:
        SegregError: files are missing, all of them reported, or a list is not as it should be.
    """
    folder = "SegmentationClass" if masks == "standard" else "SegmentationClassAug"
    source = SOURCE if masks == "standard" else f"{SOURCE}\n{AUGMENTED_SOURCE}"
    wanted = ["JPEGImages", folder, "ImageSets/Segmentation"]
    root = found_root(root, wanted, source=source, archives=["VOCtrainval_11-May-2012.tar"])
    splits = _splits(root, masks, folder)
    samples: list[Sample] = []
    missing: list[Path] = []
    for split, names in splits.items():
        for name in names:
            image, mask = root / "JPEGImages" / f"{name}.jpg", root / folder / f"{name}.png"
            missing += [path for path in (image, mask) if not path.is_file()]
            samples.append(Sample(name, image, mask, None, split or None))
    if missing:
        some = listed([str(path) for path in missing], quote="", most=3)
        what = "1 file of the lists is" if len(missing) == 1 else f"{len(missing)} files of the lists are"
        raise source_error([Problem(f"{what} not there: {some}")], source)
    rules = mask_rules(CLASSES, "auto", None)
    read_mask, palettes = as_published(rules, [sample.mask for sample in samples if sample.mask], source=source)
    return Dataset(
        Task(CLASSES, "multiclass"),
        samples,
        read_image,
        read_mask,
        reader=f"voc: 21 classes, 255 ignored{palettes}",
        folders=[root / "JPEGImages", root / folder],
        void="borders of objects",
    )


def _splits(root: Path, masks: str, folder: str) -> dict[str, list[str]]:
    """Return the names of each split; "" where there is none."""
    lists = root / "ImageSets" / "Segmentation"
    if masks == "augmented":
        val = _names(lists / "val.txt")
        named = lists / "trainaug.txt"
        all_masks = {path.stem for path in (root / folder).glob("*.png") if not path.name.startswith(".")}
        splits = {"train": _names(named) if named.is_file() else sorted(all_masks.difference(val)), "val": val}
    elif (lists / "train.txt").is_file() or not (lists / "trainval.txt").is_file():
        splits = {"train": _names(lists / "train.txt"), "val": _names(lists / "val.txt")}
    else:
        splits = {"": _names(lists / "trainval.txt")}
    both = sorted(set(splits.get("train", [])) & set(splits.get("val", [])))
    if both:
        raise SegregError(f"{lists}: {listed(both, most=3)} {'stands' if len(both) == 1 else 'stand'} in train and val")
    return splits


def _names(file: Path) -> list[str]:
    """Return the names in a list, one a line.

    Raises:
        SegregError: it is not there, empty, or holds something else, such as the "name 1" of VOC's lists by class.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SegregError(f"{file}: can't be read ({error.strerror})", hint=SOURCE) from None
    except UnicodeDecodeError:
        raise SegregError(f"{file}: is not a UTF-8 text; a list has one name a line") from None
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if len(name.split()) > 1:
            raise SegregError(f'{file}:{number}: "{name}" is not one name', hint="a list has one name a line")
        if name in names:
            raise SegregError(f'{file}:{number}: "{name}" stands already in line {names[name]}')
        names[name] = number
    if not names:
        raise SegregError(f"{file}: is empty")
    return list(names)


def recognise_voc(root: Path) -> list[Recognised]:
    """Return Pascal VOC, with each of the two kinds of masks that are there."""
    lists = root / "ImageSets" / "Segmentation"
    if not (root / "JPEGImages").is_dir() or not any(
        (lists / f"{name}.txt").is_file() for name in ("train", "trainval")
    ):
        return []
    found = []
    for masks, folder in (("standard", "SegmentationClass"), ("augmented", "SegmentationClassAug")):
        # A folder with a label map of its own has VOC's layout and other classes.
        if has(root, folder) and not (root / "labelmap.txt").is_file():
            saw = f"{counted(len(listing(root / folder).images), 'mask')} in {folder}, with VOC's lists"
            found.append(Recognised({"root": root, "masks": masks}, saw, instead_of=("folder",)))
    return found
