"""`segreg data`: looks a recipe's data set over before anything is trained, or writes its split out as folders."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.cli.common import add_actions, add_parser, check_least, one_file, print_json, shown_progress
from segreg.errors import SegregError
from segreg.runtime.layout import Pasted, Styled, banners, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from segreg.config.resolve import Resolved
    from segreg.data.export import Written
    from segreg.data.inspection import Report
    from segreg.runtime.progress import Progress
    from segreg.task import Task

NAME = "data"
HELP = "check a recipe's data set, or write its split out as folders"
EXAMPLES = """examples:
  segreg data check recipes/isic_v3plus.yaml
  segreg data check recipes/isic_v3plus.yaml dataset.root=data/isic2018 --out looked_at
  segreg data split recipes/folder_v3.yaml --out data/split
  segreg data split recipes/folder_v3.yaml --out data/split --link symbolic
"""
_CHECK = "read a whole data set and tell what is wrong with it"
_CHECKED = """Every image and mask is read once. Told are, each with its files, why it matters and what to do:
files that can't be read, masks of another size or with values that are no class, empty masks, classes that nobody
shows, what resizing damages, and leaks: groups, equal and nearly equal images in two splits (also
recoloured, mirrored and turned by quarters). Beside these stand the sizes, each class's share and weights that would
even it out. The exit status is 2 where there is an error.

With --out DIR are written:
  augmented.png   training images with their masks' outlines, as the recipe's first epochs have them
  alike.png       pairs of images that look like copies of each other
  findings.json   what --json prints
"""
_SPLIT = "write the recipe's split as folders of copies or links"
_SPLITTED = """DIR gets train_split, val_split and test_split, each with images and masks, and split.csv, a manifest
with the columns id, image, mask, split and group, which the dataset `csv` reads back as the same split. Image and mask
have the sample's id as their name. Masks that are no files of class numbers (polygons, colours, instances) are written
as PNGs of class numbers, 255 for ignored pixels.

A call that was stopped continues where it was. No other file is ever replaced.

The recipe's section `split` says what goes where: its shares are of all samples. Dividing 15% off for the test and 15%
of the rest for validation is split.test=0.15 split.val=0.1275. The samples are drawn by a hash of the seed and their
ids. What scikit-learn's train_test_split draws is split.method=train_test_split split.test=0.15 split.val=0.15, where
the second share is of the rest.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = add_actions(parser)
    for name, help_, description in (("check", _CHECK, _CHECKED), ("split", _SPLIT, _SPLITTED)):
        added = add_parser(actions, name, help_, "", more=description)
        added.add_argument("words", nargs="+", metavar="RECIPE|key.path=value", help="a recipe file, and overrides")
        if name == "check":
            added.add_argument("--out", type=Path, metavar="DIR", help="folder for the images to look at")
            added.add_argument("--samples", type=int, default=6, help="training images in augmented.png (6)")
            added.add_argument("--draws", type=int, default=5, help="augmented draws of each (5)")
            added.add_argument("--all", action="store_true", help="print every case, not the first five of each")
        else:
            added.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder that gets the split")
            added.add_argument(
                "--link", choices=("copy", "hard", "symbolic"), default="copy",
                help="copy files, or link to them: hard on one disk, symbolic anywhere (copy)",
            )  # fmt: skip
        added.add_argument("--json", action="store_true", help="print JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.config.resolve import read_resolved

    resolved = read_resolved(*one_file(chosen.words, f"data {chosen.action}", "recipe.yaml"))
    shown = shown_progress(quiet=chosen.json)
    return _check(chosen, resolved, shown) if chosen.action == "check" else _split(chosen, resolved, shown)


def _check(chosen: argparse.Namespace, recipe: Resolved, progress: Progress) -> int:
    from segreg.runs.assembly import check_data

    check_least(chosen, 1, "samples", "draws")
    if chosen.out:
        _make(chosen.out)  # before all of the data are read
    report = check_data(recipe, progress)
    written: list[Path] = []
    try:
        written = _write_sheets(chosen, recipe, report) if chosen.out else []
    finally:  # a full disk does not cost the report
        if chosen.json:
            print_json({**report.as_data(), "written": [str(file) for file in written]})
        else:
            lines = report.lines(most=sys.maxsize if chosen.all else 5)
            show(*banners(*report.verdict.alerts()), *lines, *(f"wrote {file}" for file in written))
    return 2 if report.in_error else 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SegregError(f"{folder} can't be written: {error.strerror}") from None


def _write_sheets(chosen: argparse.Namespace, recipe: Resolved, report: Report) -> list[Path]:
    from segreg.data import Crops
    from segreg.data.inspection.sheets import contact_sheet, pair_sheet
    from segreg.data.mixing import Mixing
    from segreg.models.build import build_augmentations, build_batch_augmentations
    from segreg.runtime.files import write_json
    from segreg.visualize.fonts import saying_boxes

    dataset, out = report.dataset, chosen.out
    mixing = Mixing(build_batch_augmentations(recipe, dataset.task), recipe.seed)
    train = report.splits.get("train") or range(len(dataset.samples))

    def augmented() -> Figure:
        return contact_sheet(
            dataset, train, recipe.input, build_augmentations(recipe),
            seed=recipe.seed, samples=chosen.samples, draws=chosen.draws,
            crops=Crops(recipe.input, recipe.crop, dataset.task) if recipe.input.resize == "crop" else None,
            mix=mixing.of_samples if recipe.batch_augment else None,
        )  # fmt: skip

    def alike() -> Figure | None:
        return pair_sheet(dataset, report.pairs, report.splits, recipe.input) if report.pairs else None

    drawn: dict[str, Figure | None] = {}
    for name, draw in (("augmented.png", augmented), ("alike.png", alike)):
        try:
            drawn[name] = draw()
        except SegregError:
            if not report.in_error:  # which says why there is nothing to show
                raise
            drawn[name] = None
    sheets = {name: sheet for name, sheet in drawn.items() if sheet is not None}
    _make(out)
    try:
        for name in drawn.keys() - sheets.keys():  # of an earlier check, where there is nothing to show any more
            (out / name).unlink(missing_ok=True)
        with saying_boxes():
            for name, sheet in sheets.items():
                sheet.savefig(out / name)
        write_json(out / "findings.json", report.as_data())
    except OSError as error:
        raise SegregError(f"{out} can't be written: {error.strerror}") from None
    return [out / name for name in (*sheets, "findings.json")]


def _split(chosen: argparse.Namespace, recipe: Resolved, progress: Progress) -> int:
    from segreg.config.recipe import to_yaml
    from segreg.data.export import MANIFEST, write_split
    from segreg.data.inspection.gate import SplitPixels, judge, refuse_faults
    from segreg.data.inspection.scan import scan
    from segreg.models.build import build_dataset
    from segreg.runs.assembly import split_of

    dataset = build_dataset(recipe)
    splits = split_of(recipe, dataset, progress)
    every = sorted(index for indices in splits.values() for index in indices)
    scanned = {one.index: one for one in scan(dataset, recipe.input, every, progress=progress)}
    refuse_faults(list(scanned.values()))
    pixels = {
        split: SplitPixels.of_scanned([scanned[index] for index in indices], dataset.task)
        for split, indices in splits.items()
    }
    verdict = judge(dataset.task, pixels, dataset.objects, dataset.void)
    verdict.refuse_errors()
    written = write_split(dataset, splits, chosen.out, link=chosen.link, progress=progress)
    row = {
        "out": str(written.out), "manifest": str(written.out / MANIFEST), "splits": dict(written.splits),
        "files": written.files, "made": written.made, "masks": written.form, "ignored_pixels": written.ignored,
        "classes": list(dataset.task.classes), "mode": dataset.task.mode, "notice": dataset.notice,
        "dataset": None if written.form == "layers" else _read_back(written, dataset.task),
        "alerts": verdict.alerts(), "warnings": verdict.warnings(),
    }  # fmt: skip
    if chosen.json:
        print_json(row)
        return 0
    show(*banners(dataset.notice, *verdict.alerts()))
    show(*(Styled(f"warning: {warning}", "yellow") for warning in verdict.warnings()))
    counts = ", ".join(f"{split} {count}" for split, count in written.splits.items())
    show(f"{counts} in {written.out}: {written.made} of {written.files} files made, the others were there")
    forms = {
        "files": "masks are the data set's own files",
        "index": "masks are PNGs of class numbers" + (", 255 where ignored" if written.ignored else ""),
        "layers": "masks are PNGs of 0 and 1, a folder for each class",
    }
    show(f"{forms[written.form]}; the manifest is {row['manifest']}")
    if row["dataset"]:
        show("a recipe reads it back by", "", Pasted(to_yaml({"dataset": row["dataset"]}).rstrip("\n")))
    return 0


def _read_back(written: Written, task: Task) -> dict[str, Any]:
    """Return the section of a recipe for the manifest of a split that was written."""
    from segreg.data.export import MANIFEST
    from segreg.task import IGNORE_INDEX

    few = written.ignored and len(task.classes) < 3  # where 255 might be the foreground
    section = {"name": "csv", "manifest": str(written.out / MANIFEST), "classes": list(task.classes)}
    return section | ({"ignore_index": IGNORE_INDEX} if few else {})
