"""How close training comes to its network: `segreg`'s epochs against a bare loop on batches made beforehand.

Both train the recipe's network with the recipe's loss, optimizer, precision and memory layout. segreg's side reads the
cache, augments, normalises, counts and reports as `segreg run` does; the bare side takes the same few random batches
again and again. They take turns, and the ratio of each turn is printed with its median: 1.00 is not an overhead at all.

    python benchmarks/step_time.py recipes/isic_v3plus.yaml dataset=synthetic_lesions encoder.weights=null
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time

import torch

from segreg.config.recipe import is_override, read_recipe
from segreg.config.resolve import resolve
from segreg.data import BatchLoader, divide, fitting_workers, prepare
from segreg.models import build
from segreg.registry.registry import load_registry
from segreg.runs.assembly import tried_augmentation
from segreg.runtime.device import choose_device, choose_precision, prepare_process, seed_everything
from segreg.runtime.progress import Quiet
from segreg.training.loss import Objective
from segreg.training.setup import Setup, Training
from segreg.training.setup import prepare as prepare_training
from segreg.training.trainer import train_pass

ROUNDS = 7


def main() -> None:
    """Print one line a round and the medians."""
    files = [word for word in sys.argv[1:] if not is_override(word)] or ["recipes/isic_v3plus.yaml"]
    overrides = [word for word in sys.argv[1:] if is_override(word)]
    recipe = resolve(read_recipe(files[0], overrides), load_registry())
    print(prepare_process())
    device = choose_device(recipe.train.device)
    precision = choose_precision(recipe.train.precision, device)
    print(f"{device}: {precision.reason}; torch {torch.__version__}, {torch.get_num_threads()} threads")

    seed_everything(recipe.seed)
    dataset = build.build_dataset(recipe)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEGREG_CACHE"] = folder
        splits = divide(dataset, recipe.split)
        prepared = prepare(dataset, recipe.input, indices=splits["train"])
        train = BatchLoader(
            prepared, splits["train"], batch_size=recipe.train.batch_size,
            augment=tried_augmentation(recipe, dataset.task), workers=fitting_workers(device.type),
        )  # fmt: skip
        model = build.build_model(recipe, dataset.task)
        losses = build.build_losses(recipe, dataset.task)
        objective = Objective(model, build.build_normalize(recipe, model.encoder), losses)  # type: ignore[arg-type]
        setup = Setup(
            objective,
            build_optimizer=lambda groups: build.build_optimizer(recipe, groups),
            build_schedule=lambda optimizer, steps, _: build.build_schedule(recipe, optimizer, steps),
            settings=recipe.train,
            device=device,
            precision=precision,
        )
        training = prepare_training(setup, steps_per_epoch=len(train))
        preloaded = random_batches(train, training)
        compare(train, training, preloaded)
        train.close()


def random_batches(train: BatchLoader, training: Training) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return batches of the epoch's sizes on the device, normalised already."""
    batches = []
    for batch in train.epoch(0):
        images = torch.randint(0, 256, batch.images.shape, dtype=torch.uint8, device=training.device)
        layout = torch.channels_last if training.settings.channels_last else torch.contiguous_format
        image = training.objective.normalize(images).contiguous(memory_format=layout)
        batches.append((image, batch.targets.to(training.device).long()))
    return batches


def compare(train: BatchLoader, training: Training, preloaded: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Run both sides in turn, the order changing from round to round."""
    segreg_rates, bare_rates = [], []
    for number in range(ROUNDS + 1):
        turns = [(segreg_rates, lambda n=number: segreg_epoch(train, training, n)),
                 (bare_rates, lambda: bare_epoch(training, preloaded))]  # fmt: skip
        for rates, epoch in turns if number % 2 else reversed(turns):
            start = time.perf_counter()
            images = epoch()
            if training.device.type == "cuda":
                torch.cuda.synchronize()
            rates.append(images / (time.perf_counter() - start))
        if number == 0:  # warm-up
            segreg_rates.clear()
            bare_rates.clear()
            continue
        print(f"round {number}: segreg {segreg_rates[-1]:.2f}, bare loop {bare_rates[-1]:.2f} images/s, "
              f"ratio {segreg_rates[-1] / bare_rates[-1]:.3f}")  # fmt: skip
    ratios = [ours / bare for ours, bare in zip(segreg_rates, bare_rates, strict=True)]
    print(
        f"median of {ROUNDS}: segreg {statistics.median(segreg_rates):.2f}, "
        f"bare loop {statistics.median(bare_rates):.2f} images/s, ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


def segreg_epoch(train: BatchLoader, training: Training, number: int) -> int:
    """Train one epoch as `segreg run` does."""
    return train_pass(training, train, number + 1, Quiet())[1]


def bare_epoch(training: Training, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> int:
    """Train on batches made beforehand: forward, loss, backward, step, and nothing else."""
    objective, optimizer = training.objective.train(), training.optimizer
    images = 0
    for image, target in batches:
        with training.precision.autocast(training.device):
            logits = objective.model(image)
        total = sum(
            w * loss(logits.float(), target) for w, loss in zip(objective.weights, objective.losses, strict=True)
        )
        training.scaler.scale(total).backward()
        training.scaler.step(optimizer)
        training.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        images += len(target)
    return images


if __name__ == "__main__":
    main()
