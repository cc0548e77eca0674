"""`segreg cache`: what prepared images take on the disk, and how to be rid of them."""

from __future__ import annotations

import argparse
import time

from segreg.cli.common import print_json
from segreg.errors import SegregError, listed
from segreg.runtime.layout import Column, Table, show

NAME = "cache"
HELP = "list or clear the cache of prepared images"
EXAMPLES = """examples:
  segreg cache               what there is, the last used first
  segreg cache clear         remove everything that no run is using
  segreg cache clear 3f2a    remove the entry whose key begins so

The cache is in $SEGREG_CACHE, or in segreg under $XDG_CACHE_HOME or ~/.cache. It holds $SEGREG_CACHE_LIMIT_GB
gigabytes at most (20); what was used least lately goes first.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "clear"), default="list")
    parser.add_argument("keys", nargs="*", help="beginnings of keys; all entries where none is named")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.data.cache_folder import cache_folder, cache_limit, clear, gigabytes, list_entries

    if "" in chosen.keys:
        raise SegregError("an empty word is not the beginning of a key", hint="leave it out for all entries")
    entries = list_entries()
    if unknown := [key for key in chosen.keys if not any(entry.key.startswith(key) for entry in entries)]:
        raise SegregError(f"the cache has no entry {listed(unknown)}", hint="`segreg cache` lists its entries")
    if chosen.keys:
        entries = [entry for entry in entries if entry.key.startswith(tuple(chosen.keys))]
    asked_for = len(entries)
    if chosen.action == "clear":
        entries = clear(keys={entry.key for entry in entries} if chosen.keys else None)
    if chosen.json:
        found = [
            {"key": e.key, "bytes": e.bytes, "samples": e.samples, "last_used": e.last_used, "in_use": e.in_use,
             "description": e.description} for e in entries
        ]  # fmt: skip
        print_json(found)
        return 0
    rows = []
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        busy = "in use" if entry.in_use and chosen.action == "list" else ""
        rows.append([entry.key[:12], gigabytes(entry.bytes), used, entry.description, busy])
    if rows:
        columns = [Column(), Column(right=True, least=9), Column(), Column(wraps=True), Column()]
        show(Table(columns, rows))
    total = gigabytes(sum(entry.bytes for entry in entries))
    count = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
    if chosen.action == "clear":
        stays = f"; {asked_for - len(entries)} in use or not removable" if asked_for > len(entries) else ""
        show(f"removed {count}, {total}{stays}")
    else:
        show(f"{count}, {total} of {gigabytes(cache_limit())} in {cache_folder()}")
    return 0
