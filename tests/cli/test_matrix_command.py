"""`segreg matrix`."""

from __future__ import annotations

import json

import pytest

import plugged
from segreg.benchmark.matrix.record import EncoderResult, Finished, PairResult
from segreg.runtime.device import cores

BENCHMARK = next(point for point in plugged.builtin() if point.name == "builtin-benchmark")
"""The entry point that brings `segreg matrix`."""


@pytest.fixture(autouse=True)
def _pairs(installed, tmp_path, monkeypatch):
    installed(BENCHMARK, plugged.point("matrix_parts", distribution="segreg-pairs"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tasks(monkeypatch):
    """Take the processes' place: every pair works but those of "pair.even"; return the tasks that were asked for."""
    asked = []

    def run(tasks, *, processes, timeout, finished, advance):
        for task in tasks:
            asked.append((task.encoder, *task.decoders))
            cells = [
                PairResult(task.encoder, name, *(("250x333", "sides differ") if name == "pair.even" else ("", "")))
                for name in task.decoders
            ]
            advance(task.encoder, len(cells))
            finished(Finished(EncoderResult(task.encoder, task.family, 10, (4,), (4,)), tuple(cells), task.versions))

    monkeypatch.setattr("segreg.benchmark.matrix.make.run", run)
    return asked


def test_what_works(segreg, tasks, tmp_path):
    printed = segreg("matrix", "--encoders", "pair.good", "--decoders", "pair.last", "pair.close")
    assert (printed.status, printed.out) == (
        0, "2 of 2 pairs work\nwrote matrix/matrix.html\nwrote matrix/matrix.csv\nwrote matrix/cells.jsonl\n",
    )  # fmt: skip
    assert printed.err == f"2 pairs of 1 encoders, {cores()} at a time\n"
    assert tasks == [("pair.good", "pair.close", "pair.last")]
    assert (tmp_path / "matrix" / "matrix.csv").read_text().count("\n") == 3


def test_what_fails_is_reported_and_is_the_exit_status(segreg, tasks):
    printed = segreg("matrix", "--encoders", "many/*", "--decoders", "pair.last", "pair.even", "--jobs", "3")
    assert printed.status == 1
    assert printed.out.splitlines()[:4] == [
        *(f"many/{name} with pair.even: 250x333: sides differ" for name in "abc"), "3 of 6 pairs work",
    ]  # fmt: skip
    assert printed.err == "6 pairs of 3 encoders, 3 at a time\n"


def test_known_pairs_are_not_checked_again(segreg, tasks):
    segreg("matrix", "--encoders", "pair.good", "--decoders", "pair.last")
    printed = segreg("matrix", "--encoders", "pair.good", "few/*", "--decoders", "pair.last", "pair.even", "--quiet")
    assert tasks[1:] == [("few/d", "pair.even", "pair.last"), ("few/e", "pair.even", "pair.last"),
                         ("pair.good", "pair.even")]  # fmt: skip
    assert "3 of 6 pairs work (1 were known)" in printed.out
    assert printed.err == ""
    printed = segreg("matrix", "--encoders", "pair.good", "--decoders", "pair.last")
    assert len(tasks) == 4
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.startswith("1 of 1 pairs work (1 were known)\n")
    segreg("matrix", "--encoders", "pair.good", "--decoders", "pair.last", "--again")
    assert tasks[4:] == [("pair.good", "pair.last")]


def test_another_version_is_checked_again(segreg, tasks, installed):
    segreg("matrix", "--encoders", "pair.good", "--decoders", "pair.last")
    installed(BENCHMARK, plugged.point("matrix_parts", distribution="segreg-pairs", version="2.0"))
    printed = segreg("matrix", "--encoders", "pair.good", "--decoders", "pair.last")
    assert tasks == [("pair.good", "pair.last")] * 2
    assert "1 pairs were checked with other versions and are not included\n" in printed.out


def test_json_and_summary(segreg, tasks, tmp_path):
    printed = segreg(
        "matrix", "--encoders", "pair.good", "--decoders", "pair.even", "--json", "--out", "m", "--summary", "s.md"
    )
    assert (printed.status, printed.err) == (1, "")
    reported = json.loads(printed.out)
    assert (reported["ok"], reported["all"], reported["checked"]) == (0, 1, 1)
    assert reported["cells"][0]["reason"] == "sides differ"
    assert reported["versions"]["segreg-pairs"] == "1.0"
    assert reported["files"] == ["m/matrix.html", "m/matrix.csv", "m/cells.jsonl", "s.md"]
    assert "| `pair.good` | all | 250x333 | sides differ |" in (tmp_path / "s.md").read_text()


def test_mistakes_are_reported(segreg, tmp_path):
    printed = segreg("matrix", "--encoders", "pair.godo*")
    assert (printed.status, printed.err.splitlines()[0]) == (2, 'error: no encoder matches "pair.godo*"')
    assert segreg("matrix", "--jobs", "0").err == "error: --jobs must be above 0, not 0\n"
    (tmp_path / "file").write_text("")
    assert segreg("matrix", "--out", "file").err == "error: file is a file\n  --out names a folder\n"


OTHER = """
from segreg.registry.entry import Entry
from segreg.registry.hooks import hookimpl

def good(in_channels):
    \"\"\"Of another package.\"\"\"

@hookimpl
def segreg_entries():
    return [Entry("encoder", "pair.good", good)]
"""


def test_a_name_that_two_packages_offer_is_tried_by_its_package(segreg, tasks, installed, plugin):
    """Alone it says nothing to the process that looks it up."""
    other = plugin(OTHER, distribution="segreg-other")
    installed(BENCHMARK, plugged.point("matrix_parts", distribution="segreg-pairs"), other)
    segreg("matrix", "--encoders", "pair.good@segreg-pairs", "--decoders", "pair.last")
    assert tasks == [("pair.good@segreg-pairs", "pair.last")]
