"""The dataset `isic2018`: Task 1 of the ISIC 2018 challenge, lesion segmentation (arXiv:1902.03368)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segreg.errors import SegregError, listed
from segreg.registry.protocols import Dataset, Recognised
from segreg.runtime.files import expanded
from segreg.settings import PositiveInt
from segreg_plugins.datasets.challenge import PAGE, PARTS, Part, challenge_dataset, input_folder, truth_folder
from segreg_plugins.datasets.listing import counted, has, listing


def isic2018(
    *,
    root: Path = Path("data/isic2018"),
    if_missing: Literal["error", "synthetic", "download"] = "error",
    parts: tuple[Literal["training", "validation", "test"], ...] | None = None,
    synthetic_samples: PositiveInt = 160,
) -> Dataset:
    """ISIC 2018 Task 1: dermoscopic images of skin lesions, in the challenge's own folders.

    `root` holds `ISIC2018_Task1-2_Training_Input` and `ISIC2018_Task1_Training_GroundTruth`, and the same of the
    `Validation` and `Test` parts where there are. With more than one part, the samples have the challenge's split.

    Args:
        root: folder that holds the challenge's folders.
        if_missing: what happens where they are not there: `error` says where to get them, `download` fetches the
            challenge's archives (11 GB for the training part), `synthetic` draws a small look-alike set into segreg's
            cache and has every report say so; it is an error where they lie in a folder beside or in `root`.
        parts: parts of the challenge to use; where it is null, those that are there, and `download` fetches training.
        synthetic_samples: number of images that `synthetic` draws.

    Raises:
        SegregError: the data is missing, incomplete or can't be fetched.
    """
    root = expanded(root)
    if root.exists() and not root.is_dir():
        raise SegregError(f"root: {root} is a file, not a folder")
    if parts is not None and not parts:
        raise SegregError("parts: name at least one of training, validation and test, or null for those that are there")
    wanted: tuple[Part, ...] = tuple(part for part in PARTS if part in parts) if parts else ("training",)
    absent = [
        name for part in wanted for name in (input_folder(part), truth_folder(part)) if not (root / name).is_dir()
    ]
    if absent and if_missing == "download":
        from segreg_plugins.datasets.download import download

        download(root, absent)
    elif absent:
        some_there = any((root / folder(part)).is_dir() for part in PARTS for folder in (input_folder, truth_folder))
        near = _near(root, absent)
        if if_missing == "error" or some_there or near:
            raise _missing(root, absent, near)
        return _synthetic(root, synthetic_samples)
    if parts is None:
        of_parts = {part: [root / folder(part) for folder in (input_folder, truth_folder)] for part in PARTS[1:]}
        absent = [folder.name for both in of_parts.values() for folder in both if not folder.is_dir()]
        if packed := [f"{name}.zip" for name in absent if (root / f"{name}.zip").is_file()]:
            raise SegregError(
                f"root: {root} has {listed(packed, quote='')}, not unpacked",
                hint="unpack into root, or set dataset.parts to the parts that are to be used",
            )
        wanted = ("training", *(part for part, both in of_parts.items() if all(folder.is_dir() for folder in both)))
    return challenge_dataset(root, wanted)


def _near(root: Path, absent: list[str]) -> str:
    """Return where in or beside `root` the folders seem to be, as a hint, or nothing."""
    if packed := [f"{name}.zip" for name in absent if (root / f"{name}.zip").is_file()]:
        return f"{listed(packed, quote='')} is there, but not unpacked"
    above = root.absolute().parent
    found = [*root.glob(f"*/{absent[0]}"), *above.glob(absent[0]), *above.glob(f"*/{absent[0]}")]
    return f"they seem to be in another folder: set dataset.root: {found[0].parent}" if found else ""


def _missing(root: Path, absent: list[str], near: str) -> SegregError:
    hints = [
        near,
        f"get {listed([f'{name}.zip' for name in absent], quote='')} from {PAGE} and unpack into {root}",
        "or set dataset.if_missing: download to have them fetched, or dataset: synthetic_lesions for drawn images",
    ]
    have = "has no" if root.is_dir() else "is not there; it should hold"
    return SegregError(
        f"root: {root} {have} {listed(absent, quote='', last='or' if root.is_dir() else 'and')}",
        hint="\n".join(filter(None, hints)),
    )


def _synthetic(root: Path, samples: int) -> Dataset:
    from segreg.data.cache_folder import cache_folder
    from segreg_plugins.datasets.synthetic_lesions import drawn_set

    # Not where real images would be looked for: the folder may be a wrong one, among data that are not this user's.
    place, hint = cache_folder() / "synthetic", "SEGREG_CACHE names another folder for them"
    drawn = drawn_set(place, samples=samples, size=256, seed=0, hint=hint)
    notice = (
        f"SYNTHETIC IMAGES: ISIC 2018 is not in {root}, so {samples} drawn skin lesions ({drawn}) take its place. "
        "Scores on them say nothing about real lesions."
    )
    return challenge_dataset(drawn, ("training",), notice=notice)


def recognise_isic2018(root: Path) -> list[Recognised]:
    """Return the challenge's Task 1, by the names of its folders."""
    if not has(root, input_folder("training"), truth_folder("training")):
        return []
    images = counted(len(listing(root / input_folder("training")).images), "image")
    saw = f"{images} in {input_folder('training')}, with the challenge's own names"
    return [Recognised({"root": root}, saw, instead_of=("folder",))]
