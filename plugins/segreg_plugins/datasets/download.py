"""Fetching the ISIC 2018 archives: resumed where it stopped, checked, and unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from segreg.errors import SegregError

SOURCE = "https://isic-archive.s3.amazonaws.com/challenges/2018"

# SHA-256 of each archive, by its folder. The challenge publishes none: these are what several independent projects
# recorded of the challenge's files and agree on.
CHECKSUMS: Mapping[str, str] = {
    "ISIC2018_Task1-2_Training_Input": "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
    "ISIC2018_Task1-2_Validation_Input": "0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
    "ISIC2018_Task1-2_Test_Input": "e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d",
    "ISIC2018_Task1_Training_GroundTruth": "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
    "ISIC2018_Task1_Validation_GroundTruth": "f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
    "ISIC2018_Task1_Test_GroundTruth": "2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82",
}

_ASIDE = ".unpacking-"
"""How the name of the folder begins into which an archive is unpacked, until it is complete."""
_CHUNK = 1 << 20
_PATIENCE = 4.5
"""Seconds for which the source may not answer."""


def download(
    root: Path,
    folders: Sequence[str],
    *,
    source: str = SOURCE,
    checksums: Mapping[str, str] = CHECKSUMS,
    pause: float = 1.0,
) -> None:
    """Fetches and unpacks the archives of `folders` into `root`, one after the other.

    What was fetched before stays: an archive continues where it stopped, now or in a later call. It is deleted once
    its folder stands.

    Raises:
        SegregError: the source can't be reached (within five seconds), the connection broke for good, the disk is too
            small, a checksum differs, an archive is not what it should be, or another process is fetching.
    """
    if not all((root / f"{folder}.zip").is_file() for folder in folders):
        _check_reachable(source)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone_in(root):
            for left_behind in root.glob(f"{_ASIDE}*"):  # by a process that was killed
                shutil.rmtree(left_behind, ignore_errors=True)
            for folder in folders:
                if (root / folder).is_dir():  # another process was faster
                    continue
                archive = root / f"{folder}.zip"
                if not archive.is_file():
                    fetch(f"{source}/{archive.name}", archive, pause=pause)
                _check_sum(archive, checksums[folder])
                unpack(archive, root / folder)
                archive.unlink()
    except OSError as error:
        raise SegregError(f"{error.filename or root}: can't be written ({error.strerror or error})") from None


def fetch(url: str, target: Path, *, pause: float = 1.0) -> None:
    """Fetch a file by HTTP into `target`, by way of `target`.part, continuing where an earlier call stopped.

    Raises:
        SegregError: the server refuses, the connection broke five times without progress, or the disk is too small.
    """
    part = target.with_name(f"{target.name}.part")
    failures = 0
    while True:
        had = part.stat().st_size if part.exists() else 0
        try:
            _fetch_rest(url, part, had)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and had:  # there is nothing behind what we have, or it is not of this file
                if error.headers.get("Content-Range", "").endswith(f"/{had}"):
                    break
                part.unlink()
                continue
            if error.code < 500:
                raise SegregError(
                    f"{url}: the server answers {error.code} {error.reason}",
                    hint="the challenge may have moved its files; see https://challenge.isic-archive.com/data/#2018",
                ) from None
            reason = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        have = part.stat().st_size if part.exists() else 0
        failures = 0 if have > had else failures + 1
        if failures == 5:
            raise SegregError(
                f"{url}: stopped after {_format_bytes(have)} ({reason})", hint="the same command continues from there"
            )
        time.sleep(pause * 2**failures)
    part.replace(target)
    part.with_name(f"{part.name}.etag").unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of a zip archive, without its folders, into `folder`, which appears once it is complete.

    Raises:
        SegregError: the archive is damaged, names files outside of itself, or holds links or two files of one name.
    """
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=folder.parent))
    say = _teller(f"unpacking {archive.name}")
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [info for info in packed.infolist() if not info.is_dir() and "__MACOSX" not in info.filename]
            total = sum(info.file_size for info in members)
            _check_room(folder.parent, total)
            done = 0
            for info in members:
                path = _inside(info, archive)
                with packed.open(info) as source, (aside / path.name).open("xb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
                done += info.file_size
                say(done, total)
        aside.chmod(0o755)
        aside.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise SegregError(f"{archive}: is damaged ({error})", hint="delete it; it will be fetched again") from None
    except FileExistsError:
        raise SegregError(f"{archive}: holds two files of one name") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fetch_rest(url: str, part: Path, had: int) -> None:
    etag = part.with_name(f"{part.name}.etag")
    request = urllib.request.Request(url, headers={"User-Agent": "segreg"})  # noqa: S310 - only our own http(s) URLs
    if had:
        request.add_header("Range", f"bytes={had}-")
        if etag.exists():  # the rest of another version would not fit
            request.add_header("If-Range", etag.read_text(encoding="utf-8"))
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {had}-")
        have = had if goes_on else 0
        if answer.status == 206 and not goes_on:
            raise ConnectionError("the server sent another range than was asked for")
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if total:
            _check_room(part.parent, 2 * total - have)  # the archive, and what is unpacked from it
        if mark := answer.headers.get("ETag"):
            etag.write_text(mark, encoding="utf-8")
        say = _teller(f"fetching {part.name.removesuffix('.part')}")
        with part.open("ab" if goes_on else "wb") as file:
            while block := answer.read(_CHUNK):
                file.write(block)
                have += len(block)
                say(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {_format_bytes(have)} of {_format_bytes(total)}")


def _check_reachable(source: str) -> None:
    """Refuse within five seconds where nothing answers; a name look-up alone can take longer than that."""
    parsed = urllib.parse.urlsplit(source)
    host, port = parsed.hostname or "", parsed.port or (443 if parsed.scheme == "https" else 80)
    proxy = urllib.request.getproxies().get(parsed.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        via = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host, port = via.hostname or host, via.port or 80
    outcome: list[str] = []

    def knock() -> None:
        try:
            socket.create_connection((host, port), timeout=_PATIENCE).close()
            outcome.append("")
        except OSError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    reason = outcome[0] if outcome else "no answer"
    if reason:
        raise SegregError(
            f"{host} can't be reached ({reason}), and ISIC 2018 was to be downloaded from there",
            hint="fetch the archives on a machine with a connection and unpack them into dataset.root, or set "
            "dataset.if_missing: synthetic",
        )


def _check_sum(archive: Path, expected: str) -> None:
    sys.stderr.write(f"checking {archive.name}\n")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        aside = archive.with_name(f"{archive.name}.wrong")
        archive.replace(aside)
        raise SegregError(
            f"{archive.name}: its SHA-256 is {found}, not {expected}; it is kept as {aside}",
            hint="fetching it again may help. If the challenge has changed the archive, unpack it by hand",
        )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SegregError(f"{folder}: {_format_bytes(needed)} are needed, and {_format_bytes(free)} are free")


def _inside(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in info.filename or stat.S_ISLNK(info.external_attr >> 16):
        raise SegregError(f"{archive}: holds {info.filename!r}, which leads out of it; nothing was unpacked")
    return path


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Keep a second process from fetching into the same folder; the lock goes with the process."""
    if os.name != "posix":
        yield
        return
    import fcntl

    with (root / ".download.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SegregError(f"{root}: another process is downloading into it") from None
        try:
            yield
        finally:
            (root / ".download.lock").unlink(missing_ok=True)


def _teller(what: str) -> Callable[[int, int | None], None]:
    """Return a function that tells progress on stderr: in one line at a terminal, else at every tenth."""
    terminal = sys.stderr.isatty()
    printed = [time.monotonic(), -1.0]

    def say(done: int, total: int | None) -> None:
        share = done / total if total else 0.0
        if terminal and (time.monotonic() - printed[0] > 0.3 or done == total):
            printed[0] = time.monotonic()
            sys.stderr.write(f"\r{what}: {_format_bytes(done)}{f' of {_format_bytes(total)}' if total else ''}   ")
            sys.stderr.write("\n" if done == total else "")
            sys.stderr.flush()
        elif not terminal and total and int(share * 10) > printed[1]:
            printed[1] = int(share * 10)
            sys.stderr.write(f"{what}: {share:.0%} of {_format_bytes(total)}\n")

    return say


def _format_bytes(count: int) -> str:
    value, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
