"""What is noted beside a network that leaves its run: classes, sizes, threshold, scores, and where it comes from.

The same JSON lies beside an exported network (`network.json`), is in that file's own metadata, and goes with what is
pushed to the Hugging Face Hub. A program needs nothing else to use the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segreg.config.resolve import plain_section
from segreg.errors import SegregError
from segreg.registry.compatibility import DISTRIBUTION
from segreg.runs.records import read_record
from segreg.runs.trained_run import Run, Weights
from segreg.runtime.files import sha256
from segreg.task import label_names
from segreg.visualize.colours import label_colours

SIDECAR = "network.json"
"""Name of the file."""
FORMAT = 1
"""Of the file; raised where an older segreg could misread it."""
_TYPES: Mapping[str, Any] = {
    "format": int, "segreg": str, "classes": list[str], "mode": str, "colours": dict[str, list[int]],
    "input": dict[str, Any], "normalize": dict[str, Any], "evaluate": dict[str, Any], "scores": dict[str, Any],
    "provenance": dict[str, Any], "network": dict[str, Any], "proof": dict[str, Any],
}  # fmt: skip
_NEEDED = ("format", "classes", "mode", "input", "evaluate", "provenance")


def describe_run(run: Run, weights: Weights = "best") -> dict[str, Any]:
    """Return what is noted of a run's network, as JSON holds it.

    Raises:
        SegregError: there are no such weights, or a plugin of the network is not installed any more.
    """
    recipe, task, file = run.network, run.task, run.weights_file(weights)
    normalize: Any = run.normalize
    dataset = run.written.values.get("dataset")
    return {
        "format": FORMAT,
        "segreg": version(DISTRIBUTION),
        "classes": list(task.classes),
        "mode": task.mode,
        "colours": {name: list(of) for name, of in zip(label_names(task), label_colours(task), strict=True)},
        "input": plain_section(recipe.input),
        "normalize": {
            "mean": normalize.mean.flatten().tolist(),
            "std": normalize.std.flatten().tolist(),
            "value_range": normalize.value_range,
        },
        "evaluate": plain_section(recipe.evaluate),
        "scores": _scores(run, weights),
        "provenance": without_paths_inside(
            {
                "recipe": Path(str(run.environment.get("recipe", ""))).name,
                "dataset": str(dataset.get("name") if isinstance(dataset, Mapping) else dataset),
                "bands": dataset.get("bands") if isinstance(dataset, Mapping) else None,
                **{name: choice.plain() for name, choice in recipe.network_parts.items() if name != "auxiliary"},
                "notice": run.notice,
                "weights": file.stem,
                "weights_sha256": sha256(file),
            }
        ),
    }


PATH_INSIDE = re.compile(r"(?<![\w:/.<~-])(?:~?/|[A-Za-z]:\\{1,2})[\w.+-]+[\\/]+[\w.+/\\-]+")
"""A path of some machine inside a sentence."""


def without_paths_inside(value: Any) -> Any:
    """Return a note, or what holds notes, with `path/to/data` for each path in it: a data set's notice may name one."""
    if isinstance(value, Mapping):
        return {key: without_paths_inside(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths_inside(item) for item in value]
    return PATH_INSIDE.sub("path/to/data", value) if isinstance(value, str) else value


def are_scored(weights: Weights, results: Mapping[str, Any]) -> bool:
    """Whether a run's scores are of these weights: the best epoch's, or the last one's where no other is the best."""
    return weights == "best" or results["best_epoch"] in (0, results["epochs"])


def _scores(run: Run, weights: Weights) -> dict[str, Any]:
    """Return the final metrics with their intervals and definitions; nothing where the weights have none."""
    try:
        results = run.results
    except SegregError:
        return {}
    split = results["scored_on"]
    if not split or not are_scored(weights, results):
        return {}
    return {
        "split": split,
        "images": results.get("images", {}).get(split),
        "resolution": results.get("resolution"),
        "metrics": results["metrics"][split],
        "intervals": results.get("intervals", {}).get(split, {}),
        "intervals_over": results.get("intervals_over", {}).get(split, "images"),
        "definitions": results["definitions"],
    }


def read_sidecar(file: Path) -> dict[str, Any]:
    """Return what a sidecar holds.

    Raises:
        SegregError: it can't be read, or holds something else than segreg writes; the message names the key.
    """
    what, hint = "what segreg export writes beside a network", "segreg export writes it again"
    found = read_record(file, what, _TYPES, _NEEDED, hint=hint)
    if found["format"] > FORMAT:
        raise SegregError(
            f"{file}: has format {found['format']}, and this segreg reads up to {FORMAT}",
            hint=f"it was written by segreg {found.get('segreg', 'of a later version')}; install that one",
        )
    return found


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported network. A run that was pushed has such notes too, beside its weights."""
    return (folder / SIDECAR).is_file() and not (folder / "best.safetensors").exists()
