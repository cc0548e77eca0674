"""`segreg check`: tells everything that is wrong with recipes, before anything heavy is imported."""

from __future__ import annotations

import argparse
import json
import sys

from segreg.errors import Problem, SegregError

NAME = "check"
HELP = "check recipes and tell every problem with its line"
EXAMPLES = """examples:
  segreg check recipes/*.yaml
  segreg check recipes/isic_v3plus.yaml encoder=timm/convnext_tiny
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="RECIPE|key.path=value", help="recipe files, and overrides for all")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.recipe import is_override, read_recipe
    from segreg.registry import load_registry
    from segreg.resolve import resolve

    files = [word for word in chosen.words if not is_override(word)]
    overrides = [word for word in chosen.words if is_override(word)]
    if not files:
        raise SegregError("name at least one recipe to check", hint="for example: segreg check recipes/*.yaml")
    registry = load_registry()
    problems: list[Problem] = []
    for file in files:
        try:
            resolve(read_recipe(file, overrides), registry)
        except SegregError as error:
            problems += error.problems
        else:
            if not chosen.json:
                print(f"{file}: fine")
    if chosen.json:
        print(json.dumps([_row(problem) for problem in problems], indent=2))
    else:
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        if len(problems) > 1:
            print(f"{len(problems)} problems", file=sys.stderr)
    return 2 if problems else 0


def _row(problem: Problem) -> dict[str, object]:
    place = problem.place
    where = {"file": place.source, "line": place.line, "column": place.column} if place else {}
    return {"message": problem.message, "hint": problem.hint, **where}
