"""One run from recipe to results: data, network, training, scoring, pictures, all left in one directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segreg import build, history
from segreg.assembly import Assembly
from segreg.checkpoint import STATE, load_state
from segreg.environment import environment
from segreg.errors import SegregError
from segreg.header import banner, header_lines
from segreg.model import describe
from segreg.pictures import draw_curves
from segreg.progress import Progress, Quiet
from segreg.recipe import Recipe, read_recipe
from segreg.registry import Registry
from segreg.resolve import Resolved, resolve
from segreg.results import results_in_words, score_run
from segreg.rundir import RunDirectory, new_run_directory, open_run_directory, write_json
from segreg.train import fit
from segreg.trained import Run, notes_for_weights


def start_run(
    recipe: Recipe,
    resolved: Resolved,
    registry: Registry,
    *,
    out: Path = Path("runs"),
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Runs a recipe in a new directory `out/<recipe>/<date>_<time>`.

    Everything is built and read before the directory is made, so that a mistake leaves nothing behind.

    Raises:
        SegregError: a part can't be built, the data is not as it should be, or training can't go on.
    """
    progress = progress or Quiet()
    resolved = _with_absolute_paths(resolved)
    with Assembly.of(resolved, progress) as assembly:
        directory = new_run_directory(out / Path(resolved.source).stem)
        text = recipe.text or resolved.yaml()
        if overrides:
            text += "\n# overrides on the command line:\n" + "".join(f"#   {override}\n" for override in overrides)
        directory.recipe.write_text(text, encoding="utf-8")
        directory.resolved.write_text(resolved.yaml(header=f"segreg run {directory.resolved}"), encoding="utf-8")
        write_json(directory.split, assembly.sides_by_id())
        return _train_and_score(directory, resolved, registry, assembly, progress, resume=False)


def resume_run(path: Path, registry: Registry, progress: Progress | None = None) -> Run:
    """Goes on with a run from its last finished epoch; on a CPU it ends with the weights of a run never stopped.

    Raises:
        SegregError: there is no such run, or its data has changed since.
    """
    progress = progress or Quiet()
    directory = open_run_directory(path)
    resolved = resolve(read_recipe(directory.resolved), registry)
    with Assembly.of(resolved, progress, pretrained=not (directory.path / STATE).exists()) as assembly:
        if json.loads(directory.split.read_text(encoding="utf-8")) != assembly.sides_by_id():
            raise SegregError(
                f"the data of {resolved.dataset.part.name} is split otherwise than when {directory.path} began",
                hint=f"samples came or went; {directory.split} has those of the run. Start a new run instead",
            )
        return _train_and_score(directory, resolved, registry, assembly, progress, resume=True)


def _train_and_score(
    directory: RunDirectory,
    recipe: Resolved,
    registry: Registry,
    assembly: Assembly,
    progress: Progress,
    *,
    resume: bool,
) -> Run:
    facts = describe(assembly.objective.model)
    ran_on = {**environment(registry, assembly.device), "model": facts, "precision": assembly.precision.name}
    write_json(directory.environment, ran_on)
    notice = assembly.dataset.notice
    header = header_lines(
        recipe, registry, sides={side: len(indices) for side, indices in assembly.sides.items()}, model=facts,
        device=f"{assembly.device} ({ran_on['device']['model']})", precision=assembly.precision.reason,
        memory=assembly.memory, folder=str(directory.path),
    )  # fmt: skip
    for line in [*banner(notice), *banner(facts["encoder"].get("weights", "")), *header, ""]:
        progress.say(line)
    _notify(registry, progress, "segreg_run_start", run=directory.path, recipe=recipe.plain())

    def observe(epoch: int, values: Mapping[str, float]) -> None:
        draw_curves(history.read(directory.path), directory.curves, monitor=recipe.train.monitor, best_epoch=None)
        _notify(registry, progress, "segreg_epoch_end", run=directory.path, epoch=epoch, values=dict(values))

    state_file = directory.path / STATE
    outcome = fit(
        assembly.objective,
        train=assembly.train,
        val=assembly.val,
        metrics=build.build_metrics(recipe, assembly.dataset.task),
        build_optimizer=lambda groups: build.build_optimizer(recipe, groups),
        build_schedule=lambda optimizer, steps, _: build.build_schedule(recipe, optimizer, steps),
        settings=recipe.train,
        device=assembly.device,
        precision=assembly.precision,
        run_dir=directory.path,
        seed=recipe.seed,
        notes=notes_for_weights(recipe, assembly.dataset, assembly.objective.normalize),
        observe=observe,
        progress=progress,
        resume=load_state(state_file) if resume and state_file.exists() else None,
    )
    results = score_run(directory, recipe, assembly, outcome, progress)
    write_json(directory.results, results)
    _notify(registry, progress, "segreg_run_end", run=directory.path, results=results)
    for line in results_in_words(results, directory):
        progress.say(line)
    return Run(directory)


def _notify(registry: Registry, progress: Progress, hook: str, **arguments: Any) -> None:
    for complaint in registry.notify(hook, **arguments):
        progress.say(f"warning: {complaint}")


def _with_absolute_paths(recipe: Resolved) -> Resolved:
    """Gives the recipe with the dataset's paths made absolute, so that it runs again from any folder."""

    def absolute(value: Any) -> Any:
        return value.expanduser().absolute() if isinstance(value, Path) else value

    dataset = dataclasses.replace(
        recipe.dataset, settings={name: absolute(value) for name, value in recipe.dataset.settings.items()}
    )
    split = dataclasses.replace(recipe.split, lists={k: absolute(v) for k, v in recipe.split.lists.items()})
    return dataclasses.replace(recipe, dataset=dataset, split=split)
