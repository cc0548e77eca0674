"""Which mask belongs to which image, and every file that has no partner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from segreg.errors import Problem, SegregError, did_you_mean, listed
from segreg_plugins.datasets.images import ImageFile, Search, images_in, missing_folder, nothing_found

Split = TypeVar("Split")


def pairs_of_splits(
    folders: Mapping[Split, tuple[Path, Path]],
    *,
    search: Search,
    image_suffix: str = "",
    mask_suffix: str = "",
    skipped_suffix: str | None = None,
) -> list[tuple[Split, str, Path, Path]]:
    """Return what `pairs_in` does for the two folders of each split, with the split in front.

    Raises:
        SegregError: as for `pairs_in`, of all folders together.
    """
    pairs: list[tuple[Split, str, Path, Path]] = []
    problems: list[Problem] = []
    for split, (images, masks) in folders.items():
        try:
            found = pairs_in(
                images, masks, search=search, image_suffix=image_suffix, mask_suffix=mask_suffix,
                skipped_suffix=skipped_suffix,
            )  # fmt: skip
            pairs += [(split, *pair) for pair in found]
        except SegregError as error:
            problems += error.problems
    if problems:
        raise SegregError.of(problems)
    return pairs


def pairs_in(
    images: Path,
    masks: Path,
    *,
    search: Search,
    image_suffix: str = "",
    mask_suffix: str = "",
    skipped_suffix: str | None = None,
) -> list[tuple[str, Path, Path]]:
    """Return (name without suffix, image, mask) for every image, in natural order of the names.

    Where both suffixes are set, or both kinds lie in one folder, files without theirs are not looked at.

    Raises:
        SegregError: a folder is missing or has no images, two files have one name, or a file has no partner. All of
            these are reported together.
    """
    problems = [p for p in (missing_folder(images, "images"), missing_folder(masks, "masks")) if p]
    together = not problems and images.resolve() == masks.resolve()
    if together and image_suffix == mask_suffix:
        problems.append(
            Problem(
                f"images and masks are one folder, {images}, so that their names must tell them apart",
                hint='set mask_suffix to what the masks\' names end in, such as "_mask"',
            )
        )
    if problems:
        raise SegregError.of(problems)
    found_images, found_masks = images_in(images, search), images_in(masks, search)
    if skipped_suffix:
        found_images = [image for image in found_images if not image.name.endswith(skipped_suffix)]
    if together:
        found_images = _apart(found_images, image_suffix, mask_suffix)
        found_masks = _apart(found_masks, mask_suffix, image_suffix)
    by_name: list[dict[str, list[ImageFile]]] = []
    for what, folder, found, suffix in (
        ("image", images, found_images, image_suffix),
        ("mask", masks, found_masks, mask_suffix),
    ):
        named = _without_suffix(found, suffix)
        by_name.append(named)
        if not found:
            problems.append(nothing_found(folder, f"{what}s", search))
        elif not named:
            problems.append(_no_such_suffix(folder, what, found, suffix))
        problems += _named_twice(what, named, search)
    if not problems:
        problems += _alone(by_name[0], by_name[1], image_suffix, mask_suffix)
    if problems:
        raise SegregError.of(problems)
    return [(name, files[0].path, by_name[1][name][0].path) for name, files in by_name[0].items()]


def _apart(found: list[ImageFile], own: str, other: str) -> list[ImageFile]:
    """Return those images of a shared folder that don't belong to the other side."""
    if other and other.endswith(own):
        return [image for image in found if not image.name.endswith(other)]
    return found


def _without_suffix(found: list[ImageFile], suffix: str) -> dict[str, list[ImageFile]]:
    named: dict[str, list[ImageFile]] = defaultdict(list)
    for image in found:
        if image.name.endswith(suffix):
            named[image.name.removesuffix(suffix)].append(image)
    return dict(named)


def _no_such_suffix(folder: Path, what: str, found: list[ImageFile], suffix: str) -> Problem:
    names = listed([image.path.name for image in found[:2]])
    return Problem(
        f'{what}s: no image in {folder} has a name that ends in "{suffix}"',
        hint=f"it has {len(found)} images, such as {names}; set {what}_suffix to what their names end in",
    )


def _named_twice(what: str, named: dict[str, list[ImageFile]], search: Search) -> list[Problem]:
    twice = [files for files in named.values() if len(files) > 1]
    if not twice:
        return []
    some = "; ".join(" and ".join(str(file.path) for file in files[:3]) for files in twice[:3])
    more = f"; and {len(twice) - 3} more" if len(twice) > 3 else ""
    hint = "keep one of each"
    if search == "tree":
        hint += ", or set search: mirrored_tree, which pairs by the path inside the folders"
    return [
        Problem(
            f"{what}s: {len(twice)} name{'s are' if len(twice) > 1 else ' is'} given twice: {some}{more}", hint=hint
        )
    ]


def _alone(
    images: dict[str, list[ImageFile]], masks: dict[str, list[ImageFile]], image_suffix: str, mask_suffix: str
) -> list[Problem]:
    bare_images = [name for name in images if name not in masks]
    bare_masks = [name for name in masks if name not in images]
    problems = []
    for what, other, bare, files, candidates, suffix in (
        ("image", "mask", bare_images, images, bare_masks, mask_suffix),
        ("mask", "image", bare_masks, masks, bare_images, image_suffix),
    ):
        if not bare:
            continue
        some = listed([str(files[name][0].path) for name in bare], quote="", most=3)
        count = f"{len(bare)} {what}{'s have' if len(bare) > 1 else ' has'} no {other}: {some}"
        expected = f'the {other} of {files[bare[0]][0].path.name} would be named "{Path(bare[0]).name}{suffix}"'
        guess = _guess(bare[0], candidates, what, other)
        problems.append(Problem(count, hint="\n".join(filter(None, (f"{expected} and any extension", guess)))))
    return problems


def _guess(name: str, candidates: list[str], what: str, other: str) -> str:
    """Return what may be wrong with the names, going by the first file that is alone."""
    for candidate in candidates:
        if candidate.casefold() == name.casefold():
            return f'"{candidate}" is there: upper and lower case must be the same'
        if candidate.startswith(name):
            return f'"{candidate}" is there: set {other}_suffix: {candidate.removeprefix(name)}'
        if candidate and name.startswith(candidate):
            return f'"{candidate}" is there: set {what}_suffix: {name.removeprefix(candidate)}'
    # Among many numbered names there is always a close one, which says nothing.
    return did_you_mean(name, candidates) if len(candidates) <= 5 else ""
