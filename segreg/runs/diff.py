"""What two runs differ in, as lines and as data; their scores are compared in `scored.py`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segreg.config.diff import ABSENT, RecipeDifference, in_short, recipe_differences
from segreg.errors import SegregError, listed, plural
from segreg.runs.directory import open_run_directory
from segreg.runs.environment import weights_notice
from segreg.runs.listing import KnownRun, read_run
from segreg.runs.records import read_split
from segreg.runs.sidecar import is_export
from segreg.runtime.layout import Block, Column, Styled, Table

_IMAGE_SETTINGS = ("size", "resize", "channels", "dtype", "sixteen_bit", "clip", "nodata", "normalize")
"""Settings of the section `input` that are in the fingerprint of the prepared images."""


@dataclass(frozen=True)
class Moved:
    """Samples that are in one split of the one run and in another of the other.

    Attributes:
        one: the split in the one run; empty where that run has no such samples.
        other: the split in the other run; empty likewise.
        ids: the samples.
    """

    one: str
    other: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Matter:
    """Something that two runs are compared in.

    Attributes:
        name: such as "recipe".
        differences: by the names of what differs.
        moved: samples that are split otherwise.
    """

    name: str
    differences: tuple[RecipeDifference, ...]
    moved: tuple[Moved, ...] = ()

    @property
    def alike(self) -> bool:
        """Whether the runs don't differ in it."""
        return not self.differences and not self.moved


@dataclass(frozen=True)
class MetricPair:
    """A metric of both runs.

    Attributes:
        name: its full name.
        one: the one run's value; None where it is undefined.
        other: the other run's.
        low: lower end of the 95% interval of the other's less the one's; None where there is none.
        high: upper end.
        paired: whether the values are of the images that both were scored on; else they are each run's own.
    """

    name: str
    one: float | None
    other: float | None
    low: float | None = None
    high: float | None = None
    paired: bool = True

    @property
    def difference(self) -> float | None:
        """Return the other's value less the one's."""
        return None if self.one is None or self.other is None else self.other - self.one


@dataclass(frozen=True)
class Scores:
    """What two runs were scored with, side by side.

    Attributes:
        pairs: the metrics that both have.
        images: how many images both were scored on.
        of: how many each of the two was scored on.
        notes: what makes the comparison less than it seems.
        without_counts: why pooled scores have no intervals; empty where they have some.
        identical: whether all metrics, and all values of single images, are the same to the last bit.
        same_weights: whether both runs' scored weights are; None where a file is missing or is not a safetensors.
        intervals_over: what was resampled, images or their groups.
    """

    pairs: tuple[MetricPair, ...]
    images: int
    of: tuple[int, int]
    notes: tuple[str, ...]
    without_counts: str
    identical: bool
    same_weights: bool | None
    intervals_over: str = "images"


def whole_run(path: Path) -> KnownRun:
    """Return a run whose files are all well.

    Raises:
        SegregError: there is no run, or a file of it is broken.
    """
    run = read_run(open_run_directory(path).path)
    if run.problems:
        raise SegregError(f"{path} can't be compared: {'; '.join(run.problems)}")
    return run


def matters(one: KnownRun, other: KnownRun) -> list[Matter]:
    """Return everything that two runs are compared in besides their scores.

    Raises:
        SegregError: a run's list of samples is broken.
    """
    mine, its = _facts(one), _facts(other)
    moved = tuple(_moved(one, other))
    return [
        Matter(name, tuple(recipe_differences(mine[name], its[name])), moved if name == "data" else ()) for name in mine
    ]


def _facts(run: KnownRun) -> dict[str, Mapping[str, Any]]:
    """Return by matter what is known of a run."""
    environment, results = run.environment, run.results
    device, model = environment.get("device") or {}, environment.get("model") or {}
    plugins: Sequence[Mapping[str, Any]] = environment.get("plugins") or ()
    command = environment.get("command")
    return {
        "recipe": run.settings,
        "data": _known({
            "fingerprint of images and masks as the network sees them": environment.get("data_fingerprint"),
            "notice": results.get("notice"),
            "classes": results.get("classes"),
        }),
        "packages": {
            **{str(plugin.get("distribution")): plugin.get("version") for plugin in plugins},
            **(environment.get("packages") or {}),
            **{f"{plugin.get('name')} (a plugin)": "not in use" for plugin in plugins if plugin.get("error")},
        },
        "plugins": {
            f"{plugin.get('distribution')}:{plugin.get('name')}": str(plugin["digest"])[:8]
            for plugin in plugins if plugin.get("digest")
        },
        "environment": _known({
            **{name: environment.get(name) for name in ("python", "platform", "cpus")},
            "device": device.get("name"),
            "device's model": device.get("model"),
            "threads": device.get("threads"),
            "cuda": device.get("cuda"),
            "precision": environment.get("precision"),
            "commit": environment.get("commit"),
            "command": shlex.join(map(str, command)) if command else None,
        }),
        "start": {
            "initial_weights": environment.get("initial_weights") or "",
            "weights": results.get("weights") or weights_notice(model),
        },
        "network": {
            role: {name: fact for name, fact in own.items() if name != "weights"} if isinstance(own, dict) else own
            for role, own in model.items()
        },
        "training": _known({
            "state": run.state,
            "epochs": run.epochs,
            **{name: results.get(name) for name in ("stopped_because", "monitor", "best_epoch", "best_value")},
            # A run that was stopped has an environment for each time that it continued.
            "processes": 1 + len(environment.get("previous") or ()),
            "seconds": run.seconds,
        }),
    }  # fmt: skip


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def same_images(one: KnownRun, other: KnownRun) -> bool | None:
    """Whether the files of both runs' samples hold the same; None where the runs can't tell."""
    prints = [run.environment.get("data_fingerprint") for run in (one, other)]
    if None in prints:
        return None
    if prints[0] == prints[1]:
        return True
    inputs = [run.settings.get("input") or {} for run in (one, other)]
    prepared_alike = all(inputs[0].get(name) == inputs[1].get(name) for name in _IMAGE_SETTINGS)
    # The fingerprint is of all samples of all splits, as the network sees them.
    return False if prepared_alike and _split_by_id(one).keys() == _split_by_id(other).keys() else None


def _split_by_id(run: KnownRun) -> dict[str, str]:
    """Return the split that each of a run's samples is in."""
    return {name: split for split, ids in read_split(run.directory.split).items() for name in ids}


def _moved(one: KnownRun, other: KnownRun) -> list[Moved]:
    mine, its = _split_by_id(one), _split_by_id(other)
    found: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys([*mine, *its]):
        splits = mine.get(name, ""), its.get(name, "")
        if splits[0] != splits[1]:
            found.setdefault(splits, []).append(name)
    return [Moved(*splits, tuple(ids)) for splits, ids in found.items()]


# how it is shown

_WIDEST = 46
"""Longer values stand below each other rather than side by side."""
_TITLES = {"packages": "plugins and packages", "plugins": "source of plugins", "start": "weights at the start"}


def lines(one: KnownRun, other: KnownRun, found: Sequence[Matter], scores: Scores | None) -> list[Block]:
    """Return the differences as lines and tables; what is equal is only named."""
    lines: list[Block] = [f"A  {one.directory.path}  ({one.state})", f"B  {other.directory.path}  ({other.state})"]
    for matter in found:
        if not matter.alike:
            lines += ["", _title(matter), *_side_by_side(matter.differences), *map(_move, matter.moved)]
    if alike := [_title(matter) for matter in found if matter.alike]:
        lines += ["", f"the two runs are alike in all of {listed(alike, quote='')}"]
    if exports := [str(run.directory.path) for run in (one, other) if is_export(run.directory.path)]:
        names = shlex.join([str(one.directory.path), str(other.directory.path)])
        words = f"{listed(exports, quote='')}: an exported network, whose scores `segreg compare {names}` compares"
        return [*lines, "", words]
    if scores is None:
        without = [name for name, run in (("A", one), ("B", other)) if not run.split]
        which = f"{without[0]} has" if len(without) == 1 else "neither run has"
        return [*lines, "", f"{which} {'no scores' if len(without) == 1 else 'scores'} yet: nothing to compare"]
    return [*lines, "", *_score_lines(one, scores)]


def as_data(one: KnownRun, other: KnownRun, found: Sequence[Matter], scores: Scores | None) -> dict[str, Any]:
    """Return the same as JSON holds it; a setting that a run does not have is left out there."""
    return {
        "one": str(one.directory.path),
        "other": str(other.directory.path),
        "differences": {
            matter.name: [
                {name: value for name, value in asdict(each).items() if value is not ABSENT and value != {}}
                for each in matter.differences
            ]
            for matter in found
        },
        "moved": [asdict(moved) for matter in found for moved in matter.moved],
        "alike": [matter.name for matter in found if matter.alike],
        "scores": scores and {
            **asdict(scores),
            "pairs": [{**asdict(pair), "difference": pair.difference} for pair in scores.pairs],
        },
    }  # fmt: skip


def _title(matter: Matter) -> str:
    return _TITLES.get(matter.name, matter.name)


def _side_by_side(differences: Sequence[RecipeDifference]) -> Iterator[Block]:
    """Yield a table of the short values, then the long ones below each other, and what only one of them sets."""
    short, below = [], list[str]()
    for each in differences:
        values = [f"{run} {_text(each.path, value)}" for run, value in (("A", each.one), ("B", each.other))]
        if max(map(len, values)) <= _WIDEST:
            short.append([each.path, *values])
        else:
            below += [f"  {each.path}", *(f"    {value}" for value in values)]
        for run, settings in (("A", each.only_one), ("B", each.only_other)):
            if settings:
                lines = ", ".join(f"{key} {in_short(value)}" for key, value in settings.items())
                below.append(f"  {each.path} only in {run}: {lines}")
    if short:
        yield Table([Column(), Column(wraps=True), Column(wraps=True)], short, indent=2)
    yield from below


def _text(name: str, value: Any) -> str:
    if value == "" or (value is None and "." not in name):  # a part that is not there; a setting's null is a value
        return "none"
    return f"{value:g}" if isinstance(value, float) and name == "seconds" else in_short(value)


def _move(moved: Moved) -> str:
    count, names = plural(len(moved.ids), "sample"), listed(moved.ids, most=3)
    if moved.one and moved.other:
        return f"  {count} of {moved.one} in A, of {moved.other} in B: {names}"
    run, split = ("A", moved.one) if moved.one else ("B", moved.other)
    return f"  {count} only in {run}, in {split}: {names}"


def _score_lines(one: KnownRun, scores: Scores) -> Iterator[Block]:
    weights = {True: "; so are the weights", False: "; the weights are not", None: ""}[scores.same_weights]
    if scores.identical:
        yield (
            f"the results are the same to the last bit: {plural(len(scores.pairs), 'metric')}, and the values of "
            f"each of {plural(scores.images, 'image')}{weights}"
        )
        yield from (f"  note: {note}" for note in scores.notes)
        return
    where = f"{plural(scores.images, 'image')} of {one.split}"
    if set(scores.of) != {scores.images}:
        where = (
            f"the {plural(scores.images, 'image')} that both were scored on (A on {scores.of[0]}, B on {scores.of[1]})"
        )
    yield f"scores on {where}; intervals: 95%, paired bootstrap over {scores.intervals_over}"
    yield from (f"  note: {note}" for note in scores.notes)
    if scores.without_counts:
        yield f"  note: pooled scores have no interval: {scores.without_counts}"
    if scores.same_weights:
        yield "  note: the weights are the same to the last bit"
    own = "" if all(pair.paired for pair in scores.pairs) or set(scores.of) == {scores.images} else "own images"
    rows = [(pair.name, *_numbers(pair), "" if pair.paired else own) for pair in scores.pairs]
    heads = [Column(), *(Column(head, right=True) for head in ("A", "B", "B - A")), Column(), Column(wraps=True)]
    yield Table(heads, rows, indent=2)


def _numbers(pair: MetricPair) -> tuple[str, str, str, str]:
    values = ["undefined" if value is None else f"{value:.4f}" for value in (pair.one, pair.other)]
    difference = "" if pair.difference is None else f"{pair.difference:+.4f}"
    interval = "" if pair.low is None or pair.high is None else f"[{pair.low:+.4f}, {pair.high:+.4f}]"
    if pair.low is not None and pair.high is not None and (pair.low > 0 or pair.high < 0):
        difference = Styled(difference, "bold")
    return values[0], values[1], difference, interval
