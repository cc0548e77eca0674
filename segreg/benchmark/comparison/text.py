"""A comparison as plain text: the table, its notices and its verdict."""

from __future__ import annotations

from segreg.benchmark.comparison.record import Comparison
from segreg.benchmark.comparison.table import Column as Cells
from segreg.benchmark.comparison.table import Number, as_text, columns_of
from segreg.errors import plural
from segreg.runtime.layout import Block, Column, Styled, Table

AGAIN = "--again runs what failed anew, if the cause is gone"


def format_comparison(comparison: Comparison) -> list[Block]:
    """Return notices, the table, failed runs and the verdict, as lines and a table."""
    lines: list[Block] = [f"note: {notice}" for notice in comparison.notices]
    if lines:
        lines.append("")
    if comparison.models:
        lines.append(table(comparison))
    for failure in comparison.failures:
        first, *rest = failure.reason.splitlines() or [""]
        lines += [
            Styled(f"failed: {failure.title}: {first}", "red"),
            *(f"  {line}" for line in rest),
        ]
    if comparison.failures:
        lines.append(AGAIN)
    if comparison.waiting:
        lines.append(f"not finished: {plural(comparison.waiting, 'run')}")
    if comparison.verdict:
        lines += ["", *comparison.verdict]
    return lines


def table(comparison: Comparison) -> Table:
    """Return a row for each model, the best first; a narrow terminal does without the last columns."""
    columns = columns_of(comparison)

    def cell(column: Cells, value: Number | str) -> str:
        text = as_text(column, value)
        if not isinstance(value, Number) or not value.significant:
            return text
        return Styled(text, "green" if (value.value > 0) is comparison.higher_is_better else "red")

    heads = [
        Column(one.head, wraps=place > 1, spare=max(0, place - 3))  # rank, model, score and difference are kept
        for place, one in enumerate(columns)
    ]
    return Table(heads, [[cell(one, one.cells[row]) for one in columns] for row in range(len(comparison.models))])
