"""Comparisons that nobody ran: models with planted scores, costs, curves and images."""

from __future__ import annotations

import io
import math
import random

from PIL import Image

from segreg.benchmark.comparison.record import Comparison, Difference, Disagreement, Failure, Model, Rank, Value
from segreg.benchmark.cost.record import Cost

METRIC = "dice.per_image_mean"
COSTS = ("parameters", "training_images_per_second", "latency_p50_ms")
IMAGES = tuple(f"image_{number:03d}" for number in range(60))


def scored(mean, *, seeds=2, half=0.02):
    low, high = (mean - half, mean + half) if half else (None, None)
    return Value(mean, low, high, tuple(mean + 0.3 * half * (-1) ** seed for seed in range(seeds)))


def model(place, *, name="", seeds=2, epochs=12, **changes):
    """Return the model that stands at a place: the later, the worse and the cheaper."""
    drawn = random.Random(place)
    mean = 0.9 - 0.02 * place
    values = {
        METRIC: scored(mean, seeds=seeds),
        "dice.pooled": scored(mean + 0.01, seeds=seeds),
        "iou.pooled": scored(mean - 0.1, seeds=seeds, half=0),
        "dice.class.cell": scored(mean - 0.05 + 0.08 * (place % 2), seeds=seeds),
        "dice.class.wall": scored(mean, seeds=seeds),
        "iou.class.cell": scored(mean - 0.1, seeds=seeds),
    }
    speed = 40.0 * (1 + place) * (0.6 if place % 3 == 2 else 1.0)
    costs = {
        "parameters": Cost(90e6 / (1 + 3 * place), 90e6 / (1 + 3 * place), 90e6 / (1 + 3 * place), ""),
        "training_images_per_second": Cost(speed, speed - 3, speed + 2, "images/s"),
        "latency_p50_ms": Cost(1 / speed, 0.95 / speed, 1.2 / speed, "s"),
    }
    reported = {
        "name": name or f"encoder{place}, dice_bce",
        "settings": {"encoder": f"encoder{place}", "loss": "dice_bce"},
        "runs": tuple(f"runs/encoder{place}/seed{seed}" for seed in range(seeds)),
        "seeds": tuple(range(seeds)),
        "values": values,
        "difference": Difference(mean - 0.88, mean - 0.89, mean - 0.87, 0.004, 0.02, abs(mean - 0.88) > 0.03),
        "rank": Rank(place + 1, max(1, place), place + 2, 1 / 2 ** (place + 1)),
        "costs": costs,
        "curves": tuple(curve(drawn, mean, epochs) for _ in range(seeds)),
        "per_image": tuple(min(1.0, max(0.0, mean + drawn.gauss(0, 0.08))) for _ in IMAGES),
    }
    return Model(**{**reported, **changes})


def curve(drawn, mean, epochs):
    steps = range(1, epochs + 1)
    return {
        "epoch": list(steps),
        "train.loss": [math.exp(-0.3 * step) + 0.05 + drawn.uniform(0, 0.02) for step in steps],
        "val.loss": [math.exp(-0.25 * step) + 0.1 + drawn.uniform(0, 0.04) for step in steps],
        "val.dice.pooled": [mean * (1 - math.exp(-0.5 * step)) + drawn.uniform(0, 0.01) for step in steps],
    }


def comparison(count=3, **changes):
    """Return a comparison of that many models; the second one is the baseline, where there are two."""
    models = changes.pop("models", tuple(model(place) for place in range(count)))
    baseline = models[min(1, len(models) - 1)].name if models else "none"
    reported = {
        "title": "Encoders on planted images",
        "metric": METRIC,
        "higher_is_better": True,
        "baseline": baseline,
        "classes": ("wall", "cell"),
        "images": IMAGES,
        "models": tuple(Model(**{**vars(one), "difference": None}) if one.name == baseline else one for one in models),
        "failures": (),
        "definitions": {METRIC: "Dice of each image, averaged.", "parameters": "Trainable weights."},
        "verdict": ("encoder0 is better than the baseline.", "No other difference can be told."),
        "notices": (),
        "method": ("Intervals: 2000 resamples.", "Tests: paired permutations."),
    }
    return Comparison(**{**reported, **changes})


def failure(**changes):
    return Failure(**{"name": "encoder9, dice_bce", "seed": 1, "reason": "out of memory", "run": "runs/9", **changes})


def png(colour, size=(48, 36)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "png")
    return file.getvalue()


def disagreement(compared, image="image_000", *, truth=True):
    return Disagreement(
        image,
        png((90, 90, 90)),
        {one.name: png((20 * place % 255, 160, 90)) for place, one in enumerate(compared.models)},
        {one.name: 0.5 + 0.01 * place for place, one in enumerate(compared.models)},
        png((200, 30, 30)) if truth else None,
    )
