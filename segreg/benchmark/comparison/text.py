"""A comparison as plain text: the table, its notices and its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from segreg.benchmark.comparison.record import Comparison, Model, Value
from segreg.benchmark.cost.record import Cost
from segreg.runs.environment import counted

AGAIN = "--again runs what failed anew, if the cause is gone"
_COSTS = {
    "parameters": "parameters",
    "training_images_per_second": "trained/s",
    "latency_p50_ms": "ms per image",
    "seconds_to_best_epoch": "to the best",
}
"""Costs in the table, with the heads of their columns; the files have all costs."""


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
    costs = [name for name in _COSTS if any(name in model.costs for model in comparison.models)]
    metric = comparison.metric
    pooled = f"{metric.split('.')[0]}.pooled"
    also = [pooled] if pooled != metric and all(pooled in model.values for model in comparison.models) else []
    head = ["rank", "model", metric, "to the baseline", "p (Holm)", *also, *(_COSTS[name] for name in costs)]
    rows = [_row(model, comparison, also, costs) for model in comparison.models]
    return aligned(head, rows)


def _row(model: Model, comparison: Comparison, also: Sequence[str], costs: Sequence[str]) -> list[str]:
    rank = "" if model.rank is None else f"{model.rank.place:g} [{model.rank.low:g}, {model.rank.high:g}]"
    seeds = f" ({len(model.seeds)} seeds)" if len(model.seeds) > 1 else ""
    if model.name == comparison.baseline:
        difference, p = "baseline", ""
    elif model.difference is None:
        difference, p = "", ""
    else:
        found = model.difference
        difference = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]" + (" *" if found.significant else "")
        p = f"{found.p_holm:.2g}"
    return [
        rank,
        model.name + seeds,
        format_score(model.values[comparison.metric]),
        difference,
        p,
        *(format_score(model.values[name]) for name in also),
        *(format_cost(model.costs.get(name)) for name in costs),
    ]


def format_score(value: Value) -> str:
    """Return "0.8123 [0.7901, 0.8345]"."""
    if math.isnan(value.mean):
        return "undefined"
    return f"{value.mean:.4f}" + (f" [{value.low:.4f}, {value.high:.4f}]" if value.low is not None else "")


def format_cost(cost: Cost | None) -> str:
    """Return "24.4 M", or "12.3 (12.1 to 12.9) ms" where it was measured."""
    if cost is None or math.isnan(cost.median):
        return ""
    if not cost.unit and cost.median == int(cost.median):
        return counted(int(cost.median))
    spread = f" ({cost.low:.3g} to {cost.high:.3g})" if cost.low != cost.high else ""
    return f"{cost.median:.3g}{spread}{' s' if cost.unit == 's' else ''}"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, each column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, *rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
