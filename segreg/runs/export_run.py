"""Export a run's network, prove that the file predicts what the network does, and note beside it what it needs."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segreg.config.resolve import Resolved, choose
from segreg.data import BatchLoader, Crops
from segreg.deployment.graph import ExportGraph, Traced, trace
from segreg.deployment.network import ExportedNetwork
from segreg.deployment.proof import BOUNDS, Both, Bounds, MetricDifference, Proof, problems, shown
from segreg.errors import Problem, SegregError, listed
from segreg.evaluation.counts import image_counts
from segreg.evaluation.evaluator import Evaluator
from segreg.evaluation.scores import Scores, directions_of, of_probabilities
from segreg.inference.predictor import Predictor
from segreg.models import build
from segreg.models.lora import merge_lora
from segreg.registry.protocols import Calibration, Exporter
from segreg.registry.registry import load_registry
from segreg.runs.assembly import prepare_images
from segreg.runs.directory import open_run_directory, replacing_folder
from segreg.runs.evaluate_run import Chosen, of_own_split
from segreg.runs.exported_run import ExportedRun, exported_run
from segreg.runs.scored import Scored, defined, paired
from segreg.runs.sidecar import SIDECAR, describe_run, is_export
from segreg.runs.trained_run import Run, Weights
from segreg.runtime.files import cannot_write, finite, write_json
from segreg.runtime.hub import refuse_to_write
from segreg.runtime.layout import Block, Column, Table
from segreg.runtime.progress import Progress

_CARRIED = ("split.json", "environment.json")
"""Files of a run that its exported network is evaluated by, beside the recipe."""
_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export and how.

    Attributes:
        format: name of an exporter.
        settings: of the exporter.
        precision: one that the exporter has.
        labels: whether the file returns labels instead of logits.
        tile: the one height and width of the images that the file takes, in place of the recipe's.
        any_size: whether the file takes images of other sizes too; a network that was trained on crops always does,
            unless it can't or a tile is given.
        weights: of the best epoch or of the last one.
        out: the folder to write; None: in the run's `exports`, by format, precision and labels.
        images: validation images that both networks are compared on, at most; they are evenly spaced.
        calibration: training images for int8, at most.
        most_lost: how much worse int8 may make a metric.
    """

    format: str = "onnx"
    settings: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    labels: bool = False
    tile: tuple[int, int] | None = None
    any_size: bool = False
    weights: Weights = "best"
    out: Path | None = None
    images: int = 500
    calibration: int = 300
    most_lost: float = 0.01


def export_run(run: Run, request: ExportRequest, progress: Progress) -> tuple[ExportedRun, Proof]:
    """Export a run's network; the folder is there whole, with its proof, or not at all.

    Raises:
        SegregError: the exporter or its library is not there, or can't have the network or the precision; the data
            are gone; or what was exported predicts something else than the network.
    """
    if isinstance(run, ExportedRun):
        raise SegregError(f"{run.directory.path} is an exported network", hint="name the run that it was exported from")
    for name in ("images", "calibration"):
        if getattr(request, name) < 1:
            raise SegregError(f"{name} must be at least 1, not {getattr(request, name)}")
    exporter: Exporter = choose("exporter", request.format, request.settings, load_registry()).build()
    _check_precision(exporter, request)
    out = _checked_out(request.out or run.directory.path / "exports" / _folder_name(request))
    run = _as_tiles(run, request)
    trained = run.predictor(request.weights, precision="float32")
    shown_on = of_own_split(run, "val")
    traced = _traced(run, request)
    if request.any_size and traced.size is not None:
        raise SegregError(
            f"{run.directory.path}: the network can't be exported for any size: {traced.reason}",
            hint="leave out --any-size: it is exported for the size of its recipe",
        )
    if traced.reason and request.tile is None:
        height, width = run.input.size
        progress.say(f"note    larger images are predicted in tiles of {height}x{width}: {traced.reason}")
    sidecar = describe_run(run, request.weights)
    file = f"network{exporter.suffix}"
    sidecar["network"] = _network(run, traced, request, file)
    tile = _tile(run, traced)
    sidecar["evaluate"]["tile"] = list(tile) if isinstance(tile, tuple) else tile
    try:
        with replacing_folder(out) as folder:
            int8 = request.precision == "int8"
            calibration = _calibration(run, sidecar["network"], request, progress) if int8 else None
            with progress.watch(f"writing {file}", None, "files"):
                exporter.write(
                    traced.program, folder / file,
                    precision=request.precision, notes=json.dumps(finite(sidecar)), calibration=calibration,
                )  # fmt: skip
            network = ExportedNetwork(
                exporter.load(folder / file, precision=request.precision), sidecar["network"], run.task,
                pads=run.input.resize == "crop",
            )  # fmt: skip
            proof = _prove(run.recipe, network, trained, shown_on, most=request.images, progress=progress)
            _refuse(proof, request, run)
            sidecar["proof"] = proof.plain()
            sidecar["network"]["bytes"] = sum(one.stat().st_size for one in folder.glob("network.*"))
            write_json(folder / SIDECAR, sidecar)
            recipe = dataclasses.replace(run.recipe, evaluate=dataclasses.replace(run.recipe.evaluate, tile=tile))
            (folder / "resolved.yaml").write_text(recipe.yaml(header="of the run that was exported"), encoding="utf-8")
            for name in _CARRIED:
                if (run.directory.path / name).is_file():
                    shutil.copyfile(run.directory.path / name, folder / name)
    except OSError as error:
        raise cannot_write(error, out) from None
    return exported_run(open_run_directory(out)), proof


def _check_precision(exporter: Exporter, request: ExportRequest) -> None:
    if request.precision in exporter.precisions:
        return
    registry, others = load_registry(), []
    for name in registry.names("exporter"):
        with suppress(SegregError):  # its library is missing
            if request.precision in choose("exporter", name, {}, registry).build().precisions:
                others.append(name)
    raise SegregError(
        f"{request.format} can't be written in {request.precision}; it has {listed(list(exporter.precisions))}",
        hint=f"--format {' or '.join(others)} has it" if others else "",
    )


def _as_tiles(run: Run, request: ExportRequest) -> Run:
    """Return the run with the tile that was asked for, in which larger images are predicted."""
    if request.tile is None:
        return run
    if request.any_size:
        raise SegregError("--tile names the one size that the network takes, and --any-size none; leave one out")
    if run.input.resize != "crop":
        size = run.input.size
        raise SegregError(
            f"this run's images are resized to {size[0]}x{size[1]}, and its network is exported for that size",
            hint="--tile is for networks that were trained on crops; --any-size takes other sizes too",
        )
    return dataclasses.replace(run, overrides=(*run.overrides, f"evaluate.tile={list(request.tile)}"))


def _traced(run: Run, request: ExportRequest) -> Traced:
    section = run.input.complete()
    crops = section.resize == "crop"
    model = merge_lora(run.model(request.weights))
    graph = ExportGraph(
        model, run.normalize, run.task, run.network.evaluate.threshold,
        labels=request.labels, half=request.precision == "float16",
    ).eval()  # fmt: skip
    dtype = torch.float32 if section.per_image else _DTYPES[section.dtype]
    return trace(
        graph, channels=section.channels, dtype=dtype,
        size=request.tile or section.size, any_size=request.tile is None and (crops or request.any_size),
    )  # fmt: skip


def _tile(run: Run, traced: Traced) -> Any:
    """Return the tiles in which an exported network predicts larger images."""
    if run.input.resize == "crop" and traced.size is not None:
        return traced.size
    return run.network.evaluate.tile


def _network(run: Run, traced: Traced, request: ExportRequest, file: str) -> dict[str, Any]:
    section, task = run.input.complete(), run.task
    height, width = traced.size or (None, None)
    layers = [task.channels] if not request.labels or task.mode == "multilabel" else []
    return {
        "file": file,
        "format": request.format,
        "settings": dict(request.settings),
        "precision": request.precision,
        "input": {
            "name": "images",
            "dtype": "float32" if section.per_image else section.dtype,
            "values": "z-scores of the whole image" if section.per_image else "as in the files",
            "shape": [traced.batch, section.channels, height, width],
            "multiple": traced.multiple,
            "least": traced.least,
        },
        "output": {
            "name": "output",
            "values": "labels" if request.labels else "logits",
            "dtype": "uint8" if request.labels else "float32",
            "shape": [traced.batch, *layers, height, width],
        },
    }


def _folder_name(request: ExportRequest) -> str:
    names = [
        request.format, request.precision,
        "labels" if request.labels else "",
        f"{request.tile[0]}x{request.tile[1]}" if request.tile else "",
        "any_size" if request.any_size else "",
        "last" if request.weights == "last" else "",
    ]  # fmt: skip
    return "_".join(filter(None, names))


def _checked_out(out: Path) -> Path:
    """Return the folder to write, without a link to it; refuse one that holds something else than an earlier export."""
    out = out.resolve() if out.is_symlink() else out
    refuse_to_write(out, "--out")
    if out.name in ("", ".."):
        raise SegregError(f'"{out}" names no folder that can be written anew', hint="name another one with --out")
    is_empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not is_export(out) and not is_empty:
        raise SegregError(
            f"{out} is there already, and is not an exported network", hint="name another folder with --out"
        )
    return out


# the proof


def _prove(
    recipe: Resolved, network: ExportedNetwork, trained: Predictor, chosen: Chosen, *, most: int, progress: Progress
) -> Proof:
    if network.returns_labels:
        metrics = build.build_metrics(recipe, trained.task)
        unknown = of_probabilities(metrics)
        recipe = dataclasses.replace(recipe, metrics=tuple(c for c in recipe.metrics if c.part.name not in unknown))
    indices = evenly_spaced(chosen.indices, most)
    prepared = prepare_images(chosen.dataset, recipe, indices, progress)
    # What an image loses in tiles where it was seen whole is not the file's fault.
    config = dataclasses.replace(trained.config, tile=network.image_size or trained.config.tile)
    trained = dataclasses.replace(trained, config=config)
    both = Both(network, trained)
    evaluators = {
        name: Evaluator.of(recipe, predictor, chosen.dataset, prepared)
        for name, predictor in (("the trained network", trained), ("the exported one", both.predictor()))
    }
    before, after = (each.scores(indices, f"scoring {name}", progress) for name, each in evaluators.items())
    return both.proof(len(indices), chosen.split, _differences(before, after, evaluators["the trained network"]))


def evenly_spaced(indices: Sequence[int], most: int) -> list[int]:
    """Return at most so many of the indices, evenly spaced."""
    step = max(1.0, len(indices) / max(1, most))
    return [indices[math.floor(number * step)] for number in range(min(most, len(indices)))]


def _differences(before: Scores, after: Scores, evaluator: Evaluator) -> dict[str, MetricDifference]:
    scored = [Scored.of_rows(s.values, s.per_image, s.counts, s.sums, groups=s.groups) for s in (before, after)]
    pairs = {pair.name: pair for pair in paired(scored, scored[0].ids, [evaluator.metrics] * 2)}
    found, directions = {}, directions_of(evaluator.metrics)
    for name, value in before.values.items():
        pair = pairs.get(name)
        ends = (pair.low, pair.high) if pair else (None, None)
        found[name] = MetricDifference(defined(value), defined(after.values[name]), *ends, directions.get(name))
    return found


def _refuse(proof: Proof, request: ExportRequest, run: Run) -> None:
    """Refuse an export that predicts something else than the network.

    Raises:
        SegregError: what is out of bounds.
    """
    int8 = request.precision == "int8"
    found = problems(proof, Bounds(0.05, request.most_lost, if_better=True) if int8 else BOUNDS[request.precision])
    hint = "another --format or --precision may be exact; please report it with the recipe"
    if int8:
        hint = "--most-lost allows more; --precision bf16 or float16 costs less"
    if found:
        where = f"{run.directory.path}, on {proof.images} images of {proof.of}"
        raise SegregError.of(
            [
                Problem(f"the export does not predict what the network does ({where}): {found[0]}", None, hint),
                *(Problem(one) for one in found[1:5]),
            ]
        )


# int8


def _calibration(run: Run, notes: Mapping[str, Any], request: ExportRequest, progress: Progress) -> Calibration:
    """Return training images as the exported network takes them, and how its predictions of them are scored.

    Args:
        run: what is exported.
        notes: what the sidecar says of the network.
        request: how much.
        progress: shows it.
    """
    chosen = of_own_split(run, "train")
    recipe, task = run.recipe, run.task
    indices = evenly_spaced(chosen.indices, request.calibration)
    prepared = prepare_images(chosen.dataset, recipe, indices, progress)
    crops = None
    if recipe.input.resize == "crop":
        _, _, height, width = notes["input"]["shape"]
        size = (height, width) if height else recipe.input.size
        crops = Crops(dataclasses.replace(recipe.input, size=size), recipe.crop, task)
    loader = BatchLoader(prepared, indices, batch_size=1, order="in_order", crops=crops)
    batches = list(loader.epoch(0))
    threshold = recipe.evaluate.threshold

    def exported(network: Callable[[NDArray[Any]], NDArray[Any]]) -> ExportedNetwork:
        return ExportedNetwork(network, notes, task, pads=recipe.input.resize == "crop")

    def score(network: Callable[[NDArray[Any]], NDArray[Any]]) -> list[float]:
        predicting, scores = exported(network), []
        for batch in batches:
            counts = image_counts(task, predicting(batch.images), batch.targets, threshold)
            tp, fp, fn, _ = counts[0].double().unbind(-1)
            there = tp + fp + fn > 0
            dice = 2 * tp[there] / (2 * tp + fp + fn)[there]
            scores.append(float(dice.mean()) if there.any() else 1.0)
        return scores

    taken = exported(np.asarray).taken
    return Calibration([taken(batch.images) for batch in batches], score, request.most_lost)


# what is printed


def format_export(exported: ExportedRun, proof: Proof, out: Path) -> list[Block]:
    """Return what was exported and how it compares, as lines and a table."""
    network = exported.sidecar["network"]
    logits = (
        f", logits differ by {proof.largest_difference:.2g} at most (the largest is {proof.largest_logit:.3g})"
        if proof.largest_difference is not None
        else ""
    )
    rows = []
    for name, one in proof.metrics.items():
        change = f"{one.change:+.4f}" if one.trained is not None and one.exported is not None else ""
        ends = f"[{one.low:+.4f}, {one.high:+.4f}]" if one.low is not None and one.high is not None else ""
        rows.append([name, shown(one.trained), shown(one.exported), change, ends])
    table = Table(
        [Column(), Column("trained"), Column("exported"), Column("difference"), Column("95% interval")], rows, indent=2
    )
    notes: list[Block] = []
    if network["output"]["values"] == "labels" and exported.input.resize != "crop":
        notes = [
            "scores at the images' own sizes are of resized labels, while the trained network's logits are resized"
        ]
    size = f"{network['bytes'] / 1e6:.1f} MB"
    return [
        f"{out} ({size}): {network['input']['dtype']} {exported.input_shape} to {network['output']['values']}",
        f"compared on {proof.images} images of {proof.of}: {proof.equal_labels:.4%} of the labels are equal{logits}",
        table,
        *notes,
    ]
