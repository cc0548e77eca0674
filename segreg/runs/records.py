"""What the JSON files of a run hold, checked wherever one is read: people and programs change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segreg.errors import SegregError
from segreg.runtime.files import read_json
from segreg.settings import format_type, plainly_fits

RESULTS: Mapping[str, Any] = {
    "notice": str, "weights": str, "alerts": list[str], "warnings": list[str], "recipe": str, "dataset": str,
    "classes": list[str], "mode": str, "seed": int, "images": dict[str, int], "epochs": int, "stopped_because": str,
    "monitor": str, "best_epoch": int, "best_value": float | None, "training_seconds": float, "time": dict[str, float],
    "advice": str, "micro_batches": int, "precision": str, "scored_on": str | None, "resolution": str,
    "metrics": dict[str, dict[str, float | None]], "definitions": dict[str, str],
    "intervals": dict[str, dict[str, list[float | None]]], "intervals_over": dict[str, str],
    "groups": dict[str, dict[str, int]], "higher_is_better": dict[str, bool], "overlays": dict[str, list[str]],
    "epoch": str, "data_key": str,
}  # fmt: skip
"""Of `results.json`; an evaluation's `metrics.json` has some of them."""
_NEEDED = ("classes", "seed", "epochs", "stopped_because", "best_epoch", "scored_on", "metrics", "definitions")
ENVIRONMENT: Mapping[str, Any] = {
    "recipe": str, "python": str, "platform": str, "cpus": int | None, "device": dict[str, Any],
    "packages": dict[str, str | None], "plugins": list[dict[str, str | None]], "commit": str | None,
    "command": list[str], "sources": dict[str, str], "precision": str, "model": dict[str, Any],
    "initial_weights": str, "data_fingerprint": str, "data": dict[str, Any], "previous": list[dict[str, Any]],
    "processes": dict[str, Any],
}  # fmt: skip
SPLIT: Mapping[str, Any] = dict.fromkeys(("train", "val", "test"), list[str])


def read_results(file: Path) -> dict[str, Any]:
    """Return what a run's `results.json` holds.

    Raises:
        SegregError: it can't be read, or it holds something else than a run writes; the message names the key.
    """
    found = read_record(file, "the results of a run", RESULTS, _NEEDED)
    if found["scored_on"] and found["scored_on"] not in found["metrics"]:
        raise SegregError(
            f'{file}: "metrics" has no scores of "{found["scored_on"]}", which "scored_on" names', hint=_hint(file)
        )
    return found


def trained_since(results: Mapping[str, Any], history: Sequence[Any]) -> bool:
    """Whether a run has trained on since its results were written, so that its weights may be others.

    Args:
        results: what `results.json` holds, or nothing.
        history: a row for each finished epoch.
    """
    return bool(results) and len(history) > results["epochs"]


def read_evaluation(file: Path) -> dict[str, Any]:
    """Return what the `metrics.json` of an evaluation holds; raises as `read_results`."""
    return read_record(file, "the results of an evaluation", RESULTS)


def read_environment(file: Path) -> dict[str, Any]:
    """Return what a run's `environment.json` holds; raises as `read_results`."""
    return read_record(file, "what the run ran on", ENVIRONMENT)


def read_split(file: Path) -> dict[str, list[str]]:
    """Return the ids in a run's `split.json`; raises as `read_results`."""
    return read_record(file, "the ids of the samples of each split", SPLIT)


def read_record(
    file: Path, what: str, types: Mapping[str, Any], needed: Sequence[str] = (), *, hint: str = ""
) -> dict[str, Any]:
    """Return what a JSON file holds: the keys that are needed, and each that is there of its type.

    Raises:
        SegregError: it can't be read, or a key is missing or has another type; the message names the key.
    """
    found: dict[str, Any] = read_json(file, what)
    hint = hint or _hint(file)
    for name in needed:
        if name not in found:
            raise SegregError(f'{file}: "{name}" is missing', hint=hint)
    for name, kind in types.items():
        if name in found and not plainly_fits(kind, found[name]):
            raise SegregError(f'{file}: "{name}" must be {format_type(kind)}', hint=hint)
    return found


def _hint(file: Path) -> str:
    again = f"; `segreg run --resume {file.parent}` writes it again" if file.name == "results.json" else ""
    return f"it was changed since it was written{again}"
