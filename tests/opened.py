"""A page opened in headless Chromium with a script of the test's in it, which notes what it finds."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess

import pytest

_BEGIN = """
const told = {errors: [], images: []};
addEventListener("error", (event) => told.errors.push(String(event.message || event.target)), true);
addEventListener("securitypolicyviolation", (event) => told.errors.push("policy: " + event.violatedDirective));
addEventListener("load", () => {
  told.images = [...document.images].map((image) => image.naturalWidth);
"""
_END = """
  told.wide = document.documentElement.scrollWidth - innerWidth;
  const note = document.createElement("pre");
  note.id = "told";
  note.textContent = JSON.stringify(told);
  document.body.append(note);
});
"""


def browser():
    """Return the path of Chromium; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return pytest.skip("no Chromium is installed")


def probed(file, script):
    """Return a page like `file` that runs a script when it has loaded, which fills in the fields of `told`.

    The script stands before everything, and the page's policy lets it run beside the page's own.
    """
    whole = _BEGIN + script + _END
    digest = base64.b64encode(hashlib.sha256(whole.encode()).digest()).decode()
    text = file.read_text(encoding="utf-8").replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    made = file.with_name("probed.html")
    made.write_text(text.replace("<style>", f"<script>{whole}</script><style>", 1), encoding="utf-8")
    return made


def label_of(path, page, folder, width):
    """Return what the script noted in a window of that width; the browser itself complains of nothing."""
    opened = subprocess.run(
        [path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--enable-logging=stderr", f"--user-data-dir={folder}", f"--window-size={width},900",
         "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = re.search('<pre id="told">(.*?)</pre>', opened.stdout, re.DOTALL)
    assert found, opened.stderr[-2000:]
    reported = json.loads(html.unescape(found[1]))
    assert reported["errors"] == []
    assert [line for line in opened.stderr.splitlines() if "CONSOLE" in line] == []
    assert min(reported["images"]) > 0
    return reported
