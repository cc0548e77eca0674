from __future__ import annotations

import copy
import io
import sys
import time
import types

import pytest

from segreg.runtime.progress import Bar, Lines, Notebook, Quiet, duration, progress


def test_lines_are_written_now_and_then(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    lines = Lines(stream, every=10.0)
    with lines.watch("epoch 1/3", 8, "batches") as advance:
        for step in range(8):
            now += 4.0
            advance(1, f"loss {step}")
    lines.say("done")
    assert stream.getvalue().splitlines() == [
        "  epoch 1/3: 3/8 batches, 20 s left  loss 2",
        "  epoch 1/3: 6/8 batches, 8 s left  loss 5",
        "done",
    ]


def test_a_bar_shows_what_is_done():
    from rich.console import Console

    stream = io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=100, color_system=None))
    with bar.watch("epoch 1/3", 4, "batches") as advance:
        advance(3, "loss [0.5]")
        bar.say("a [line] that stays")
    text = stream.getvalue()
    assert "epoch 1/3" in text
    assert "3/4" in text
    assert "loss [0.5]" in text
    assert "a [line] that stays\n" in text.replace("\r", "")


def test_progress_fits_its_stream():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert isinstance(progress("auto", io.StringIO()), Lines)
    assert isinstance(progress("auto", Terminal()), Bar)
    assert isinstance(progress("quiet"), Quiet)
    stream = io.StringIO()
    quiet = copy.copy(progress("quiet", stream))
    with quiet.watch("x", None, "files") as advance:
        advance(1, "note")
    quiet.say("nothing")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_notebook_has_one_display_that_grows(monkeypatch):
    shown = []

    class Handle:
        def update(self, page, *, raw):
            assert raw
            shown.append(page)

    def display(page, *, raw, display_id):
        assert raw
        assert display_id
        shown.append(page)
        return Handle()

    class ZMQInteractiveShell:
        pass

    ipython, displays = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython, displays.display = ZMQInteractiveShell, display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    notebook = progress()
    assert isinstance(notebook, Notebook)
    notebook.say("a <b> & c")
    with notebook.watch("epoch 1/2", 4, "batches") as advance:
        now += 1.0
        advance(2, "loss <0.5>")
        assert '<progress value="2" max="4"></progress> 2/4 batches  loss &lt;0.5&gt;' in shown[-1]["text/html"]
        drawn = len(shown)
        advance(1)
        assert len(shown) == drawn  # not at every batch
    assert "progress" not in shown[-1]["text/html"]
    notebook.say("done")
    assert shown[-1] == {"text/plain": "a <b> & c\ndone", "text/html": "<pre>a &lt;b&gt; &amp; c\ndone\n</pre>"}
    assert isinstance(progress("lines"), Lines)
