"""MLflow: a run's recipe as parameters, its epochs as metrics, its files as artifacts.

Where MLflow keeps them is MLflow's own business: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME (the recipe's name where
it is not set) and MLflow's other variables. The run's folder remembers in `mlflow.json` which MLflow run is its own, so
that a run that continues continues there as well. A run that fails has no hook: it stays "running" in MLflow.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segreg.errors import SegregError
from segreg_plugins.trackers.flat import FILES, final_metrics, flat, format_plain
from segreg_plugins.trackers.titles import titles

NOTE = "mlflow.json"
"""The file in a run's directory that names its MLflow run."""
_LONGEST_VALUE = 500
_MOST_PARAMETERS, _MOST_METRICS = 100, 1000  # in one call, by MLflow's limits


def start(run: Path, recipe: Mapping[str, Any]) -> None:
    """Begin an MLflow run with the recipe as its parameters, or continues with the one that the run had.

    Raises:
        SegregError: MLflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise SegregError("MLflow is not installed", hint='pip install "segreg-toolkit[mlflow]"')
    from mlflow.entities import Param
    from mlflow.tracking import MlflowClient

    if (run / NOTE).exists():
        client, run_id = _own(run)
        client.update_run(run_id, status="RUNNING")
        return
    client = MlflowClient()
    project, title = titles(run)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or project
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    run_id = client.create_run(experiment, run_name=title, tags={"segreg.runs.run": str(run.absolute())}).info.run_id
    words = _named({key: format_plain(value)[:_LONGEST_VALUE] for key, value in flat(recipe).items()})
    for part in _batches([Param(key, value) for key, value in words.items()], _MOST_PARAMETERS):
        client.log_batch(run_id, params=part)
    note = {"tracking_uri": client.tracking_uri, "experiment": name, "run_id": run_id}
    (run / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def epoch(run: Path, number: int, values: Mapping[str, float]) -> None:
    """Add an epoch's row, by the history's names."""
    if _begun(run):
        _log(run, {name: value for name, value in values.items() if name != "epoch"}, number)


def end(run: Path, results: Mapping[str, Any]) -> None:
    """Add the results as `final.test.dice.pooled` and so on, and the run's files, and ends the MLflow run."""
    if not _begun(run):
        return
    _log(
        run, {f"final.{name}": value for name, value in final_metrics(results).items()}, int(results.get("epochs") or 0)
    )
    client, run_id = _own(run)
    for file in [run / name for name in (*FILES, "best.safetensors")]:
        if file.is_file():
            client.log_artifact(run_id, str(file))
    if (run / "overlays").is_dir():
        client.log_artifacts(run_id, str(run / "overlays"), artifact_path="overlays")
    client.set_terminated(run_id, status="KILLED" if results.get("stopped_because") == "interrupted" else "FINISHED")


def _begun(run: Path) -> bool:
    return find_spec("mlflow") is not None and (run / NOTE).exists()


def _own(run: Path) -> tuple[Any, str]:
    """Return the client and the id of a run's MLflow run."""
    from mlflow.tracking import MlflowClient

    note = json.loads((run / NOTE).read_text(encoding="utf-8"))
    return MlflowClient(tracking_uri=note["tracking_uri"]), note["run_id"]


def _log(run: Path, values: Mapping[str, Any], step: int) -> None:
    from mlflow.entities import Metric

    client, run_id = _own(run)
    now = int(1000 * time.time())
    numbers = _named({name: float(value) for name, value in values.items() if isinstance(value, (int, float))})
    for part in _batches([Metric(name, value, now, step) for name, value in numbers.items()], _MOST_METRICS):
        client.log_batch(run_id, metrics=part)


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by names in which what MLflow refuses, such as the brackets of a class's name, is replaced.

    Names that would be the same then get one more `_` each.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        allowed = re.sub(r"[^\w\-. /]", "_", name)[:240]
        while allowed in found:
            allowed += "_"
        found[allowed] = value
    return found


def _batches(items: Iterable[Any], most: int) -> Iterable[list[Any]]:
    iterator = iter(items)
    while part := list(itertools.islice(iterator, most)):
        yield part
