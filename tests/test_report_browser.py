"""The report opened in a browser: nothing is complained of, every picture is there, tables are sorted by a click."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess

import pytest

import tiny_runs
from segreg.report import write_report

PROBE = """
const told = {errors: [], images: [], order: []};
addEventListener("error", (event) => told.errors.push(String(event.message || event.target)), true);
addEventListener("securitypolicyviolation", (event) => told.errors.push("policy: " + event.violatedDirective));
addEventListener("load", () => {
  told.images = [...document.images].map((image) => image.naturalWidth);
  const table = document.querySelector("table.sortable");
  const read = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent.trim());
  told.order.push(read());
  for (const _ of [1, 2]) { table.tHead.rows[0].cells[1].click(); told.order.push(read()); }
  told.wide = document.documentElement.scrollWidth - innerWidth;
  const shown = document.createElement("pre");
  shown.id = "told";
  shown.textContent = JSON.stringify(told);
  document.body.append(shown);
});
"""


@pytest.fixture(scope="module")
def browser():
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    if not found:
        pytest.skip("no Chromium is installed")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with the probe put before everything, which the page's policy lets run beside its own script."""
    run = tiny_runs.finished(tmp_path_factory)
    folder = tmp_path_factory.mktemp("opened")
    text = write_report(run.directory, run.recipe, folder / "report.html").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src &#x27;sha256-{digest}&#x27; ", 1)
    file = folder / "probed.html"
    file.write_text(text.replace("<style>", f"<script>{PROBE}</script><style>", 1), encoding="utf-8")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 500])
def test_a_browser_shows_all_of_it(browser, page, tmp_path, width):
    opened = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--enable-logging=stderr", f"--user-data-dir={tmp_path}", f"--window-size={width},900",
         "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search('<pre id="told">(.*?)</pre>', opened.stdout, re.DOTALL)
    assert found, opened.stderr[-2000:]
    told = json.loads(html.unescape(found[1]))
    assert told["errors"] == []
    assert [line for line in opened.stderr.splitlines() if "CONSOLE" in line] == []
    assert len(told["images"]) == page.read_text(encoding="utf-8").count("<img ") >= 4
    assert min(told["images"]) > 0
    before, ascending, descending = ([float(value) for value in column] for column in told["order"])
    assert ascending == sorted(before)
    assert descending == ascending[::-1] != ascending
    assert told["wide"] <= 0  # tables and pictures scroll in frames of their own, the page does not
