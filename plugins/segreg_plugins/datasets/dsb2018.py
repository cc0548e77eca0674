"""The dataset `dsb2018`: nuclei of the 2018 Data Science Bowl (doi:10.1038/s41592-019-0612-7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.errors import Problem, SegregError, listed
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.task import Task
from segreg_plugins.datasets.images import images_in
from segreg_plugins.datasets.listing import counted, evenly, listing
from segreg_plugins.datasets.mask_rules import mask_rules
from segreg_plugins.datasets.masks import read_image
from segreg_plugins.datasets.pairing import pairs_in
from segreg_plugins.datasets.sources import as_published, found_root, source_error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE = "stage1_train.zip is at https://www.kaggle.com/c/data-science-bowl-2018/data; unpack it into root/stage1_train"
_ID = re.compile(r"[0-9a-f]{64}")


def dsb2018(*, root: Path = Path("data/dsb2018")) -> Dataset:
    """Cell nuclei of the 2018 Data Science Bowl, as Kaggle hands them out or as two folders.

    `root` holds Kaggle's `stage1_train`, or is it: `<id>/images/<id>.png` and one mask for each nucleus in
    `<id>/masks`, which are united (where nuclei touch, the boundary is lost). Or it holds the folders `images` and
    `masks` with one mask for each image. The data has no split of its own; Kaggle's stage1_test has no masks.

    Args:
        root: folder of the data.

    Raises:
        SegregError: the data is missing or incomplete; all that is wrong is reported at once.
    """
    root = found_root(root, [], source=SOURCE)
    if (root / "images").is_dir() and (root / "masks").is_dir():
        samples = [Sample(*pair) for pair in pairs_in(root / "images", root / "masks", search="folder")]
        folders = [root / "images", root / "masks"]
        masks = [sample.mask for sample in samples if sample.mask]
        read, palettes = as_published(mask_rules(("nucleus",), "auto", None), masks, source=SOURCE)
    else:
        read, palettes = read_nuclei, ""
        kaggles = (root / "stage1_train").is_dir() or not any(root.glob("*/masks"))
        within = root / "stage1_train" if kaggles else root
        if within != root:
            found_root(root, ["stage1_train"], source=SOURCE, archives=["stage1_train.zip"])
        samples, folders = _raw(within), [within]
    task, reader = Task(("nucleus",), "binary"), f"dsb2018{palettes}"
    return Dataset(task, samples, read_image, read, reader=reader, folders=folders)


def read_nuclei(sample: Sample) -> NDArray[np.uint8]:
    """Return `[H, W]`, uint8: 1 where any of the masks in the sample's folder is not 0.

    Raises:
        SegregError: a mask can't be read, holds other values than 0 and 1 or 0 and 255, or differs in size.
    """
    assert sample.mask is not None
    whole: NDArray[np.uint8] | None = None
    images = images_in(sample.mask, "folder")
    read, _ = as_published(mask_rules(("nucleus",), "auto", None), [one.path for one in images], source=SOURCE)
    for image in images:
        mask = read(Sample(sample.id, sample.image, image.path))
        if whole is None:
            whole = mask
        elif whole.shape != mask.shape:
            raise SegregError(
                f"{image.path}: is {mask.shape[0]}x{mask.shape[1]}, and the masks before it are "
                f"{whole.shape[0]}x{whole.shape[1]} (height x width)"
            )
        else:
            whole |= mask
    if whole is None:
        raise SegregError(f"{sample.mask}: holds no mask")
    return whole


def _raw(folder: Path) -> list[Sample]:
    """Return the samples of Kaggle's layout, one folder each."""
    samples: list[Sample] = []
    without: dict[str, list[Path]] = {"image": [], "mask": []}
    problems: list[Problem] = []
    for inside in sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."):
        if inside.name == "__MACOSX":
            continue
        images, masks = inside / "images", inside / "masks"
        input_images = images_in(images, "folder") if images.is_dir() else []
        if not input_images:
            without["image"].append(images)
        elif len(input_images) > 1:
            names = listed([image.path.name for image in input_images])
            problems.append(Problem(f"{images}: holds {len(input_images)} images, and one is expected: {names}"))
        elif not masks.is_dir() or not images_in(masks, "folder"):
            without["mask"].append(masks)
        else:
            samples.append(Sample(inside.name, input_images[0].path, masks))
    for what, missing in without.items():
        if missing:
            count = f"{len(missing)} folders hold" if len(missing) > 1 else "1 folder holds"
            problems.append(Problem(f"{count} no {what}: {listed([str(path) for path in missing], quote='', most=3)}"))
    if not samples and not problems:
        problems.append(Problem(f"{folder}: is empty"))
    if problems:
        raise source_error(problems, SOURCE)
    return samples


def recognise_dsb2018(root: Path) -> list[Recognised]:
    """Return Kaggle's nuclei, by the names of 64 hexadecimal digits that its images have."""
    pairs = listing(root / "images").images
    if pairs and (root / "masks").is_dir() and _hashes([Path(name).stem for name in pairs]):
        return [Recognised({"root": root}, f"{counted(len(pairs), 'pair')} with Kaggle's ids", instead_of=("folder",))]
    for within in (root, root / "stage1_train"):
        folders = listing(within).folders
        if folders and _hashes(folders) and all((within / name / "masks").is_dir() for name in evenly(folders, 5)):
            saw = f"{counted(len(folders), 'folder')} with Kaggle's ids, each with images and masks"
            return [Recognised({"root": root}, saw, instead_of=("folder",))]
    return []


def _hashes(names: Sequence[str]) -> bool:
    return all(_ID.fullmatch(name) for name in evenly(names, 20))
