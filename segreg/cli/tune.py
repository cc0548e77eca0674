"""`segreg tune RECIPE --search optimizer.lr=log:1e-5..1e-2`: searches for the recipe that is best on validation."""

from __future__ import annotations

import argparse
from pathlib import Path

from segreg.cli.common import add_wide, check_folder, check_least, one_file, print_json, shown_progress
from segreg.runtime.layout import show

NAME = "tune"
HELP = "search for the settings that are best on the validation images"
EXAMPLES = """examples:
  segreg tune recipe.yaml --search optimizer.lr=log:1e-5..1e-2 --trials 20 --epochs 10
  segreg tune recipe.yaml --search optimizer.lr=log:1e-5..1e-2 --search loss=dice_bce,lovasz --minutes 60
  segreg tune recipe.yaml --search encoder=resnet18,resnet34 --search train.batch_size=int:4..16 --sampler random
  segreg tune recipe.yaml --search augment=[],[HorizontalFlip] --check      look at all of it and train nothing

Every trial is an ordinary run, compared by the recipe's train.monitor on the validation images; test images are not
scored. A trial that is worse after an epoch than the median of the others is stopped there. The folder gets best.yaml,
results.json and report.html. The same command continues where a tune was stopped or killed, and started twice, both
work on it. It needs Optuna: pip install 'segreg-toolkit[tune]'
"""
TRIALS = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="RECIPE|key.path=value", help="a recipe, and overrides")
    parser.add_argument(
        "--search", action="append", default=[], metavar="PATH=VALUES",
        help="a setting and its values: 0.1..0.5, log:1e-5..1e-2, int:1..8, or a,b,c; repeatable",
    )  # fmt: skip
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--trials", type=int, metavar="N", help=f"how many trials in all ({TRIALS})")
    budget.add_argument("--minutes", type=float, metavar="M", help="no trial begins after M minutes of training in all")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of each trial (the recipe's)")
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe", help="what proposes trials (tpe)")
    parser.add_argument(
        "--pruning", choices=("median", "none"), default="median", help="what stops trials early (median)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the tune's folder (tunes/NAME)")
    parser.add_argument("--check", action="store_true", help="check everything and train nothing")
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    add_wide(parser)
    parser.add_argument("--json", action="store_true", help="print results.json, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    for name, most in (("trials", 100_000), ("epochs", 1_000_000)):
        if getattr(chosen, name) is not None:
            check_least(chosen, 1, name, most=most)
    if chosen.minutes is not None:
        check_least(chosen, 0.01, "minutes", most=10_000_000)

    from segreg.benchmark.tune.space import axes_of
    from segreg.benchmark.tune.study import require_optuna

    file, overrides = one_file(chosen.words, NAME, "recipes/isic_v3plus.yaml")
    axes = axes_of(chosen.search)
    require_optuna()

    from segreg.config.recipe import read_recipe
    from segreg.registry.registry import load_registry

    recipe, registry = read_recipe(file, overrides), load_registry()
    out = chosen.out or Path("tunes") / Path(file).stem
    check_folder(out)

    from segreg.benchmark.tune.plan import TunePlan
    from segreg.benchmark.tune.tune import TuneBudget, check_models, finish, tune

    plan = TunePlan.of(
        recipe, axes, registry, epochs=chosen.epochs, sampler=chosen.sampler, pruning=chosen.pruning
    )  # fmt: skip
    shown = shown_progress(quiet=chosen.quiet or chosen.json)
    if chosen.check:
        wrong = check_models(plan, shown)
        if chosen.json:
            print_json({"settings": len(axes), "wrong": wrong})
        else:
            show(*wrong, f"{len(axes)} settings resolve with every pair of their values, and every network trains"
                 if not wrong else f"{len(wrong)} of the networks fail")  # fmt: skip
        return 1 if wrong else 0

    from segreg.benchmark.tune.folder import TuneFolder
    from segreg.benchmark.tune.record import format_record
    from segreg.reports.tune import write_tune

    folder = TuneFolder(out)
    budget = TuneBudget("minutes", chosen.minutes) if chosen.minutes else TuneBudget("trials", chosen.trials or TRIALS)
    interrupted = tune(plan, folder, budget, shown)
    record = finish(plan, folder)
    write_tune(record, out)
    if chosen.json:
        print_json(record.as_data())
    else:
        closing = ["", f"everything is in {out}; look at {out / 'report.html'}"]
        show(*format_record(record, folder), *closing, wide=chosen.wide)
    return 130 if interrupted else 0 if record.best is not None else 1
