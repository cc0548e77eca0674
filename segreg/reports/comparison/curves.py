"""How each seed of each model learned: losses and a score over the epochs, all models in one drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segreg.benchmark.comparison.record import Comparison, Model
from segreg.reports.comparison.drawing import Frame, polyline
from segreg.reports.comparison.looks import is_known, legend, look
from segreg.reports.comparison.scales import scale
from segreg.reports.elements import Html, element, joined
from segreg.reports.scores import CLASS, PER_IMAGE, POOLED

_FRAME = Frame(460, 300, 54, 452, 26, 256)
_LOSSES = ("train.loss", "val.loss")


def curves(comparison: Comparison) -> Html:
    """Return a drawing for each loss and for the score of the validation images; empty without any history."""
    columns = [*_LOSSES, score_column(comparison)]
    drawn = [figure for column in columns if column and (figure := _figure(comparison, column))]
    if not drawn:
        return Html("")
    places = [place for place, model in enumerate(comparison.models) if model.curves]
    said = "A line for each seed. Point at a name to see its lines alone; a click keeps them."
    return joined(
        [element("p", said), legend(comparison.models, places), element("div", drawn, class_="multiples broad")]
    )


def score_column(comparison: Comparison) -> str:
    """Return the history's column that is nearest to the compared metric; empty where none is of its kind."""
    names = {name for model in comparison.models for curve in model.curves for name in curve}
    metric, _, _ = comparison.metric.partition(".")
    wanted = [f"val.{comparison.metric}", f"val.{metric}{POOLED}", f"val.{metric}{PER_IMAGE}"]
    others = sorted(name for name in names if name.startswith(f"val.{metric}.") and CLASS not in name)
    return next((name for name in [*wanted, *others] if name in names), "")


def _figure(comparison: Comparison, column: str) -> Html:
    lines = [
        (place, seed, points)
        for place, model in enumerate(comparison.models)
        for seed, curve in _of_seeds(model)
        if (points := _points(curve, column))
    ]
    up = scale((y for *_, points in lines for _, y in points), _FRAME.bottom, _FRAME.top, may_be_log=column in _LOSSES)
    along = scale((x for *_, points in lines for x, _ in points), _FRAME.left, _FRAME.right)
    if up is None or along is None:
        return Html("")
    drawn = [
        element(
            "g",
            element("title", f"{comparison.models[place].name}, seed {seed}"),
            polyline([(along.at(x), up.at(y)) for x, y in points], "curve"),
            class_=look(place),
            data_model=str(place),
        )
        for place, seed, points in lines
    ]
    label = f"{column} (logarithmic)" if up.log else column
    axes = [_FRAME.across(along, "epoch", ticks=5), _FRAME.upwards(up, label)]
    return element("figure", _FRAME.drawn(f"{column} over the epochs", axes, drawn))


def _of_seeds(model: Model) -> list[tuple[str, Mapping[str, Sequence[float]]]]:
    seeds = [str(seed) for seed in model.seeds]
    return [(seeds[place] if place < len(seeds) else "?", curve) for place, curve in enumerate(model.curves)]


def _points(curve: Mapping[str, Sequence[float]], column: str) -> list[tuple[float, float]]:
    """Return epoch and value where there is one; a score that is computed every few epochs is joined across them."""
    values = curve.get(column, ())
    epochs = curve.get("epoch", range(1, len(values) + 1))
    return [(float(epoch), value) for epoch, value in zip(epochs, values, strict=False) if is_known(value)]
