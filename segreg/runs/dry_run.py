"""Whether a recipe's network can be built and trained: one step on random pixels, on the CPU, with random weights."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segreg.config.resolve import Choice, Resolved
from segreg.data.mixing import Mixing
from segreg.data.resize import format_size
from segreg.errors import Problem, SegregError, plural
from segreg.models import build
from segreg.models.checkpointing import checkpoint_activations
from segreg.models.pyramid import check_encoder
from segreg.models.segmenter import Segmenter, describe
from segreg.runs.assembly import tried_augmentation
from segreg.runs.environment import counted, network_lines, note_lines, numbers
from segreg.runtime.files import expanded
from segreg.runtime.layout import Block, Column, Table
from segreg.runtime.progress import Progress
from segreg.task import Task, mask_shape
from segreg.training.groups import build_optimizer, described
from segreg.training.loss import Objective
from segreg.training.monitor import check_monitor

_OUTPUT_STRIDES = (16, 8)
_KNOWN_PAIRS = "docs/matrix.md lists which encoders work with which decoders; `segreg matrix` tries others"


def dry_run(recipe: Resolved, progress: Progress) -> tuple[dict[str, Any], list[Block]]:
    """Build a recipe's network, losses and optimizer and take one training step; return facts, and the same as lines.

    No image is read, nothing is downloaded.

    Raises:
        SegregError: something can't be built, or a step can't be taken; with the recipe's place, and with where to
            read which encoders and decoders work together.
    """
    recipe = build.without_pretrained(recipe)
    with (
        progress.watch(f"building {recipe.source}", 4, "steps") as advance,
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(recipe.seed)
        task, doubt = _task(recipe)
        first, last = recipe.trunk, recipe.decoder or recipe.trunk
        hint, on = ("", "") if recipe.network else (_KNOWN_PAIRS, f' on "{first.part.name}"')
        advance(note=first.part.name)
        with _explained(f'the {first.part.kind} "{first.part.name}" can\'t be built', first, hint):
            trunk = build.build_trunk(recipe)
        strides = list(trunk[0].strides)
        advance(note=last.part.name)
        with _explained(f'the {last.part.kind} "{last.part.name}" can\'t be built{on}', last, hint):
            model = build.build_model(recipe, task, trunk)
        advance(note="one training step")
        if recipe.train.checkpoint_activations:
            checkpoint_activations(model.encoder)
        if not doubt:
            tried_augmentation(recipe, task)
            check_monitor(recipe.train.monitor, build.build_metrics(recipe, task), task)
        step = _step(recipe, task, model, scored=not doubt)
        exclude = recipe.optimizer.beside.exclude_from_weight_decay
        with _explained(f'the optimizer "{recipe.optimizer.part.name}" can\'t be built', recipe.optimizer):
            optimizer = build_optimizer(
                model, recipe.train, lambda groups: build.build_optimizer(recipe, groups), exclude=exclude
            )
        groups = described(optimizer)
        advance()
    facts = {**describe(model), "classes_guessed": doubt, "step": step, "groups": groups}
    facts["warning"] = build.repeated_colours(recipe, model.encoder)  # type: ignore[arg-type]
    facts["encoder"]["own_strides"] = strides
    return facts, _lines(recipe, facts, doubt)


def levels_of(choice: Choice, in_channels: int) -> dict[str, Any]:
    """Return an encoder's parameters, levels, and strides at output stride 16 and 8, null where it can't dilate.

    Raises:
        SegregError: it can't be built.
    """
    with _explained(f'the encoder "{choice.part.name}" can\'t be built', choice):
        encoder: Any = choice.build(in_channels)
    check_encoder(encoder)
    dilated: dict[str, list[int] | None] = {}
    for stride in _OUTPUT_STRIDES:
        changed = copy.deepcopy(encoder)
        fine = max(changed.strides) <= stride or (hasattr(changed, "dilate") and changed.dilate(stride))
        dilated[str(stride)] = list(changed.strides) if fine else None
    return {
        "in_channels": in_channels,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "channels": list(encoder.channels),
        "strides": list(encoder.strides),
        "dilated": dilated,
    }


def _task(recipe: Resolved) -> tuple[Task, str]:
    """Return the task, and why it is a guess where the data set can't tell it."""
    settings = recipe.dataset.settings
    paths = [expanded(value) for value in settings.values() if isinstance(value, Path)]
    gone = [path for path in paths if not path.exists()]
    if not gone:
        # By convention, like `weights`: what a data set does where its files are not there.
        own = {**settings, **({"if_missing": "error"} if "if_missing" in settings else {})}
        try:
            return build.build_dataset(
                dataclasses.replace(recipe, dataset=dataclasses.replace(recipe.dataset, settings=own))
            ).task, ""
        except SegregError as error:
            if not isinstance(error.__cause__, SegregError):  # not the data set's own words: its plugin is broken
                raise
            reason = error.problems[0].message
    else:
        reason = f"{gone[0]} is not there"
    named = settings.get("classes")
    classes = tuple(named) if isinstance(named, (tuple, list, Mapping)) and named else ("unknown",)
    guess = f"{len(classes)} of the settings" if named else "1"
    task = Task(classes, "binary" if len(classes) == 1 else "multiclass")
    return task, f"the data set can't tell them ({reason}); tried with {guess}, and without the loss"


@contextlib.contextmanager
def _explained(words: str, choice: Choice, hint: str = "") -> Iterator[None]:
    """Report whatever a library raises, with the part's place and a hint; `segreg run` shows where it was raised."""
    try:
        yield
    except SegregError as error:
        first, *more = error.problems
        hints = "\n".join(filter(None, (first.hint, hint)))
        raise SegregError.of([Problem(first.message, first.place, hints), *more]) from error
    except Exception as error:
        reason = (str(error).strip() or "it gives no reason").splitlines()[0]
        raise SegregError(f"{words}: {type(error).__name__}: {reason}", place=choice.place, hint=hint) from error


def _step(recipe: Resolved, task: Task, model: Segmenter, *, scored: bool) -> dict[str, Any]:
    """Take one step, forward and backward, on random images and labels, and return what it was."""
    count, (height, width) = min(2, recipe.train.batch), recipe.input.size
    images = torch.randint(0, 256, (count, recipe.input.channels, height, width), dtype=torch.uint8)
    targets = torch.randint(0, task.highest_label + 1, (count, *mask_shape(task, (height, width))), dtype=torch.uint8)
    normalize = build.build_normalize(recipe, model.encoder)  # type: ignore[arg-type]
    shape: dict[str, Any] = {"images": count, "size": [height, width], "channels": recipe.input.channels}
    with _explained(
        f"a training step on {count} images of {height}x{width} pixels fails", recipe.decoder or recipe.trunk
    ):
        model.train()
        if not scored:
            total: Any = sum(logits.mean() for logits in model.all_logits(normalize(images)))
            total.backward()
            return {**shape, "loss": None}
        losses = build.build_losses(recipe, task)
        mixed = Mixing(build.build_batch_augmentations(recipe, task), recipe.seed)(images, targets, 1, ("a", "b"))
        terms = Objective(model, normalize, losses).train()(mixed.images, mixed.targets)
        total = next(iter(terms.values()))
        total.backward()
        return {**shape, "loss": float(total.detach())}


def _lines(recipe: Resolved, facts: Mapping[str, Any], doubt: str) -> list[Block]:
    encoder, step = facts["encoder"], facts["step"]
    lines: list[Block] = [
        *network_lines(recipe, facts),
        f"levels     of {numbers(encoder['channels'])} channels",
        f"network    {counted(facts['parameters']['total'])} parameters",
    ]
    if encoder["own_strides"] != encoder["strides"]:
        lines.append(f"dilated    from strides {numbers(encoder['own_strides'])} to {numbers(encoder['strides'])}")
    lines += note_lines(facts)
    if facts["warning"]:
        lines.append(f"warning    {facts['warning']}")
    if doubt:
        lines.append(f"classes    {doubt}")
    words = f"{plural(step['images'], 'random image')} of {format_size(step['size'])}"
    scored = "" if step["loss"] is None else f", loss {step['loss']:.4g}"
    lines.append(f"trains     a step on {words} with {plural(step['channels'], 'channel')}{scored}")
    return [*lines, *_group_table(facts["groups"])]


def _group_table(groups: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return the optimizer's groups as a table, where a component has more than one."""
    if len({group["component"] for group in groups}) == len(groups):
        return []
    heads = ("component", "layer", "tensors", "parameters", "lr", "weight decay")
    rows = [
        [
            group["component"],
            "" if group["layer"] is None else str(group["layer"]),
            str(group["tensors"]),
            f"{group['parameters']:,}",
            f"{group['lr']:.3g}",
            "" if group["weight_decay"] is None else f"{group['weight_decay']:g}",
        ]
        for group in groups
    ]
    return [Table([Column(head, right=head != "component") for head in heads], rows, indent=2)]
