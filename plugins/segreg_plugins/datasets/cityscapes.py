"""The dataset `cityscapes`: street scenes of 50 cities with fine annotations (arXiv:1604.01685)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.errors import Problem, SegregError
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.task import IGNORE_INDEX, Task
from segreg_plugins.datasets.listing import has, images_below, in_splits
from segreg_plugins.datasets.mask_files import check_orientations, grey_levels_count, read_values
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.pairing import pairs_of_splits
from segreg_plugins.datasets.sources import found_root, source_error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABELS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""The label ids that are scored, in the order of their train ids 0 to 18."""
HIGHEST_LABEL = 33
IMAGES, MASKS = "_leftImg8bit", "_gtFine_labelIds"
SOURCE = (
    "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip are at https://www.cityscapes-dataset.com/downloads/ "
    "(after signing up); unpack both into root"
)


def cityscapes(*, root: Path = Path("data/cityscapes")) -> Dataset:
    """Cityscapes: street scenes, the 19 classes that are scored, all other labels ignored.

    `root` holds `leftImg8bit/train/<city>/*_leftImg8bit.png` and `gtFine/train/<city>/*_gtFine_labelIds.png`, and the
    same of `val`, which are the split. Those of `test` have no real masks and are left out. A city's images are
    one group, so a split that is drawn from train gets whole cities.

    Args:
        root: folder of the data.

    Raises:
        SegregError: folders are missing, or images or masks alone; reported for all folders together.
    """
    wanted = ["leftImg8bit/train", "gtFine/train"]
    archives = ["leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"]
    root = found_root(root, wanted, source=SOURCE, archives=archives)
    both = {split: (root / "leftImg8bit" / split, root / "gtFine" / split) for split in ("train", "val")}
    folders = {split: of for split, of in both.items() if of[0].is_dir() or of[1].is_dir()}
    samples: list[Sample] = []
    try:
        pairs = pairs_of_splits(folders, search="mirrored_tree", image_suffix=IMAGES, mask_suffix=MASKS)
    except SegregError as error:
        raise source_error(error.problems, SOURCE) from None
    try:
        grey_levels = grey_levels_count([mask for *_, mask in pairs])
    except SegregError as error:
        raise source_error([Problem(one.message, one.place) for one in error.problems], SOURCE) from None
    for split, name, image, mask in pairs:
        city, _, stem = name.rpartition("/")
        samples.append(Sample(stem, image, mask, city or None, split))
    return Dataset(
        Task(tuple(LABELS.values()), "multiclass"),
        samples,
        read_image,
        partial(read_mask, grey_levels=grey_levels),
        reader="cityscapes: 19 train ids of label ids" + ", grey levels of palettes" * grey_levels,
        folders=[folder for of in folders.values() for folder in of],
        void="labels that Cityscapes does not score",
    )


def read_mask(sample: Sample, *, grey_levels: bool = False) -> NDArray[np.uint8]:
    """Return `[H, W]`, uint8: train ids 0 to 18, and 255 for labels that are not scored.

    `grey_levels` says that those of a palette are the label ids, in place of its indices.

    Raises:
        SegregError: the mask can't be read or holds a value that is not a label id.
    """
    import numpy as np

    assert sample.mask is not None
    check_orientations(sample.image, sample.mask)
    labels = read_values(sample.mask, grey_levels=grey_levels)
    if labels.min() < 0 or labels.max() > HIGHEST_LABEL:
        strange = int(labels.max() if labels.max() > HIGHEST_LABEL else labels.min())
        raise SegregError(
            f"{sample.mask}: holds the value {strange}, and Cityscapes' label ids are 0 to {HIGHEST_LABEL}",
            hint="train ids (0 to 18 and 255) are another edition: read them with the dataset folder",
        )
    table = np.full(HIGHEST_LABEL + 1, IGNORE_INDEX, np.uint8)
    table[list(LABELS)] = range(len(LABELS))
    return table[labels]


def recognise_cityscapes(root: Path) -> list[Recognised]:
    """Return Cityscapes, by the names of its folders."""
    if not has(root, "leftImg8bit/train", "gtFine/train"):
        return []
    splits = [split for split in ("train", "val") if (root / "leftImg8bit" / split).is_dir()]
    counts = [(split, sum(map(len, images_below(root / "leftImg8bit" / split).values()))) for split in splits]
    saw = f"{in_splits(counts)} of leftImg8bit, and gtFine"
    return [Recognised({"root": root}, saw, instead_of=("folder",))]
