"""Bring one run of a bench to its end, wherever the process is that does it."""

from __future__ import annotations

import shutil
import traceback
from pathlib import Path
from typing import TextIO

from segreg.benchmark.bench.folder import finished, held
from segreg.errors import SegregError
from segreg.runs.directory import RunDirectory
from segreg.runtime.files import write_json
from segreg.training.checkpoint import STATE

_WAIT = 3.0


def work_on(recipe: Path, run: Path, log: TextIO) -> None:
    """Start a run or continues with it; nothing is done where it is finished or another process is at it.

    Beside the recipe lie the lock that is held meanwhile and, where the run fails, a file that says why.

    Args:
        recipe: its complete recipe.
        run: its directory.
        log: is told what happens.
    """
    from segreg.config.recipe import read_recipe
    from segreg.config.resolve import resolve
    from segreg.registry.registry import load_registry
    from segreg.runs.run import resume_run, start_run
    from segreg.runtime.progress import progress

    shown = progress("lines", log)
    with held(recipe.with_suffix(".lock"), wait=_WAIT) as free:
        directory = RunDirectory(run)
        if not free or finished(directory):
            return
        registry = load_registry()
        try:
            if (run / STATE).exists() and directory.resolved.exists():
                resume_run(run, registry, shown)
                return
            # What was begun and has no training state yet holds nothing that is worth keeping.
            shutil.rmtree(run, ignore_errors=True)
            read = read_recipe(recipe)
            start_run(read, resolve(read, registry), registry, at=run, progress=shown)
        except SegregError as error:
            _fail(recipe, "\n".join(str(problem) for problem in error.problems), log)
        except Exception as error:  # one run that fails is a row of the table, not the end of the bench
            traceback.print_exc(file=log)
            reason = (str(error).strip() or "no reason is given").splitlines()[0]
            _fail(recipe, f"{type(error).__name__}: {reason}; the log has all of it", log)


def _fail(recipe: Path, reason: str, log: TextIO) -> None:
    print(f"failed: {reason}", file=log, flush=True)
    write_json(recipe.with_suffix(".failed.json"), {"reason": reason})
