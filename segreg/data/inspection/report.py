"""The whole check of a data set: every sample read once, every finding reported, and the numbers beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segreg.config.sections import Input, Split
from segreg.data import SPLITS, SplitName, divide
from segreg.data.inspection.checks import Finding, FindingCase, fault_findings, in_order, odd_findings, summary
from segreg.data.inspection.gate import SplitPixels, Verdict, judge
from segreg.data.inspection.leaks import AlikePair, duplicate_findings, group_findings, split_by_index
from segreg.data.inspection.scan import FORMULAS, ClassShare, Scanned, class_shares, scan, suggested_weights
from segreg.data.resize import format_size
from segreg.data.values import DtypeName, common_dtype, constant_channels, refuse_foreign_statistics
from segreg.errors import SegregError, plural
from segreg.registry.protocols import Dataset
from segreg.runtime.layout import Block, Column, Table, banners, plain
from segreg.runtime.progress import Progress

TryOut = Callable[[Input, Mapping[str, tuple[int, int]]], object]


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to know of a data set before anything is trained on it.

    Attributes:
        dataset: the data set.
        splits: the samples of each split, as indices; empty where the data could not be split.
        shares: each class's share of all images under "all", and of each split.
        weights: suggested weights by formula, of the training split (of all where there is no split).
        sizes: how many images have each size, the most frequent first.
        formats: how many images have each depth and number of channels.
        ranges: the least and the largest value of each channel in all images, before they are resized.
        invalid: share of the pixels that hold nothing, and are ignored, on average over the images.
        findings: what was found, errors first.
        pairs: samples that show the same thing, those across splits first.
        verdict: what the masks hold all in all, as a run reports it too.
    """

    dataset: Dataset
    splits: Mapping[SplitName, Sequence[int]]
    shares: Mapping[str, Sequence[ClassShare]]
    weights: Mapping[str, Sequence[float | None]]
    sizes: Mapping[str, int]
    formats: Mapping[str, int]
    ranges: Sequence[tuple[float, float]]
    invalid: float
    findings: Sequence[Finding]
    pairs: Sequence[AlikePair]
    verdict: Verdict

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
            "splits": {split: len(indices) for split, indices in self.splits.items()},
            "sizes": dict(self.sizes),
            "formats": dict(self.formats),
            "ranges": [list(ends) for ends in self.ranges],
            "invalid": self.invalid,
            "classes": {split: [asdict(share) for share in shares] for split, shares in self.shares.items()},
            "weights": {
                name: {"formula": FORMULAS[name], "of": "train" if self.splits else "all",
                       "values": dict(zip(weighted, values, strict=True))}
                for name, values in self.weights.items()
            },
            "masks": self.verdict.as_data(),
            "findings": [finding.as_data() for finding in self.findings],
            "pairs": [
                {"ids": [samples[p.first].id, samples[p.second].id], "likeness": round(p.likeness, 4),
                 "orientation": p.orientation, "across_sides": p.across} for p in self.pairs
            ],
        }  # fmt: skip

    def lines(self, *, most: int = 5) -> list[Block]:
        """Return it as lines to print, with the first `most` cases of each finding."""
        task = self.dataset.task
        lines = banners(self.dataset.notice)
        lines.append(f"{plural(len(self.dataset.samples), 'image')}, {task.mode}: {', '.join(task.classes)}")
        counts = ", ".join(f"{split} {len(indices)}" for split, indices in self.splits.items())
        lines += [f"  split     {counts}"] if counts else []
        lines += [f"  sizes     {_counted(self.sizes)}", f"  channels  {_counted(self.formats)}"]
        if self.ranges:
            ends = [f"{low:.6g} to {high:.6g}" for low, high in self.ranges]
            lines.append(f"  values    {', '.join(ends) if len(set(ends)) > 1 else ends[0]}")
        if self.invalid:
            lines.append(f"  invalid   {100 * self.invalid:.3g} % of the pixels hold nothing, and are ignored")
        lines += [*(f"  {fact}" for fact in self.verdict.facts(width=10)), ""]
        lines += [self._table(), *self._weights(), ""]
        for finding in self.findings:
            lines += [*finding.lines(most=most), ""]
        return [*lines, summary(self.findings)]

    def __str__(self) -> str:
        return "\n".join(plain(self.lines()))

    def _table(self) -> Table:
        """Return each class's share of pixels and images, overall and in each split."""
        splits = ["all", *(split for split in SPLITS if split in self.shares)]
        heads = [Column(f"{split} %", right=True, least=7) for split in splits]
        rows = [
            [share.name, *(f"{100 * self.shares[split][k].share:.3g}" for split in splits), str(share.images),
             f"({100 * share.image_share:.3g} %)"]
            for k, share in enumerate(self.shares["all"])
        ]  # fmt: skip
        return Table([Column("pixels"), *heads, Column("images that show it", right=True), Column()], rows, indent=2)

    def _weights(self) -> list[str]:
        of = "train" if self.splits else "all images"
        lines = []
        for name, values in self.weights.items():
            words = ", ".join("none" if value is None else f"{value:g}" for value in values)
            lines += [f"  weights by {name} of {of}: [{words}]", f"    {FORMULAS[name]}"]
        return ["", *lines] if lines else []


def inspect(
    dataset: Dataset, split: Split, input: Input, *, progress: Progress, try_out: TryOut | None = None
) -> Report:
    """Read a whole data set and report everything that is found in it.

    What training would refuse are errors, found by what training does; so is a leak that is beyond doubt. Memory grows
    by some 30 kB an image; the images themselves are read in threads, one after the other thrown away.

    Args:
        dataset: what is read.
        split: the recipe's section.
        input: the recipe's section.
        progress: shows how far it is.
        try_out: raises SegregError if training would refuse its settings, given `input` with the type of the values,
            and the training images' heights and widths by their ids.

    Raises:
        SegregError: the data set has no samples, or two with one id.
    """
    if not dataset.samples:
        raise SegregError("the data set has no samples")
    findings: list[Finding] = []
    by_index: dict[int, Scanned] = {}

    def present() -> NDArray[np.bool_]:
        """Return which labels each mask shows, none where it can't be read, and remember what was read."""
        by_index.update(
            {one.index: one for one in scan(dataset, input, range(len(dataset.samples)), progress=progress)}
        )
        nothing = np.zeros(dataset.task.label_count, np.int64)
        return np.array([nothing if one.pixels is None else one.pixels for one in by_index.values()]) > 0

    splits = _splits(dataset, split, findings, present)
    split_of = split_by_index(splits)
    chosen = sorted(split_of) if split_of else list(range(len(dataset.samples)))
    if left := len(dataset.samples) - len(chosen):
        findings.append(Finding(
            "note", "unused", f"{left} of {len(dataset.samples)} images are in no split",
            "they are neither trained on nor scored, and were not looked at here",
            "split.method: random takes all; split.lists names those that are used",
        ))  # fmt: skip
    scanned = [by_index[i] for i in chosen] if by_index else scan(dataset, input, chosen, progress=progress)
    by_index = {one.index: one for one in scanned}
    by_split: dict[SplitName, list[Scanned]] = {
        split: [by_index[i] for i in indices] for split, indices in splits.items()
    }
    findings += fault_findings(dataset, scanned)
    findings += _refused(dataset, scanned, by_split.get("train", scanned), input, try_out)
    findings += odd_findings(dataset, scanned, input)
    of_splits = {split: SplitPixels.of_scanned(found, dataset.task) for split, found in by_split.items()}
    whole: dict[SplitName, SplitPixels] = {"train": SplitPixels.of_scanned(scanned, dataset.task)}
    verdict = judge(dataset.task, of_splits or whole, dataset.objects, dataset.void)
    findings += verdict.findings
    findings += group_findings(dataset, split_of)
    if input.normalize == "dataset" and input.mean is None:
        findings += _constant_channels(by_split.get("train", scanned))
    with progress.watch("comparing images", None, "images"):
        duplicates, pairs = duplicate_findings(dataset, scanned, split_of)
    shares = {"all": class_shares(scanned, dataset.task)}
    shares |= {split: class_shares(found, dataset.task) for split, found in by_split.items() if found}
    sizes = Counter(format_size(one.size) for one in scanned if one.size)
    return Report(
        dataset=dataset,
        splits=splits,
        shares=shares,
        weights=suggested_weights(by_split.get("train", scanned), dataset.task),
        sizes=dict(sizes.most_common()),
        formats=dict(Counter(one.format for one in scanned if one.format).most_common()),
        ranges=_ranges(scanned),
        invalid=sum(one.invalid for one in scanned) / len(scanned),
        findings=in_order([*findings, *duplicates]),
        pairs=pairs,
        verdict=verdict,
    )


def _refused(
    dataset: Dataset, scanned: Sequence[Scanned], train: Sequence[Scanned], input: Input, try_out: TryOut | None
) -> list[Finding]:
    """Return why training would refuse the types of all images' values together, or its settings for its images."""
    files: dict[DtypeName, Path] = {}
    for one in scanned:
        if one.dtype is not None:
            files.setdefault(one.dtype, dataset.samples[one.index].image)
    why = "training stops before its first step"
    try:
        typed = replace(input, dtype=common_dtype(files))
    except SegregError as error:
        (problem,) = error.problems
        cases = tuple(FindingCase(f"{file}: {dtype}", (str(file),)) for dtype, file in files.items())
        return [Finding("error", "types-mixed", "integers and floating-point values", why, problem.hint, cases)]
    # Beside 16-bit images, 8-bit ones get 16 bits.
    factors = [257 if (one.dtype, typed.dtype) == ("uint8", "uint16") else 1 for one in train]
    ranges = [(k * low, k * high) for k, one in zip(factors, train, strict=True) for low, high in one.ranges]
    try:
        refuse_foreign_statistics(ranges, typed)
        if try_out is not None and (sizes := {dataset.samples[o.index].id: o.size for o in train if o.size}):
            try_out(typed, sizes)
    except SegregError as error:
        cases = tuple(FindingCase(str(problem)) for problem in error.problems)
        what, do = "settings that don't go with these images", "change the recipe as the message says"
        return [Finding("error", "recipe-refused", what, why, do, cases)]
    return []


def _constant_channels(scanned: Sequence[Scanned]) -> list[Finding]:
    """Return the channels that have one value in all images, and so no statistics to normalise them by."""
    problem = constant_channels(_ranges(scanned), sum(bool(one.ranges) for one in scanned))
    why = "training stops before its first step"
    return [Finding("error", "channel-constant", problem.message, why, problem.hint)] if problem else []


def _ranges(scanned: Sequence[Scanned]) -> list[tuple[float, float]]:
    """Return the least and the largest value of each channel in all images that go with the input."""
    known = np.array([one.ranges for one in scanned if one.ranges])
    if not len(known):
        return []
    return list(zip(known[..., 0].min(axis=0).tolist(), known[..., 1].max(axis=0).tolist(), strict=True))


def _splits(
    dataset: Dataset, settings: Split, findings: list[Finding], present: Callable[[], NDArray[np.bool_]]
) -> dict[SplitName, list[int]]:
    """Return the splits, or note why there are none and return the data set's own where it has them."""
    try:
        return divide(dataset, settings, present)
    except SegregError as error:
        own: dict[SplitName, list[int]] = {
            split: [i for i, sample in enumerate(dataset.samples) if sample.split == split] for split in SPLITS
        }
        whole = settings.method in ("auto", "dataset") and sum(map(len, own.values())) == len(dataset.samples)
        divided = whole and any(f.name == "group-across-splits" for f in group_findings(dataset, split_by_index(own)))
        if not divided:  # which is reported group by group
            findings.append(Finding(
                "error", "split-refused", "the data could not be split", "training stops before its first step",
                "fix the recipe's section split as the message says",
                tuple(FindingCase(str(problem)) for problem in error.problems),
            ))  # fmt: skip
        return own if whole else {}


def _counted(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:6]]
    shown += [f"and {len(counts) - 6} more"] if len(counts) > 6 else []
    return ", ".join(shown) or "none could be read"
