"""`segreg best BENCH`: which model of a bench, or which pair, is best, and the command that predicts with it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from segreg.cli.common import add_device, print_json, shown_progress
from segreg.runtime.layout import show

NAME = "best"
HELP = "say which model or pair of models of a bench is best, how sure that is, and how to predict with it"
EXAMPLES = """examples:
  segreg bench recipes/isic_v3plus.yaml --vary encoder=resnet18,resnet50 --folds 5
  segreg best benches/isic_v3plus
  segreg best benches/isic_v3plus --json

Every image is predicted by networks that were not trained on it: with --folds all images, otherwise the validation
split. A pair is the mean of two models' probabilities. The images are resampled, whole groups together, to see how
often each wins. Whether dropping small regions or filling small holes helps is tried with the best one, and
recommended where the paired 95% interval excludes 0. Test images have no part in any of it.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bench", type=Path, metavar="BENCH", help="the folder of a bench")
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.benchmark.bench.best import best_of, format_choice
    from segreg.runtime.device import prepare_process

    prepare_process()
    choice = best_of(chosen.bench, device=chosen.device, progress=shown_progress(quiet=chosen.quiet or chosen.json))
    if chosen.json:
        print_json(asdict(choice))
    else:
        show(*format_choice(choice))
    return 0
