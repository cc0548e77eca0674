"""The process that brings one run of a bench to its end on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """What of a machine a run may use.

    Attributes:
        threads: of the CPU; None: as many as PyTorch takes by itself.
        gpu: what CUDA_VISIBLE_DEVICES is to be; empty: as it is.
    """

    threads: int | None
    gpu: str = ""


def work(pipe: Connection, recipe: Path, run: Path, log: Path, place: Place) -> None:
    """Does the work, and stops after the last finished epoch where its parent ends or asks for it (SIGTERM).

    Args:
        pipe: of which the parent holds the other end, and nothing is ever sent.
        recipe: the run's complete recipe.
        run: its directory.
        log: gets everything that it and the libraries print.
        place: what of the machine it may use.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then asks
    if place.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    with log.open("a", encoding="utf-8") as told:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(told.fileno(), stream.fileno())

        import torch

        from segreg.benchmark.bench.work import work_on

        if place.threads is not None:
            torch.set_num_threads(place.threads)
        work_on(recipe, run, told)


def _end_with_parent(pipe: Connection) -> None:
    """Ask this process to stop as soon as the parent is gone, whichever way it went."""
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
