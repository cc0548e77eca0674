"""Results of a finished training: metrics with their definitions, a row for each image, and then the plots.

Scores are written before anything is drawn, and a plot, overlay or report that fails costs only itself.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segreg.data import SplitName
from segreg.data.resize import format_size
from segreg.errors import SegregError, plural
from segreg.evaluation.evaluator import Evaluator, Overlay, Ranked, choose_overlays, format_values, write_images
from segreg.evaluation.scores import meaning_and_way
from segreg.evaluation.statistics import resampled_words
from segreg.runs.assembly import Assembly
from segreg.runs.directory import RunDirectory
from segreg.runs.environment import weights_notice
from segreg.runtime.distributed import as_main_has, is_main
from segreg.runtime.layout import Block, banners, complain
from segreg.runtime.output import printable
from segreg.runtime.progress import Progress, duration
from segreg.training import history
from segreg.training.checkpoint import load_weights
from segreg.training.timing import advice_on, format_shares, spent_in
from segreg.training.trainer import Outcome
from segreg.visualize.plots import plot_history, plot_metrics

_MOST_WARNINGS = 100
"""That a run keeps."""


class Warnings:
    """What failed beside a run or an evaluation and did not stop it: plots, overlays, the report, hooks of plugins.

    Args:
        file: keeps those that last; they are read from it where the run is continued.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.found = _read_warnings(file) if file else []
        """The sentences, for `results.json`, in the order in which things failed."""
        self.said: set[str] = set()

    def add(self, sentence: str, *, lasting: bool = False) -> None:
        """Print a new sentence to standard error, whatever progress is shown, and keep it if there are not very many.

        Args:
            sentence: says what failed and why.
            lasting: whether it stays true when the run is continued, which draws everything again.
        """
        if sentence not in self.said:
            self.said.add(sentence)
            complain(sentence)
        if sentence not in self.found and len(self.found) < _MOST_WARNINGS:
            self.found.append(sentence)
            if lasting and self.file:
                with contextlib.suppress(OSError), self.file.open("a", encoding="utf-8") as file:
                    file.write(printable(sentence).replace("\n", "\n  ") + "\n")

    @contextlib.contextmanager
    def instead_of_error(self, what: str) -> Iterator[None]:
        """Make a warning of whatever goes wrong while something is drawn or written, also where memory is too small."""
        try:
            yield
        except Exception as error:
            reason = str(error) if isinstance(error, SegregError) else f"{type(error).__name__}: {error}".strip(": ")
            self.add(f"{what} was not written: {reason}")


def _read_warnings(file: Path) -> list[str]:
    """Return the warnings of a run's earlier processes; lines of one that follow its first are indented."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [warning.replace("\n  ", "\n") for warning in re.split(r"\n(?!  )", text) if warning]


@dataclass(frozen=True)
class RunScores:
    """A run that is scored and not drawn yet.

    Attributes:
        results: what `results.json` is to hold.
        rows: the run's history.
        evaluator: scored it; None where nothing was scored, and in other processes than the main one.
        shown: the images to draw, from the worst to the best.
    """

    results: dict[str, Any]
    rows: list[dict[str, float]]
    evaluator: Evaluator | None = None
    shown: Ranked = ()


def score_run(
    directory: RunDirectory,
    assembly: Assembly,
    outcome: Outcome,
    progress: Progress,
    model: Mapping[str, Any],
) -> RunScores:
    """Evaluate the best weights, write the scores of single images, and return the results; nothing is drawn yet.

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
        "intervals_over": {},
        "groups": {},
        "higher_is_better": {},
        "overlays": {},
    }
    if outcome.weights is None or outcome.stopped_because == "interrupted":
        return RunScores(results, rows)
    if is_main():
        load_weights(assembly.objective.model, outcome.weights)
    as_main_has(assembly.objective.model.state_dict().values())
    split: SplitName = "test" if recipe.evaluate.split == "test" and assembly.splits.get("test") else "val"
    evaluator = Evaluator.of(recipe, assembly.predictor(str(directory.path)), assembly.dataset, assembly.prepared)
    known = outcome.validated if recipe.train.validate_on == "whole" else {}
    for name in dict.fromkeys(("val", split)):
        scores = evaluator.scores(assembly.splits[name], f"scoring {name}", progress, known=known)
        results["metrics"][name] = scores.values
        results["intervals"][name] = scores.intervals
        results["intervals_over"][name] = resampled_words(scores.groups)
        results["groups"][name] = scores.group_of
        results["definitions"] |= scores.definitions
        results["alerts"] += scores.alerts(name)
        if recipe.split.method == "folds" and name != split and is_main():
            directory.fold.mkdir(exist_ok=True)
            write_images(scores, assembly.dataset.task, directory.fold)
    results["scored_on"] = split
    if recipe.input.resize == "crop" and recipe.train.validate_on == "center_crop":
        of = f"in the history it is computed for a crop of {format_size(recipe.input.size)} in the middle of each image"
        for name in results["metrics"]["val"]:
            meaning, _ = meaning_and_way(results["definitions"][name])
            results["definitions"][f"val.{name}"] = f"{meaning}; {of}"
    if not is_main():
        return RunScores(results, rows)
    write_images(scores, assembly.dataset.task, directory.path)
    ranked = evaluator.ranked(assembly.splits[split], scores)
    shown = choose_overlays(ranked, recipe.evaluate.overlays, recipe.seed)
    results["higher_is_better"] = evaluator.directions(scores)
    results["overlays"] = {why: [row["id"] for _, row in images] for why, images in shown.items()}
    indices = {index for images in shown.values() for index, _ in images}
    return RunScores(results, rows, evaluator, [pair for pair in ranked if pair[0] in indices])


def draw_run(
    directory: RunDirectory, scored: RunScores, warnings: Warnings, observe: Callable[[Overlay], None]
) -> None:
    """Draw the curves, the metrics' diagrams and the overlays of a run whose results are written.

    `observe` is given each overlay.
    """
    results = scored.results
    with warnings.instead_of_error(directory.curves.name):
        best = results["best_epoch"] or None
        plot_history(scored.rows, directory.curves, monitor=results["monitor"], best_epoch=best)
    if scored.evaluator:
        plot_metrics(scored.evaluator.metrics, directory.path, warnings.instead_of_error)
        with warnings.instead_of_error(directory.overlays.name):
            scored.evaluator.save_overlays(scored.shown, directory.overlays, warnings.instead_of_error, observe)


def in_half(precision: str) -> str:
    """Return ", in bf16" for scores that a network of half precision was given, else nothing."""
    return "" if precision == "float32" else f", in {precision}"


def format_results(results: Mapping[str, Any], directory: RunDirectory) -> list[Block]:
    """Return what a run prints at its end."""
    if results["stopped_because"] == "interrupted":
        return [
            f"interrupted after {plural(results['epochs'], 'epoch')}; segreg run --resume {directory.path} continues"
        ]
    lines: list[Block] = ["", *banners(results["notice"], results["weights"], *results.get("alerts", ()))]
    best, weights = f"{results['monitor']} was never defined", "last"
    if results["best_epoch"]:
        best, weights = f"best epoch {results['best_epoch']} ({results['monitor']} {results['best_value']:.4f})", "best"
    time = duration(results["training_seconds"])
    lines.append(f"{plural(results['epochs'], 'epoch')} in {time}, {results['stopped_because']}; {best}")
    if spent := results.get("time"):
        lines.append(f"time: {format_shares(spent)}")
    if results.get("advice"):
        lines.append(f"advice: {results['advice']}")
    split = results["scored_on"]
    if split:
        count = results["images"][split]
        lines.append(
            f"{split} ({plural(count, 'image')}, at {results['resolution']} resolution, {weights} weights"
            f"{in_half(results.get('precision', 'float32'))}):"
        )
        lines.append(format_values(results["metrics"][split], results.get("intervals", {}).get(split, {})))
        lines += _sentence(results, split)
    lines.append(f"everything is in {directory.path}")
    return lines


def _sentence(results: Mapping[str, Any], split: str) -> list[str]:
    """Return the first score, its interval and its definition as a sentence."""
    name, value = next(iter(results["metrics"][split].items()), ("", None))
    if value is None or math.isnan(value):
        return []
    ends = results.get("intervals", {}).get(split, {}).get(name)
    over = results.get("intervals_over", {}).get(split, "images")
    by = "" if over == "images" else f" (over {over})"
    likely = f", between {ends[0]:.3f} and {ends[1]:.3f} with 95% confidence{by}," if ends else ""
    definition = results.get("definitions", {}).get(name, "")
    seen = "that no training step has seen" if split == "test" else "by which the best epoch was chosen"
    return [f"{name} is {value:.3f}{likely} on images {seen}" + (f": {definition}" if definition else "")]
