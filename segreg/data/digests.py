"""What files hold, as digests; files that did not change since are not read again."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

# A file changed again within its clock's tick keeps its time: what is younger than this is not remembered.
SETTLED_SECONDS = 3.0


@dataclass(frozen=True)
class _State:
    """By what a file is known to be unchanged."""

    size: int
    modified: int
    changed: int


def content_digests(paths: Iterable[Path], index: Path, *, workers: int) -> dict[Path, str | None]:
    """Return a digest of what each file holds, or None where there is no file.

    A folder's digest is that of all the files in it. Digests are remembered in `index`, an SQLite file, by absolute
    path, size and time of change; without a usable index every file is read.
    """
    members = {path: _files(path) for path in dict.fromkeys(paths)}
    files = list(dict.fromkeys(file for found in members.values() for file in found))
    with ThreadPoolExecutor(workers) as pool:
        states = dict(zip(files, pool.map(_state, files), strict=True))
        known = _recall(index, states)
        unknown = [file for file in files if file not in known and states[file] is not None]
        fresh = dict(zip(unknown, pool.map(_digest, unknown), strict=True))
    _remember(index, {file: (state, fresh[file]) for file in unknown if (state := states[file])})
    digests = known | fresh
    return {path: _combined(path, found, digests) for path, found in members.items()}


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _combined(path: Path, files: Sequence[Path], digests: Mapping[Path, str]) -> str | None:
    if files == [path]:
        return digests.get(path)
    parts = "\n".join(f"{file.relative_to(path)} {digests.get(file)}" for file in files)
    return hashlib.blake2b(parts.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _state(file: Path) -> _State | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return _State(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        return f"unreadable {error.errno}"  # reading it as a image will tell what is wrong


def _recall(index: Path, states: Mapping[Path, _State | None]) -> dict[Path, str]:
    known = {}
    try:
        with closing(_open(index)) as table:
            query = "SELECT digest FROM files WHERE path = ? AND size = ? AND modified = ? AND changed = ?"
            for file, state in states.items():
                if state is not None:
                    row = table.execute(query, (str(file.absolute()), state.size, state.modified, state.changed))
                    if found := row.fetchone():
                        known[file] = str(found[0])
    except (sqlite3.Error, OSError):
        return known  # an index is a convenience: no disk lock, a damaged file or no permission mustn't stop a run
    return known


def _remember(index: Path, found: Mapping[Path, tuple[_State, str]]) -> None:
    settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    rows = [
        (str(file.absolute()), state.size, state.modified, state.changed, digest)
        for file, (state, digest) in found.items()
        if max(state.modified, state.changed) < settled and not digest.startswith("unreadable")
    ]
    if not rows:
        return
    try:
        with closing(_open(index)) as table, table:
            table.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
    except sqlite3.OperationalError:
        return  # another process holds it for long, or the disk takes no locks
    except sqlite3.DatabaseError:
        index.unlink(missing_ok=True)  # damaged: begun anew next time
    except OSError:
        return


def _open(index: Path) -> sqlite3.Connection:
    index.parent.mkdir(parents=True, exist_ok=True)
    table = sqlite3.connect(index, timeout=10)
    try:
        table.execute(
            "CREATE TABLE IF NOT EXISTS files"
            "(path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, changed INTEGER, digest TEXT)"
        )
    except sqlite3.Error:
        table.close()
        raise
    return table
