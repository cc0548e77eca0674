"""The table of a comparison: `columns_of` decides what is in it, and each format only writes that."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any, Literal

from segreg.benchmark.comparison.record import Comparison, Model, Value
from segreg.benchmark.comparison.significance import SIGNIFICANT_BELOW
from segreg.benchmark.cost.record import DEFINITIONS, Cost
from segreg.errors import plural
from segreg.runs.environment import counted
from segreg.runtime.output import csv_text, printable

Format = Literal["markdown", "latex", "csv"]
_COSTS = {
    "parameters": ("parameters", "parameters"),
    "trained_parameters": ("of them trained", "trained parameters"),
    "training_images_per_second": ("trained/s", "training, images/s"),
    "training_memory_gpu_mib": ("MiB to train", "training memory, MiB"),
    "training_memory_rss_mib": ("MiB to train", "training memory, MiB"),
    "latency_p50_ms": ("ms per image", "latency, ms"),
    "seconds_to_best_epoch": ("s to the best", "time to best epoch, s"),
}
"""Costs in the table, with the heads of their columns on a terminal and elsewhere; the files have all costs."""


@dataclass(frozen=True)
class Number:
    """A cell with a number.

    Attributes:
        value: NaN where it is undefined.
        low: lower end of its 95% interval, or the smallest of several measurements; None without.
        high: upper end, or the largest.
        deviation: sample standard deviation over seeds; None where there are not several.
        best: whether the model is significantly better than every other.
        significant: whether a difference is significant.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    best: bool = False
    significant: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: in CSV files.
        head: on a terminal.
        title: above the column elsewhere, with its unit.
        cells: for each model a number or text.
        form: returns a number as it is written.
        better: "higher" or "lower"; empty where neither is.
        measured: whether `low` and `high` are the smallest and the largest measurement, rather than an interval.
    """

    name: str
    head: str
    title: str
    cells: Sequence[Number | str]
    form: Callable[[float], str] = "{:g}".format
    better: Literal["higher", "lower", ""] = ""
    measured: bool = False


def columns_of(comparison: Comparison) -> list[Column]:
    """Return the table's columns; each has a cell for each model, the best model first."""
    models, metric = comparison.models, comparison.metric
    better: Literal["higher", "lower"] = "higher" if comparison.higher_is_better else "lower"
    pooled = f"{metric.split('.')[0]}.pooled"
    also = [pooled] if pooled != metric and all(pooled in model.values for model in models) else []

    def scores(name: str) -> Column:
        cells = [_score(model.values[name]) for model in models]
        if name == metric:
            cells = [
                replace(cell, best=model.name == comparison.best) for cell, model in zip(cells, models, strict=True)
            ]
        return Column(name, name, name, cells, "{:.4f}".format, better)

    def difference(model: Model) -> Number | str:
        found = model.difference
        if found is None:
            return "baseline" if model.name == comparison.baseline else ""
        return Number(found.mean, found.low, found.high, significant=found.significant)

    ranks = ["" if one.rank is None else Number(one.rank.place, one.rank.low, one.rank.high) for one in models]
    ps = ["" if one.difference is None else Number(one.difference.p_holm) for one in models]
    names = [one.name + (f" ({len(one.seeds)} seeds)" if len(one.seeds) > 1 else "") for one in models]
    return [
        Column("rank", "rank", "rank", ranks),
        Column("model", "model", "model", names),
        scores(metric),
        Column(
            "difference", "to the baseline", "to the baseline", [difference(one) for one in models], "{:+.4f}".format
        ),
        Column("p_holm", "p (Holm)", "p (Holm)", ps, "{:.2g}".format),
        *(scores(name) for name in also),
        *(
            _costs(name, [model.costs.get(name) for model in models])
            for name in _COSTS
            if any(name in model.costs and not _is_shown(name, model.costs) for model in models)
        ),
    ]


def _is_shown(name: str, costs: Mapping[str, Cost]) -> bool:
    """Whether a cost is what another column shows: all parameters are trained in most networks."""
    return name == "trained_parameters" and "parameters" in costs and costs[name].median == costs["parameters"].median


def _score(value: Value) -> Number:
    known = [one for one in value.of_seeds if not math.isnan(one)]
    return Number(value.mean, value.low, value.high, stdev(known) if len(known) > 1 else None)


def _costs(name: str, costs: Sequence[Cost | None]) -> Column:
    cells: list[Number | str] = []
    for cost in costs:
        if cost is None or math.isnan(cost.median):
            cells.append("")
        else:
            spread = (cost.low, cost.high) if cost.low != cost.high else (None, None)
            cells.append(Number(cost.median, *spread))
    higher = name in DEFINITIONS and DEFINITIONS[name].higher_is_better
    form = _counted if name.endswith("parameters") else "{:.0f}".format if name.endswith("mib") else _three_digits
    return Column(name, *_COSTS[name], cells, form, "higher" if higher else "lower", measured=True)


def _counted(value: float) -> str:
    return counted(int(value)) if value == int(value) else f"{value:.3g}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def spread(column: Column, cell: Number) -> str:
    """Return a number's interval "[0.79, 0.83]" or what it was measured to be "(12 to 14)"; empty without."""
    if cell.low is None or cell.high is None or math.isnan(cell.value):
        return ""
    low, high = column.form(cell.low), column.form(cell.high)
    return f"({low} to {high})" if column.measured else f"[{low}, {high}]"


def as_text(column: Column, cell: Number | str) -> str:
    """Return a cell for a terminal: "0.8123 [0.7901, 0.8345]", a star behind a significant difference."""
    if isinstance(cell, str):
        return cell
    number = "undefined" if math.isnan(cell.value) else column.form(cell.value)
    return " ".join(filter(None, (number, spread(column, cell), "*" * cell.significant)))


def write_table(comparison: Comparison, form: Format) -> str:
    """Return the table of a comparison as Markdown, as a LaTeX fragment that needs booktabs, or as CSV."""
    columns = columns_of(comparison)
    if form == "csv":
        return _csv(comparison, columns)
    # A column without a value says nothing in a paper.
    columns = [one for one in columns if any(one.cells)]
    return _markdown(comparison, columns) if form == "markdown" else _latex(comparison, columns)


def remarks_of(comparison: Comparison) -> list[str]:
    """Return what must not be overlooked beside the table, each on one line: notices, and runs that are missing."""
    failures = [f"failed: {one.title}: {one.reason}" for one in comparison.failures]
    waiting = [f"not finished: {plural(comparison.waiting, 'run')}"] if comparison.waiting else []
    return [_one_line(text) for text in (*comparison.notices, *failures, *waiting)]


def _caption(comparison: Comparison, columns: Sequence[Column]) -> list[str]:
    """Return what the table's numbers are, in sentences."""
    images = len(comparison.images)
    seeds = [len(model.seeds) for model in comparison.models]
    several = "mean ± sample standard deviation over the seeds"
    alone = "the value with its 95% bootstrap interval"
    what = (
        several if min(seeds) > 1 else alone if max(seeds) == 1 else f"{several} where there are several, else {alone}"
    )
    sentences = [f"Scores of {plural(images, 'image')}: {what}."]
    if any(isinstance(cell, Number) for one in columns if one.name == "difference" for cell in one.cells):
        sentences.append(
            f"Differences are to {comparison.baseline}, with paired 95% intervals; p is that of a paired permutation "
            f"test after Holm's correction, and * marks p < {SIGNIFICANT_BELOW} with an interval without 0."
        )
        sentences.append(
            f"Bold: significantly better than every other model by the same test, at the level {SIGNIFICANT_BELOW}."
            if comparison.best
            else "None is bold, since by the same test none is significantly better than every other."
        )
    if any(one.measured for one in columns):
        sentences.append("Costs are medians, with the smallest and the largest measurement.")
    return sentences


def _csv(comparison: Comparison, columns: Sequence[Column]) -> str:
    heads: list[str] = ["model", "seeds"]
    cells: list[list[Any]] = [[one.name for one in comparison.models], [len(one.seeds) for one in comparison.models]]
    for column in columns:
        if column.name == "model":
            continue
        numbers = [cell if isinstance(cell, Number) else None for cell in column.cells]
        if not any(numbers):
            heads.append(column.name)
            cells.append(list(column.cells))
            continue
        for what in ("value", "low", "high", "deviation", "significant"):
            values = [getattr(number, what) if number else None for number in numbers]
            if what == "value" or (what != "significant" and any(one is not None for one in values)):
                heads.append(column.name if what == "value" else f"{column.name}.{what}")
                cells.append(values)
            elif what == "significant" and column.name == "difference":
                heads.append(f"{column.name}.{what}")
                cells.append([None if one is None else str(one).lower() for one in values])
    return csv_text(heads, list(zip(*cells, strict=True))).rstrip("\n")


def _markdown(comparison: Comparison, columns: Sequence[Column]) -> str:
    def cell(column: Column, given: Number) -> str:
        number = column.form(given.value)
        number = f"**{number}**" if given.best else number
        if given.deviation is not None:
            return f"{number} ± {column.form(given.deviation)}"
        return " ".join(filter(None, (number, spread(column, given)))) + (r" \*" if given.significant else "")

    heads, rows = _written(columns, cell, _MARKDOWN, {"higher": " ↑", "lower": " ↓"})
    ruler = ["---" if one.name == "model" else "--:" for one in columns]
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, ruler, *rows)]
    caption = _escaped(" ".join(_caption(comparison, columns)), _MARKDOWN)
    remarks = [f"\nNote: {_escaped(text, _MARKDOWN)}" for text in remarks_of(comparison)]
    return "\n".join([*lines, "", caption, *remarks])


def _latex(comparison: Comparison, columns: Sequence[Column]) -> str:
    def cell(column: Column, given: Number) -> str:
        number, _, unit = column.form(given.value).partition(" ")
        number = rf"\mathbf{{{number}}}" if given.best else number
        unit = rf"\,\mathrm{{{unit}}}" if unit else ""
        if given.deviation is not None:
            return rf"${number} \pm {column.form(given.deviation)}$"
        ends = spread(column, given).replace(" to ", r"\mbox{--}")
        ends = rf"\ {ends}" if ends else ""
        written = f"${number}{unit}{ends}{'^{*}' if given.significant else ''}$"
        return re.sub(r"e([+-]?)[+0]*(\d+)", r"\\times 10^{\1\2}", written).replace("^{+", "^{")

    heads, rows = _written(columns, cell, _LATEX, {"higher": r" $\uparrow$", "lower": r" $\downarrow$"})
    caption = _escaped(" ".join(_caption(comparison, columns)), _LATEX)
    return "\n".join([
        r"% needs \usepackage{booktabs}",
        *(f"% note: {text}" for text in remarks_of(comparison)),
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}}}",
        rf"  \begin{{tabular}}{{@{{}}{''.join('l' if one.name == 'model' else 'r' for one in columns)}@{{}}}}",
        r"    \toprule",
        rf"    {' & '.join(heads)} \\",
        r"    \midrule",
        *(rf"    {' & '.join(cells)} \\" for cells in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ])  # fmt: skip


_MARKDOWN = {letter: f"\\{letter}" for letter in r"\`*_{}[]<>|#&~$"}
_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
    "[": "{[}", "]": "{]}", "*": "{*}",  # \\ takes those at the beginning of a row for its own
}  # fmt: skip


def _written(
    columns: Sequence[Column],
    cell: Callable[[Column, Number], str],
    special: Mapping[str, str],
    arrows: Mapping[str, str],
) -> tuple[list[str], list[list[str]]]:
    """Return the heads of the columns, each with the arrow of its better direction, and the cells of each model."""

    def written(column: Column, given: Number | str) -> str:
        if isinstance(given, str):
            return _escaped(given, special)
        return "undefined" if math.isnan(given.value) else cell(column, given)

    heads = [_escaped(one.title, special) + arrows.get(one.better, "") for one in columns]
    rows = zip(*([written(one, given) for given in one.cells] for one in columns), strict=True)
    return heads, [list(row) for row in rows]


def _escaped(text: str, special: Mapping[str, str]) -> str:
    return "".join(special.get(letter, letter) for letter in _one_line(text))


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", printable(text)).strip()
