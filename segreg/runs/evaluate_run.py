"""Score a run's network once more: on any split or on other data, by any threshold, as others count."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from segreg.config.resolve import Resolved, choose
from segreg.data import SPLITS, SplitName
from segreg.data.inspection.gate import SplitPixels, judge
from segreg.errors import SegregError, did_you_mean, listed, plural
from segreg.evaluation.conventions import LIBRARIES, Library, scores_of_library
from segreg.evaluation.evaluator import Evaluator, Ranked, format_values, write_images
from segreg.evaluation.scores import of_probabilities
from segreg.evaluation.statistics import METHOD, resampled_words
from segreg.inference.predictor import InferenceConfig, Predictor
from segreg.models import build
from segreg.models.verify import verify
from segreg.registry.protocols import Dataset
from segreg.registry.registry import load_registry
from segreg.runs.assembly import prepare_images, split_of
from segreg.runs.exported_run import ExportedRun
from segreg.runs.records import read_evaluation, read_split
from segreg.runs.results import Warnings, in_half
from segreg.runs.run import with_absolute_paths
from segreg.runs.trained_run import Run
from segreg.runtime.device import PrecisionName
from segreg.runtime.files import write_json
from segreg.runtime.hub import refuse_to_write
from segreg.runtime.layout import Block, Column, Table, banners
from segreg.runtime.output import as_file_name
from segreg.runtime.progress import Progress
from segreg.training.checkpoint import read_notes
from segreg.visualize.plots import plot_metrics

THRESHOLD_METRIC = "best_threshold"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be scored and how; None is as in the run.

    Attributes:
        split: of the split; None: test, or val where there is no test, or all of other data.
        data: the recipe of other data.
        resolution: `input` or `original`.
        threshold: probability from which a pixel is foreground; "best": the one with the best Dice on validation.
        weights: of the best epoch or of the last one.
        overrides: `key.path=value` of the run's recipe: of section evaluate, input.size, decoder.output_stride and
            decoder.rates.
        libraries: whose numbers are reported besides.
        precision: what the network computes in; `recipe` is as in validation and in the run's results.
        device: where the network computes.
        out: the folder for what is written; None: in the run's `evaluations`, by what is scored and how.
    """

    split: str | None = None
    data: Resolved | None = None
    resolution: Literal["input", "original"] | None = None
    threshold: float | Literal["best"] | None = None
    weights: Literal["best", "last"] = "best"
    overrides: Sequence[str] = ()
    libraries: Sequence[Library] = ()
    precision: PrecisionName | Literal["recipe"] = "recipe"
    device: str = "auto"
    out: Path | None = None


@dataclass(frozen=True)
class Chosen:
    """Samples that are to be scored.

    Attributes:
        dataset: has them.
        split: what they are together: a split, or "all" of a data set.
        indices: which they are.
        name: what a folder of their scores is called.
        source: the recipe that names the data set.
    """

    dataset: Dataset
    split: str
    indices: list[int]
    name: str
    source: Resolved


def rescore(run: Run, request: Request, progress: Progress) -> tuple[dict[str, Any], Path]:
    """Score a run's network and return what was found, and the folder in which it was written.

    Raises:
        SegregError: there are no weights; the samples are gone or have other classes; there is no threshold; the
            folder is a run's own.
    """
    _check_words(run, request)
    _check_folder(run, request.out)
    trained = run.recipe
    run = _overridden(run, request)
    recipe = _as_asked(run.recipe, request)
    predictor = run.predictor(request.weights, device=request.device, precision=request.precision)
    decoders = [one.decoder.settings if one.decoder else None for one in (recipe, trained)]
    changed = recipe.input.size != trained.input.size or decoders[0] != decoders[1]
    if changed and isinstance(run, ExportedRun):
        raise SegregError(
            f"{run.directory.path} is an exported network: its size and its decoder are what they were exported with",
            hint="evaluate the run that it was exported from",
        )
    if changed:
        verify(run.model(request.weights), image_size=recipe.input.size, in_channels=recipe.input.channels)
    predictor = dataclasses.replace(
        predictor, input=recipe.input, config=InferenceConfig.of(recipe.evaluate, recipe.input)
    )
    given = request.threshold is not None or _names(request.overrides, "evaluate.threshold")
    if given:
        _check_takes_threshold(run, predictor)
    data, split = request.data, request.split
    chosen = of_own_split(run, split) if data is None else _of_other_data(run, data, split, progress)
    if chosen.indices and all(chosen.dataset.samples[index].mask is None for index in chosen.indices):
        raise SegregError(f"no sample of {chosen.split} has a mask, so that nothing can be scored")
    trained_on = f"trained on: {run.notice}" if run.notice != chosen.dataset.notice and run.notice else ""
    for line in [*banners(chosen.dataset.notice, trained_on), f"run        {predictor.name}",
                 f"data       {chosen.source.dataset.part.name}: {len(chosen.indices)} {chosen.split}",
                 f"device     {predictor.device}, {predictor.precision.reason}"]:  # fmt: skip
        progress.say(line)
    found = "given" if given else "the recipe's"
    if request.threshold == "best":
        threshold = _best_threshold(run, recipe, predictor, progress)
        found = "the best on the validation split"
        if request.data is None and chosen.split == "val":
            found += ", which is the one that is scored, so that its Dice flatters"
        recipe = _with_threshold(recipe, threshold)
    predictor = dataclasses.replace(predictor, threshold=recipe.evaluate.threshold)
    prepared = prepare_images(chosen.dataset, recipe, chosen.indices, progress)
    data_key = "" if data is None else _data_key(data, prepared.folder.name)
    out = request.out or _own_folder(run.directory.path / "evaluations" / _folder_name(chosen.name, request), data_key)
    verdict = None
    if data is not None:  # the run's own data passed when it began
        of = cast("SplitName", f"{'the data' if chosen.split == 'all' else chosen.split} of {Path(data.source).name}")
        pixels = {of: SplitPixels.of_prepared(prepared, chosen.indices)}
        verdict = judge(chosen.dataset.task, pixels, chosen.dataset.objects, chosen.dataset.void)
        verdict.refuse_errors()
        for warning in verdict.warnings():
            progress.say(f"warning    {warning}")
    evaluator = Evaluator.of(recipe, predictor, chosen.dataset, prepared)
    _refuse_metrics_of_probabilities(evaluator)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SegregError(f"could not create the folder {out}: {error.strerror}") from None
    scores = evaluator.scores(chosen.indices, f"scoring {chosen.split}", progress)
    counts: Any = scores.counts  # which scoring always leaves
    over = resampled_words(scores.groups)
    weights = run.weights_file(request.weights)
    evaluation: dict[str, Any] = {
        "run": str(run.directory.path),
        "recipe": recipe.source,
        "weights": weights.stem,
        "epoch": read_notes(weights).get("epoch", "") if weights.suffix == ".safetensors" else "",
        "notice": "; ".join(filter(None, (chosen.dataset.notice, trained_on))),
        "dataset": chosen.source.dataset.part.name,
        "data_recipe": chosen.source.source,
        "data_key": data_key,
        "classes": list(chosen.dataset.task.classes),
        "mode": chosen.dataset.task.mode,
        "images": {chosen.split: len(chosen.indices)},
        "scored_on": chosen.split,
        "overrides": list(request.overrides),
        "resolution": recipe.evaluate.resolution,
        "threshold": None if chosen.dataset.task.mode == "multiclass" else recipe.evaluate.threshold,
        "threshold_is": "" if chosen.dataset.task.mode == "multiclass" else found,
        "device": str(predictor.device),
        "precision": predictor.precision.name,
        "metrics": {chosen.split: scores.values},
        "intervals": {chosen.split: scores.intervals},
        "intervals_over": {chosen.split: over},
        "groups": {chosen.split: scores.group_of},
        "definitions": scores.definitions,
        "higher_is_better": evaluator.directions(scores),
        "interval_method": METHOD.format(over=over),
        "as": {library: vars(scores_of_library(library, run.task, counts)) for library in request.libraries},
        "alerts": [*(verdict.alerts() if verdict else []), *scores.alerts(chosen.split)],
        "warnings": verdict.warnings() if verdict else [],
    }
    write_images(scores, chosen.dataset.task, out)
    write_json(out / "metrics.json", evaluation)
    warnings = Warnings()
    plot_metrics(evaluator.metrics, out, warnings.instead_of_error)
    ranked = evaluator.ranked(chosen.indices, scores)
    _draw_ends(evaluator, ranked if scores.columns else (), out, progress, warnings)
    if warnings.found:
        evaluation["warnings"] += warnings.found
        with warnings.instead_of_error('"warnings" in metrics.json'):
            write_json(out / "metrics.json", evaluation)
    return evaluation, out


def _check_words(run: Run, request: Request) -> None:
    """Refuse a split, a resolution or a library that does not exist, or a library that can't score such classes.

    Raises:
        SegregError: there is one.
    """
    words: list[tuple[str, str | None, Sequence[str]]] = [
        ("split", request.split, SPLITS),
        ("resolution", request.resolution, ("input", "original")),
        *(("library", each, LIBRARIES) for each in request.libraries),
    ]
    for what, word, known in words:
        if word is not None and word not in known:
            hint = did_you_mean(word, known) or f"it can be {listed(known, last='or')}"
            raise SegregError(f'there is no {what} "{word}"', hint=hint)
    for library in request.libraries:
        scores_of_library(library, run.task, np.zeros((1, run.task.channels, 4), np.int64))


def _check_takes_threshold(run: Run, predictor: Predictor) -> None:
    """Refuse a threshold where none takes part.

    Raises:
        SegregError: the classes exclude each other, or the network returns labels.
    """
    if run.task.mode == "multiclass":
        raise SegregError(
            f"{run.directory.path} tells {len(run.task.classes)} classes apart that exclude each other: the one with "
            "the largest probability is predicted, and no threshold takes part",
            hint="leave out the threshold",
        )
    predictor.refuse_other_threshold()


def _refuse_metrics_of_probabilities(evaluator: Evaluator) -> None:
    """Refuse them for an exported network that returns labels.

    Raises:
        SegregError: there is one.
    """
    predictor, metrics = evaluator.predictor, evaluator.metrics
    if predictor.returns_labels and (names := of_probabilities(metrics)):
        others = [name for name in metrics if name not in names] or ["iou"]
        raise SegregError(
            f"{listed(names)} of the recipe need probabilities, and {predictor.name} returns labels",
            hint=f"name others: 'evaluate.metrics=[{', '.join(others)}]'",
        )


def format_evaluation(evaluation: Mapping[str, Any], out: Path) -> list[Block]:
    """Return what `rescore` found, as lines and tables."""
    split = evaluation["scored_on"]
    how = f"at {evaluation['resolution']} resolution, {evaluation['weights']} weights{in_half(evaluation['precision'])}"
    if evaluation["threshold_is"]:
        how += f", threshold {evaluation['threshold']:.12g} ({evaluation['threshold_is']})"
    lines: list[Block] = [
        *banners(*evaluation["alerts"]),
        f"{split} ({plural(evaluation['images'][split], 'image')}, {how}):",
        format_values(evaluation["metrics"][split], evaluation["intervals"][split]),
    ]
    over = evaluation["intervals_over"][split]
    if evaluation["intervals"][split]:
        lines.append(f"  in brackets: 95% bootstrap intervals over {over}")
    elif over == resampled_words(["one"]):
        lines.append("  without intervals: all images are of one group, and nothing is known of how groups differ")
    for library, words in evaluation["as"].items():
        digits = words["digits"]
        lines.append(f"as {library}:")
        rows = [[name, f"{value:.{digits}f}"] for name, value in words["values"].items()]
        lines += [Table([Column(), Column()], rows, indent=2), f"  {words['how']}"]
    return [*lines, f"everything is in {out}"]


_CHANGEABLE = ("evaluate", "input.size", "decoder.output_stride", "decoder.rates")
"""Sections and settings that an evaluation may override: the weights are the same with every value of them."""


def _overridden(run: Run, request: Request) -> Run:
    """Return the run with the overrides of its recipe that were asked for.

    Raises:
        SegregError: one can't be changed, or is an option too.
    """
    for override in request.overrides:
        path = override.partition("=")[0].strip()
        if not _names([override], *_CHANGEABLE):
            raise SegregError(
                f"{path} can't be changed for an evaluation: {run.directory.path} was trained with it",
                hint=f"an evaluation takes overrides of {listed(_CHANGEABLE, quote='')}; --data names other data",
            )
    for option, value, path in (
        ("--resolution", request.resolution, "evaluate.resolution"),
        ("--threshold", request.threshold, "evaluate.threshold"),
    ):
        if value is not None and _names(request.overrides, path):
            raise SegregError(f"{option} and {path} say the same thing; leave one of them out")
    return dataclasses.replace(run, overrides=tuple(request.overrides)) if request.overrides else run


def _as_asked(recipe: Resolved, request: Request) -> Resolved:
    """Return the recipe with resolution and threshold as they were asked for."""
    if request.resolution == "input" and recipe.input.resize == "crop":
        raise SegregError(
            "this run was trained on crops, and images are scored at their own size, not at that of the input",
            hint="leave out the resolution; evaluate.scales has them predicted smaller",
        )
    if request.resolution is not None:
        recipe = dataclasses.replace(
            recipe, evaluate=dataclasses.replace(recipe.evaluate, resolution=request.resolution)
        )
    if request.threshold is None or request.threshold == "best":
        return recipe
    try:
        threshold = float(request.threshold)
    except (TypeError, ValueError):
        raise SegregError(f'the threshold is a number from 0 to 1, or "best", not {request.threshold!r}') from None
    return _with_threshold(recipe, threshold)


def _names(overrides: Sequence[str], *paths: str) -> bool:
    """Whether an override is of one of these settings, or of something inside it."""
    given = [override.partition("=")[0].strip() for override in overrides]
    return any(name == path or name.startswith(f"{path}.") for name in given for path in paths)


def _with_threshold(recipe: Resolved, threshold: float) -> Resolved:
    if not 0 <= threshold <= 1:
        raise SegregError(f"the threshold must be from 0 to 1, not {threshold:g}")
    return dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, threshold=threshold))


def of_own_split(run: Run, split: str | None) -> Chosen:
    """Return a split as split.json has it, whatever the data are now; None is test, or val where there is none."""
    file = run.directory.split
    if not file.is_file():
        raise SegregError(f"{file} is missing, so that nobody knows what the run was trained on")
    ids = read_split(file)
    split = split or ("test" if ids.get("test") else "val")
    if not ids.get(split):
        raise _empty(str(run.directory.path), split, ids)
    dataset = _dataset(run, run.recipe, f"the data of {run.directory.path} as it is now")
    index_of = {sample.id: index for index, sample in enumerate(dataset.samples)}
    gone = [name for name in ids[split] if name not in index_of]
    if gone:
        raise SegregError(
            f"{len(gone)} of the {len(ids[split])} samples of {split} are gone from {run.recipe.dataset.part.name}: "
            f"{listed(gone, most=5)}",
            hint=f"{file} has the samples of the run; scores of the others would be scores of another split",
        )
    return Chosen(dataset, split, [index_of[name] for name in ids[split]], split, run.recipe)


def _of_other_data(run: Run, recipe: Resolved, split: str | None, progress: Progress) -> Chosen:
    """Return the samples of another recipe's data set: all, or one split."""
    dataset = _dataset(run, recipe, recipe.source)
    name = as_file_name(Path(recipe.source).stem) or "data"
    name = f"data-{name}" if name in SPLITS else name  # which are the names of the run's own
    if split is None:
        return Chosen(dataset, "all", list(range(len(dataset.samples))), name, recipe)
    splits = {str(split): indices for split, indices in split_of(recipe, dataset, progress).items()}
    if not splits[split]:
        raise _empty(recipe.source, split, splits)
    return Chosen(dataset, split, splits[split], f"{name}-{split}", recipe)


def _dataset(run: Run, recipe: Resolved, owner: str) -> Dataset:
    """Return a recipe's data set, whose classes must be those of the run."""
    dataset = build.build_dataset(recipe)
    if dataset.task != run.task:
        there, then = (f"{listed(task.classes)} ({task.mode})" for task in (dataset.task, run.task))
        raise SegregError(
            f"the classes of {owner} are {there}, but {run.directory.path} was trained on {then}",
            hint="names, order and mode must be the same",
        )
    return dataset


def _empty(owner: str, split: str, splits: Mapping[str, Sequence[Any]]) -> SegregError:
    there = ", ".join(f"{len(samples)} in {name}" for name, samples in splits.items() if samples)
    return SegregError(f"{owner} has no samples in {split}; there are {there}")


def _check_folder(run: Run, out: Path | None) -> None:
    """Refuse the hub's cache and a run's own folder, before anything is computed."""
    refuse_to_write(out or run.directory.path, "--out")
    if out and (out / "resolved.yaml").exists():
        raise SegregError(
            f"{out} is a run's own folder, whose scores would be replaced", hint="name another folder with --out"
        )


def _folder_name(scored: str, request: Request) -> str:
    """Return a name such as "test" or "val_original_threshold-best", so that no evaluation replaces another kind."""
    names: list[str] = [scored]
    if request.resolution:
        names.append(request.resolution)
    if request.threshold is not None:
        names.append(f"threshold-{request.threshold}")
    if request.weights == "last":
        names.append("last")
    if request.precision != "recipe":
        names.append(request.precision)
    names += [re.sub(r"[^\w.-]+", "-", override).strip("-") for override in request.overrides]
    name = "_".join(names)
    if len(name.encode(errors="surrogatepass")) <= 200:
        return name
    short = name.encode(errors="surrogatepass")[:180].decode(errors="ignore")
    return f"{short}_{_digest(name)[:16]}"


def _data_key(data: Resolved, fingerprint: str) -> str:
    """Return what tells data sets apart: the recipe's file and what it names, or of others the content of the files."""
    file = Path(data.source)
    if not file.is_file():
        return _digest(fingerprint)
    settings = json.dumps(with_absolute_paths(data).dataset.plain(), sort_keys=True, default=str)
    return _digest(f"{file.absolute()}\n{settings}")


def _own_folder(folder: Path, data_key: str) -> Path:
    """Return the folder, or another one where it has the scores of other data that are called the same."""
    try:
        before = read_evaluation(folder / "metrics.json").get("data_key")
    except SegregError:  # none, or a damaged one
        return folder
    other = before and data_key and before != data_key
    return folder.with_name(f"{folder.name}_{data_key[:8]}") if other else folder


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _best_threshold(run: Run, recipe: Resolved, predictor: Predictor, progress: Progress) -> float:
    """Return the best threshold on the validation split of the run's own split, by Dice if the recipe does not say."""
    import torchmetrics

    registry = load_registry()
    if THRESHOLD_METRIC not in registry.names("metric"):
        raise SegregError(
            f'the best threshold is found by a metric "{THRESHOLD_METRIC}", which no installed plugin offers',
            hint="give a number: --threshold 0.4",
        )
    own = of_own_split(run, "val")
    chosen = next((choice for choice in recipe.metrics if choice.part.name == THRESHOLD_METRIC), None)
    chosen = chosen or choose("metric", THRESHOLD_METRIC, {}, registry)
    metric = chosen.build(run.task, recipe.evaluate.threshold)
    metrics = torchmetrics.MetricCollection({THRESHOLD_METRIC: metric})
    evaluator = Evaluator(
        recipe, predictor, own.dataset, prepare_images(own.dataset, recipe, own.indices, progress), metrics
    )
    values = evaluator.scores(own.indices, "finding the threshold on val", progress).values
    names = [name for name in values if ".class." not in name and name.partition(".")[0] == THRESHOLD_METRIC]
    threshold = values[names[0]] if names else math.nan
    if math.isnan(threshold):
        raise SegregError(
            "the best threshold is undefined: no foreground, or nothing else, counts in the validation split, or the "
            "network returns NaN",
            hint="give a number: --threshold 0.4",
        )
    progress.say(f"threshold  {threshold:.12g}, the best on the validation split")
    return threshold


def _draw_ends(evaluator: Evaluator, ranked: Ranked, out: Path, progress: Progress, warnings: Warnings) -> None:
    """Draw the worst and the best images into folders, from which those of an evaluation before are taken."""
    count = min(evaluator.recipe.evaluate.overlays, len(ranked))
    with progress.watch("drawing", 2 * count, "images") as advance:
        for name, chosen in (("worst", ranked[:count]), ("best", ranked[::-1][:count])):
            with warnings.instead_of_error(name):
                evaluator.save_overlays(chosen, out / name, warnings.instead_of_error)
                advance(len(chosen))
