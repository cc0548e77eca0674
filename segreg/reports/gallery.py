"""A report's images: curves, confusion matrix, and images with truth and prediction, the worst and the best first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segreg.reports.elements import Html, element, image, number
from segreg.reports.material import Material
from segreg.reports.scores import rank_key

DIAGRAMS = {
    "confusion.png": "Confusion matrix: which class pixels truly have, and which was predicted",
    "roc_pr_curves.png": "ROC and precision-recall curves",
    "reliability.png": "Reliability: how often the network is right where it is that sure",
}
"""Images that the folder of a run or of an evaluation may have, and what is said of them."""
_BROAD = 800
_MOST = 8
"""Overlays of a group that are embedded; more make a page that no browser likes."""


def curves(material: Material) -> Html:
    """Return the image of the history; empty where there is none."""
    file = material.directory.curves
    if not file.is_file():
        return Html("")
    return element("div", _figure(file, "Losses, scores and learning rates over the epochs"), class_="curves")


def diagrams(folder: Path) -> Html:
    """Return the diagrams that a folder has; empty without any."""
    drawn = [_figure(folder / name, words) for name, words in DIAGRAMS.items() if (folder / name).is_file()]
    return element("div", drawn, class_="gallery") if drawn else Html("")


def overlays(material: Material) -> Html:
    """Return images with truth and prediction: the worst, the best, and some drawn at random; empty without any."""
    folder = material.directory.overlays
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not files:
        return Html("")
    columns = material.scored.columns()
    first = columns[0] if columns else ""
    ordered = sorted(material.scored.per_image, key=lambda row: rank_key(row[first])) if first else []
    groups = _groups(files, material.results.get("overlays") or {}, material.results.get("seed"))
    shown = [file for members in groups.values() for file in members[:_MOST]]
    pieces = [element("p", f"By {first}, the recipe's first metric." if first else "By the recipe's first metric.")]
    if len(shown) < len(files):
        pieces.append(element("p", f"{len(shown)} of {len(files)}; overlays/ has all.", class_="note"))
    for heading, members in groups.items():
        if members:
            pieces += [element("h3", heading), *(_overlay(file, ordered, columns) for file in members[:_MOST])]
    return element("div", pieces, class_="overlays")


def ends(folder: Path, most: int) -> Html:
    """Return the worst and the best images of an evaluation; empty where it has drawn none."""
    pieces: list[Html] = []
    for heading, name in (("Worst", "worst"), ("Best", "best")):
        if files := sorted((folder / name).glob("*.png"))[:most]:
            pieces += [element("h4", heading), *(_overlay(file, (), ()) for file in files)]
    if not pieces:
        return Html("")
    shown = element("div", pieces, class_="overlays")
    return element("details", element("summary", f"the worst and the best images, {most} each at most"), shown)


def _groups(files: Sequence[Path], told: Mapping[str, Sequence[Any]], seed: Any) -> dict[str, list[Path]]:
    """Return the overlays by why they were drawn, as the results tell it."""
    of_stem: dict[str, list[Path]] = {}
    for file in files:
        of_stem.setdefault(file.stem.partition("_")[2], []).append(file)

    def named(why: str) -> list[Path]:
        found = [of_stem.get(_as_file_name(str(identity)), []) for identity in told.get(why, ())]
        return [candidates[0] for candidates in found if len(candidates) == 1]

    groups = {
        "Worst": named("worst"),
        "Best": named("best"),
        f"Drawn at random from the others, by seed {seed}": named("random"),
    }
    known = {file for members in groups.values() for file in members}
    heading = "Others, from the worst to the best" if known else "From the worst to the best"
    return {**groups, heading: [file for file in files if file not in known]}


def _overlay(file: Path, ordered: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Html:
    stem = file.stem.partition("_")[2] or file.stem
    # As the name of the file was made from the id; two ids may have become one name.
    found = [(rank, row) for rank, row in enumerate(ordered, start=1) if _as_file_name(str(row["id"])) == stem]
    caption: list[Html | str] = [element("b", stem)]
    if len(found) == 1:
        rank, row = found[0]
        scores = ", ".join(f"{name} {number(row[name])}" for name in columns)
        caption = [element("b", str(row["id"])), f" {scores}; {rank} of {len(ordered)} from the worst"]
    shown = element("div", image(file, alt=f"image, truth and prediction of {stem}"), class_="wide")
    return element("figure", element("figcaption", caption), shown)


def _as_file_name(identity: str) -> str:
    return re.sub(r"[^\w.-]+", "_", identity)[:80]


def _figure(file: Path, words: str) -> Html:
    shown = image(file, alt=words)
    caption, frame = element("figcaption", words), element("div", shown, class_="wide")
    return element("figure", caption, frame, class_="broad" if _is_broad(file) else None)


def _is_broad(file: Path) -> bool:
    """Whether a diagram's words would be too small to read in half of the page's width."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            return opened.width > _BROAD
    except (OSError, ValueError):
        return False
