"""What two runs differ in, formatted: lines to read, and the same as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from segreg.config.diff import ABSENT, RecipeDifference, in_short
from segreg.errors import listed
from segreg.runs.diff import Matter, Moved
from segreg.runs.diff_scores import MetricPair, Scores
from segreg.runs.listing import KnownRun

_WIDEST = 44
"""Longer values stand below each other rather than side by side."""
_MOST_NAMED = 3
_TITLES = {"packages": "plugins and packages", "start": "weights at the start"}


def lines(one: KnownRun, other: KnownRun, found: Sequence[Matter], scores: Scores | None) -> list[str]:
    """Return the differences as lines; what is equal is only named."""
    lines = [f"A  {one.directory.path}  ({one.state})", f"B  {other.directory.path}  ({other.state})"]
    for matter in found:
        if not matter.alike:
            lines += ["", _title(matter), *_side_by_side(matter.differences), *map(_move, matter.moved)]
    if alike := [_title(matter) for matter in found if matter.alike]:
        lines += ["", f"the two runs are alike in all of {listed(alike, quote='')}"]
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
        "differences": {matter.name: [_data(each) for each in matter.differences] for matter in found},
        "moved": [asdict(moved) for matter in found for moved in matter.moved],
        "alike": [matter.name for matter in found if matter.alike],
        "scores": scores and {
            **asdict(scores),
            "pairs": [{**asdict(pair), "difference": pair.difference} for pair in scores.pairs],
        },
    }  # fmt: skip


def _title(matter: Matter) -> str:
    return _TITLES.get(matter.name, matter.name)


def _side_by_side(differences: Sequence[RecipeDifference]) -> Iterator[str]:
    rows = [(each.path, *(_text(each.path, value) for value in (each.one, each.other))) for each in differences]
    short = [row for row in rows if max(len(row[1]), len(row[2])) <= _WIDEST]
    name = max((len(row[0]) for row in short), default=0)
    first = max((len(row[1]) for row in short), default=0)
    for each, row in zip(differences, rows, strict=True):
        if row in short:
            yield f"  {row[0]:<{name}}  A {row[1]:<{first}}  B {row[2]}"
        else:
            yield from (f"  {row[0]}", f"    A {row[1]}", f"    B {row[2]}")
        for run, settings in (("A", each.only_one), ("B", each.only_other)):
            if settings:
                lines = ", ".join(f"{key} {in_short(value)}" for key, value in settings.items())
                yield f"    only in {run}: {lines}"


def _text(name: str, value: Any) -> str:
    if value is None and "." not in name:  # a part that is not there; a setting's null is a value
        return "none"
    if value == "":
        return "none"
    return f"{value:g}" if isinstance(value, float) and name == "seconds" else in_short(value)


def _move(moved: Moved) -> str:
    count = f"{len(moved.ids)} sample" + ("s" if len(moved.ids) > 1 else "")
    names = listed(moved.ids, most=_MOST_NAMED)
    if moved.one and moved.other:
        return f"  {count} of {moved.one} in A, of {moved.other} in B: {names}"
    run, split = ("A", moved.one) if moved.one else ("B", moved.other)
    return f"  {count} only in {run}, in {split}: {names}"


def _score_lines(one: KnownRun, scores: Scores) -> Iterator[str]:
    weights = {True: "; so are the weights", False: "; the weights are not", None: ""}[scores.same_weights]
    if scores.identical:
        yield (
            f"the results are the same to the last bit: {_counted(len(scores.pairs), 'metric')}, and the values of "
            f"each of {_counted(scores.images, 'image')}{weights}"
        )
        yield from (f"  note: {note}" for note in scores.notes)
        return
    where = f"{scores.images} images of {one.split}"
    if set(scores.of) != {scores.images}:
        where = (
            f"the {_counted(scores.images, 'image')} that both were scored on (A on {scores.of[0]}, B on "
            f"{scores.of[1]})"
        )
    yield f"scores on {where}; intervals: 95%, paired bootstrap over images"
    yield from (f"  note: {note}" for note in scores.notes)
    if scores.without_counts:
        yield f"  note: pooled scores have no interval: {scores.without_counts}"
    if scores.same_weights:
        yield "  note: the weights are the same to the last bit"
    own = "" if all(pair.paired for pair in scores.pairs) or set(scores.of) == {scores.images} else "own images"
    rows = [(pair.name, *_numbers(pair), own if not pair.paired else "") for pair in scores.pairs]
    rows = [("", "A", "B", "B - A", "", ""), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        numbers = [f"{cell:>{width}}" for cell, width in zip(cells[:3], widths[1:4], strict=True)]
        yield "  " + "  ".join([f"{name:<{widths[0]}}", *numbers, f"{cells[3]:<{widths[4]}}", cells[4]]).rstrip()


def _numbers(pair: MetricPair) -> tuple[str, str, str, str]:
    values = ["undefined" if value is None else f"{value:.4f}" for value in (pair.one, pair.other)]
    difference = "" if pair.difference is None else f"{pair.difference:+.4f}"
    interval = "" if pair.low is None or pair.high is None else f"[{pair.low:+.4f}, {pair.high:+.4f}]"
    return values[0], values[1], difference, interval


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _data(difference: RecipeDifference) -> dict[str, Any]:
    lines: Mapping[str, Any] = asdict(difference)
    return {name: value for name, value in lines.items() if value is not ABSENT and value != {}}
