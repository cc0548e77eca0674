"""Build what a resolved recipe names: dataset, model, losses, metrics, optimizer, schedule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from segreg.config.resolve import NETWORK, Choice, NetworkRecipe, Resolved
from segreg.config.sections import Ramp
from segreg.errors import SegregError
from segreg.registry.compatibility import DISTRIBUTION
from segreg.registry.protocols import KINDS, Dataset, Decoder, Encoder

if TYPE_CHECKING:
    from torch import nn
    from torchmetrics import MetricCollection

    from segreg.models.segmenter import Normalize, Segmenter
    from segreg.registry.protocols import BatchAugmentation, Loss, Schedule
    from segreg.task import Task

Network = TypeVar("Network", bound=NetworkRecipe)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's images, of values in [0, 1]."""


def build_dataset(recipe: Resolved) -> Dataset:
    """Return the recipe's dataset.

    Raises:
        SegregError: the data is missing or not as it should be, reported with the recipe's place.
    """
    dataset: Dataset = _build(recipe.dataset, Dataset, "a segreg.Dataset")
    plugin = recipe.dataset.part.plugin
    if dataset.reader and plugin.distribution != DISTRIBUTION:  # its code may be edited while its version stays
        dataset = dataclasses.replace(dataset, reader=f"{dataset.reader} (source {plugin.digest})")
    ids = [sample.id for sample in dataset.samples]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise SegregError(
            f'the dataset "{recipe.dataset.part.name}" has two samples with the id "{twice}"',
            place=recipe.dataset.place,
        )
    return dataset


def build_trunk(recipe: NetworkRecipe) -> tuple[Encoder, Decoder | None]:
    """Return the recipe's encoder, and the decoder too where both are a whole network's and built together.

    Raises:
        SegregError: they can't be built, or don't keep their contract.
    """
    if recipe.network is None:
        return encoder_for(recipe.trunk, recipe.input.channels, recipe.input.size), None
    built = recipe.network.build(recipe.input.channels)
    if isinstance(built, tuple) and len(built) == 2 and all(map(isinstance, built, (Encoder, Decoder))):
        return built
    raise _promised(recipe.network, built, KINDS["network"].returns)


def encoder_for(choice: Choice, in_channels: int, size: tuple[int, int]) -> Encoder:
    """Return an encoder for images of one height and width.

    An encoder that takes a single size, and has it as a setting `img_size` that is left null, is built for this one,
    rounded up to multiples of 32, which most decoders want, or of its native size too where it can't take those; and
    for the square around it where it takes squares only.

    Raises:
        SegregError: it can't be built, or does not keep its contract.
    """
    encoder = _encoder(choice, in_channels)
    native = getattr(encoder, "image_size", None)
    if native is None or choice.settings.get("img_size", native) is not None:
        return encoder
    steps = ((32, 32), tuple(math.lcm(32, side) for side in native))
    wanted = [tuple(-(-side // step) * step for side, step in zip(size, both, strict=True)) for both in steps]
    for fitting in dict.fromkeys(fit for both in wanted for fit in (both, (max(both), max(both)))):
        if fitting == native:
            return encoder
        try:
            return _encoder(dataclasses.replace(choice, settings={**choice.settings, "img_size": fitting}), in_channels)
        except SegregError:
            continue
    return encoder  # which says itself what it can't take


def _encoder(choice: Choice, in_channels: int) -> Encoder:
    encoder: Encoder = _build(choice, Encoder, "an nn.Module with channels and strides", in_channels)
    return encoder


def build_model(recipe: NetworkRecipe, task: Task, trunk: tuple[Encoder, Decoder | None] | None = None) -> Segmenter:
    """Return encoder, decoder and heads as one module, checked by one small forward pass.

    Args:
        recipe: names the parts.
        task: the classes.
        trunk: what `build_trunk` returned, where that was called before.

    Raises:
        SegregError: a part can't be built, does not keep its contract, or does not go with the other.
    """
    from segreg.models.segmenter import Segmenter
    from segreg.models.trained import choose_trained
    from segreg.models.verify import verify

    encoder, decoder = build_trunk(recipe) if trunk is None else trunk
    if decoder is None:
        assert recipe.decoder is not None
        decoder = _decoder(recipe.decoder, encoder)
    auxiliary = None if recipe.auxiliary is None else _decoder(recipe.auxiliary, encoder)
    with _of_its_part(recipe):
        model = Segmenter(encoder, decoder, task, auxiliary=auxiliary, auxiliary_weight=recipe.auxiliary_weight)
    try:
        # After the decoders, which may have dilated the encoder.
        choose_trained(encoder, recipe.trunk.beside)
    except SegregError as error:
        raise error.at(recipe.trunk.place) from error
    with _of_its_part(recipe):
        verify(model, image_size=recipe.input.size, in_channels=recipe.input.channels)
    return model


@contextmanager
def _of_its_part(recipe: NetworkRecipe) -> Iterator[None]:
    """Report what is wrong with a network with the place of the part that it begins with, and whose part that is."""
    try:
        yield
    except SegregError as error:
        problem = error.problems[0]
        title = problem.message.removeprefix("the head of ")
        roles = {"auxiliary decoder ": recipe.auxiliary, "encoder ": recipe.encoder}
        named = next((choice for role, choice in roles.items() if title.startswith(role)), None)
        choice = named or recipe.decoder or recipe.network
        assert choice is not None
        if choice.part.plugin.distribution != DISTRIBUTION:
            hint = f'the {choice.part.kind} "{choice.part.name}" is defined at {choice.part.defined}'
            problem = dataclasses.replace(problem, hint="\n".join(filter(None, (problem.hint, hint))))
        raise SegregError.of([problem, *error.problems[1:]]).at(choice.place) from error


def _decoder(choice: Choice, encoder: Encoder) -> Decoder:
    decoder: Decoder = _build(choice, Decoder, "an nn.Module with channels and stride", encoder)
    return decoder


def without_pretrained(recipe: Network) -> Network:
    """Return the recipe with every `weights` setting null, for a model whose weights are loaded afterwards."""

    def plain_start(choice: Choice | None) -> Choice | None:
        if choice is None or "weights" not in choice.settings:
            return choice
        return dataclasses.replace(choice, settings={**choice.settings, "weights": None})

    parts = {name: plain_start(getattr(recipe, name)) for name in NETWORK}
    return dataclasses.replace(recipe, **parts)  # type: ignore[arg-type]


def build_normalize(recipe: NetworkRecipe, encoder: nn.Module) -> Normalize:
    """Return what turns the values of a batch into what the encoder was trained on; 8-bit ones where nothing is noted.

    Those of `normalize: dataset` come as mean and std as soon as the images are read, those of `per_image` normalised.
    """
    from segreg.models.segmenter import Normalize

    section = recipe.input
    if section.mean is not None and section.std is not None:
        return Normalize(section.mean, section.std, section.value_range)
    if section.normalize in ("none", "dataset", "per_image"):
        value_range = 1.0 if section.per_image else section.value_range
        return Normalize((0.0,) * section.channels, (1.0,) * section.channels, value_range)
    mean: Sequence[float]
    std: Sequence[float]
    mean, std = IMAGENET
    if section.normalize == "encoder":
        mean, std = getattr(encoder, "normalization", None) or IMAGENET
    if len(mean) != section.channels:  # a network for other than 3 channels has no statistics of its own
        mean, std = (sum(mean) / len(mean),) * section.channels, (sum(std) / len(std),) * section.channels
    return Normalize(mean, std, section.value_range)


def repeated_colours(recipe: NetworkRecipe, encoder: nn.Module) -> str:
    """Return a warning where bands are normalised by statistics of colours, repeated, or an empty string."""
    section = recipe.input
    if section.mean is not None or section.normalize != "encoder" or section.channels in (1, 3):
        return ""
    mean, std = getattr(encoder, "normalization", None) or IMAGENET
    values = [*zip(mean, std, strict=True)]
    if len(values) == section.channels and values[3:] != values[:-3]:
        return ""
    return (
        f"the {section.channels} channels are normalised by statistics of red, green and blue"
        f"{', repeated in turn' if section.channels > 3 else ''}, which fit no other bands: `input.normalize: dataset` "
        "computes the training images' own, and input.mean and input.std give others"
    )


def build_losses(recipe: Resolved, task: Task) -> list[tuple[str, float | Ramp, Loss]]:
    """Return name, weight and function of each term of the loss."""
    wanted = "a function of logits and target"
    return [(choice.part.name, choice.weight, _build(choice, Callable, wanted, task)) for choice in recipe.loss]


def build_metrics(recipe: Resolved, task: Task) -> MetricCollection:
    """Return the recipe's metrics as one collection; built-in metrics with the same counts share them."""
    from segreg.runtime.device import without_garbage_collection

    with without_garbage_collection():
        import torch
        import torchmetrics

    metrics: dict[str, Any] = {}
    for choice in recipe.metrics:
        metric = _build(choice, torchmetrics.Metric, "a torchmetrics.Metric", task, recipe.evaluate.threshold)
        if choice.part.plugin.distribution != DISTRIBUTION:
            # Of metrics whose states have the same names and, after the first image, the same values, a collection
            # updates one alone. Those of plugins may differ later, so each has a state with a name of its own.
            metric.add_state(f"separate_{len(metrics)}", torch.zeros(()), dist_reduce_fx="sum")
        key = choice.part.name.replace(".", "_")  # it is a module of the collection, whose name can have no dot
        metrics[key if key not in metrics else f"{key}_"] = metric
    return torchmetrics.MetricCollection(metrics)


def build_augmentations(recipe: Resolved) -> list[Any]:
    """Return the recipe's Albumentations transforms, in their order."""
    return [choice.build() for choice in recipe.augment]


def build_batch_augmentations(recipe: Resolved, task: Task) -> list[tuple[str, BatchAugmentation]]:
    """Return name and function of what mixes the images of a batch, in their order."""
    wanted = "a segreg.BatchAugmentation"
    return [(choice.part.name, _build(choice, Callable, wanted, task)) for choice in recipe.batch_augment]


def build_optimizer(recipe: Resolved, parameter_groups: Sequence[dict[str, Any]]) -> Any:
    """Return the recipe's optimizer over the parameters of each part of the network."""
    import torch

    groups = [dict(group) for group in parameter_groups]
    return _build(recipe.optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer", groups)


def build_schedule(recipe: Resolved, optimizer: Any, steps_per_epoch: int) -> Schedule | None:
    """Return what changes the learning rate, or None where the recipe has no schedule."""
    if recipe.schedule is None:
        return None
    schedule: Schedule = _build(
        recipe.schedule, object, "a segreg.Schedule, with step and a state",
        optimizer, steps_per_epoch, recipe.train.epochs, methods=("step", "state_dict", "load_state_dict"),
    )  # fmt: skip
    return schedule


def _build(choice: Choice, wanted: Any, promised: str, *given: Any, methods: Sequence[str] = ()) -> Any:
    """Return what a part builds from `given`; refuse what is not an instance of `wanted` or lacks one of `methods`."""
    built = choice.build(*given)
    if isinstance(built, wanted) and all(callable(getattr(built, name, None)) for name in methods):
        return built
    raise _promised(choice, built, promised)


def _promised(choice: Choice, built: Any, promised: str) -> SegregError:
    part, kind = choice.part, type(built).__name__
    return SegregError(
        f'the {part.kind} "{part.name}" of {part.plugin.title} gave {kind}, but it must give {promised}',
        place=choice.place,
        hint=f"defined at {part.defined}",
    )
