"""`segreg plugins`: which packages take part, and which could not."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

from segreg.cli.common import print_json
from segreg.registry.compatibility import About, about, stranger_installed
from segreg.registry.entry import Entry
from segreg.runtime.layout import Styled, complain, show

if TYPE_CHECKING:
    from segreg.registry.registry import Plugin

NAME = "plugins"
HELP = "list the installed plugins, what each offers, and why one could not be loaded"
EXAMPLES = """examples:
  segreg plugins
  segreg plugins --json
  segreg plugins --verify                              load each in a process of its own
  SEGREG_DISABLE_PLUGINS=segreg-foo segreg plugins     leave one out
"""
_SECONDS = 120
"""How long `--verify` lets a plugin load."""
_PROGRAM = """
import json, sys
from importlib.metadata import EntryPoint
from segreg.registry.registry import load_registry
marker, *point = sys.argv[1:]
(plugin,) = load_registry([EntryPoint(*point, "segreg")]).plugins
print("", marker + json.dumps(plugin.error), sep="\\n", file=sys.stderr, flush=True)
"""
"""Writes the plugin's error in a line that begins with a marker, which may have anything before and after it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tracebacks", action="store_true", help="show where a broken plugin failed")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="load each in a process of its own, and name those that can't be used, end the process or never finish",
    )


def execute(chosen: argparse.Namespace) -> int:
    from segreg.registry.registry import load_registry

    if chosen.verify:
        return _verify(as_json=chosen.json)
    registry = load_registry()
    if happened := stranger_installed():
        complain(happened)
    if chosen.json:
        print_json([_row(plugin) for plugin in registry.plugins])
        return 0
    for plugin in registry.plugins:
        show(f"{plugin.title}  {plugin.name} ({plugin.module})")
        if plugin.error:
            show(*_indented(plugin.error, "NOT IN USE: ", "red"))
            if chosen.tracebacks and plugin.detail:
                show(*_indented(plugin.detail.rstrip()))
        else:
            show(f"  offers {_offers(plugin) or 'nothing; it observes runs'} ({1000 * plugin.seconds:.0f} ms)")
        for fault in plugin.faults:
            show(*_indented(str(fault), "CAN'T BE USED: ", "red"))
        if plugin.notice:
            show(Styled(f"  notice: {plugin.notice}", "yellow"))
        if plugin.output:
            show("  it printed while it was loaded:", *_indented(plugin.output, "  "))
    return 0


def _indented(text: str, first: str = "", style: str = "") -> list[Styled]:
    return [
        Styled(line, style) for line in f"  {first}{text}".replace("\n", f"\n  {'  ' * first.isspace()}").splitlines()
    ]


def _verify(*, as_json: bool) -> int:
    """Load each plugin in a process of its own, and print how that ended; 1 if one did not end as it should."""
    from segreg.registry.registry import DISABLE, find_points

    rows = []
    for point in find_points():
        package = about(point.dist) if point.dist else About()
        marker = secrets.token_hex()
        command = [sys.executable, "-c", _PROGRAM, marker, point.name, point.value]
        try:
            done = subprocess.run(  # noqa: S603 - this Python, and a plugin that is installed
                command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), DISABLE: ""},
                capture_output=True, encoding="utf-8", errors="backslashreplace", timeout=_SECONDS, check=False,
            )  # fmt: skip
            ended = f"exit status {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
            told = [line for line in done.stderr.splitlines() if line.startswith(marker)]
            problem, error = "", ""
            if done.returncode or not told:
                others = [line for line in done.stderr.rstrip().splitlines() if line not in told]
                problem, error = f"it ended the process: {ended}", "\n".join(others)
            elif why := json.loads(told[0].removeprefix(marker)) or package.misfit:
                problem, error = "it can't be used", why
        except subprocess.TimeoutExpired:
            problem, error = f"it was not loaded after {_SECONDS} s", ""
        rows.append(
            {"name": point.name, "module": point.value, "distribution": package.name, "problem": problem,
             "output": error if problem else ""}
        )  # fmt: skip
        if as_json:
            continue
        show(f"{package.name}  {point.name} ({point.value})  {problem or 'loads'}")
        if problem:
            show(*(f"  {line}" for line in error.splitlines()))
            show(f"  {DISABLE}={package.name} continues without it")
    if as_json:
        print_json(rows)
    return 1 if any(row["problem"] for row in rows) else 0


def _offers(plugin: Plugin) -> str:
    names = [p.name if isinstance(p, Entry) else f"{p.prefix}*" if p.prefix else p.name for p in plugin.parts]
    kinds = sorted({part.kind for part in plugin.parts})
    offers = [f"{', '.join(kinds)}: {', '.join(names)}"] if names else []
    if plugin.commands:
        offers.append(f"commands: {', '.join(command.name for command in plugin.commands)}")
    return "; ".join(offers)


def _row(plugin: Plugin) -> dict[str, object]:
    return {
        "name": plugin.name,
        "module": plugin.module,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "error": plugin.error,
        "notice": plugin.notice,
        "faults": [vars(fault) for fault in plugin.faults],
        "output": plugin.output,
        "seconds": plugin.seconds,
        "parts": [
            {"kind": part.kind, "name": part.name, "family": not isinstance(part, Entry)} for part in plugin.parts
        ],
        "commands": [command.name for command in plugin.commands],
    }
