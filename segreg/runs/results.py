"""Results of a finished training: metrics with their definitions, a row for each image, overlays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segreg.data import SplitName
from segreg.evaluation.evaluator import Evaluator, choose_overlays, format_values, write_images
from segreg.runs.assembly import Assembly
from segreg.runs.directory import RunDirectory
from segreg.runs.environment import banner, weights_notice
from segreg.runtime.distributed import as_main_has, is_main
from segreg.runtime.progress import Progress, duration
from segreg.training import history
from segreg.training.checkpoint import load_weights
from segreg.training.timing import advice_on, format_shares, spent_in
from segreg.training.trainer import Outcome
from segreg.visualize.plots import plot_history, plot_metrics


def score_run(
    directory: RunDirectory,
    assembly: Assembly,
    outcome: Outcome,
    progress: Progress,
    model: Mapping[str, Any],
) -> dict[str, Any]:
    """Evaluate the best weights, write the scores and images, and return the results.

    Several processes evaluate together, and the main one writes.

    Args:
        directory: the run's.
        assembly: the run's.
        outcome: how its training ended.
        progress: shows what happens.
        model: the network, as `environment.json` describes it.
    """
    recipe = assembly.recipe
    rows = history.read(directory.path)
    spent = spent_in(rows)
    results: dict[str, Any] = {
        "notice": assembly.dataset.notice,
        "weights": weights_notice(model),
        "alerts": assembly.verdict.alerts(),
        "warnings": assembly.verdict.warnings(),
        "recipe": recipe.source,
        "dataset": recipe.dataset.part.name,
        "classes": list(assembly.dataset.task.classes),
        "mode": assembly.dataset.task.mode,
        "seed": recipe.seed,
        "images": {split: len(indices) for split, indices in assembly.splits.items()},
        "epochs": outcome.epochs,
        "stopped_because": outcome.stopped_because,
        "monitor": outcome.monitor,
        "best_epoch": outcome.best_epoch,
        "best_value": outcome.best_value,
        "training_seconds": round(outcome.seconds, 3),
        "time": {stage: round(seconds, 3) for stage, seconds in spent.items()},
        "advice": advice_on(spent),
        "micro_batches": int(rows[-1].get("micro_batches", 1)) if rows else 1,
        "precision": assembly.precision.name,
        "scored_on": None,
        "resolution": recipe.evaluate.resolution,
        "metrics": {},
        "definitions": {},
        "intervals": {},
        "overlays": {},
    }
    if is_main():
        best = outcome.best_epoch or None
        plot_history(rows, directory.curves, monitor=outcome.monitor, best_epoch=best)
    if outcome.weights is None or outcome.stopped_because == "interrupted":
        return results
    if is_main():
        load_weights(assembly.objective.model, outcome.weights)
    as_main_has(assembly.objective.model.state_dict().values())
    split: SplitName = "test" if assembly.splits.get("test") else "val"
    evaluator = Evaluator.of(recipe, assembly.predictor(str(directory.path)), assembly.dataset, assembly.prepared)
    for name in dict.fromkeys(("val", split)):
        scores = evaluator.scores(assembly.splits[name], f"scoring {name}", progress)
        results["metrics"][name] = scores.values
        results["intervals"][name] = scores.intervals
        results["definitions"] |= scores.definitions
    results["scored_on"] = split
    if not is_main():
        return results
    write_images(scores, assembly.dataset.task, directory.path)
    plot_metrics(evaluator.metrics, directory.path)
    ranked = evaluator.ranked(assembly.splits[split], scores)
    shown = choose_overlays(ranked, recipe.evaluate.overlays, recipe.seed)
    results["overlays"] = {why: [row["id"] for _, row in images] for why, images in shown.items()}
    indices = {index for images in shown.values() for index, _ in images}
    if indices:
        evaluator.save_overlays([pair for pair in ranked if pair[0] in indices], directory.overlays)
    return results


def format_results(results: Mapping[str, Any], directory: RunDirectory) -> list[str]:
    """Return the lines that a run prints at its end."""
    if results["stopped_because"] == "interrupted":
        return [f"interrupted after {results['epochs']} epochs; segreg run --resume {directory.path} continues"]
    notices = (results["notice"], results["weights"], *results.get("alerts", ()))
    lines = ["", *(line for notice in notices for line in banner(notice))]
    best, weights = f"{results['monitor']} was never defined", "last"
    if results["best_epoch"]:
        best, weights = f"best epoch {results['best_epoch']} ({results['monitor']} {results['best_value']:.4f})", "best"
    time = duration(results["training_seconds"])
    epochs = "1 epoch" if results["epochs"] == 1 else f"{results['epochs']} epochs"
    lines.append(f"{epochs} in {time}, {results['stopped_because']}; {best}")
    if spent := results.get("time"):
        lines.append(f"time: {format_shares(spent)}")
    if results.get("advice"):
        lines.append(f"advice: {results['advice']}")
    split = results["scored_on"]
    if split:
        count = results["images"][split]
        lines.append(f"{split} ({count} images, at {results['resolution']} resolution, {weights} weights):")
        lines += format_values(results["metrics"][split], results.get("intervals", {}).get(split, {}))
    lines.append(f"everything is in {directory.path}")
    return lines
