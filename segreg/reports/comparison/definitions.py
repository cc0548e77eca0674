"""What each number on the page is, how it was made, and where the runs are that it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from segreg.benchmark.comparison.record import Comparison
from segreg.reports.comparison.looks import named
from segreg.reports.comparison.tradeoff import costs_of
from segreg.reports.elements import Content, Html, element, joined, table
from segreg.reports.scores import CLASS


def definitions(comparison: Comparison) -> Html:
    """Return a sentence for each metric and each cost, and how intervals, tests and ranks were made."""
    known = comparison.definitions
    metrics = [name for model in comparison.models for name in model.values]
    names = list(dict.fromkeys([comparison.metric, *metrics, *costs_of(comparison), *known]))

    def told(chosen: Sequence[str]) -> Html:
        return element("dl", ([element("dt", n), element("dd", known.get(n, "no definition"))] for n in chosen))

    of_classes = [name for name in names if CLASS in name]
    pieces: list[Content] = [told([name for name in names if CLASS not in name])]
    if of_classes:
        summary = element("summary", f"the {len(of_classes)} numbers of single classes")
        pieces.append(element("details", summary, told(of_classes)))
    if comparison.method:
        method = element("ul", (element("li", sentence) for sentence in comparison.method))
        pieces += [element("h3", "How intervals, tests and ranks were made"), method]
    return joined(pieces)


def runs(comparison: Comparison) -> Html:
    """Return each model's settings and the directories of its runs; empty without models."""
    if not comparison.models:
        return Html("")
    settings = list(dict.fromkeys(name for model in comparison.models for name in model.settings))
    rows = [
        element(
            "tr",
            named(comparison.models, place, comparison.baseline),
            (element("td", model.settings.get(name, "-")) for name in settings),
            element("td", ", ".join(map(str, model.seeds))),
            element("td", (element("div", run) for run in model.runs), class_="folder"),
        )
        for place, model in enumerate(comparison.models)
    ]
    return table(["model", *settings, "seeds", "directories"], rows)
