"""The report opened in a browser: nothing is complained of, every image is there, tables are sorted by a click."""

from __future__ import annotations

import pytest

import opened
import tiny_runs
from segreg.reports import write_report

SCRIPT = """
  told.order = [];
  const table = document.querySelector("table.sortable");
  const read = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent.trim());
  told.order.push(read());
  for (const _ of [1, 2]) { table.tHead.rows[0].cells[1].click(); told.order.push(read()); }
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with the probe put before everything, which the page's policy lets run beside its own script."""
    run = tiny_runs.finished(tmp_path_factory)
    folder = tmp_path_factory.mktemp("opened")
    return opened.probed(write_report(run.directory, run.recipe, folder / "report.html"), SCRIPT)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 500])
def test_a_browser_shows_all_of_it(page, tmp_path, width):
    told = opened.told_by(opened.browser(), page, tmp_path, width)
    assert len(told["images"]) == page.read_text(encoding="utf-8").count("<img ") >= 4
    before, ascending, descending = ([float(value) for value in column] for column in told["order"])
    assert ascending == sorted(before)
    assert descending == ascending[::-1] != ascending
    assert told["wide"] <= 0  # tables and images scroll in frames of their own, the page does not
