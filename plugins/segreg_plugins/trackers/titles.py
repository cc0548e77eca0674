"""What trackers call a run, and the project that it is in."""

from __future__ import annotations

from pathlib import Path


def titles(run: Path) -> tuple[str, str]:
    """Return a run's project and its name there.

    The project is the recipe's name, by the folder that the run is in; of a run of a bench or a tune it is the name of
    the bench's or tune's folder.
    """
    run = run.absolute()
    if _has_trials(run.parent):
        return run.parent.parent.name, run.name
    if _has_trials(run.parent.parent):
        return run.parent.parent.parent.name, f"{run.parent.name}_{run.name}"
    return run.parent.name, run.name


def _has_trials(folder: Path) -> bool:
    """Whether a folder is the one of a bench or a tune that has its runs."""
    return folder.name == "runs" and (folder.parent / "trials").is_dir()
