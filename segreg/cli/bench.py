"""`segreg bench RECIPE --vary encoder=a,b`: trains models side by side and compares quality and cost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.cli.common import add_figures, add_wide, check_folder, check_least, one_file, print_json
from segreg.cli.compare import FORMATS, print_table
from segreg.errors import SegregError, did_you_mean, listed
from segreg.runtime.layout import show

if TYPE_CHECKING:
    from segreg.benchmark.bench.plan import Plan

NAME = "bench"
HELP = "train backbones (or anything else) side by side and compare quality and cost"
EXAMPLES = """examples:
  segreg bench recipes/isic_v3plus.yaml --vary encoder=resnet18,timm/convnext_tiny --seeds 3 --epochs 20
  segreg bench recipes/isic_v3plus.yaml --vary encoder=resnet18,resnet50 --vary loss=dice_bce,lovasz --jobs 2
  segreg bench bench.yaml                          a bench file: recipe, vary, exclude, seeds, budget, baseline
  segreg bench bench.yaml --check                  look at all of it and train nothing
  segreg bench bench.yaml --executor ray --resources cpus=4,gpus=1

Every combination is an ordinary run, with the same seeds and the same budget. Before the first one begins, all are
checked: they resolve, their networks are built, take a training step and go into memory. The folder gets results.csv,
results.json and report.html. The same command continues where a bench was stopped; runs that failed need --again.
The exit status is 1 if a run failed.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="FILE|key.path=value", help="a recipe or bench file, and overrides")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="PATH=V,V", help="a recipe's setting and its values; repeatable"
    )
    parser.add_argument("--exclude", action="append", default=[], metavar="PATH=V,...", help="a combination not to run")
    parser.add_argument("--seeds", metavar="N", help="how many seeds (1), or which: 7,11")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--epochs", type=int, metavar="N", help="budget of each run in epochs")
    budget.add_argument("--steps", type=int, metavar="N", help="budget in optimizer steps, rounded up to epochs")
    budget.add_argument("--minutes", type=float, metavar="M", help="budget in minutes of training")
    parser.add_argument("--baseline", metavar="PATH=V,...", help="what the others are compared with (the first)")
    parser.add_argument("--metric", metavar="NAME", help="to compare by (the first of the recipe, mean over images)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the bench's folder (benches/NAME)")
    add_figures(parser)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time, on the GPUs there are")
    parser.add_argument("--executor", choices=("local", "ray"), default="local", help="ray sends runs to a Ray cluster")
    parser.add_argument("--resources", metavar="NAME=X,...", help="of a cluster, for each run: cpus, gpus, memory_gib")
    parser.add_argument("--retries", type=int, default=2, metavar="N", help="for runs whose cluster worker is lost (2)")
    rounds = parser.add_mutually_exclusive_group()
    rounds.add_argument("--rounds", type=int, default=3, metavar="N", help="of measuring costs, at most (3)")
    rounds.add_argument("--no-cost", dest="rounds", action="store_const", const=0, help="measure no costs")
    parser.add_argument("--again", action="store_true", help="try runs that failed again")
    parser.add_argument("--check", action="store_true", help="check everything and train nothing")
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    add_wide(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--format", choices=FORMATS, default="table", help="of what is printed: a table for a paper, and nothing else"
    )
    what.add_argument("--json", action="store_true", help="print results.json, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    check_least(chosen, 1, "jobs", most=1_024)
    check_least(chosen, 0, "retries", "rounds", most=1_000)
    plan, name = _plan(chosen)

    from segreg.registry.registry import load_registry

    registry = load_registry()
    out = chosen.out or Path("benches") / name
    check_folder(out)
    check_folder(chosen.figures, "--figures")

    from segreg.benchmark.bench.bench import bench, skipped
    from segreg.benchmark.bench.costs import check
    from segreg.benchmark.bench.folder import BenchFolder
    from segreg.benchmark.bench.trials import trials_of
    from segreg.runtime.lock import locked_folder
    from segreg.runtime.progress import progress

    silent = chosen.quiet or chosen.json or chosen.format != "table"
    shown = progress("quiet" if silent else "auto", sys.stderr)
    folder = BenchFolder(out)
    resources = _resources(chosen.resources)
    trials = trials_of(plan, registry)
    if chosen.check:  # writes nothing, so that what it finds today says nothing of a bench tomorrow
        ahead = [trial for trial in trials if folder.state(trial) != "finished"]
        titles, models = {trial.key: trial.model for trial in ahead}, len({trial.key for trial in trials})
        wrong = [f"{titles[key]}: {reason}" for key, reason in check(ahead, jobs=chosen.jobs, progress=shown) if reason]
        summary = f"{models - len(wrong)} of {models} models are fine, {len(trials)} runs in all"
        show(*([] if chosen.again else skipped(trials, folder)), *wrong, summary)
        return 1 if wrong else 0

    from segreg.benchmark.comparison.text import format_comparison
    from segreg.reports.comparison import write_comparison
    from segreg.runtime.files import finite

    folder.make()
    with locked_folder(folder.path, "bench"):
        comparison, images = bench(
            plan, trials, folder, jobs=chosen.jobs, executor=chosen.executor, resources=resources,
            retries=chosen.retries, rounds=chosen.rounds, again=chosen.again, progress=shown, stream=sys.stderr,
            mode="quiet" if silent else "auto",
        )  # fmt: skip
        write_comparison(comparison, folder.path, images)
    if chosen.figures is not None:
        from segreg.reports.figures import comparison_figures

        comparison_figures(comparison, chosen.figures)
    if chosen.json:
        print_json(finite(comparison.as_data()))
    elif chosen.format != "table":
        print_table(comparison, chosen.format)
    else:
        closing = ["", f"everything is in {out}; look at {out / 'report.html'}"]
        closing += [f"figures for a paper are in {chosen.figures}"] if chosen.figures is not None else []
        show(*format_comparison(comparison), *closing, wide=chosen.wide)
    return 1 if comparison.failures else 0


def _plan(chosen: argparse.Namespace) -> tuple[Plan, str]:
    """Return the plan of the command line or of a bench file, and what to call it."""
    import dataclasses

    from segreg.benchmark.bench.plan import (
        Plan,
        axis,
        budget,
        checked,
        combination,
        is_bench_file,
        plan_of_file,
        seeds_of,
    )
    from segreg.config.recipe import COMMAND_LINE, read_recipe

    named, overrides = one_file(chosen.words, NAME, "recipes/isic_v3plus.yaml", what="recipe or bench file")
    file = Path(named)
    read = read_recipe(file) if file.exists() or file.suffix in (".yaml", ".yml") else None
    plan = plan_of_file(read) if read is not None and is_bench_file(read) else Plan(file, {})
    vary = dict(plan.vary)
    for text in chosen.vary:
        path, values = axis(text)
        if path in vary and plan.vary.get(path) is None:
            raise SegregError(f'--vary names "{path}" twice', hint="give all of its values at once")
        vary[path] = values
    changes: dict[str, Any] = {"vary": vary, "change": [*plan.change, *overrides]}
    changes["exclude"] = [*plan.exclude, *map(combination, chosen.exclude)]
    if chosen.seeds:
        changes["seeds"] = seeds_of(chosen.seeds)
    for unit in ("epochs", "steps", "minutes"):
        if getattr(chosen, unit) is not None:
            changes["budget"] = budget(unit, getattr(chosen, unit), COMMAND_LINE)
    if chosen.baseline:
        changes["baseline"] = combination(chosen.baseline)
    if chosen.metric:
        changes["metric"] = chosen.metric
    return checked(dataclasses.replace(plan, **changes), COMMAND_LINE), file.stem


def _resources(text: str | None) -> dict[str, float]:
    from segreg.benchmark.bench.plan import combination
    from segreg.benchmark.bench.ray import MOST, RESOURCES
    from segreg.settings import format_value

    if not text:
        return {}
    found = combination(text)
    for name, value in found.items():
        if name not in RESOURCES:
            hint = did_you_mean(name, RESOURCES) or f"there are {listed(RESOURCES)}"
            raise SegregError(f'--resources has no "{name}"', hint=hint)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
            raise SegregError(f"--resources: {name} must be a number, {MOST:,} at most, not {format_value(value)}")
    return {name: float(value) for name, value in found.items()}
