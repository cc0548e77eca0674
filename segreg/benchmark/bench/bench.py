"""A bench from plan to page: checked whole, every run brought to its end, costs measured, all of it compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from segreg.benchmark.bench.board import board
from segreg.benchmark.bench.check import check
from segreg.benchmark.bench.folder import BenchFolder
from segreg.benchmark.bench.local import run_locally
from segreg.benchmark.bench.measure import costs_of
from segreg.benchmark.bench.plan import Plan, baseline_of
from segreg.benchmark.bench.trials import Cell, cells_of, combinations, settings_in_words
from segreg.benchmark.comparison.compare import compare
from segreg.benchmark.comparison.costs import with_costs
from segreg.benchmark.comparison.disagreement_record import Disagreement
from segreg.benchmark.comparison.record import Comparison, Failure
from segreg.benchmark.comparison.run_groups import RunGroup
from segreg.benchmark.comparison.runs import with_disagreements
from segreg.errors import SegregError
from segreg.registry.registry import Registry
from segreg.runs.trained_run import Run
from segreg.runtime.files import replacing
from segreg.runtime.progress import Progress

Executor = Literal["local", "ray"]


@dataclass(frozen=True)
class Way:
    """How a bench is carried out.

    Attributes:
        jobs: runs at the same time on this machine.
        executor: `local` runs them here, `ray` on a Ray cluster.
        resources: what each run takes of a cluster: `cpus`, `gpus`, `memory_gib`.
        retries: how often a run whose worker of a cluster was lost is begun again.
        rounds: how often each model's costs are measured; 0: not at all.
        again: whether runs that failed are tried again.
    """

    jobs: int = 1
    executor: Executor = "local"
    resources: Mapping[str, float] = field(default_factory=dict)
    retries: int = 2
    rounds: int = 3
    again: bool = False


def bench(
    plan: Plan, registry: Registry, folder: BenchFolder, way: Way, *, progress: Progress, stream: TextIO,
    mode: Literal["auto", "lines", "quiet"],
) -> tuple[Comparison, list[Disagreement]]:  # fmt: skip
    """Run a bench, or continue it; return the comparison and the images on which the models disagree.

    Args:
        plan: what is compared.
        registry: of the parts.
        folder: the bench's; what is finished in it is not run again.
        way: how.
        progress: is told of what is not a run.
        stream: is told how far the runs are.
        mode: how that is told.

    Raises:
        SegregError: anything in the plan or the data is wrong, or no run came to its end.
    """
    cells = checked_cells(plan, registry, folder, jobs=way.jobs, again=way.again, progress=progress)
    with board(cells, folder, stream, mode) as look:
        _run(cells, folder, way, look)
    return compared(plan, cells, folder, way, progress)


def checked_cells(
    plan: Plan, registry: Registry, folder: BenchFolder, *, jobs: int, again: bool, progress: Progress
) -> list[Cell]:
    """Return the runs of a plan, each with its recipe in the folder, after their networks were tried.

    Raises:
        SegregError: anything in the plan or the data is wrong.
    """
    cells = cells_of(plan, registry)
    prepare(cells, folder, again=again)
    check(cells, folder, jobs=jobs, progress=progress)
    return cells


def prepare(cells: Sequence[Cell], folder: BenchFolder, *, again: bool) -> None:
    """Make the folder and writes each run's recipe into it; with `again` failed runs are no longer so.

    Raises:
        SegregError: the folder can't be made.
    """
    folder.make()
    for cell in cells:
        if again:
            folder.failure(cell).unlink(missing_ok=True)
        file = folder.recipe(cell)
        if not file.exists():
            with replacing(file) as aside:
                aside.write_text(cell.recipe.yaml(header=f"segreg run {file}"), encoding="utf-8")


def _run(cells: Sequence[Cell], folder: BenchFolder, way: Way, look: Callable[[], None]) -> None:
    if way.executor == "ray":
        from segreg.benchmark.bench.ray import run_on_ray

        run_on_ray(cells, folder, resources=way.resources, retries=way.retries, look=look)
        return
    run_locally(cells, folder, jobs=way.jobs, gpus=_gpus(cells), look=look)


def _gpus(cells: Sequence[Cell]) -> list[str]:
    """Return the GPUs that runs can be dealt; none where a recipe names its device itself."""
    import torch

    if any(cell.recipe.train.device not in ("auto", "cuda") for cell in cells):
        return []
    return [str(number) for number in range(torch.cuda.device_count())]


def compared(
    plan: Plan, cells: Sequence[Cell], folder: BenchFolder, way: Way, progress: Progress
) -> tuple[Comparison, list[Disagreement]]:
    """Compare what is finished; return the comparison and the images on which the models disagree.

    Raises:
        SegregError: nothing is finished, or the runs can't be compared.
    """
    states = {cell.name: folder.state(cell) for cell in cells}
    done = [cell for cell in cells if states[cell.name] == "finished"]
    failed = [cell for cell in cells if states[cell.name] == "failed"]
    if not done:
        told = "\n".join(f"{cell.title}: {folder.reason(cell)}" for cell in failed)
        raise SegregError(f"no run came to its end\n{told}", hint=f"the logs are in {folder.cells}")
    groups = list(_contestants(done, folder))
    base = baseline_of(plan, combinations(plan))
    first = next((cell.model for cell in cells if cell.settings == settings_in_words(base)), "")
    names = [one.name for one in groups]
    comparison = compare(
        groups,
        title=_title(plan),
        metric=plan.metric,
        baseline=first if first in names else "",
        failures=[Failure(cell.model, cell.seed, folder.reason(cell), str(folder.run(cell).path)) for cell in failed],
        waiting=len(cells) - len(done) - len(failed),
    )
    one_of_each = list({cell.key: cell for cell in reversed(done)}.values())
    found = costs_of(one_of_each, folder, rounds=way.rounds, progress=progress)
    by_name = {cell.model: found.of.get(cell.key, {}) for cell in one_of_each}
    comparison = with_costs(comparison, by_name, found.method)
    return with_disagreements(comparison, groups, progress)


def _contestants(done: Sequence[Cell], folder: BenchFolder) -> Iterator[RunGroup]:
    models: dict[str, list[Cell]] = {}
    for cell in done:
        models.setdefault(cell.key, []).append(cell)
    for seeds in models.values():
        first = seeds[0]
        yield RunGroup(first.model or "the recipe", first.settings, tuple(Run(folder.run(cell)) for cell in seeds))


def _title(plan: Plan) -> str:
    varied = " and ".join(plan.vary) or "seeds"
    return f"{Path(plan.recipe).stem}: {varied}"
