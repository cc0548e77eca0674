"""The table of models: how good each is and how surely, how it differs from the baseline, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segreg.benchmark.comparison.record import Comparison, Difference, Model, Rank, Value
from segreg.benchmark.cost.record import Cost
from segreg.reports.comparison.forest import interval, title
from segreg.reports.comparison.looks import is_known, named
from segreg.reports.comparison.scales import short
from segreg.reports.comparison.tradeoff import costs_of, is_better_high, unit_of
from segreg.reports.elements import Content, Html, element, joined, number, table
from segreg.reports.scores import CLASS, PER_IMAGE, POOLED

_Column = tuple[Content, Callable[[Model], Html]]


def leaderboard(comparison: Comparison) -> Html:
    """Return a row for each model, the best first, and below it the runs that failed."""
    pieces: list[Content] = []
    if comparison.models:
        columns = [*_compared(comparison), *_others(comparison), *_costs(comparison)]
        rows = [
            element(
                "tr",
                named(comparison.models, place, comparison.baseline),
                (shown(model) for _, shown in columns),
                class_="baseline" if model.name == comparison.baseline else None,
            )
            for place, model in enumerate(comparison.models)
        ]
        whole = table(["model", *(head for head, _ in columns)], rows, sortable=True)
        pieces += [element("div", whole, class_="standings"), _notes(comparison)]
    else:
        pieces.append(element("p", "No model has been scored."))
    return joined([*pieces, _failures(comparison)])


def _compared(comparison: Comparison) -> list[_Column]:
    metric = comparison.metric
    columns: list[_Column] = [(_metric_head(comparison, metric), lambda model: _value(model, metric))]
    if any(model.rank for model in comparison.models):
        columns.insert(0, (["rank", element("small", "95% interval")], lambda model: _rank(model.rank)))
        columns.insert(1, (["best", element("small", "of resamples")], lambda model: _best(model.rank)))
    if any(model.difference for model in comparison.models):
        head: Content = ["to the baseline", element("small", "95% interval, paired")]
        columns.append((head, lambda model: _difference(model, comparison.baseline)))
        columns.append(
            (["p", element("small", "after Holm")], lambda model: _p(model.difference, comparison.higher_is_better))
        )
    return columns


def _others(comparison: Comparison) -> list[_Column]:
    names = dict.fromkeys(name for model in comparison.models for name in model.values)
    shown = [name for name in names if name != comparison.metric and CLASS not in name]

    def column(name: str) -> _Column:
        return _metric_head(comparison, name), lambda model: _value(model, name)

    return [column(name) for name in shown]


def _costs(comparison: Comparison) -> list[_Column]:
    def column(name: str) -> _Column:
        told = [model.costs[name].median for model in comparison.models if name in model.costs]
        most = max((median for median in told if is_known(median)), default=0.0)
        small = ", ".join(filter(None, (unit_of(comparison, name), "higher is better" * is_better_high(name))))
        head = element("span", name, title=comparison.definitions.get(name))
        return [head, element("small", small)], lambda model: _cost(model.costs.get(name), most)

    return [column(name) for name in costs_of(comparison)]


def _metric_head(comparison: Comparison, name: str) -> Content:
    small, metric = "", name
    for ending, meaning in ((POOLED, "pooled"), (PER_IMAGE, "mean over images")):
        if name.endswith(ending):
            metric, small = name.removesuffix(ending), meaning
    if name == comparison.metric:
        small = ", ".join(filter(None, (small, "compared")))
    return [element("span", metric, title=comparison.definitions.get(name)), element("small", small)]


def _cell(value: float, shown: str, *notes: Content, share: float | None = None, told: str | None = None) -> Html:
    """Return a cell that is sorted by its value, whatever it shows; `share` is the length of its bar."""
    bar = f"--share:{share:.1%}" if is_known(share) and 0 <= share <= 1 else None
    small = [element("small", note) for note in notes if note]
    key = f"{value:.12g}" if is_known(value) else ""
    return element("td", shown, *small, class_="number", style=bar, title=told, data_value=key)


def _nothing() -> Html:
    return element("td", "-", class_="number", data_value="")


def _value(model: Model, name: str) -> Html:
    value: Value | None = model.values.get(name)
    if value is None:
        return _nothing()
    return _cell(value.mean, number(value.mean), interval(value), share=value.mean, told=title(model.name, value))


def _rank(rank: Rank | None) -> Html:
    if rank is None:
        return _nothing()
    return _cell(rank.place, short(rank.place), f"{short(rank.low)} to {short(rank.high)}")


def _best(rank: Rank | None) -> Html:
    if rank is None:
        return _nothing()
    return _cell(rank.best, f"{rank.best:.0%}" if is_known(rank.best) else "undefined", share=rank.best)


def _difference(model: Model, baseline: str) -> Html:
    told = model.difference
    if told is None:
        return element("td", "baseline" if model.name == baseline else "-", class_="number soft", data_value="")
    return _cell(told.mean, signed(told.mean), f"[{signed(told.low)}, {signed(told.high)}]")


def _p(told: Difference | None, higher_is_better: bool) -> Html:
    if told is None:
        return _nothing()
    mark = element("span", "not significant", class_="mark")
    if told.significant:
        better = (told.mean > 0) == higher_is_better
        mark = element("span", "better" if better else "worse", class_=f"mark {'better' if better else 'worse'}")
    return _cell(told.p_holm, number(told.p_holm), mark, told=f"before Holm's correction: {number(told.p)}")


def _cost(cost: Cost | None, most: float) -> Html:
    if cost is None:
        return _nothing()
    spread = "" if cost.low == cost.high else f"{short(cost.low)} to {short(cost.high)}"
    share = cost.median / most if most > 0 else None
    return _cell(cost.median, short(cost.median), spread, share=share, told=f"{cost.median:.12g} {cost.unit}".rstrip())


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"+{number(value)}" if value > 0 else number(value).replace("-", "\u2212")


def _notes(comparison: Comparison) -> Html:
    told = ["In brackets: 95% intervals. The bar of a score is its share of 1."]
    if costs_of(comparison):
        told.append(
            "A cost is the median of its measurements, with the smallest and the largest below it where they differ; "
            "its bar is its share of the column's largest."
        )
    if any(model.difference for model in comparison.models):
        told.append(
            "Better and worse: the model and the baseline are significantly different, by a corrected p below 0.05 and "
            "an interval that excludes 0. Not significant does not mean equal."
        )
    return element("p", " ".join(told), class_="note")


def _failures(comparison: Comparison) -> Html:
    if not comparison.failures:
        return Html("")
    rows: Sequence[Html] = [
        element(
            "tr",
            element("th", failure.name, scope="row", class_="name"),
            element("td", str(failure.seed)),
            element("td", failure.reason, class_="reason"),
            element("td", failure.run, class_="folder"),
        )
        for failure in comparison.failures
    ]
    head = element("h3", f"Runs that failed ({len(rows)})")
    return joined([head, table(["model", "seed", "reason", "run"], rows, sortable=True)])
