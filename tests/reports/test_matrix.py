"""segreg.benchmark.matrix: which parts are chosen, and the table, the page and the summary of a matrix."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

import plugged
from segreg.benchmark.matrix.make import choose_parts, family_of, unique_name
from segreg.benchmark.matrix.record import EncoderResult, Matrix, PairResult, count_results
from segreg.benchmark.matrix.store import csv_table, summary, write_summary
from segreg.errors import SegregError
from segreg.registry.registry import load_registry
from segreg.reports.matrix import page


@pytest.fixture(scope="module")
def registry():
    return load_registry([plugged.point("matrix_parts")])


def names(registry, *patterns):
    return [part.name for part in choose_parts(registry, "encoder", patterns)]


def test_representatives_stand_for_their_family(registry):
    entries = {
        f"pair.{name}" for name in ("good", "dilating", "lying", "grey", "frozen", "fixed", "refusing", "crashing")
    }
    assert set(names(registry)) == entries | {"many/b", "few/d", "few/e"}
    assert set(names(registry, "all")) == entries | {"many/a", "many/b", "many/c", "few/d", "few/e"}
    assert names(registry, "many/*", "pair.good", "many/a") == ["many/a", "many/b", "many/c", "pair.good"]


def test_a_pattern_that_matches_nothing(registry):
    with pytest.raises(SegregError) as caught:
        choose_parts(registry, "encoder", ["pair.godo"])
    assert (
        str(caught.value) == 'no encoder matches "pair.godo"\n  did you mean "pair.good", "pair.grey" or "pair.lying"?'
    )


def test_two_packages_with_one_name():
    registry = load_registry([
        plugged.point("matrix_parts"), plugged.point("stand_ins", distribution="segreg-two"),
    ])  # fmt: skip
    parts = choose_parts(registry, "encoder", ["pair.good", "tiny@segreg-two"])
    assert [unique_name(part, parts) for part in parts] == ["pair.good", "tiny"]
    assert [family_of(part) for part in parts] == ["single entries of segreg-lab", "single entries of segreg-two"]
    other = dataclasses.replace(parts[0], plugin=dataclasses.replace(parts[0].plugin, distribution="segreg-two"))
    assert [unique_name(part, [parts[0], other]) for part in (parts[0], other)] == [
        "pair.good@segreg-lab", "pair.good@segreg-two",
    ]  # fmt: skip


@pytest.fixture
def matrix():
    numbers = {"encoder": 1_000_000, "decoder": 200_000, "head": 5, "total": 1_200_005}
    rows = (
        EncoderResult("net", "f", 1_000_000, (8, 16), (4, 8), (224, 224)),
        EncoderResult("broken", "g", reason="ValueError: a < b | c"),
    )
    cells = (
        PairResult("net", "one", parameters=numbers, strides=(4, 8)),
        PairResult("net", "two", parameters=numbers, strides=(4, 4), dilated=True),
        PairResult(
            "net", "three", "250x333", "logits have another shape", numbers, (4, 8), notes=("a level is resampled",)
        ),
        PairResult("broken", "one", "the encoder is built", "ValueError: a < b | c"),
        PairResult("broken", "two", "the encoder is built", "ValueError: a < b | c"),
    )
    return Matrix(
        rows, ("one", "two", "three"), {(cell.encoder, cell.decoder): cell for cell in cells}, {"segreg": "1"}, 75.0
    )


def test_counts(matrix):
    exported = {"tried": 0, "exports": 0}
    assert count_results(matrix.of_encoder("net")) == {"all": 3, "ok": 2, "dilated": 1, "adapted": 0, **exported}
    assert count_results(matrix.of_decoder("three")) == {"all": 1, "ok": 0, "dilated": 0, "adapted": 0, **exported}
    assert matrix.reasons() == [
        ("net", "250x333", "logits have another shape", ["three"]),
        ("broken", "the encoder is built", "ValueError: a < b | c", ["one", "two"]),
    ]


def test_the_table_has_a_line_for_each_cell(matrix):
    rows = list(csv.DictReader(io.StringIO(csv_table(matrix))))
    assert len(rows) == 5
    assert rows[1]["decoder_strides"] == "4 4"
    assert {name: rows[2][name] for name in ("encoder", "ok", "check", "parameters", "native", "notes")} == {
        "encoder": "net", "ok": "0", "check": "250x333", "parameters": "1200005", "native": "224x224",
        "notes": "a level is resampled",
    }  # fmt: skip


def test_the_page_reports_every_cell_and_reason(matrix):
    text = page(matrix)
    assert "2 of 5 pairs of 2 encoders and 3 decoders work." in text
    assert text.count('<td class="sign ok"') == 2
    assert text.count('<td class="sign failed"') == 3
    assert text.count('<td class="sign unchecked"') == 1
    reason = "the encoder is built: ValueError: a &lt; b | c"
    assert f'title="broken with two\n{reason}"' in text
    assert 'title="net with two\n1.2 M parameters\nlevels of strides 4, 4"' in text
    assert "<td>ValueError: a &lt; b | c</td>" in text
    assert "a < b" not in text
    assert "default-src 'none'" in text.replace("&#x27;", "'")


def test_the_summary(matrix):
    text = summary(matrix)
    assert text.startswith("2 of 5 pairs work: 2 encoders, 3 decoders. It took 1 min 15 s of one core.\n\nsegreg 1\n")
    assert "| `two` | 1 | 2 | 1 | 0 |" in text
    assert "| f | 1 | 2 | 3 |" in text
    assert "| `net` | `three` | 250x333 | logits have another shape |" in text
    assert "| `broken` | all | the encoder is built | ValueError: a &lt; b \\| c |" in text


def test_the_summary_takes_its_place_in_a_page(matrix, tmp_path):
    file = tmp_path / "new" / "page.md"
    write_summary(matrix, file)
    assert file.read_text().startswith("# Matrix\n\n<!-- matrix -->\n\n2 of 5")
    file.write_text("before\n<!-- matrix -->\nold\n<!-- end -->\nafter\n")
    write_summary(matrix, file)
    assert file.read_text() == f"before\n<!-- matrix -->\n\n{summary(matrix)}\n<!-- end -->\nafter\n"
    file.write_text("no place\n")
    with pytest.raises(SegregError) as caught:
        write_summary(matrix, file)
    assert str(caught.value) == (
        f"{file} has no place for the summary\n"
        "  put the lines <!-- matrix --> and <!-- end --> where the summary belongs, or name another file"
    )
    assert file.read_text() == "no place\n"
