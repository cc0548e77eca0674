"""The whole check of a data set: every sample read once, every finding reported, and the numbers beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segreg.config.sections import Input, Split
from segreg.data import SPLITS, SplitName, divide
from segreg.data.inspection.checks import (
    Case,
    Finding,
    class_findings,
    fault_findings,
    in_order,
    odd_findings,
    summary,
)
from segreg.data.inspection.class_shares import FORMULAS, ClassShare, class_shares, suggested_weights
from segreg.data.inspection.leaks import AlikePair, duplicate_findings, group_findings, sides_by_index
from segreg.data.inspection.scan import Scanned, scan
from segreg.errors import SegregError
from segreg.registry.protocols import Dataset
from segreg.runtime.progress import Progress


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to know of a data set before anything is trained on it.

    Attributes:
        dataset: the data set.
        sides: the samples of each side, as indices; empty where the data could not be split.
        shares: each class's share of all images under "all", and of each side.
        weights: suggested weights by formula, of the training split (of all where there is no split).
        sizes: how many images have each size, the most frequent first.
        formats: how many images have each depth and number of channels.
        findings: what was found, errors first.
        pairs: samples that show the same thing, those across sides first.
    """

    dataset: Dataset
    sides: Mapping[SplitName, Sequence[int]]
    shares: Mapping[str, Sequence[ClassShare]]
    weights: Mapping[str, Sequence[float | None]]
    sizes: Mapping[str, int]
    formats: Mapping[str, int]
    findings: Sequence[Finding]
    pairs: Sequence[AlikePair]

    @property
    def in_error(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == "error" for finding in self.findings)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        names = [share.name for share in self.shares["all"]]
        weighted = names if self.dataset.task.mode == "multiclass" else list(self.dataset.task.classes)
        samples = self.dataset.samples
        return {
            "notice": self.dataset.notice,
            "mode": self.dataset.task.mode,
            "images": len(samples),
            "sides": {side: len(indices) for side, indices in self.sides.items()},
            "sizes": dict(self.sizes),
            "formats": dict(self.formats),
            "classes": {
                side: [
                    {"name": s.name, "pixels": s.pixels, "share": s.share, "images": s.images,
                     "image_share": s.image_share} for s in shares
                ] for side, shares in self.shares.items()
            },
            "weights": {
                name: {"formula": FORMULAS[name], "of": "train" if self.sides else "all",
                       "values": dict(zip(weighted, values, strict=True))}
                for name, values in self.weights.items()
            },
            "findings": [finding.as_data() for finding in self.findings],
            "pairs": [
                {"ids": [samples[p.first].id, samples[p.second].id], "likeness": round(p.likeness, 4),
                 "orientation": p.orientation, "across_sides": p.across} for p in self.pairs
            ],
        }  # fmt: skip

    def lines(self, *, most: int = 5) -> list[str]:
        """Return it as lines to print, with the first `most` cases of each finding."""
        task = self.dataset.task
        told = [f"{len(self.dataset.samples)} images, {task.mode}: {', '.join(task.classes)}"]
        if self.dataset.notice:
            told.append(f"notice: {self.dataset.notice}")
        told += [f"  split     {_numbered(self.sides)}"] if self.sides else []
        told += [f"  sizes     {_counted(self.sizes)}", f"  channels  {_counted(self.formats)}", ""]
        told += [*self._table(), *self._weights(), ""]
        for finding in self.findings:
            told += [*finding.lines(most=most), ""]
        return [*told, summary(self.findings)]

    def _table(self) -> list[str]:
        """Return each class's share of pixels and images, overall and on each side."""
        columns = ["all", *(side for side in SPLITS if side in self.shares)]
        width = max(9, *(len(share.name) for share in self.shares["all"])) + 2
        head = "".join(f"{f'{column} %':>9}" for column in columns)
        told = [f"  {'pixels':<{width}}{head}{'images':>11} that show it"]
        for k, share in enumerate(self.shares["all"]):
            row = "".join(f"{100 * self.shares[column][k].share:>9.3g}" for column in columns)
            told.append(f"  {share.name:<{width}}{row}{share.images:>11} ({100 * share.image_share:.3g} %)")
        return told

    def _weights(self) -> list[str]:
        of = "train" if self.sides else "all images"
        told = []
        for name, values in self.weights.items():
            words = ", ".join("none" if value is None else f"{value:g}" for value in values)
            told += [f"  weights by {name} of {of}: [{words}]", f"    {FORMULAS[name]}"]
        return ["", *told] if told else []


def inspect(
    dataset: Dataset,
    split: Split,
    input: Input,  # noqa: A002
    *,
    progress: Progress,
) -> Report:
    """Read a whole data set and report everything that is found in it.

    What training would refuse are errors, found by what training does; so is a leak that is beyond doubt. Memory grows
    by some 30 kB an image; the images themselves are read in threads, one after the other thrown away.

    Raises:
        SegregError: the data set has no samples, or two with one id.
    """
    if not dataset.samples:
        raise SegregError("the data set has no samples")
    findings: list[Finding] = []
    sides = _sides(dataset, split, findings)
    side_of = sides_by_index(sides)
    chosen = sorted(side_of) if side_of else list(range(len(dataset.samples)))
    if left := len(dataset.samples) - len(chosen):
        findings.append(Finding(
            "note", "unused", f"{left} of {len(dataset.samples)} images are in no split",
            "they are neither trained on nor scored, and were not looked at here",
            "split.method: random takes all; split.lists names those that are used",
        ))  # fmt: skip
    scanned = scan(dataset, input, chosen, progress=progress)
    by_index = {one.index: one for one in scanned}
    on_sides: dict[SplitName, list[Scanned]] = {side: [by_index[i] for i in indices] for side, indices in sides.items()}
    findings += fault_findings(dataset, scanned)
    findings += odd_findings(dataset, scanned, input)
    findings += class_findings(dataset, on_sides or {"train": scanned})
    findings += group_findings(dataset, side_of)
    with progress.watch("comparing images", None, "images"):
        duplicates, pairs = duplicate_findings(dataset, scanned, side_of)
    shares = {"all": class_shares(scanned, dataset.task)}
    shares |= {side: class_shares(found, dataset.task) for side, found in on_sides.items() if found}
    sizes = Counter(f"{one.size[0]}x{one.size[1]}" for one in scanned if one.size)
    return Report(
        dataset=dataset,
        sides=sides,
        shares=shares,
        weights=suggested_weights(on_sides.get("train", scanned), dataset.task),
        sizes=dict(sizes.most_common()),
        formats=dict(Counter(one.format for one in scanned if one.format).most_common()),
        findings=in_order([*findings, *duplicates]),
        pairs=pairs,
    )


def _sides(dataset: Dataset, split: Split, findings: list[Finding]) -> dict[SplitName, list[int]]:
    """Return the split's sides, or notes why there are none and gives the data set's own where it has them."""
    try:
        return divide(dataset, split)
    except SegregError as error:
        own: dict[SplitName, list[int]] = {
            side: [i for i, sample in enumerate(dataset.samples) if sample.split == side] for side in SPLITS
        }
        whole = split.method in ("auto", "dataset") and sum(map(len, own.values())) == len(dataset.samples)
        divided = whole and any(f.name == "group-across-sides" for f in group_findings(dataset, sides_by_index(own)))
        if not divided:  # which is told group by group
            findings.append(Finding(
                "error", "split-refused", "the data could not be split", "training stops before its first step",
                "fix the recipe's section split as the message says",
                tuple(Case(str(problem)) for problem in error.problems),
            ))  # fmt: skip
        return own if whole else {}


def _numbered(sides: Mapping[SplitName, Sequence[int]]) -> str:
    return ", ".join(f"{side} {len(indices)}" for side, indices in sides.items())


def _counted(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:6]]
    return ", ".join([*shown, *([f"and {len(counts) - 6} more"] if len(counts) > 6 else [])]) or "none could be read"
