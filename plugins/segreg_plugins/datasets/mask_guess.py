"""What a sample of masks holds, and the settings of `folder`, `csv` and `geo_raster` that read it."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import SegregError
from segreg_plugins.datasets.listing import evenly, head
from segreg_plugins.datasets.mask_files import grey_levels_count, lossy_format, read_colours, read_values
from segreg_plugins.datasets.mask_values import described, packed, unpacked, value_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_MASKS, MOST_PIXELS = 48, 80_000_000
"""Masks that are read at most, and pixels after which no further one is."""
FLAT = 0.8
"""Share of horizontal neighbours with one value from which an image passes for a mask."""
MOST_CLASSES, MOST_COLOURS = 254, 64
_SOFT = 0.95
"""Share of the pixels of a grey mask that are nearly black or nearly white, so that the rest are soft edges."""
_MANY = 16
"""Values in one mask from which they may be the numbers of objects."""
_MOST_LEVELS, _LEAST_LEVEL = 8, 64
"""How many values at most, and of which the largest at least, are grey levels rather than class numbers with gaps."""
_NAMED = ("classes.txt", "labels.txt", "class_names.txt", "classes.json", "labels.json")
_NAMED_COLOURS = ("labelmap.txt", "class_dict.csv", "label_colors.txt")
_VOID = ("void", "ignore", "unlabeled", "unlabelled")


@dataclass(frozen=True)
class MaskGuess:
    """The settings that read some masks, and what they hold, in a few words."""

    settings: dict[str, Any]
    because: str


def looks_like_mask(files: Sequence[Path]) -> bool:
    """Whether images are flat as masks are, by a few of them."""
    shares = [share for file in evenly(files, 3) if (share := _flat(file)) is not None]
    return bool(shares) and sorted(shares)[len(shares) // 2] >= FLAT


def _flat(file: Path) -> float | None:
    from segreg.data.images import read_image, read_labels

    try:
        values = read_image(file)
    except SegregError:
        try:
            values = read_labels(file)  # negative or large ones
        except SegregError:
            return None
    equal = values[:, 1:] == values[:, :-1]
    return float((equal if equal.ndim == 2 else equal.all(axis=2)).mean()) if equal.size else None


def guess_masks(masks: Sequence[Path], root: Path) -> MaskGuess | None:
    """Return how a sample of masks is read; None where they hold what has no rule.

    Those that can't be read at all are left out: the dataset names them.

    Args:
        masks: the files.
        root: a folder that may have the names of the classes in `classes.txt`, `labelmap.txt` and the like.

    Raises:
        SegregError: 0 is shown white in one of them.
    """
    from segreg.data.images import WhiteIsZeroError, is_readable

    chosen = evenly(masks, MOST_MASKS)
    try:
        grey_levels = grey_levels_count(chosen)
    except SegregError:  # an index with several colours: they are read as colours
        return _by_colour(chosen, root)
    held: Counter[int] = Counter()
    per_mask: list[tuple[int, int]] = []  # values beside 0, and regions of them
    pixels = read = 0
    for file in chosen:
        try:
            values = read_values(file, grey_levels=grey_levels)
        except WhiteIsZeroError:
            raise
        except SegregError:
            if is_readable(file):
                return _by_colour(chosen, root)
            continue
        if values.dtype.kind == "f" and (values != values.round()).any():
            return None
        found = value_counts(values)
        held.update(found)
        per_mask.append(_regions(values, found))
        pixels, read = pixels + values.size, read + 1
        if pixels > MOST_PIXELS:
            break
    if not read:
        return None
    lossy = any(lossy_format(file) for file in chosen[:3])
    guess = _by_value(held, per_mask, root, lossy=lossy)
    part = f" in {read} of {len(masks):,} looked at" if guess and read < len(masks) else ""
    return MaskGuess(guess.settings, guess.because + part) if guess else None


def _regions(values: NDArray[Any], found: dict[int, int]) -> tuple[int, int]:
    """Return how many values a mask has beside 0, and how many regions they form; none where there are too many."""
    import numpy as np

    there = [value for value in found if value != 0]
    if not 8 <= len(there) <= 5_000:
        return len(there), 0
    import cv2

    # Of each region the borders to other values are cut, so that objects that touch stay apart.
    padded = np.pad(values.astype(np.int64), ((0, 1), (0, 1)), mode="edge")
    inner = (padded[:-1, :-1] == padded[1:, :-1]) & (padded[:-1, :-1] == padded[:-1, 1:]) & (values != 0)
    regions = cv2.connectedComponents(inner.astype(np.uint8), connectivity=4)[0] - 1
    return len(there), int(regions)


def _by_value(held: Counter[int], per_mask: Sequence[tuple[int, int]], root: Path, *, lossy: bool) -> MaskGuess | None:
    values = sorted(held)
    saw = f"masks with {described(values)}"
    names, void = _names(root)
    binary = len(names) == 1 or (len(names) == 2 and names[0].lower() == "background")
    foreground = names[-1] if binary else "foreground"
    if set(values) <= {0, 255} or (set(values) <= {0, 1} and (binary or not names)):
        return MaskGuess({"classes": [foreground]}, saw)
    nearly = sum(count for value, count in held.items() if value <= 16 or 239 <= value <= 255)
    bright = any(128 <= value < 255 for value in values)  # which neither class numbers nor an ignored 255 are
    if values[-1] <= 255 and len(values) > 12 and bright and nearly > _SOFT * held.total():
        soft = {"classes": [foreground], "foreground": "above_127"}
        return MaskGuess(soft, "grey masks, nearly all of them black or white")
    if lossy:
        return None
    many = [(count, regions) for count, regions in per_mask if count >= 8]
    most = max((count for count, _ in many), default=0)
    if most >= _MANY and 2 * len(many) > len(per_mask) and all(found <= 2 * count for count, found in many):
        numbered = {"classes": [foreground], "foreground": "nonzero"}
        return MaskGuess(numbered, f"masks of numbered objects, up to {most} in one, about one region a number")
    if values[0] < 0 or len(values) > MOST_CLASSES:
        return None
    classes = [value for value in values if value != 255]
    grey_levels = len(classes) <= _MOST_LEVELS and classes[-1] >= max(_LEAST_LEVEL, 2 * len(classes))
    ignored = void if void is not None else None if grey_levels else 255  # white is one of the levels
    classes = [value for value in values if value != ignored]

    def numbered_from_0(classes: list[str]) -> dict[str, Any]:
        # 255 is ignored without a word, except beside one or two classes, of which it might be one.
        said = ignored in held and (ignored != 255 or len(classes) < 3)
        return {"classes": classes, **({"ignore_index": ignored} if said else {})}

    if classes == [0, 1] and (binary or not names):
        return MaskGuess(numbered_from_0([foreground]), saw)
    if names and classes and classes[-1] < len(names):
        return MaskGuess(numbered_from_0(names), f"{saw}, {len(names)} classes named in the folder")
    ignore = {"ignore": ignored} if ignored in held else {}
    if len(classes) == 2 and classes[0] == 0:
        two = {"background": 0, foreground: classes[1], **ignore}
        return MaskGuess({"classes": [foreground], "values": two}, saw)
    if classes and classes[-1] < 2 * len(classes):
        return MaskGuess(numbered_from_0([f"class_{number}" for number in range(classes[-1] + 1)]), saw)
    return MaskGuess({"values": {f"class_{value}": value for value in classes} | ignore}, saw)


def _by_colour(masks: Sequence[Path], root: Path) -> MaskGuess | None:
    import numpy as np

    from segreg.data.images import is_readable

    held: set[tuple[int, int, int]] = set()
    pixels = 0
    for file in masks:
        try:
            colours = read_colours(file)
        except SegregError:
            if is_readable(file):
                return None
            continue
        if lossy_format(file):
            return None
        held |= {unpacked(code) for code in np.unique(packed(colours))[: MOST_COLOURS + 1].tolist()}
        pixels += colours.shape[0] * colours.shape[1]
        if len(held) > MOST_COLOURS:
            return None
        if pixels > MOST_PIXELS:
            break
    found = sorted(held)
    saw = f"masks of {len(found)} colours"
    named = _named_colours(root)
    if named and held <= set(named):
        table: dict[str, Any] = {}
        for colour, name in named.items():
            key = "ignore" if name.lower() in _VOID else name
            table.setdefault(key, []).append(list(colour))
        return MaskGuess({"values": table}, f"{saw}, named in the folder")
    if len(found) == 2 and found[0] == (0, 0, 0):
        table = {"background": list(found[0]), "foreground": list(found[1])}
        return MaskGuess({"classes": ["foreground"], "values": table}, saw)
    return MaskGuess({"values": {"rgb_" + "_".join(map(str, colour)): list(colour) for colour in found}}, saw)


def _names(root: Path) -> tuple[list[str], int | None]:
    """Return the names of classes that a file in the folder lists, and the value that it says is ignored."""
    for file in (root / name for name in _NAMED):
        text = head(file)
        if not text:
            continue
        if file.suffix == ".txt":
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return [re.sub(r"^\d+[\s:,]+", "", line) for line in lines], None
        try:
            content = json.loads(text)
        except ValueError:
            continue
        names = content.get("classes", content) if isinstance(content, dict) else content
        if isinstance(names, dict) and all(str(key).isdecimal() for key in names):
            names = [names[key] for key in sorted(names, key=int)]
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            void = content.get("ignore_index") if isinstance(content, dict) else None
            return names, void if isinstance(void, int) else None
    return [], None


def _named_colours(root: Path) -> dict[tuple[int, int, int], str]:
    """Return the name of each colour by CVAT's `labelmap.txt` (name:r,g,b::) or a table of name,r,g,b."""
    found: dict[tuple[int, int, int], str] = {}
    for name in _NAMED_COLOURS:
        for row in csv.reader(head(root / name).splitlines()):
            match = re.fullmatch(r"([^#,:\t]+)[\s:,]+(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s:,]*.*", ",".join(row))
            if match:
                found[int(match[2]), int(match[3]), int(match[4])] = match[1].strip()
    return found
