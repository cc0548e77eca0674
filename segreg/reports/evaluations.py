"""A report's evaluations: what `segreg evaluate` scored of the run afterwards, on which images and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from segreg.reports import gallery, scores
from segreg.reports.elements import Content, Html, element, facts, joined, number, table
from segreg.reports.material import EVALUATIONS, Material, Scored

_ENDS = 3
"""Images of the worst and of the best that are embedded for each evaluation."""


def evaluations(material: Material) -> Html:
    """Return every evaluation that lies in the run's directory; empty without any."""
    if not material.evaluations:
        return Html("")
    told = "What segreg evaluate scored of this run afterwards, by the folder in "
    return joined([
        element("p", told, element("code", f"{EVALUATIONS}/"), "; segreg report shows those that are there when it is "
                "called. What each number is stands under Scores, but for threshold, resolution and data."),
        (_evaluation(scored) for scored in material.evaluations),
    ])  # fmt: skip


def _evaluation(scored: Scored) -> Html:
    told, side = scored.results, scored.side
    pieces: list[Content] = [element("h3", scored.folder.name)]
    if told.get("notice"):
        pieces.append(element("div", str(told["notice"]), class_="banner", role="alert"))
    pieces += [facts(_facts(told, side)), scores.averages(scored, side)]
    of_classes = scores.classes(scored)
    if of_classes:
        pieces.append(element("details", element("summary", "each class"), of_classes, open=""))
    pieces += [*_as_others(told.get("as", {})), gallery.diagrams(scored.folder), gallery.ends(scored.folder, _ENDS)]
    definitions = scores.definitions(scored)
    pieces.append(element("details", element("summary", "what each number is, here"), definitions))
    return element("article", pieces)


def _facts(told: Mapping[str, Any], side: str) -> Iterator[tuple[str, Content]]:
    count = told.get("images", {}).get(side)
    other = told.get("data_recipe", "") if told.get("data_recipe") != told.get("recipe") else ""
    yield (
        "data",
        f"{told.get('dataset', '')}, {side}: {count} images{f', of {other}' if other else scores.flatters(side)}",
    )
    yield "resolution", {"input": "input: masks as the network sees them",
                         "original": "original: each image's own"}.get(told.get("resolution", ""), "")  # fmt: skip
    threshold = told.get("threshold")
    if threshold is not None:
        yield "threshold", f"{threshold:g}, {told.get('threshold_is', '')}"
    yield "weights", f"of the {told['weights']} epoch" if told.get("weights") else ""


def _as_others(libraries: Mapping[str, Mapping[str, Any]]) -> Iterator[Html]:
    """Return what other libraries would print for the same predictions."""
    for name, told in libraries.items():
        rows = [
            element("tr", element("th", metric, scope="row"), element("td", number(value), class_="number plain"))
            for metric, value in told.get("values", {}).items()
        ]
        about = element("p", str(told.get("how", "")), class_="note")
        yield element(
            "details", element("summary", f"as {name} would print it"), table(["metric", "value"], rows), about
        )
