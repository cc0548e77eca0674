"""What two runs differ in besides their scores: recipe, data, packages, what they ran on, start, network, training."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segreg.config.diff import RecipeDifference, recipe_differences
from segreg.errors import SegregError
from segreg.runs.environment import weights_notice
from segreg.runs.listing import KnownRun, read_run

_IMAGE_SETTINGS = ("size", "resize", "channels", "sixteen_bit")
"""Settings of the section `input` that are in the fingerprint of the prepared images."""

_FINGERPRINT = "fingerprint of images and masks as the network sees them"


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


def whole_run(path: Path) -> KnownRun:
    """Return a run whose files are all well.

    Raises:
        SegregError: there is no run, or a file of it is broken.
    """
    from segreg.runs.directory import open_run_directory

    run = read_run(open_run_directory(path).path)
    if run.problems:
        raise SegregError(f"{path} can't be compared: {'; '.join(run.problems)}")
    return run


def matters(one: KnownRun, other: KnownRun) -> list[Matter]:
    """Return everything that two runs are compared in besides their scores.

    Raises:
        SegregError: a run's list of samples is broken.
    """
    found = [Matter("recipe", tuple(recipe_differences(one.settings, other.settings)))]
    found.append(Matter("data", tuple(recipe_differences(_data(one), _data(other))), tuple(_moved(one, other))))
    for name, read in (
        ("packages", _packages), ("environment", _environment), ("start", _start), ("network", _network),
        ("training", _training),
    ):  # fmt: skip
        found.append(Matter(name, tuple(recipe_differences(read(one), read(other)))))
    return found


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
    return False if prepared_alike and _all_ids(one) == _all_ids(other) else None


def split_of(run: KnownRun) -> dict[str, list[str]]:
    """Return the ids of a run's samples, by the split that they are in.

    Raises:
        SegregError: `split.json` is missing or broken.
    """
    file = run.directory.split
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(split): [str(name) for name in ids] for split, ids in content.items()}
    except FileNotFoundError:
        raise SegregError(f"{file} is missing, which has the run's samples") from None
    except (OSError, ValueError, AttributeError, TypeError):
        raise SegregError(f"{file} does not hold the ids of each split's samples") from None


def _all_ids(run: KnownRun) -> set[str]:
    return {name for ids in split_of(run).values() for name in ids}


def _moved(one: KnownRun, other: KnownRun) -> list[Moved]:
    mine, its = ({name: split for split, ids in split_of(run).items() for name in ids} for run in (one, other))
    found: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys([*mine, *its]):
        splits = mine.get(name, ""), its.get(name, "")
        if splits[0] != splits[1]:
            found.setdefault(splits, []).append(name)
    return [Moved(*splits, tuple(ids)) for splits, ids in found.items()]


def _data(run: KnownRun) -> dict[str, Any]:
    known = {_FINGERPRINT: run.environment.get("data_fingerprint"), "notice": run.results.get("notice")}
    return _known({**known, "classes": run.results.get("classes")})


def _packages(run: KnownRun) -> dict[str, Any]:
    plugins: Sequence[Mapping[str, Any]] = run.environment.get("plugins") or ()
    versions = {str(plugin.get("distribution")): plugin.get("version") for plugin in plugins}
    broken = {f"{plugin.get('name')} (a plugin)": "not in use" for plugin in plugins if plugin.get("error")}
    return {**versions, **(run.environment.get("packages") or {}), **broken}


def _environment(run: KnownRun) -> dict[str, Any]:
    device = run.environment.get("device") or {}
    known = {name: run.environment.get(name) for name in ("python", "platform", "cpus")}
    known |= {"device": device.get("name"), "device's model": device.get("model"), "threads": device.get("threads")}
    known |= {"cuda": device.get("cuda"), "precision": run.environment.get("precision")}
    known |= {"commit": run.environment.get("commit")}
    command = run.environment.get("command")
    return _known({**known, "command": shlex.join(map(str, command)) if command else None})


def _start(run: KnownRun) -> dict[str, Any]:
    weights = run.results.get("weights") or weights_notice(run.environment.get("model") or {})
    return {"initial_weights": run.environment.get("initial_weights") or "", "weights": weights}


def _network(run: KnownRun) -> dict[str, Any]:
    model = run.environment.get("model") or {}
    return {
        name: {key: fact for key, fact in facts.items() if key != "weights"} if isinstance(facts, Mapping) else facts
        for name, facts in model.items()
    }


def _training(run: KnownRun) -> dict[str, Any]:
    known = {name: run.results.get(name) for name in ("stopped_because", "monitor", "best_epoch", "best_value")}
    # A run that was stopped has an environment for each time that it continued.
    processes = 1 + len(run.environment.get("previous") or ())
    return _known({"state": run.state, "epochs": run.epochs, **known, "processes": processes, "seconds": run.seconds})


def _known(known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in known.items() if value is not None}
