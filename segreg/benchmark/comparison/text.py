"""A comparison as plain text: the table, its notices and its verdict."""

from __future__ import annotations

from segreg.benchmark.comparison.record import Comparison
from segreg.benchmark.comparison.table import as_text, columns_of
from segreg.runtime.output import aligned

AGAIN = "--again runs what failed anew, if the cause is gone"


def format_comparison(comparison: Comparison) -> list[str]:
    """Return notices, the table, failed runs and the verdict, as lines."""
    lines = [f"note: {notice}" for notice in comparison.notices]
    if lines:
        lines.append("")
    if comparison.models:
        lines += table(comparison)
    for failure in comparison.failures:
        first, *rest = failure.reason.splitlines() or [""]
        lines += [f"failed: {failure.name}, seed {failure.seed}: {first}", *(f"  {line}" for line in rest)]
    if comparison.failures:
        lines.append(AGAIN)
    if comparison.waiting:
        lines.append(f"not finished: {comparison.waiting} run{'s' if comparison.waiting > 1 else ''}")
    if comparison.verdict:
        lines += ["", *comparison.verdict]
    return lines


def table(comparison: Comparison) -> list[str]:
    """Return a line for each model, the best first."""
    columns = columns_of(comparison)
    rows = [[as_text(one, one.cells[row]) for one in columns] for row in range(len(comparison.models))]
    return aligned([[one.head for one in columns], *rows])
