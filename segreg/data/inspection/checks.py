"""What is found in a data set's samples, one by one: damaged files, wrong masks, odd images, classes nobody shows."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from segreg.config.sections import Input
from segreg.data.inspection.scan import Scanned
from segreg.data.resize import format_size
from segreg.errors import listed, plural
from segreg.registry.protocols import Dataset, Sample
from segreg.runtime.layout import Styled
from segreg.task import BACKGROUND, label_names

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
STRETCHED = 1.5
"""Change of the aspect ratio from which a stretched image is reported."""


@dataclass(frozen=True)
class FindingCase:
    """One instance of a finding.

    Attributes:
        message: the case in a line, with the names of its files; what to do about it in lines below.
        files: its files.
        ids: the samples concerned.
    """

    message: str
    files: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What was found, with every instance of it.

    Attributes:
        severity: `error` where training would stop or scores would be worthless, `warning` where someone should look,
            `note` where it is good to know.
        name: a short name that stays, such as "sizes-differ".
        what: it in a line.
        why: what comes of it.
        do: what to do.
        cases: the instances, with their files.
    """

    severity: Severity
    name: str
    what: str
    why: str
    do: str
    cases: tuple[FindingCase, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return it as plain values."""
        cases = [{"message": case.message, "files": list(case.files), "ids": list(case.ids)} for case in self.cases]
        return {**asdict(self), "cases": cases}

    def lines(self, *, most: int = 5) -> list[str]:
        """Return it as lines to print, with the first `most` cases."""
        colour = {"error": "red", "warning": "yellow"}.get(self.severity, "")
        lines: list[str] = [Styled(f"{self.severity}: {self.what} [{self.name}]", colour)]
        lines += [line for case in self.cases[:most] for line in textwrap.indent(case.message, " " * 4).splitlines()]
        if len(self.cases) > most:
            lines.append(f"    and {len(self.cases) - most} more; --all prints them, --json too")
        for word, text in (("why", self.why), ("do", self.do)):
            lines.append(f"  {word + ':':<5}{text}")
        return lines


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return errors first, then warnings, then notes."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def counted(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that have cases, with the number of these."""
    return [replace(one, what=f"{one.what}: {len(one.cases)}") for one in findings if one.cases]


def summary(findings: Sequence[Finding]) -> str:
    """Return "1 error, 2 warnings and no note"."""
    counts = Counter(finding.severity for finding in findings)
    return listed([f"{counts[s] or 'no'} {s}{'s' * (counts[s] > 1)}" for s in SEVERITIES], quote="")


# name: what, why, what to do
_FAULTS: dict[str, tuple[str, str, str]] = {
    "image-unreadable": (
        "images that can't be read",
        "training stops before its first step",
        "fetch or export them again, or take them out of the data set",
    ),
    "mask-missing": (
        "images without a mask",
        "nothing can be learned from an image without its truth, and training refuses it",
        "add the masks, or take the images out of the data set",
    ),
    "mask-unreadable": (
        "masks that can't be read",
        "training stops before its first step",
        "fetch or export them again, or take their images out of the data set",
    ),
    "mask-values": (
        "masks with values that are no class",
        "a pixel that is not a class can't be learned; training refuses it rather than guess",
        "name every class in the recipe, say which value is ignored, or fix the masks",
    ),
    "sizes-differ": (
        "masks of another size than their image",
        "the outline would not lie on what it outlines; training refuses it",
        "export image and mask at one size; where only one was turned, look at its Exif orientation",
    ),
    "unfit": (
        "images that don't go with the recipe's section input",
        "training refuses them rather than lose or invent something",
        "set input.channels, input.sixteen_bit or input.resize as each line says",
    ),
}

# name: severity, what, why, what to do
_ODD: dict[str, tuple[Severity, str, str, str]] = {
    "mask-ignored": (
        "warning",
        "masks that are ignored as a whole",
        "such images cost time and teach nothing",
        "take them out, or fix what makes their pixels 255",
    ),
    "mask-empty": (
        "warning",
        "masks without a pixel of any class",
        "a mask that was never drawn looks like this; it is right where there is nothing to see",
        "look at them; take out those whose image does show something",
    ),
    "image-blank": (
        "warning",
        "images with one value everywhere",
        "nothing can be seen in them",
        "take them out, or export them again",
    ),
    "lost-by-resizing": (
        "warning",
        "masks that lose a class when they are resized to {size}",
        "what is smaller than a pixel of the input can neither be learned nor found",
        "enlarge input.size, or crop the images into pieces",
    ),
    "mask-of-one-class": (
        "note",
        "masks of a single class from border to border",
        "a mask that was never finished looks like this",
        "look at them",
    ),
    "alpha-dropped": (
        "note",
        "images with an alpha channel that is left out",
        "it is full everywhere, so that nothing is lost by it",
        "set input.channels: 4 if the network should have it",
    ),
    "stretched": (
        "note",
        f"images whose aspect ratio {{size}} changes by a factor above {STRETCHED}",
        "round things become oval, differently in each image",
        "set input.resize: letterbox, or give input.size the images' aspect ratio",
    ),
    "enlarged": (
        "note",
        "images smaller than the network's input, {size}",
        "the network computes on pixels that were not there",
        "a smaller input.size is faster and as good",
    ),
}


def fault_findings(dataset: Dataset, scanned: Sequence[Scanned]) -> list[Finding]:
    """Return what training would refuse, a finding for each kind of fault."""
    found: dict[str, list[FindingCase]] = defaultdict(list)
    for one in scanned:
        sample = dataset.samples[one.index]
        for fault in one.faults:
            found[fault.name].append(FindingCase(fault.message, files_of(sample), (sample.id,)))
    return counted(
        [Finding("error", name, what, why, do, tuple(found[name])) for name, (what, why, do) in _FAULTS.items()]
    )


def odd_findings(dataset: Dataset, scanned: Sequence[Scanned], input: Input) -> list[Finding]:
    """Return what is allowed and seldom meant: empty masks, blank images, what resizing damages."""
    found: dict[str, list[FindingCase]] = defaultdict(list)

    def note(name: str, sample: Sample, file: Path | None, words: str = "") -> None:
        found[name].append(FindingCase(f"{file}: {words}" if words else str(file), files_of(sample), (sample.id,)))

    names, mode = label_names(dataset.task), dataset.task.mode
    for one in scanned:
        sample = dataset.samples[one.index]
        if one.drops_alpha and not one.faults:
            note("alpha-dropped", sample, sample.image)
        if one.blank:
            note("image-blank", sample, sample.image)
        if one.pixels is not None and one.counted is not None:
            there = [name for name, pixels in zip(names, one.pixels, strict=True) if pixels]
            if not one.counted.any():
                note("mask-ignored", sample, sample.mask)
            # Class 0 of a multiclass task may be a real class, so that none of its masks is called empty.
            elif (mode == "binary" and there == [BACKGROUND]) or (mode == "multilabel" and not there):
                note("mask-empty", sample, sample.mask)
            elif mode != "multilabel" and len(there) == 1:
                note("mask-of-one-class", sample, sample.mask, f"all {there[0]}")
            lost = [f"{names[k]} ({plural(int(one.pixels[k]), 'pixel')})" for k in one.lost]
            if lost:
                note("lost-by-resizing", sample, sample.mask, f"loses {listed(lost, quote='')}")
        if one.size is not None and input.resize != "none":
            (height, width), (H, W) = one.size, input.size
            ratio = (height / width) / (H / W)
            if input.resize == "stretch" and max(ratio, 1 / ratio) > STRETCHED:
                note("stretched", sample, sample.image, format_size(one.size))
            if height < H and width < W:
                note("enlarged", sample, sample.image, format_size(one.size))
    size = format_size(input.size)
    return counted([
        Finding(severity, name, what.format(size=size), why, do, tuple(found[name]))
        for name, (severity, what, why, do) in _ODD.items()
    ])  # fmt: skip


def files_of(sample: Sample) -> tuple[str, ...]:
    """Return a sample's files."""
    return tuple(str(file) for file in (sample.image, sample.mask) if file is not None)
