"""Whether a recipe's network can be built and trained: one step on random pixels, on the CPU, with random weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segreg.config.resolve import Choice, Resolved
from segreg.errors import Problem, SegregError
from segreg.models import build
from segreg.models.pyramid import check_encoder
from segreg.models.segmenter import Segmenter, describe
from segreg.registry.protocols import Encoder
from segreg.runs.environment import counted, network_lines, note_lines, numbers
from segreg.runtime.progress import Progress
from segreg.task import Task
from segreg.training.loss import Objective

_STEPS = 4
_OUTPUT_STRIDES = (16, 8)
_KNOWN_PAIRS = "docs/matrix.md lists which encoders work with which decoders; `segreg matrix` tries others"


@dataclass(frozen=True)
class DryRun:
    """What was seen.

    Attributes:
        facts: about the network, plain values; `describe` gives most of them.
        lines: the same as text.
    """

    facts: Mapping[str, Any]
    lines: tuple[str, ...]


def dry_run(recipe: Resolved, progress: Progress) -> DryRun:
    """Build a recipe's network and losses and takes one training step. No image is read, nothing is downloaded.

    Raises:
        SegregError: something can't be built, or a step can't be taken; with the recipe's place, and with where to
            read which encoders and decoders work together.
    """
    import torch

    recipe = build.without_pretrained(recipe)
    with (
        progress.watch(f"building {recipe.source}", _STEPS, "steps") as advance,
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(recipe.seed)
        task, doubt = _task(recipe)
        advance(note=recipe.encoder.part.name)
        encoder = _encoder(recipe)
        strides = list(encoder.strides)
        advance(note=recipe.decoder.part.name)
        model = _model(recipe, task, encoder)
        advance(note="one training step")
        step = _step(recipe, task, model, scored=not doubt)
        advance()
    facts = {**describe(model), "classes_guessed": doubt, "step": step}
    facts["encoder"]["own_strides"] = strides
    return DryRun(facts, tuple(_lines(recipe, facts, doubt)))


def levels_of(choice: Choice, in_channels: int) -> dict[str, Any]:
    """Return an encoder's parameters, levels, and strides at output stride 16 and 8, null where it can't dilate.

    Raises:
        SegregError: it can't be built.
    """
    try:
        encoder: Any = choice.build(in_channels)
    except SegregError:
        raise
    except Exception as error:  # whatever a library raises is reported
        raise _can_not(f'the encoder "{choice.part.name}" can\'t be built', error, choice) from error
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
    paths = [value.expanduser() for value in settings.values() if isinstance(value, Path)]
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


def _encoder(recipe: Resolved) -> Encoder:
    try:
        return build.build_encoder(recipe)
    except SegregError as error:
        raise _with_known_pairs(error) from error
    except Exception as error:  # whatever a library raises is reported; `segreg run` shows where
        sentence = _can_not(f'the encoder "{recipe.encoder.part.name}" can\'t be built', error, recipe.encoder)
        raise _with_known_pairs(sentence) from error


def _model(recipe: Resolved, task: Task, encoder: Encoder) -> Segmenter:
    try:
        return build.build_model(recipe, task, encoder)
    except SegregError as error:
        raise _with_known_pairs(error) from error
    except Exception as error:  # as above
        names = f'the decoder "{recipe.decoder.part.name}" can\'t be built on "{recipe.encoder.part.name}"'
        raise _with_known_pairs(_can_not(names, error, recipe.decoder)) from error


def _with_known_pairs(error: SegregError) -> SegregError:
    """Return the error with a hint that points to the pairs known to work."""
    first, *more = error.problems
    hint = "\n".join(filter(None, (first.hint, _KNOWN_PAIRS)))
    return SegregError.of([Problem(first.message, first.place, hint), *more])


def _step(recipe: Resolved, task: Task, model: Segmenter, *, scored: bool) -> dict[str, Any]:
    """Take one step, forward and backward, on random images and labels, and return what it was."""
    import torch

    count, (height, width) = min(2, recipe.train.batch), recipe.input.size
    images = torch.randint(0, 256, (count, recipe.input.channels, height, width), dtype=torch.uint8)
    layers = (task.channels,) if task.mode == "multilabel" else ()
    labels = task.channels if task.mode == "multiclass" else 2
    targets = torch.randint(0, labels, (count, *layers, height, width), dtype=torch.uint8)
    normalize = build.build_normalize(recipe, model.encoder)  # type: ignore[arg-type]
    shape: dict[str, Any] = {"images": count, "size": [height, width], "channels": recipe.input.channels}
    try:
        model.train()
        if not scored:
            total: Any = sum(logits.mean() for logits in model.all_logits(normalize(images)))
            total.backward()
            return {**shape, "loss": None}
        losses = build.build_losses(recipe, task)
        weight = recipe.auxiliary.weight if recipe.auxiliary else 0.0
        terms, _ = Objective(model, normalize, losses, auxiliary_weight=weight).train()(images, targets)
        total = next(iter(terms.values()))
        total.backward()
    except SegregError:
        raise
    except Exception as error:  # as above
        words = f"a training step on {count} images of {height}x{width} pixels fails"
        raise _can_not(words, error, recipe.decoder) from error
    return {**shape, "loss": float(total.detach())}


def _can_not(words: str, error: Exception, choice: Choice) -> SegregError:
    reason = (str(error).strip() or "it gives no reason").splitlines()[0]
    return SegregError(f"{words}: {type(error).__name__}: {reason}", place=choice.place)


def _lines(recipe: Resolved, facts: Mapping[str, Any], doubt: str) -> list[str]:
    encoder, step = facts["encoder"], facts["step"]
    lines = [
        *network_lines(recipe, facts),
        f"levels     of {numbers(encoder['channels'])} channels",
        f"network    {counted(facts['parameters']['total'])} parameters",
    ]
    if encoder["own_strides"] != encoder["strides"]:
        lines.append(f"dilated    from strides {numbers(encoder['own_strides'])} to {numbers(encoder['strides'])}")
    lines += note_lines(facts)
    if doubt:
        lines.append(f"classes    {doubt}")
    words = f"{step['images']} random image{'s' if step['images'] > 1 else ''} of {'x'.join(map(str, step['size']))}"
    scored = "" if step["loss"] is None else f", loss {step['loss']:.4g}"
    lines.append(
        f"trains     a step on {words} with {step['channels']} channel{'s' if step['channels'] > 1 else ''}{scored}"
    )
    return lines
