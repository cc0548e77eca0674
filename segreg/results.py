"""What a finished training leaves: its scores with their definitions, a row for each picture, overlays."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg import build, history
from segreg.assembly import Assembly
from segreg.checkpoint import load_weights, replacing
from segreg.data import Batches, Side, restore
from segreg.evaluate import Scores, evaluate, predict_logits
from segreg.header import banner
from segreg.pictures import draw_curves, side_by_side
from segreg.progress import Progress, duration
from segreg.resolve import Resolved
from segreg.rundir import RunDirectory
from segreg.train import Outcome

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def score_run(
    directory: RunDirectory,
    recipe: Resolved,
    assembly: Assembly,
    outcome: Outcome,
    progress: Progress,
    *,
    weights: str = "",
) -> dict[str, Any]:
    """Scores the best weights, writes the rows and pictures, and gives the results.

    Args:
        directory: the run's.
        recipe: the run's.
        assembly: the run's.
        outcome: how its training ended.
        progress: is told what happens.
        weights: what is to be told of the weights that training began with.
    """
    results: dict[str, Any] = {
        "notice": assembly.dataset.notice,
        "weights": weights,
        "recipe": recipe.source,
        "dataset": recipe.dataset.part.name,
        "classes": list(assembly.dataset.task.classes),
        "seed": recipe.seed,
        "images": {side: len(indices) for side, indices in assembly.sides.items()},
        "epochs": outcome.epochs,
        "stopped_because": outcome.stopped_because,
        "monitor": outcome.monitor,
        "best_epoch": outcome.best_epoch,
        "best_value": outcome.best_value,
        "training_seconds": round(outcome.seconds, 3),
        "precision": assembly.precision.name,
        "scored_on": None,
        "resolution": recipe.evaluate.resolution,
        "metrics": {},
        "definitions": {},
    }
    draw_curves(
        history.read(directory.path), directory.curves, monitor=outcome.monitor, best_epoch=outcome.best_epoch or None
    )
    if outcome.weights is None or outcome.stopped_because == "interrupted":
        return results
    load_weights(assembly.objective.model, outcome.weights)
    side: Side = "test" if assembly.sides.get("test") else "val"
    scored: dict[Side, list[int]] = {"val": assembly.sides["val"], side: assembly.sides[side]}
    metrics = build.build_metrics(recipe, assembly.dataset.task)
    normalize = assembly.objective.normalize
    original = _at_original_size(assembly) if recipe.evaluate.resolution == "original" else None
    for name, indices in scored.items():
        with progress.watch(f"scoring {name}", len(assembly.in_order(indices)), "batches") as advance:
            scores = evaluate(
                assembly.objective.model, normalize, _counted(assembly.in_order(indices), advance), metrics,
                device=assembly.device, precision=assembly.precision, original=original,
            )  # fmt: skip
        scores = _in_recipe_order(scores, recipe)
        results["metrics"][name] = scores.values
        results["definitions"] |= scores.definitions
    results["scored_on"] = side
    _write_rows(directory.per_image, scores)
    _draw_overlays(directory, recipe, assembly, assembly.sides[side], scores)
    return results


def _in_recipe_order(scores: Scores, recipe: Resolved) -> Scores:
    """Gives scores in the order in which the recipe names the metrics; a collection sorts them by name."""
    order = ["id", *(choice.part.name for choice in recipe.metrics)]

    def ordered(values: Mapping[str, Any]) -> dict[str, Any]:
        names = {name: name.split(".")[0] for name in values}
        return {n: values[n] for n in sorted(names, key=lambda n: order.index(names[n]) if names[n] in order else 99)}

    rows = [ordered(row) for row in scores.per_image]
    return Scores(ordered(scores.values), ordered(scores.definitions), rows)


def _counted(batches: Batches, advance: Callable[[int], None]) -> Any:
    for batch in batches.epoch(0):
        yield batch
        advance(1)


def _at_original_size(assembly: Assembly) -> Callable[[int, Tensor], tuple[Tensor, NDArray[np.uint8]]]:
    def own_size(index: int, logits: Tensor) -> tuple[Tensor, NDArray[np.uint8]]:
        size = assembly.prepared.original_size(index)
        return restore(logits, size, assembly.recipe.input), assembly.dataset.read_mask(assembly.dataset.samples[index])

    return own_size


def _write_rows(file: Path, scores: Scores) -> None:
    with replacing(file) as aside, aside.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(scores.per_image[0]) if scores.per_image else ["id"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(scores.per_image)


def _draw_overlays(
    directory: RunDirectory, recipe: Resolved, assembly: Assembly, indices: Sequence[int], scores: Scores
) -> None:
    """Draws pictures from the worst to the best by the recipe's first metric, evenly spaced."""
    import torch

    count = min(recipe.evaluate.overlays, len(indices))
    if not count:
        return
    column = next((name for name in (scores.per_image[0] if scores.per_image else {}) if name != "id"), None)
    by_score = sorted(
        zip(indices, scores.per_image, strict=True),
        key=lambda pair: -1.0 if column is None or pair[1][column] != pair[1][column] else pair[1][column],
    )
    places = [round(k * (len(by_score) - 1) / max(1, count - 1)) for k in range(count)]
    chosen = [by_score[place] for place in dict.fromkeys(places)]
    directory.overlays.mkdir(exist_ok=True)
    task, threshold = assembly.dataset.task, recipe.evaluate.threshold
    for number, (index, row) in enumerate(chosen, start=1):
        batch = next(iter(assembly.in_order([index]).epoch(0)))
        logits = predict_logits(
            assembly.objective.model, assembly.objective.normalize, batch.images, assembly.device, assembly.precision
        )
        with torch.inference_mode():
            labels = task.labels(logits, threshold=threshold)[0].cpu().numpy()
        told = "  ".join(f"{n} {v:.3f}" for n, v in row.items() if n != "id" and ".class." not in n)
        picture = side_by_side(
            batch.images[0].permute(1, 2, 0).numpy(), batch.targets[0].numpy(), labels, task,
            title=f"{row['id']}  {told}", notice=assembly.dataset.notice,
        )  # fmt: skip
        name = re.sub(r"[^\w.-]+", "_", str(row["id"]))[:80]
        picture.save(directory.overlays / f"{number:02}_{name}.png")


def results_in_words(results: Mapping[str, Any], directory: RunDirectory) -> list[str]:
    """Gives what a run tells at its end."""
    if results["stopped_because"] == "interrupted":
        return [f"interrupted after {results['epochs']} epochs; segreg run --resume {directory.path} goes on"]
    lines = ["", *banner(results["notice"]), *banner(results["weights"])]
    best, weights = f"{results['monitor']} was never defined", "last"
    if results["best_epoch"]:
        best, weights = f"best epoch {results['best_epoch']} ({results['monitor']} {results['best_value']:.4f})", "best"
    time = duration(results["training_seconds"])
    lines.append(f"{results['epochs']} epochs in {time}, {results['stopped_because']}; {best}")
    side = results["scored_on"]
    if side:
        count = results["images"][side]
        lines.append(f"{side} ({count} pictures, at {results['resolution']} resolution, {weights} weights):")
        values = results["metrics"][side]
        width = max(map(len, values))
        lines += [f"  {name:<{width}}  {_number(value)}" for name, value in values.items()]
    lines.append(f"everything is in {directory.path}")
    return lines


def _number(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.4f}"
