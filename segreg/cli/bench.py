"""`segreg bench RECIPE --vary encoder=a,b`: trains models side by side and compares quality and cost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segreg.cli.common import add_figures, check_folder, check_least, one_file, print_json, shown_progress
from segreg.cli.compare import add_output, add_rounds, is_quiet, print_comparison
from segreg.errors import SegregError, did_you_mean, listed
from segreg.runtime.layout import show
from segreg.settings import format_value

NAME = "bench"
HELP = "train backbones (or anything else) side by side and compare quality and cost"
EXAMPLES = """examples:
  segreg bench recipes/isic_v3plus.yaml --vary encoder=resnet18,timm/convnext_tiny --seeds 3 --epochs 20
  segreg bench recipes/isic_v3plus.yaml --vary encoder=resnet18,resnet50 --vary loss=dice_bce,lovasz --jobs 2
  segreg bench recipes/isic_v3plus.yaml --vary encoder=resnet18,resnet50 --folds 5      every image is scored
  segreg bench bench.yaml                          a bench file: recipe, vary, exclude, seeds, folds, budget, baseline
  segreg bench bench.yaml --check                  look at all of it and train nothing
  segreg bench bench.yaml --executor ray --resources cpus=4,gpus=1

Every combination is an ordinary run, with the same seeds, folds and budget. Before the first one begins, all are
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
    parser.add_argument("--seeds", metavar="N", help="how many seeds, from 0 on (1), or which: 7,11 or [7]")
    parser.add_argument("--folds", type=int, metavar="N", help="train on all but one of N folds, each left out once")
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
    add_rounds(parser)
    parser.add_argument("--again", action="store_true", help="try runs that failed again")
    parser.add_argument("--check", action="store_true", help="check everything and train nothing")
    add_output(parser)


def execute(chosen: argparse.Namespace) -> int:
    check_least(chosen, 1, "jobs", most=1_024)
    check_least(chosen, 0, "retries", "rounds", most=1_000)
    if chosen.executor == "ray" and chosen.jobs > 1:
        raise SegregError("--jobs goes with --executor local", hint="a cluster runs as many as --resources let it")

    from segreg.benchmark.bench.plan import combination, plan_of, seeds_of
    from segreg.config.recipe import COMMAND_LINE

    file, overrides = one_file(chosen.words, NAME, "recipes/isic_v3plus.yaml", what="recipe or bench file")
    plan, name = plan_of(
        file, overrides, vary=_axes(chosen.vary), exclude=[combination(text) for text in chosen.exclude],
        seeds=seeds_of(chosen.seeds) if chosen.seeds else None, folds=chosen.folds,
        budgets={"epochs": chosen.epochs, "steps": chosen.steps, "minutes": chosen.minutes},
        baseline=combination(chosen.baseline) if chosen.baseline else None, metric=chosen.metric or "",
        place=COMMAND_LINE,
    )  # fmt: skip

    from segreg.registry.registry import load_registry

    registry = load_registry()
    out = chosen.out or Path("benches") / name
    check_folder(out)
    check_folder(chosen.figures, "--figures")

    from segreg.benchmark.bench.bench import bench, look, skipped
    from segreg.benchmark.bench.folder import BenchFolder
    from segreg.benchmark.bench.known import trials_in

    silent = is_quiet(chosen)
    shown = shown_progress(quiet=silent)
    folder = BenchFolder(out)
    resources = _resources(chosen.resources)
    if resources and chosen.executor == "local":
        raise SegregError("--resources goes with --executor ray")
    trials = trials_in(folder, plan, registry, shown)
    if chosen.check:
        models, wrong = len({one.key for one in trials}), look(plan, trials, folder, jobs=chosen.jobs, progress=shown)
        notes = [] if chosen.again else skipped(trials, folder)
        if chosen.json:
            print_json({"models": models, "runs": len(trials), "wrong": wrong, "notes": notes})
        else:
            show(*notes, *wrong, f"{models - len(wrong)} of {models} models are fine, {len(trials)} runs in all")
        return 1 if wrong else 0

    from segreg.reports.comparison import write_comparison

    comparison, images = bench(
        plan, trials, folder, jobs=chosen.jobs, executor=chosen.executor, resources=resources,
        retries=chosen.retries, rounds=chosen.rounds, again=chosen.again, progress=shown, stream=sys.stderr,
        mode="quiet" if silent else "auto",
    )  # fmt: skip
    write_comparison(comparison, folder.path, images)
    if chosen.figures is not None:
        from segreg.reports.figures import comparison_figures

        comparison_figures(comparison, chosen.figures)
    closing = [f"everything is in {out}; look at {out / 'report.html'}"]
    closing += [f"figures for a paper are in {chosen.figures}"] if chosen.figures is not None else []
    print_comparison(comparison, chosen, *closing)
    return 1 if comparison.failures else 0


def _axes(words: Sequence[str]) -> dict[str, list[Any]]:
    from segreg.benchmark.bench.plan import axis

    found: dict[str, list[Any]] = {}
    for path, values in map(axis, words):
        if path in found:
            raise SegregError(f'--vary names "{path}" twice', hint="give all of its values at once")
        found[path] = values
    return found


def _resources(text: str | None) -> dict[str, float]:
    from segreg.benchmark.bench.plan import combination
    from segreg.benchmark.bench.ray import MOST, RESOURCES

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
