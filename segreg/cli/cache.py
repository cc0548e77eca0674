"""`segreg cache`: what prepared pictures take on the disk, and how to be rid of them."""

from __future__ import annotations

import argparse

NAME = "cache"
HELP = "list or clear the cache of prepared pictures"
EXAMPLES = """examples:
  segreg cache
  segreg cache clear
  segreg cache clear 3f2a
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "clear"), default="list")
    parser.add_argument("keys", nargs="*", help="beginnings of the keys to clear; all where none is named")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(chosen: argparse.Namespace) -> int:
    raise NotImplementedError(chosen)
