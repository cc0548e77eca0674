"""The one door to the disk: files are written whole or not at all, and what the disk refuses is reported."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError, did_you_mean
from segreg.runtime.output import as_file_name

if TYPE_CHECKING:
    import numpy as np

EXTENSIONS = frozenset(
    ".png .jpg .jpeg .jpe .jfif .bmp .dib .tif .tiff .gif .webp .pbm .pgm .ppm .pnm".split()  # noqa: SIM905
)
"""Endings by which images are found in folders; a file that is named itself may have any."""
UNFINISHED = ".writing"
"""How the name of a folder ends in which a file is being written; a process that is killed may leave one."""
_ABANDONED_SECONDS = 24 * 3600.0
"""What another machine has left untouched for so long is taken to be nobody's."""

_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "the disk reports an error",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPARE = 1 << 20
"""With fewer bytes free than this a disk is taken to be full where a library does not say why it failed."""


@contextlib.contextmanager
def replacing(path: Path, *, needed: int = 0) -> Iterator[Path]:
    """Return a path to write to, and put that file in `path`'s place once the disk has all of it.

    Args:
        path: the file to write.
        needed: its size in bytes, where that is known beforehand.

    Raises:
        SegregError: it can't be written: the disk is full or read-only, the folder is gone. What was in `path` before
            is unchanged then.
    """
    # Other processes may write the same file. In a folder, a file that a library makes beside the one it writes, as
    # safetensors does, goes with it.
    folder = path.with_name(own_name(UNFINISHED))
    aside = folder / path.name
    try:
        if needed and (free := shutil.disk_usage(path.parent).free) < needed:
            raise OSError(errno.ENOSPC, f"{needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free")
        folder.mkdir()
        aside.write_bytes(b"")
        mode = aside.stat().st_mode
        yield aside
        aside.chmod(mode)  # safetensors makes files that their owner alone can read
        sync(aside)
        aside.replace(path)
    except BaseException as error:
        found = _disk_error(error, path)
        # An error of another file, such as one that is read meanwhile, is that file's.
        if found is None or (found.filename and Path(found.filename) not in (folder, aside, path)):
            raise
        raise cannot_write(found, path) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync(path.parent)  # the rename itself is safe only when the folder is on the disk too


def mapped_array(file: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap[Any, Any]:
    """Return an array of zeros that is a new `.npy` file, mapped into memory.

    Raises:
        OSError: the disk has no room for all of it.
    """
    import numpy as np

    array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # reserved now: a disk that fills up later kills the process at a write
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return array


def own_name(ending: str) -> str:
    """Return a new name for what this process works on aside, by which `remove_unfinished` finds it if it is killed."""
    return f".{_machine()}.{os.getpid()}-{secrets.token_hex(4)}{ending}"


def remove_unfinished(parent: Path, ending: str) -> None:
    """Remove folders of `own_name` that killed processes left.

    On a shared file system they may be another machine's, of which nobody here knows whether the process lives: those
    are left until nothing was written in them for a day.
    """
    mine = re.compile(rf"\.{re.escape(_machine())}\.(\d+)-[0-9a-f]+{re.escape(ending)}")
    for folder in parent.glob(f".*{ending}"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if found := mine.fullmatch(folder.name):
                left = not is_alive(int(found[1]))
            else:
                left = time.time() - max(p.stat().st_mtime for p in (folder, *folder.iterdir())) > _ABANDONED_SECONDS
            if left:
                shutil.rmtree(folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether this machine has such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _machine() -> str:
    """Return this machine's name, as a part of a folder's."""
    return as_file_name(socket.gethostname())


def cannot_write(error: OSError, path: Path) -> SegregError:
    """Return what is reported where a file or folder can't be written: its name, the cause, and how to continue."""
    cause = _CAUSES.get(error.errno or 0, error.strerror or str(error))
    if error.errno == errno.ENOSPC and error.strerror and "needed" in error.strerror:
        cause = f"{cause}: {error.strerror}"
    hint = "what was there before is unchanged"
    if error.errno in _FULL:
        hint += "; free some space and run the same command again, a run with `segreg run --resume DIR`"
    return SegregError(f"{path}: can't be written: {cause}", hint=hint)


def cannot_read(error: Exception, path: Path, what: str = "") -> SegregError:
    """Return what is reported where a file can't be read: its name and the cause.

    Args:
        error: an `OSError`, or what a parser raised.
        path: the file.
        what: it should be, such as "the results of a run".
    """
    if isinstance(error, OSError):
        cause = f"can't be read: {_CAUSES.get(error.errno or 0, error.strerror or str(error))}"
    elif isinstance(error, json.JSONDecodeError):
        cause = f"damaged: not valid JSON (line {error.lineno}): {error.msg}"
    else:
        cause = f"damaged: {error or type(error).__name__}"
    return SegregError(f"{path}: {cause}", hint=f"it should be {what}" if what else "")


def outside_error(error: OSError) -> str:
    """Return what is reported of an error that the disk or the system raised; an empty string for any other."""
    if error.errno not in _CAUSES:
        return ""
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{_CAUSES[error.errno]}"


def near_folder(missing: Path) -> str:
    """Return 'did you mean "runs"?', a folder beside the one that is missing, or an empty string."""
    try:
        return did_you_mean(missing.name, [beside.name for beside in missing.parent.iterdir() if beside.is_dir()])
    except OSError:
        return ""


def read_json(file: Path, what: str = "") -> Any:
    """Return the object in a JSON file.

    Raises:
        SegregError: it is missing, unreadable or damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it does not hold an object")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise cannot_read(error, file, what) from None


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_json(file: Path, content: Any) -> None:
    """Write JSON aside and rename it into place, so that no reader ever sees half a file.

    Numbers that are not finite, which JSON does not have, are written as null.

    Raises:
        SegregError: it can't be written.
    """
    write_text(file, json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write text as UTF-8 aside and rename it into place.

    Undecodable bytes of file names, which Python has as lone surrogates, become escapes, which are JSON's and YAML's.

    Raises:
        SegregError: it can't be written.
    """
    with replacing(file) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def finite(value: Any) -> Any:
    """Return the content with null in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _disk_error(error: BaseException, path: Path) -> OSError | None:
    """Return what the disk said, also where a library says it in its own way; None for any other error."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    words = str(error)
    if isinstance(error, Exception) and (number := re.search(r"os error (\d+)", words)):  # safetensors
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, (RuntimeError, OSError)):  # PyTorch: "unexpected pos 64 vs 0"; GDAL: "Write failed"
        try:
            full = shutil.disk_usage(path.parent).free < _SPARE
        except OSError:
            full = False
        if full or "unexpected pos" in words:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts without regard to case and numbers by their value, and never calls two names equal."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def expanded(path: Path | str) -> Path:
    """Return a path with `~` replaced by the home folder; one of a user that does not exist stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises there


def sync(path: Path) -> None:
    """Force what a file or folder holds onto the disk; a folder only where the system and the file system can."""
    folder = path.is_dir()
    if folder and os.name != "posix":
        return
    # Windows flushes only what is open for writing; a folder opens only for reading.
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # As with shared folders of virtual machines and some network drives.
        if not folder or error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
