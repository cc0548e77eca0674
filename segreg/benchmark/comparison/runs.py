"""Compare existing runs, with what their models cost and the images on which they disagree most."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from segreg.benchmark.comparison.compare import RunGroup, compare, fingerprint_of, fold_of, sources_of
from segreg.benchmark.comparison.record import Comparison, Disagreement, Model
from segreg.benchmark.cost.record import DEFINITIONS, Cost, NetworkSpec
from segreg.benchmark.cost.running import measure
from segreg.benchmark.earlier import with_data_of
from segreg.benchmark.pool import check_known_to_workers
from segreg.config.diff import distinguishing, label_of
from segreg.config.recipe import read_recipe
from segreg.errors import SegregError, listed
from segreg.models import build
from segreg.runs.exported_run import ExportedRun
from segreg.runs.listing import read_run
from segreg.runs.trained_run import Run
from segreg.runtime.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segreg.task import Task

TO_BEST = "seconds_to_best_epoch"
_OF_RUNS = {
    TO_BEST: "time from the start of training to the end of the epoch whose weights were chosen, including validation "
    "and checkpoints; the median of the seeds, on the machines of the runs",
}
_MOST_IMAGES, _MOST_MODELS = 6, 16
_LONGEST_NAME = 4
"""Settings that a model's name has, at most."""
_WIDTH = 256
"""Length of the longer side of a rendered image in pixels, at most."""


def run_groups_of(runs: Sequence[Run]) -> list[RunGroup]:
    """Group runs into models: those with the same source of plugins, whose recipes differ only in seed and fold.

    The same images and masks in another place are no difference.

    A model is named by what distinguishes its recipe from the others', and its source where recipes are the same; where
    that is a long list and the recipes have names of their own, by its recipe's name; where nothing does, or two would
    have one name, by the run's folder.

    Raises:
        SegregError: there is no run, one is named twice, or two runs of one model have the same seed and fold.
    """
    if not runs:
        raise SegregError("there is no run to compare", hint="name the directories of finished runs")
    groups: dict[tuple[str, str], list[tuple[Run, Mapping[str, Any]]]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        recipe = read_recipe(run.directory.resolved)
        if data := fingerprint_of(run):
            recipe = recipe.changed(with_data_of(first.setdefault(data, recipe.values), run).overrides)
        values = recipe.values
        if type(values.get("seed", 0)) is not int:
            raise SegregError('"seed" must be an integer', place=recipe.place(("seed",)))
        if fold_of(run) is not None:
            values = {**values, "split": {**values["split"], "fold": None}}
        key = json.dumps({name: value for name, value in values.items() if name != "seed"}, sort_keys=True)
        groups.setdefault((key, json.dumps(sources_of(run))), []).append((run, values))
    different = distinguishing([group[0][1] for group in groups.values()])
    found = []
    keys = [key for key, _ in groups]
    for (key, _), group, settings in zip(groups, groups.values(), different, strict=True):
        if keys.count(key) > 1:
            settings.update(sources_of(group[0][0]))
        places = [(int(values.get("seed", 0)), fold_of(run)) for run, values in group]
        if twice := [place for place in places if places.count(place) > 1]:
            same = [str(run.directory.path) for (run, _), at in zip(group, places, strict=True) if at == twice[0]]
            what = "one seed" if twice[0][1] is None else "one seed and fold"
            raise SegregError(f"{listed(same)} are runs of one recipe with {what}", hint="name one of them")
        order = sorted(range(len(group)), key=lambda number: (places[number][0], places[number][1] or 0))
        members = tuple(group[number][0] for number in order)
        name = label_of(settings) or str(members[0].directory)
        found.append(RunGroup(name, settings, members))
    if any(len(one.settings) > _LONGEST_NAME for one in found):
        recipes = [read_run(one.runs[0].directory.path).recipe for one in found]
        if len(set(recipes)) == len(found):
            return [dataclasses.replace(one, name=name) for one, name in zip(found, recipes, strict=True)]
    names = [one.name for one in found]
    return [
        dataclasses.replace(one, name=f"{one.name} ({one.runs[0].directory})") if names.count(one.name) > 1 else one
        for one in found
    ]


def compare_runs(
    groups: Sequence[RunGroup],
    *,
    metric: str,
    baseline: str,
    rounds: int,
    progress: Progress,
) -> tuple[Comparison, list[Disagreement]]:
    """Compare runs; return the comparison and the images on which the models disagree.

    Args:
        metric: to compare by; empty: the first one.
        baseline: name of the model that the others are compared with; empty: the first.
        rounds: how often each network's costs are measured at most; 0: not at all.

    Raises:
        SegregError: the runs can't be compared.
    """
    comparison = compare(groups, title="runs side by side", metric=metric, baseline=baseline)
    measured, method = _costs(groups, rounds, progress)
    return with_disagreements(with_costs(comparison, measured, method), groups, progress)


def with_disagreements(
    comparison: Comparison, groups: Sequence[RunGroup], progress: Progress
) -> tuple[Comparison, list[Disagreement]]:
    """Return the comparison and the rendered images on which models disagree.

    If the images can't be read any more, a notice says so.
    """
    try:
        rendered = _render_disagreements(comparison, {one.name: one for one in groups}, progress)
    except SegregError as error:
        rendered = []
        notice = f"The images on which models disagree are not shown: {error.problems[0].message}"
        comparison = dataclasses.replace(comparison, notices=(*comparison.notices, notice))
    return comparison, rendered


def _costs(
    groups: Sequence[RunGroup], rounds: int, progress: Progress
) -> tuple[Mapping[str, Mapping[str, Cost]], list[str]]:
    if not rounds:
        return {}, []
    for one in groups:
        check_known_to_workers(one.runs[0].recipe)
    specs = {
        one.name: NetworkSpec.of(
            one.runs[0].recipe, one.runs[0].task,
            exported=str(one.runs[0].directory.path) if isinstance(one.runs[0], ExportedRun) else "",
        )
        for one in groups
    }  # fmt: skip
    found = measure(specs, rounds=rounds, progress=progress)
    return {name: one.costs for name, one in found.of.items()}, found.method()


def with_costs(comparison: Comparison, measured: Mapping[str, Mapping[str, Cost]], method: Sequence[str]) -> Comparison:
    """Return the comparison with the measured costs of its models, by their names, and how they were measured."""
    models = [
        dataclasses.replace(model, costs={**measured.get(model.name, {}), **_of_runs(model)})
        for model in comparison.models
    ]
    there = dict.fromkeys(name for model in models for name in model.costs)
    sentences = {name: definition.sentence for name, definition in DEFINITIONS.items()} | _OF_RUNS
    definitions = {name: sentences[name] for name in there if name in sentences}
    return dataclasses.replace(
        comparison,
        models=tuple(models),
        definitions={**comparison.definitions, **definitions},
        method=(*comparison.method, *(f"Costs: {sentence}." for sentence in method)),
    )


def _of_runs(model: Model) -> dict[str, Cost]:
    took = [
        seconds for curve, best in zip(model.curves, model.best_epochs, strict=True) if (seconds := _until(curve, best))
    ]
    return {TO_BEST: Cost(median(took), min(took), max(took), "s")} if took else {}


def _until(curve: Mapping[str, Sequence[float]], best: int) -> float:
    took = dict(zip(curve.get("epoch", ()), curve.get("seconds", ()), strict=False))
    seconds = [took.get(epoch, math.nan) for epoch in range(1, best + 1)]
    return 0.0 if any(math.isnan(value) for value in seconds) else sum(seconds)


def _render_disagreements(
    comparison: Comparison, groups: Mapping[str, RunGroup], progress: Progress
) -> list[Disagreement]:
    """Predict the most disputed images with a run of each model, at their own size, and render the predictions.

    Of a model's folds it is the run that has not seen the image.

    Raises:
        SegregError: the images or a run's weights can't be read.
    """
    places = [place for place, difference in comparison.widest()[:_MOST_IMAGES] if difference > 0]
    shown = [model for model in comparison.models if model.per_image][:_MOST_MODELS]
    if not places:
        return []
    dataset = build.build_dataset(next(iter(groups.values())).runs[0].recipe)
    samples = {sample.id: sample for sample in dataset.samples}
    wanted = {comparison.images[place]: place for place in places}
    if gone := [name for name in wanted if name not in samples]:
        raise SegregError(f'the data set no longer has the image "{gone[0]}"')
    images = {name: dataset.read_image(samples[name]) for name in wanted}
    rendered: dict[str, dict[str, bytes]] = {name: {} for name in wanted}
    with progress.watch("rendering what the models disagree on", len(shown), "models") as advance:
        for model in shown:
            for name, image in images.items():
                run = groups[model.name].scorer(name)
                rendered[name][model.name] = _png(image, run.predict(image), run.task)
            advance(note=model.name)
    return [
        Disagreement(
            id=name,
            image=_png(image, None, dataset.task),
            truth=_png(image, dataset.read_mask(samples[name]), dataset.task),
            predictions=rendered[name],
            values={model.name: model.per_image[wanted[name]] for model in shown},
        )
        for name, image in images.items()
    ]


def _png(image: NDArray[Any], labels: NDArray[np.uint8] | None, task: Task) -> bytes:
    """Return a PNG of the image with labels drawn into it, reduced to the size that a page shows."""
    from PIL import Image

    from segreg.data.values import as_shown
    from segreg.visualize.colours import class_colours
    from segreg.visualize.overlay import as_rgb, overlay

    pixels = as_shown(image)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    drawn = as_rgb(pixels) if labels is None else overlay(pixels, labels, class_colours(task), task)
    input_image = Image.fromarray(np.ascontiguousarray(drawn))
    input_image.thumbnail((_WIDTH, _WIDTH))
    file = io.BytesIO()
    input_image.save(file, "PNG", optimize=True)
    return file.getvalue()
