"""Nested results and recipes as one flat mapping, as trackers want them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FILES = (
    "recipe.yaml", "resolved.yaml", "environment.json", "split.json", "history.csv", "results.json", "per_image.csv",
    "curves.png", "report.html",
)  # fmt: skip
"""What trackers keep of a run's folder, where it is there; weights, which would be most of it, are not among them."""


def flat(values: Any, before: str = "") -> dict[str, Any]:
    """Return `{"augment.0.name": "Rotate"}` for `{"augment": [{"name": "Rotate"}]}`; lists of plain values are kept."""
    if isinstance(values, Mapping):
        items = list(values.items())
    elif isinstance(values, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in values):
        items = list(enumerate(values))
    else:
        return {before: values}
    found: dict[str, Any] = {}
    for name, value in items:
        found |= flat(value, f"{before}.{name}" if before else str(name))
    return found


def format_plain(value: Any) -> str:
    """Return a recipe's value as a recipe writes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def final_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Return `{"test.dice.pooled": 0.9}` of a run's results; what has no value is left out."""
    metrics = flat(results.get("metrics") or {})
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}
