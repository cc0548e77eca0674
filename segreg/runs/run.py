"""One run from recipe to results: data, network, training, scoring, images, all left in one directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from segreg.config.recipe import COMMAND_LINE, Recipe, read_recipe
from segreg.config.resolve import Choice, Resolved, resolve
from segreg.errors import SegregError
from segreg.models import build
from segreg.models.segmenter import describe
from segreg.registry.registry import Registry
from segreg.reports import report_if_possible
from segreg.runs.assembly import Assembly
from segreg.runs.directory import RunDirectory, make_run_directory, new_run_directory, open_run_directory
from segreg.runs.environment import environment
from segreg.runs.header import banner, header_lines, weights_notice
from segreg.runs.results import results_in_words, score_run
from segreg.runs.trained_run import Run, notes_for_weights
from segreg.runtime.distributed import barrier, count, from_main, is_main, launch, nodes, processes, started_again
from segreg.runtime.files import replacing, write_json
from segreg.runtime.progress import Progress, Quiet
from segreg.training import history
from segreg.training.checkpoint import STATE, State, load_state
from segreg.training.trainer import fit
from segreg.visualize.curves import plot_history

SECONDS_BETWEEN_CURVES = 20.0
"""Drawing takes a quarter of a second, which short epochs would feel."""


def start_run(
    recipe: Recipe,
    resolved: Resolved,
    registry: Registry,
    *,
    out: Path = Path("runs"),
    at: Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run a recipe in a new directory: `at`, or `out/<recipe>/<date>_<time>`.

    Everything is built and read before the directory is made, and it goes where training does not begin, so that a
    mistake leaves nothing behind. The processes that torchrun started run it together; where it started them again,
    they continue with what they had begun.

    Raises:
        SegregError: a part can't be built, the data is not as it should be, or training can't continue.
    """
    with processes():
        progress = _of_main(progress)
        resolved = with_absolute_paths(resolved)
        if begun := from_main(lambda: _begun_before(_parent(resolved, out, at))):
            return resume_run(begun, registry, progress)
        with Assembly.of(resolved, progress) as assembly, _directory_for(resolved, out, at) as directory:
            if is_main():
                directory.recipe.write_text(_as_read(recipe) or resolved.yaml(), encoding="utf-8")
                write_json(directory.split, assembly.sides_by_id())
                with replacing(directory.resolved) as aside:  # last, because it is what makes the folder a run's
                    aside.write_text(resolved.yaml(header=f"segreg run {directory.resolved}"), encoding="utf-8")
            return _train_and_score(directory, resolved, registry, assembly, progress)


def resume_run(path: Path, registry: Registry, progress: Progress | None = None) -> Run:
    """Goes on with a run from its last finished epoch; on a CPU it ends with the weights of a run never stopped.

    Raises:
        SegregError: there is no such run, or its data has changed since.
    """
    with processes():
        return _resumed(path, registry, _of_main(progress))


def _resumed(path: Path, registry: Registry, progress: Progress) -> Run:
    directory, written, before, state, split = from_main(lambda: _left_behind(path))
    resolved = resolve(written, registry)
    resolved = dataclasses.replace(resolved, source=before.get("recipe", resolved.source))
    with Assembly.of(resolved, progress, pretrained=state is None) as assembly:
        if split != assembly.sides_by_id():
            raise SegregError(
                f"the data of {resolved.dataset.part.name} is split otherwise than when {directory.path} began",
                hint=f"samples came or went; {directory.split} has those of the run. Start a new run instead",
            )
        if before.get("images") not in (None, assembly.prepared.folder.name):
            raise SegregError(
                f"the images or masks of {resolved.dataset.part.name} have changed since {directory.path} began",
                hint="its samples are the same, but what their files hold is not. Start a new run instead",
            )
        return _train_and_score(directory, resolved, registry, assembly, progress, state=state, before=before)


def _left_behind(path: Path) -> tuple[RunDirectory, Recipe, dict[str, Any], State | None, dict[str, list[str]]]:
    """Return what a run's directory holds to continue from: its recipe, environment, state and split."""
    directory = open_run_directory(path)
    before = json.loads(directory.environment.read_text(encoding="utf-8")) if directory.environment.exists() else {}
    written = read_recipe(directory.resolved)
    state = load_state(directory.path / STATE) if (directory.path / STATE).exists() else None
    return directory, written, before, state, json.loads(directory.split.read_text(encoding="utf-8"))


def _train_and_score(
    directory: RunDirectory,
    recipe: Resolved,
    registry: Registry,
    assembly: Assembly,
    progress: Progress,
    *,
    state: State | None = None,
    before: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Trains and scores what was built; `before` is the environment of the process that the run continues from."""
    facts = describe(assembly.objective.model)
    if state:
        _remember(state, before, facts, assembly)
    earlier = [{name: value for name, value in before.items() if name != "before"}] if before else []
    ran_on = {
        "recipe": recipe.source, **environment(registry, assembly.device), "precision": assembly.precision.name,
        "model": facts, "started_from": assembly.started or before.get("started_from", ""),
        "images": assembly.prepared.folder.name, "before": [*before.get("before", []), *earlier],
        "processes": {"count": count(), "nodes": (machines := nodes()), "launch": launch()},
    }  # fmt: skip
    if is_main():
        write_json(directory.environment, ran_on)
    header = header_lines(
        recipe, registry, sides={side: len(indices) for side, indices in assembly.sides.items()}, model=facts,
        device=f"{assembly.device} ({ran_on['device']['model']})", precision=assembly.precision.reason,
        memory=assembly.memory, folder=str(directory.path),
    )  # fmt: skip
    if count() > 1:
        on = "1 machine" if machines == 1 else f"{machines} machines"
        header.append(f"processes  {count()} on {on}, which share each batch of {recipe.train.batch}")
    if assembly.started:
        header.append("start      " + assembly.started.replace("\n", "\n           "))
    weights = weights_notice(facts)
    for line in [*banner(assembly.dataset.notice), *banner(weights), *header, ""]:
        progress.say(line)
    if is_main():
        _notify(registry, progress, "segreg_run_start", run=directory.path, recipe=recipe.plain())
    drawn = time.monotonic()

    def observe(epoch: int, values: Mapping[str, float]) -> None:
        nonlocal drawn
        if time.monotonic() - drawn > SECONDS_BETWEEN_CURVES:
            plot_history(history.read(directory.path), directory.curves, monitor=recipe.train.monitor, best_epoch=None)
            drawn = time.monotonic()
        _notify(registry, progress, "segreg_epoch_end", run=directory.path, epoch=epoch, values=dict(values))

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
        observe=observe if is_main() else None,
        progress=progress,
        resume=state,
    )
    try:
        results = score_run(directory, recipe, assembly, outcome, progress, weights=weights)
    except KeyboardInterrupt:
        progress.say(f"interrupted while scoring. Go on with: segreg run --resume {directory.path}")
        raise
    if is_main():
        write_json(directory.results, results)
        report_if_possible(directory, recipe, progress)
    barrier()  # a run that is given is whole
    run = Run(directory)
    if not is_main():
        return run
    _notify(registry, progress, "segreg_run_end", run=directory.path, results=run.results)
    if outcome.stopped_because != "interrupted":  # which the training itself has told
        for line in results_in_words(run.results, directory):
            progress.say(line)
    return run


def _remember(state: State, before: Mapping[str, Any], facts: dict[str, Any], assembly: Assembly) -> None:
    """Put back what pretrained weights brought to a run, for they are not fetched again to continue with it."""
    normalize = assembly.objective.normalize
    normalize.load_state_dict({name: state.objective[f"normalize.{name}"] for name in normalize.state_dict()})
    for role, told in before.get("model", {}).items():
        if isinstance(told, dict) and "weights" in told:
            facts[role]["weights"] = told["weights"]


@contextlib.contextmanager
def _directory_for(recipe: Resolved, out: Path, at: Path | None) -> Iterator[RunDirectory]:
    """Return a new run directory, which goes again if something goes wrong before training begins."""
    parent = _parent(recipe, out, at)
    made = [folder for folder in ((parent,) if at else (parent, out)) if not folder.exists()]
    directory = from_main(lambda: make_run_directory(at) if at else new_run_directory(parent))
    try:
        yield directory
    except BaseException:
        if is_main() and not (directory.path / STATE).exists() and not directory.history.exists():
            shutil.rmtree(directory.path, ignore_errors=True)
            for folder in made:
                with contextlib.suppress(OSError):  # another run has begun in it
                    folder.rmdir()
        raise


def _parent(recipe: Resolved, out: Path, at: Path | None) -> Path:
    """Return the folder of a new run's directory."""
    source = Path(recipe.source)
    # A run's own recipe has the name of the recipe that the run began with.
    of_a_run = source.stem in ("recipe", "resolved") and (source.parent / "split.json").exists()
    return at.parent if at else out / (source.absolute().parent.parent.name if of_a_run else source.stem)


def _begun_before(parent: Path) -> Path | None:
    """Return the run that these processes had begun in a folder when torchrun started them again."""
    if not started_again():
        return None
    for file in sorted(parent.glob("*/environment.json"), reverse=True):
        if json.loads(file.read_text(encoding="utf-8")).get("processes", {}).get("launch") == launch():
            return file.parent
    return None


def _of_main(progress: Progress | None) -> Progress:
    """Return the progress of the main process; the others tell nothing."""
    return progress if progress and is_main() else Quiet()


def _as_read(recipe: Recipe) -> str:
    """Return a recipe's text, with what was changed since it was read below it."""
    changes = ""
    for path in [path for path, place in recipe.places.items() if place == COMMAND_LINE]:
        value: Any = recipe.values
        for step in path:
            value = value[step]
        changes += f"#   {'.'.join(map(str, path))}={value if isinstance(value, str) else json.dumps(value)}\n"
    return f"{recipe.text}\n# overrides:\n{changes}" if recipe.text and changes else recipe.text


def _notify(registry: Registry, progress: Progress, hook: str, **arguments: Any) -> None:
    for complaint in registry.notify(hook, **arguments):
        progress.say(f"warning: {complaint}")


def with_absolute_paths(recipe: Resolved) -> Resolved:
    """Return the recipe with its paths made absolute, so that it runs again from any folder."""

    def absolute(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: absolute(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(absolute(item) for item in value)
        return value.expanduser().absolute() if isinstance(value, Path) else value

    def found(choice: Choice) -> Choice:
        return dataclasses.replace(choice, settings=absolute(choice.settings))

    split = dataclasses.replace(recipe.split, lists=absolute(recipe.split.lists))
    train = dataclasses.replace(recipe.train, start_from=absolute(recipe.train.start_from))
    return dataclasses.replace(
        recipe, dataset=found(recipe.dataset), encoder=found(recipe.encoder), decoder=found(recipe.decoder),
        auxiliary=found(recipe.auxiliary) if recipe.auxiliary else None, split=split, train=train,
    )  # fmt: skip
