"""The table of a comparison in the formats of papers: what is bold, what stands in each cell, what is escaped."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re

import pytest

import planted_comparison as planted
from segreg.benchmark.comparison.record import Difference
from segreg.benchmark.comparison.table import write_table
from segreg.benchmark.cost.record import Cost

SPECIAL = r"[50% of a_b & c^2 {x} \ ~ #1 $5 <|>*"


def rows_of(fragment):
    """Return the cells of each row of a fragment's tabular, after a check that LaTeX can read it."""
    text = re.sub(r"^%.*\n", "", fragment, flags=re.MULTILINE)
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    assert environments == [("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")]
    plain = re.sub(r"\\[\\&%$#_{}]", "", text)
    depth = 0
    for letter in plain:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    outside, *inside = re.split(r"\$", plain)[::2], re.split(r"\$", plain)[1::2]
    assert plain.count("$") % 2 == 0
    assert not re.search(r"[_^#%~]", "".join(outside)), "what only mathematics has"
    assert not re.search(r"[#%~&]", "".join(*inside))
    columns = re.search(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}", text)[1]
    lines = re.findall(r"^    (.*) \\\\$", text, flags=re.MULTILINE)
    rows = [re.split(r"(?<!\\)&", line) for line in lines]
    assert {len(row) for row in rows} == {len(columns)}
    assert all(not row[0].lstrip().startswith(("[", "*")) for row in rows), r"\\ takes them for its own"
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    return [[cell.strip() for cell in row] for row in rows]


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_several_seeds_have_a_deviation_and_the_best_is_bold():
    found = planted.comparison(3)
    found = dataclasses.replace(found, best=found.models[0].name)
    head, *rows = rows_of(write_table(found, "latex"))
    assert head[2] == r"dice.per\_image\_mean $\uparrow$"
    assert [row[2] for row in rows] == [r"$\mathbf{0.9000} \pm 0.0085$", r"$0.8800 \pm 0.0085$", r"$0.8600 \pm 0.0085$"]
    assert head[-2:] == [r"training, images/s $\uparrow$", r"latency, ms $\downarrow$"]
    lines = write_table(found, "markdown").splitlines()
    assert [line.split(" | ")[2] for line in lines[2:5]] == [
        "**0.9000** ± 0.0085",
        "0.8800 ± 0.0085",
        "0.8600 ± 0.0085",
    ]
    assert "Bold: significantly better than every other model by the same test" in lines[6]


def test_one_seed_has_an_interval_and_nobody_is_bold_who_is_not_significantly_better():
    found = planted.comparison(models=tuple(planted.model(place, seeds=1) for place in range(2)))
    text = write_table(found, "latex")
    assert [row[2] for row in rows_of(text)[1:]] == [r"$0.9000\ [0.8800, 0.9200]$", r"$0.8800\ [0.8600, 0.9000]$"]
    assert "mathbf" not in text
    assert "None is bold" in text


def test_names_are_escaped_and_remarks_go_with_the_table():
    models = (planted.model(0, name=SPECIAL, rank=None), planted.model(1, rank=None))
    found = planted.comparison(models=models, notices=("RANDOM\nweights",), failures=(planted.failure(),), waiting=2)
    text = write_table(found, "latex")
    escaped = (
        r"{[}50\% of a\_b \& c\textasciicircum{}2 \{x\} \textbackslash{} \textasciitilde{} \#1 \$5 "
        r"\textless{}\textbar{}\textgreater{}{*} (2 seeds)"
    )
    assert rows_of(text)[1][0] == escaped
    assert "% note: RANDOM weights\n% note: failed: encoder9, dice_bce, seed 1: out of memory\n" in text
    text = write_table(found, "markdown")
    assert r"| \[50% of a\_b \& c^2 \{x\} \\ \~ \#1 \$5 \<\|\>\* (2 seeds) |" in text
    assert "\nNote: not finished: 2 runs" in text


def test_numbers_beyond_the_ordinary():
    tiny = Difference(0.1, 0.05, 0.15, 1e-5, 5e-5, significant=True)
    models = (
        planted.model(0, difference=tiny, costs={"latency_p50_ms": Cost(2.0, 2.0, 2.0, "ms")}),
        planted.model(1, values={planted.METRIC: planted.scored(math.nan)}, costs={}),
    )
    _, first, second = rows_of(write_table(planted.comparison(models=models), "latex"))
    assert first[3:] == [r"$+0.1000\ [+0.0500, +0.1500]^{*}$", r"$5\times 10^{-5}$", "$2$"]
    assert second[2:] == ["undefined", "baseline", "", ""]


def test_costs_of_thousands_are_written_out():
    cost = Cost(1234.5, 999.6, 123_456.0, "images/s")
    models = (planted.model(0, costs={"training_images_per_second": cost}),)
    text = write_table(planted.comparison(models=models), "markdown")
    assert "| 1234 (1000 to 123456) |" in text


def test_trained_parameters_alone_are_shown():
    models = (planted.model(0, costs={"trained_parameters": Cost(5e6, 5e6, 5e6, "")}),)
    assert rows_of(write_table(planted.comparison(models=models), "latex"))[1][-1] == r"$5.00\,\mathrm{M}$"


def test_csv_has_columns_for_the_ends_of_intervals():
    rows = read(write_table(planted.comparison(2), "csv"))
    first = rows[0]
    assert (first["model"], first["seeds"]) == ("encoder0, dice_bce", "2")
    ends = [float(first[f"{planted.METRIC}{end}"]) for end in ("", ".low", ".high", ".deviation")]
    assert ends == pytest.approx([0.9, 0.88, 0.92, 0.0085], abs=1e-4)
    assert float(first["training_images_per_second.high"]) == 42.0
    assert first["difference.significant"] == "false"
    assert rows[1]["difference"] == ""
