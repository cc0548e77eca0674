"""What a data set's masks hold all in all: which errors stop a run, which warnings it carries with it.

`segreg run` and `segreg data check` report the same: both count the pixels of each label and pass them on to `judge`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segreg.data.cache import PreprocessedDataset
from segreg.data.inspection.checks import Finding, FindingCase, in_order
from segreg.data.inspection.scan import Scanned, counts_of
from segreg.data.split import SplitName
from segreg.errors import Problem, SegregError, listed
from segreg.registry.protocols import Objects
from segreg.task import Task, label_names

MOST_LEFT_OUT = 0.10
"""Share of ignored pixels, or of objects that are ignored or left out, above which the warning is a banner."""
MOST_VOID = 0.50
"""Likewise, of pixels that the data set's own definition ignores."""


@dataclass(frozen=True, eq=False)
class SplitPixels:
    """The pixels of one split's masks, at their own size.

    Attributes:
        images: how many masks.
        pixels: of each label (`label_names`), int64 `[L]`.
        counted: pixels that are not ignored, int64 `[L]`: for each class its own if multilabel.
        total: all pixels of the masks.
        showing: masks that show each label, int64 `[L]`.
    """

    images: int
    pixels: NDArray[np.int64]
    counted: NDArray[np.int64]
    total: int
    showing: NDArray[np.int64]

    @classmethod
    def of_prepared(cls, prepared: PreprocessedDataset, indices: Sequence[int]) -> SplitPixels:
        """Return those of some samples of a prepared data set; they were counted when it was prepared."""
        rows, labels = [prepared.rows[index] for index in indices], prepared.task.label_count
        sums, total = prepared.labels[rows].sum(axis=0), sum(h * w for h, w in map(prepared.original_size, indices))
        counted = np.broadcast_to(total - sums[labels:], labels)
        return cls(len(rows), sums[:labels], counted, total, prepared.present[rows].sum(axis=0))

    @classmethod
    def of_scanned(cls, scanned: Sequence[Scanned], task: Task) -> SplitPixels:
        """Return those of the samples whose files could be read."""
        readable = [one for one in scanned if one.size is not None and one.pixels is not None]
        pixels, counted = counts_of(readable, task)
        total = sum(one.area for one in readable)
        return cls(len(readable), pixels.sum(axis=0), counted.sum(axis=0), total, (pixels > 0).sum(axis=0))

    @property
    def ignored(self) -> float:
        """Return the share of pixels that are ignored, in [0, 1]: the mean over classes if multilabel."""
        return 1 - float(self.counted.mean()) / self.total if self.total else 0.0


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a data set's masks hold all in all.

    Attributes:
        task: the classes.
        splits: the pixels of each split.
        objects: how many annotated objects the masks show; None where the data set does not say.
        findings: what is wrong, errors first.
        void: what is ignored by the data set's own definition.
    """

    task: Task
    splits: Mapping[SplitName, SplitPixels]
    objects: Objects | None
    findings: Sequence[Finding]
    void: str = ""

    def refuse_errors(self) -> None:
        """Raise what a run should not begin with.

        Raises:
            SegregError: nothing could be learned, all reasons together.
        """
        if errors := [Problem(f.what, hint=f.do) for f in self.findings if f.severity == "error"]:
            raise SegregError.of(errors)

    def with_warning(self, name: str, what: str) -> Verdict:
        """Return it with a warning more, of what the masks don't show."""
        return dataclasses.replace(self, findings=in_order([*self.findings, Finding("warning", name, what, "", "")]))

    def warnings(self) -> list[str]:
        """Return the warnings that fit into a line."""
        return [f.what for f in self.findings if f.severity == "warning" and f.name not in _ALERTS]

    def alerts(self) -> list[str]:
        """Return the warnings that must not be overlooked, each for a banner."""
        return [f"{_ALERTS[f.name]}: {f.what}" for f in self.findings if f.severity == "warning" and f.name in _ALERTS]

    def facts(self, *, width: int = 11) -> list[str]:
        """Return lines about what is ignored, cut off or left out, none where every pixel counts.

        Args:
            width: of the column that says what a line is about.
        """
        shares = [f"{_percent(each.ignored)} of {split}" for split, each in self.splits.items() if each.ignored]
        void = f" ({self.void})" if self.void else ""
        lines = [f"{'ignored':<{width}}{', '.join(shares)}{void}"] if shares else []
        return [*lines, f"{'objects':<{width}}{objects_text(self.objects)}"] if self.objects else lines

    def as_data(self) -> dict[str, Any]:
        """Return it as plain values."""
        names = label_names(self.task)
        return {
            "splits": {
                split: {
                    "images": each.images, "pixels": each.total, "ignored_share": round(each.ignored, 6),
                    "pixels_by_class": dict(zip(names, each.pixels.tolist(), strict=True)),
                    "images_by_class": dict(zip(names, each.showing.tolist(), strict=True)),
                }
                for split, each in self.splits.items()
            },
            "objects": None if self.objects is None else {
                "total": self.objects.total, "ignored": dict(self.objects.ignored),
                "left_out": dict(self.objects.left_out), "cut_off": self.objects.cut_off,
                "notes": list(self.objects.notes),
            },
            "warnings": self.warnings(),
            "alerts": self.alerts(),
        }  # fmt: skip


_ALERTS = {"pixels-ignored": "IGNORED PIXELS", "objects-left-out": "OBJECTS LEFT OUT", "split-empty": "NO FOREGROUND"}


def refuse_faults(scanned: Sequence[Scanned]) -> None:
    """Refuse what training would refuse of single samples, whatever the recipe's section `input` is.

    Raises:
        SegregError: files that can't be read, masks of another size than their image or with values that are no class.
    """
    problems = [Problem(fault.message) for one in scanned for fault in one.faults if fault.name != "unfit"]
    if problems:
        raise SegregError.of(problems, most=20, rest="more files are wrong; `segreg data check` says which")


def judge(task: Task, splits: Mapping[SplitName, SplitPixels], objects: Objects | None, void: str = "") -> Verdict:
    """Return what stops a run or should be known of its data: by the pixels of each split, and the objects.

    `void` is what the data set's own definition ignores, which may be half of the pixels before it is a warning.
    """
    known = {split: each for split, each in splits.items() if each.total}
    findings = [*_without_anything(task, known, objects), *_classes(task, known)]
    if any(each.ignored > (MOST_VOID if void else MOST_LEFT_OUT) for each in known.values()):
        shares = [f"{_percent(each.ignored)} of {split}" for split, each in known.items()]
        findings.append(Finding(
            "warning", "pixels-ignored", f"{', '.join(shares)}: so many pixels are ignored",
            "they teach nothing and are not scored: what lies there may be wrong, and no number shows it",
            "see whether they should be: which mask value is ignored, what becomes of crowds, boxes and other classes",
        ))  # fmt: skip
    if objects and objects.left_out_share > MOST_LEFT_OUT:
        findings.append(Finding(
            "warning", "objects-left-out", f"of {objects_text(objects)}",
            "what is annotated there is neither learned nor scored",
            "see whether it should be; the data set's settings say what becomes of such objects",
        ))  # fmt: skip
    return Verdict(task, splits, objects, in_order(findings), void)


_PERFECT = "a network that gives one answer everywhere would score as perfect"


def _without_anything(task: Task, splits: Mapping[SplitName, SplitPixels], objects: Objects | None) -> list[Finding]:
    """Return splits without a pixel that counts, without foreground or background: errors of what training needs."""
    findings = []
    for split, each in splits.items():
        shown = [name for name, pixels in zip(label_names(task), each.pixels, strict=True) if pixels]
        about = f"; {_percent(each.ignored)} of its pixels are ignored" if each.ignored else ""
        if not each.counted.any():
            findings.append(Finding(
                "warning" if split == "test" else "error", "split-empty" if split == "test" else "all-ignored",
                f"every pixel of {split} is ignored",
                "there is nothing to learn or to score: a loss of 0 would mean nothing",
                _way_out(task, objects, ignored=True),
            ))  # fmt: skip
        elif split == "train" and not _has_foreground(task, each):
            # A multiclass task has no class that is background by its number.
            findings.append(Finding(
                "error", "no-foreground",
                f"the masks of train show nothing but {listed(shown)}{about}" if shown
                else f"no mask of train shows {listed(task.classes)}{about}",
                _PERFECT,
                _way_out(task, objects, ignored=bool(each.ignored)),
            ))  # fmt: skip
        elif split == "train" and task.mode == "binary" and not each.pixels[0]:
            findings.append(Finding(
                "error", "no-background",
                f"the masks of train show nothing but {listed(shown)}{about}",
                _PERFECT,
                "what is ignored may be the background: see why it is, such as by a GeoTIFF's nodata value of 0, which "
                "`rio edit-info --unset-nodata` takes away" if each.ignored else _way_out(task, objects, ignored=False),
            ))  # fmt: skip
        elif not _has_foreground(task, each):
            findings.append(Finding(
                "warning", "split-empty",
                f"{split} never shows {listed([name for name in task.classes if name not in shown])}"
                + (f", nothing but {listed(shown)}{about}" if shown else about),
                f"most scores of {split} are undefined, or perfect for a network that gives one answer everywhere",
                _SPREAD,
            ))  # fmt: skip
    return findings


def _has_foreground(task: Task, each: SplitPixels) -> bool:
    if task.mode == "multiclass":
        return int((each.pixels > 0).sum()) > 1
    return bool(each.pixels[-len(task.classes) :].any())


def _way_out(task: Task, objects: Objects | None, *, ignored: bool) -> str:
    if objects and objects.left_out_share:
        return f"of {objects_text(objects)}"
    if ignored:
        name = task.classes[-1]
        return (
            f'255 in a mask means ignored. If it means "{name}" here, say so: with mask files by '
            f"`values: {{{task.classes[0] if task.mode == 'multiclass' else 'background'}: 0, {name}: 255}}`, in a "
            "plugin's read_mask by `(mask == 255).astype(np.uint8)`"
        )
    return "look at the masks, and at how their values become classes; `segreg data check` shows each class's share"


def _classes(task: Task, splits: Mapping[SplitName, SplitPixels]) -> list[Finding]:
    """Return classes that nobody shows, that training never sees, and that a split has no score for."""
    names = label_names(task)
    there = {split: {n for n, p in zip(names, each.pixels, strict=True) if p} for split, each in splits.items()}
    images = sum((each.showing for each in splits.values()), np.zeros(len(names), np.int64))
    few = {name: int(count) for name, count in zip(names, images, strict=True) if count < len(splits)}
    findings = []
    if splits and (never := [name for name in names if not any(name in shown for shown in there.values())]):
        findings.append(Finding(
            "warning", "class-never-present", f"no mask shows {listed(never)}",
            "the network can't learn it, and scores averaged over classes have to leave it out",
            "look at the class names and at how mask values become classes; leave out what is not there",
            tuple(FindingCase(name) for name in never),
        ))  # fmt: skip
    trained = there.get("train")
    for split in ("val", "test"):
        if split not in there or trained is None:
            continue
        if unseen := [name for name in names if name in there[split] - trained]:
            findings.append(Finding(
                "warning", "class-not-in-train",
                f"{split} shows {listed(unseen)}, and train never does{_too_few(unseen, few)}",
                "the network is asked for what it was never taught",
                _SPREAD,
                tuple(FindingCase(name) for name in unseen),
            ))  # fmt: skip
        absent = [name for name in names if name in trained - there[split]]
        if absent and _has_foreground(task, splits[split]):
            findings.append(Finding(
                "warning", "class-not-in-split", f"{split} never shows {listed(absent)}{_too_few(absent, few)}",
                f"there is no score for it on {split}",
                _SPREAD,
                tuple(FindingCase(name) for name in absent),
            ))  # fmt: skip
    return findings


_SPREAD = "split otherwise: split.stratify: true spreads rare classes, and so can split.lists; or larger shares"


def _too_few(names: Sequence[str], few: Mapping[str, int]) -> str:
    """Return ": only 1 image shows it", of classes that fewer images show than there are splits."""
    counts = [few[name] for name in names if name in few]
    if not counts:
        return ""
    if len(names) == 1:
        return f": only {counts[0]} image{'s show' if counts[0] > 1 else ' shows'} it"
    rare = [f"{few[name]} of {name}" for name in names if name in few]
    return f": there are only so few images, {listed(rare, quote='')}"


def objects_text(objects: Objects) -> str:
    """Return "8 objects: 4 ignored (their iscrowd is 1); a note", or "8 objects, all drawn"."""
    parts = [f"{count} ignored ({why})" for why, count in objects.ignored.items()]
    parts += [f"{count} left out ({why})" for why, count in objects.left_out.items()]
    parts += [f"{objects.cut_off} cut off at the image's border"] if objects.cut_off else []
    text = f"{objects.total} objects{': ' if parts else ', all drawn'}{', '.join(parts)}"
    return "; ".join([text, *objects.notes])


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%" if share < 1 else "100%"
