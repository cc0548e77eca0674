"""The process that tries one encoder with decoders and tells its parent what it finds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection


def work(pipe: Connection, encoder: str, decoders: Sequence[str], family: str) -> None:
    """Send the `Row`, then each `Cell` as soon as it is known.

    Args:
        pipe: where to.
        encoder: its name, with `@distribution` where that is needed.
        decoders: their names, as the encoder's.
        family: that the encoder is told under.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # libraries tell their users things, which belong to no cell
        with contextlib.suppress(OSError, ValueError):
            os.dup2(silence, stream.fileno())
    warnings.simplefilter("ignore")

    import torch

    from segreg.benchmark.matrix.trial import tried
    from segreg.config.resolve import choose
    from segreg.registry.registry import load_registry
    from segreg.runtime.device import prepare_process

    prepare_process()
    torch.set_num_threads(1)
    registry = load_registry()
    chosen = choose("encoder", encoder, {}, registry)
    for found in tried(chosen, [choose("decoder", name, {}, registry) for name in decoders], family):
        pipe.send(found)
    pipe.close()
