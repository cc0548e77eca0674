"""One run from recipe to results: data, network, training, scoring, pictures, all left in one directory."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg import build, history
from segreg.checkpoint import STATE, load_state, load_weights, replacing
from segreg.data import Batches, Prepared, Side, divide, fitting_workers, prepare, restore
from segreg.device import choose_device, choose_precision, prepare_process, seed_everything
from segreg.environment import environment
from segreg.errors import SegregError
from segreg.evaluate import Scores, evaluate, predict_logits
from segreg.header import banner, header_lines
from segreg.model import describe
from segreg.objective import Objective
from segreg.pictures import draw_curves, side_by_side
from segreg.progress import Progress, Quiet, duration
from segreg.recipe import Recipe, read_recipe
from segreg.registry import Registry
from segreg.resolve import Resolved, resolve
from segreg.rundir import RunDirectory, new_run_directory, open_run_directory, write_json
from segreg.train import Outcome, fit
from segreg.trained import Run, notes_for_weights

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from segreg.contracts import Dataset
    from segreg.device import Precision


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
    with _Built.of(resolved, progress) as built:
        directory = new_run_directory(out / Path(resolved.source).stem)
        text = recipe.text or resolved.yaml()
        if overrides:
            text += "\n# overrides on the command line:\n" + "".join(f"#   {override}\n" for override in overrides)
        directory.recipe.write_text(text, encoding="utf-8")
        absolute = _with_absolute_paths(resolved)
        directory.resolved.write_text(absolute.yaml(header=f"segreg run {directory.resolved}"), encoding="utf-8")
        write_json(directory.split, built.sides_by_id())
        return _train_and_score(directory, resolved, registry, built, progress, resume=False)


def resume_run(path: Path, registry: Registry, progress: Progress | None = None) -> Run:
    """Goes on with a run from its last finished epoch; on a CPU it ends with the weights of a run never stopped.

    Raises:
        SegregError: there is no such run, or its data has changed since.
    """
    progress = progress or Quiet()
    directory = open_run_directory(path)
    resolved = resolve(read_recipe(directory.resolved), registry)
    with _Built.of(resolved, progress, pretrained=not (directory.path / STATE).exists()) as built:
        if json.loads(directory.split.read_text(encoding="utf-8")) != built.sides_by_id():
            raise SegregError(
                f"the data of {resolved.dataset.part.name} is split otherwise than when {directory.path} began",
                hint=f"samples came or went; {directory.split} has those of the run. Start a new run instead",
            )
        return _train_and_score(directory, resolved, registry, built, progress, resume=True)


@dataclass
class _Built:
    """What a run is made of, before its first step."""

    recipe: Resolved
    dataset: Dataset
    sides: Mapping[Side, list[int]]
    prepared: Prepared
    objective: Objective
    device: torch.device
    precision: Precision
    memory: str
    train: Batches
    val: Batches

    @classmethod
    def of(cls, recipe: Resolved, progress: Progress, *, pretrained: bool = True) -> _Built:
        """Builds everything that a recipe names, cheap things first, so that mistakes show early."""
        memory = prepare_process()
        device = choose_device(recipe.train.device)
        precision = choose_precision(recipe.train.precision, device)
        dataset = build.build_dataset(recipe)
        sides = divide(dataset, recipe.split)
        augment = build.build_augmentations(recipe)
        losses = build.build_losses(recipe, dataset.task)
        build.build_metrics(recipe, dataset.task)
        seed_everything(recipe.seed)
        model = build.build_model(recipe if pretrained else build.without_pretrained(recipe), dataset.task)
        normalize = build.build_normalize(recipe, model.encoder)  # type: ignore[arg-type]
        auxiliary = recipe.auxiliary.weight if recipe.auxiliary else 0.0
        objective = Objective(model, normalize, losses, auxiliary_weight=auxiliary)
        prepared = _prepared(dataset, recipe, sides, progress)
        asked = recipe.train.workers
        workers = fitting_workers(device.type) if asked == "auto" else asked

        def batches(side: Side, *, train: bool) -> Batches:
            return Batches(
                prepared,
                sides[side],
                batch_size=recipe.train.batch_size if train else _evaluation_batch(recipe),
                augment=augment if train else None,
                seed=recipe.seed,
                order="shuffled" if train else "in_order",
                workers=workers if train else 0,
            )

        return cls(
            recipe, dataset, sides, prepared, objective, device, precision, memory,
            batches("train", train=True), batches("val", train=False),
        )  # fmt: skip

    def __enter__(self) -> _Built:
        return self

    def __exit__(self, *_: object) -> None:
        self.train.close()
        self.val.close()

    def sides_by_id(self) -> dict[str, list[str]]:
        """Gives the samples' ids of each side."""
        return {side: [self.dataset.samples[i].id for i in indices] for side, indices in self.sides.items()}

    def in_order(self, indices: Sequence[int]) -> Batches:
        """Gives some samples in order, as they are evaluated."""
        return Batches(self.prepared, indices, batch_size=_evaluation_batch(self.recipe), order="in_order")


def _prepared(dataset: Dataset, recipe: Resolved, sides: Mapping[Side, list[int]], progress: Progress) -> Prepared:
    chosen = [index for indices in sides.values() for index in indices]
    with progress.watch("preparing pictures", len(chosen), "pictures") as advance:
        before = 0

        def tell(done: int, _: int) -> None:
            nonlocal before
            advance(done - before)
            before = done

        return prepare(dataset, recipe.input, indices=chosen, progress=tell)


def _evaluation_batch(recipe: Resolved) -> int:
    return recipe.evaluate.batch_size or recipe.train.batch_size


def _train_and_score(
    directory: RunDirectory,
    recipe: Resolved,
    registry: Registry,
    built: _Built,
    progress: Progress,
    *,
    resume: bool,
) -> Run:
    facts = describe(built.objective.model)
    ran_on = {**environment(registry, built.device), "model": facts, "precision": built.precision.name}
    write_json(directory.environment, ran_on)
    notice = built.dataset.notice
    header = header_lines(
        recipe, registry, sides={side: len(indices) for side, indices in built.sides.items()}, model=facts,
        device=f"{built.device} ({ran_on['device']['model']})", precision=built.precision.reason,
        memory=built.memory, folder=str(directory.path),
    )  # fmt: skip
    for line in [*banner(notice), *header, ""]:
        progress.say(line)
    _notify(registry, progress, "segreg_run_start", run=directory.path, recipe=recipe.plain())

    def observe(epoch: int, values: Mapping[str, float]) -> None:
        draw_curves(history.read(directory.path), directory.curves, monitor=recipe.train.monitor, best_epoch=None)
        _notify(registry, progress, "segreg_epoch_end", run=directory.path, epoch=epoch, values=dict(values))

    state_file = directory.path / STATE
    outcome = fit(
        built.objective,
        train=built.train,
        val=built.val,
        metrics=build.build_metrics(recipe, built.dataset.task),
        build_optimizer=lambda groups: build.build_optimizer(recipe, groups),
        build_schedule=lambda optimizer, steps, _: build.build_schedule(recipe, optimizer, steps),
        settings=recipe.train,
        device=built.device,
        precision=built.precision,
        run_dir=directory.path,
        seed=recipe.seed,
        notes=notes_for_weights(recipe, built.dataset, built.objective.normalize),
        observe=observe,
        progress=progress,
        resume=load_state(state_file) if resume and state_file.exists() else None,
    )
    results = _score(directory, recipe, built, outcome, progress)
    write_json(directory.results, results)
    _notify(registry, progress, "segreg_run_end", run=directory.path, results=results)
    for line in _results_in_words(results, directory):
        progress.say(line)
    return Run(directory)


def _notify(registry: Registry, progress: Progress, hook: str, **arguments: Any) -> None:
    for complaint in registry.notify(hook, **arguments):
        progress.say(f"warning: {complaint}")


def _score(
    directory: RunDirectory, recipe: Resolved, built: _Built, outcome: Outcome, progress: Progress
) -> dict[str, Any]:
    """Scores the best weights, writes the rows and pictures, and gives the results."""
    results: dict[str, Any] = {
        "notice": built.dataset.notice,
        "recipe": recipe.source,
        "dataset": recipe.dataset.part.name,
        "classes": list(built.dataset.task.classes),
        "seed": recipe.seed,
        "images": {side: len(indices) for side, indices in built.sides.items()},
        "epochs": outcome.epochs,
        "stopped_because": outcome.stopped_because,
        "monitor": outcome.monitor,
        "best_epoch": outcome.best_epoch,
        "best_value": outcome.best_value,
        "training_seconds": round(outcome.seconds, 3),
        "precision": built.precision.name,
        "scored_on": None,
        "resolution": recipe.evaluate.resolution,
        "metrics": {},
        "definitions": {},
    }
    if outcome.weights is None or outcome.stopped_because == "interrupted":
        return results
    load_weights(built.objective.model, outcome.weights)
    side: Side = "test" if built.sides.get("test") else "val"
    scored: dict[Side, list[int]] = {"val": built.sides["val"], side: built.sides[side]}
    metrics = build.build_metrics(recipe, built.dataset.task)
    normalize = built.objective.normalize
    original = _at_original_size(built) if recipe.evaluate.resolution == "original" else None
    for name, indices in scored.items():
        with progress.watch(f"scoring {name}", len(built.in_order(indices)), "batches") as advance:
            scores = evaluate(
                built.objective.model, normalize, _counted(built.in_order(indices), advance), metrics,
                device=built.device, precision=built.precision, original=original,
            )  # fmt: skip
        scores = _in_recipe_order(scores, recipe)
        results["metrics"][name] = scores.values
        results["definitions"] |= scores.definitions
    results["scored_on"] = side
    _write_rows(directory.per_image, scores)
    rows = history.read(directory.path)
    draw_curves(rows, directory.curves, monitor=outcome.monitor, best_epoch=outcome.best_epoch or None)
    _draw_overlays(directory, recipe, built, built.sides[side], scores)
    return results


def _in_recipe_order(scores: Scores, recipe: Resolved) -> Scores:
    """Gives scores in the order in which the recipe names the metrics; a collection sorts them by name."""
    order = ["id", *(choice.part.name for choice in recipe.metrics)]

    def ordered(values: Mapping[str, Any]) -> dict[str, Any]:
        names = {name: name.split(".")[0] for name in values}
        return {n: values[n] for n in sorted(names, key=lambda n: order.index(names[n]) if names[n] in order else 99)}

    rows = [ordered(row) for row in scores.per_image]
    return Scores(ordered(scores.values), ordered(scores.definitions), rows)


def _counted(batches: Batches, advance: Callable[[int], None]) -> Any:
    for batch in batches.epoch(0):
        yield batch
        advance(1)


def _at_original_size(built: _Built) -> Callable[[int, Tensor], tuple[Tensor, NDArray[np.uint8]]]:
    def own_size(index: int, logits: Tensor) -> tuple[Tensor, NDArray[np.uint8]]:
        size = built.prepared.original_size(index)
        return restore(logits, size, built.recipe.input), built.dataset.read_mask(built.dataset.samples[index])

    return own_size


def _write_rows(file: Path, scores: Scores) -> None:
    with replacing(file) as aside, aside.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(scores.per_image[0]) if scores.per_image else ["id"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(scores.per_image)


def _draw_overlays(
    directory: RunDirectory, recipe: Resolved, built: _Built, indices: Sequence[int], scores: Scores
) -> None:
    """Draws pictures from the worst to the best by the recipe's first metric, evenly spaced."""
    import torch

    count = min(recipe.evaluate.overlays, len(indices))
    if not count:
        return
    column = next((name for name in (scores.per_image[0] if scores.per_image else {}) if name != "id"), None)
    by_score = sorted(
        zip(indices, scores.per_image, strict=True),
        key=lambda pair: -1.0 if column is None or pair[1][column] != pair[1][column] else pair[1][column],
    )
    places = [round(k * (len(by_score) - 1) / max(1, count - 1)) for k in range(count)]
    chosen = [by_score[place] for place in dict.fromkeys(places)]
    directory.overlays.mkdir(exist_ok=True)
    task, threshold = built.dataset.task, recipe.evaluate.threshold
    for number, (index, row) in enumerate(chosen, start=1):
        batch = next(iter(built.in_order([index]).epoch(0)))
        logits = predict_logits(
            built.objective.model, built.objective.normalize, batch.images, built.device, built.precision
        )
        with torch.inference_mode():
            labels = task.labels(logits, threshold=threshold)[0].cpu().numpy()
        told = "  ".join(f"{n} {v:.3f}" for n, v in row.items() if n != "id" and ".class." not in n)
        picture = side_by_side(
            batch.images[0].permute(1, 2, 0).numpy(), batch.targets[0].numpy(), labels, task,
            title=f"{row['id']}  {told}", notice=built.dataset.notice,
        )  # fmt: skip
        name = re.sub(r"[^\w.-]+", "_", str(row["id"]))[:80]
        picture.save(directory.overlays / f"{number:02}_{name}.png")


def _results_in_words(results: Mapping[str, Any], directory: RunDirectory) -> list[str]:
    lines = [""]
    if results["stopped_because"] == "interrupted":
        return [*lines, f"interrupted after {results['epochs']} epochs; segreg run --resume {directory.path} goes on"]
    lines += banner(results["notice"])
    value = "" if results["best_value"] is None else f" ({results['monitor']} {results['best_value']:.4f})"
    lines.append(
        f"{results['epochs']} epochs in {duration(results['training_seconds'])}, {results['stopped_because']}; "
        f"best epoch {results['best_epoch']}{value}"
    )
    side = results["scored_on"]
    if side:
        count = results["images"][side]
        lines.append(f"{side} ({count} pictures, at {results['resolution']} resolution, best weights):")
        values = results["metrics"][side]
        width = max(map(len, values))
        lines += [f"  {name:<{width}}  {value:.4f}" for name, value in values.items()]
    lines.append(f"everything is in {directory.path}")
    return lines


def _with_absolute_paths(recipe: Resolved) -> Resolved:
    """Gives the recipe with the dataset's paths made absolute, so that it runs again from any folder."""

    def absolute(value: Any) -> Any:
        return value.expanduser().absolute() if isinstance(value, Path) else value

    dataset = dataclasses.replace(
        recipe.dataset, settings={name: absolute(value) for name, value in recipe.dataset.settings.items()}
    )
    split = dataclasses.replace(recipe.split, lists={k: absolute(v) for k, v in recipe.split.lists.items()})
    return dataclasses.replace(recipe, dataset=dataset, split=split)
