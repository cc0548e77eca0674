"""Figures for a paper, as SVG and PDF: a column wide or two, with text of 7 points, without titles.

They show what the pages show, in the colours of the page's light style. Text stays text in both formats, and the same
results give the same bytes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segreg.benchmark.comparison.record import Comparison
from segreg.benchmark.comparison.table import Column, Number, columns_of
from segreg.reports import charts
from segreg.reports.comparison import score_column
from segreg.reports.render import asset, cut, is_known, number
from segreg.reports.run import Scored
from segreg.runs.directory import RunDirectory
from segreg.runs.records import read_results
from segreg.runtime.files import cannot_write, replacing
from segreg.runtime.output import printable
from segreg.training import history
from segreg.visualize.fonts import saying_boxes, text_style
from segreg.visualize.plots import history_lines

ONE_COLUMN, TWO_COLUMNS = 245, 510
"""Width of a figure in points, of which an inch has 72."""
FORMATS: Mapping[str, Mapping[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
"""With the metadata that would differ from day to day or from version to version."""
_STYLE = {
    "font.size": 7, "axes.labelsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.frameon": False, "legend.borderaxespad": 0.2,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "0.88", "grid.linewidth": 0.5, "lines.linewidth": 1, "lines.markersize": 4,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2, "ytick.major.size": 2,
    "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "segreg",
}  # fmt: skip
_LETTER = 4.4
"""Width of a letter in points, on average."""
_LEGEND = 44
"""Letters in a line of a legend."""


def comparison_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Write what a comparison shows into a folder, and return the files.

    `scores` has each model's score with its interval, `score_against_COST` the score against each cost of the table,
    `differences_per_image` each model's differences to the baseline, `learning_curves` the histories of all seeds.

    Raises:
        SegregError: the disk refuses it.
    """
    columns = {column.name: column for column in columns_of(comparison)}
    score = columns[comparison.metric]
    names = [model.name for model in comparison.models]
    scores = {name: cell for name, cell in zip(names, score.cells, strict=True) if isinstance(cell, Number)}
    figures: dict[str, Callable[[], Figure | None]] = {"scores": partial(_dots, scores, _label(score))}
    for cost in columns.values():
        if cost.measured:
            figures[f"score_against_{cost.name}"] = partial(_tradeoff, names, score, cost)
    figures["differences_per_image"] = partial(_differences, comparison)
    figures["learning_curves"] = partial(_model_curves, comparison)
    return _write(figures, folder)


def run_figures(directory: RunDirectory, folder: Path) -> list[Path]:
    """Write what a run's page shows into a folder, and return the files.

    `learning_curves` has losses and validation scores, `per_image` the histogram of the first metric,
    `classes` its value for each class with the interval.

    Raises:
        SegregError: a file of the run is broken, or the disk refuses it.
    """
    scored = Scored.of(directory.path, directory.results, read_results)
    return _write(
        {
            "learning_curves": partial(_run_curves, directory, str(scored.results.get("monitor", ""))),
            "per_image": partial(_histogram, scored),
            "classes": partial(_classes, scored),
        },
        folder,
    )


def _write(figures: Mapping[str, Callable[[], Figure | None]], folder: Path) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(error, folder) from None
    files = []
    for name, draw in figures.items():
        with mpl.rc_context(_STYLE | text_style()), saying_boxes():
            if (figure := draw()) is None:
                continue
            for form, metadata in FORMATS.items():
                file = folder / f"{name}.{form}"
                with replacing(file) as aside:
                    figure.savefig(aside, format=form, metadata=metadata)
                files.append(file)
    return files


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width / 72, height / 72), layout="constrained")


def _look(place: int) -> dict[str, Any]:
    """Return colour, marker and dash of a model, as on the page."""
    colours = dict(reversed(re.findall(r"--colour(\d+): (#\w{6})", asset("page.css"))))  # the light ones come first
    return {**charts.style(place), "color": colours[str(place % charts.COLOURS)]}


def _label(column: Column) -> str:
    arrow = {"higher": " \N{UPWARDS ARROW}", "lower": " \N{DOWNWARDS ARROW}"}.get(column.better, "")
    return printable(column.title) + arrow


def _wrapped(name: str, letters: int) -> str:
    """Return a name in as many lines as it needs, so that names that differ are shown as they differ."""
    return "\n".join(textwrap.wrap(cut(name, 6 * letters), letters))


def _legend(figure: Figure, lines: Mapping[str, Any]) -> None:
    """Write names below the axes, in as many columns as fit, and make the figure as much higher."""
    width, height = 72 * figure.get_size_inches()
    longest = min(_LEGEND, max(map(len, lines)))
    columns = max(1, min(len(lines), int(width / (_LETTER * longest + 30))))
    shown = [_wrapped(name, _LEGEND) for name in lines]
    further = sum(name.count("\n") for name in shown)
    figure.set_size_inches(width / 72, (height + 10.5 * -(-len(shown) // columns) + 8.5 * further) / 72)
    figure.legend(lines.values(), shown, loc="outside lower center", ncols=columns, labelspacing=0.3)


def _rows(names: Sequence[str]) -> tuple[Figure, Any]:
    """Return a figure with a row for each name, the first one on top, and its axes."""
    shown = [_wrapped(name, 22) for name in names]
    height = max(14, 8.5 * max(name.count("\n") + 1 for name in shown) + 3)
    figure = _figure(ONE_COLUMN, 44 + height * len(names))
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), shown)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure, axes


def _dots(values: Mapping[str, Number], label: str) -> Figure | None:
    values = {name: value for name, value in values.items() if is_known(value.value)}
    if not values:
        return None
    figure, axes = _rows(list(values))
    colour = _look(0)["color"]
    for place, value in enumerate(values.values()):
        if is_known(value.low) and is_known(value.high):
            axes.plot([value.low, value.high], [place, place], color=colour)
        axes.plot([value.value], [place], "o", color=colour)
    charts.scale(axes, "x", [value.value for value in values.values()], ticks=4)
    axes.set_xlabel(label)
    return figure


def _tradeoff(names: Sequence[str], score: Column, cost: Column) -> Figure | None:
    known = [
        (place, x, y)
        for place, (x, y) in enumerate(zip(cost.cells, score.cells, strict=True))
        if isinstance(x, Number) and isinstance(y, Number) and is_known(x.value) and is_known(y.value)
    ]
    if not known:
        return None
    figure = _figure(ONE_COLUMN, 150)
    axes = figure.add_subplot()
    costs = [x.value for _, x, _ in known]
    charts.scale(axes, "x", costs, log=charts.is_log(costs), ticks=5)
    charts.scale(axes, "y", [y.value for *_, y in known], ticks=5)
    points = [(y.value, x.value) for _, x, y in known]
    high_quality, high_cost = score.better == "higher", cost.better == "higher"
    front = charts.pareto_front(points, high_quality=high_quality, high_cost=high_cost)
    axes.step([points[n][1] for n in front], [points[n][0] for n in front], where="post", color="0.6", linewidth=0.8)
    lines = {}
    for place, x, y in known:
        look = _look(place)
        if is_known(y.low) and is_known(y.high):
            axes.plot([x.value, x.value], [y.low, y.high], color=look["color"], linewidth=0.8)
        if is_known(x.low) and is_known(x.high):
            axes.plot([x.low, x.high], [y.value, y.value], color=look["color"], linewidth=0.8)
        (lines[names[place]],) = axes.plot([x.value], [y.value], look["marker"], color=look["color"], zorder=3)
    axes.set(xlabel=_label(cost), ylabel=_label(score).replace(".", ".\n", 1))
    _legend(figure, lines)
    return figure


def _differences(comparison: Comparison) -> Figure | None:
    baseline = next((model for model in comparison.models if model.name == comparison.baseline), None)
    if baseline is None:
        return None
    found = {}
    for model in comparison.models:
        pairs = zip(model.per_image, baseline.per_image, strict=False)
        values = [one - other for one, other in pairs if is_known(one) and is_known(other)]
        if values and model is not baseline:
            found[model.name] = values
    if not found:
        return None
    figure, axes = _rows(list(found))
    axes.axvline(0, color="0.4", linewidth=0.8, linestyle="--", zorder=1)
    axes.boxplot(
        [*found.values()], positions=range(len(found)), orientation="horizontal", widths=0.5, patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": "0.9", "linewidth": 0.8}, whiskerprops={"linewidth": 0.8},
        capprops={"linewidth": 0.8}, medianprops={"color": _look(0)["color"], "linewidth": 1.2},
        flierprops={"marker": "o", "markersize": 1.8, "markerfacecolor": "0.3", "markeredgewidth": 0},
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(f"{printable(comparison.metric)}\nof each image, minus that of\n{_wrapped(baseline.name, 30)}")
    return figure


def _model_curves(comparison: Comparison) -> Figure | None:
    columns = {name for model in comparison.models for curve in model.curves for name in curve}
    shown = [name for name in ("train.loss", "val.loss", score_column(comparison)) if name in columns]
    if not shown:
        return None
    figure = _figure(TWO_COLUMNS, 130)
    lines: dict[str, Any] = {}
    for axes, column in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        every: list[float] = []
        for place, model in enumerate(comparison.models):
            look = _look(place)
            for points in (charts.points_of(curve, column) for curve in model.curves):
                if points:
                    (lines[model.name],) = axes.plot(*zip(*points, strict=True), color=look["color"],
                                                     linestyle=look["linestyle"])  # fmt: skip
                    every += [value for _, value in points]
        charts.scale(axes, "y", every, log="loss" in column and charts.is_log(every), ticks=5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set(xlabel="epoch", ylabel=printable(column))
    if lines:
        _legend(figure, lines)
    return figure if lines else None


def _run_curves(directory: RunDirectory, monitor: str) -> Figure | None:
    panels = history_lines(history.read(directory.path), monitor)
    panels.pop("learning rate", None)
    if not panels:
        return None
    most = max(sum(1 + len(name) // _LEGEND for name in lines.values()) for lines in panels.values())
    figure = _figure(TWO_COLUMNS if len(panels) > 1 else ONE_COLUMN, 140 + 10.5 * most)
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for place, (points, name) in enumerate(lines.items()):
            look = _look(place)
            axes.plot(*zip(*points, strict=True), label=_wrapped(name, _LEGEND), color=look["color"],
                      linestyle=look["linestyle"], marker="o" if len(points) == 1 else "")  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set(xlabel="epoch", ylabel="score" if title == "validation" else title)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), labelspacing=0.3)
    return figure


def _histogram(scored: Scored) -> Figure | None:
    columns = scored.columns()
    found = charts.distribution([row[columns[0]] for row in scored.per_image]) if columns else None
    if found is None:
        return None
    figure = _figure(ONE_COLUMN, 130)
    axes = figure.add_subplot()
    axes.stairs(found.counts, found.edges, fill=True, color=_look(0)["color"], alpha=0.6)
    lines = {
        f"mean {number(found.mean)}": axes.axvline(found.mean, color="0.1"),
        f"median {number(found.median)}": axes.axvline(found.median, color="0.1", linestyle="--"),
    }
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=columns[0], ylabel="images")
    _legend(figure, lines)
    return figure


def _classes(scored: Scored) -> Figure | None:
    columns, by_class, note = scored.classes()
    found = {}
    for name, metrics in by_class.items():
        full = metrics.get(columns[0], "")
        value = scored.values(scored.split).get(full)
        if value is not None:
            found[name] = Number(value, *(scored.ends(scored.split, full) or ()))
    if len(found) < 2:
        return None
    return _dots(found, f"{columns[0]}\n({note} {columns[0]})" if note else columns[0])
