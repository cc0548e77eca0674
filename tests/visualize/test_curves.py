"""Training curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from segreg.visualize.plots import plot_history

ROW = {"epoch": 1, "lr.encoder": 1e-3, "train.loss": 1.0, "val.loss": 1.1, "val.dice.pooled": 0.1, "seconds": 2.0}
HISTORIES = {
    "one epoch": [ROW],
    "a rate that ends at nothing, and a score that was never defined": [
        {**ROW, "val.dice.pooled": math.nan},
        {**ROW, "epoch": 2, "val.dice.pooled": math.nan, "lr.encoder": 0.0},
    ],
    "values that came later, and a rate of nothing": [
        {"epoch": 1, "train.loss": 1.0, "lr.encoder": 0.0},
        {**ROW, "epoch": 2, "lr.encoder": 0.0},
    ],
    "no validation": [{"epoch": 1, "train.loss": 1.0, "lr.head": 0.1}],
    "many classes": [{**ROW, **{f"val.iou.class.{i}": 0.5 for i in range(50)}, "val.iou.pooled": 0.5}],
    "a score without any value": [{**ROW, "val.dice.pooled": None}],
    "no epoch": [],
}


@pytest.mark.parametrize("case", HISTORIES)
def test_curves_are_drawn_of_any_history(case, tmp_path):
    file = tmp_path / "curves.png"
    plot_history(HISTORIES[case], file, monitor="val.dice.pooled", best_epoch=1)
    with Image.open(file) as image:
        assert image.format == "PNG"
        spread = np.asarray(image.convert("L")).std()
    assert spread > 5 or not HISTORIES[case]


def test_curves_name_what_they_show(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    plotted = {}
    plot = Axes.plot

    def note(axes, x, y, **how):
        plotted[how["label"]] = (list(x), list(y))
        return plot(axes, x, y, **how)

    monkeypatch.setattr(Axes, "plot", note)
    rows = [{**ROW, "epoch": n, "train.loss": 1 / n, "val.hausdorff": 3.0 * n} for n in (1, 2, 3)]
    plot_history(rows, tmp_path / "c.png", monitor="val.hausdorff", best_epoch=None)
    assert plotted["train.loss"] == ([1, 2, 3], [1, 1 / 2, 1 / 3])
    assert plotted["val.hausdorff (monitored)"] == ([1, 2, 3], [3.0, 6.0, 9.0])
    assert {"val.loss", "val.dice.pooled", "lr.encoder"} <= plotted.keys()
    assert "seconds" not in plotted


def test_values_that_are_always_the_same_are_one_line(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    labels = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, *points, **how: labels.append(how["label"]) or plot(axes, *points, **how)
    )
    rows = [{**ROW, "epoch": n, "lr.decoder": 1e-3, "lr.head": 1e-3 * n} for n in (1, 2)]
    plot_history(rows, tmp_path / "c.png", monitor="val.loss", best_epoch=None)
    assert [label for label in labels if label.startswith("lr.")] == ["lr.encoder, lr.decoder", "lr.head"]
