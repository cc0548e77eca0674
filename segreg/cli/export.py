"""`segreg export RUN`: a run's network as a file of another runtime, with proof that it predicts the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from segreg.cli.common import check_least, one_file, print_json, shown_progress, tile_of
from segreg.errors import SegregError
from segreg.runtime.layout import show

NAME = "export"
HELP = "write a run's network for ONNX Runtime, OpenVINO or torch.export, and prove it"
EXAMPLES = """examples:
  segreg export runs/isic_v3plus/2026-01-31_12-00-00                 ONNX, in RUN/exports/onnx_float32
  segreg export RUN --labels                                         returns class maps instead of logits
  segreg export RUN --format openvino --precision int8               8-bit, by NNCF with accuracy control
  segreg export RUN --format openvino --precision bf16
  segreg export RUN --format torch --out exported
  segreg export RUN --any-size                                       images of other sizes than the recipe's too
  segreg export RUN --tile 512x512                                   of a network that was trained on crops
  segreg export RUN --format onnx opset=20
  segreg export RUN --format bundle --out lesions.zip                predicts without segreg and PyTorch
  segreg predict RUN/exports/onnx_float32 photos --out predicted     what takes a run takes an export

The file takes images as they are, uint8 or the data's own depth: normalisation is inside. Beside it network.json says
what a program needs: classes, colours, sizes, threshold, scores with intervals, where it comes from. Every export is
compared with PyTorch on the run's validation images; one that predicts something else is refused.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="+", metavar="RUN|key=value", help="the directory of a run, and settings of the format"
    )
    parser.add_argument(
        "--format", default="onnx", metavar="NAME", help="onnx, openvino, torch, bundle, or a plugin's (onnx)"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16", "float16", "int8"),
        default="float32",
        help="of the network (float32)",
    )
    parser.add_argument("--labels", action="store_true", help="return labels instead of logits")
    parser.add_argument(
        "--tile", metavar="HxW", help="the one size that the network takes; larger images are predicted in tiles of it"
    )
    parser.add_argument("--any-size", action="store_true", help="take images of any size, where the network can")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="of which epoch (best)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder to write (in RUN/exports)")
    parser.add_argument(
        "--images", type=int, default=500, metavar="N", help="validation images to compare on, at most (500)"
    )
    parser.add_argument(
        "--calibration", type=int, default=300, metavar="N", help="training images for int8, at most (300)"
    )
    parser.add_argument(
        "--most-lost", type=float, default=0.01, metavar="X", help="how much worse int8 may make a metric (0.01)"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but what went wrong")
    parser.add_argument("--json", action="store_true", help="print the sidecar with the proof as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.runs.load import load_run

    name, settings = one_file(chosen.words, NAME, "RUN", what="run")
    check_least(chosen, 1, "images", "calibration")
    if not 0 < chosen.most_lost < 1:
        raise SegregError(f"--most-lost must be above 0 and below 1, not {chosen.most_lost:g}")
    tile = None if chosen.tile is None else tile_of(chosen.tile)
    if tile == "auto":
        raise SegregError("--tile of an export is a size, for example: --tile 512x512")
    run = load_run(name)

    from segreg.config.recipe import Recipe
    from segreg.runs.bundle import write_bundle
    from segreg.runs.export_run import ExportRequest, export_run, format_export
    from segreg.runtime.device import prepare_process

    prepare_process()
    of_format = Recipe({}, source="export").changed(settings).values
    request = ExportRequest(
        format=chosen.format, settings=of_format, precision=chosen.precision, labels=chosen.labels,
        tile=tile, any_size=chosen.any_size, weights=chosen.weights, out=chosen.out, images=chosen.images,
        calibration=chosen.calibration, most_lost=chosen.most_lost,
    )  # fmt: skip
    shown = shown_progress(quiet=chosen.quiet or chosen.json, stream=sys.stdout)
    if chosen.format == "bundle":
        out, exported, proof = write_bundle(run, request, shown)
    else:
        exported, proof = export_run(run, request, shown)
        out = exported.weights_file()
    if chosen.json:
        print_json({"out": str(out), **exported.sidecar})
    elif not chosen.quiet:
        show(*format_export(exported, proof, out))
    return 0
