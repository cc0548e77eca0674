"""`segreg plugins`: which packages take part, and which could not."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from segreg.cli.common import print_json

if TYPE_CHECKING:
    from segreg.registry.registry import Plugin

NAME = "plugins"
HELP = "list the installed plugins, what each offers, and why one could not be loaded"
EXAMPLES = """examples:
  segreg plugins
  segreg plugins --json
  SEGREG_DISABLE_PLUGINS=segreg-foo segreg plugins     leave one out
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tracebacks", action="store_true", help="show where a broken plugin failed")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.registry.compatibility import stranger_installed
    from segreg.registry.registry import load_registry

    registry = load_registry()
    if happened := stranger_installed():
        print(f"warning: {happened}", file=sys.stderr)
    if chosen.json:
        print_json([_row(plugin) for plugin in registry.plugins])
        return 0
    for plugin in registry.plugins:
        print(f"{plugin.title}  {plugin.name} ({plugin.module})")
        if plugin.error:
            print("  NOT IN USE: " + plugin.error.replace("\n", "\n  "))
            if chosen.tracebacks and plugin.detail:
                print("  " + plugin.detail.rstrip().replace("\n", "\n  "))
        else:
            print(f"  offers {_offers(plugin) or 'nothing; it observes runs'} ({1000 * plugin.seconds:.0f} ms)")
        if plugin.notice:
            print(f"  notice: {plugin.notice}")
    return 0


def _offers(plugin: Plugin) -> str:
    from segreg.registry.entry import Entry

    names = [p.name if isinstance(p, Entry) else f"{p.prefix}*" if p.prefix else p.name for p in plugin.parts]
    kinds = sorted({part.kind for part in plugin.parts})
    offers = [f"{', '.join(kinds)}: {', '.join(names)}"] if names else []
    if plugin.commands:
        offers.append(f"commands: {', '.join(command.name for command in plugin.commands)}")
    return "; ".join(offers)


def _row(plugin: Plugin) -> dict[str, object]:
    from segreg.registry.entry import Entry

    return {
        "name": plugin.name,
        "module": plugin.module,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "error": plugin.error,
        "notice": plugin.notice,
        "seconds": plugin.seconds,
        "parts": [
            {"kind": part.kind, "name": part.name, "family": not isinstance(part, Entry)} for part in plugin.parts
        ],
        "commands": [command.name for command in plugin.commands],
    }
