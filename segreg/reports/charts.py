"""Charts as SVG by matplotlib, in colours of the page's light or dark style; its script finds each model in them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, ScalarFormatter
from matplotlib.transforms import Bbox

from segreg.benchmark.comparison.record import Comparison, Model, Value
from segreg.benchmark.cost.record import Cost
from segreg.reports.render import cut, is_known, number, short
from segreg.runtime.output import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = 8
"""Of page.css; from the ninth model on they are repeated with another marker and another dash."""
MARKERS = ("o", "s", "D", "^")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
INK, SOFT, RULE, GROUND, ACCENT = (f"#0101{number:02x}" for number in range(1, 6))
_VARIABLES = {INK: "ink", SOFT: "soft", RULE: "rule", GROUND: "ground", ACCENT: "accent"}
"""matplotlib knows no CSS variables: these colours are replaced by them in the SVG."""
_LOG_SPAN = 20
"""Largest by smallest value above which an axis is logarithmic."""
_MOST_WRITTEN = 300
"""Highest by lowest value of a logarithmic axis, below which 2 and 5 are written too."""
_OFFSETS = [(x * away, y * away) for away in (9, 18, 32, 48)
            for x, y in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))]  # fmt: skip
"""Points from a marker to its name; the first place that is free is taken."""


def style(place: int) -> dict[str, Any]:
    """Return colour, marker and dash of the model at a place in `Comparison.models`."""
    return {
        "color": f"#0102{place % COLOURS:02x}",
        "marker": MARKERS[(place + place // COLOURS) % len(MARKERS)],
        "linestyle": DASHES[place // COLOURS % len(DASHES)],
    }


def is_log(values: Sequence[float]) -> bool:
    """Whether values are all positive and span more than a factor of 20."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_SPAN


def log_locator(low: float, high: float) -> LogLocator:
    """Return the ticks of a logarithmic axis: powers of ten, and 2 and 5 of each where there is room."""
    return LogLocator(subs=(1, 2, 5) if high / low < _MOST_WRITTEN else (1,))


def scale(axes: Axes, axis: str, values: Sequence[float], *, log: bool = False, ticks: int = 7) -> None:
    """Make an axis linear or logarithmic, and write its ticks with k, M and G where values are large."""
    one = getattr(axes, f"{axis}axis")
    getattr(axes, f"set_{axis}scale")("log" if log else "linear")
    if log:
        one.set_major_locator(log_locator(min(values), max(values)))
        one.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        one.set_minor_locator(LogLocator(subs=()))
    else:
        one.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
        large = max(map(abs, values), default=0.0) >= 1e4
        one.set_major_formatter(EngFormatter() if large else ScalarFormatter(useOffset=False))


class Chart:
    """One chart.

    Args:
        width: of the whole, in pixels.
        height: of the whole, in pixels.
        margins: left, right, top and bottom of the axes, in pixels.
        about: the label for readers without sight.
    """

    def __init__(self, width: int, height: int, margins: tuple[int, int, int, int], about: str) -> None:
        left, right, top, bottom = margins
        self.about = printable(about)
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        self.axes = self.figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        )
        self.figure.patch.set_visible(False)
        self.axes.patch.set_visible(False)
        self.axes.grid(color=RULE, linewidth=0.8)
        self.axes.set_axisbelow(True)
        self.axes.tick_params(length=0, labelsize=11, labelcolor=SOFT, pad=5)
        for name, spine in self.axes.spines.items():
            spine.set(color=SOFT, visible=name in ("left", "bottom"))
        self._marks: dict[str, dict[str, Any]] = {}

    def mark(self, artist: Any, *, kind: str = "", model: int | None = None, titles: Sequence[str] = ()) -> None:
        """Give an artist's SVG a class and its model's number; with one title for all of it, or one for each point."""
        artist.set_gid(f"mark{len(self._marks)}")
        self._marks[artist.get_gid()] = {"class": kind, "model": model, "titles": titles}

    def label(self, x: str = "", y: str = "") -> None:
        """Write the axes' labels: x below, y above the axis at the left."""
        self.axes.set_xlabel(printable(x), color=INK, fontsize=11, parse_math=False)
        if y:
            self.write(printable(y), (0, 1), (-self.axes.bbox.x0 + 4, 10), "axes fraction", va="baseline")

    def write(self, text: str, place: Any, away: tuple[float, float], coordinates: Any = "data", **look: Any) -> Any:
        """Write text some points away from a place, and return it."""
        look = {"fontsize": 11, "color": INK, "va": "center", "parse_math": False, "annotation_clip": False, **look}
        return self.axes.annotate(text, place, away, coordinates, textcoords="offset points", **look)

    def names(self, places: Sequence[tuple[float, float]], names: Sequence[str], taken: Sequence[Bbox]) -> list[Any]:
        """Write names beside points so that none covers another; one without a free place is left out.

        Args:
            places: the points, in data coordinates; the first ones choose first.
            names: of the points.
            taken: what names should rather not cover, in pixels.
        """
        renderer = FigureCanvasAgg(self.figure).get_renderer()
        room = self.axes.get_window_extent(renderer)
        pixels = self.axes.transData.transform(places)
        blocked = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in pixels]
        written: list[Any] = []
        for place, name in zip(places, names, strict=True):
            text = self.write(cut(name, 34), place, (0, 0))
            free: list[tuple[int, tuple[float, float], str, Bbox]] = []
            for dx, dy in _OFFSETS:
                text.set(x=dx, y=dy, ha="left" if dx > 0 else "right" if dx < 0 else "center")
                box = text.get_window_extent(renderer)
                inside = Bbox.intersection(room, box)
                if inside is not None and inside.width >= box.width - 1 and not box.count_overlaps(blocked):
                    free.append((box.count_overlaps(taken), (dx, dy), text.get_horizontalalignment(), box))
            if not free:
                text.remove()
                written.append(None)
                continue
            _, offset, align, box = min(free, key=lambda item: item[0])
            text.set(x=offset[0], y=offset[1], ha=align)
            blocked.append(box)
            written.append(text)
        return written

    def svg(self, kind: str = "") -> Markup:
        """Return the chart as an `svg` element, for a page."""
        file = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.about}), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that matplotlib's font lacks; the browser has them
            self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Type": None})
        root = ET.fromstring(file.getvalue())  # noqa: S314 - written one line above
        for element in root.iter():
            element.tag = element.tag.partition("}")[2]
            element.attrib = {key.partition("}")[2] or key: value for key, value in element.attrib.items()}
        for parent in reversed(list(root.iter())):
            for child in list(parent):
                if child.tag in ("metadata", "style") or (child.tag in ("defs", "g") and len(child) == 0):
                    parent.remove(child)
        for group in root.iter("g"):
            self._finish(group)
        size = {key: root.attrib[key].removesuffix("pt") for key in ("width", "height")}
        root.attrib = {"viewBox": root.attrib["viewBox"], **size, "class": f"plot {kind}".rstrip(), "role": "img",
                       "aria-label": self.about}  # fmt: skip
        text = ET.tostring(root, encoding="unicode")
        for colour, variable in _VARIABLES.items():
            text = text.replace(colour, f"var(--{variable})")
        for place in range(COLOURS):
            text = text.replace(f"#0102{place:02x}", f"var(--colour{place})")
        return Markup(text)  # noqa: S704 - ElementTree has escaped it

    def _finish(self, group: ET.Element) -> None:
        mark = self._marks.get(group.attrib.pop("id", ""))
        if mark is None:
            return
        if mark["class"]:
            group.set("class", mark["class"])
        if mark["model"] is not None:
            group.set("data-model", str(mark["model"]))
        points = [group]
        if len(mark["titles"]) > 1:
            inside = {id(child) for defs in group.iter("defs") for child in defs.iter()}
            points = [child for child in group.iter() if child.tag in ("use", "path") and id(child) not in inside]
        for point, title in zip(points, mark["titles"], strict=False):
            element = ET.Element("title")
            element.text = printable(title)
            point.insert(0, element)


class Distribution(NamedTuple):
    """Values in 20 bins `[20]` between edges `[21]`, from 0 to 1 where they are in it; their mean and median."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    mean: float
    median: float


def distribution(values: Sequence[float]) -> Distribution | None:
    """Return how values that are defined are distributed; None where none is."""
    defined = np.array([value for value in values if is_known(value)])
    if not len(defined):
        return None
    low, high = float(defined.min()), float(defined.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif high - low <= 1e-9 * abs(high):  # equal but for rounding
        margin = max(0.5, 1e-9 * abs(high))
        low, high = low - margin, high + margin
    counts, edges = np.histogram(defined, bins=20, range=(low, high))
    return Distribution(counts, edges, float(defined.mean()), float(np.median(defined)))


def histogram(name: str, values: Sequence[float]) -> tuple[str, Markup]:
    """Return a summary of values, and their histogram with a line at the mean and a dashed one at the median.

    The chart is empty where no value is defined.
    """
    found = distribution(values)
    undefined = sum(not is_known(value) for value in values)
    if found is None:
        return f"{undefined} undefined", Markup("")
    about = f"mean {number(found.mean)}, median {number(found.median)}, {len(values) - undefined} images"
    about += f", {undefined} undefined" if undefined else ""
    chart = Chart(300, 130, (30, 8, 8, 22), f"{name}: {about}")
    for count, start, end in zip(found.counts, found.edges, found.edges[1:], strict=False):
        if count:
            (bar,) = chart.axes.bar([start], [count], width=0.92 * (end - start), align="edge", color=ACCENT)
            chart.mark(bar, kind="bar", titles=[f"{start:.3g} to {end:.3g}: {count}"])
    chart.axes.axvline(found.mean, color=INK, linewidth=1.2)
    chart.axes.axvline(found.median, color=INK, linewidth=1.2, linestyle="--")
    chart.axes.grid(visible=False, axis="x")
    chart.axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    chart.axes.xaxis.set_major_locator(MaxNLocator(5))
    return about, chart.svg()


def interval(value: Value) -> str:
    """Return a score's 95% interval; empty where it is unknown."""
    return "" if value.low is None or value.high is None else f"[{number(value.low)}, {number(value.high)}]"


def title(name: str, value: Value) -> str:
    """Return a model's score with its interval and each seed's own."""
    text = f"{name}: {number(value.mean)} {interval(value)}".rstrip()
    return f"{text}; seeds: {', '.join(number(score) for score in value.of_seeds)}" if value.of_seeds else text


def forest(comparison: Comparison) -> tuple[Markup, list[str]]:
    """Return each model's score with interval and seeds, and the names of models without one; empty without scores."""
    rows: list[tuple[int, Model, Value]] = []
    for place, model in enumerate(comparison.models):
        value = model.values.get(comparison.metric)
        if value is not None and any(map(is_known, (value.mean, *value.of_seeds))):
            rows.append((place, model, value))
    if not rows:
        return Markup(""), []
    shown = {place for place, *_ in rows}
    missing = [model.name for place, model in enumerate(comparison.models) if place not in shown]
    chart = Chart(1000, 76 + 30 * len(rows), (250, 180, 34, 42), f"{comparison.metric} of each model with its interval")
    axes = chart.axes
    for row, (place, model, value) in enumerate(rows):
        mark: dict[str, Any] = {"model": place, "titles": [title(model.name, value)]}
        color, marker = style(place)["color"], style(place)["marker"]
        if is_known(value.mean):
            chart.mark(*axes.plot([value.mean], [row], marker, color=color, ms=8, mec=GROUND), **mark, kind="marker")
        if is_known(value.low) and is_known(value.high):
            middle = (value.low + value.high) / 2
            bar = axes.errorbar(middle, row, xerr=(value.high - value.low) / 2, fmt="none", ecolor=color, capsize=4)
            for line in (*bar.lines[1], *bar.lines[2]):
                chart.mark(line, **mark, kind="interval")
        seeds = list(filter(is_known, value.of_seeds))
        chart.mark(*axes.plot(seeds, [row + 0.28] * len(seeds), "o", ms=5, mfc="none", mec=color), **mark, kind="ring")
        beside = axes.get_yaxis_transform()
        name = chart.write(cut(model.name, 34), (0, row), (-224, 0), beside)
        figures = chart.write(f"{number(value.mean)} {interval(value)}".rstrip(), (1, row), (14, 0), beside)
        (sign,) = axes.plot([-238 / 570], [row], marker, color=color, ms=8, mec=GROUND, transform=beside, clip_on=False)
        for artist in (name, figures, sign):
            chart.mark(artist, **mark)
    baseline = next((value for _, model, value in rows if model.name == comparison.baseline), None)
    if baseline is not None and is_known(baseline.mean):
        line = axes.axvline(baseline.mean, color=SOFT, linewidth=1.2, linestyle="--", zorder=1)
        chart.mark(line, kind="baseline")
        above = ("data", "axes fraction")
        chart.write("baseline", (baseline.mean, 1), (0, 6), above, ha="center", va="baseline", color=SOFT)
    axes.set(ylim=(len(rows) - 0.5, -0.5), yticks=[])
    axes.spines["left"].set_visible(False)
    chart.label(f"{comparison.metric} ({'higher' if comparison.higher_is_better else 'lower'} is better)")
    return chart.svg(), missing


def pareto_front(points: Sequence[tuple[float, float]], *, high_quality: bool, high_cost: bool) -> list[int]:
    """Return the places of the points that no other one dominates, the cheapest first.

    A point dominates another if it is at least as good in both, and better in one. Equal points don't dominate each
    other. A point with a value that is not finite is on no front.

    Args:
        points: quality and cost of each.
        high_quality: whether a higher quality is better.
        high_cost: whether a higher cost is better, as with images/s.
    """

    def key(place: int) -> tuple[float, float]:
        quality, cost = points[place]
        return (-cost if high_cost else cost, -quality if high_quality else quality)

    front: list[int] = []
    for place in sorted((place for place, point in enumerate(points) if all(map(is_known, point))), key=key):
        # From the cheapest on: only what is better than all before it, or equals the last in both.
        if not front or key(place)[1] < key(front[-1])[1] or key(place) == key(front[-1]):
            front.append(place)
    return front


def tradeoff(
    comparison: Comparison, places: Sequence[int], cost: str, label: str, *, high_cost: bool
) -> tuple[Markup, list[str]]:
    """Return quality against a cost, and the names of the models on the Pareto front.

    Args:
        comparison: of the models.
        places: of the models in `Comparison.models` that have a score and this cost.
        cost: its name.
        label: of the cost's axis.
        high_cost: whether a higher cost is better.
    """
    values = [comparison.models[place].values[comparison.metric] for place in places]
    costs = [comparison.models[place].costs[cost] for place in places]
    points = [(one.median, value.mean) for one, value in zip(costs, values, strict=True)]
    front = pareto_front([(y, x) for x, y in points], high_quality=comparison.higher_is_better, high_cost=high_cost)
    ends = [end for one in costs for end in (one.low, one.median, one.high) if is_known(end)]
    log = is_log(ends)
    chart = Chart(960, 500, (62, 20, 34, 50), f"{comparison.metric} of each model against {cost}")
    axes = chart.axes
    scale(chart.axes, "x", ends, log=log, ticks=8)
    scale(chart.axes, "y", [value.mean for value in values])
    axes.margins(0.08)
    direction = "higher" if comparison.higher_is_better else "lower"
    chart.label(label + (" (logarithmic)" if log else ""), f"{comparison.metric}, {direction} is better")
    for number_, (place, value, one) in enumerate(zip(places, values, costs, strict=True)):
        _tradeoff_point(chart, place, comparison.models[place].name, (value, one), dominated=number_ not in front)
    x_ends, y_ends = axes.get_xlim(), axes.get_ylim()
    worst, dearest = y_ends[0 if comparison.higher_is_better else 1], x_ends[0 if high_cost else 1]
    steps = [(points[front[0]][0], worst)]
    for number_ in front:
        steps += [(points[number_][0], steps[-1][1]), points[number_]]
    steps.append((dearest, steps[-1][1]))
    (line,) = axes.plot(*zip(*steps, strict=True), color=SOFT, linewidth=1.6, zorder=1.5)
    chart.mark(line, kind="front")
    axes.set(xlim=x_ends, ylim=y_ends)
    corners = axes.transData.transform(steps)
    taken = [Bbox([one, other]).padded(1) for one, other in pairwise(corners)]
    for (x, _), value in zip(points, values, strict=True):
        if is_known(value.low) and is_known(value.high):
            taken.append(Bbox(axes.transData.transform([(x, value.low), (x, value.high)])).padded(2))
    order = [*front, *(number_ for number_ in range(len(points)) if number_ not in front)]
    names = [comparison.models[places[number_]].name for number_ in order]
    for number_, text in zip(order, chart.names([points[n] for n in order], names, taken), strict=True):
        if text is not None:
            chart.mark(text, kind="" if number_ in front else "dominated", model=places[number_])
    return chart.svg(), [comparison.models[places[number_]].name for number_ in front]


def _tradeoff_point(chart: Chart, place: int, name: str, point: tuple[Value, Cost], *, dominated: bool) -> None:
    value, cost = point
    spread = "" if cost.low == cost.high else f" ({short(cost.low)} to {short(cost.high)})"
    about = f"{name}\n{number(value.mean)} {interval(value)}".rstrip()
    about += (
        f"\n{short(cost.median)} {cost.unit}".rstrip() + spread + (", dominated" if dominated else ", on the front")
    )
    look = style(place)
    mark: dict[str, Any] = {"kind": "dominated" if dominated else "", "model": place, "titles": [about]}
    x, y = cost.median, value.mean
    if is_known(value.low) and is_known(value.high):
        chart.mark(*chart.axes.plot([x, x], [value.low, value.high], color=look["color"], linewidth=1.8), **mark)
    if is_known(cost.low) and is_known(cost.high) and cost.low < cost.high:
        chart.mark(*chart.axes.plot([cost.low, cost.high], [y, y], color=look["color"], linewidth=1.8), **mark)
    chart.mark(*chart.axes.plot([x], [y], look["marker"], color=look["color"], ms=9, mec=GROUND, zorder=3), **mark)


def points_of(curve: Mapping[str, Sequence[float]], column: str) -> list[tuple[float, float]]:
    """Return epochs and values of a history's column; epochs without a value are left out, so that lines cross them."""
    values = curve.get(column, ())
    epochs = curve.get("epoch", range(1, len(values) + 1))
    return [(epoch, value) for epoch, value in zip(epochs, values, strict=False) if is_known(value)]


def curves(comparison: Comparison, column: str, *, may_be_log: bool) -> Markup:
    """Return a history's column over the epochs, a line for each seed of each model; empty without values."""
    chart = Chart(460, 300, (54, 8, 28, 44), f"{column} over the epochs")
    every: list[float] = []
    for place, model in enumerate(comparison.models):
        for seed, curve in enumerate(model.curves):
            points = points_of(curve, column)
            if not points:
                continue
            every += [value for _, value in points]
            look = style(place)
            (line,) = chart.axes.plot(*zip(*points, strict=True), color=look["color"], linestyle=look["linestyle"],
                                      linewidth=1.4, marker="o" if len(points) == 1 else "", ms=4)  # fmt: skip
            name = model.seeds[seed] if seed < len(model.seeds) else "?"
            title = f"seed {name}"
            if model.folds:
                title = f"seed {model.folds[seed].seed}, fold {model.folds[seed].fold}"
            chart.mark(line, kind="curve", model=place, titles=[f"{model.name}, {title}"])
    if not every:
        return Markup("")
    log = may_be_log and is_log(every)
    scale(chart.axes, "y", every, log=log, ticks=6)
    chart.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    chart.label("epoch", f"{column} (logarithmic)" if log else column)
    return chart.svg()


def scatter(name: str, place: int, pairs: Sequence[tuple[str, float, float]], ends: tuple[float, float]) -> Markup:
    """Return a model's score in each image against the baseline's.

    Args:
        name: of the model.
        place: of the model in `Comparison.models`.
        pairs: of each image the id, the baseline's score and the model's.
        ends: the smallest and the largest score of all charts that are compared.
    """
    chart = Chart(300, 300, (46, 8, 10, 42), f"{name} against the baseline in each image")
    margin = 0.06 * (ends[1] - ends[0]) or 0.5
    low, high = ends[0] - margin, ends[1] + margin
    chart.axes.plot([low, high], [low, high], color=SOFT, linewidth=1.2, linestyle="--")
    dots = chart.axes.plot([x for _, x, _ in pairs], [y for _, _, y in pairs], "o", ms=4.8, mew=0, alpha=0.75,
                           color=style(place)["color"])  # fmt: skip
    titles = [f"{image}: {number(x)}, {number(y)}" for image, x, y in pairs]
    chart.mark(*dots, kind="dots", model=place, titles=titles)
    chart.axes.set(xlim=(low, high), ylim=(low, high))
    for axis in ("x", "y"):
        scale(chart.axes, axis, ends, ticks=5)
    chart.label("baseline")
    return chart.svg("scatter")
