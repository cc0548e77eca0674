"""Diagrams of curves, confusion matrices and reliability: which are drawn, and what stands in them."""

from __future__ import annotations

import contextlib
from unittest import mock

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from torchmetrics import MetricCollection

from segreg.registry.protocols import Curve, Matrix, Reliability
from segreg.visualize import plots
from segreg.visualize.plots import plot_metrics


class Offers:
    """A metric, as far as drawing is concerned, that gives these tables."""

    def __init__(self, *tables):
        self.tables = lambda: {str(number): table for number, table in enumerate(tables)}


def draw(folder, *tables):
    """Draw tables and return the figures by their files' names."""
    figures = {}

    def keep(figure, file):
        figures[file.name] = figure
        return saved(figure, file)

    saved = plots._save
    with mock.patch.object(plots, "_save", keep):
        files = plot_metrics({"metric": Offers(*tables), "other": object()}, folder)
    assert [file.name for file in files] == list(figures)
    for file in files:
        with Image.open(file) as image:
            assert image.width > 300
    return figures


def figure_of(table, *more):
    """Return the figure of tables of one kind, which nobody renders."""
    with mock.patch.object(plots, "_save", lambda figure, _: figure):
        (figure,) = plot_metrics({"metric": Offers(table, *more)}, mock.MagicMock())
    return figure


def curve(name, kind="roc", *, prevalence=0.3, power=4.0):
    x = np.linspace(0, 1, 200)
    if kind == "roc":
        return Curve(name, x, x ** (1 / power), "false positive rate", "recall", "AUC 0.8000", (0.0, 1.0))
    return Curve(name, x, 1 - x**power * (1 - prevalence), "recall", "precision", "AP 0.7", (prevalence, prevalence))


def matrix(size, name="", seed=0):
    drawn = np.random.default_rng(seed)
    counts = drawn.integers(0, 40_000, (size, size)) * (drawn.random((size, size)) < 0.4)
    counts += np.diag(drawn.integers(100_000, 3_000_000, size))
    return Matrix(name, tuple(f"class {k}" for k in range(size)), counts)


def bins(name, bent=0.8):
    edges = (np.arange(15) + 0.5) / 15
    share = np.where(edges < 0.5, 0.02, 0.12)
    share[3] = 0
    confidence, accuracy = edges.copy(), edges**bent
    confidence[3] = accuracy[3] = np.nan
    return Reliability(name, confidence, accuracy, share / share.sum(), "ECE 0.0312")


def words(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_only_what_is_offered_is_drawn(tmp_path):
    assert plot_metrics({"metric": object(), "other": Offers()}, tmp_path) == []
    assert list(draw(tmp_path, matrix(2))) == ["confusion.png"]
    assert list(draw(tmp_path, bins("lesion"), curve("lesion"))) == ["roc_pr_curves.png", "reliability.png"]


def test_names_are_neither_left_out_nor_taken_for_formulas(tmp_path):
    odd = Matrix("", (r"$\nothing$", "_background_"), np.eye(2, dtype=int))
    figures = draw(tmp_path, curve("_background_"), curve(r"$\nothing$"), bins("_background_"), odd)
    assert words(figures["roc_pr_curves.png"].axes[0])[:2] == ["_background_: AUC 0.8000", r"$\nothing$: AUC 0.8000"]
    assert words(figures["reliability.png"].axes[0])[1] == "_background_: ECE 0.0312"


def test_names_are_drawn_in_any_script_without_a_warning(tmp_path):
    draw(tmp_path, curve("病変"), bins("病変"), Matrix("", ("病変", "\x1b[31m"), np.eye(2, dtype=int)))


def test_roc_and_precision_recall_stand_side_by_side(tmp_path):
    figure = draw(tmp_path, curve("lesion", "pr"), curve("lesion"))["roc_pr_curves.png"]
    roc, pr = figure.axes
    assert (roc.get_xlabel(), pr.get_xlabel()) == ("false positive rate", "recall")
    assert words(roc) == ["lesion: AUC 0.8000", "chance"]
    assert [line.get_ydata()[:2].tolist() for line in (roc.lines[-1], pr.lines[-1])] == [[0, 1], [0.3, 0.3]]
    with Image.open(tmp_path / "roc_pr_curves.png") as image:
        assert image.width > 1.5 * image.height


def test_twelve_classes_are_drawn_and_the_others_reported():
    names = [f"class {k}" for k in range(15)]
    tables = [
        curve(name, kind, prevalence=0.02 * k, power=2 + k) for kind in ("roc", "pr") for k, name in enumerate(names)
    ]
    roc, pr = figure_of(*tables).axes
    assert len(roc.lines) == 12 + 1
    assert roc.get_legend().get_title().get_text() == "the 12 of 15 classes with the smallest area"
    assert len({line.get_color() for line in roc.lines}) == 13
    # Chance differs between classes here, and has the class's colour.
    chances = [line for line in pr.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    assert [line.get_color() for line in chances] == [line.get_color() for line in pr.lines[:12]]
    assert words(pr)[-1] == "chance, for each class"


@pytest.mark.parametrize("size", [2, 3, 6, 7, 30, 31, 40])
def test_a_matrix_has_its_rows_shares_as_colours_and_its_counts_as_words(size):
    table = matrix(size)
    axes = figure_of(table).axes[0]
    shares = table.counts / table.counts.sum(1, keepdims=True)
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(table.labels)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    reported = {text.get_position(): text.get_text() for text in axes.texts}
    if size > 30:
        assert not reported
    elif size <= 3:
        assert reported[1, 0] == f"{shares[0, 1]:.1%}\n{table.counts[0, 1]:,}"
    else:
        assert set(reported) >= {(column, row) for row, column in zip(*np.nonzero(table.counts), strict=True)}


@pytest.mark.parametrize("size", [2, 6, 11])
def test_words_stay_inside_their_cells(tmp_path, size):
    axes = draw(tmp_path, matrix(size))["confusion.png"].axes[0]
    start, end = axes.transData.transform([(0, 0), (1, 1)])
    for text in axes.texts:
        box = text.get_window_extent()
        assert box.width < abs(end - start)[0]
        assert box.height < abs(end - start)[1]


def test_a_class_without_pixels_is_an_empty_row():
    counts = np.array([[5, 1], [0, 0]])
    axes = figure_of(Matrix("", ("ground", "disc"), counts)).axes[0]
    assert axes.images[0].get_array()[1].tolist() == [0, 0]


def test_several_matrices_have_panels_of_their_own():
    figure = figure_of(*[matrix(2, f"label {k}") for k in range(11)])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"label {k}" for k in range(9)]
    assert figure.get_suptitle() == "the 9 of 11 with the most wrong pixels"


def test_of_41_classes_two_are_drawn_together():
    labels = [label.get_text() for label in figure_of(matrix(41)).axes[0].get_yticklabels()]
    assert len(labels) == len(set(labels)) == 40
    assert labels[-1] == "(2 others)"


def test_of_many_classes_the_worst_are_drawn_in_a_bounded_picture(tmp_path):
    """A diagram of all of 200 classes took 8 GB."""
    count = 254
    bent = [1 + (7 * k) % count / 9 for k in range(count)]
    names = [f"class {k}" for k in range(count)]
    table = matrix(count)
    tables = [table, *(bins(name, power) for name, power in zip(names, bent, strict=True))]
    tables += [curve(name, power=power) for name, power in zip(names, bent, strict=True)]
    figures = draw(tmp_path, *tables)
    for name in figures:
        with Image.open(tmp_path / name) as image:
            assert max(image.size) <= 3300

    axes = figures["confusion.png"].axes[0]
    wrong = table.counts.sum(0) + table.counts.sum(1) - 2 * table.counts.diagonal()
    kept = sorted(np.argsort(-wrong, kind="stable")[:39])
    others = [k for k in range(count) if k not in kept]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*(f"class {k}" for k in kept), f"({count - 39} others)"]
    line = f"the 39 of {count} classes with the most wrong pixels; the other {count - 39} are the last row and column"
    assert line in axes.get_title()
    shares = axes.images[0].get_array()
    rows = table.counts.sum(1)
    np.testing.assert_allclose(shares[:39, :39], (table.counts / rows[:, None])[np.ix_(kept, kept)])
    np.testing.assert_allclose(shares[-1, -1], table.counts[np.ix_(others, others)].sum() / rows[others].sum())
    np.testing.assert_allclose(shares.sum(1), 1)

    straight = sorted(np.argsort(bent, kind="stable")[:12])
    roc = figures["roc_pr_curves.png"].axes[0]
    assert [word.partition(":")[0] for word in words(roc)[:12]] == [f"class {k}" for k in straight]
    assert roc.get_legend().get_title().get_text() == f"the 12 of {count} classes with the smallest area"
    reliability = figures["reliability.png"].axes[0]
    far = sorted(np.argsort(bent, kind="stable")[-12:])
    assert [word.partition(":")[0] for word in words(reliability)[1:]] == [f"class {k}" for k in far]
    assert reliability.get_legend().get_title().get_text() == f"the 12 of {count} classes with the largest error"


def test_a_diagram_that_fails_costs_only_itself(tmp_path):
    """Neither a metric that offers nothing, nor a picture that is too large for the memory, nor an old file."""
    failed = []

    @contextlib.contextmanager
    def guard(what):
        try:
            yield
        except Exception as error:
            failed.append((what, type(error)))

    broken = mock.Mock(tables=mock.Mock(side_effect=RuntimeError("no table")))
    (tmp_path / "confusion.png").write_bytes(b"of an evaluation before")
    with mock.patch.object(plots, "_matrices", side_effect=MemoryError):
        metrics = {"a": broken, "b": Offers(matrix(3), curve("lesion"), bins("lesion"))}
        files = plot_metrics(metrics, tmp_path, guard)
    assert failed == [("the diagram of a", RuntimeError), ("confusion.png", MemoryError)]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in files)
    assert [file.name for file in files] == ["roc_pr_curves.png", "reliability.png"]


def test_reliability_leaves_empty_bins_out_and_shows_shares():
    figure = figure_of(bins("lesion"))
    upper, lower = figure.axes
    assert len(upper.lines[1].get_xdata()) == 14
    assert words(upper) == ["as sure as right", "lesion: ECE 0.0312"]
    np.testing.assert_allclose(lower.patches[0].get_data().values, bins("lesion").share)
    assert isinstance(figure, Figure)


@pytest.mark.parametrize(
    ("count", "exact", "reported"),
    [(0, False, "0"), (999, False, "999"), (1234, False, "1.2k"), (123456, False, "123k"), (2_500_000, False, "2.5M"),
     (3_000_000_000, False, "3.0G"), (1_234_567, True, "1,234,567"), (999_999, False, "1.0M")],
)  # fmt: skip
def test_counts_are_reported_in_the_room_there_is(count, exact, reported):
    assert plots._rounded(count, exact=exact) == reported


def test_what_built_in_metrics_offer_is_drawn(tmp_path):
    import torch

    from segreg.task import Task
    from segreg_plugins.metrics import segreg_entries

    task = Task(("ground", "red", "green"), "multiclass")
    builders = {entry.name: entry.build for entry in segreg_entries()}
    metrics = MetricCollection({n: builders[n](task, 0.5) for n in ("dice", "accuracy", "roc_auc", "pr_auc", "ece")})
    target = torch.randint(0, 3, (2, 16, 16))
    metrics.update(torch.randn(2, 3, 16, 16) + torch.nn.functional.one_hot(target).movedim(-1, 1), target)
    files = plot_metrics(metrics, tmp_path)
    assert [file.name for file in files] == ["roc_pr_curves.png", "confusion.png", "reliability.png"]


@pytest.mark.parametrize("rates", [(1e-4, 1e-4), (1e-2, 1e-5), (3e-4, 2e-4)])
def test_learning_rates_have_ticks_in_plain_numbers(rates, tmp_path):
    rows = [{"epoch": epoch, "train.loss": 0.5, "lr.encoder": rate} for epoch, rate in enumerate(rates, start=1)]
    labels = []

    def read(figure, _):
        figure.canvas.draw()
        axes = {axes.get_title(): axes for axes in figure.axes}["learning rate"]
        labels.extend(label.get_text() for label in axes.get_yticklabels() + axes.get_yticklabels(minor=True))

    with mock.patch.object(plots, "_save", read):
        plots.plot_history(rows, tmp_path / "curves.png", monitor="val.loss", best_epoch=1)
    numbers = [float(label.translate({0x2212: "-"})) for label in labels if label]  # not "$\\mathdefault{10^{-4}}$"
    assert min(numbers) <= max(rates)
    assert max(numbers) >= min(rates)
