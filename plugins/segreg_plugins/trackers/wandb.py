"""Weights & Biases: a run's recipe, epochs and results, and its overlays as images whose masks can be switched.

Where they go is W&B's own business: WANDB_MODE (`offline` writes into the run's folder, and `wandb sync` sends that
later), WANDB_PROJECT (the recipe's name where it is not set), WANDB_ENTITY and W&B's other variables. The run's folder
remembers in `wandb.json` which W&B run is its own, so that a run that continues continues there as well.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from segreg.errors import SegregError, did_you_mean, listed
from segreg.task import IGNORE_INDEX
from segreg_plugins.trackers.flat import FILES, final_metrics, flat
from segreg_plugins.trackers.titles import titles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.task import Task

NOTE = "wandb.json"
"""The file in a run's directory that names its W&B run."""
Mode = Literal["online", "offline", "disabled", "shared"]
MODES: tuple[Mode, ...] = get_args(Mode)
_FORBIDDEN = r"/\#?%:"
"""What a project's name can't contain, by W&B's rules."""


def start(run: Path, recipe: Mapping[str, Any]) -> None:
    """Begin a W&B run with the recipe as its config, or continue with the one that the run had.

    Raises:
        SegregError: W&B is not installed, or one of its variables is not valid.
    """
    if find_spec("wandb") is None:
        raise SegregError("W&B is not installed", hint='pip install "segreg-toolkit[wandb]"')
    mode, project = _mode(), _project(run)
    import wandb

    known = json.loads((run / NOTE).read_text(encoding="utf-8")) if (run / NOTE).exists() else {}
    begun = wandb.init(
        id=known.get("id"), project=known.get("project") or project, name=titles(run)[1],
        config=flat(recipe), mode=mode,
        dir=os.environ.get("WANDB_DIR") or str(run.absolute()),
        resume="allow" if known and mode != "offline" else None,  # offline, the same id is all there is to it
        reinit="finish_previous",
        settings=wandb.Settings(console="off"),
    )  # fmt: skip
    (run / NOTE).write_text(
        json.dumps({"project": begun.project, "id": begun.id, "url": begun.url}, indent=2) + "\n", encoding="utf-8"
    )


def epoch(run: Path, number: int, values: Mapping[str, float]) -> None:
    """Add an epoch's row. `val.dice.pooled` becomes `val/dice.pooled`: what stands before a slash is a group."""
    if (own := _own(run)) is not None:
        own.log({name.replace(".", "/", 1): value for name, value in values.items() if name != "epoch"}, step=number)


def overlay(run: Path, name: str, image: NDArray[np.uint8], masks: Mapping[str, NDArray[np.uint8]], task: Task) -> None:
    """Add an image whose truth and prediction can be switched on and off, class by class."""
    if (own := _own(run)) is None:
        return
    import wandb

    shown = {key: one for which, labels in masks.items() for key, one in _masks(which, labels, task).items()}
    own.log({f"overlays/{name}": wandb.Image(image, masks=shown, caption=name)}, step=own.step)


def end(run: Path, results: Mapping[str, Any]) -> None:
    """Add the results as `final/test.dice.pooled` and so on, and the run's files, and end the W&B run."""
    if (own := _own(run)) is None:
        return
    own.summary.update({f"final/{name}": value for name, value in final_metrics(results).items()})
    own.summary["stopped_because"] = results.get("stopped_because")
    for name in FILES:
        if (run / name).is_file():
            own.save(str(run.absolute() / name), base_path=str(run.absolute()), policy="now")
    own.finish(exit_code=1 if results.get("stopped_because") == "interrupted" else 0)


def _own(run: Path) -> Any:
    """Return the run's W&B run, if this process has begun it and not ended it."""
    if find_spec("wandb") is None or not (run / NOTE).exists():
        return None
    import wandb

    identity = json.loads((run / NOTE).read_text(encoding="utf-8"))["id"]
    return wandb.run if wandb.run is not None and wandb.run.id == identity else None


def _mode() -> Mode | None:
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    mode = next((one for one in MODES if one == asked), None)
    if asked and mode is None:
        hint = did_you_mean(asked, MODES) or f"it can be {listed(MODES, last='or')}"
        raise SegregError(f'WANDB_MODE is "{asked}", which is not a mode of W&B', hint=hint)
    return mode


def _project(run: Path) -> str:
    """Return the project's name: the one that is asked for, or the recipe's without what W&B refuses."""
    if asked := os.environ.get("WANDB_PROJECT"):
        if found := [letter for letter in _FORBIDDEN if letter in asked]:
            hint = f"it can't contain {listed(list(_FORBIDDEN), last='or')}"
            raise SegregError(f'WANDB_PROJECT is "{asked}", with {listed(found)} in it', hint=hint)
        return asked
    return re.sub(f"[{re.escape(_FORBIDDEN)}]", "_", titles(run)[0])[:128]


def _masks(which: str, labels: NDArray[np.uint8], task: Task) -> dict[str, dict[str, Any]]:
    """Return labels as W&B has masks: one with a name for each label, or of classes that overlap one for each there."""
    if task.mode == "multilabel":
        return {
            f"{which}: {name}": {"mask_data": own, "class_labels": {1: name, IGNORE_INDEX: "ignored"}}
            for name, own in zip(task.classes, labels, strict=True)
            if (own == 1).any()
        }
    names = ["background", *task.classes] if task.mode == "binary" else task.classes
    return {which: {"mask_data": labels, "class_labels": {**dict(enumerate(names)), IGNORE_INDEX: "ignored"}}}
