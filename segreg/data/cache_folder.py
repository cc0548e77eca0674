"""The cache's folder: where it is, how large it may be, what lies in it, and who uses what.

An entry is a folder named by its key. Whoever uses one holds a shared lock on its `lock` file, which the system
releases when the process ends in any way; whoever removes one must get the lock alone. An entry is built in a folder
whose name begins with a dot and renamed when it is whole. The lock is `flock`'s, because a cache that others
filled may be read-only, and filelock's ReadWriteLock, an SQLite database, has to write to its lock file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segreg.errors import SegregError
from segreg.runtime.files import expanded

LIMIT_GB = 20.0
GB = 10**9
# How long a folder without a lock file, whose maker may be about to make it, is left alone.
GRACE_SECONDS = 600.0


@dataclass(frozen=True)
class CacheEntry:
    """One prepared data set in the cache.

    Attributes:
        key: its folder's name.
        folder: where it lies.
        bytes: its size on disk.
        last_used: seconds since 1970.
        in_use: whether a live process has it open.
        samples: how many images it holds.
        description: which data set, at which size.
    """

    key: str
    folder: Path
    bytes: int
    last_used: float
    in_use: bool
    samples: int
    description: str


def cache_folder() -> Path:
    """Return the cache's folder: `$SEGREG_CACHE`, or `segreg` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        SegregError: none of the two is set, and the user has no home, as in some containers.
    """
    if chosen := os.environ.get("SEGREG_CACHE"):
        return expanded(chosen)
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "segreg"
    try:
        return Path.home() / ".cache" / "segreg"
    except RuntimeError as error:
        raise SegregError(f"no folder for the cache: {error}", hint="SEGREG_CACHE names one") from None


def cache_limit() -> int:
    """Return the cache's largest size in bytes: `$SEGREG_CACHE_LIMIT_GB`, or 20 GB.

    Raises:
        SegregError: the variable holds no number above 0.
    """
    text = os.environ.get("SEGREG_CACHE_LIMIT_GB", "").strip() or str(LIMIT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise SegregError(f'SEGREG_CACHE_LIMIT_GB must be a number of gigabytes above 0, not "{text}"')
    return int(limit * GB)


def list_entries() -> list[CacheEntry]:
    """Return what the cache holds, the last used first."""
    entries = [_described(place) for place in _folders() if not place.name.startswith(".")]
    return sorted(entries, key=lambda entry: entry.last_used, reverse=True)


def clear(*, keys: Collection[str] | None = None) -> list[CacheEntry]:
    """Remove entries, all or those with the given keys, and return what was removed. What is in use stays."""
    chosen = [entry for entry in list_entries() if keys is None or entry.key in keys]
    removed = [entry for entry in chosen if remove(entry.folder)]
    remove_leftovers()
    if keys is None and not list_entries():
        with contextlib.suppress(OSError):
            index_file().unlink(missing_ok=True)
    return removed


def entry_folder(key: str) -> Path:
    """Return the folder of the entry with this key, whether it exists or not."""
    return _entries_folder() / key


def index_file() -> Path:
    """Return the SQLite file in which digests of the data sets' files are remembered."""
    return cache_folder() / "digests.sqlite3"


class CacheLock:
    """An entry's lock file, open; what is locked by it stays so until it is released, forgotten or the process ends.

    Raises:
        OSError: there is no such file.
    """

    descriptor = -1

    def __init__(self, entry: Path) -> None:
        file = entry / "lock"
        try:  # for writing, without which NFS locks nothing exclusively
            self.descriptor = os.open(file, os.O_RDWR)
        except FileNotFoundError:
            raise
        except OSError:  # a cache that others filled may be read-only
            self.descriptor = os.open(file, os.O_RDONLY)

    def lock(self, *, exclusive: bool) -> bool:
        """Lock it, shared or exclusively, which does not wait; return whether it is locked."""
        if sys.platform == "win32":  # where an open file can't be removed in the first place
            return True
        import fcntl

        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            return False
        except OSError as error:
            return error.errno != errno.EBADF  # another is of a file system without locks
        return True

    def release(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self.release()


def hold(entry: Path) -> CacheLock | None:
    """Take a shared lock on an entry and note the use of it, or return None if there is no entry."""
    try:
        held = CacheLock(entry)
    except OSError:
        return None
    held.lock(exclusive=False)
    try:
        still_there = os.path.samestat(os.fstat(held.descriptor), (entry / "lock").stat())
    except OSError:
        still_there = False  # removed between the opening and the locking
    if not still_there:
        held.release()
        return None
    with contextlib.suppress(OSError):  # a cache that others filled may be read-only
        os.utime(entry / "lock")
    return held


def new_folder(key: str) -> tuple[Path, CacheLock]:
    """Return an empty, locked folder in which an entry can be built, to be renamed to its key.

    Raises:
        SegregError: the cache's folder can't be written to.
    """
    root = _entries_folder()
    while True:
        building = root / f".building-{key}-{secrets.token_hex(4)}"
        try:
            building.mkdir(parents=True)
            (building / "lock").touch()
        except OSError as error:
            raise SegregError(
                f"{root}: can't write to the cache: {error.strerror or error}",
                hint="SEGREG_CACHE names another folder for it",
            ) from error
        # None if another process took the folder, not yet locked, for a leftover.
        if held := hold(building):
            return building, held


def remove(entry: Path) -> bool:
    """Remove an entry unless a live process uses it; return whether it is gone."""
    try:
        held = CacheLock(entry)
    except FileNotFoundError:
        if not entry.is_dir():
            return True
        about_to_lock = entry.name.startswith(".") and time.time() - entry.stat().st_mtime < GRACE_SECONDS
        if not about_to_lock:
            shutil.rmtree(entry, ignore_errors=True)
        return not entry.exists()
    except OSError:
        return False
    try:
        if not held.lock(exclusive=True):
            return False
        gone = entry.with_name(f".removed-{entry.name.lstrip('.')}-{secrets.token_hex(4)}")
        entry.rename(gone)  # at once, so that nobody finds half of it
        shutil.rmtree(gone, ignore_errors=True)
    except OSError:
        return False
    else:
        return True
    finally:
        held.release()


def remove_leftovers() -> None:
    """Remove what killed processes left half-built or half-removed."""
    for place in _folders():
        if place.name.startswith("."):
            remove(place)


def make_room(
    needed: int,
    *,
    what: str,
    written: int = 0,
    whole: int = 0,
    less: str = "a smaller input.size takes less",
) -> None:
    """Remove the least recently used entries until `needed` bytes fit into the cache's limit and onto the disk.

    Args:
        needed: bytes that are about to be written.
        what: they are, in messages.
        written: bytes of the same entry that lie on the disk already.
        whole: bytes that the entry will have in the end, as far as is known, where that is more.
        less: what would take less, in messages.

    Raises:
        SegregError: they would not fit even alone; nothing was removed.
    """
    root = _entries_folder()
    limit = cache_limit() - written
    would_take = f"{what} would take {gigabytes(max(whole, needed + written))} in the cache"
    if needed > limit:
        raise SegregError(
            f"{would_take}, whose limit is {gigabytes(limit + written)}",
            hint=f"SEGREG_CACHE_LIMIT_GB raises the limit; {less}",
        )
    remove_leftovers()
    oldest_first = list_entries()[::-1]
    free = _free(root)
    removable = sum(entry.bytes for entry in oldest_first if not entry.in_use)
    if needed > free + removable:
        raise SegregError(
            f"{would_take}, and the disk of {root} has {gigabytes(free)} free",
            hint=f"SEGREG_CACHE names a folder on another disk; {less}",
        )
    held = sum(entry.bytes for entry in oldest_first)
    for entry in oldest_first:
        if held + needed <= limit and needed <= free:
            return
        if not entry.in_use and remove(entry.folder):
            held -= entry.bytes
            free = _free(root)


def gigabytes(count: int) -> str:
    """Return "1.2 GB", or "34.0 MB" below one."""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.1f} MB"


def _entries_folder() -> Path:
    return cache_folder() / "prepared"


def _folders() -> list[Path]:
    try:
        return sorted(place for place in _entries_folder().iterdir() if place.is_dir())
    except OSError:
        return []


def _described(entry: Path) -> CacheEntry:
    try:
        meta: dict[str, Any] = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        meta = {}
    try:
        last_used = (entry / "lock").stat().st_mtime
    except OSError:
        last_used = 0.0
    size = 0
    for file in entry.glob("*"):
        with contextlib.suppress(OSError):
            size += file.stat().st_size
    description = str(meta.get("description", "unreadable"))
    return CacheEntry(entry.name, entry, size, last_used, _in_use(entry), len(meta.get("ids", ())), description)


def _in_use(entry: Path) -> bool:
    try:
        lock = CacheLock(entry)
    except OSError:
        return False
    try:
        return not lock.lock(exclusive=True)
    finally:
        lock.release()


def _free(root: Path) -> int:
    existing = next(place for place in (root, *root.parents) if place.exists())
    return shutil.disk_usage(existing).free
