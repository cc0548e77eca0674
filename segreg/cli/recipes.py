"""`segreg recipes`: the recipes that come with segreg."""

from __future__ import annotations

import argparse
from pathlib import Path

from segreg.cli.common import print_json
from segreg.config.recipe import about, shipped_recipe, shipped_recipes
from segreg.errors import SegregError
from segreg.runtime.layout import Column, Table, show

NAME = "recipes"
HELP = "list the recipes that come with segreg, print one, or copy one into the current folder"
EXAMPLES = """examples:
  segreg recipes
  segreg recipes print isic_v3plus
  segreg recipes copy isic_v3plus
  segreg recipes copy isic_v3plus mine.yaml
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "print", "copy"), default="list")
    parser.add_argument("recipe", nargs="?", help="the recipe's name, for print and copy")
    parser.add_argument("file", nargs="?", type=Path, help="where copy writes it; the recipe's own name otherwise")
    parser.add_argument("--force", action="store_true", help="let copy replace a file")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def execute(chosen: argparse.Namespace) -> int:
    if chosen.action == "list":
        known = shipped_recipes()
        if chosen.json:
            print_json([{"name": n, "file": str(f), "about": about(f)} for n, f in known.items()])
            return 0
        show(Table([Column(), Column(wraps=True)], [[name, about(file)] for name, file in known.items()]))
        show("`segreg recipes copy NAME` puts one into the current folder")
        return 0
    if chosen.json:
        raise SegregError(f"--json prints the list, and does not go with {chosen.action}")
    if chosen.recipe is None:
        raise SegregError(f"name the recipe to {chosen.action}", hint=f"segreg recipes {chosen.action} isic_v3plus")
    source = shipped_recipe(chosen.recipe)
    if chosen.action == "print":
        print(source.read_text(encoding="utf-8"), end="")
        return 0
    target = chosen.file or Path(source.name)
    if target.is_dir():
        target /= source.name
    if target.exists() and not chosen.force:
        raise SegregError(f"{target} exists already", hint="--force replaces it, or name another file")
    try:
        target.write_bytes(source.read_bytes())
    except OSError as error:
        raise SegregError(f"{target} can't be written: {error.strerror}") from None
    print(f"wrote {target}; try: segreg run {target}")
    return 0
