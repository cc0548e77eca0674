"""Trackio: a run's recipe, epochs, results and overlays, in a database on this machine.

Where that is, is Trackio's own business: TRACKIO_DIR, and TRACKIO_SPACE_ID or TRACKIO_SERVER_URL for elsewhere. The
project is named by the recipe, and `trackio show` opens it. The run's folder remembers in `trackio.json` which Trackio
run is its own, so that a run that continues continues there as well. Trackio shows images and has no masks to switch:
overlays are the images that the run has drawn, with truth, prediction and outlines side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segreg.errors import SegregError
from segreg_plugins.trackers.flat import final_metrics, flat
from segreg_plugins.trackers.titles import titles

NOTE = "trackio.json"
"""The file in a run's directory that names its Trackio run."""
MOST_IMAGES = 8


def start(run: Path, recipe: Mapping[str, Any]) -> None:
    """Begin a Trackio run with the recipe as its config, or continue with the one that the run had.

    Raises:
        SegregError: Trackio is not installed, or its run of that name is not this run's any more.
    """
    if find_spec("trackio") is None:
        raise SegregError("Trackio is not installed", hint='pip install "segreg-toolkit[trackio]"')
    import trackio

    known = json.loads((run / NOTE).read_text(encoding="utf-8")) if (run / NOTE).exists() else {}
    own_project, own_name = titles(run)
    project, name = known.get("project") or own_project, known.get("name") or own_name
    begun = trackio.init(
        project, name=name, config=flat(recipe), resume="must" if known else "never", embed=False
    )  # fmt: skip
    if known and begun.id != known["id"]:
        trackio.finish()
        problem = f'the run "{name}" of Trackio\'s project "{project}" is not the one that {run / NOTE} names'
        raise SegregError(problem, hint="a newer run has its name; delete that file to begin another run there")
    note = {"project": project, "name": begun.name, "id": begun.id}
    (run / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def epoch(run: Path, number: int, values: Mapping[str, float]) -> None:
    """Add an epoch's row. `val.dice.pooled` becomes `val/dice.pooled`: what stands before a slash is a group."""
    if (own := _own(run)) is not None:
        own.log({name.replace(".", "/", 1): value for name, value in values.items() if name != "epoch"}, step=number)


def end(run: Path, results: Mapping[str, Any]) -> None:
    """Add the results as `final/test.dice.pooled` and so on, and the first overlays, and end the Trackio run."""
    if (own := _own(run)) is None:
        return
    import trackio

    files = sorted((run / "overlays").glob("*.png"))[:MOST_IMAGES]
    found = {f"final/{name}": value for name, value in final_metrics(results).items()}
    images = {f"overlays/{file.stem}": trackio.Image(file, caption=file.stem) for file in files}
    own.log({**found, **images}, step=int(results.get("epochs") or 0))
    trackio.finish()


def _own(run: Path) -> Any:
    """Return the run's Trackio run, if this process has begun it and not ended it."""
    if find_spec("trackio") is None or not (run / NOTE).exists():
        return None
    from trackio import context_vars

    identity = json.loads((run / NOTE).read_text(encoding="utf-8"))["id"]
    current = context_vars.current_run.get()
    return current if current is not None and current.id == identity else None
