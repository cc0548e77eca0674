"""A comparison's files: everything as JSON, a row for each run as CSV, and one page that opens from disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segreg.benchmark.comparison.record import Comparison, Disagreement, Model, Value
from segreg.benchmark.comparison.text import AGAIN
from segreg.benchmark.cost.record import DEFINITIONS, Cost
from segreg.errors import SegregError
from segreg.reports import charts
from segreg.reports.charts import interval, title
from segreg.reports.render import (
    CLASS,
    PER_IMAGE,
    POOLED,
    definitions,
    is_known,
    number,
    render,
    share,
    short,
    split_name,
    worst_classes,
    write,
)  # fmt: skip
from segreg.runtime.files import write_json, write_text
from segreg.runtime.output import csv_text

RESULTS, ROWS, PAGE = "results.json", "results.csv", "report.html"
_LOSSES = ("train.loss", "val.loss")
_MAX_POINTS = 20_000
"""Points of all scatter plots together."""
_MAX_ROWS = 20
"""Rows of the table of images on which the models differ most."""


def write_comparison(comparison: Comparison, folder: Path, images: Sequence[Disagreement] = ()) -> list[Path]:
    """Write `results.json`, `results.csv` and `report.html` into a folder, and return them.

    Args:
        comparison: what they hold.
        folder: is created if it is missing.
        images: those on which the models disagree, for the page.

    Raises:
        SegregError: the folder can't be created, or the page can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SegregError(f"could not create the folder {folder}: {error.strerror}") from None
    write_json(folder / RESULTS, comparison.as_data())
    _write_rows(comparison, folder / ROWS)
    write(page(comparison, images), folder / PAGE, "page")
    return [folder / name for name in (RESULTS, ROWS, PAGE)]


def _write_rows(comparison: Comparison, file: Path) -> None:
    """Write a row for each run: its settings, metrics, and the costs of its model; and each failure with its reason.

    Runs of folds have a row for each seed, with the scores out of fold.
    """
    settings = _names(model.settings for model in comparison.models)
    metrics = _names(model.values for model in comparison.models)
    columns = ["model", *settings, "seed", *metrics, *costs_of(comparison), "run", "failed"]
    rows: list[dict[str, Any]] = []
    for model in comparison.models:
        for place, seed in enumerate(model.seeds):
            run = " ".join(fold.run for fold in model.folds if fold.seed == seed) or model.runs[place]
            rows.append({
                "model": model.name, **model.settings, "seed": seed, "run": run,
                **{name: value.of_seeds[place] for name, value in model.values.items()},
                **{name: cost.median for name, cost in model.costs.items()},
            })  # fmt: skip
    rows += [
        {"model": failure.name, "seed": failure.seed, "run": failure.run, "failed": failure.reason}
        for failure in comparison.failures
    ]
    write_text(file, csv_text(columns, rows))


def page(comparison: Comparison, images: Sequence[Disagreement] = ()) -> str:
    """Return the page. Without script everything is on it except the choice of the cost and sorting."""
    models = comparison.models
    names = [comparison.metric, *_names(model.values for model in models), *costs_of(comparison)]
    waiting = f"{comparison.waiting} planned runs are" if comparison.waiting > 1 else "1 planned run is"
    return render(
        "comparison",
        comparison=comparison,
        again=AGAIN,
        notices=[*([f"NOT FINISHED: {waiting} still to come"] if comparison.waiting else []), *comparison.notices],
        places={model.name: place for place, model in enumerate(models)},
        seeds=_seeds(comparison),
        folds=_folds(comparison),
        columns=_columns(comparison),
        has_costs=bool(costs_of(comparison)),
        forest=charts.forest(comparison),
        tradeoffs=_tradeoffs(comparison),
        curves=_curves(comparison),
        with_curves=[place for place, model in enumerate(models) if model.curves],
        class_tables=_class_tables(comparison),
        scatter=_scatter(comparison),
        spread=_spread(comparison),
        with_images=[place for place, model in enumerate(models) if model.per_image],
        images=images,
        definitions=definitions([*names, *comparison.definitions], comparison.definitions),
        settings=_names(model.settings for model in models),
    )


def _names(mappings: Any) -> list[str]:
    """Return the keys of mappings, each once, in the order in which they first appear."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def costs_of(comparison: Comparison) -> list[str]:
    """Return the names of all costs that a model has."""
    return _names(model.costs for model in comparison.models)


def _seeds(comparison: Comparison) -> str:
    kinds = list(dict.fromkeys(model.seeds for model in comparison.models))
    if len(kinds) < 2:
        return f"{len(kinds[0])} per model: {', '.join(map(str, kinds[0]))}" if kinds else ""
    return f"{_from_to(map(len, kinds))} per model, not the same for all; see Runs"


def _folds(comparison: Comparison) -> str:
    """Return how many folds the models have; empty where they have none."""
    counts = [len({fold.fold for fold in model.folds}) for model in comparison.models if model.folds]
    return f"{_from_to(counts)} per model" if counts else ""


def _from_to(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


# The leaderboard


@dataclass(frozen=True)
class Cell:
    """A cell of the leaderboard.

    Attributes:
        shown: its number.
        note: below it, in small letters.
        key: what the column is sorted by.
        style: CSS, for a bar.
        title: shown when the mouse is over it.
        mark: "better", "worse" or "not significant".
        kind: further CSS classes.
    """

    shown: str = "-"
    note: str = ""
    key: float | None = None
    style: str | None = None
    title: str | None = None
    mark: str = ""
    kind: str = ""

    @property
    def value(self) -> str:
        """The key as the script reads it; empty if there is none, which is sorted last."""
        return f"{self.key:.12g}" if is_known(self.key) else ""


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard: its head, what is below it in small letters, a title, and a cell for each model."""

    head: str
    small: str
    title: str | None
    cells: Sequence[Cell]


def _columns(comparison: Comparison) -> list[Column]:
    models, metric, known = comparison.models, comparison.metric, comparison.definitions

    def scores(name: str) -> Column:
        head, small = split_name(name)
        small = ", ".join(filter(None, (small, "compared" * (name == metric))))
        return Column(head, small, known.get(name), [_score(model.name, model.values.get(name)) for model in models])

    columns: list[Column] = []
    if any(model.rank for model in models):
        columns += [Column("rank", "95% interval", None, [_rank(model) for model in models]),
                    Column("best", "of resamples", None, [_best(model) for model in models])]  # fmt: skip
    columns.append(scores(metric))
    if any(model.difference for model in models):
        cells = [_difference(model, comparison.baseline) for model in models]
        columns.append(Column("to the baseline", "95% interval, paired", None, cells))
        columns.append(Column("p", "after Holm", None, [_p(model, comparison.higher_is_better) for model in models]))
    others = _names(model.values for model in models)
    columns += [scores(name) for name in others if name != metric and CLASS not in name]
    for name in costs_of(comparison):
        small = ", ".join(filter(None, (_unit(comparison, name), "higher is better" * _is_higher_better(name))))
        largest = max((m.costs[name].median for m in models if name in m.costs and is_known(m.costs[name].median)),
                      default=0.0)  # fmt: skip
        columns.append(
            Column(name, small, known.get(name), [_cost(model.costs.get(name), largest) for model in models])
        )
    return columns


def _score(name: str, value: Value | None) -> Cell:
    if value is None:
        return Cell()
    return Cell(number(value.mean), interval(value), value.mean, share(value.mean), title(name, value))


def _rank(model: Model) -> Cell:
    rank = model.rank
    return Cell(short(rank.place), f"{short(rank.low)} to {short(rank.high)}", rank.place) if rank else Cell()


def _best(model: Model) -> Cell:
    if model.rank is None:
        return Cell()
    best = model.rank.best
    return Cell(f"{best:.0%}" if is_known(best) else "undefined", "", best, share(best))


def _difference(model: Model, baseline: str) -> Cell:
    found = model.difference
    if found is None:
        return Cell("baseline" if model.name == baseline else "-", kind=" soft")
    return Cell(_signed(found.mean), f"[{_signed(found.low)}, {_signed(found.high)}]", found.mean)


def _p(model: Model, higher_is_better: bool) -> Cell:
    found = model.difference
    if found is None:
        return Cell()
    mark = "not significant"
    if found.significant:
        mark = "better" if (found.mean > 0) == higher_is_better else "worse"
    before = f"before Holm's correction: {number(found.p)}"
    return Cell(number(found.p_holm), key=found.p_holm, title=before, mark=mark)


def _cost(cost: Cost | None, largest: float) -> Cell:
    if cost is None:
        return Cell()
    spread = "" if cost.low == cost.high else f"{short(cost.low)} to {short(cost.high)}"
    bar = share(cost.median / largest) if largest > 0 else None
    return Cell(short(cost.median), spread, cost.median, bar, f"{cost.median:.12g} {cost.unit}".rstrip())


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value).replace("-", "\u2212")


# Quality against cost


def _is_higher_better(cost: str) -> bool:
    return bool(cost in DEFINITIONS and DEFINITIONS[cost].higher_is_better)


def _unit(comparison: Comparison, cost: str) -> str:
    return next((model.costs[cost].unit for model in comparison.models if cost in model.costs), "")


def _tradeoffs(comparison: Comparison) -> list[Mapping[str, Any]]:
    """Return a chart for each cost of which more or less is better, where a model has it and a score."""
    found: list[Mapping[str, Any]] = []
    for cost in costs_of(comparison):
        if cost in DEFINITIONS and DEFINITIONS[cost].higher_is_better is None:
            continue
        places = [
            place for place, model in enumerate(comparison.models)
            if comparison.metric in model.values and cost in model.costs
            and is_known(model.values[comparison.metric].mean) and is_known(model.costs[cost].median)
        ]  # fmt: skip
        if not places:
            continue
        unit, high = _unit(comparison, cost), _is_higher_better(cost)
        label = f"{cost} ({unit})" if unit else cost
        axis = f"{label}, {'higher' if high else 'lower'} is better"
        chart, front = charts.tradeoff(comparison, places, cost, axis, high_cost=high)
        missing = [model.name for place, model in enumerate(comparison.models) if place not in places]
        found.append({"cost": cost, "label": label, "chart": chart, "front": front, "missing": missing,
                      "places": places})  # fmt: skip
    return found


def _curves(comparison: Comparison) -> list[Any]:
    columns = [*_LOSSES, score_column(comparison)]
    found = [charts.curves(comparison, column, may_be_log=column in _LOSSES) for column in columns if column]
    return [chart for chart in found if chart]


def score_column(comparison: Comparison) -> str:
    """Return the history's column that is nearest to the compared metric; empty where there is none."""
    names = {name for model in comparison.models for curve in model.curves for name in curve}
    metric, _, _ = comparison.metric.partition(".")
    wanted = [f"val.{comparison.metric}", f"val.{metric}{POOLED}", f"val.{metric}{PER_IMAGE}"]
    others = sorted(name for name in names if name.startswith(f"val.{metric}.") and CLASS not in name)
    return next((name for name in [*wanted, *others] if name in names), "")


# Classes and single images


def _class_tables(comparison: Comparison) -> list[tuple[str, list[tuple[str, list[Cell]]], str]]:
    """Return for each metric that has values of single classes a row for each class, with a cell for each model.

    Of many classes those with the lowest values are returned, with a note that says so.
    """
    by_metric: dict[str, list[str]] = {}
    for name in _names(model.values for model in comparison.models):
        metric, found, of_class = name.partition(CLASS)
        if found:
            by_metric.setdefault(metric, []).append(of_class)
    compared = comparison.metric.partition(".")[0]
    tables = []
    for metric, names in by_metric.items():
        known = [name for name in comparison.classes if name in names]
        ordered = [*known, *(name for name in names if name not in known)]
        marked = metric.partition(".")[0] == compared
        shown, note = worst_classes({name: _mean(comparison, f"{metric}{CLASS}{name}") for name in ordered})
        rows = [(name, _class_row(comparison, f"{metric}{CLASS}{name}", marked)) for name in shown]
        tables.append((metric, rows, note))
    return tables


def _known(comparison: Comparison, name: str) -> list[float]:
    """Return a metric of those models for which it is defined."""
    means = (model.values[name].mean for model in comparison.models if name in model.values)
    return [mean for mean in means if is_known(mean)]


def _mean(comparison: Comparison, name: str) -> float | None:
    known = _known(comparison, name)
    return sum(known) / len(known) if known else None


def _class_row(comparison: Comparison, name: str, marked: bool) -> list[Cell]:
    known = _known(comparison, name)
    best = (max if comparison.higher_is_better else min)(known) if marked and len(known) > 1 else None
    cells = []
    for model in comparison.models:
        value = model.values.get(name)
        cell = _score(model.name, value)
        is_best = value is not None and best is not None and value.mean == best
        cells.append(replace(cell, style=None, kind=" plain winner") if is_best else cell)
    return cells


def _scatter(comparison: Comparison) -> Mapping[str, Any]:
    """Return a chart for each model against the baseline, in each image; empty without."""
    baseline = next((model for model in comparison.models if model.name == comparison.baseline), None)
    if baseline is None or not baseline.per_image:
        return {}
    others = [(p, model) for p, model in enumerate(comparison.models) if model is not baseline and model.per_image]
    every = [value for model in (baseline, *(model for _, model in others)) for value in model.per_image]
    known = [value for value in every if is_known(value)]
    if not known or not others:
        return {}
    nth = max(1, math.ceil(len(comparison.images) * len(others) / _MAX_POINTS))
    sign = 1 if comparison.higher_is_better else -1
    shown = []
    for place, model in others:
        triples = zip(comparison.images, baseline.per_image, model.per_image, strict=True)
        pairs = [(name, x, y) for name, x, y in triples if is_known(x) and is_known(y)]
        better = sum(sign * (y - x) > 0 for _, x, y in pairs)
        worse = sum(sign * (y - x) < 0 for _, x, y in pairs)
        about = f"better in {better}, worse in {worse}, equal in {len(pairs) - better - worse} images"
        undefined = len(comparison.images) - len(pairs)
        about += f", undefined in {undefined}" if undefined else ""
        chart = charts.scatter(model.name, place, pairs[::nth], (min(known), max(known)))
        shown.append({"place": place, "about": about, "chart": chart})
    return {"nth": nth, "shown": shown}


def _spread(comparison: Comparison) -> Mapping[str, Any]:
    ordered = comparison.widest()
    models = [model for model in comparison.models if model.per_image]
    rows = [
        (comparison.images[place], difference, [model.per_image[place] for model in models])
        for place, difference in ordered[:_MAX_ROWS]
    ]
    return {"rows": rows, "count": len(ordered)}
