"""Headless Chromium, steered through its DevTools protocol over a pair of pipes: a page as its readers see it."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal


class Tab:
    """A tab of a window; `problems` are what the page's script or its policy complained of."""

    def __init__(self, read, write):
        self._read, self._write, self._number, self._rest, self._session = read, write, 0, b"", {}
        self.problems = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Have a command done, and return its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            more = os.read(self._read, 1 << 16)
            assert more, "the browser has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(message)
        entry = found.get("params", {}).get("entry", {})
        if found.get("method") == "Runtime.exceptionThrown" or entry.get("level") == "error":
            self.problems.append(found["params"])
        return found

    def open(self, url, width, height=900):
        """Show a page in a window of that size, and return when it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def run(self, script):
        """Return the value of a script's last expression, a promise's when it is there."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def choose_files(self, selector, files):
        """Choose files as a reader does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def shot(self, file):
        """Write what is seen as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def chromium(path, folder):
    """Return a tab of a browser that keeps its files in a folder."""
    pipes = [os.pipe(), os.pipe()]
    # Numbers that are neither 3 nor 4, from which the browser reads and to which it writes.
    (commands, write), (read, answers) = [
        [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pipe] for pipe in pipes
    ]
    for end in (*pipes[0], *pipes[1]):
        os.close(end)
    words = [path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
             "--remote-debugging-pipe", f"--user-data-dir={folder}"]  # fmt: skip
    actions = [
        (os.POSIX_SPAWN_DUP2, commands, 3),
        (os.POSIX_SPAWN_DUP2, answers, 4),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    process = os.posix_spawn(path, words, os.environ, file_actions=actions)
    for end in (commands, answers):
        os.close(end)
    try:
        yield Tab(read, write)
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
        os.close(read)
        os.close(write)
