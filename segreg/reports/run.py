"""The page of a run: what its files hold, read into the template's variables; each file may be missing."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segreg.config.recipe import to_yaml
from segreg.config.resolve import SETTINGS, Choice, Resolved
from segreg.errors import SegregError, plural
from segreg.reports import charts
from segreg.reports.render import CLASS, definitions, number, render, split_name, worst_classes
from segreg.runs.directory import RunDirectory
from segreg.runs.environment import weights_notice
from segreg.runs.records import read_environment, read_evaluation, read_results, trained_since
from segreg.runtime.output import as_file_name, read_csv
from segreg.runtime.progress import duration
from segreg.settings import Setting, plain, settings_of
from segreg.training import history
from segreg.training.checkpoint import read_notes
from segreg.training.timing import SECONDS, format_shares

EVALUATIONS = "evaluations"
"""The folder in a run's directory that has a folder for each of its evaluations."""
DIAGRAMS = {
    "confusion.png": "Confusion matrix: true and predicted class of the pixels",
    "roc_pr_curves.png": "ROC and precision-recall curves",
    "reliability.png": "Reliability: how often predictions are right, by how certain they are",
}
"""Diagrams that the folder of a run or of an evaluation may have, with their captions."""
_WIDE = 800
"""Pixels from which a diagram gets the whole width of the page."""
_TILES, _MAX_OVERLAYS, _MAX_ENDS, _MAX_ROWS = 4, 8, 3, 200
"""How many metrics are shown large; overlays of a group; worst and best images of an evaluation; rows of images."""

_IsDefault = Callable[[str, Any], bool]


@dataclass(frozen=True)
class Scored:
    """What was scored: at the end of a run, or by an evaluation of it.

    Attributes:
        folder: where its files are.
        results: what `results.json` holds, or `metrics.json` of an evaluation; empty if there are none yet.
        per_image: a row for each image: its id and its scores.
    """

    folder: Path
    results: Mapping[str, Any]
    per_image: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, folder: Path, results: Path, read: Callable[[Path], dict[str, Any]]) -> Scored:
        """Return what a folder holds: its rows, and its results by a function that reads them."""
        return cls(folder, read(results) if results.is_file() else {}, _rows(folder / "per_image.csv"))

    @property
    def split(self) -> str:
        """The split that was scored last; empty if none was."""
        return str(self.results.get("scored_on") or "")

    @property
    def splits(self) -> list[str]:
        """All splits with scores; what was scored last comes first."""
        return sorted(self.results.get("metrics", {}), key=lambda split: split != self.split)

    def values(self, split: str) -> Mapping[str, float | None]:
        """Return a split's metrics by their full names."""
        values: Mapping[str, float | None] = self.results.get("metrics", {}).get(split, {})
        return values

    def interval(self, split: str, name: str) -> str:
        """Return a metric's 95% interval; empty if none was computed."""
        ends = self.ends(split, name)
        return f"[{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""

    def ends(self, split: str, name: str) -> tuple[float, float] | None:
        """Return the two ends of a metric's 95% interval; None if none was computed."""
        intervals = self.results.get("intervals") or {}
        ends = intervals.get(split, {}).get(name)
        return (ends[0], ends[1]) if ends and None not in ends else None

    def columns(self) -> list[str]:
        """Return the scores that every image has, without those of single classes."""
        names = self.per_image[0] if self.per_image else ()
        return [name for name in names if name != "id" and CLASS not in name]

    @property
    def higher_is_better(self) -> bool:
        """Whether larger values of the images' first score are better; also where that is unknown."""
        known: Mapping[str, bool] = self.results.get("higher_is_better", {})
        return all(known.get(name, True) for name in self.columns()[:1])

    def ordered(self) -> list[Mapping[str, Any]]:
        """Return the rows of the images, the worst first by the first score, undefined scores before all others."""
        columns = self.columns()
        if not columns:
            return []
        sign = 1.0 if self.higher_is_better else -1.0
        return sorted(self.per_image, key=lambda row: (not math.isnan(row[columns[0]]), sign * row[columns[0]]))

    def averages(self, split: str) -> dict[str, Any]:
        """Return the metrics of a split: pooled and per image by metric, and those that are neither."""
        known = self.results.get("classes", ())
        averaged: dict[str, dict[str, str]] = {}
        single: list[str] = []
        for name in self.values(split):
            metric, _ = split_name(name)
            if name.partition(CLASS)[2] in known:
                continue
            if metric != name:
                averaged.setdefault(metric, {})[name.removeprefix(metric)] = name
            else:
                single.append(name)
        noted = any(self.interval(split, name) for name in self.values(split))
        return {"averaged": averaged, "single": single, "has_intervals": noted}

    def classes(self) -> tuple[list[str], dict[str, dict[str, str]], str]:
        """Return the metrics that have values of single classes, for each class their full names, and a note.

        Of many classes those with the lowest values of the first metric are returned, and the note says so.
        """
        found: dict[str, dict[str, str]] = {}
        for name in self.values(self.split):
            metric, _, of_class = name.partition(CLASS)
            if of_class in self.results.get("classes", ()):
                found.setdefault(of_class, {})[metric] = name
        columns = list(dict.fromkeys(metric for by_metric in found.values() for metric in by_metric))
        values = self.values(self.split)
        shown, note = worst_classes({name: values.get(by.get(columns[0], "")) for name, by in found.items()})
        return columns, {name: found[name] for name in shown}, note

    def definitions(self) -> Any:
        """Return what each number is."""
        known = self.results.get("definitions", {})
        return definitions([*known, *(name for split in self.splits for name in self.values(split))], known)


def page(directory: RunDirectory, recipe: Resolved | None) -> str:
    """Return the page of a run.

    Args:
        directory: the run's.
        recipe: the run's, to mark what differs from the defaults; None marks nothing.

    Raises:
        SegregError: a file of the run is broken.
    """
    folders = sorted(file.parent for file in (directory.path / EVALUATIONS).glob("*/metrics.json"))
    scored = Scored.of(directory.path, directory.results, read_results)
    environment = read_environment(directory.environment) if directory.environment.is_file() else {}
    epochs = history.read(directory.path)
    if not scored.splits:  # interrupted after it had been scored
        scored = replace(scored, per_image=())
    notices = _notices(directory, scored.results, environment, epochs)
    title = f"{directory.path.absolute().parent.name} {directory.path.absolute().name}"
    return render(
        "run",
        title=title,
        tab_title=" - ".join([*(notice.partition(":")[0] for notice in notices), title, "segreg report"]),
        notices=notices,
        warnings=scored.results.get("warnings") or environment.get("data", {}).get("warnings", []),
        has_scores=any(scored.values(split) for split in scored.splits),
        scored=scored,
        tiles=[(name, *split_name(name)) for name in scored.values(scored.split) if CLASS not in name][:_TILES],
        folder=directory.path,
        started=_started(directory),
        took=duration(scored.results.get("training_seconds") or 0),
        time_shares=format_shares(scored.results.get("time", {})),
        diagrams=_diagrams(directory.path) if scored.splits else [],
        overlays=_overlays(directory, scored),
        histograms=[(name, *charts.histogram(name, [row[name] for row in scored.per_image]))
                    for name in scored.columns()],
        max_rows=_MAX_ROWS,
        max_ends=_MAX_ENDS,
        evaluations=[_evaluation(Scored.of(folder, folder / "metrics.json", read_evaluation)) for folder in folders],
        weights_epochs={file.stem: _epoch_of(file) for file in (directory.best, directory.last)},
        curves=directory.curves if directory.curves.is_file() else None,
        history=_history(epochs, scored.results.get("best_epoch")),
        recipe=None if recipe is None else Markup("").join(_recipe_lines(recipe)),
        recipe_text=directory.resolved.read_text("utf-8", "replace") if directory.resolved.is_file() else "",
        environment=environment,
        command=shlex.join(map(str, environment.get("command") or ())),
    )  # fmt: skip


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    try:
        header, rows = read_csv(file)
        if rows and "id" not in header:
            raise ValueError
    except ValueError:
        raise SegregError(f"{file} does not hold the scores of images") from None
    return [
        {name: value if name == "id" else _float(value) for name, value in zip(header, row, strict=False)}
        for row in rows
    ]


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _notices(
    directory: RunDirectory, results: Mapping[str, Any], environment: Mapping[str, Any], epochs: Sequence[Any]
) -> list[str]:
    """Return what must not be overlooked: synthetic images, random weights, a training that did not finish."""
    if "notice" in results:
        data_notice = str(results["notice"])
    else:
        data_notice = read_notes(directory.last).get("notice", "") if directory.last.is_file() else ""
    found = [data_notice, results.get("weights") or weights_notice(environment.get("model", {}))]
    found += results.get("alerts") or environment.get("data", {}).get("alerts", [])
    if trained_since(results, epochs):
        found.append(f"NOT FINISHED: the scores are of {plural(results['epochs'], 'epoch')}; {len(epochs)} are trained")
    elif not results:
        found.append(f"NOT FINISHED: there are no results yet, after {plural(len(epochs), 'epoch')}")
    elif results.get("stopped_because") == "interrupted":
        found.append(f"INTERRUPTED after {plural(results['epochs'], 'epoch')}: nothing was scored")
    return [notice for notice in dict.fromkeys(found) if notice]


def _epoch_of(weights: Path) -> str:
    """Return the epoch of a weights file; empty where it can't be read, which is no reason not to report."""
    try:
        return read_notes(weights).get("epoch", "")
    except SegregError:
        return ""


def _started(directory: RunDirectory) -> str:
    """Return when the run started, by the name of its folder; if that was renamed, by the time of its split file."""
    stamp = re.match(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)", directory.path.absolute().name)
    if stamp:
        return f"{stamp[1]} {stamp[2]}:{stamp[3]}:{stamp[4]}"
    file = directory.split
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(file.stat().st_mtime)) if file.is_file() else ""


# Images


def _diagrams(folder: Path) -> list[tuple[Path, str, bool]]:
    """Return file and caption of each diagram, and whether its text needs the whole width of the page."""
    return [(folder / name, caption, _is_wide(folder / name))
            for name, caption in DIAGRAMS.items() if (folder / name).is_file()]  # fmt: skip


def _is_wide(file: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(file) as opened:
            return opened.width > _WIDE
    except (OSError, ValueError):
        return False


def _overlays(directory: RunDirectory, scored: Scored) -> dict[str, Any]:
    """Return images with truth and prediction: the worst, the best, some sampled at random, and others."""
    files = sorted(directory.overlays.glob("*.png")) if scored.splits and directory.overlays.is_dir() else []
    groups = _groups(files, scored.results.get("overlays") or {}, scored.results.get("seed"))
    rows: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for rank, row in enumerate(scored.ordered(), start=1) if files else ():
        rows.setdefault(as_file_name(str(row["id"])), []).append((rank, row))
    shown = {heading: [_overlay(file, scored, rows) for file in members[:_MAX_OVERLAYS]]
             for heading, members in groups.items() if members}  # fmt: skip
    return {"groups": shown, "count": len(files), "shown": sum(map(len, shown.values()))}


def _groups(files: Sequence[Path], chosen: Mapping[str, Sequence[Any]], seed: Any) -> dict[str, list[Path]]:
    """Return the overlays by why they were chosen, according to the results."""
    of_stem: dict[str, list[Path]] = {}
    for file in files:
        of_stem.setdefault(file.stem.partition("_")[2], []).append(file)

    def named(why: str) -> list[Path]:
        found = [of_stem.get(as_file_name(str(identity)), []) for identity in chosen.get(why, ())]
        return [candidates[0] for candidates in found if len(candidates) == 1]

    groups = {"Worst": named("worst"), "Best": named("best"),
              f"Sampled at random from the others, with seed {seed}": named("random")}  # fmt: skip
    known = {file for members in groups.values() for file in members}
    heading = "Others, from the worst to the best" if known else "From the worst to the best"
    return {**groups, heading: [file for file in files if file not in known]}


def _overlay(
    file: Path, scored: Scored, rows: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]]
) -> tuple[Path, str, str]:
    """Return file, name and scores of an overlay; without scores if two ids have become one file name.

    Args:
        file: the overlay.
        scored: what was scored.
        rows: the place from the worst and the row of each image, by the name that its id gives a file.
    """
    stem = file.stem.partition("_")[2] or file.stem
    found = rows.get(stem, ())
    if len(found) != 1:
        return file, stem, ""
    rank, row = found[0]
    scores = ", ".join(f"{name} {number(row[name])}" for name in scored.columns())
    return file, str(row["id"]), f"{scores}; {rank} of {len(scored.per_image)} from the worst"


# Evaluations and the history


def _evaluation(scored: Scored) -> dict[str, Any]:
    ends = {name: sorted((scored.folder / name.lower()).glob("*.png"))[:_MAX_ENDS] for name in ("Worst", "Best")}
    return {
        "scored": scored,
        "diagrams": _diagrams(scored.folder),
        "ends": {name: [(file, file.stem.partition("_")[2] or file.stem, "") for file in found]
                 for name, found in ends.items() if found},
    }  # fmt: skip


def _history(epochs: Sequence[Mapping[str, float]], best: Any) -> dict[str, Any]:
    """Return the history as a table, without values of single classes and times."""
    names = list(dict.fromkeys(name for row in epochs for name in row))
    shown = [name for name in names if CLASS not in name and name != "epoch" and not name.startswith(SECONDS)]
    # Learning rates are often small and seldom round.
    rows = [
        (f"{row['epoch']:g}", row["epoch"] == best,
         ["" if n not in row else f"{row[n]:.4g}" if n.startswith("lr.") else number(row[n]) for n in shown])
        for row in epochs
    ]  # fmt: skip
    return {"columns": shown, "rows": rows, "is_whole": len(shown) + 1 >= len(names)}


# The recipe


def _recipe_lines(resolved: Resolved) -> Iterator[Markup]:
    """Return the YAML of a recipe, line by line; what differs from the defaults is marked."""
    choices: dict[str, list[Choice]] = {
        "dataset": [resolved.dataset], "augment": [*resolved.augment],
        "batch_augment": [*resolved.batch_augment],
        **{name: [choice] for name, choice in resolved.network_parts.items()},
        "loss": [*resolved.loss], "optimizer": [resolved.optimizer],
        "schedule": [resolved.schedule] if resolved.schedule else [],
    }  # fmt: skip
    for section, value in resolved.plain().items():
        parts = choices.get(section, [])
        heading = Markup("{}:\n").format(section)
        if isinstance(value, list) and parts:
            yield heading
            for item, choice in zip(value, parts, strict=True):
                yield from _settings(item, _default_of(choice.part.settings, weight=1.0), bullet=True)
        elif isinstance(value, Mapping) and parts:
            yield heading
            yield from _settings(value, _default_of(parts[0].part.settings))
        elif section in SETTINGS:
            yield heading
            rest = dict(value)
            if section == "evaluate":
                yield Markup("  metrics:\n")
                for item, choice in zip(rest.pop("metrics"), resolved.metrics, strict=True):
                    for line in _settings(item, _default_of(choice.part.settings), bullet=True):
                        yield "  " + line
            yield from _settings(rest, _default_of(settings_of(SETTINGS[section])))
        else:
            yield Markup("{}").format(to_yaml({section: value}))


def _settings(values: Mapping[str, Any], is_default: _IsDefault, *, bullet: bool = False) -> Iterator[Markup]:
    for place, (name, value) in enumerate(values.items()):
        for number_, line in enumerate(to_yaml({name: value}).splitlines()):
            indent = "- " if bullet and place == 0 and number_ == 0 else "  "
            form = Markup("{}{}\n") if is_default(name, value) else Markup("{}<mark>{}</mark>\n")
            yield form.format(indent, line)


def _default_of(settings: Mapping[str, Setting], **more: Any) -> _IsDefault:
    def is_default(name: str, value: Any) -> bool:
        if name in more:
            return bool(more[name] == value)
        setting = settings.get(name)
        return setting is not None and not setting.required and plain(setting.hint, setting.default) == value

    return is_default
