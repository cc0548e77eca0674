"""Python that has imported the heavy packages already: what is started from it starts in a moment, not in seconds.

`python tests/warm_python.py SOCKET` imports them and waits. `python -IS tests/warm_python.py SOCKET -m segreg list`, or
with `-c CODE` or a file, then does what `python -m segreg list` does, in a process forked from that one, with the
folder, the environment and the standard files of who asked, and ends with its status; who is killed takes it along.
The workers of `segreg.benchmark.pool` are forks of that process, where they would be of one that imports all anew.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HEAVY = (
    "torch", "torch._dynamo", "torchvision", "segmentation_models_pytorch", "timm", "albumentations", "torchmetrics",
    "matplotlib.figure", "matplotlib.backends.backend_agg",
)  # fmt: skip
"""Of third parties alone: segreg itself, its plugins and the tests are imported by each process anew."""
_LENGTH = 8


@contextlib.contextmanager
def started():
    """Return a program that is to be used like Python itself, as a list."""
    folder = tempfile.mkdtemp(prefix="python")
    name = f"{folder}/socket"  # which is to be short
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    serving = subprocess.Popen([sys.executable, __file__, name], env=environment, stdout=subprocess.PIPE)
    try:
        assert serving.stdout.readline() == b"ready\n"
        beginning = [sys.executable, "-IS", __file__, name]
        program = Path(folder, "python")
        program.write_text(f'#!/bin/sh\nexec {shlex.join(beginning)} "$@"\n')
        program.chmod(0o755)
        yield [str(program)]
    finally:
        serving.stdout.close()
        serving.terminate()
        serving.wait()
        shutil.rmtree(folder)


def ask(name, words):
    """Has a command done, and return its status."""
    order = json.dumps({"words": words, "folder": str(Path.cwd()), "variables": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as to:
        to.connect(name)
        socket.send_fds(to, [len(order).to_bytes(_LENGTH, "big")], [0, 1, 2])
        to.sendall(order)
        return int(to.recv(16) or 1)


def serve(name):
    """Does what is asked, each time in a process of its own, until it is ended."""
    for module in HEAVY:
        importlib.import_module(module)
    # What is imported later is compiled once, not by each process.
    sys.dont_write_bytecode, sys.pycache_prefix = False, f"{Path(name).parent}/compiled"
    for plugin in importlib.metadata.entry_points(group="pytest11"):  # which pytest insists on importing itself
        package = plugin.module.partition(".")[0]
        for module in [each for each in sys.modules if each.partition(".")[0] == package]:
            del sys.modules[module]
    path = sys.path[1:]  # without the folder of this file
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen()
        print("ready", flush=True)
        answering = set()
        while True:
            connection, _ = listening.accept()
            if (child := os.fork()) == 0:
                listening.close()
                _answer(connection, path)
            connection.close()
            answering = {each for each in answering | {child} if os.waitpid(each, os.WNOHANG)[0] == 0}


def _answer(connection, path):
    """Is the process that waits for the one that was asked for, and return its status."""
    import threading

    length, files, *_ = socket.recv_fds(connection, _LENGTH, 3)
    order = b""
    while len(order) < int.from_bytes(length, "big"):
        order += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _obey(**json.loads(order), path=path)
    # Nothing more is sent: the connection ends with who asked.
    threading.Thread(target=_end_with, args=(connection, child), daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(status if status >= 0 else 128 - status).encode())
    os._exit(0)


def _end_with(connection, child):
    """Kill a process when the connection ends."""
    connection.recv(1)
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself, and its status is on its way
        os.kill(child, signal.SIGKILL)


def _obey(words, folder, variables, path):
    """Is the process that was asked for."""
    import atexit
    import multiprocessing
    import threading
    import traceback
    import warnings

    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115 - they last as long as the process
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    first = [entry for entry in variables.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = ["", *first, *(entry for entry in path if entry not in first)]
    importlib.invalidate_caches()
    for action in filter(None, variables.get("PYTHONWARNINGS", "").split(",")):
        warnings.simplefilter(action)
    context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: context("fork" if method == "forkserver" else method)
    status = 0
    try:
        _run(words)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)


def _run(words):
    import runpy
    import types

    words = [word for word in words if word != "-u"]
    if words[0] == "-m":
        sys.path[0] = str(Path.cwd())
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(main))
    else:
        sys.path[0] = str(Path(words[0]).absolute().parent)
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]) if sys.argv[2:] else serve(sys.argv[1]))
