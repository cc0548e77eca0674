"""`segreg runs`: which runs there are, how far each came and what it reached."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.cli.common import add_wide, print_json
from segreg.errors import SegregError
from segreg.runtime.layout import complain, show

if TYPE_CHECKING:
    from segreg.runs.listing import KnownRun

NAME = "runs"
HELP = "list runs with their settings and scores, sorted and filtered"
EXAMPLES = """examples:
  segreg runs                                            all below the folder runs, the oldest first
  segreg runs bench/runs --sort=-dice.pooled             the best first: a minus turns the order round
  segreg runs --where encoder=resnet* 'dice.pooled>0.8' state=finished
  segreg runs --columns run encoder train.batch_size dice.pooled val.dice.pooled
  segreg runs --where 'begun>=2026-01-31' --json
  segreg runs --prune                                    free the space of what only resuming finished runs needs

Names are those of columns (run, recipe, begun, changed, state, epochs, score, duration, size), of metrics
(dice.pooled is that of the split that was scored, val.dice.pooled that of validation) and of settings by their path in
the recipe (encoder, encoder.weights, train.batch_size, loss.dice.weight). score is the first metric. duration is
compared in seconds, size in bytes. A state is finished, interrupted (by Ctrl-C), unfinished (killed, or still running:
the files don't tell; changed says when they were last written) or broken. segreg run --resume RUN continues with one.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="where to look for runs (runs)")
    parser.add_argument("--sort", metavar="NAME", default="begun", help="by what; --sort=-NAME for downwards (begun)")
    parser.add_argument(
        "--where", nargs="+", action="extend", metavar="EXPR", default=[],
        help="only runs that meet all of these: NAME=VALUE with wildcards, and != < <= > >=",
    )  # fmt: skip
    parser.add_argument("--columns", nargs="+", metavar="NAME", default=[], help="what to tell of each run")
    add_wide(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="print all that is known of each run as JSON, nothing else")
    what.add_argument(
        "--prune",
        action="store_true",
        help="delete state.pt of finished runs, which only training on needs; asks first",
    )
    parser.add_argument("--yes", action="store_true", help="with --prune: don't ask")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.runs.listing import find_runs, read_run
    from segreg.runs.table import SHOWN, as_data, check_names, condition, kept, notes, ordered, table

    conditions = [condition(text) for text in chosen.where]
    folders = chosen.folders or [Path("runs")]
    every = [read_run(path) for path in find_runs(folders)]
    check_names(chosen.columns, every)
    runs = ordered(kept(every, conditions), chosen.sort)
    if chosen.json:
        print_json([as_data(run) for run in runs])
        return 0
    columns = chosen.columns or list(SHOWN)
    if not every:
        raise SegregError(f"there are no runs in {', '.join(map(str, folders))}", hint="segreg run makes them")
    if chosen.prune:
        return _prune(runs, yes=chosen.yes)
    if not runs:
        print(f"none of {len(every)} runs meets {' '.join(chosen.where)}")
    else:
        below = notes(runs) if sys.stdout.isatty() else []
        show(table(runs, columns, asked=bool(chosen.columns)), *below, wide=chosen.wide)
    for run in runs:
        for problem in run.problems:
            complain(f"{run.directory.path}: {problem}")
    return 0


def _prune(runs: Sequence[KnownRun], *, yes: bool) -> int:
    """List the training states of finished runs, and delete them once that is confirmed."""
    from segreg.runs.listing import prunable, prune
    from segreg.runs.table import format_size

    files = prunable(runs)
    if not files:
        print("no finished run has a state.pt")
        return 0
    for file, count in files.items():
        print(f"{format_size(count):>9}  {file}")
    print(f"{format_size(sum(files.values())):>9}  in {len(files)} finished runs, which can't be resumed without it")
    if not yes:
        if not sys.stdin.isatty():
            print("nothing was deleted; --yes deletes them")
            return 0
        if input("Delete? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 0
    prune(files)
    print(f"deleted {len(files)} files")
    return 0
