"""Compare finished runs: models with their seeds, on the images on which all of them were scored."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segreg.benchmark.comparison.record import Comparison, Failure, Fold, Model, Value
from segreg.benchmark.comparison.significance import (
    GROUPED,
    METHOD,
    OUT_OF_FOLD,
    SIGNIFICANT_BELOW,
    differences,
    verdict,
    with_ranks,
)
from segreg.errors import SegregError, did_you_mean, listed, plural
from segreg.evaluation import statistics
from segreg.evaluation.scores import meaning_and_way
from segreg.models import build
from segreg.runs.diff import same_images
from segreg.runs.exported_run import ExportedRun
from segreg.runs.listing import read_run
from segreg.runs.records import read_split
from segreg.runs.scored import (
    PER_IMAGE_MEAN,
    Scored,
    measure_of,
    out_of_fold,
    read_scored,
    shared_groups,
    unknown_of_images,
)
from segreg.runs.trained_run import Run
from segreg.training.monitor import directions_without_images

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torchmetrics import MetricCollection

    from segreg.evaluation.statistics import Measure


EXPORTED = "exported as"
"""What distinguishes an exported network from its run, and from other exports of it."""


@dataclass(frozen=True)
class RunGroup:
    """A model to compare.

    Attributes:
        settings: what distinguishes it from the others, by recipe path.
        runs: its finished runs, one a seed, or one a seed and fold.
    """

    name: str
    settings: Mapping[str, str]
    runs: tuple[Run, ...]

    def by_seed(self) -> dict[int, list[Run]]:
        """Return the runs of each seed, in the order of their folds; a seed that lacks folds others have is left out.

        Runs that are of no folds are returned one a seed.
        """
        found: dict[int, list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: fold_of(run) or 0):
            found.setdefault(seed_of(run), []).append(run)
        most = max(map(len, found.values()))
        return {seed: runs for seed, runs in sorted(found.items()) if len(runs) == most}

    def scorer(self, image: str) -> Run:
        """Return the first run that an image's score is of: where the runs are of folds, that of its fold."""
        if len({fold_of(run) for run in self.runs}) == 1:
            return self.runs[0]
        of_first_seed = next(iter(self.by_seed().values()))
        return next(run for run in of_first_seed if image in set(read_split(run.directory.split)["val"]))


def seed_of(run: Run) -> int:
    """Return a run's seed."""
    return int(run.written.values.get("seed", 0))


def fold_of(run: Run) -> int | None:
    """Return which fold a run was validated on; None where its split is not one of folds."""
    split = run.written.values.get("split")
    if not isinstance(split, Mapping) or split.get("method") != "folds":
        return None
    return int(split.get("fold") or 0)


def compare(
    groups: Sequence[RunGroup],
    *,
    title: str,
    metric: str = "",
    baseline: str = "",
    failures: Iterable[Failure] = (),
    waiting: int = 0,
) -> Comparison:
    """Compare models, the best first.

    Args:
        groups: the models, each with at least one finished run.
        title: what is compared.
        metric: full name of the metric to compare by; by default the mean over images of the recipe's first one.
        baseline: name of the model that the others are compared with; by default the first.
        failures: runs that did not finish.
        waiting: number of runs that have not finished.

    Raises:
        SegregError: the runs' tasks differ, they share no image, or there is no such metric or model.
    """
    scored, notices, about_folds = _scored(groups)
    every = [seed for seeds in scored.values() for seed in seeds]
    _check_tasks(every)
    ids = _shared(every)
    metrics = {one.name: build.build_metrics(one.runs[0].recipe, one.runs[0].task) for one in groups}
    names = [name for name in every[0].values if all(name in seed.values for seed in every)]
    first = _chosen_model(baseline, [one.name for one in groups])
    chosen, direction = chosen_metric(metric, _directions(names, every[0].run, metrics[first]))
    grouped = shared_groups(every, ids)
    measures = [measure_of(scored[one.name], ids, metrics[one.name], groups=grouped) for one in groups]
    shared = [name for name in measures[0].names if all(name in measure.names for measure in measures)]
    draws = None
    alone = measures[0].parts.shape[1] == 1 and all(len(seeds) == 1 for seeds in scored.values())  # nothing to resample
    if shared and not alone:
        draws = statistics.resampled([measure.of(*shared) for measure in measures], seed=statistics.SEED)
    models = []
    for number, one in enumerate(groups):
        values = _values(scored[one.name], names, measures[number], shared, None if draws is None else draws[number])
        models.append(
            Model(
                name=one.name,
                settings=dict(one.settings),
                runs=tuple(str(run.directory.path) for run in one.runs),
                seeds=tuple(int(seed.run.results["seed"]) for seed in scored[one.name]),
                folds=_folds(one, scored[one.name], chosen),
                values=values,
                best_epochs=tuple(int(run.results["best_epoch"] or run.results["epochs"]) for run in one.runs),
                curves=tuple(_curves(run.history) for run in one.runs),
                per_image=_per_image(scored[one.name], chosen, ids),
            )
        )
    sentences: list[str] = []
    best = ""
    images = "one image" if len(ids) == 1 else f"{len(ids)} images"
    images += f" in {statistics.resampled_words(grouped)}".removesuffix(" of images") if grouped else ""
    if draws is not None and chosen in shared:
        column = shared.index(chosen)
        only = [measure_of(scored[one.name], ids, metrics[one.name], names=[chosen], groups=grouped) for one in groups]
        models = with_ranks(models, chosen, draws[..., column], higher_is_better=direction)
        at = [one.name for one in groups].index(first)
        others = [number for number in range(len(models)) if number != at]
        for number, found in zip(others, differences(only, draws[..., column], at, others), strict=True):
            models[number] = dataclasses.replace(models[number], difference=found)
        sentences, best = verdict(
            models,
            only,
            draws[..., column],
            metric=chosen,
            baseline=first,
            images=images,
            higher_is_better=direction,
        )
    elif len(models) > 1:
        why = f"is of {images} and one seed" if alone else "is not known of single images"
        sentences = [f"{chosen} {why}, so its differences have no interval and no test."]
    means = {model.name: model.values[chosen].mean for model in models}
    sign = -1 if direction else 1
    ordered = sorted(models, key=lambda model: (bool(np.isnan(means[model.name])), sign * means[model.name]))
    definitions = every[0].run.results["definitions"]
    return Comparison(
        title=title,
        metric=chosen,
        higher_is_better=direction,
        baseline=first,
        classes=tuple(every[0].run.results["classes"]),
        images=tuple(ids),
        models=tuple(ordered),
        failures=tuple(failures),
        definitions={name: definitions[name] for name in names if name in definitions},
        verdict=(*sentences, *about_folds),
        notices=(
            *_notices(scored, chosen, len(ids)),
            *notices,
            *_few_images(grouped, ids, sum(model.difference is not None for model in models)),
            *(f"{line[0].upper()}{line[1:]}." for line in unknown_of_images(every, metrics[first])),
        ),
        method=(
            *METHOD,
            *([GROUPED] if grouped else []),
            *([OUT_OF_FOLD] if any(model.folds for model in models) else []),
        ),
        waiting=waiting,
        best=best,
    )


def _scored(groups: Sequence[RunGroup]) -> tuple[dict[str, tuple[Scored, ...]], list[str], list[str]]:
    """Return each model's scores, one a seed, what must not be overlooked of them, and what they are, in sentences.

    Where models have runs of several folds, the scores are out of fold.
    """
    if all(len({fold_of(run) for run in one.runs}) == 1 for one in groups):
        return {one.name: tuple(read_scored(run) for run in one.runs) for one in groups}, [], []
    found, notices = {}, []
    for one in groups:
        kept = one.by_seed()
        folds = [[read_scored(run, fold=fold_of(run) is not None) for run in runs] for runs in kept.values()]
        found[one.name] = tuple(map(out_of_fold, folds))
        if left := sorted({seed_of(run) for run in one.runs} - set(kept)):
            which = listed([*map(str, left)], quote="")
            notices.append(f"{one.name} has not all of its folds with seed {which}, which is left out.")
    every = [run for seeds in found.values() for seed in seeds for run in seed.runs if fold_of(run) is not None]
    sentences = ["Scores are out of fold: each image's are of the network that was not trained on it."]
    if any(not str(run.results.get("monitor")).startswith("train.") for run in every):
        sentences.append("Its fold also chose that network's checkpoint, which flatters the scores a little.")
    if any(run.results["scored_on"] == "test" for run in every):
        sentences.append("The test images have no part in this comparison; the runs' own results have their scores.")
    return found, notices, [" ".join(sentences)]


def _folds(group: RunGroup, seeds: Sequence[Scored], metric: str) -> tuple[Fold, ...]:
    """Return the score in each run's own fold, where the model's scores are out of fold."""
    if all(len(seed.runs) == 1 for seed in seeds):
        return ()
    return tuple(
        Fold(seed_of(run), fold_of(run) or 0, str(run.directory.path), _own(run, metric)) for run in group.runs
    )


def _own(run: Run, metric: str) -> float:
    value = run.results["metrics"].get("val", {}).get(metric)
    return float("nan") if value is None else float(value)


def _check_tasks(every: Sequence[Scored]) -> None:
    def task(one: Scored) -> str:
        return f"{listed(one.run.task.classes)} ({one.run.task.mode})"

    for one in every[1:]:
        if one.run.task != every[0].run.task:
            raise SegregError(
                f"{every[0].run.directory.path} and {one.run.directory.path} solve different tasks",
                hint=f"the classes of the one are {task(every[0])}, of the other {task(one)}",
            )


def _shared(every: Sequence[Scored]) -> list[str]:
    common = set(every[0].ids).intersection(*(one.ids for one in every))
    if not common:
        raise SegregError(
            "these runs have no scored image in common",
            hint="`segreg diff` of two of them shows how their data differ",
        )
    return [identity for identity in every[0].ids if identity in common]


def chosen_metric(metric: str, directions: Mapping[str, bool | None]) -> tuple[str, bool]:
    """Return the full name of the score to compare by, and whether larger values are better.

    Args:
        metric: what is asked for: a full name, or a metric's, whose mean over images is taken; empty: the first of
            these means that has a direction, else the first score that has one.
        directions: of all scores that there are, by their full names.

    Raises:
        SegregError: there is no such score, or it is unknown which direction is better.
    """
    if not directions:
        raise SegregError("these runs have no metric in common")
    names, known = list(directions), [name for name, larger in directions.items() if larger is not None]
    if not metric and known:
        chosen = next((name for name in known if name.endswith(PER_IMAGE_MEAN)), known[0])
    else:
        chosen = next((name for name in (metric or names[0], metric + PER_IMAGE_MEAN) if name in directions), "")
    if not chosen:
        raise SegregError(
            f'not all of these runs have a metric "{metric}"',
            hint=did_you_mean(metric, names) or f"there are {listed(names)}",
        )
    if (larger := directions[chosen]) is None:
        others = f"; others are {listed(known)}" if known else ""
        raise SegregError(
            f'nothing says whether larger values of "{chosen}" are better',
            hint=f"a metric declares it with its attribute higher_is_better{others}",
        )
    return chosen, larger


def _chosen_model(baseline: str, names: Sequence[str]) -> str:
    if not baseline or baseline in names:
        return baseline or names[0]
    near = did_you_mean(baseline, names)
    raise SegregError(f'there is no model "{baseline}" to compare with', hint=near or f"the models are {listed(names)}")


def _directions(names: Iterable[str], run: Run, metrics: MetricCollection) -> dict[str, bool | None]:
    """Return whether larger is better, as a run noted it, and else as its metrics say today."""
    known = run.results.get("higher_is_better", {})
    today = {} if all(name in known for name in names) else directions_without_images(metrics, run.task)
    return {name: known.get(name, today.get(name)) for name in names}


def _values(
    seeds: Sequence[Scored],
    names: Sequence[str],
    measure: Measure,
    shared: Sequence[str],
    draws: NDArray[np.float64] | None,
) -> dict[str, Value]:
    """Return each metric; on the images of all runs where every model's are known of single ones, else each run's."""
    own = dict(zip(measure.names, statistics.of_seeds(measure).T, strict=True))
    found = {}
    for name in names:
        of_seeds = own[name] if name in shared else np.array([one.values[name] for one in seeds])
        ends = None
        if draws is not None and name in shared:
            ends = statistics.interval(draws[:, shared.index(name)])
        low, high = ends or (None, None)
        found[name] = Value(float(np.mean(of_seeds)), low, high, tuple(map(float, of_seeds)))
    return found


def _per_image(seeds: Sequence[Scored], metric: str, ids: Sequence[str]) -> tuple[float, ...]:
    """Return the metric, or the one that its name begins with, of each image: the mean over seeds, ignoring NaN."""
    column = next((name for name in seeds[0].columns if metric in (name, name + PER_IMAGE_MEAN, name + ".pooled")), "")
    if not column or any(column not in one.columns for one in seeds):
        return ()
    values = np.array([one.columns[column][one.places(ids)] for one in seeds])
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of images without a value
        return tuple(map(float, np.nanmean(values, axis=0)))


def _curves(history: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for row in history for name in row)
    return {name: [row.get(name, float("nan")) for row in history] for name in names}


def _notices(scored: Mapping[str, Sequence[Scored]], metric: str, images: int) -> Iterator[str]:
    """Return the notices, the most important first; `images` is the number of those on which all runs were scored."""
    every = [seed for seeds in scored.values() for seed in seeds]
    runs = [run for one in every for run in one.runs]
    yield from dict.fromkeys(str(run.results["notice"]) for run in runs if run.results.get("notice"))
    random = [
        name for name, seeds in scored.items() if any(run.results.get("weights") for one in seeds for run in one.runs)
    ]
    if random:
        which = "every model" if len(random) == len(scored) else listed(random, most=6)
        yield f"RANDOM weights were used instead of pretrained ones in {which}; see the runs' own reports."
    if len({frozenset(one.ids) for one in every}) > 1:
        most = max(len(one.ids) for one in every)
        yield (
            f"The runs were scored on different images. This comparison is of the {images} that all of them were "
            f"scored on, of at most {most}; scores that can't be computed from single images are each run's own."
        )
    if any(one.split != "test" and len(one.runs) == 1 for one in every):
        yield "Some runs have no test images: their scores are of the images that chose their weights."
    for name, words in (("resolution", "resolutions"), ("dataset", "datasets")):
        values = list(dict.fromkeys(str(run.results.get(name)) for run in runs))
        if len(values) > 1:
            yield f"The runs were scored with different {words}: {listed(values)}."
    if others := [one for one in runs if _has_other_images(one, runs[0])]:
        which = listed([str(one.directory.path) for one in others], quote="", most=6)
        yield (
            f"Equal ids are not equal images: the images or masks of {which} are not those of "
            f"{runs[0].directory.path}, so that nothing paired here is of one image."
        )
    definitions = [meaning_and_way(str(one.run.results["definitions"].get(metric))) for one in every]
    meanings, ways = (list(dict.fromkeys(words)) for words in zip(*definitions, strict=True))
    if len(meanings) > 1:
        yield f"{metric} does not mean the same in all runs: {' / '.join(meanings)}"
    if len(ways) > 1:
        yield f"Images were predicted in different ways: {' / '.join(ways)}."
    digests: dict[str, dict[str, None]] = {}
    for run in runs:
        for what, digest in sources_of(run).items():
            digests.setdefault(what, {})[digest] = None
    for what, different in digests.items():
        if len(different) > 1 and what != EXPORTED:
            yield f"The {what} is not the same in all runs: {listed(list(different))}."
    yield from _environments(runs)


def _few_images(groups: Sequence[Hashable] | None, ids: Sequence[str], tests: int) -> Iterator[str]:
    """Return that tests are in vain, where even the smallest p of all ways to swap images or groups is too large."""
    smallest = min(1.0, tests * 2.0 ** (1 - len(set(groups or ids))))  # as they are, and all swapped; after Holm
    if smallest >= SIGNIFICANT_BELOW:
        over = statistics.resampled_words(groups) if groups else plural(len(ids), "image")
        yield (
            f"Over {over} no difference is significant, whatever it is: the p of the permutation test is "
            f"{smallest:g} at least{' after the correction for several models' if tests > 1 else ''}."
        )


def _has_other_images(run: Run, first: Run) -> bool:
    """Whether two runs' samples have the same ids and other files, as far as the runs have noted it."""
    if fingerprint_of(run) == fingerprint_of(first):
        return False
    try:
        return same_images(read_run(run.directory.path), read_run(first.directory.path)) is False
    except SegregError:
        return False


def fingerprint_of(run: Run) -> str:
    """Return the fingerprint of a run's images and masks as its network sees them; empty where it is unknown."""
    return str(run.environment.get("data_fingerprint", ""))


def _environments(runs: Sequence[Run]) -> Iterator[str]:
    every_facts = [_facts(run) for run in runs]
    names = dict.fromkeys(name for facts in every_facts for name in facts)
    differ = {name: list(dict.fromkeys(facts.get(name, "none") for facts in every_facts)) for name in names}
    differ = {name: values for name, values in differ.items() if len(values) > 1}
    if differ:
        words = "; ".join(f"{name} {listed(values)}" for name, values in differ.items())
        yield f"The runs' environments differ: {words}."


def sources_of(run: Run) -> dict[str, str]:
    """Return the digest of the source of each plugin that a run used, by "source of plugin"; segreg's own left out."""
    exported = {EXPORTED: run.made_as} if isinstance(run, ExportedRun) else {}
    found = run.environment.get("sources", {})
    return exported | {f"source of {plugin}": digest[:8] for plugin, digest in sorted(found.items())}


def _facts(run: Run) -> dict[str, str]:
    """Return device, precision and versions of a run, which may affect its scores."""
    if not (found := run.environment):
        return {}
    plugins = {plugin["distribution"]: plugin["version"] for plugin in found.get("plugins", ())}
    return {
        "device": str(found.get("device", {}).get("model")),
        "precision": str(found.get("precision")),
        **{name: str(version) for name, version in (plugins | found.get("packages", {})).items()},
    }
