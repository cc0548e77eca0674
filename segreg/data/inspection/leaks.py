"""What stands on two sides of a split though it is one thing: groups, copies, images alike."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from segreg.data import SPLITS, SplitName
from segreg.data.inspection.checks import files_of
from segreg.data.inspection.findings import Case, Finding
from segreg.data.inspection.scan import Scanned
from segreg.data.inspection.similarity import MOST, ORIENTATIONS, Pair, alike_pairs, clusters
from segreg.errors import listed
from segreg.registry.protocols import Dataset

_LEAK = "the network is scored on what it was trained on, and the scores promise more than new images will give"
_GROUPS = (
    "give the images of one thing one group (a data set's setting, or a manifest's column), so that a drawn split "
)
_GROUPS += "keeps them on one side; or leave one of them out"
# Roboflow names the augmented copies of `a.jpg` `a_jpg.rf.<hash>.jpg`.
_AUGMENTED_COPY = re.compile(r"^(.+)\.rf\.[0-9a-zA-Z]{8,}$")


@dataclass(frozen=True)
class AlikePair:
    """Two samples that show the same thing, as indices into `Dataset.samples`.

    Attributes:
        first: the one.
        second: the other.
        likeness: correlation of their details; 1 where their values are the same.
        orientation: how the second must be turned to lie on the first, see `segreg.data.inspection.similarity`.
        across: whether they stand on two sides of the split.
    """

    first: int
    second: int
    likeness: float
    orientation: int
    across: bool


def group_findings(dataset: Dataset, side_of: Mapping[int, SplitName]) -> list[Finding]:
    """Return groups that stand on two sides, and sources whose copies have no group."""
    members: dict[str, list[int]] = defaultdict(list)
    sources: dict[str, list[int]] = defaultdict(list)
    for index in side_of:
        sample = dataset.samples[index]
        if sample.group is not None:
            members[sample.group].append(index)
        elif match := _AUGMENTED_COPY.match(sample.image.stem):
            sources[f"{sample.image.parent}/{match.group(1)}"].append(index)
    findings = []
    if cases := _divided(dataset, members, side_of, "group"):
        findings.append(Finding(
            "error", "group-across-sides", f"groups on two sides of the split: {len(cases)}", _LEAK,
            "move each group to one side; split.method: random keeps groups whole", cases,
        ))  # fmt: skip
    copied = {name: indices for name, indices in sources.items() if len(indices) > 1}
    if cases := _divided(dataset, copied, side_of, "source"):
        findings.append(Finding(
            "error", "augmented-copies-across-sides",
            f"images with augmented copies on two sides of the split, by their names (.rf.): {len(cases)}", _LEAK,
            "set the group by a regular expression such as ^(.*)[.]rf[.], so that copies of a source have one group",
            cases,
        ))  # fmt: skip
    return findings


def duplicate_findings(
    dataset: Dataset, scanned: Sequence[Scanned], side_of: Mapping[int, SplitName]
) -> tuple[list[Finding], list[AlikePair]]:
    """Return images that are there twice or nearly so, and all such pairs, those across sides first."""
    same = _same_images(scanned)
    findings = _same_findings(dataset, same, scanned, side_of)
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
        pairs = [_pair(p, readable, side_of) for p in found]
        near = [p for p in pairs if twins.get(p.first, -1) != twins.get(p.second, -2)]
        findings += _near_findings(dataset, near, side_of)
    exact = [
        AlikePair(a.index, b.index, 1.0, 0, side_of.get(a.index) != side_of.get(b.index))
        for indices in same
        for a, b in pairwise(indices)
    ]
    return findings, sorted([*exact, *near], key=lambda p: (not p.across, -p.likeness, p.first, p.second))


def _same_images(scanned: Sequence[Scanned]) -> list[list[Scanned]]:
    by_digest: dict[str, list[Scanned]] = defaultdict(list)
    for one in scanned:
        if one.image_digest and not one.blank:
            by_digest[one.image_digest].append(one)
    return [found for found in by_digest.values() if len(found) > 1]


def _same_findings(
    dataset: Dataset, same: Sequence[Sequence[Scanned]], scanned: Sequence[Scanned], side_of: Mapping[int, SplitName]
) -> list[Finding]:
    sets = [[one.index for one in found] for found in same]
    across = [indices for indices in sets if len({side_of.get(i) for i in indices}) > 1]
    within = [indices for indices in sets if len({side_of.get(i) for i in indices}) == 1]
    findings = []
    if across:
        findings.append(Finding(
            "error", "duplicate-across-sides",
            f"images that are there again on another side of the split: {len(across)}",
            _LEAK, _GROUPS, tuple(_case(dataset, indices, side_of) for indices in across),
        ))  # fmt: skip
    if within:
        findings.append(Finding(
            "warning", "duplicate", f"images that are there again on the same side: {len(within)}",
            "they count for more than the others, and another split would divide them",
            "leave all but one of them out, or give them one group",
            tuple(_case(dataset, indices, side_of) for indices in within),
        ))  # fmt: skip
    mask_of = {one.index: one.mask_digest for one in scanned}
    unlike = [indices for indices in sets if len({mask_of[i] for i in indices if mask_of[i]}) > 1]
    if unlike:
        findings.append(Finding(
            "warning", "duplicate-with-other-mask", f"images that are there again with another mask: {len(unlike)}",
            "one and the same image is taught, and scored, by two truths",
            "keep the better mask of each",
            tuple(_case(dataset, indices, side_of) for indices in unlike),
        ))  # fmt: skip
    return findings


def _near_findings(dataset: Dataset, near: Sequence[AlikePair], side_of: Mapping[int, SplitName]) -> list[Finding]:
    findings = []
    if across := [pair for pair in near if pair.across]:
        findings.append(Finding(
            "warning", "near-duplicate-across-sides",
            f"pairs of images on two sides of the split that show the same thing: {len(across)}", _LEAK,
            f"look at them (--out draws them); {_GROUPS}",
            tuple(_pair_case(dataset, pair, side_of) for pair in across),
        ))  # fmt: skip
    grouped = {index: dataset.samples[index].group for pair in near for index in (pair.first, pair.second)}
    loose = [p for p in near if not p.across and (grouped[p.first] is None or grouped[p.first] != grouped[p.second])]
    if loose:
        sets = clusters([(pair.first, pair.second) for pair in loose])
        likeness: dict[int, float] = {}
        for pair in loose:
            for index in (pair.first, pair.second):
                likeness[index] = max(pair.likeness, likeness.get(index, 0.0))
        findings.append(Finding(
            "note", "near-duplicate",
            f"sets of images on one side, without a group, that show the same thing: {len(sets)}",
            "another split would divide them",
            "look at them (--out draws them), and give those that are one thing one group",
            tuple(
                _case(dataset, indices, side_of, f"alike by {max(likeness[i] for i in indices):.2f}: ")
                for indices in sets
            ),
        ))  # fmt: skip
    return findings


def _divided(
    dataset: Dataset, sets: Mapping[str, Sequence[int]], side_of: Mapping[int, SplitName], word: str
) -> tuple[Case, ...]:
    return tuple(
        _case(dataset, indices, side_of, f'{word} "{name}": ')
        for name, indices in sets.items()
        if len({side_of[index] for index in indices}) > 1
    )


def _pair(pair: Pair, readable: Sequence[Scanned], side_of: Mapping[int, SplitName]) -> AlikePair:
    first, second = readable[pair.first].index, readable[pair.second].index
    return AlikePair(first, second, pair.likeness, pair.orientation, side_of.get(first) != side_of.get(second))


def _pair_case(dataset: Dataset, pair: AlikePair, side_of: Mapping[int, SplitName]) -> Case:
    way = f", the second {ORIENTATIONS[pair.orientation]}" if pair.orientation else ""
    return _case(dataset, [pair.first, pair.second], side_of, f"alike by {pair.likeness:.2f}{way}: ")


def _case(dataset: Dataset, indices: Sequence[int], side_of: Mapping[int, SplitName], before: str = "") -> Case:
    samples = [dataset.samples[index] for index in indices]
    named = [
        f"{sample.image}{f' ({side_of[index]})' if index in side_of else ''}"
        for index, sample in zip(indices, samples, strict=True)
    ]
    return Case(
        before + listed(named, quote="", most=4),
        tuple(file for sample in samples for file in files_of(sample)),
        tuple(sample.id for sample in samples),
    )


def sides_by_index(sides: Mapping[SplitName, Sequence[int]]) -> dict[int, SplitName]:
    """Return each sample's side."""
    return {index: side for side in SPLITS for index in sides.get(side, ())}
