"""`segreg diff RUN RUN`: what two runs differ in, next to the difference in their scores."""

from __future__ import annotations

import argparse
from pathlib import Path

from segreg.cli.common import print_json
from segreg.errors import SegregError
from segreg.runtime.layout import show

NAME = "diff"
HELP = "tell what two runs differ in: recipe, data, versions, machine, training and scores"
EXAMPLES = """examples:
  segreg diff runs/isic_v3plus/2026-01-31_12-00-00 runs/isic_v3plus/2026-02-01_09-30-00
  segreg diff RUN RUN --json

What is equal is not printed. Scores are compared on the images that both runs were scored on, with 95% intervals of
the differences: as many of the images as there are are drawn with replacement, the same for both runs. An interval
that leaves out 0 says that these two networks differ on images of this kind, and nothing of another training's.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", type=Path, metavar="RUN", help="the directory of a run, A in what is printed")
    parser.add_argument("other", type=Path, metavar="RUN", help="the directory of another one, B")
    parser.add_argument("--json", action="store_true", help="print the differences as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.runs.diff import as_data, lines, matters, whole_run
    from segreg.runs.scored import compare_scores

    one, other = whole_run(chosen.one), whole_run(chosen.other)
    if chosen.one.resolve() == chosen.other.resolve():
        raise SegregError(f"{chosen.one} and {chosen.other} are one and the same run", hint="name two runs")
    found = matters(one, other)
    scores = compare_scores(one, other)
    if chosen.json:
        print_json(as_data(one, other, found, scores))
    else:
        show(*lines(one, other, found, scores))
    return 0
