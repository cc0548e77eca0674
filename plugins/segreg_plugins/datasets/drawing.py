"""Drawing one dermoscopy-like image of a skin lesion together with its exact mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def _colours(*rows: tuple[float, float, float]) -> Floats:
    return np.array(rows, np.float32)


# RGB in [0, 1]: skin from pale to dark.
_SKINS = _colours((0.93, 0.78, 0.74), (0.88, 0.70, 0.64), (0.86, 0.66, 0.55), (0.80, 0.60, 0.50), (0.70, 0.50, 0.40))
# A lesion's colour as a share of the skin's: tan, brown, dark brown, blue-grey, red; the last, pale, is regression.
_PIGMENTS = _colours((0.78, 0.66, 0.56), (0.62, 0.46, 0.38), (0.38, 0.28, 0.26), (0.48, 0.50, 0.60), (0.84, 0.54, 0.52))
_REGRESSION = _colours((1.02, 1.02, 1.03))
_STICKERS = _colours((0.10, 0.30, 0.60), (0.15, 0.50, 0.35), (0.90, 0.75, 0.20), (0.75, 0.20, 0.25))


def draw(seed: int, index: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return image number `index` of a set and its mask.

    The same numbers give the same image, whatever the others of the set are. The lesions' share of the frame spreads
    about as that of ISIC 2018 does (median .18, one in twenty above .8).

    Shape: RGB `[size, size, 3]` uint8 and mask `[size, size]` uint8, 0 or 255.
    """
    rng = np.random.default_rng([seed, index])
    mask = _lesion_mask(rng, size)
    image = _paint_lesion(rng, _skin(rng, size), mask)
    for chance, add in _ARTEFACTS:
        if rng.random() < chance:
            image = add(rng, image, mask)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9) * size / 256)
    image += rng.uniform(0.004, 0.014) * rng.standard_normal(image.shape, np.float32)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), mask.astype(np.uint8) * 255


def _noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 2) -> Floats:
    """Return smooth noise `[size, size]` about 0, of standard deviation near 1, with `cells` bumps across."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        count = min(cells * 2**octave, size // 2)
        step = math.ceil(size / count)
        grid = rng.standard_normal((count + 1, count + 1), np.float32)
        rule = cv2.INTER_CUBIC if step > 12 else cv2.INTER_LINEAR  # below that the eye sees no difference
        wide = cv2.resize(grid, (step * (count + 1),) * 2, interpolation=rule)
        left, top = (int(n) for n in rng.integers(0, step + 1, 2))
        total += 0.5**octave * wide[top : top + size, left : left + size]
    return total


def _axes(size: int) -> tuple[Floats, Floats]:
    """Return x `[1, size]` and y `[size, 1]` from -1 to 1."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    return line[None, :], line[:, None]


def _towards(angle: float, size: int) -> Floats:
    """Return a slope `[size, size]` that rises from about -1 to 1 in a direction."""
    x, y = _axes(size)
    return x * math.cos(angle) + y * math.sin(angle)


def _lesion_mask(rng: np.random.Generator, size: int) -> Mask:
    """Return one piece without holes, of irregular border, that takes up its sampled share of the frame."""
    # Two half normal distributions on the logit of the share, after ISIC 2018's quantiles.
    z = float(rng.standard_normal())
    share = min(max(1 / (1 + math.exp(1.42 - z * (1.85 if z > 0 else 1.2))), 0.012), 0.97)
    stray = 0.24 if rng.random() < 0.2 else 0.11
    middle = [float(n) for n in rng.normal(0, stray, 2).clip(-0.35, 0.35) * (2 - 1.2 * share)]
    x, y = _axes(size)
    x, y = x - middle[0], y - middle[1]
    turn, stretch = rng.uniform(0, math.pi), math.sqrt(rng.uniform(1.0, 1.7))
    along = (x * math.cos(turn) + y * math.sin(turn)) / stretch
    across = (y * math.cos(turn) - x * math.sin(turn)) * stretch
    # The border's lobes by angle, from a table: a cosine for every pixel and lobe takes longer than all else.
    angles = np.linspace(-math.pi, math.pi, 4097)
    border = np.ones(4097)
    roughness = rng.uniform(0.3, 1.3)
    for lobes in range(2, 9):
        border += (
            roughness * 0.14 * rng.standard_normal() / lobes * np.cos(lobes * angles + rng.uniform(0, 2 * math.pi))
        )
    turned = ((np.arctan2(across, along) + math.pi) * (4096 / (2 * math.pi))).astype(np.int32)
    field = np.hypot(along, across) / border.clip(0.4).astype(np.float32)[turned] / math.sqrt(share)
    field += roughness * (0.045 * _noise(rng, size, 9, 3) + 0.024 * _noise(rng, size, 28))
    inside = field <= np.partition(field.ravel(), int(share * field.size))[int(share * field.size)]
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(inside.shape, np.uint8)
    cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled.astype(np.bool_)


def _skin(rng: np.random.Generator, size: int) -> Floats:
    """Return skin under light from one side, with blotches of redness and a fine relief."""
    at = rng.uniform(0, len(_SKINS) - 1)
    low = int(at)
    colour = _SKINS[low] + (at - low) * (_SKINS[min(low + 1, len(_SKINS) - 1)] - _SKINS[low])
    colour = colour * rng.uniform(0.85, 1.05) + 0.02 * rng.standard_normal(3, np.float32)
    light = 1 + rng.uniform(0, 0.2) * _towards(rng.uniform(0, 2 * math.pi), size) + 0.03 * _noise(rng, size, 2)
    light += rng.uniform(0.004, 0.016) * _noise(rng, size, 48) + rng.uniform(0.004, 0.012) * _noise(rng, size, 14)
    redness = rng.uniform(0, 0.07) * _noise(rng, size, 4).clip(0, 2)
    return light[..., None] * colour * (1 - redness[..., None] * _colours((0.3, 1.0, 0.9)))


def _paint_lesion(rng: np.random.Generator, skin: Floats, mask: Mask) -> Floats:
    """Paint pigments into the mask, fading over a border whose middle is the mask's edge."""
    size = mask.shape[0]
    # Beyond the frame the lesion continues, so that it does not fade where it touches the frame.
    inside = cv2.distanceTransform(np.pad(mask, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    signed = np.where(mask, inside - 0.5, 0.5 - outside)
    width = float(rng.choice([0.012, 0.03, 0.07])) * size * rng.uniform(0.6, 1.4)
    cover = 1 / (1 + np.exp((-4 / width * signed * np.exp(-0.35 * _noise(rng, size, 3))).clip(-30, 30)))
    # Pigments share the lesion by smooth noise; the first of them is its ground.
    palette = [_PIGMENTS[i] for i in rng.permutation(len(_PIGMENTS))[: rng.integers(2, 5)]]
    if rng.random() < 0.25:
        palette.append(_REGRESSION[0])
    weights = np.stack([np.exp(1.2 * _noise(rng, size, 3)) for _ in palette], axis=-1)
    weights[..., 0] *= 3
    share = (weights / weights.sum(axis=-1, keepdims=True)) @ np.stack(palette)
    network = rng.uniform(0, 0.10) * _noise(rng, size, 36) + rng.uniform(0.02, 0.08) * _noise(rng, size, 10)
    share *= 1 + network[..., None]
    # The contrast of the whole, which some lesions lose towards one side.
    strength = rng.uniform(0.35, 0.6) if rng.random() < 0.35 else rng.uniform(0.65, 1.1)
    fade = 1 - rng.uniform(0, 0.4) * (0.5 + 0.5 * np.tanh(2 * _towards(rng.uniform(0, 2 * math.pi), size)))
    cover = (cover * strength * fade)[..., None]
    if rng.random() < 0.35:  # reddened skin around, which is not lesion
        halo = rng.uniform(0.05, 0.16) * np.exp(-outside / (0.07 * size))
        skin = skin * (1 - halo[..., None] * _colours((0.25, 1.0, 0.9)))
    return skin * (1 + cover * (share - 1))


def _blend(image: Floats, layer: Floats, colour: Floats) -> Floats:
    return image + layer[..., None] * (colour - image)


def _hairs(rng: np.random.Generator, image: Floats, _mask: Mask) -> Floats:
    size = image.shape[0]
    layer = np.zeros((size, size), np.float32)
    lean = rng.uniform(0, math.pi)
    t = np.linspace(0, 1, 24)[:, None]
    for _ in range(int(rng.integers(3, 10) if rng.random() < 0.7 else rng.integers(10, 40))):
        start = rng.uniform(-0.1, 1.1, 2) * size
        turn = lean + 0.6 * rng.standard_normal()
        reach = rng.uniform(0.2, 0.9) * size * np.array([math.cos(turn), math.sin(turn)])
        bend = start + reach / 2 + 0.09 * size * rng.standard_normal(2)
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * (start + reach)
        thickness = max(1, round(size / 256 * rng.uniform(0.6, 2.2)))
        points = [(curve * 16).astype(np.int32)]
        cv2.polylines(layer, points, False, rng.uniform(0.5, 0.95), thickness, cv2.LINE_AA, 4)
    return _blend(image, layer, _colours((0.12, 0.08, 0.07))[0] * rng.uniform(0.4, 2.2))


def _dark_corners(rng: np.random.Generator, image: Floats, _mask: Mask) -> Floats:
    """Darken what lies outside the dermatoscope's round opening."""
    size = image.shape[0]
    x, y = _axes(size)
    distance = np.hypot(x - 0.05 * rng.standard_normal(), y - 0.05 * rng.standard_normal()).astype(np.float32)
    edge, width = rng.uniform(1.08, 1.36), float(rng.choice([0.02, 0.10, 0.25]))
    dark = 1 / (1 + np.exp(((edge - distance) * (4 / width)).clip(-30, 30)))
    return _blend(image, rng.uniform(0.6, 1.0) * dark, _colours((0.03, 0.02, 0.02))[0])


def _ruler(rng: np.random.Generator, image: Floats, _mask: Mask) -> Floats:
    size = image.shape[0]
    layer = np.zeros((size, size), np.float32)
    step, edge = rng.uniform(0.035, 0.08) * size, rng.uniform(0.01, 0.08) * size
    for number in range(int(size / step) + 1):
        at = round((number + 0.3) * step)
        length = (0.09 if number % 5 == 0 else 0.045) * size
        cv2.line(layer, (at, round(edge)), (at, round(edge + length)), 1.0, max(1, size // 200), cv2.LINE_AA)
    layer = np.rot90(layer, int(rng.integers(4)))
    return _blend(image, rng.uniform(0.5, 0.85) * layer, _colours((0.05, 0.05, 0.05))[0])


def _sticker(rng: np.random.Generator, image: Floats, mask: Mask) -> Floats:
    """Lay a coloured patch into a corner, never over the lesion."""
    size = image.shape[0]
    corner = rng.integers(0, 2, 2) + 0.05 * rng.standard_normal(2)
    layer = np.zeros((size, size), np.float32)
    middle = (round(float(corner[0]) * size), round(float(corner[1]) * size))
    cv2.circle(layer, middle, int(rng.uniform(0.18, 0.34) * size), 0.93, cv2.FILLED, cv2.LINE_AA)
    colour = _STICKERS[rng.integers(len(_STICKERS))] * rng.uniform(0.7, 1.1)
    return image if layer[mask].any() else _blend(image, layer, colour)


def _bubbles(rng: np.random.Generator, image: Floats, _mask: Mask) -> Floats:
    """Add rings of light where the gel holds air."""
    size = image.shape[0]
    layer = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(3, 16))):
        x, y = (int(n) for n in rng.integers(0, size, 2))
        radius = max(1, int(rng.uniform(0.006, 0.035) * size))
        cv2.circle(layer, (x, y), radius, rng.uniform(0.15, 0.4), 1, cv2.LINE_AA)
        cv2.circle(layer, (x - radius // 3, y - radius // 3), max(1, radius // 4), 0.45, cv2.FILLED)
    return _blend(image, layer, _colours((1.0, 1.0, 1.0))[0])


_ARTEFACTS: tuple[tuple[float, Callable[[np.random.Generator, Floats, Mask], Floats]], ...] = (
    (0.15, _sticker),
    (0.22, _ruler),
    (0.25, _bubbles),
    (0.45, _hairs),
    (0.38, _dark_corners),
)
"""How likely each is, in the order in which they are laid over each other."""
