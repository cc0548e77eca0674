"""Pages opened in a browser: a click sorts, a choice changes the cost, a name highlights its lines; no errors."""

from __future__ import annotations

import pytest

import opened
import planted_comparison as planted
import tiny_runs
from segreg.reports import write_report
from segreg.reports.comparison import write_comparison

SCRIPT = """
  told.order = {}; told.costs = []; told.light = [];
  const table = document.querySelector("table.sortable");
  const heads = [...table.tHead.rows[0].cells];
  const read = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
  for (const name of ["parameters", "best", "to the baseline"]) {
    const head = heads.find((cell) => cell.textContent.startsWith(name));
    told.order[name] = [1, 2].map(() => { head.click(); return read(); });
  }
  const choice = document.querySelector("select.costs");
  told.chosen = choice.checkVisibility();
  const shown = () => [...document.querySelectorAll("figure.tradeoff")].filter((figure) => figure.checkVisibility())
    .map((figure) => figure.dataset.cost);
  told.costs.push(shown());
  for (const cost of ["latency_p50_ms", "training_images_per_second"]) {
    choice.value = cost;
    choice.dispatchEvent(new Event("change"));
    told.costs.push(shown());
  }
  const keys = [...document.querySelectorAll("button.key")];
  const look = () => [document.body.classList.contains("lighting"), document.querySelectorAll(".plot .lit").length,
    [...new Set([...document.querySelectorAll(".lit")].map((part) => part.dataset.model))].join()];
  const paler = document.querySelector('#learning-curves .plot [data-model="0"]');
  told.before = getComputedStyle(paler).opacity;
  keys[2].dispatchEvent(new Event("pointerenter"));
  told.light.push(look());
  told.paler = getComputedStyle(paler).opacity;
  keys[2].dispatchEvent(new Event("pointerleave"));
  told.light.push(look());
  keys[1].click();
  keys[1].dispatchEvent(new Event("pointerleave"));
  told.light.push(look());
  told.pressed = keys.filter((key) => key.getAttribute("aria-pressed") === "true").length;
  keys[1].click();
  told.light.push(look());
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with the probe put before everything, which the page's policy lets run beside its own script."""
    models = tuple(planted.model(place, name="long_" * 40 if place == 3 else "") for place in range(12))
    compared = planted.comparison(models=models, failures=(planted.failure(reason="x" * 300),))
    *_, file = write_comparison(compared, tmp_path_factory.mktemp("opened"), [planted.disagreement(compared)])
    return opened.probed(file, SCRIPT)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 500])
def test_a_reader_sorts_chooses_and_points(page, tmp_path, width):
    reported = opened.label_of(opened.browser(), page, tmp_path, width)
    assert len(reported["images"]) == 2 + 12

    names = ["long_" * 40 if place == 3 else f"encoder{place}, dice_bce" for place in range(12)]
    names[1] += " baseline"
    # 90 M, 22.5 M, ... 1.5 M: the later the fewer, whatever letter stands behind the number.
    assert reported["order"]["parameters"] == [names[::-1], names]
    assert reported["order"]["best"][1] == names
    rest = [name for name in names if not name.endswith("baseline")]
    # What has no value stands last either way.
    assert reported["order"]["to the baseline"] == [[*rest[::-1], names[1]], [*rest, names[1]]]

    assert reported["chosen"] is True
    assert reported["costs"] == [["parameters"], ["latency_p50_ms"], ["training_images_per_second"]]

    (pointed, parts, model), left, kept, given_up = reported["light"]
    assert (pointed, model) == (True, "2")
    assert parts >= 3 * 2 + 1 + 2 * 3  # curves of two seeds, an interval, a mark and a name for each cost
    assert (reported["before"], reported["paler"]) == ("1", "0.1")
    assert left == [False, 0, ""]
    assert (kept[0], kept[2], reported["pressed"]) == (True, "1", 2)  # its name stands in two legends
    assert given_up[0] is False
    assert reported["wide"] <= 0  # tables and drawings scroll in frames of their own, the page does not


RUN_SCRIPT = """
  told.order = [];
  const table = document.querySelector("table.sortable");
  const read = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent.trim());
  told.order.push(read());
  for (const _ of [1, 2]) { table.tHead.rows[0].cells[1].click(); told.order.push(read()); }
"""


@pytest.fixture(scope="module")
def run_page(tmp_path_factory):
    """A report with the probe put before everything, which the page's policy lets run beside its own script."""
    run = tiny_runs.finished(tmp_path_factory)
    folder = tmp_path_factory.mktemp("opened")
    return opened.probed(write_report(run.directory, run.recipe, folder / "report.html"), RUN_SCRIPT)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 500])
def test_a_browser_shows_all_of_it(run_page, tmp_path, width):
    reported = opened.label_of(opened.browser(), run_page, tmp_path, width)
    assert len(reported["images"]) == run_page.read_text(encoding="utf-8").count("<img ") >= 4
    before, ascending, descending = ([float(value) for value in column] for column in reported["order"])
    assert ascending == sorted(before)
    assert descending == ascending[::-1] != ascending
    assert reported["wide"] <= 0  # tables and images scroll in frames of their own, the page does not
