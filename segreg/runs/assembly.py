"""What a run is made of, built from its recipe in the order in which mistakes are cheapest to find."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segreg.config.resolve import Resolved
from segreg.config.sections import Evaluate, Input
from segreg.data import (
    Augmentation,
    BatchLoader,
    Crops,
    PreprocessedDataset,
    SplitName,
    divide,
    fitting_workers,
    prepare,
)
from segreg.data.inspection import Report, inspect
from segreg.data.inspection.gate import SplitPixels, Verdict, judge
from segreg.data.loader import places_by_size
from segreg.data.resize import format_size
from segreg.data.values import refuse_foreign_statistics
from segreg.errors import SegregError, plural
from segreg.inference.predictor import InferenceConfig, Predictor, check_tile, logits_of
from segreg.models import build
from segreg.models.segmenter import Segmenter
from segreg.registry.protocols import BatchAugmentation, Dataset
from segreg.runs.directory import RunDirectory
from segreg.runs.records import read_environment, read_split
from segreg.runtime.device import Precision, choose_device, choose_precision, prepare_process, seed_everything
from segreg.runtime.distributed import count, from_main, one_of_each_node_first, own_device, rank
from segreg.runtime.progress import Progress, Quiet
from segreg.task import Task
from segreg.training.checkpoint import fit_to
from segreg.training.finetune import start_from
from segreg.training.loss import Objective
from segreg.training.monitor import check_monitor
from segreg.training.setup import Setup, set_batch_norm_momentum, synchronise_batch_norm


@dataclass
class Assembly:
    """What a run is made of, before its first step. Leaving its context ends the worker processes."""

    recipe: Resolved
    dataset: Dataset
    splits: Mapping[SplitName, list[int]]
    prepared: PreprocessedDataset
    objective: Objective
    device: torch.device
    precision: Precision
    memory: str
    initial_weights: str
    verdict: Verdict
    train: BatchLoader
    val: BatchLoader
    batch_augmentations: Sequence[tuple[str, BatchAugmentation]]

    @classmethod
    def of(cls, recipe: Resolved, progress: Progress, *, continued: Mapping[str, Tensor] | None = None) -> Assembly:
        """Build everything that a recipe names, cheap things first, so that mistakes show early.

        Args:
            recipe: says what.
            progress: shows what takes time.
            continued: the objective's tensors that will be loaded, in place of pretrained weights.
        """
        own = own_device(recipe.train.device)  # here, where no process waits for another yet
        with one_of_each_node_first():
            assembly = cls._built(recipe, own, progress, continued)
        if recipe.input.normalize == "dataset" and recipe.input.mean is None:
            assembly.normalize_by_data(progress)
        return assembly

    def normalize_by_data(self, progress: Progress) -> None:
        """Note the statistics of the training images in the recipe, from which all that comes later takes them."""

        def computed() -> tuple[tuple[float, ...], tuple[float, ...]]:
            train = self.splits["train"]
            with progress.watch("computing mean and deviation", len(train), "images") as advance:
                return self.prepared.channel_statistics(train, advance)

        mean, std = from_main(computed)
        section = dataclasses.replace(self.recipe.input, mean=mean, std=std)
        self.recipe = dataclasses.replace(self.recipe, input=section)
        self.objective.normalize = build.build_normalize(self.recipe, self.objective.model.encoder)  # type: ignore[arg-type]

    @classmethod
    def _built(cls, recipe: Resolved, own: str, progress: Progress, continued: Mapping[str, Tensor] | None) -> Assembly:
        memory = prepare_process()
        if recipe.train.batch < count():
            raise SegregError(
                f"train.batch_size: {plural(recipe.train.batch, 'image')} can't be shared by {count()} processes",
                hint="it is the batch of all processes together; each needs one image at least",
            )
        if recipe.batch_augment and recipe.train.batch < 2 * count():
            raise SegregError(
                f"batch_augment mixes the images that one process has of a batch, and of {recipe.train.batch} some of "
                f"{count()} processes have one",
                hint="train.batch_size is the batch of all processes together",
            )
        device = choose_device(own)
        precision = choose_precision(recipe.train.precision, device)
        dataset = build.build_dataset(recipe)
        splits = split_of(recipe, dataset, progress)
        augment = tried_augmentation(recipe, dataset.task)
        crops = Crops(recipe.input, recipe.crop, dataset.task) if recipe.input.resize == "crop" else None
        batch_augmentations = build.build_batch_augmentations(recipe, dataset.task)
        losses = build.build_losses(recipe, dataset.task)
        metrics = build.build_metrics(recipe, dataset.task)
        check_monitor(recipe.train.monitor, metrics, dataset.task)
        model, initial_weights = seeded_network(recipe, dataset.task, pretrained=continued is None)
        if recipe.train.sync_batch_norm and count() > 1:
            if recipe.batch_augment and model.own_losses:
                raise SegregError(
                    "train.sync_batch_norm: mixed batches differ from process to process, and a decoder with losses of "
                    "its own sees some of them twice, so that processes would wait for each other for ever",
                    hint="leave out batch_augment or train.sync_batch_norm",
                )
            synchronise_batch_norm(model, device)
        check_tile(model, InferenceConfig.of(recipe.evaluate, recipe.input), recipe.source)
        chosen = [index for indices in splits.values() for index in indices]
        prepared = prepare_images(dataset, recipe, chosen, progress)
        recipe = dataclasses.replace(recipe, input=prepared.input)  # with the type of the values
        _checked_transforms(recipe, dataset.task, Augmentation.refuse_type)
        if prepared.statistics is not None:
            known = [prepared.image_statistics(index) for index in splits["train"]]
            ranges = [(one.least.min(), one.most.max()) for one in known if one.pixels[0]]
            refuse_foreign_statistics(ranges, recipe.input)
        normalize = build.build_normalize(recipe, model.encoder)  # type: ignore[arg-type]
        further = [build.build_losses(recipe, dataset.task) for _ in model.further]
        objective = Objective(model, normalize, losses, further)
        fit_to(objective, continued or {})
        pixels = {split: SplitPixels.of_prepared(prepared, indices) for split, indices in splits.items()}
        verdict = judge(dataset.task, pixels, dataset.objects, dataset.void)
        if repeated := build.repeated_colours(recipe, model.encoder):  # type: ignore[arg-type]
            verdict = verdict.with_warning("colours-repeated", repeated)
        if dataset.task.mode == "multiclass" and recipe.evaluate.threshold != Evaluate.threshold:
            what = "evaluate.threshold has no effect: of classes that exclude each other the most probable is predicted"
            verdict = verdict.with_warning("threshold-without-effect", what)
        verdict.refuse_errors()
        if crops is not None:
            train = splits["train"]
            crops.refuse_too_large({dataset.samples[i].id: prepared.original_size(i) for i in train})
        asked = recipe.train.workers
        workers = fitting_workers(device.type) if asked == "auto" else asked

        def batches(split: SplitName, *, train: bool) -> BatchLoader:
            indices = splits[split]
            return BatchLoader(
                prepared,
                indices if train else [indices[place] for place in places_by_size(prepared, indices)],
                batch_size=recipe.train.batch if train else recipe.evaluate.batch_size or recipe.train.batch,
                augment=augment if train else None,
                seed=recipe.seed,
                order="shuffled" if train else "in_order",
                workers=workers if train else 0,
                rank=rank(),
                world_size=count(),
                crops=crops if train or recipe.train.validate_on == "center_crop" else None,
            )

        return cls(
            recipe, dataset, splits, prepared, objective, device, precision, memory,
            initial_weights, verdict, batches("train", train=True), batches("val", train=False), batch_augmentations,
        )  # fmt: skip

    def __enter__(self) -> Assembly:
        return self

    def __exit__(self, *_: object) -> None:
        self.train.close()
        self.val.close()

    def ids_by_split(self) -> dict[str, list[str]]:
        """Return the samples' ids of each split."""
        return {split: [self.dataset.samples[i].id for i in indices] for split, indices in self.splits.items()}

    def setup(self) -> Setup:
        """Return what training builds its optimizer and schedule from."""
        recipe = self.recipe
        predictor = self.predictor(recipe.source)
        if recipe.train.validate_on == "center_crop":
            predictor = dataclasses.replace(predictor, config=dataclasses.replace(predictor.config, tile=None))

        def predict(own: Objective, images: Tensor) -> Tensor:
            return logits_of(dataclasses.replace(predictor, model=own.model, normalize=own.normalize), images)

        return Setup(
            self.objective,
            build_optimizer=lambda groups: build.build_optimizer(recipe, groups),
            build_schedule=lambda optimizer, steps, _: build.build_schedule(recipe, optimizer, steps),
            settings=recipe.train,
            device=self.device,
            precision=self.precision,
            seed=recipe.seed,
            predict=predict,
            exclude_from_weight_decay=recipe.optimizer.beside.exclude_from_weight_decay,
            batch_augmentations=self.batch_augmentations,
        )

    def predictor(self, name: str) -> Predictor:
        """Return the network as it is now, with all that scoring needs; `name` is its name in messages."""
        return Predictor(
            name, self.objective.model, self.objective.normalize, self.recipe.input, self.dataset.task,
            self.recipe.evaluate.threshold, self.device, self.precision,
            InferenceConfig.of(self.recipe.evaluate, self.recipe.input),
        )  # fmt: skip


def seeded_network(recipe: Resolved, task: Task, *, pretrained: bool = True) -> tuple[Segmenter, str]:
    """Return the network as training begins with it, and which weights `train.start_from` brought.

    Python's, NumPy's and PyTorch's random numbers are seeded by the recipe before it is built.
    """
    seed_everything(recipe.seed)
    model = build.build_model(recipe if pretrained else build.without_pretrained(recipe), task)
    set_batch_norm_momentum(model, recipe.train.batch_norm_momentum)
    if not pretrained or (source := recipe.train.start_from) is None:
        return model, ""
    return model, f"{source}: {start_from(model, source, recipe.train.start_part, task)}"


def tried_augmentation(recipe: Resolved, task: Task) -> Augmentation | None:
    """Return the recipe's augmentation, each transform tried out, or None where it has none.

    Raises:
        SegregError: a transform can't be used or does nothing, reported with the recipe's place.
    """
    transforms = _checked_transforms(recipe, task, Augmentation.try_out, Augmentation.refuse_idle)
    return Augmentation(transforms, task) if transforms else None


def _checked_transforms(recipe: Resolved, task: Task, *checks: Callable[[Augmentation, Input], None]) -> list[Any]:
    """Return the recipe's transforms, each checked by itself, so that what is wrong has its place in the recipe."""
    transforms = build.build_augmentations(recipe)
    for choice, transform in zip(recipe.augment, transforms, strict=True):
        try:
            one = Augmentation([transform], task)
            for check in checks:
                check(one, recipe.input)
        except SegregError as error:
            raise error.at(choice.place) from error
        except MemoryError:
            shape = format_size((*recipe.input.size, recipe.input.channels))
            raise SegregError(f"input.size: an image of {shape} does not fit into memory") from None
    return transforms


def split_of(recipe: Resolved, dataset: Dataset, progress: Progress) -> dict[SplitName, list[int]]:
    """Return each split's samples; where they are stratified, all images are prepared first, as a run needs them.

    Raises:
        SegregError: as for `divide`, or what is wrong with the samples' files.
    """

    def present() -> NDArray[np.bool_]:
        return prepare_images(dataset, recipe, range(len(dataset.samples)), progress).present

    return divide(dataset, recipe.split, present)


def check_data(recipe: Resolved, progress: Progress) -> Report:
    """Return what is wrong with a recipe's data set, and which of the recipe's settings don't go with it.

    Raises:
        SegregError: the data set can't be found or has no samples.
    """
    dataset = build.build_dataset(recipe)

    def try_out(typed: Input, sizes: Mapping[str, tuple[int, int]]) -> None:
        if recipe.input.resize == "crop":
            Crops(recipe.input, recipe.crop, dataset.task).refuse_too_large(sizes)
        tried_augmentation(recipe, dataset.task)
        _checked_transforms(dataclasses.replace(recipe, input=typed), dataset.task, Augmentation.refuse_type)

    return inspect(dataset, recipe.split, recipe.input, progress=progress, try_out=try_out)


def is_data_of(recipe: Resolved, directory: RunDirectory) -> bool:
    """Whether a recipe's images, masks and split are those that a run began with. All images are read once for it."""
    try:
        dataset = build.build_dataset(recipe)
        splits = split_of(recipe, dataset, Quiet())
        ids = {split: [dataset.samples[index].id for index in indices] for split, indices in splits.items()}
        if ids != read_split(directory.split):
            return False
        prepared = prepare_images(dataset, recipe, [index for indices in splits.values() for index in indices], Quiet())
        return read_environment(directory.environment).get("data_fingerprint") == prepared.folder.name
    except SegregError:
        return False


def prepare_images(
    dataset: Dataset, recipe: Resolved, indices: Sequence[int], progress: Progress
) -> PreprocessedDataset:
    """Return some images of a dataset as the network takes them."""
    with progress.watch("preparing images", len(indices), "images") as advance:
        before = 0

        def report(done: int, _: int) -> None:
            nonlocal before
            advance(done - before)
            before = done

        return prepare(dataset, recipe.input, indices=indices, progress=report)
