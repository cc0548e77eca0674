"""A folder that one process works in at a time, and who that is."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segreg.errors import SegregError
from segreg.runtime.files import UNFINISHED, cannot_write, is_alive, read_json, remove_unfinished, write_json

ORPHANS_SECONDS = 10.0
PROBE_SECONDS = 1.0
"""`is_locked` holds the lock for a moment."""

LOCK = ".lock"
"""The file in a folder that is locked while a process works there; beside it `.lock.json` says who that is."""


@contextmanager
def locked_folder(folder: Path, what: str) -> Iterator[None]:
    """Work in a folder alone while the context lasts.

    The lock is the operating system's: it ends with the process, in whichever way that ends. Files that a killed
    process left unfinished are removed.

    Args:
        folder: it exists.
        what: it is the folder of, such as "run".

    Raises:
        SegregError: another process works there; the message says which, on which machine, and since when. Or this one
            may not write there.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    owner = _owner(folder)
    # Data workers of a process that was killed live for some seconds more, and hold its lock.
    try:
        lock.acquire(timeout=ORPHANS_SECONDS if _has_died(owner) else PROBE_SECONDS)
    except Timeout:
        who = f": process {owner['pid']} on {owner['host']} since {owner['since']}, {owner['command']}" if owner else ""
        raise SegregError(
            f"{folder}: another process works on this {what}{who}",
            hint="wait until it has ended, or stop it; nothing was changed",
        ) from None
    except OSError as error:
        raise cannot_write(error, folder) from None
    try:
        remove_unfinished(folder, UNFINISHED)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": shlex.join(sys.argv)}
        write_json(_note(folder), me)
        yield
    finally:
        with contextlib.suppress(OSError):
            _note(folder).unlink(missing_ok=True)
        lock.release()  # the file stays: whoever waits for it has it open


def is_locked(folder: Path) -> bool:
    """Whether a process works in the folder; where this one may not write there, going by who has said so."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        owner = _owner(folder)
        return bool(owner) and not _has_died(owner)
    lock.release()
    return False


def _note(folder: Path) -> Path:
    return folder / f"{LOCK}.json"


def _owner(folder: Path) -> dict[str, Any]:
    """Return who works in a folder, or did last; nothing where it has not said so."""
    try:
        owner = read_json(_note(folder))
        return {"pid": int(owner["pid"])} | {name: str(owner[name]) for name in ("host", "since", "command")}
    except (SegregError, ValueError, KeyError, TypeError):
        return {}


def _has_died(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has not lived to say that it has left."""
    return owner.get("host") == socket.gethostname() and not is_alive(owner["pid"])
