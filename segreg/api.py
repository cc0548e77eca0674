"""segreg from Python: the command line's commands as functions, a recipe's parts for one's own loop, any part by name.

Overrides are `key.path=value` strings, as on the command line, or a mapping: `{"train.epochs": 3}`, `{"encoder":
{"name": "resnet18", "weights": None}}`. Every mistake is a `SegregError`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from segreg.config.recipe import Overrides, Recipe, as_written, override_words, read_recipe
from segreg.config.resolve import Resolved, choose, resolve, resolve_begun
from segreg.errors import Problem, SegregError, listed, with_article
from segreg.registry.protocols import KINDS, check_kind
from segreg.registry.registry import load_registry
from segreg.runs.load import load_run
from segreg.runs.trained_run import Run, Weights, input_image
from segreg.runtime.progress import Mode, Quiet
from segreg.runtime.progress import progress as shown
from segreg.task import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.benchmark.comparison.record import Comparison
    from segreg.benchmark.tune.record import TuneRecord
    from segreg.benchmark.tune.study import Pruning, Sampler
    from segreg.data.init.rules import BudgetName
    from segreg.data.inspection import Report
    from segreg.data.python_data import PythonData
    from segreg.evaluation.conventions import Library
    from segreg.inference.predictions import Summary
    from segreg.inference.predictor import InferenceConfig
    from segreg.inference.writer import Kind
    from segreg.models.segmenter import Segmenter
    from segreg.runs.proposal import Proposal
    from segreg.runs.untrained import Loaders, RecipeLoss
    from segreg.runtime.device import PrecisionName


def load_recipe(file: Path | str, overrides: Overrides = ()) -> Recipe:
    """Return a recipe file with overrides applied; `Recipe.changed` applies more.

    Raises:
        SegregError: the file is not a recipe. What it names is checked when it runs.
    """
    return read_recipe(file, overrides)


def init(
    folder: Path | str,
    overrides: Overrides = (),
    *,
    layout: str = "",
    budget: BudgetName | None = None,
    most: int = 1000,
    progress: Mode = "quiet",
) -> Proposal:
    """Look at a folder of images and return a recipe for it, `recipe` and as commented YAML `text`; write nothing.

    Args:
        folder: the data.
        overrides: what to change of the recipe; those of the dataset choose among several ways to read the folder.
        layout: the dataset to read it with; empty for the one that recognises it.
        budget: what the network may cost, "small", "medium" or "large"; None: small on a CPU, else medium.
        most: images to read at most.
        progress: as for `run_recipe`.

    Raises:
        SegregError: nothing reads the folder, or several datasets do, or its images can't be read.
    """
    from segreg.runs.proposal import propose

    return propose(
        Path(folder), load_registry(), layout=layout, overrides=overrides, budget=budget, most=most,
        progress=shown(progress),
    )  # fmt: skip


def run_recipe(
    recipe: Recipe | Path | str,
    overrides: Overrides = (),
    *,
    out: Path | str = "runs",
    progress: Mode = "auto",
    data: Any = None,
    classes: Sequence[str] | None = None,
) -> Run:
    """Run a recipe, or a recipe file, and return the finished run.

    Where training is interrupted, by Ctrl-C or a notebook's stop button, the run is returned as far as it got:
    `results["stopped_because"]` is "interrupted", its repr says so, and `segreg.resume(run)` continues. An interrupt
    before training leaves nothing behind, and one while the run is scored raises `KeyboardInterrupt`, which names the
    run's directory.

    Args:
        recipe: what to run.
        overrides: what to change of it.
        out: the folder in which the run's directory is made.
        progress: a moving bar, plain lines, nothing, or what fits the terminal or notebook.
        data: in place of the recipe's dataset: a `Dataset`, any object with `__len__` and `__getitem__` of
            `(image, mask)`, such as a torch Dataset, or a mapping from "train", "val" and "test" to such, whose splits
            are taken as they are. Images are arrays `[H, W]` or `[H, W, C]`, PIL images, or tensors `[C, H, W]`, of
            uint8, uint16 or float32; float ones are 8-bit where those of the first image are exactly k/255. Masks are
            integers `[H, W]`, or `[K, H, W]` if multilabel, 255 = ignored. Each sample must be the same whenever it is
            read.
        classes: of `data`; None: `classes` in the recipe's section dataset, or the object's attribute.

    Raises:
        SegregError: anything in the recipe, its plugins or its data is wrong.
    """
    from segreg.runs.run import start_run

    written = _written(recipe, overrides)
    with contextlib.ExitStack() as stack:
        if data is not None:
            section = written.values.get("dataset")
            found = stack.enter_context(_registered(data, section, classes))
            written = _with_data(written, found)
        registry = load_registry()
        return start_run(written, resolve(written, registry), registry, out=Path(out), progress=shown(progress))


def resume(
    run: Run | Path | str,
    overrides: Overrides = (),
    *,
    progress: Mode = "auto",
    without_history: bool = False,
    data: Any = None,
) -> Run:
    """Continue a run, or the run of a directory, from its last finished epoch, and return it.

    Args:
        run: what to continue.
        overrides: what to change from here on, such as `{"train.epochs": 40}`.
        progress: as for `run_recipe`.
        without_history: whether to continue where rows of the history are lost.
        data: the data again, where the run was given some.

    Raises:
        SegregError: there is no such run, another process works on it, its data has changed, or an override would
            change what is past.
    """
    from segreg.runs.run import resume_run

    words, opened = override_words(overrides), _run(run)
    path = opened.directory.path
    with contextlib.ExitStack() as stack:
        if data is not None:
            if not _came_from_python(opened):
                raise SegregError(f"the data of {path} did not come from Python", hint="leave out data")
            stack.enter_context(_registered(data, opened.written.values["dataset"]))
        return resume_run(path, load_registry(), shown(progress), overrides=words, without_history=without_history)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        folder: where everything is written.
        data: what `metrics.json` there holds.
    """

    folder: Path
    data: Mapping[str, Any]

    @property
    def split(self) -> str:
        """Return what was scored: "train", "val", "test", or "all" of other data."""
        return str(self.data["scored_on"])

    @property
    def scores(self) -> Mapping[str, float]:
        """Return the scores by their full names, such as "dice.per_image_mean"."""
        return self.data["metrics"][self.split]

    @property
    def intervals(self) -> Mapping[str, Sequence[float]]:
        """Return 95% bootstrap intervals over images or their groups, low and high, by the names of scores."""
        return self.data["intervals"][self.split]

    def __repr__(self) -> str:
        from segreg.runs.evaluate_run import format_evaluation
        from segreg.runtime.layout import plain

        return "\n".join(plain(format_evaluation(self.data, self.folder)))


def evaluate(
    run: Run | Path | str,
    overrides: Overrides = (),
    *,
    split: str | None = None,
    data: Any = None,
    resolution: Literal["input", "original"] | None = None,
    threshold: float | Literal["best"] | None = None,
    weights: Weights = "best",
    libraries: Sequence[Library] = (),
    precision: PrecisionName | Literal["recipe"] = "recipe",
    device: str = "auto",
    out: Path | str | None = None,
    progress: Mode = "quiet",
) -> Evaluation:
    """Score a run's network on a split, or on other data, and write everything into a folder as `segreg evaluate` does.

    Args:
        run: a run, or its directory.
        overrides: of the recipe's section evaluate, of input.size, decoder.output_stride and decoder.rates.
        split: "train", "val" or "test"; None: test, val where the run has no test, or all of other data.
        data: a recipe or its file, whose data set is scored instead, or objects as for `run_recipe`. Where they are
            what the run was given, its own splits are scored; otherwise they are other data.
        resolution: at which size masks are compared; None: the recipe's.
        threshold: probability from which a pixel is foreground, or "best" for the one with the best Dice on val, or
            the best IoU where the recipe's `best_threshold` has `score: iou`; None: the recipe's.
        weights: of the best epoch or of the last one.
        libraries: "smp", "mmseg", "torchmetrics", "sklearn": also what these would print.
        precision: what the network computes in, as `train.precision`; "recipe" is as in validation and the run's
            results, "float32" is exact.
        device: "auto" takes a GPU where there is one.
        out: the folder; None: in the run's `evaluations`.
        progress: as for `run_recipe`.

    Raises:
        SegregError: there are no weights, or the samples are gone or have other classes.
    """
    from segreg.runs.evaluate_run import Request, rescore
    from segreg.runtime.device import prepare_process

    prepare_process()
    opened = _run(run)
    with contextlib.ExitStack() as stack:
        other = None
        if isinstance(data, (Recipe, Path, str)):
            other = _resolved(data)
        elif data is not None:
            task = {"classes": opened.task.classes, "mode": opened.task.mode}
            found = stack.enter_context(_registered(data, task))
            opened = load_run(opened.directory.path)  # which has no earlier data in its recipe
            other = _other_data(opened, found)
        request = Request(
            split=split, data=other, resolution=resolution, threshold=threshold,
            weights=weights, overrides=override_words(overrides), libraries=tuple(libraries),
            precision=precision, device=device, out=None if out is None else Path(out),
        )  # fmt: skip
        scores, folder = rescore(opened, request, shown(progress))
    return Evaluation(folder, scores)


@overload
def predict(
    run: Run | Path | str,
    images: NDArray[Any] | Path | str | Sequence[NDArray[Any] | Path | str],
    *,
    out: None = None,
    weights: Weights = "best",
    threshold: float | None = None,
    min_area: int = 0,
    fill_holes: int = 0,
    config: InferenceConfig | None = None,
    device: str = "auto",
) -> list[NDArray[np.uint8]]: ...


@overload
def predict(
    run: Run | Path | str,
    images: Path | str | Sequence[Path | str],
    *,
    out: Path | str,
    kinds: Sequence[Kind] = (),
    weights: Weights = "best",
    threshold: float | None = None,
    min_area: int = 0,
    fill_holes: int = 0,
    config: InferenceConfig | None = None,
    device: str = "auto",
    progress: Mode = "quiet",
) -> Summary: ...


def predict(
    run: Run | Path | str,
    images: Any,
    *,
    out: Path | str | None = None,
    kinds: Sequence[Kind] = (),
    weights: Weights = "best",
    threshold: float | None = None,
    min_area: int = 0,
    fill_holes: int = 0,
    config: InferenceConfig | None = None,
    device: str = "auto",
    progress: Mode = "quiet",
) -> list[NDArray[np.uint8]] | Summary:
    """Return the labels of each image, or write masks into a folder.

    Shape: uint8 labels at each image's own size: `[H, W]`, or 0 and 1 `[K, H, W]` if multilabel.

    Args:
        run: a run, or its directory.
        images: files, folders and wildcards, one or several; without `out` also arrays `[H, W]` or `[H, W, C]`, PIL
            images, and tensors `[H, W]` or `[C, H, W]`.
        out: the folder for masks; a summary of what was predicted is returned then.
        kinds: with `out`, what is written beside masks: "probabilities", "coloured", "overlays", "strips".
        weights: of the best epoch or of the last one.
        threshold: probability from which a pixel is foreground; None: the recipe's.
        min_area: regions of fewer pixels become background.
        fill_holes: then holes of fewer pixels are filled, which one class alone surrounds.
        config: tiles, scales and flips; None: those of the recipe's section evaluate.
        device: "auto" takes a GPU where there is one.
        progress: as for `run_recipe`, with `out`.

    Raises:
        SegregError: an image can't be read or does not fit; with `out`, the summary names it and the rest continue.
    """
    from segreg.inference.cleaning import Cleaning, clean
    from segreg.inference.inputs import find_images
    from segreg.inference.predictions import predict_files
    from segreg.inference.predictor import common_config, predict_labels
    from segreg.inference.writer import KINDS as WRITTEN
    from segreg.inference.writer import Outputs

    cleaning = Cleaning(min_area, fill_holes)
    several = isinstance(images, (Sequence, Iterator)) and not isinstance(images, str)
    given = list(images) if several else [images]
    opened = _run(run)
    predictors = [opened.predictor(weights, device=device, precision="recipe")]
    chosen = config or common_config(predictors)
    if out is None:
        if kinds:
            raise SegregError(f"{listed(kinds)} are written beside masks", hint="name their folder: out=...")
        found: list[Any] = []
        for image in given:
            named = isinstance(image, (str, Path))
            found += [each.file for each in find_images([str(image)])] if named else [image]
        inputs = (input_image(predictors, image, chosen) for image in found)
        labels = (predict_labels(predictors, image, chosen, threshold=threshold) for image in inputs)
        return [clean(each, opened.task, cleaning) if cleaning else each for each in labels]
    folder = Path(out)
    outputs = Outputs.of(folder, predictors[0].task, kinds, notices=[opened.notice], cleaning=cleaning)
    files = find_images([str(image) for image in given], without=[folder / kind for kind in WRITTEN])
    return predict_files(
        files, predictors, outputs, chosen, threshold=threshold, progress=shown(progress), existing="replace"
    )


def report(run: Run | Path | str, out: Path | str | None = None) -> Path:
    """Write a run's report.html, and return the file. A run that has not finished is reported as far as it got.

    Args:
        run: a run, or its directory.
        out: the file; None: the run's `report.html`.

    Raises:
        SegregError: a file of the run is broken, or the report can't be written.
    """
    from segreg.reports import report_run

    return report_run(_run(run).directory, None if out is None else Path(out))


def export(
    run: Run | Path | str,
    format: str = "onnx",  # noqa: A002 - as on the command line
    *,
    settings: Mapping[str, Any] | None = None,
    precision: Literal["float32", "bf16", "float16", "int8"] = "float32",
    labels: bool = False,
    tile: tuple[int, int] | None = None,
    any_size: bool = False,
    weights: Weights = "best",
    images: int = 500,
    calibration: int = 300,
    most_lost: float = 0.01,
    out: Path | str | None = None,
    progress: Mode = "quiet",
) -> Run:
    """Export a run's network, compare it with the network on validation images, and return it as a run.

    Args:
        run: a run, or its directory.
        format: "onnx", "openvino", "torch", or a plugin's exporter; bundles are the command's alone.
        settings: of the exporter, such as `{"opset": 20}`.
        precision: what the exported network computes in.
        labels: whether it returns labels instead of logits.
        tile: the one height and width of images that it takes, of a network that was trained on crops.
        any_size: whether it takes images of other sizes than the recipe's too.
        weights: of the best epoch or of the last one.
        images: validation images to compare on, at most.
        calibration: training images for int8, at most.
        most_lost: how much worse int8 may make a metric.
        out: the folder; None: in the run's `exports`.
        progress: as for `run_recipe`.

    Raises:
        SegregError: the exporter's library is missing or can't have the network, the data are gone, or what was
            exported predicts something else than the network.
    """
    from segreg.runs.export_run import ExportRequest, export_run
    from segreg.runtime.device import prepare_process

    prepare_process()
    request = ExportRequest(
        format=format, settings=dict(settings or {}), precision=precision, labels=labels, tile=tile,
        any_size=any_size, weights=weights, out=None if out is None else Path(out), images=images,
        calibration=calibration, most_lost=most_lost,
    )  # fmt: skip
    return export_run(_run(run), request, shown(progress))[0]


def compare(
    *runs: Run | Path | str,
    metric: str = "",
    baseline: str = "",
    cost: bool = False,
    rounds: int = 3,
    out: Path | str | None = None,
    progress: Mode = "quiet",
) -> Comparison:
    """Compare finished runs, and return the models side by side, the best first.

    Args:
        *runs: runs, or their directories; those whose recipes differ in nothing but seed and fold are one model's.
        metric: to compare by; empty: the first one, as mean over images.
        baseline: the model that the others are compared with; empty: the first.
        cost: whether to measure what each model costs, as `segreg compare` does unless it has `--no-cost`.
        rounds: of measuring costs, at most.
        out: a folder for results.csv, results.json and report.html; None writes nothing.
        progress: as for `run_recipe`.

    Raises:
        SegregError: the runs can't be compared, or costs are wanted of an entry that only this process knows.
    """
    from segreg.benchmark.comparison.runs import compare_runs, run_groups_of
    from segreg.reports.comparison import write_comparison

    _check_least(0, rounds=rounds)
    groups = run_groups_of([_run(run) for run in runs])
    rounds = rounds if cost else 0
    found, images = compare_runs(groups, metric=metric, baseline=baseline, rounds=rounds, progress=shown(progress))
    if out is not None:
        write_comparison(found, Path(out), images)
    return found


@overload
def bench(
    recipe: Recipe | Path | str, overrides: Overrides = (), *,
    encoder: Sequence[Any] | None = None, decoder: Sequence[Any] | None = None, loss: Sequence[Any] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None, exclude: Sequence[Mapping[str, Any]] = (),
    seeds: int | Sequence[int] | None = None, folds: int | None = None, epochs: int | None = None,
    steps: int | None = None, minutes: float | None = None, baseline: Mapping[str, Any] | None = None, metric: str = "",
    out: Path | str | None = None, jobs: int = 1, cost: bool = True, rounds: int = 3, again: bool = False,
    check: Literal[False] = False, progress: Mode = "auto",
) -> Comparison: ...  # fmt: skip


@overload
def bench(
    recipe: Recipe | Path | str, overrides: Overrides = (), *,
    encoder: Sequence[Any] | None = None, decoder: Sequence[Any] | None = None, loss: Sequence[Any] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None, exclude: Sequence[Mapping[str, Any]] = (),
    seeds: int | Sequence[int] | None = None, folds: int | None = None, epochs: int | None = None,
    steps: int | None = None, minutes: float | None = None, baseline: Mapping[str, Any] | None = None, metric: str = "",
    out: Path | str | None = None, jobs: int = 1, cost: bool = True, rounds: int = 3, again: bool = False,
    check: Literal[True], progress: Mode = "auto",
) -> list[Problem]: ...  # fmt: skip


def bench(
    recipe: Recipe | Path | str, overrides: Overrides = (), *,
    encoder: Sequence[Any] | None = None, decoder: Sequence[Any] | None = None, loss: Sequence[Any] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None, exclude: Sequence[Mapping[str, Any]] = (),
    seeds: int | Sequence[int] | None = None, folds: int | None = None, epochs: int | None = None,
    steps: int | None = None, minutes: float | None = None, baseline: Mapping[str, Any] | None = None, metric: str = "",
    out: Path | str | None = None, jobs: int = 1, cost: bool = True, rounds: int = 3, again: bool = False,
    check: bool = False, progress: Mode = "auto",
) -> Comparison | list[Problem]:  # fmt: skip
    """Train models side by side, each combination of what varies with each seed and fold, and return their comparison.

    `segreg.bench(recipe, encoder=["resnet18", "resnet50"], seeds=3, epochs=20)`. Every combination is an ordinary run,
    in a process of its own. The folder gets results.csv, results.json and report.html, and the same call continues
    where a bench was stopped.

    Args:
        recipe: a recipe, its file, or a bench file; what is given here takes the place of what a bench file says.
        overrides: what to change of the recipe in all runs.
        encoder: the encoders to compare: names, or mappings of a name and settings.
        decoder: the decoders.
        loss: the losses.
        vary: any other setting and its values: `{"optimizer.lr": [1e-4, 1e-3]}`.
        exclude: combinations not to run: `[{"encoder": "resnet18", "loss": "dice"}]`.
        seeds: how many seeds (1), or which: `[7, 11]`.
        folds: train on all but one of so many folds, each left out once, and compare out of fold; None: the recipe's
            split.
        epochs: budget of each run in epochs.
        steps: budget in optimizer steps, rounded up to epochs.
        minutes: budget in minutes of training; give one of the three, or leave it to the recipe.
        baseline: what the others are compared with: `{"encoder": "resnet18"}`; None: the first.
        metric: to compare by; empty: the first of the recipe, as mean over images.
        out: the bench's folder; None: `benches/NAME`.
        jobs: runs at the same time, on the GPUs there are.
        cost: whether to measure what each model costs.
        rounds: of measuring costs, at most.
        again: whether to try runs that failed again.
        check: whether to check everything and train nothing: what is wrong is returned, an empty list if it is fine.
        progress: as for `run_recipe`.

    Raises:
        SegregError: something of this, a recipe or the data is wrong, a part was registered in this process alone,
            another process works on the bench, or no run finished. A run that fails is among `Comparison.failures`.
    """
    from segreg.benchmark.bench.bench import bench as run_bench
    from segreg.benchmark.bench.bench import look
    from segreg.benchmark.bench.folder import BenchFolder
    from segreg.benchmark.bench.known import trials_in
    from segreg.benchmark.bench.plan import plan_of
    from segreg.reports.comparison import write_comparison

    _check_least(1, jobs=jobs)
    _check_least(0, rounds=rounds)
    parts = {"encoder": encoder, "decoder": decoder, "loss": loss}
    axes = {kind: values for kind, values in parts.items() if values is not None}
    if twice := [path for path in vary or {} if path in axes]:
        raise SegregError(f'"{twice[0]}" varies twice: {twice[0]}= and vary=', hint="give all of its values at once")
    plan, name = plan_of(
        recipe, overrides, vary={**axes, **(vary or {})}, exclude=exclude, seeds=seeds, folds=folds,
        budgets={"epochs": epochs, "steps": steps, "minutes": minutes}, baseline=baseline, metric=metric,
    )  # fmt: skip
    folder, said = BenchFolder(Path(out or Path("benches") / name)), shown(progress)
    trials = trials_in(folder, plan, load_registry(), said)
    if check:
        return [Problem(line) for line in look(plan, trials, folder, jobs=jobs, progress=said)]
    found, images = run_bench(
        plan, trials, folder, jobs=jobs, rounds=rounds if cost else 0, again=again,
        progress=said, stream=sys.stdout, mode="auto" if progress == "bar" else progress,
    )  # fmt: skip
    write_comparison(found, folder.path, images)
    return found


def tune(
    recipe: Recipe | Path | str, overrides: Overrides = (), *, search: Mapping[str, Any],
    trials: int = 20, minutes: float | None = None, epochs: int | None = None, sampler: Sampler = "tpe",
    pruning: Pruning = "median", out: Path | str | None = None, progress: Mode = "auto",
) -> TuneRecord:  # fmt: skip
    """Search for the settings that are best on the validation images, and return what came out.

    `segreg.tune(recipe, search={"optimizer.lr": "log:1e-5..1e-2", "loss": ["dice_bce", "lovasz"]}, trials=20)`. Every
    trial is an ordinary run, in a process of its own. The folder gets best.yaml, results.json and report.html, and the
    same call continues where a tune was stopped.

    Args:
        recipe: a recipe, or its file.
        overrides: what to change of it in all trials.
        search: by setting a range ("0.1..0.5", "log:1e-5..1e-2", "int:1..8") or a list of choices.
        trials: how many trials in all.
        minutes: in place of `trials`: no trial begins after so many minutes of training in all.
        epochs: of each trial; None: the recipe's.
        sampler: what proposes trials.
        pruning: what ends trials early.
        out: the tune's folder; None: `tunes/NAME`.
        progress: as for `run_recipe`.

    Raises:
        SegregError: something of this, the recipe or the data is wrong, the folder has another tune, Optuna is not
            installed, or the first trials all fail.
    """
    from segreg.benchmark.tune.folder import TuneFolder
    from segreg.benchmark.tune.plan import TunePlan
    from segreg.benchmark.tune.space import axes_of_mapping
    from segreg.benchmark.tune.study import require_optuna
    from segreg.benchmark.tune.tune import TuneBudget, finish
    from segreg.benchmark.tune.tune import tune as search_settings
    from segreg.reports.tune import write_tune

    budget = TuneBudget("trials", trials) if minutes is None else TuneBudget("minutes", minutes)
    require_optuna()
    read = _written(recipe, overrides)
    axes, options = axes_of_mapping(search), {"epochs": epochs, "sampler": sampler, "pruning": pruning}
    plan = TunePlan.of(read, axes, load_registry(), **options)  # type: ignore[arg-type]
    folder = TuneFolder(Path(out or Path("tunes") / Path(read.source).stem))
    interrupted = search_settings(plan, folder, budget, shown(progress))
    record = finish(plan, folder)
    write_tune(record, folder.path)
    if interrupted:
        raise KeyboardInterrupt("the same call continues")
    return record


def check(recipe: Recipe | Path | str, overrides: Overrides = (), *, build: bool = False) -> list[Problem]:
    """Return everything that is wrong with a recipe, each with its place and a hint; an empty list if it is fine.

    Args:
        recipe: a recipe, or its file.
        overrides: what to change of it.
        build: whether to build its network with random weights too, and to take one training step on random pixels.
    """
    try:
        resolved = _resolved(recipe, overrides)
        if build:
            from segreg.runs.dry_run import dry_run

            dry_run(resolved, Quiet())
    except SegregError as error:
        return list(error.problems)
    return []


def data_check(recipe: Recipe | Path | str, overrides: Overrides = (), *, progress: Mode = "quiet") -> Report:
    """Read a recipe's whole data set, and return what is wrong with it: `findings`, `verdict`, `lines()`, `as_data()`.

    Raises:
        SegregError: the recipe is wrong, or the data set can't be found.
    """
    from segreg.runs.assembly import check_data

    return check_data(_resolved(recipe, overrides), shown(progress))


def build_model(recipe: Recipe | Path | str, overrides: Overrides = ()) -> Segmenter:
    """Return a recipe's network as training begins with it: its own weights, pretrained ones and `train.start_from`.

    Python's, NumPy's and PyTorch's random numbers are seeded by the recipe's seed first, as a run does.

    Shape: images as `build_loaders` returns them, float32 `[B, C, H, W]`, to logits `[B, K, H, W]`.

    Raises:
        SegregError: the recipe is wrong, or a part can't be built.
    """
    from segreg.models.build import build_dataset
    from segreg.runs.assembly import seeded_network

    resolved = _resolved(recipe, overrides)
    return seeded_network(resolved, build_dataset(resolved).task)[0]


def build_loaders(recipe: Recipe | Path | str, overrides: Overrides = (), *, progress: Mode = "quiet") -> Loaders:
    """Return the loaders of a recipe's data: `train`, `val`, and `test` or None.

    Each iteration over one is an epoch of `(images, targets)`: normalised float32 `[B, C, H, W]`, and int64 `[B, H, W]`
    (`[B, K, H, W]` if multilabel) with 255 for ignored pixels. They are the batches that a run trains on.

    Raises:
        SegregError: the recipe is wrong, or its data; or it has `batch_augment`, whose images have two targets.
    """
    from segreg.runs.untrained import loaders

    return loaders(_resolved(recipe, overrides), shown(progress))


def build_loss(recipe: Recipe | Path | str, overrides: Overrides = ()) -> RecipeLoss:
    """Return the weighted sum of a recipe's losses, an `nn.Module`: `loss(output, target)` is a float32 scalar.

    Shape: logits `[B, K, H, W]`, or the list that `model.all_logits(images)` returns, whose second map is scored with
    the auxiliary decoder's weight; targets as the loaders return them. Where weights change with the epochs, those of
    the first are taken until `loss.set_epoch(epoch)` says which begins.

    Raises:
        SegregError: the recipe is wrong, or a loss can't be built.
    """
    from segreg.runs.untrained import RecipeLoss

    return RecipeLoss(_resolved(recipe, overrides))


@contextlib.contextmanager
def _registered(data: Any, section: Any, classes: Sequence[str] | None = None) -> Iterator[PythonData]:
    """Offer data as the dataset "python" within the context; a section of a recipe may name classes and mode."""
    from segreg.data import python_data
    from segreg.registry.local import registering

    known = section if isinstance(section, Mapping) else {}
    named = known.get("classes") if classes is None else classes
    found = python_data.adapt(data, named, known.get("mode") if named else None)
    with registering(python_data.entry(found.dataset)):
        yield found


def _with_data(recipe: Recipe, data: PythonData) -> Recipe:
    """Return a recipe whose dataset is the registered one; its text would name another."""
    from segreg.data.python_data import NAME

    values = {**recipe.values, "dataset": {"name": NAME, **data.settings}}
    replaced = {"dataset"}
    if data.split:
        test = {} if any(sample.split == "test" for sample in data.dataset.samples) else {"test": 0.0}
        values["split"] = {"method": "dataset", **test}
        replaced.add("split")
    keys, places = (
        {path: place for path, place in known.items() if not replaced & set(path[:1])}
        for known in (recipe.keys, recipe.places)
    )
    return Recipe(values, keys, places, recipe.source)


def _came_from_python(run: Run) -> bool:
    from segreg.data.python_data import NAME

    section = run.written.values.get("dataset")
    return isinstance(section, Mapping) and section.get("name") == NAME


def _other_data(run: Run, data: PythonData) -> Resolved | None:
    """Return the recipe of registered data, or None where they are what the run was given."""
    from segreg.runs.assembly import is_data_of

    if _came_from_python(run) and is_data_of(run.recipe, run.directory):
        return None
    return replace(resolve_begun(_with_data(run.written, data), load_registry()), source="python")


def _check_least(least: int, **given: int) -> None:
    for name, value in given.items():
        if value < least:
            raise SegregError(f"{name} must be at least {least}, not {value}")


def _written(recipe: Recipe | Path | str, overrides: Overrides) -> Recipe:
    return recipe.changed(overrides) if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)


def _resolved(recipe: Recipe | Path | str, overrides: Overrides = ()) -> Resolved:
    return resolve(_written(recipe, overrides), load_registry())


def _run(run: Run | Path | str) -> Run:
    return run if isinstance(run, Run) else load_run(run)


def build_part(kind: str, name: str, *given: Any, **settings: Any) -> Any:
    """Build one part by its name: `segreg.build_part("loss", "dice", task, smooth=1.0)`.

    Args:
        kind: one of `segreg.KINDS`.
        name: as recipes write it.
        *given: what segreg gives that kind, see `segreg.KINDS[kind].gives`.
        **settings: the part's settings, checked as a recipe's are.

    Raises:
        SegregError: there is no such part, a setting is unknown, missing or of the wrong type, or what is given does
            not serve.
    """
    check_kind(kind)
    wanted = KINDS[kind].gives
    if len(given) != len(wanted):
        words = ", ".join(wanted) or "nothing"
        raise SegregError(f"{kind} {name!r} is built from {words}; {len(given)} values were given")
    choice = choose(kind, name, {key: as_written(value) for key, value in settings.items()}, load_registry())
    if beside := [key for key in settings if key not in choice.part.settings]:
        raise SegregError(
            f'"{beside[0]}" is not a setting of the {kind} "{name}" itself: it says how a recipe trains it',
            hint="segreg.build_model builds the network of a recipe",
        )
    for argument, value in zip(wanted, given, strict=True):
        if expected := _misfit(argument, value):
            problem = f'{kind} "{name}" is built from {argument}: {expected[0]} was expected, not {_short(value)}'
            raise SegregError(problem, hint="\n".join(filter(None, (expected[1], f"defined at {choice.part.defined}"))))
    return choice.build(*given)


def _misfit(argument: str, value: Any) -> tuple[str, str] | None:
    """Return what was expected for one of `Kind.gives`, and a hint, where a value can't serve for it."""
    if argument in ("in_channels", "steps_per_epoch", "epochs"):
        fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
        return None if fits else ("an integer above 0", "")
    if argument == "threshold":
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
        return None if fits else ("a number between 0 and 1", "0.5 is what recipes use")
    if argument == "task":
        hint = 'for example segreg.Task(("background", "lesion"), "multiclass")'
        return None if isinstance(value, Task) else ("a segreg.Task", hint)
    if argument == "encoder":
        fits = callable(value) and hasattr(value, "channels") and hasattr(value, "strides")
        return None if fits else ("a segreg.Encoder", 'for example segreg.build_part("encoder", "resnet18", 3)')
    if argument == "parameter_groups":
        fits = (
            isinstance(value, list)
            and bool(value)
            and all(isinstance(group, dict) and "params" in group for group in value)
        )
        hint = 'for example [{"params": list(network.parameters())}]'
        return None if fits else ('a list of groups, mappings with "params"', hint)
    fits = hasattr(value, "param_groups") and hasattr(value, "step")
    return None if fits else ("a torch.optim.Optimizer", "")


def _short(value: Any) -> str:
    """Return a value's words for a message: itself if it is plain, or else its type."""
    plain = value is None or isinstance(value, (bool, int, float, str))
    return repr(value)[:80] if plain else with_article(type(value).__name__)
