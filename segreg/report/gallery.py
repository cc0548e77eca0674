"""A report's pictures: curves, confusion matrix, and images with truth and prediction, the worst and the best first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segreg.report.elements import Html, element, number, picture
from segreg.report.material import Material
from segreg.report.scores import rank_key

DIAGRAMS = {
    "confusion.png": "Confusion matrix: which class pixels truly have, and which was predicted",
    "roc_pr_curves.png": "ROC and precision-recall curves",
    "reliability.png": "Reliability: how often the network is right where it is that sure",
}
"""Pictures that a run's folder may have, and what is said of them."""
_MOST = 24
"""Overlays that are embedded; more make a page that no browser likes."""


def curves(material: Material) -> Html:
    """Gives the picture of the history; empty where there is none."""
    file = material.directory.curves
    if not file.is_file():
        return Html("")
    return element("div", _figure(file, "Losses, scores and learning rates over the epochs"), class_="curves")


def diagrams(material: Material) -> Html:
    """Gives the diagrams that the run's folder has; empty without any."""
    folder = material.directory.path
    drawn = [_figure(folder / name, words) for name, words in DIAGRAMS.items() if (folder / name).is_file()]
    return element("div", drawn, class_="gallery") if drawn else Html("")


def overlays(material: Material) -> Html:
    """Gives images with truth and prediction: worst, best, then those between; empty without any."""
    folder = material.directory.overlays
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not files:
        return Html("")
    places = [round(place * (len(files) - 1) / max(1, _MOST - 1)) for place in range(_MOST)]
    chosen = [files[place] for place in dict.fromkeys(places)]
    columns = material.columns()
    first = columns[0] if columns else ""
    ordered = sorted(material.per_image, key=lambda row: rank_key(row[first])) if first else []
    groups = {"Worst": chosen[:1], "Best": chosen[1:][-1:], "Evenly spaced between": chosen[1:-1]}
    pieces = [element("p", f"By {first}, the recipe's first metric." if first else "By the recipe's first metric.")]
    if len(chosen) < len(files):
        pieces.append(element("p", f"{len(chosen)} of {len(files)}; overlays/ has all.", class_="note"))
    for heading, members in groups.items():
        if members:
            pieces += [element("h3", heading), *(_overlay(file, ordered, columns) for file in members)]
    return element("div", pieces, class_="overlays")


def _overlay(file: Path, ordered: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Html:
    stem = file.stem.partition("_")[2] or file.stem
    # As the name of the file was made from the id; two ids may have become one name.
    found = [(rank, row) for rank, row in enumerate(ordered, start=1) if _as_file_name(str(row["id"])) == stem]
    caption: list[Html | str] = [element("b", stem)]
    if len(found) == 1:
        rank, row = found[0]
        scores = ", ".join(f"{name} {number(row[name])}" for name in columns)
        caption = [element("b", str(row["id"])), f" {scores}; {rank} of {len(ordered)} from the worst"]
    shown = element("div", picture(file, alt=f"image, truth and prediction of {stem}"), class_="wide")
    return element("figure", element("figcaption", caption), shown)


def _as_file_name(identity: str) -> str:
    return re.sub(r"[^\w.-]+", "_", identity)[:80]


def _figure(file: Path, words: str) -> Html:
    return element("figure", element("figcaption", words), element("div", picture(file, alt=words), class_="wide"))
