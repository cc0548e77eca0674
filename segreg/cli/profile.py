"""`segreg profile RECIPE`: tells where the time of a recipe's training would go."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from segreg.cli.common import one_file, print_json, shown_progress
from segreg.errors import SegregError
from segreg.runtime.layout import show

NAME = "profile"
HELP = "take some training steps of a recipe and tell where the time goes"
EXAMPLES = """examples:
  segreg profile recipes/isic_v3plus.yaml
  segreg profile recipes/isic_v3plus.yaml train.workers=4 --steps 50
  segreg profile recipes/isic_v3plus.yaml --trace /tmp/trace.json --json

The steps are those of `segreg run`, on the recipe's own images; some validation batches and a checkpoint follow.
Nothing stays behind but a trace of PyTorch's operators, which https://ui.perfetto.dev and chrome://tracing show.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="RECIPE|key.path=value", help="a recipe file, and overrides")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps to measure (20)")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="where the trace goes (traces/RECIPE.json)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    file, overrides = one_file(chosen.words, NAME, "recipes/isic_v3plus.yaml")
    if chosen.steps < 1:
        raise SegregError(f"--steps must be above 0, not {chosen.steps}")

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler tells the terminal about itself otherwise

    from segreg.config.resolve import read_resolved
    from segreg.runs.profile import profile

    recipe = read_resolved(file, overrides)
    trace = chosen.trace or Path("traces") / f"{Path(file).stem}.json"
    if trace.is_dir():
        raise SegregError(f"--trace {trace}: is a folder; name a file")
    shown = shown_progress(quiet=chosen.json)
    found = profile(recipe, trace=trace, steps=chosen.steps, progress=shown)
    if chosen.json:
        print_json(found.plain())
    else:
        show(*found.lines())
    return 0
