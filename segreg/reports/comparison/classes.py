"""Each class's score in each model."""

from __future__ import annotations

from segreg.benchmark.comparison.record import Comparison, Model
from segreg.reports.comparison.forest import interval, title
from segreg.reports.comparison.looks import heads, is_known
from segreg.reports.elements import Content, Html, cell, element, joined, number, table
from segreg.reports.scores import CLASS


def classes(comparison: Comparison) -> Html:
    """Return a table for each metric that has values of single classes; empty without any."""
    names = dict.fromkeys(name for model in comparison.models for name in model.values if CLASS in name)
    by_metric: dict[str, list[str]] = {}
    for name in names:
        metric, _, of_class = name.partition(CLASS)
        by_metric.setdefault(metric, []).append(of_class)
    compared = comparison.metric.partition(".")[0]
    tables = [
        joined([element("h3", metric), _table(comparison, metric, found, marked=metric.partition(".")[0] == compared)])
        for metric, found in by_metric.items()
    ]
    if not tables:
        return Html("")
    said = f"Pooled over all images. The best of each class is marked for {compared}."
    return joined([element("p", said), tables])


def _table(comparison: Comparison, metric: str, found: list[str], *, marked: bool) -> Html:
    known = [name for name in comparison.classes if name in found]
    rows = []
    for name in [*known, *(name for name in found if name not in known)]:
        full = f"{metric}{CLASS}{name}"
        told = [model.values[full].mean for model in comparison.models if full in model.values]
        defined = [mean for mean in told if is_known(mean)]
        best = (max if comparison.higher_is_better else min)(defined) if marked and len(defined) > 1 else None
        cells = (_cell(model, full, best) for model in comparison.models)
        rows.append(element("tr", element("th", name, scope="row", class_="name"), cells))
    return element(
        "div",
        table(["class", *heads(comparison.models, range(len(comparison.models)))], rows, sortable=True),
        class_="of-models",
    )


def _cell(model: Model, name: str, best: float | None) -> Html:
    if name not in model.values:
        return element("td", "-", class_="number")
    value = model.values[name]
    if best is None or value.mean != best:
        return cell(value.mean, interval(value))
    told: list[Content] = [element("b", number(value.mean)), " ", element("small", interval(value))]
    return element("td", told, class_="number plain winner", title=title(model.name, value))
