"""`segreg run RECIPE`: trains, scores and leaves a run directory."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from segreg.cli.common import files_and_overrides, one_file, print_json, shown_progress
from segreg.errors import SegregError
from segreg.runtime.layout import show

NAME = "run"
HELP = "run a recipe: train, choose the best checkpoint, score it, draw images"
EXAMPLES = """examples:
  segreg run recipes/isic_v3plus.yaml
  segreg run recipes/isic_v3plus.yaml train.epochs=3 encoder=timm/convnext_tiny encoder.weights=null
  segreg run runs/isic_v3plus/2026-01-31_12-00-00/resolved.yaml      repeat a run
  segreg run --resume runs/isic_v3plus/2026-01-31_12-00-00           continue where it stopped
  segreg run --resume runs/isic_v3plus/2026-01-31_12-00-00 train.epochs=40     train longer
  segreg run recipes/isic_v3plus.yaml --folds 5                      five runs, so that every image is scored

With --folds a bench's folder is written, as by `segreg bench` of one model; the same command continues with it.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="RECIPE|key.path=value", help="a recipe file, and overrides")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="the directory of a run to continue with")
    parser.add_argument(
        "--without-history", action="store_true", help="with --resume: continue although rows of the history are lost"
    )
    parser.add_argument("--folds", type=int, metavar="N", help="train on all but one of N folds, each left out once")
    parser.add_argument(
        "--out", type=Path, help="folder of the run directories (runs); with --folds of the bench (benches/NAME)"
    )
    parser.add_argument("--quiet", action="store_true", help="print the results only")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, nothing else")


def execute(chosen: argparse.Namespace) -> int:
    if chosen.folds is not None:
        return _run_folds(chosen)
    from segreg.runtime.distributed import processes

    with processes():  # joined first, so that a mistake is reported once
        return _run(chosen)


def _run_folds(chosen: argparse.Namespace) -> int:
    """Run a bench of one model, whose costs are not measured."""
    from segreg.benchmark.bench.plan import is_bench_file
    from segreg.cli import bench
    from segreg.config.recipe import read_recipe

    if "WORLD_SIZE" in os.environ:
        raise SegregError("--folds starts processes of its own; call it without torchrun")
    if chosen.resume is not None or chosen.without_history:
        raise SegregError("--folds and --resume don't go together", hint="the same command without --resume continues")
    file, overrides = one_file(chosen.words, NAME, "recipes/isic_v3plus.yaml")
    recipe = read_recipe(file, overrides)
    if is_bench_file(recipe):
        raise SegregError(f"{file} is a bench file", hint=f"segreg bench {file} --folds {chosen.folds}")
    words = [file, *(word for word in overrides if not word.startswith("seed="))]
    words += ["--seeds", json.dumps([recipe.values.get("seed", 0)]), "--folds", str(chosen.folds), "--no-cost"]
    words += ["--out", str(chosen.out)] if chosen.out is not None else []
    words += ["--quiet"] if chosen.quiet else []
    words += ["--json"] if chosen.json else []
    parser = argparse.ArgumentParser(prog="segreg run")
    bench.arguments(parser)
    return bench.execute(parser.parse_args(words))


def _run(chosen: argparse.Namespace) -> int:
    if chosen.resume is None:
        file, overrides = one_file(chosen.words, NAME, "recipes/isic_v3plus.yaml")
        if chosen.without_history:
            raise SegregError("--without-history goes with --resume")
    else:
        files, overrides = files_and_overrides(chosen.words)
        if files:
            raise SegregError(f"--resume continues with the recipe of {chosen.resume}; leave out {files[0]}")
        if chosen.out is not None:
            raise SegregError(f"--resume continues in {chosen.resume}; leave out --out")

    from segreg.registry.registry import load_registry
    from segreg.runtime.distributed import from_main, is_main

    registry = load_registry()
    shown = shown_progress(quiet=chosen.quiet or chosen.json, stream=sys.stdout)
    if chosen.resume is not None:
        from segreg.runs.run import resume_run

        run = resume_run(chosen.resume, registry, shown, overrides=overrides, without_history=chosen.without_history)
    else:
        from segreg.config.recipe import read_recipe
        from segreg.config.resolve import resolve

        recipe = read_recipe(file, overrides)
        resolved = resolve(recipe, registry)
        # Only now, so that a mistake in the recipe is reported before PyTorch is imported.
        from segreg.runtime.device import without_garbage_collection

        with without_garbage_collection():
            from segreg.runs.run import start_run

        run = start_run(recipe, resolved, registry, out=chosen.out or Path("runs"), progress=shown)
    interrupted = from_main(lambda: run.results.get("stopped_because") == "interrupted")
    if chosen.json and is_main():
        print_json({"run": str(run.directory.path), **run.results})
    elif chosen.quiet and is_main():
        from segreg.runs.results import format_results

        blocks = format_results(run.results, run.directory)
        show(*(blocks[1:] if blocks[0] == "" else blocks))
    return 130 if interrupted else 0
