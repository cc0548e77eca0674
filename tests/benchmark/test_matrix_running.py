"""segreg.benchmark.matrix.make and store: processes that die or hang, and what is kept between calls."""

from __future__ import annotations

import time

import pytest

from segreg.benchmark.matrix import make
from segreg.benchmark.matrix.make import EncoderJob, run
from segreg.benchmark.matrix.record import EncoderResult, Finished, PairResult
from segreg.benchmark.matrix.store import Store, current_results, versions
from segreg.errors import SegregError
from segreg.registry.registry import Plugin

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Install tests/matrix_parts.py as a package of its own, which other processes find too."""
    info = tmp_path / "segreg_pairs-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: segreg-pairs\nVersion: 2.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[segreg]\npairs = matrix_parts\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def ran(*jobs_, timeout=120.0, jobs=1):
    """Return each encoder's result, and how many of its pairs `advance` counted."""
    found, counts = {}, dict.fromkeys((task.encoder for task in jobs_), 0)

    def advance(encoder, count):
        counts[encoder] += count

    run(
        jobs_,
        processes=jobs,
        timeout=timeout,
        finished=lambda one: found.update({one.row.encoder: one}),
        advance=advance,
    )
    return found, counts


def task(encoder, *decoders):
    return EncoderJob(f"pair.{encoder}", tuple(f"pair.{name}" for name in decoders), "pairs", {"segreg": "1"})


def test_a_process_that_dies_loses_its_pair(outside):
    found, counts = ran(task("good", "last", "dying", "reading"), task("crashing", "last", "close"), jobs=2)
    good, crashing = found["pair.good"], found["pair.crashing"]
    assert [(cell.decoder, cell.check, cell.reason) for cell in good.cells] == [
        ("pair.last", "", ""),
        (
            "pair.dying", "it finishes",
            "its process was ended by signal SIGKILL, as where memory runs out",
        ),
        ("pair.reading", "", ""),
    ]  # fmt: skip
    assert good.row.strides == (4, 8)
    assert good.versions == {"segreg": "1"}
    reason = "its process was ended by signal SIGKILL, as where memory runs out"
    assert crashing.row == EncoderResult("pair.crashing", "pairs", reason=reason)
    assert [(cell.check, cell.reason) for cell in crashing.cells] == [("the encoder is built", reason)] * 2
    assert counts == {"pair.good": 3, "pair.crashing": 2}


def hang_at_the_second(send, encoder, decoders, family, exporter):
    send(EncoderResult(encoder, family))
    send(PairResult(encoder, decoders[0]))
    time.sleep(600)


def test_a_process_that_hangs_loses_its_pair(monkeypatch):
    monkeypatch.setattr(make, "_work", hang_at_the_second)
    found, counts = ran(task("good", "last", "slow"), timeout=3.0)
    assert [(cell.check, cell.reason) for cell in found["pair.good"].cells] == [
        ("", ""), ("it finishes", "it took longer than 3 s"),
    ]  # fmt: skip
    assert counts == {"pair.good": 2}


def finished(encoder, *decoders, versions=None, reason=""):
    cells = tuple(PairResult(encoder, name, "it is built" if reason else "", reason, seconds=1.5) for name in decoders)
    return Finished(EncoderResult(encoder, "f", seconds=2.0), cells, versions or {"segreg": "1"})


def test_a_store_keeps_what_was_appended(tmp_path):
    store = Store(tmp_path / "a" / "b")
    store.prepare()
    assert store.read() == []
    one, two = finished("one", "x", "y"), finished("two", "x")
    store.append(one)
    with store.file.open("a") as torn:
        torn.write('{"row": {"enc')
    store.append(two)
    assert store.read() == [one, two]
    assert store.file.read_text().count("\n") == 3


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegregError, match=r"the folder .*/file/in could not be created: Not a directory"):
        Store(tmp_path / "file" / "in").prepare()


def test_the_newest_result_with_these_versions_counts():
    now = {"segreg": "1", "torch": "2", "other": "9"}
    matrix, stale = current_results(
        [
            finished("one", "x", "y", reason="then"),
            finished("one", "x"),
            finished("two", "x", versions={"segreg": "0"}),
            finished("three", "x", versions={"segreg": "1", "gone": "1"}),
        ],
        now,
    )
    assert [row.encoder for row in matrix.rows] == ["one"]
    assert {pair: cell.reason for pair, cell in matrix.cells.items()} == {("one", "x"): "", ("one", "y"): "then"}
    assert stale == 2
    assert matrix.seconds == 2 + 1.5 + 1.5 + 2 + 1.5


def test_versions_are_those_of_packages_and_plugins():
    found = versions([Plugin("p", "m", "segreg-pairs", "2.0")])
    assert found["segreg-pairs"] == "2.0"
    assert {"segreg-toolkit", "torch", "timm", "segmentation-models-pytorch"} <= set(found)


def test_an_edited_plugin_is_another_where_its_version_stays():
    one, other = (versions([Plugin("p", "m", "segreg-pairs", "2.0", source=text * 32)]) for text in "ab")
    known = Finished(EncoderResult("one", "f"), (PairResult("one", "x"),), one)
    assert current_results([known], one)[1] == 0
    assert current_results([known], other)[1] == 1
    own = versions([Plugin("p", "m", "segreg-toolkit", "2.0", source="a" * 32)])
    assert not any(name.startswith("source of ") for name in own)


def test_what_is_not_a_part_fails_alone_with_its_reason(outside, monkeypatch):
    """Such as a decoder that needs a setting: the encoder's other pairs are tried."""
    monkeypatch.setattr("segreg.runtime.device.prepare_process", lambda: None)
    sent = []
    monkeypatch.setattr(
        "segreg.benchmark.matrix.trial.results_of",
        lambda encoder, decoders, *_: [EncoderResult(encoder.part.name, "f"), *(d.part.name for d in decoders)],
    )
    make._work(sent.append, "pair.good", ("pair.lost", "pair.last"), "f", "")
    assert sent[:2] == [EncoderResult("pair.good", "f"), "pair.last"]
    assert (sent[2].decoder, sent[2].check, sent[2].reason) == (
        "pair.lost", "it is built", 'there is no decoder "pair.lost"'
    )  # fmt: skip
    del sent[:]
    make._work(sent.append, "pair.gone", ("pair.last",), "f", "")
    reason = 'there is no encoder "pair.gone"'
    assert sent == [
        EncoderResult("pair.gone", "f", reason=reason),
        PairResult("pair.gone", "pair.last", "the encoder is built", reason),
    ]


def test_pairs_that_one_exporter_took_are_still_open_for_another():
    cell = PairResult("one", "x", exports="", exporter="onnx")
    assert [make._is_open(cell, exporter) for exporter in ("", "onnx", "openvino")] == [False, False, True]
