"""`segreg check`: tells everything that is wrong with recipes, before anything heavy is imported unless asked for."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from segreg.cli.common import files_and_overrides, print_json, shown_progress
from segreg.errors import Problem, SegregError
from segreg.runtime.layout import complain, show

NAME = "check"
HELP = "check recipes and tell every problem with its line"
EXAMPLES = """examples:
  segreg check recipes/*.yaml
  segreg check recipes/isic_v3plus.yaml encoder=timm/convnext_tiny
  segreg check recipes/isic_v3plus.yaml encoder=timm/convnext_tiny --build      does that network train?

With --build each recipe that is fine is tried as well: its network is built on the CPU with random weights, whatever
weights it asks for, and takes one training step on random pixels of its input size with its loss. No image is read
and nothing is downloaded. Where something can't work, the error points to what is known to.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="RECIPE|key.path=value", help="recipe files, and overrides for all")
    parser.add_argument("--build", action="store_true", help="also build each network and take one training step")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.config.recipe import read_recipe
    from segreg.config.resolve import resolve
    from segreg.registry.registry import load_registry

    files, overrides = files_and_overrides(chosen.words)
    if not files:
        raise SegregError("name at least one recipe to check", hint="for example: segreg check recipes/*.yaml")
    if chosen.build:
        from segreg.runs.dry_run import dry_run  # which imports torch
    registry = load_registry()
    problems: list[Problem] = []
    networks: dict[str, Any] = {}
    for file in files:
        try:
            resolved = resolve(read_recipe(file, overrides), registry)
            facts, lines = dry_run(resolved, shown_progress(quiet=chosen.json)) if chosen.build else ({}, [])
        except SegregError as error:
            problems += error.problems
            continue
        if facts:
            networks[file] = facts
        if not chosen.json:
            show(f"{file}: fine", *(f"  {line}" if isinstance(line, str) else line for line in lines))
    rows = [_row(problem) for problem in problems]
    if chosen.json:
        print_json({"problems": rows, "networks": networks} if chosen.build else rows)
    else:
        for problem in problems:
            complain(str(problem), "error")
        if len(problems) > 1:
            print(f"{len(problems)} problems", file=sys.stderr)
    return 2 if problems else 0


def _row(problem: Problem) -> dict[str, object]:
    place = problem.place
    where = {"file": place.source, "line": place.line, "column": place.column} if place else {}
    return {"message": problem.message, "hint": problem.hint, **where}
