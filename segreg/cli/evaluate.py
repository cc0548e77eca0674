"""`segreg evaluate RUN`: scores a run's network on a split or on other data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Literal

from segreg.cli.common import add_device, add_views, check_folder, one_file, print_json, scales_of, shown_progress
from segreg.errors import SegregError
from segreg.runtime.layout import show

NAME = "evaluate"
HELP = "score a run's network on a split, or on another recipe's data"
EXAMPLES = """examples:
  segreg evaluate runs/isic_v3plus/2026-01-31_12-00-00
  segreg evaluate RUN --split val --resolution original
  segreg evaluate RUN --data other.yaml                all of another recipe's data
  segreg evaluate RUN --data other.yaml --split test   its test split
  segreg evaluate RUN --threshold best                 the one with the best Dice on validation
  segreg evaluate RUN 'evaluate.metrics=[iou, boundary_iou]' input.size=[512,512]
  segreg evaluate RUN decoder.output_stride=8          finer features than it was trained with
  segreg evaluate RUN --flips mirror --scales 0.5,0.75,1,1.25,1.5,1.75
  segreg evaluate RUN --precision float32              exact, where the run computed in bf16 or fp16
  segreg evaluate RUN --as smp --as sklearn            also the numbers that these libraries would print

A folder in RUN/evaluations, or --out, gets metrics.json (scores, definitions, 95% bootstrap intervals over images, what
was scored and how), per_image.csv, its means in per_image_mean.csv, and the worst and best images in worst and best.
Overrides may change the section evaluate, input.size, decoder.output_stride and decoder.rates.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="RUN|key.path=value", help="the directory of a run, and overrides")
    parser.add_argument("--split", metavar="SPLIT", help="train, val or test (test; all of other data)")
    parser.add_argument("--data", type=Path, metavar="RECIPE", help="score on this recipe's data set instead")
    parser.add_argument("--resolution", choices=("input", "original"), help="at which size masks are compared")
    parser.add_argument("--threshold", metavar="T|best", help="probability from which a pixel is foreground")
    add_views(parser)
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="of which epoch (best)")
    parser.add_argument(
        "--as",
        dest="libraries",
        action="append",
        choices=("smp", "mmseg", "torchmetrics", "sklearn"),
        default=[],
        help="also what this library would print; may be given several times",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (in RUN/evaluations)")
    add_device(parser, precision="precision of the network (as in validation and the run's results; float32 is exact)")
    parser.add_argument("--quiet", action="store_true", help="print the results only")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.config.resolve import read_resolved
    from segreg.runs.load import load_run

    name, overrides = one_file(chosen.words, NAME, "RUN", what="run")
    run = load_run(name)
    if chosen.scales is not None:
        overrides.append(f"evaluate.scales={list(scales_of(chosen.scales))}")
    if chosen.flips is not None:
        overrides.append(f"evaluate.flips={chosen.flips}")
    threshold = _threshold(chosen.threshold)
    check_folder(chosen.out)
    data = read_resolved(chosen.data) if chosen.data is not None else None

    from segreg.runs.evaluate_run import Request, format_evaluation, rescore
    from segreg.runtime.device import prepare_process

    prepare_process()
    request = Request(
        split=chosen.split, data=data, resolution=chosen.resolution, threshold=threshold, weights=chosen.weights,
        overrides=overrides, libraries=tuple(dict.fromkeys(chosen.libraries)), precision=chosen.precision,
        device=chosen.device, out=chosen.out,
    )  # fmt: skip
    evaluation, out = rescore(run, request, shown_progress(quiet=chosen.quiet or chosen.json, stream=sys.stdout))
    if chosen.json:
        print_json({"out": out, **evaluation})
    else:
        show(*format_evaluation(evaluation, out))
    return 0


def _threshold(text: str | None) -> float | Literal["best"] | None:
    if text is None or text == "best":
        return text  # type: ignore[return-value]
    try:
        value = float(text)
    except ValueError:
        raise SegregError(f'--threshold is a number from 0 to 1, or "best", not "{text}"') from None
    if not 0 <= value <= 1:
        raise SegregError(f"the threshold must be from 0 to 1, not {text}")
    return value
