"""A run from recipe to results: prepare, fit, evaluate, write, with everything in one directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segreg.config.recipe import COMMAND_LINE, KeyPath, Recipe, one_line, read_recipe
from segreg.config.resolve import Choice, Resolved, resolve, resolve_begun
from segreg.errors import SegregError, listed
from segreg.evaluation.evaluator import Overlay
from segreg.models import build
from segreg.models.segmenter import describe
from segreg.models.trained import trained_tensors
from segreg.registry.compatibility import DISTRIBUTION
from segreg.registry.registry import Registry, load_registry
from segreg.runs.assembly import Assembly
from segreg.runs.directory import RunDirectory, new_run_directory, open_run_directory
from segreg.runs.environment import environment, header_lines, sources
from segreg.runs.plugin_files import keep, plugins_of
from segreg.runs.records import read_environment, read_split
from segreg.runs.results import Warnings, draw_run, format_results, score_run
from segreg.runs.sidecar import is_export
from segreg.runs.trained_run import Run
from segreg.runtime.distributed import barrier, count, from_main, is_main, launch, nodes, processes, started_again
from segreg.runtime.files import expanded, write_json, write_text
from segreg.runtime.hub import is_reference, pinned, refuse_to_write
from segreg.runtime.layout import Block, Column, Pasted, Styled, Table
from segreg.runtime.lock import locked_folder
from segreg.runtime.progress import Progress, Quiet
from segreg.training import history
from segreg.training.checkpoint import STATE, State, load_state, notes_for_weights
from segreg.training.resume import Output
from segreg.training.trainer import Outcome, Stop, TrainingData, fit
from segreg.visualize.plots import plot_history

SECONDS_BETWEEN_CURVES = 20.0
"""Plotting takes a quarter of a second, which would slow short epochs down."""


def start_run(
    recipe: Recipe,
    resolved: Resolved,
    registry: Registry,
    *,
    out: Path = Path("runs"),
    at: Path | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Run:
    """Run a recipe in a new directory: `at`, or `out/<recipe>/<date>_<time>`.

    Everything is built and read before the directory is made, and the directory is removed if training does not begin,
    so that a mistake leaves nothing behind. The processes that torchrun started share the run; if it restarted them,
    they continue the run that they had begun. `stop` may end its training after an epoch.

    Raises:
        SegregError: a part can't be built, the data is not valid, or training can't continue.
    """
    with processes():
        progress = _of_main(progress)
        resolved = with_absolute_paths(resolved)
        if begun := from_main(lambda: _begun_before(_parent(resolved, out, at))):
            return resume_run(begun, registry, progress, stop=stop)
        with (
            Assembly.of(resolved, progress) as assembly,
            _directory_for(recipe, assembly.recipe, out, at, assembly.ids_by_split()) as directory,
        ):
            return _Job(directory, registry, assembly, progress, stop=stop).run()


def resume_run(
    path: Path,
    registry: Registry,
    progress: Progress | None = None,
    *,
    overrides: Sequence[str] = (),
    without_history: bool = False,
    stop: Stop | None = None,
) -> Run:
    """Continue a run from its last finished epoch; on a CPU it ends with the weights of a run that never stopped.

    Args:
        path: the run's directory.
        registry: the plugins.
        progress: shows the progress.
        overrides: settings to change from here on, such as `train.epochs=40`; those in `CHANGEABLE` only.
        without_history: whether to continue where rows of the history are lost.
        stop: may end the training after an epoch.

    Raises:
        SegregError: there is no such run, another process works on it, a file of it is missing or damaged, its data
            has changed since, or an override would change what is past.
    """
    with processes(), contextlib.ExitStack() as stack:
        progress = _of_main(progress)
        directory = from_main(lambda: open_run_directory(path))
        refuse_to_write(directory.path, "train.start_from")
        if is_export(directory.path):
            raise SegregError(f"{path} is an exported network", hint="name the run that it was exported from")
        if is_main():
            stack.enter_context(locked_folder(directory.path, "run"))
        written, previous, state, split = from_main(lambda: _left_behind(directory, overrides, without_history))
        if stack.enter_context(plugins_of(directory)):
            registry = load_registry()
        resolved = with_absolute_paths(resolve_begun(written, registry))
        resolved = dataclasses.replace(resolved, source=previous.get("recipe", resolved.source))
        with Assembly.of(resolved, progress, continued=state.objective if state else None) as assembly:
            if split != assembly.ids_by_split():
                raise SegregError(
                    f"the data of {resolved.dataset.part.name} is split otherwise than when {directory.path} began",
                    hint=f"samples were added or removed; {directory.split} has the run's. Start a new run instead",
                )
            if previous.get("data_fingerprint") not in (None, assembly.prepared.folder.name):
                raise SegregError(
                    f"the images or masks of {resolved.dataset.part.name} have changed since {directory.path} began",
                    hint="its samples are the same, but not the content of their files, or the code that reads them. "
                    "Start a new run instead",
                )
            before = previous.get("sources", {})
            if changed := [name for name, digest in sources(resolved).items() if before.get(name) != digest]:
                progress.say(f"warning: the source of {listed(changed)} has changed since {directory.path} stopped")
            if overrides and is_main():
                write_text(directory.resolved, resolved.yaml(header=f"segreg run {directory.resolved}"))
                progress.say(f"changed from here on: {' '.join(overrides)}")
            return _Job(directory, registry, assembly, progress, state, previous, stop).run()


CHANGEABLE = (
    "train.epochs", "train.early_stopping", "train.time_budget_minutes", "train.workers", "train.device",
    "train.compile", "train.keep_state", "evaluate.overlays", "evaluate.batch_size",
)  # fmt: skip
"""What a run may change when it continues: what does not touch the epochs that are past.

The paths of its dataset and of `split.lists` may change too: images, masks and split are compared."""


def _left_behind(
    directory: RunDirectory, overrides: Sequence[str], without_history: bool
) -> tuple[Recipe, dict[str, Any], State | None, dict[str, list[str]]]:
    """Return what a run's directory holds to continue from: its recipe, environment, state and split."""
    written = read_recipe(directory.resolved, overrides)
    before = read_recipe(directory.resolved)
    for path in [path for path, place in written.places.items() if place == COMMAND_LINE]:
        name = ".".join(map(str, path))
        of_data = path[0] == "dataset" or path[:2] == ("split", "lists")
        moved = of_data and _looks_like_a_path(before, path)
        if name not in CHANGEABLE and not moved:
            raise SegregError(
                f'"{name}" can\'t be changed: the finished epochs of {directory.path} had it',
                hint=f"a run that continues may change {listed(CHANGEABLE)}, and the paths of its data; "
                f"`segreg run {directory.resolved} {' '.join(overrides)}` begins a new run",
            )
    optimizer = before.values.get("optimizer")
    if isinstance(optimizer, dict) and "exclude_from_weight_decay" not in optimizer:  # in earlier ones all had decay
        written = written.changed({"optimizer.exclude_from_weight_decay": False})
    previous = read_environment(directory.environment) if directory.environment.exists() else {}
    split = read_split(directory.split)
    rows = [] if without_history else history.read(directory.path)
    if not (directory.path / STATE).exists():
        left = [file.name for file in (directory.best, directory.last, directory.results) if file.exists()]
        if rows or left:
            kept = before.values.get("train", {}).get("keep_state") != "no"
            raise SegregError(
                f"{directory.path / STATE} is missing, though epochs were finished: {len(rows)} rows of history"
                + (f", {listed(left)}" if left else "")
                + ("" if kept else "; train.keep_state is no, so it was deleted when the run had finished"),
                hint=f"nothing was changed. `segreg run {directory.resolved}` begins a new run with the same recipe, "
                f"and with train.start_from={directory.path} from this one's weights",
            )
        return written, previous, None, split
    state = load_state(directory.path / STATE)
    finished = {int(row["epoch"]) for row in rows} | {state.epoch}  # the state has its epoch's row
    lost = sorted(set(range(1, state.epoch + 1)) - finished)
    if lost and not without_history:
        raise SegregError(
            f"{directory.path / history.JSON_LINES}: the rows of {len(lost)} finished epochs are missing",
            hint=f"nothing was changed. `segreg run --resume {directory.path} --without-history` continues",
        )
    return written, previous, state, split


def _looks_like_a_path(recipe: Recipe, path: KeyPath) -> bool:
    """Whether a resolved recipe, whose paths are absolute, has a path there."""
    value: Any = recipe.values
    for step in path:
        if not isinstance(value, (dict, list)) or (isinstance(value, dict) and step not in value):
            return False
        value = value[step]  # type: ignore[index]
    return isinstance(value, str) and Path(value).is_absolute()


@dataclass(frozen=True)
class _Job:
    """A run that is built and has its directory.

    Attributes:
        directory: the run's.
        registry: the plugins, whose hooks are called.
        assembly: what the recipe names, built.
        progress: shows what happens.
        state: the training state to continue from; None for a new run.
        previous: the environment of the process that the run continues from.
        stop: may end the training after an epoch.
    """

    directory: RunDirectory
    registry: Registry
    assembly: Assembly
    progress: Progress
    state: State | None = None
    previous: Mapping[str, Any] = field(default_factory=dict)
    stop: Stop | None = None

    @property
    def recipe(self) -> Resolved:
        """Return the run's recipe."""
        return self.assembly.recipe

    def run(self) -> Run:
        """Prepare, fit, evaluate and write; the observer sees each step in the main process only."""
        ran_on = self._prepare()
        observer = _Observer(self) if is_main() else None
        if observer:
            observer.start(ran_on)
        outcome = self._fit(observer)
        try:
            scored = score_run(self.directory, self.assembly, outcome, self.progress, ran_on["model"])
            if observer:
                observer.write(scored.results)
                draw_run(self.directory, scored, observer.warnings, observer.overlay)
        except KeyboardInterrupt:
            message = f"interrupted while scoring. Go on with: segreg run --resume {self.directory.path}"
            self.progress.say(message)
            raise KeyboardInterrupt(message) from None  # which a notebook shows
        if observer:
            observer.end(scored.results)
            if self.recipe.train.keep_state == "no" and outcome.stopped_because != "interrupted":
                (self.directory.path / STATE).unlink(missing_ok=True)
        barrier()  # every process returns a run whose files are complete
        return Run(self.directory)

    def _prepare(self) -> dict[str, Any]:
        """Write and return what the run runs on."""
        assembly, previous = self.assembly, self.previous
        model = describe(assembly.objective.model)
        if self.state:
            _restore_pretrained(self.state, previous, model, assembly)
        earlier = [{name: value for name, value in previous.items() if name != "previous"}] if previous else []
        ran_on = {
            "recipe": self.recipe.source, **environment(self.registry, assembly.device),
            "sources": sources(self.recipe),
            "precision": assembly.precision.name, "model": model,
            "initial_weights": assembly.initial_weights or previous.get("initial_weights", ""),
            "data_fingerprint": assembly.prepared.folder.name,
            "data": assembly.verdict.as_data(),
            "previous": [*previous.get("previous", []), *earlier],
            "processes": {"count": count(), "nodes": nodes(), "launch": launch()},
        }  # fmt: skip
        if is_main():
            keep(self.directory, self.registry)
            write_json(self.directory.environment, ran_on)
        return ran_on

    def _fit(self, observer: _Observer | None) -> Outcome:
        recipe, assembly = self.recipe, self.assembly
        model, task = assembly.objective.model, assembly.dataset.task
        return fit(
            assembly.setup(),
            TrainingData(assembly.train, assembly.val, build.build_metrics(recipe, task), task),
            Output(
                self.directory.path,
                notes=notes_for_weights(
                    recipe.yaml(),
                    task,
                    assembly.dataset.notice,
                    assembly.objective.normalize,
                    model.size_divisor,
                ),
                trained=trained_tensors(model),
                observe=observer.epoch_end if observer else None,
            ),
            resume=self.state,
            progress=self.progress,
            stop=self.stop,
        )


class _Observer:
    """Shows a run, plots its history and calls the plugins' hooks; that of segreg.reports writes the report."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.plotted = 0.0
        self.warnings = Warnings(job.directory.warnings)
        self.written = 0

    def start(self, ran_on: Mapping[str, Any]) -> None:
        """Before the first step."""
        job = self.job
        for line in [*header_lines(job.registry, job.assembly, ran_on, job.directory.path), ""]:
            job.progress.say(line)
        self.plotted = time.monotonic()
        self._call("segreg_run_start", recipe=job.recipe.plain())

    def epoch_end(self, epoch: int, values: Mapping[str, float]) -> None:
        """After an epoch, with its row of the history."""
        last = epoch == self.job.recipe.train.epochs  # whose curves are drawn with the results
        if not last and time.monotonic() - self.plotted > SECONDS_BETWEEN_CURVES:
            directory, monitor = self.job.directory, self.job.recipe.train.monitor
            with self.warnings.instead_of_error(directory.curves.name):
                plot_history(history.read(directory.path), directory.curves, monitor=monitor, best_epoch=None)
            self.plotted = time.monotonic()
        self._call("segreg_epoch_end", epoch=epoch, values=dict(values))

    def write(self, results: Mapping[str, Any]) -> None:
        """Write the results, with what has failed beside the run so far."""
        warnings = [*results["warnings"], *self.warnings.found]
        write_json(self.job.directory.results, {**results, "warnings": warnings})
        self.written = len(self.warnings.found)

    def overlay(self, overlay: Overlay) -> None:
        """After an overlay is written."""
        self._call("segreg_overlay", **vars(overlay))

    def end(self, results: Mapping[str, Any]) -> None:
        """After everything but the report is written."""
        directory = self.job.directory
        self._write_again(results)
        self._call("segreg_run_end", results=Run(directory).results)
        if self._write_again(results):
            self._call("segreg_run_end", only=_REPORT, results=Run(directory).results)
        results = Run(directory).results
        if results["stopped_because"] != "interrupted":  # which training has already reported
            for block in [*format_results(results, directory), *self._next()]:
                self.job.progress.say(block)

    def _next(self) -> list[Block]:
        """Return where the report is, and commands to try next."""
        directory, job, blocks = self.job.directory, self.job, list[Block]()
        if directory.report.exists():
            link = f"link {directory.report.absolute().as_uri()}"
            blocks = [Table([Column(), Column()], [["report", Styled(str(directory.report), link)]])]
        image = next((job.assembly.dataset.samples[i].image for i in job.assembly.splits.get("test", ())), None)
        run = shlex.quote(str(directory.path))
        commands = [f"segreg report {run} --open"]
        if image is not None and image.is_file():
            commands.append(f"segreg predict {run} {shlex.quote(_near(image))} --out predicted")
        recipe = Path(job.recipe.source)
        recipe = recipe if recipe.is_file() else directory.resolved
        for name in ("resnet34", "timm/resnet34", "timm/convnext_tiny"):
            with contextlib.suppress(SegregError):
                if job.recipe.encoder and name != job.recipe.encoder.part.name:
                    resolve(read_recipe(recipe, [f"encoder={name}"]), job.registry)
                    commands.append(f"segreg run {shlex.quote(_near(recipe))} encoder={name}")
                    break
        return [*blocks, "next:", *(Pasted(f"  {command}") for command in commands)]

    def _write_again(self, results: Mapping[str, Any]) -> bool:
        """Write the results again if something has failed since, and return whether it has."""
        if len(self.warnings.found) == self.written:
            return False
        with self.warnings.instead_of_error(f"what failed, in {self.job.directory.results.name},"):
            self.write(results)
        return True

    def _call(self, hook: str, *, only: str = "", **arguments: Any) -> None:
        """Call a hook; the run's directory and standard error get each failure once."""
        for complaint in self.job.registry.notify(hook, only=only, run=self.job.directory.path, **arguments):
            self.warnings.add(complaint, lasting=_REPORT not in complaint)


def _near(path: Path) -> str:
    """Return a path from the current folder on where it is below it."""
    with contextlib.suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)


_REPORT = f"{DISTRIBUTION}:builtin-reports"
"""The plugin that writes the report, which shows what the others have failed with at the run's end."""


def _restore_pretrained(state: State, previous: Mapping[str, Any], model: dict[str, Any], assembly: Assembly) -> None:
    """Restore what came with pretrained weights, which are not fetched again: normalization and notes."""
    normalize = assembly.objective.normalize
    normalize.load_state_dict({name: state.objective[f"normalize.{name}"] for name in normalize.state_dict()})
    for role, facts in previous.get("model", {}).items():
        if isinstance(facts, dict) and "weights" in facts:
            model[role]["weights"] = facts["weights"]


@contextlib.contextmanager
def _directory_for(
    recipe: Recipe, resolved: Resolved, out: Path, at: Path | None, split: Mapping[str, Sequence[str]]
) -> Iterator[RunDirectory]:
    """Make a new run directory and hold it; it is removed if something goes wrong before training begins."""
    parent = _parent(resolved, out, at)
    made = [folder for folder in ((parent,) if at else (parent, out)) if not folder.exists()]

    def files(directory: RunDirectory) -> dict[str, str]:
        return {
            directory.recipe.name: _as_read(recipe) or resolved.yaml(),
            directory.split.name: json.dumps(split, indent=2, ensure_ascii=False) + "\n",
            directory.resolved.name: resolved.yaml(header=f"segreg run {directory.resolved}"),
        }

    try:
        directory = from_main(lambda: new_run_directory(parent, at, files))
        try:
            with locked_folder(directory.path, "run") if is_main() else contextlib.nullcontext():
                yield directory
        except BaseException:
            if is_main() and not (directory.path / STATE).exists() and not directory.history.exists():
                shutil.rmtree(directory.path, ignore_errors=True)
            raise
    except BaseException:
        if is_main():
            for folder in made:
                with contextlib.suppress(OSError):  # a run is in it
                    folder.rmdir()
        raise


def _parent(recipe: Resolved, out: Path, at: Path | None) -> Path:
    """Return the folder of a new run's directory."""
    source = Path(recipe.source)
    # A run's own recipe has the name of the recipe that the run began with.
    of_a_run = source.stem in ("recipe", "resolved") and (source.parent / "split.json").exists()
    return at.parent if at else out / (source.absolute().parent.parent.name if of_a_run else source.stem)


def _begun_before(parent: Path) -> Path | None:
    """Return the run that these processes had begun in a folder when torchrun restarted them."""
    if not started_again():
        return None
    for file in sorted(parent.glob("*/environment.json"), reverse=True):
        if read_environment(file).get("processes", {}).get("launch") == launch():
            return file.parent
    return None


def _of_main(progress: Progress | None) -> Progress:
    """Return the progress of the main process; the others show nothing."""
    return progress if progress and is_main() else Quiet()


def _as_read(recipe: Recipe) -> str:
    """Return a recipe's text, with what was changed since it was read below it."""
    changes = ""
    for path in [path for path, place in recipe.places.items() if place == COMMAND_LINE]:
        value: Any = recipe.values
        for step in path:
            value = value[step]
        key = ".".join(map(str, path))
        changes += f"#   {key}={one_line(key, value)}\n"
    return f"{recipe.text}\n# overrides:\n{changes}" if recipe.text and changes else recipe.text


def with_absolute_paths(recipe: Resolved) -> Resolved:
    """Return the recipe with its paths made absolute, and with the commit of what it names on the hub.

    So it runs again from any folder, and means the same weights.
    """

    def absolute(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: absolute(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(absolute(item) for item in value)
        if isinstance(value, str) and is_reference(value):
            return pinned(value)
        return expanded(value).absolute() if isinstance(value, Path) else value

    def found(choice: Choice) -> Choice:
        return dataclasses.replace(choice, settings=absolute(choice.settings))

    split = dataclasses.replace(recipe.split, lists=absolute(recipe.split.lists))
    start = recipe.train.start_from
    start = absolute(start) if start is None or is_reference(start) else str(absolute(Path(start)))
    train = dataclasses.replace(recipe.train, start_from=start)
    one: dict[str, Any] = {"dataset": recipe.dataset, "optimizer": recipe.optimizer, **recipe.network_parts}
    parts: dict[str, Any] = {name: found(choice) for name, choice in one.items()}
    lists = ("augment", "batch_augment", "loss", "metrics")
    parts |= {name: tuple(map(found, getattr(recipe, name))) for name in lists}
    parts["schedule"] = recipe.schedule and found(recipe.schedule)
    return dataclasses.replace(recipe, split=split, train=train, **parts)
