"""A report's numbers: what was reached pooled and per image, of each class, with its definition and its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segreg.reports.elements import Content, Html, cell, element, facts, histogram, joined, number, table
from segreg.reports.material import Material, Scored
from segreg.training.timing import SECONDS, shares_in_words

POOLED, PER_IMAGE, CLASS = ".pooled", ".per_image_mean", ".class."
_MOST_ROWS = 200
"""Images that the table of images has; a file of ten thousand rows is not a page."""
_TILES = 4


@dataclass(frozen=True)
class _Names:
    """The names of a side's metrics, by what they are; each name is in exactly one of them."""

    averaged: dict[str, tuple[str | None, str | None]]
    single: list[str]
    classes: dict[str, dict[str, str]]

    @classmethod
    def of(cls, names: Sequence[str], known: Sequence[str]) -> _Names:
        """Sort names; `known` are the task's classes."""
        sorted_ = cls({}, [], {})
        for name in names:
            metric, _, of_class = name.partition(CLASS)
            if of_class in known:
                sorted_.classes.setdefault(of_class, {})[metric] = name
            elif name.endswith(POOLED):
                metric = name.removesuffix(POOLED)
                sorted_.averaged[metric] = (name, sorted_.averaged.get(metric, (None, None))[1])
            elif name.endswith(PER_IMAGE):
                metric = name.removesuffix(PER_IMAGE)
                sorted_.averaged[metric] = (sorted_.averaged.get(metric, (None, None))[0], name)
            else:
                sorted_.single.append(name)
        return sorted_


def tiles(scored: Scored) -> Html:
    """Return the first metrics, large."""
    values = scored.values(scored.side)
    names = [name for name in values if CLASS not in name][:_TILES]
    shown = [_tile(scored, name, values[name]) for name in names]
    return element("div", shown, class_="tiles") if shown else Html("")


def _tile(scored: Scored, name: str, value: float | None) -> Html:
    metric, told = name, scored.side
    for ending, meaning in ((POOLED, "pooled over all pixels"), (PER_IMAGE, "mean over images")):
        if name.endswith(ending):
            metric, told = name.removesuffix(ending), f"{meaning}, {scored.side}"
    interval = scored.interval(scored.side, name)
    small = [element("small", f"95%: {interval}")] if interval else []
    return element("div", element("span", metric), element("b", number(value)), element("small", told, " "), *small,
                   class_="tile")  # fmt: skip


def metrics(scored: Scored) -> Html:
    """Return every metric of every side, what was scored at last before the others, and the definitions."""
    sides = sorted(scored.results.get("metrics", {}), key=lambda side: side != scored.side)
    if not any(scored.values(side) for side in sides):
        return element("p", "Nothing has been scored yet.")
    pieces: list[Content] = [
        element(
            "p",
            element("b", "Pooled"), " counts the pixels of all images together, as if they were one large image. ",
            element("b", "Per image"), " is computed for each image, and the mean over images is taken. The two "
            "differ, and papers report either under the same word.",
        ),
    ]  # fmt: skip
    for side in sides:
        pieces += [element("h3", _of_side(scored, side)), averages(scored, side)]
    pieces += [element("h3", "What each number is"), definitions(scored)]
    return joined(pieces)


def _of_side(scored: Scored, side: str) -> str:
    count = scored.results.get("images", {}).get(side)
    weights = "best weights" if scored.results.get("best_epoch") else "last weights"
    resolution = f"at {scored.results.get('resolution', 'input')} resolution, {weights}"
    return f"{side}: {count} images, {resolution}{flatters(side)}"


def flatters(side: str) -> str:
    """Return what is to be said behind the scores of the side that chose the checkpoint, else nothing."""
    return "; this side chose the checkpoint, so that its scores flatter" if side == "val" else ""


def averages(scored: Scored, side: str) -> Html:
    """Return the metrics of a side, pooled and per image side by side, with their intervals."""
    values = scored.values(side)
    names = _Names.of(list(values), scored.results.get("classes", ()))

    def shown(name: str | None) -> Html:
        if name is None:
            return element("td", "-", class_="number")
        interval = scored.interval(side, name)
        return cell(values[name], interval)

    rows = [
        element("tr", element("th", metric, scope="row"), shown(pooled), shown(per_image))
        for metric, (pooled, per_image) in names.averaged.items()
    ]
    columns: list[Content] = [
        "metric",
        ["pooled", element("small", "all pixels together")],
        ["per image", element("small", "mean over images")],
    ]
    tables = [table(columns, rows)] if rows else []
    if names.single:
        rows = [element("tr", element("th", name, scope="row"), shown(name)) for name in names.single]
        tables.append(table(["metric", "value"], rows))
    if any(scored.interval(side, name) for name in values):
        tables.append(element("p", "In brackets: 95% intervals.", class_="note"))
    return joined(tables)


def definitions(scored: Scored) -> Html:
    """Return what each number is."""
    known = scored.results.get("definitions", {})
    there = (name for side in scored.results.get("metrics", {}) for name in scored.values(side))
    names = list(dict.fromkeys([*known, *there]))

    def told(chosen: Sequence[str]) -> Html:
        return element("dl", ([element("dt", n), element("dd", known.get(n, "no definition"))] for n in chosen))

    of_classes = [name for name in names if CLASS in name]
    pieces: list[Content] = [
        told([name for name in names if name not in of_classes])
    ]  # fmt: skip
    if of_classes:
        summary = element("summary", f"the {len(of_classes)} numbers of single classes")
        pieces.append(element("details", summary, told(of_classes)))
    return joined(pieces)


def classes(scored: Scored) -> Html:
    """Return a row for each class; empty where no metric has values of single classes."""
    values = scored.values(scored.side)
    named = _Names.of(list(values), scored.results.get("classes", ())).classes
    if not named:
        return Html("")
    columns = list(dict.fromkeys(metric for by_metric in named.values() for metric in by_metric))
    rows = [
        element("tr", element("th", name, scope="row"),
                *(cell(values[by_metric[c]], scored.interval(scored.side, by_metric[c]))
                  if c in by_metric else element("td", "-", class_="number") for c in columns))
        for name, by_metric in named.items()
    ]  # fmt: skip
    told = f"Of {scored.side}, pooled: the pixels of all images counted together. A class that is nowhere is undefined."
    return joined([element("p", told), table(["class", *columns], rows, sortable=True)])


def spread(scored: Scored) -> Html:
    """Return how the scores of single images are distributed, and the images with the lowest; empty without any."""
    columns = scored.columns()
    if not columns:
        return Html("")
    drawn = [histogram(name, [row[name] for row in scored.per_image]) for name in columns]
    first = columns[0]
    ordered = sorted(scored.per_image, key=lambda row: rank_key(row[first]))[:_MOST_ROWS]
    rows = [element("tr", element("th", row["id"], scope="row"), *(cell(row[n]) for n in columns)) for row in ordered]
    count = len(scored.per_image)
    which = f"all {count} images" if count <= _MOST_ROWS else f"the {_MOST_ROWS} of {count} images"
    summary = element("summary", f"{which} with the lowest {first} first" if count <= _MOST_ROWS
                      else f"{which} with the lowest {first}; per_image.csv has all")  # fmt: skip
    return joined([
        element("p", f"How many images of {scored.side} reached which score. "
                     "The line is at the mean, the dashed one at the median."),
        element("div", drawn, class_="histograms"),
        element("details", summary, table(["image", *columns], rows, sortable=True)),
    ])  # fmt: skip


def rank_key(score: float) -> float:
    """Return what images are ordered by, from the worst; an undefined score stands before all others."""
    return -1.0 if score != score else score  # noqa: PLR0124


def epochs(material: Material) -> Html:
    """Return the history as a table, without values of single classes."""
    rows = material.history
    if not rows:
        return element("p", "No epoch is finished yet.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [name for name in names if CLASS not in name and name != "epoch" and not name.startswith(SECONDS)]
    best = material.results.get("best_epoch")
    lines = [
        element("tr", element("th", f"{row['epoch']:g}" + (" best" if row["epoch"] == best else ""), scope="row"),
                *(element("td", _in_history(name, row), class_="number plain") for name in shown),
                class_="best" if row["epoch"] == best else None)
        for row in rows
    ]  # fmt: skip
    note = (
        "Values of single classes, and what took how long, are in history.csv." if len(shown) + 1 < len(names) else ""
    )
    summary = element("summary", f"{len(rows)} epochs as a table")
    whole = table(["epoch", *shown], lines)
    return element("details", summary, whole, element("p", note, class_="note"), open="" if len(rows) <= 30 else None)


def _in_history(name: str, row: Mapping[str, float]) -> str:
    if name not in row:
        return ""
    # Learning rates are often small and seldom round.
    return f"{row[name]:.4g}" if name.startswith("lr.") else number(row[name])


def headline(material: Material, when: str, took: str) -> Html:
    """Return what was run, and how it ended."""
    results = material.results
    monitor, best = results.get("monitor", ""), results.get("best_epoch")
    value = f"{best}, with {monitor} {number(results.get('best_value'))}" if best else f"none: no {monitor} was defined"
    images = ", ".join(f"{count} {side}" for side, count in results.get("images", {}).items())
    return facts([
        ("recipe", str(results.get("recipe") or material.environment.get("recipe", ""))),
        ("dataset", f"{results['dataset']}: {images}" if "dataset" in results else ""),
        ("classes", ", ".join(results.get("classes", ()))),
        ("begun", when),
        ("trained", f"{results['epochs']} epochs in {took}, {results['stopped_because']}" if results else ""),
        ("time", shares_in_words(results.get("time", {}))),
        ("best epoch", value if results else ""),
        ("seed", str(results.get("seed", ""))),
        ("folder", str(material.directory.path)),
    ])  # fmt: skip
