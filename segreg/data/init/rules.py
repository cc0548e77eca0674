"""From a fingerprint, a budget and a machine to a recipe's settings: each rule returns a value with its reason.

docs/init.md has the rules in a table. Whoever changes a number here changes it there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segreg.data.init.fingerprint import Fingerprint
from segreg.data.init.machine import Machine

BudgetName = Literal["small", "medium", "large"]
Path = tuple[str, ...]

STEP = 32
"""Sides are multiples of it, as encoders of stride 32 want them."""
LEAST_OBJECT = 8
"""Pixels of diameter that small objects should keep at the network's input: two pixels of a map at stride 4."""
SAME_SHAPE = 1.3
"""Ratio of the widest to the narrowest aspect ratio up to which images are stretched to one."""
SYMMETRIC = 0.1
"""Asymmetry of the classes below which turning an image makes another one as good."""
IMBALANCED = 20.0
"""Ratio of the most frequent class's pixels to the rarest's from which the loss is weighted."""
RARE, RARE_IMAGES = 0.2, 30
"""Share and number of images that show a class, below both of which a split is stratified."""
EPOCHS = 10, 500
"""Least and most epochs."""
_MANY = 20
"""Images, or groups, from which 15% each are validation and test."""


@dataclass(frozen=True)
class Budget:
    """What a network may cost.

    Attributes:
        encoder: its name.
        weights: its tag of pretrained weights.
        side: the input has the pixels of a square of this side at most.
        steps: optimizer steps of a training.
        bytes: that a training step keeps for each pixel of the input in float32, with either decoder; measured.
        lr: the learning rate of AdamW.
    """

    encoder: str
    weights: str
    side: int
    steps: int
    bytes: int
    lr: float


BUDGETS: Mapping[BudgetName, Budget] = {
    "small": Budget("resnet18", "imagenet", 256, 2_000, 1_280, 1e-3),
    "medium": Budget("resnet50", "imagenet", 512, 10_000, 2_840, 5e-4),
    "large": Budget("timm/convnext_small", "default", 768, 30_000, 4_590, 2e-4),
}


@dataclass(frozen=True)
class Decision:
    """One setting: where it stands in the recipe, its value, and why; the reason is empty where it needs none."""

    path: Path
    value: Any
    why: str = ""


@dataclass(frozen=True)
class InputSize:
    """How images become the network's input, with the reasons."""

    size: tuple[int, int]
    resize: Literal["none", "stretch", "letterbox", "crop"]
    why_size: str
    why_resize: str


def default_budget(machine: Machine) -> tuple[BudgetName, str]:
    """Return the budget where none is asked for: small on a CPU."""
    if machine.gpu:
        return "medium", f"medium, because there is a GPU ({machine.device}); --budget small or large is another"
    return "small", "small, because this machine computes on its CPU; --budget medium or large is another"


def decide(f: Fingerprint, budget: BudgetName, machine: Machine) -> list[Decision]:
    """Return a recipe's settings but for its dataset, section by section."""
    chosen = BUDGETS[budget]
    found = input_size(f, chosen.side)
    split, train = splits(f)
    batch = batch_size(found.size, train, chosen, machine)
    crops = crop_settings(f, found)
    per_image = next((one.value for one in crops if one.path[-1] == "per_image"), 1)
    return [
        Decision(("seed",), 0),
        *split,
        Decision(("input", "size"), list(found.size), found.why_size),
        Decision(("input", "resize"), found.resize, found.why_resize),
        *([Decision(("input", "channels"), f.channels, "that of the images")] if f.channels != 3 else []),
        normalize(f),
        *crops,
        *augmentations(f, found.size),
        *encoder(chosen, budget),
        *decoder(f, found),
        *loss(f),
        Decision(("optimizer", "name"), "adamw"),
        Decision(("optimizer", "lr"), chosen.lr, f"for {chosen.encoder} with batches of {batch.value}"),
        Decision(("optimizer", "weight_decay"), 1e-2),
        Decision(("schedule", "name"), "poly", "falls to 0 at the last epoch"),
        Decision(("schedule", "power"), 0.9),
        Decision(("schedule", "warmup_epochs"), 1),
        epochs(train * per_image, batch.value, chosen, budget),
        batch,
        Decision(("train", "precision"), "auto", f"here {machine.precision}"),
        Decision(("train", "monitor"), "val.iou.pooled" if f.task.mode == "multiclass" else "val.dice.pooled"),
        *scores(f, found),
    ]


def input_size(f: Fingerprint, side: int) -> InputSize:
    """Return the input: the images as they are where they are small enough, else resized, else crops.

    Images are resized where small objects keep `LEAST_OBJECT` pixels in nine of ten images, and cropped where they
    would not.
    """
    scale = _scale(f, side)
    smallest = min(f.objects, key=lambda name: f.objects[name].small, default="")
    small = f.objects[smallest].small if smallest else math.inf
    limit = f"at most the pixels of {side}x{side} by the budget"
    one_size = len(f.sizes) == 1
    if scale >= 1 and one_size:
        seen = "all images" if f.read == f.images else f"all {f.read:,} images that were read"
        return InputSize((f.height, f.width), "none", f"that of {seen}; {limit}", "nothing is resized")
    if scale < 1 and scale * small < LEAST_OBJECT:
        crop = (min(side, _multiple(f.height)), min(side, _multiple(f.width)))
        kept = f"{smallest} has objects of {small:.0f} pixels, {small * scale:.1f} if images were resized to fit"
        return InputSize(crop, "crop", f"of crops; {limit}", kept)
    area = min(side * side, f.height * f.width)
    low, high = f.aspects
    mixed = high / low > SAME_SHAPE
    ratio = 1.0 if mixed and low < 1 < high else f.width / f.height
    size = (_multiple(math.sqrt(area / ratio)), _multiple(math.sqrt(area * ratio)))
    saw = f"images are {f.height}x{f.width}{'' if one_size else ' (median)'}; {limit}, before rounding"
    if mixed:
        return InputSize(size, "letterbox", saw, f"width by height is {low:.2g} to {high:.2g}, so nothing is distorted")
    kept = f"small objects ({smallest}) keep {small * min(scale, 1):.0f} pixels" if smallest else "all have one shape"
    return InputSize(size, "stretch", saw, kept)


def _scale(f: Fingerprint, side: int) -> float:
    """Return the factor by which the larger images, all but the largest tenth, would be resized to fit; 1 at most."""
    areas = sorted((height * width, count) for (height, width), count in f.sizes.items())
    reached, total = 0, sum(count for _, count in areas)
    for area, count in areas:
        reached += count
        if reached >= 0.9 * total:
            return min(1.0, side / math.sqrt(area))
    return 1.0


def _multiple(length: float) -> int:
    return max(STEP, STEP * round(length / STEP))


def normalize(f: Fingerprint) -> Decision:
    """Return the statistics: the weights' own for 8-bit colours and grey, else those of the training images."""
    if f.dtype == "uint8" and f.channels == 3:
        return Decision(("input", "normalize"), "encoder", "8-bit colours or grey, as the weights were trained on")
    what = f"{f.channels} channels" if f.channels != 3 else f"{f.dtype} values"
    return Decision(("input", "normalize"), "dataset", f"{what}: a photograph's statistics don't fit")


def crop_settings(f: Fingerprint, found: InputSize) -> list[Decision]:
    """Return which crops training sees, where it sees crops."""
    if found.resize != "crop":
        return []
    covered = f.height * f.width / (found.size[0] * found.size[1])
    rarest = min(_own_shares(f), key=lambda share: share.share)
    decisions = []
    if f.upright > SYMMETRIC:
        decisions.append(Decision(("crop", "scale"), [0.5, 2.0], "a scene has things near and far"))
    else:
        decisions.append(Decision(("crop", "scale"), [0.8, 1.25], "seen from one distance, by the classes' symmetry"))
    if rarest.share < RARE:
        saw = f"{rarest.name} is {_percent(rarest.share)} of the pixels; centred on it a crop shows some (nnU-Net)"
        decisions.append(Decision(("crop", "foreground"), 0.33, saw))
    if covered >= 4:
        count = min(8, round(covered / 2))
        decisions.append(Decision(("crop", "per_image"), count, f"an image has the pixels of {covered:.0f} crops"))
    return decisions


def augmentations(f: Fingerprint, size: Sequence[int]) -> list[Decision]:
    """Return the augmentations of inputs of a size, each as an item of the list: its mapping, and why."""
    items: list[tuple[dict[str, Any], str]] = []
    if f.sideways <= max(SYMMETRIC, f.upright):
        why = f"classes differ by {f.sideways:.2f} left and right (0 to 1)"
        items.append(({"name": "HorizontalFlip", "p": 0.5}, why))
    if f.upright <= SYMMETRIC:
        why = f"classes differ by {f.upright:.2f} above and below (0 to 1)"
        items.append(({"name": "VerticalFlip", "p": 0.5}, why))
        if size[0] == size[1]:  # turned, another input would have another size
            items.append(({"name": "RandomRotate90", "p": 0.5}, "so quarter turns are as likely"))
    if f.dtype == "uint8" and f.channels == 3:
        items.append(({"name": "RandomBrightnessContrast", "p": 0.3}, "8-bit images"))
    return [Decision(("augment", str(place)), item, why) for place, (item, why) in enumerate(items)]


def encoder(chosen: Budget, budget: BudgetName) -> list[Decision]:
    """Return the encoder of the budget, with pretrained weights where they are available."""
    return [
        Decision(("encoder", "name"), chosen.encoder, f"that of the budget {budget}"),
        Decision(("encoder", "weights"), chosen.weights, "fetched once if they are not there yet"),
        Decision(("encoder", "weights_fallback"), "random", "offline: continues from random weights, and says so"),
    ]


def decoder(f: Fingerprint, found: InputSize) -> list[Decision]:
    """Return U-Net where objects are thin at the network's input, DeepLabV3+ else."""
    scale = 1.0
    if found.resize != "crop":
        scale = min(1.0, math.sqrt(found.size[0] * found.size[1] / (f.height * f.width)))
    thin = min(f.objects, key=lambda name: f.objects[name].thickness, default="")
    width = f.objects[thin].thickness * scale if thin else math.inf
    if width < 2 * LEAST_OBJECT:
        return [Decision(("decoder", "name"), "smp.unet", f"{_widths(thin, width)}: details count")]
    return [
        Decision(("decoder", "name"), "deeplabv3plus", f"{_widths(thin, width)}: context counts"),
        Decision(("decoder", "output_stride"), 16),
    ]


def _widths(name: str, width: float) -> str:
    return f"{name} is {width:.0f} pixels wide here (median)" if name else "no object was seen"


def loss(f: Fingerprint) -> list[Decision]:
    """Return Dice plus cross-entropy, weighted where classes are imbalanced."""
    shares = _own_shares(f)
    rarest, most = min(shares, key=lambda s: s.share), max(f.shares, key=lambda s: s.share)
    saw = f"{rarest.name} is {_percent(rarest.share)} of the pixels"
    if f.task.mode != "multiclass":
        why = f"{saw}: Dice evens that out, cross-entropy is smooth"
        return [Decision(("loss", "name"), "dice_bce", why)]
    ratio = most.share / rarest.share if rarest.share else math.inf
    name = Decision(("loss", "name"), "dice_ce", f"{saw}, {most.name} {_percent(most.share)}")
    if ratio < IMBALANCED:
        return [name]
    why = f"roots of median frequencies, 0.5 to 4; {ratio:,.0f} times as many pixels of {most.name}"
    return [name, Decision(("loss", "class_weights"), class_weights(f), why)]


def class_weights(f: Fingerprint) -> list[float]:
    """Return the roots of the median-frequency weights (arXiv:1411.4734), between 0.5 and 4; 1 without a pixel."""
    weights = f.weights.get("median_frequency", [])
    return [1.0 if weight is None else round(min(4.0, max(0.5, math.sqrt(weight))), 2) for weight in weights]


def splits(f: Fingerprint) -> tuple[list[Decision], int]:
    """Return the section split, and how many images train by it."""
    own = f.splits
    units = f.groups or f.images
    unit = "groups" if f.groups else "images"
    if "train" in own and "val" in own:
        counts = ", ".join(f"{split} {count}" for split, count in own.items())
        decisions = [Decision(("split", "method"), "dataset", f"the dataset's own: {counts}")]
        if "test" not in own:
            decisions.append(Decision(("split", "test"), 0.0, "the dataset has none; val is scored"))
        return decisions, own["train"]
    if units >= _MANY:
        val, test = 0.15, 0.15
        why = f"of {f.images:,} images" + (f"; none of {f.groups:,} groups is divided" if f.groups else "")
    elif units >= 3:
        val = test = math.ceil(100 / units) / 100
        why = f"one of {units} {unit}"
    else:
        val, test = 0.5, 0.0
        why = f"of {units} {unit if units > 1 else unit[:-1]}: a score on so few says next to nothing"
    alike = f"{f.alike_images} images look like copies of each other: `segreg data check` names them" if f.alike else ""
    decisions = [Decision(("split", "method"), "auto" if own else "random", alike)]
    decisions += [Decision(("split", "val"), val, why), Decision(("split", "test"), test)]
    rare = [s for s in _own_shares(f) if s.image_share < RARE and s.images < RARE_IMAGES and s.images]
    if rare and units >= _MANY:
        fewest = min(rare, key=lambda share: share.images)
        saw = f"{fewest.name} is in {fewest.images} images only; each split gets its share"
        decisions.append(Decision(("split", "stratify"), True, saw))
    missing = sum(share for split, share in (("val", val), ("test", test)) if split not in own)  # drawn from train
    return decisions, max(1, round(own.get("train", f.images) - missing * f.images))


def batch_size(size: Sequence[int], train: int, chosen: Budget, machine: Machine) -> Decision:
    """Return the largest power of two that fits, up to 16 on a GPU and 8 on a CPU, with four steps an epoch at least.

    Activations are `Budget.bytes` for each pixel, half of that in 16 bits; 0.8 of the memory is theirs.
    """
    one = size[0] * size[1] * chosen.bytes / (2 if machine.half else 1) / 2**20
    fitting = int(0.8 * machine.memory_mib / one)
    most = min(16 if machine.gpu else 8, max(2, train // 4))
    batch = 2 ** int(math.log2(max(2, min(most, fitting))))
    why = f"an image takes some {one:,.0f} MiB, and {machine.memory_mib:,.0f} are free on {machine.device}"
    return Decision(("train", "batch_size"), batch, why)


def epochs(images: int, batch: int, chosen: Budget, budget: BudgetName) -> Decision:
    """Return as many epochs as give the budget's number of optimizer steps, between 10 and 500."""
    from segreg.data.loader import batches_of

    steps = batches_of(images, batch)
    count = min(EPOCHS[1], max(EPOCHS[0], math.ceil(chosen.steps / steps)))
    why = f"{count * steps:,} steps of {batch} images; the budget {budget} has some {chosen.steps:,}"
    return Decision(("train", "epochs"), count, why)


def scores(f: Fingerprint, found: InputSize) -> list[Decision]:
    """Return how predictions are scored: at each image's own size."""
    metrics = ["iou", "dice", "mean_accuracy", "accuracy"] if f.task.mode == "multiclass" else None
    decisions = [Decision(("evaluate", "metrics"), metrics or ["dice", "iou", "precision", "recall"])]
    if found.resize in ("stretch", "letterbox"):
        decisions.append(Decision(("evaluate", "resolution"), "original", "scores are of each image at its own size"))
    return decisions


def _own_shares(f: Fingerprint) -> list[Any]:
    """Return the classes' shares, without a binary task's background, and without those that nobody shows."""
    shares = f.shares[1:] if f.task.mode == "binary" else f.shares
    return [share for share in shares if share.pixels] or list(shares)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"
