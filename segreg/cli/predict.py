"""`segreg predict RUN IMAGES...`: masks, probabilities and overlays of any images."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.cli.common import add_device, add_views, check_least, print_json, scales_of, shown_progress, tile_of
from segreg.errors import SegregError, plural
from segreg.registry.compatibility import DISTRIBUTION
from segreg.runtime.layout import Block, banners

if TYPE_CHECKING:
    from segreg.inference.inputs import ImageFile
    from segreg.inference.predictions import Summary
    from segreg.inference.predictor import Predictor
    from segreg.inference.writer import Kind
    from segreg.runs.trained_run import Run

NAME = "predict"
HELP = "predict images with a run's network, or with several runs' together"
EXAMPLES = """examples:
  segreg predict runs/isic_v3plus/2026-01-31_12-00-00 photos --out predicted
  segreg predict RUN photo.jpg more/*.png 'deep/**/*.tif' --out predicted --overlays --probabilities
  segreg predict RUN photos --out predicted --tile 512x512 --overlap 0.25
  segreg predict RUN photos --out predicted --flips mirror --scales 0.5,0.75,1,1.25,1.5,1.75
  segreg predict RUN photos --out predicted --colours colours.yaml --coloured
  segreg predict RUN photos --out predicted --strips --masks true_masks    image | truth | prediction | outlines
  segreg predict RUN photos --out predicted --as coco-polygons             annotations for a labelling program
  segreg predict RUN1 RUN2 RUN3 --images photos --out predicted    the mean of three runs
  segreg predict benches/isic_v3plus photos --out predicted    the mean of all folds and seeds of a bench's model
  segreg predict RUN photos --out predicted --min-area 50 --fill-holes 50      without specks and pinholes

Masks are 8-bit PNGs at each image's own size, in OUT/masks: 0 and 255 for one class, class indices for several, and
for classes that may overlap a folder for each. Of georeferenced rasters (GeoTIFF, VRT) they are GeoTIFFs of class
indices with the same CRS and transform. The folders of the images are kept below OUT. An image that is broken is named,
and the rest continue; the exit status is then 1. OUT/prediction.json says what was predicted and how.
"""
_FLAGS: tuple[tuple[Kind, str], ...] = (
    ("probabilities", "also probabilities, float16 [K, H, W] in .npy files"),
    ("coloured", "also masks in the classes' colours"),
    ("overlays", "also the images with each class tinted and outlined"),
    (
        "strips",
        "also image, prediction and overlay side by side, or with --masks image, truth, prediction and outlines",
    ),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="RUN|IMAGE", help="runs or benches, and what to predict")
    parser.add_argument("--images", nargs="+", default=[], metavar="IMAGE", help="files, folders and wildcards")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is predicted")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="of which epoch (best)")
    for kind, meaning in _FLAGS:
        parser.add_argument(f"--{kind}", action="append_const", dest="kinds", const=kind, help=meaning)
    parser.add_argument(
        "--as",
        action="append",
        choices=("coco-rle", "coco-polygons", "yolo"),
        default=[],
        dest="forms",
        help="also annotations; may be given several times",
    )
    parser.add_argument("--masks", type=Path, metavar="DIR", help="true masks for --strips, paired by name")
    parser.add_argument("--mask-suffix", metavar="TEXT", help="what masks' names have behind those of the images")
    parser.add_argument("--mask-ignored", type=int, metavar="N", help="mask value of pixels that count for nothing")
    parser.add_argument(
        "--values", choices=("index", "255"), help="of PNG masks: class indices, or 0 and 255; GeoTIFFs have indices"
    )
    parser.add_argument(
        "--bands", metavar="N,N|NAME,NAME", help="bands of GeoTIFF and VRT, from 1 or by name (those of the run's data)"
    )
    parser.add_argument("--colours", type=Path, metavar="FILE", help="YAML or JSON: class: [r, g, b] or '#rrggbb'")
    parser.add_argument("--threshold", type=float, help="probability from which a pixel is foreground (the recipe's)")
    for option, meaning in (("--min-area", "drop regions"), ("--fill-holes", "fill holes")):
        parser.add_argument(option, type=int, default=0, metavar="PIXELS", help=f"{meaning} of fewer pixels (0)")
    parser.add_argument(
        "--tile",
        metavar="HxW|auto|whole",
        help="predict larger images, at their own size, in tiles of this one (the recipe's evaluate.tile)",
    )
    parser.add_argument("--overlap", type=float, help="share of a tile that the next one covers too (the recipe's)")
    add_views(parser)
    parser.add_argument("--batch-size", type=int, default=8, help="images, or tiles, looked at together (8)")
    add_device(parser, precision="precision of the network (as in the run's scoring)")
    parser.add_argument("--skip-existing", action="store_true", help="leave out images that are predicted already")
    parser.add_argument("--quiet", action="store_true", help="print nothing but what went wrong")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    from segreg.data.rasters import INSTALL, installed
    from segreg.inference.cleaning import Cleaning
    from segreg.inference.inputs import find_images, find_masks
    from segreg.inference.predictor import InferenceConfig, common_config, common_threshold, takes_any_size
    from segreg.inference.writer import KINDS, Outputs

    check_least(chosen, 0, "min_area", "fill_holes")
    runs, images = _runs_and_images(chosen)
    _refuse_lone_masks(chosen)
    asked: dict[str, Any] = {"overlap": chosen.overlap, "flips": chosen.flips, "batch_size": chosen.batch_size}
    asked = {name: value for name, value in asked.items() if value is not None}
    if chosen.tile is not None:
        asked["tile"] = tile_of(chosen.tile)
    if chosen.scales is not None:
        asked["scales"] = scales_of(chosen.scales)
    InferenceConfig(**asked)  # so that what is out of range is refused before anything is loaded
    input_images = find_images(images, without=[chosen.out / kind for kind in KINDS])
    if chosen.bands is not None and not any(image.raster for image in input_images):
        hint = "" if installed() else INSTALL + " reads them"
        raise SegregError("--bands goes with georeferenced GeoTIFF and VRT, and none of these images is one", hint=hint)

    from segreg.runtime.device import prepare_process
    from segreg.visualize.colours import read_colours

    prepare_process()
    predictors = [run.predictor(chosen.weights, device=chosen.device, precision=chosen.precision) for run in runs]
    if chosen.bands is not None:
        words = [word.strip() for word in chosen.bands.split(",")]
        bands = tuple(int(word) if word.isdecimal() else word for word in words)
        predictors = [dataclasses.replace(predictor, bands=bands) for predictor in predictors]
    config = common_config(predictors, **asked)
    if chosen.overlap is not None and not takes_any_size(predictors, config):
        raise SegregError("--overlap goes with --tile", hint="for example: --tile 512x512")
    task = predictors[0].task
    truths = None
    if chosen.masks is not None:
        suffix, ignored = chosen.mask_suffix or "", chosen.mask_ignored
        truths = find_masks(input_images, chosen.masks, task, suffix=suffix, ignored=ignored)
    outputs = Outputs.of(
        chosen.out, task, chosen.kinds or (), values=chosen.values,
        colours=None if chosen.colours is None else read_colours(chosen.colours, task),
        notices=[run.notice for run in runs], truths=truths,
        cleaning=Cleaning(chosen.min_area, chosen.fill_holes),
    )  # fmt: skip

    from segreg.inference.predictions import predict_files

    common_threshold(predictors, chosen.threshold)
    shown = shown_progress(quiet=chosen.quiet or chosen.json, stream=sys.stdout)
    for line in [*_header(predictors, outputs.notice), *_own_reading(runs), *_without_rasterio(input_images)]:
        shown.say(line)
    summary = predict_files(
        input_images, predictors, outputs, config,
        threshold=chosen.threshold, progress=shown, existing="skip" if chosen.skip_existing else "replace",
    )  # fmt: skip
    annotations = {}
    if chosen.forms:
        from segreg.inference.annotations import write_annotations

        failed = {image.name for image, _ in summary.failed}
        there = [image for image in input_images if image.name not in failed]
        annotations = {form: str(write_annotations(form, there, outputs)) for form in dict.fromkeys(chosen.forms)}
    if chosen.json:
        found = {"annotations": annotations} if annotations else {}
        print_json({"out": str(chosen.out), **summary.plain(), **found})
    else:
        for line in [*_without_mask(summary, chosen.masks), _format_summary(summary, outputs.folder)]:
            shown.say(line)
    if summary.failed:
        reasons = [f"  {line}" for _, why in summary.failed for line in why.splitlines()]
        count = f"{len(summary.failed)} of {plural(len(input_images), 'image')} could not be predicted:"
        print("\n".join([count, *reasons]), file=sys.stderr)
    return 1 if summary.failed else 0


def _runs_and_images(chosen: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """Return the runs and what to predict; without --images, the words that are runs' or benches' come first."""
    from segreg.benchmark.bench.models import is_bench, is_model, runs_named
    from segreg.runs.load import is_run_name, load_run

    def is_of_bench(word: str) -> bool:
        return not is_run_name(word) and (is_bench(Path(word)) or is_model(Path(word)))

    count = len(chosen.words)
    if not chosen.images:
        is_run = [is_run_name(word) or is_of_bench(word) for word in chosen.words]
        count = max(1, is_run.index(False) if False in is_run else count)
    runs: list[Run] = []
    for word in chosen.words[:count]:
        runs += runs_named(Path(word)) if is_of_bench(word) else [load_run(word)]
    images = [*chosen.words[count:], *chosen.images]
    if not images:
        raise SegregError("name images to predict", hint="for example: segreg predict RUN photos --out predicted")
    return runs, images


def _refuse_lone_masks(chosen: argparse.Namespace) -> None:
    for option, value in (("--mask-suffix", chosen.mask_suffix), ("--mask-ignored", chosen.mask_ignored)):
        if chosen.masks is None and value is not None:
            raise SegregError(f"{option} goes with --masks")
    if chosen.masks is not None and "strips" not in (chosen.kinds or ()):
        raise SegregError("--masks goes with --strips, which show the truth beside the prediction")


def _header(predictors: list[Predictor], notice: str) -> list[Block]:
    first = predictors[0]
    return [
        *banners(notice),
        *(f"run     {predictor.name}" for predictor in predictors),
        f"device  {first.device}, {first.precision.reason}",
    ]


def _own_reading(runs: list[Run]) -> list[str]:
    """Warn if a run's images were read by a package other than segreg, as files named here are not."""
    from segreg.registry.registry import load_registry

    shown = {}
    for run in runs:
        dataset = run.written.values.get("dataset")
        name = str(dataset.get("name") if isinstance(dataset, Mapping) else dataset)
        try:
            plugin = load_registry().find("dataset", name).plugin
            reader = plugin.title if plugin.distribution != DISTRIBUTION else ""
        except SegregError:
            reader = "a plugin that is not installed"
        if reader:
            shown[name] = (
                f'note    trained on images as the dataset "{name}" of {reader} reads them; files '
                "are read by segreg itself, so their bands and values must be the same"
            )
    return list(shown.values())


def _without_rasterio(images: list[ImageFile]) -> list[str]:
    """Return a note if georeferenced images are read without what they say of their place."""
    from segreg.data.rasters import INSTALL, installed, is_georeferenced

    file = None if installed() else next((image.file for image in images if is_georeferenced(image.file)), None)
    return [f"note    {file} is georeferenced, and its mask will not be; {INSTALL} writes a GeoTIFF"] if file else []


def _without_mask(summary: Summary, folder: Path) -> list[str]:
    """Return which images have no true mask, one a line."""
    if not summary.without_mask:
        return []
    several = len(summary.without_mask) > 1
    images = f"{len(summary.without_mask)} image{'s have' if several else ' has'} no mask in {folder}, and"
    return [f"{images} {'their strips show' if several else 'its strip shows'} no truth:",
            *(f"  {image.file}" for image in summary.without_mask)]  # fmt: skip


def _format_summary(summary: Summary, folder: Path) -> str:
    words = [f"{plural(len(summary.predicted), 'image')} predicted"]
    if summary.skipped:
        words.append(f"{len(summary.skipped)} left out, because they were there")
    if summary.failed:
        words.append(f"{len(summary.failed)} failed")
    return f"{', '.join(words)}; everything is in {folder}"
