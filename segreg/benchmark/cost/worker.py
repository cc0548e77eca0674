"""The process that measures one network once and tells its parent what it finds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection

from segreg.benchmark.cost.record import At, Failed, Job, Needed, Sample, Subject
from segreg.errors import SegregError


def work(pipe: Connection, subject: Subject, job: Job) -> None:
    """Send an `At` whenever something begins, and in the end what was found, or `Failed`.

    Args:
        pipe: where to.
        subject: the network.
        job: what to do with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # libraries tell their users things, which are no results
        with contextlib.suppress(OSError, ValueError):
            os.dup2(silence, stream.fileno())
    warnings.simplefilter("ignore")
    stage = "in reading the recipe"

    def at(begun: str) -> None:
        nonlocal stage
        stage = begun
        pipe.send(At(begun))

    try:
        pipe.send(_found(subject, job, at))
    except Exception as error:  # whatever a part raises is told of its network alone
        pipe.send(Failed(_reason(error, stage)))
    pipe.close()


def _found(subject: Subject, job: Job, at: Callable[[str], None]) -> Sample | Needed:
    from segreg.benchmark.cost import trial
    from segreg.registry.registry import load_registry

    recipe, task = subject.resolved(load_registry())
    if job.kind == "fit":
        return trial.needed(recipe, task, at=at)
    return trial.measured(recipe, task, seconds=job.seconds, at=at)


def _reason(error: BaseException, stage: str) -> str:
    """Return an error on one line: segreg's own in its words, others with their type and where they came up."""
    if ran_out := _memory_that_ran_out(error):
        return f"{ran_out} ran out {stage}"
    if isinstance(error, SegregError):
        return _line("; ".join(problem.message for problem in error.problems))
    return f"{type(error).__name__} {stage}: {_line(str(error).strip() or 'it gives no reason')}"


def _memory_that_ran_out(error: BaseException | None) -> str:
    """Return whose memory is behind an error, or behind what it came from; an empty text where none is."""
    import torch

    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return "the GPU's memory"
        # PyTorch raises a plain RuntimeError where the CPU's memory runs out.
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return "the machine's memory"
        error = error.__cause__
    return ""


def _line(text: str) -> str:
    line = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return line if len(line) <= 300 else f"{line[:297]}..."
