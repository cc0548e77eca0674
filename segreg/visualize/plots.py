"""PNGs of a run: its training curves, and what metrics offer besides numbers (ROC, confusion, reliability).

No plot grows with the number of classes: above a limit the worst are shown, and a line says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from segreg.registry.protocols import Curve, Matrix, Reliability
from segreg.runtime.files import replacing
from segreg.runtime.output import printable
from segreg.visualize.fonts import saying_boxes, text_style

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torchmetrics import MetricCollection

_Table = TypeVar("_Table")

_MOST_LINES = 12
_MOST_MATRICES = 9
_MOST_LABELS, _MOST_WRITTEN = 40, 30
"""Labels of a confusion matrix that are shown; up to which its cells have text."""
_DPI, _MOST_PIXELS = 110, 3300
"""Of a PNG's longer side: a larger figure gets fewer dots per inch."""
_NAME = 24
"""Letters of a label that are shown."""


def plot_metrics(
    metrics: MetricCollection, folder: Path, guard: Callable[[str], AbstractContextManager[object]] = nullcontext
) -> list[Path]:
    """Plot the `tables` of metrics that have been computed, and return the files.

    `roc_pr_curves.png` has a panel for each kind of curve, `confusion.png` the matrices, `reliability.png` how often
    predictions come true. A file is only written if a metric offers something for it; those of an earlier evaluation
    are removed.

    Args:
        metrics: that have been computed.
        folder: of the files.
        guard: returns, for what is drawn, a context that may keep an error to itself, so that the others are drawn.
    """
    import matplotlib as mpl

    tables: list[Any] = []
    for name, metric in metrics.items():
        if hasattr(metric, "tables"):
            with guard(f"the diagram of {name}"):
                tables += metric.tables().values()
    kinds: dict[str, tuple[type, Any]] = {
        "roc_pr_curves.png": (Curve, _curves),
        "confusion.png": (Matrix, _matrices),
        "reliability.png": (Reliability, _reliability),
    }
    written: list[Path] = []
    for name, (kind, plot) in kinds.items():
        with guard(name), mpl.rc_context(text_style()):
            (folder / name).unlink(missing_ok=True)
            if of_kind := [table for table in tables if isinstance(table, kind)]:
                written.append(_save(plot(of_kind), folder / name))
    return written


def history_lines(rows: Sequence[Mapping[str, Any]], monitor: str) -> dict[str, dict[Any, str]]:
    """Return the lines of "loss", "validation" and "learning rate": by the points of each what it is called."""
    known = list(dict.fromkeys(name for row in rows for name in row))
    losses = dict.fromkeys(("train.loss", "val.loss", monitor))
    panels: dict[str, list[str]] = {
        "loss": [name for name in losses if name in known and ".loss" in name],
        "validation": _scores(known, monitor),
        "learning rate": [name for name in known if name.startswith("lr.")][:_MOST_LINES],
    }
    lines = {title: _lines(rows, names, monitor) for title, names in panels.items()}
    return {title: found for title, found in lines.items() if found}


def plot_history(rows: Sequence[Mapping[str, Any]], file: Path, *, monitor: str, best_epoch: int | None) -> None:
    """Plot losses, validation scores and learning rates over the epochs into a PNG file."""
    import matplotlib as mpl

    with mpl.rc_context(text_style()):
        _save(_history(history_lines(rows, monitor), best_epoch), file)


def _history(lines: Mapping[str, Mapping[Any, str]], best_epoch: int | None) -> Any:
    from matplotlib.ticker import LogFormatter, MaxNLocator

    most = max((len(found) for found in lines.values()), default=0)
    width, height = 5.2 * max(1, len(lines)), 3.8 + 0.22 * most
    below, tall = height - 3.0, 2.65
    figure = _figure(width, height, layout=None)  # of known size: to measure every label would take half a second
    for number, (title, of_panel) in enumerate(lines.items()):
        axes = figure.add_axes(((5.2 * number + 0.75) / width, below / height, 4.3 / width, tall / height))
        for points, label in of_panel.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        if best_epoch is not None and title != "learning rate":
            axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best: epoch {best_epoch}")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if title == "learning rate" and any(value > 0 for points in of_panel for _, value in points):
            axes.set_yscale("log")
            # By itself it has mathematical text, which `text_style` leaves unread.
            axes.yaxis.set(major_formatter=LogFormatter(), minor_formatter=LogFormatter(labelOnlyBase=False))
        # Below, where no line runs; the label of the axis ends half an inch under it.
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.45 / tall))
    return figure


def _figure(width: float, height: float, *, layout: Literal["constrained"] | None = "constrained") -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, file: Path) -> Path:
    with replacing(file) as aside, saying_boxes():
        figure.savefig(aside, format="png", dpi=min(_DPI, _MOST_PIXELS / max(figure.get_size_inches())))
    return file


def _worst(tables: Sequence[_Table], badness: Callable[[_Table], float]) -> Sequence[_Table]:
    """Return the tables, or as many of the worst as are shown, in their order; what has no number is the worst."""
    if len(tables) <= _MOST_LINES:
        return tables
    order = np.argsort([-np.nan_to_num(badness(table), nan=np.inf) for table in tables], kind="stable")
    return [tables[place] for place in sorted(order[:_MOST_LINES])]


def _curves(curves: Sequence[Curve]) -> Any:
    panels: dict[tuple[str, str], list[Curve]] = {}
    for curve in sorted(curves, key=lambda curve: "recall" in curve.x_label):  # ROC before precision and recall
        panels.setdefault((curve.x_label, curve.y_label), []).append(curve)
    most = max(len(lines) for lines in panels.values())
    below = 0.25 * min(most, _MOST_LINES) + 0.3
    figure = _figure(5.4 * len(panels), 4.8 + below)
    for number, ((x_label, y_label), lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        shown = _worst(lines, lambda curve: -float(np.trapezoid(curve.y, curve.x)))
        for place, curve in enumerate(shown):
            colour = _colour(place)
            axes.plot(curve.x, curve.y, color=colour, label=_label(curve.name, curve.note), linewidth=1.6)
        _draw_chance(axes, shown)
        _unit_square(axes, x_label, y_label)
        _legend(axes, len(lines), "with the smallest area")
    return figure


def _draw_chance(axes: Any, lines: Sequence[Curve]) -> None:
    """Plot what guessing reaches: one grey line if it is the same for all, else one in each curve's colour."""
    levels = dict.fromkeys(curve.chance for curve in lines if curve.chance is not None)
    if len(levels) == 1:
        axes.plot([0, 1], next(iter(levels)), color="grey", linestyle="--", linewidth=1, label="chance")
        return
    for place, curve in enumerate(lines):
        if curve.chance is not None:
            axes.plot([0, 1], curve.chance, color=_colour(place), linestyle=":", linewidth=1)
    if levels:
        axes.plot([], [], color="grey", linestyle=":", linewidth=1, label="chance, for each class")


def _matrices(matrices: Sequence[Matrix]) -> Any:
    chosen = sorted(np.argsort([-_wrong(matrix.counts).sum() for matrix in matrices], kind="stable")[:_MOST_MATRICES])
    shown = [_reduced(matrices[place]) for place in chosen]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    size = max(len(matrix.labels) for matrix, _ in shown)
    side = max(3.6, (0.62 if size <= _MOST_WRITTEN else 0.3) * size + 2.2)
    figure = _figure(columns * (side + 0.9), rows * side)
    for number, (matrix, about) in enumerate(shown, start=1):
        _draw_matrix(figure, figure.add_subplot(rows, columns, number), matrix, about)
    if len(shown) < len(matrices):
        figure.suptitle(f"the {len(shown)} of {len(matrices)} with the most wrong pixels")
    return figure


def _wrong(counts: NDArray[Any]) -> NDArray[Any]:
    """Return how many pixels of each label `[L]` were predicted as another one, or another's as it."""
    return np.asarray(counts.sum(0) + counts.sum(1) - 2 * counts.diagonal())


def _reduced(matrix: Matrix) -> tuple[Matrix, str]:
    """Return a matrix of no more labels than are shown, and what was done to it.

    Beyond them the labels with the most wrong pixels are kept, and the others are added up in a last row and column.
    """
    size = len(matrix.labels)
    if size <= _MOST_LABELS:
        return matrix, ""
    kept = np.sort(np.argsort(-_wrong(matrix.counts), kind="stable")[: _MOST_LABELS - 1])
    place = np.full(size, len(kept))
    place[kept] = np.arange(len(kept))
    counts = np.zeros((_MOST_LABELS, _MOST_LABELS), matrix.counts.dtype)
    np.add.at(counts, (place[:, None], place[None, :]), matrix.counts)
    rest = size - len(kept)
    about = (
        f"the {len(kept)} of {size} classes with the most wrong pixels; the other {rest} are the last row and column"
    )
    return Matrix(matrix.name, (*(matrix.labels[k] for k in kept), f"({rest} others)"), counts), about


def _draw_matrix(figure: Any, axes: Any, matrix: Matrix, about: str) -> None:
    size = len(matrix.labels)
    totals = matrix.counts.sum(1, keepdims=True)
    shares = matrix.counts / np.maximum(totals, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_short(name) for name in matrix.labels]
    axes.set_xticks(range(size), names, rotation=0 if size <= 3 else 90)
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    number = ", number of pixels" if size <= _MOST_WRITTEN else ""
    title = _short(matrix.name) if matrix.name else f"share of each row{number}"
    axes.set_title(f"{title}\n{about}".strip(), fontsize="medium")
    if size <= _MOST_WRITTEN:  # beyond that no text fits into a cell
        for (row, column), count in np.ndenumerate(matrix.counts):
            if count or size <= 6:
                share = shares[row, column]
                words = f"{share:.1%}\n{_rounded(int(count), exact=size <= 3)}"
                colour = "white" if share > 0.55 else "black"
                axes.text(
                    column, row, words, ha="center", va="center", color=colour, fontsize=9 if size <= 6 else 7.5,
                    in_layout=False,  # it stays inside its cell
                )  # fmt: skip
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)


def _reliability(bins: Sequence[Reliability]) -> Any:
    shown = _worst(bins, _distance_to_truth)
    figure = _figure(6, 6.2 + 0.25 * len(shown))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1.2))
    upper.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="as sure as right")
    for place, table in enumerate(shown):
        there = table.share > 0
        colour, label = _colour(place), _label(table.name, table.note)
        upper.plot(
            table.confidence[there], table.accuracy[there], color=colour, marker="o", markersize=4, label=label
        )  # fmt: skip
        edges = [k / len(table.share) for k in range(len(table.share) + 1)]
        lower.stairs(table.share, edges, color=colour, fill=len(shown) == 1, linewidth=1.4)
    _unit_square(upper, "", "share of pixels that are of the class")
    _legend(upper, len(bins), "with the largest error", below=False)
    lower.set_xlim(-0.02, 1.02)
    lower.set_ylim(bottom=0)
    lower.set_xlabel("predicted probability of the class")
    lower.set_ylabel("share of pixels")
    lower.grid(alpha=0.3)
    return figure


def _distance_to_truth(table: Reliability) -> float:
    """Return the mean distance between what was predicted and what came true, over all predictions."""
    return float(np.nansum(table.share * np.abs(table.confidence - table.accuracy)))


def _unit_square(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)


def _legend(axes: Any, count: int, which: str, *, below: bool = True) -> None:
    title = f"the {_MOST_LINES} of {count} classes {which}" if count > _MOST_LINES else None
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13)} if below else {"loc": "best"}
    # Named one by one: a legend of its own accord leaves out names that begin with an underscore.
    lines = {line: str(line.get_label()) for line in axes.get_lines()}
    lines = {line: label for line, label in lines.items() if not label.startswith("_child")}
    axes.legend([*lines], [*lines.values()], fontsize="small", title=title, title_fontsize="small", **place)


def _label(name: str, note: str) -> str:
    return f"{_short(name)}: {note}" if note else _short(name)


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _rounded(count: int, *, exact: bool) -> str:
    """Return 1234567 as "1,234,567", or as "1.2M" where there is little room."""
    if exact or count < 1000:
        return f"{count:,}"
    unit, letter = next((u, x) for u, x in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if count >= 0.9995 * u)
    return f"{count / unit:.{1 if count < 99.95 * unit else 0}f}{letter}"


def _colour(place: int) -> tuple[float, float, float]:
    """Return one of twelve colours that differ in lightness as well as in hue."""
    from matplotlib import colormaps

    red, green, blue = colormaps["tab20"]((2 * place) % 20 + (place >= 10))[:3]
    return red, green, blue


def _lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str], monitor: str) -> dict[Any, str]:
    """Return the points of each line and what it is called; values that are always the same are one line.

    What never had a value has no line.
    """
    lines: dict[Any, str] = {}
    for name in names:
        points = tuple((row["epoch"], row[name]) for row in rows if row.get(name) is not None)
        if not points:
            continue
        label = name + (" (monitored)" if name == monitor else "")
        lines[points] = f"{lines[points]}, {label}" if points in lines else label
    return lines


def _scores(known: Sequence[str], monitor: str) -> list[str]:
    """Return the headline scores: of each metric its pooled value, not its value for every class; and the monitored."""
    names = [name for name in known if name.startswith("val.") and not name.startswith("val.loss")]
    pooled = [name for name in names if name.endswith(".pooled")]
    headlines = (pooled or [name for name in names if ".class." not in name])[:8]
    return headlines + [name for name in names if name == monitor and name not in headlines]
