"""Code of plugins, called so that it can't take segreg down: its output, exits, hangs and changes of directory."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from segreg.runtime.output import flush, is_process_output, output_into

PATIENCE, AGAIN = 10.0, 60.0
"""Seconds of one call after which standard error names the plugin, and seconds after which it does so again."""


class Guard:
    """A context in which plugins are called one after another, each by `call`.

    Args:
        keep_output: whether what the calls print is kept for `output`, so that it does not get into standard output.
    """

    def __init__(self, *, keep_output: bool = False) -> None:
        self.interrupted = False
        """Whether the user, or who ends this process, has interrupted the last call."""
        self._title, self._hint, self._since, self._warned = "", "", 0.0, 0.0
        self._closed = threading.Event()
        self._kept = _KeptOutput() if keep_output else None

    def __enter__(self) -> Guard:
        threading.Thread(target=self._watch, name="segreg-watch", daemon=True).start()
        if self._kept:
            self._kept.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._kept:
            self._kept.end()

    def output(self) -> str:
        """Return what was printed since this was last asked."""
        return self._kept.take() if self._kept else ""

    @contextlib.contextmanager
    def call(self, title: str, hint: str = "") -> Iterator[None]:
        """Call a plugin, and restore the working directory afterwards.

        Whatever the plugin raises is passed on, SystemExit and the like included; an `os._exit` as SystemExit.

        Args:
            title: which plugin, and what for: "loading segreg-foo 1.0".
            hint: what to do if it takes long.

        Raises:
            KeyboardInterrupt: a signal has interrupted the call; `interrupted` is true then.
        """
        self.interrupted = False
        self._since, self._warned = time.monotonic(), 0.0
        self._title, self._hint = title, hint
        try:
            with kept_directory(), _named_crash():
                if threading.current_thread() is threading.main_thread():
                    with self._signals(), _caught_exit():
                        yield
                else:  # where no signal is raised
                    yield
        except BaseException as error:
            if self.interrupted and not isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise
        finally:
            self._title = ""

    def _watch(self) -> None:
        """Name the plugin whose call takes long."""
        while not self._closed.wait(PATIENCE / 20):
            title, now = self._title, time.monotonic()
            if title and now - self._since >= PATIENCE and (not self._warned or now - self._warned >= AGAIN):
                self._warned = now
                with contextlib.suppress(OSError, ValueError):
                    words = f"{title} has taken {now - self._since:.0f} s so far"
                    print(words + (f"; {self._hint}" if self._hint else ""), file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Note whether a signal raised what is raised, and restore the handlers that a plugin replaces."""
        before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, lambda number, frame: self._signalled(before[number], number, frame))
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def _signalled(self, handler: Any, number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException:
            self.interrupted = True
            raise


@contextlib.contextmanager
def kept_directory() -> Iterator[None]:
    """Restore the working directory afterwards."""
    try:
        before = os.getcwd()  # noqa: PTH109 - a plain string is enough, and faster
    except OSError:  # it has been removed
        before = ""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if before and os.getcwd() != before:  # noqa: PTH109
                os.chdir(before)


@contextlib.contextmanager
def _caught_exit() -> Iterator[None]:
    """Let `os._exit` raise SystemExit, which names its caller, in the main thread of this process."""
    leave, process, thread = os._exit, os.getpid(), threading.get_ident()

    def refuse(status: int) -> None:
        if (os.getpid(), threading.get_ident()) != (process, thread):  # such as a process that multiprocessing forked
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = leave


@contextlib.contextmanager
def _named_crash() -> Iterator[None]:
    """Let a crash of the interpreter print where it was, so that the plugin's file is named."""
    if faulthandler.is_enabled():
        yield
        return
    faulthandler.enable(2, all_threads=False)
    try:
        yield
    finally:
        faulthandler.disable()


class _KeptOutput:
    """Standard output, put into a file for a while: also what C code and child processes write."""

    def begin(self) -> None:
        """Put standard output aside."""
        self._stream, self._read = sys.stdout, 0
        try:
            self._file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - `end` closes it
            aside = self._file.fileno()
        except OSError:  # no disk to write to
            self._file, aside = io.BytesIO(), 2
        # What a plugin remembers of a stand-in, in a handler of logging for instance, writes to the true one later.
        self._proxy = None if is_process_output(self._stream) else _Proxy(self._stream, self._file)
        self._aside = output_into(aside, self._proxy)
        self._aside.__enter__()

    def take(self) -> str:
        """Return what was written since the last time."""
        self._flush()
        self._file.seek(self._read)
        written = self._file.read()
        self._read += len(written)
        return str(written.decode("utf-8", "backslashreplace")).strip()

    def end(self) -> None:
        """Restore standard output."""
        self._flush()
        self._aside.__exit__(None, None, None)
        if self._proxy:
            self._proxy.aside = None
        self._file.close()

    def _flush(self) -> None:
        for stream in (sys.stdout, self._stream):  # a plugin may have replaced the one
            flush(stream)


class _Proxy(io.TextIOBase):
    """A stream that writes into a file of bytes while there is one, and afterwards into the stream it stands for."""

    def __init__(self, stream: Any, aside: Any) -> None:
        self.stream = stream
        self.aside = aside

    def write(self, text: str) -> int:
        if self.aside is None:
            return int(self.stream.write(text))
        self.aside.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        (self.stream if self.aside is None else self.aside).flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
