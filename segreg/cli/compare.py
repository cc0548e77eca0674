"""`segreg compare RUN RUN...`: compares runs that exist, quality and cost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.cli.common import add_figures, add_wide, check_folder, check_least, print_json, shown_progress
from segreg.runtime.layout import show

if TYPE_CHECKING:
    from segreg.benchmark.comparison.record import Comparison
    from segreg.benchmark.comparison.table import Format

FORMATS = ("table", "markdown", "latex", "csv")

NAME = "compare"
HELP = "compare finished runs: quality with its uncertainty, and cost"
EXAMPLES = """examples:
  segreg compare runs/isic_v3plus/*
  segreg compare runs/a/2026-01-31_12-00-00 runs/b/2026-01-31_13-00-00 --metric iou.pooled --baseline resnet50
  segreg compare runs/isic_v3plus/* --format latex > table.tex
  segreg compare runs/isic_v3plus/* --no-cost              quality only

Runs whose recipes differ in nothing but the seed and the fold are one model's. They are compared on the images that all
of them were scored on. DIR gets results.csv, results.json and report.html.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directories of finished runs")
    parser.add_argument("--metric", default="", metavar="NAME", help="to compare by (the first one, mean over images)")
    parser.add_argument("--baseline", default="", metavar="MODEL", help="what the others are compared with (the first)")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("comparison"), help="the folder (comparison)")
    add_figures(parser)
    add_rounds(parser)
    add_output(parser)


def execute(chosen: argparse.Namespace) -> int:
    check_least(chosen, 0, "rounds")
    check_folder(chosen.out)
    check_folder(chosen.figures, "--figures")

    from segreg.benchmark.comparison.runs import compare_runs, run_groups_of
    from segreg.reports.comparison import write_comparison
    from segreg.runs.load import load_run

    shown = shown_progress(quiet=is_quiet(chosen))
    groups = run_groups_of([load_run(path) for path in dict.fromkeys(chosen.runs)])
    comparison, images = compare_runs(
        groups, metric=chosen.metric, baseline=chosen.baseline, rounds=chosen.rounds, progress=shown
    )
    files = write_comparison(comparison, chosen.out, images)
    if chosen.figures is not None:
        from segreg.reports.figures import comparison_figures

        files += comparison_figures(comparison, chosen.figures)
    print_comparison(comparison, chosen, *(f"wrote {file}" for file in files))
    return 0


def add_rounds(parser: argparse.ArgumentParser) -> None:
    rounds = parser.add_mutually_exclusive_group()
    rounds.add_argument("--rounds", type=int, default=3, metavar="N", help="of measuring costs, at most (3)")
    rounds.add_argument("--no-cost", dest="rounds", action="store_const", const=0, help="measure no costs")


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    add_wide(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--format", choices=FORMATS, default="table", help="of what is printed: a table for a paper, and nothing else"
    )
    what.add_argument("--json", action="store_true", help="print results.json, nothing else")


def is_quiet(chosen: argparse.Namespace) -> bool:
    """Whether nothing but the comparison is printed."""
    return bool(chosen.quiet or chosen.json or chosen.format != "table")


def print_comparison(comparison: Comparison, chosen: argparse.Namespace, *closing: str) -> None:
    """Print a comparison as it was asked for; the lines of `closing` below the table."""
    from segreg.benchmark.comparison.text import format_comparison

    if chosen.json:
        print_json(comparison.as_data())
    elif chosen.format != "table":
        print_table(comparison, chosen.format)
    else:
        show(*format_comparison(comparison), "", *closing, wide=chosen.wide)


def print_table(comparison: Comparison, form: Format) -> None:
    """Print the table for a paper; what must not be overlooked beside a CSV goes to standard error."""
    from segreg.benchmark.comparison.table import remarks_of, write_table

    print(write_table(comparison, form))
    if form == "csv":
        for remark in remarks_of(comparison):
            print(f"note: {remark}", file=sys.stderr)
