"""What a thread makes ahead, so that who needs it seldom waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

AHEAD = 2
"""How many batches are made ahead, by the thread or by each worker."""

K = TypeVar("K")
T = TypeVar("T")


def prefetch(make: Callable[[K], T], keys: Sequence[K]) -> Generator[T, None, None]:
    """Return what a thread makes of each key; the thread ends after the last one, or when the rest is not wanted."""
    made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(AHEAD)
    left = threading.Event()

    def put(thing: tuple[T] | BaseException | None) -> bool:
        while not left.is_set():
            try:
                made.put(thing, timeout=0.05)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for key in keys:
                if not put((make(key),)):
                    return
            put(None)
        except BaseException as error:  # told to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, name="segreg-batches", daemon=True)
    thread.start()
    try:
        while (thing := made.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            yield thing[0]
    finally:
        left.set()
        thread.join()
