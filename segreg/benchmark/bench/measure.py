"""What a bench's models cost: measured once, when no run is left, and kept in the bench's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from segreg.benchmark.bench.check import subjects_of
from segreg.benchmark.bench.folder import BenchFolder, held
from segreg.benchmark.bench.trials import Cell
from segreg.benchmark.comparison.record import Cost
from segreg.runtime.files import write_json
from segreg.runtime.progress import Progress

_LONGEST_MEASUREMENT = 6 * 3600.0


@dataclass(frozen=True)
class Costs:
    """What models cost.

    Attributes:
        of: by a model's key its costs by name.
        method: how they were measured, in sentences.
    """

    of: Mapping[str, Mapping[str, Cost]]
    method: tuple[str, ...]


def costs_of(cells: Sequence[Cell], folder: BenchFolder, *, rounds: int, progress: Progress) -> Costs:
    """Return the costs of the cells' models; they are measured where they are not known of all of them together.

    Args:
        cells: a run of each model.
        folder: the bench's. Who measures holds a lock in it, so that processes don't disturb each other.
        rounds: how often each model is measured; 0 measures nothing.
        progress: is told what happens.
    """
    from segreg.benchmark.cost.running import measure

    keys = {cell.key for cell in cells}
    if known := _known(folder, keys):
        return known
    if not rounds or not cells:
        return Costs({}, ())
    with held(folder.path / "measure.lock", wait=_LONGEST_MEASUREMENT):
        if known := _known(folder, keys):
            return known
        subjects = subjects_of(cells)
        found = measure({cell.model: subjects[cell.key] for cell in cells}, rounds=rounds, progress=progress)
        failed = [f"{name} could not be measured: {one.reason}" for name, one in found.of.items() if one.reason]
        method = [*found.in_words(), *failed]
        each = {cell.key: found.of[cell.model].costs for cell in cells}
        of = {key: {name: asdict(cost) for name, cost in costs.items()} for key, costs in each.items()}
        write_json(folder.costs, {"method": method, "of": of})
        return Costs({key: _costs(told) for key, told in of.items()}, tuple(method))


def _known(folder: BenchFolder, keys: set[str]) -> Costs | None:
    try:
        told = json.loads(folder.costs.read_text(encoding="utf-8"))
        if not keys <= set(told["of"]):
            return None
        return Costs({key: _costs(told["of"][key]) for key in keys}, tuple(told["method"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _costs(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Cost]:
    return {name: Cost(**cost) for name, cost in told.items()}
