"""What is in two splits though it is one thing: groups, copies, images alike.

A hash of an image's large forms (dHash, pHash) takes every dark spot in the middle of a bright ground for every other.
So what is compared here is detail: of a grey thumbnail each pixel's difference from its surroundings, divided by how
much those surroundings vary. That is alike in an image and its copy though one was recoloured, resized or saved as
JPEG, and unlike in two images of the same kind of thing. Copies that were mirrored or turned by quarters are found
as well, and those cut a little differently (by a fiftieth of a side, more where forms are large); copies turned by
other angles are not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segreg.data import SPLITS, SplitName
from segreg.data.inspection.checks import Finding, FindingCase, counted, files_of
from segreg.data.inspection.scan import SIDE, Scanned
from segreg.errors import listed
from segreg.registry.protocols import Dataset

ALIKE = 0.5
"""Correlation of details from which two images count as copies.

Chosen by eye on these very images: of 280,875 pairs of 750 skin lesions it takes 7, which all look
like one lesion twice, and the next has 0.48; of nuclei, strawberries and gravel it takes 14 pairs, 13 of them augmented
copies and one two slices of one embryo. Neighbouring frames of a film are alike by 0.5 to 0.9.
"""
WORTH_A_LOOK = 0.35
"""Correlation of coarse details, without shifting, from which two images are compared closely."""
MOST = 10_000
"""Images that are compared with each other at most: the work grows with their square."""
_SHIFT = 8  # thumbnail pixels by which one image may lie beside the other, an eighth of the side
_RADIUS, _NOISE = 2.0, 2.0  # pixels of the thumbnail; grey levels under which differences are noise
_BLOCK = 512

ORIENTATIONS = (
    "as it is", "mirrored", "turned by 90 degrees", "turned by 90 degrees and mirrored", "turned by 180 degrees",
    "turned by 180 degrees and mirrored", "turned by 270 degrees", "turned by 270 degrees and mirrored",
)  # fmt: skip
"""What `turned` does, by number."""

_LEAK = "the network is scored on what it was trained on, and the scores promise more than new images will give"
_GROUPS = (
    "give the images of one thing one group (a data set's setting, or a manifest's column), so that a drawn split "
    "keeps them in one split; or leave one of them out"
)
# Roboflow names the augmented copies of `a.jpg` `a_jpg.rf.<hash>.jpg`, and those of a copy with two hashes.
_AUGMENTED_COPY = re.compile(r"^(.+?)(\.rf\.[0-9a-zA-Z]{8,})+$")


@dataclass(frozen=True)
class AlikePair:
    """Two images that show the same thing.

    Attributes:
        first: index of the one in `Dataset.samples`, or among those compared.
        second: index of the other.
        likeness: correlation of their details; 1 where their values are the same.
        orientation: how the second must be turned to lie on the first, an index into `ORIENTATIONS`.
        across: whether they are in two splits.
    """

    first: int
    second: int
    likeness: float
    orientation: int
    across: bool = False


def group_findings(dataset: Dataset, split_of: Mapping[int, SplitName]) -> list[Finding]:
    """Return groups that are in two splits, and sources whose copies have no group."""
    members: dict[str, list[int]] = defaultdict(list)
    sources: dict[str, list[int]] = defaultdict(list)
    for index in split_of:
        sample = dataset.samples[index]
        if sample.group is not None:
            members[sample.group].append(index)
        elif match := _AUGMENTED_COPY.match(sample.image.stem):
            sources[match.group(1)].append(index)
    named = {f"{dataset.samples[indices[0]].image.parent}/{name}": indices for name, indices in sources.items()}
    return counted([
        Finding(
            "error", "group-across-splits", "groups in two splits", _LEAK,
            "move each group to one split; split.method: random keeps groups whole",
            _divided(dataset, members, split_of, "group"),
        ),
        Finding(
            "error", "augmented-copies-across-splits",
            "images with augmented copies in two splits, by their names (.rf.)", _LEAK,
            "set the group by a regular expression such as ^(.*)[.]rf[.], so that copies of a source have one group",
            _divided(dataset, named, split_of, "source"),
        ),
    ])  # fmt: skip


def duplicate_findings(
    dataset: Dataset, scanned: Sequence[Scanned], split_of: Mapping[int, SplitName]
) -> tuple[list[Finding], list[AlikePair]]:
    """Return images that are there twice or nearly so, and all such pairs, those across splits first."""
    same = _same_images(scanned)
    findings = _same_findings(dataset, same, scanned, split_of)
    readable = [one for one in scanned if one.thumbnail is not None]
    near: list[AlikePair] = []
    if len(readable) > MOST:
        findings.append(Finding(
            "note", "near-duplicates-not-searched", f"{len(readable)} images are too many to compare each with each",
            "near duplicates across the split are not found", f"check parts of at most {MOST}",
        ))  # fmt: skip
    else:
        twins = {one.index: number for number, indices in enumerate(same) for one in indices}
        found = alike_pairs([one.thumbnail for one in readable if one.thumbnail is not None])
        pairs = [
            _pair(readable[p.first].index, readable[p.second].index, p.likeness, p.orientation, split_of) for p in found
        ]
        near = [p for p in pairs if twins.get(p.first, -1) != twins.get(p.second, -2)]
        findings += _near_findings(dataset, near, split_of)
    exact = [_pair(a.index, b.index, 1.0, 0, split_of) for indices in same for a, b in pairwise(indices)]
    return findings, sorted([*exact, *near], key=lambda p: (not p.across, -p.likeness, p.first, p.second))


def _same_images(scanned: Sequence[Scanned]) -> list[list[Scanned]]:
    by_digest: dict[str, list[Scanned]] = defaultdict(list)
    for one in scanned:
        if one.image_digest and not one.blank:
            by_digest[one.image_digest].append(one)
    return [found for found in by_digest.values() if len(found) > 1]


def _same_findings(
    dataset: Dataset, same: Sequence[Sequence[Scanned]], scanned: Sequence[Scanned], split_of: Mapping[int, SplitName]
) -> list[Finding]:
    sets = [[one.index for one in found] for found in same]
    across = [indices for indices in sets if len({split_of.get(i) for i in indices}) > 1]
    within = [indices for indices in sets if len({split_of.get(i) for i in indices}) == 1]
    mask_of = {one.index: one.mask_digest for one in scanned}
    unlike = [indices for indices in sets if len({mask_of[i] for i in indices if mask_of[i]}) > 1]
    return counted([
        Finding(
            "error", "duplicate-across-splits", "images that are there again in another split", _LEAK, _GROUPS,
            tuple(_case(dataset, indices, split_of) for indices in across),
        ),
        Finding(
            "warning", "duplicate", "images that are there again in the same split",
            "they count for more than the others, and another split would divide them",
            "leave all but one of them out, or give them one group",
            tuple(_case(dataset, indices, split_of) for indices in within),
        ),
        Finding(
            "warning", "duplicate-with-other-mask", "images that are there again with another mask",
            "one and the same image is taught, and scored, by two truths", "keep the better mask of each",
            tuple(_case(dataset, indices, split_of) for indices in unlike),
        ),
    ])  # fmt: skip


def _near_findings(dataset: Dataset, near: Sequence[AlikePair], split_of: Mapping[int, SplitName]) -> list[Finding]:
    across = []
    for pair in (pair for pair in near if pair.across):
        way = f", the second {ORIENTATIONS[pair.orientation]}" if pair.orientation else ""
        before = f"alike by {pair.likeness:.2f}{way}: "
        across.append(_case(dataset, [pair.first, pair.second], split_of, before))
    grouped = {index: dataset.samples[index].group for pair in near for index in (pair.first, pair.second)}
    loose = [p for p in near if not p.across and (grouped[p.first] is None or grouped[p.first] != grouped[p.second])]
    likeness: dict[int, float] = {}
    for pair in loose:
        for index in (pair.first, pair.second):
            likeness[index] = max(pair.likeness, likeness.get(index, 0.0))
    sets = clusters([(pair.first, pair.second) for pair in loose]) if loose else []
    return counted([
        Finding(
            "warning", "near-duplicate-across-splits", "pairs of images in two splits that show the same thing", _LEAK,
            f"look at them (--out draws them); {_GROUPS}", tuple(across),
        ),
        Finding(
            "note", "near-duplicate", "sets of images in one split, without a group, that show the same thing",
            "another split would divide them",
            "look at them (--out draws them), and give those that are one thing one group",
            tuple(
                _case(dataset, indices, split_of, f"alike by {max(likeness[i] for i in indices):.2f}: ")
                for indices in sets
            ),
        ),
    ])  # fmt: skip


def _divided(
    dataset: Dataset, sets: Mapping[str, Sequence[int]], split_of: Mapping[int, SplitName], word: str
) -> tuple[FindingCase, ...]:
    return tuple(
        _case(dataset, indices, split_of, f'{word} "{name}": ')
        for name, indices in sets.items()
        if len({split_of[index] for index in indices}) > 1
    )


def _pair(first: int, second: int, likeness: float, orientation: int, split_of: Mapping[int, SplitName]) -> AlikePair:
    return AlikePair(first, second, likeness, orientation, split_of.get(first) != split_of.get(second))


def _case(dataset: Dataset, indices: Sequence[int], split_of: Mapping[int, SplitName], before: str = "") -> FindingCase:
    samples = [dataset.samples[index] for index in indices]
    named = [
        f"{sample.image}{f' ({split_of[index]})' if index in split_of else ''}"
        for index, sample in zip(indices, samples, strict=True)
    ]
    return FindingCase(
        before + listed(named, quote="", most=4),
        tuple(file for sample in samples for file in files_of(sample)),
        tuple(sample.id for sample in samples),
    )


def split_by_index(splits: Mapping[SplitName, Sequence[int]]) -> dict[int, SplitName]:
    """Return each sample's split."""
    return {index: split for split in SPLITS for index in splits.get(split, ())}


# images that show the same thing, by their details


def alike_pairs(thumbnails: Sequence[NDArray[np.uint8]], *, threshold: float = ALIKE) -> list[AlikePair]:
    """Return the pairs of images that show the same thing, as indices into `thumbnails`, those most alike first.

    Time grows with the square of their number: half a second for 750 images, some ten seconds for 5,000, and more
    where many are alike, as the frames of a film are.
    """
    if len(thumbnails) < 2:
        return []
    coarse = np.empty((len(thumbnails), SIDE // 2, SIDE // 2), np.float32)
    fine = np.empty((len(thumbnails), SIDE, SIDE), np.float32)
    for start in range(0, len(thumbnails), _BLOCK):
        grey = np.stack(thumbnails[start : start + _BLOCK]).astype(np.float32)
        halves = grey.reshape(len(grey), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))
        coarse[start : start + _BLOCK], fine[start : start + _BLOCK] = _details(halves), _tapered(_details(grey))
    partners: dict[tuple[int, int], list[int]] = defaultdict(list)
    for first, second, orientation in _worth_a_look(coarse):
        partners[second, orientation].append(first)
    spectra = np.fft.rfft2(fine)
    pairs = []
    for (second, orientation), firsts in partners.items():
        found = _shifted_correlations(spectra, firsts, turned(fine[second], orientation))
        pairs += [
            AlikePair(first, second, min(1.0, likeness), orientation)
            for first, likeness in zip(firsts, found, strict=True)
            if likeness >= threshold
        ]
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def turned(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an image `[H, W, ...]` in one of `ORIENTATIONS`."""
    quarter, mirrored = divmod(orientation, 2)
    image = np.rot90(image, quarter)
    return image[:, ::-1] if mirrored else image


def clusters(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the sets of what is connected by pairs, each in order."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    items, ends = np.unique(np.array(pairs), return_inverse=True)
    first, second = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(items), len(items)))
    count, labels = connected_components(graph, directed=False)
    return sorted(items[labels == label].tolist() for label in range(count))


def _details(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the local contrast of `[N, S, S]`, each image with mean 0 and length 1 (0 where there is no detail)."""
    near, wide = _blur(images.shape[-1], _RADIUS), _blur(images.shape[-1], 2 * _RADIUS)
    differences = images - near @ images @ near.T
    variation = np.sqrt(wide @ (differences**2) @ wide.T)
    return _unit(differences / (variation + np.float32(_NOISE)))


def _tapered(details: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return details that fade a little towards the borders, where a shifted copy has something else."""
    window = np.hanning(details.shape[-1] + 2)[1:-1] ** 0.25
    return _unit(details * np.outer(window, window).astype(np.float32))


def _unit(images: NDArray[Any]) -> NDArray[np.float32]:
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True))
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-3)


def _blur(side: int, sigma: float) -> NDArray[np.float32]:
    """Return the matrix that blurs a column of `side` pixels by a Gaussian; its ends continue with the last pixel."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    matrix = np.zeros((side, side))
    for offset, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(side), np.clip(np.arange(side) + offset, 0, side - 1)), weight)
    return matrix.astype(np.float32)


def _worth_a_look(coarse: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    """Return the pairs whose coarse details correlate in some orientation, with the orientation that fits best."""
    count = len(coarse)
    flat = coarse.reshape(count, -1)
    found: list[tuple[int, int, int]] = []
    for left in range(0, count, _BLOCK):
        columns = coarse[left : left + _BLOCK].transpose(1, 2, 0)
        ways = [np.ascontiguousarray(turned(columns, way)).reshape(-1, columns.shape[2]) for way in range(8)]
        for start in range(0, left + 1, _BLOCK):
            rows = flat[start : start + _BLOCK]
            products = np.stack([rows @ way for way in ways])
            row, column = np.nonzero(products.max(axis=0) >= WORTH_A_LOOK)
            fitting = products[:, row, column].argmax(axis=0)
            found += [
                (start + int(r), left + int(c), int(way))
                for r, c, way in zip(row, column, fitting, strict=True)
                if start + r < left + c
            ]
    return found


def _shifted_correlations(spectra: NDArray[Any], indices: Sequence[int], other: NDArray[np.float32]) -> list[float]:
    """Return the largest correlation over small shifts of another image with each of some, given all spectra."""
    spectrum = np.conj(np.fft.rfft2(other))
    near = np.r_[0 : _SHIFT + 1, -_SHIFT:0]
    largest: list[float] = []
    for start in range(0, len(indices), _BLOCK):
        # The inverse transform, of rows before columns: rows that are not looked at are left out in between.
        columns = np.fft.ifft(spectra[indices[start : start + _BLOCK]] * spectrum, axis=1)[:, near]
        products = np.fft.irfft(columns, other.shape[1], axis=2)
        largest += products[..., near].max(axis=(1, 2)).tolist()
    return largest
