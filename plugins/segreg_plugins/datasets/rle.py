"""COCO's run-length encoded masks, both forms, as pixels.

A mask is written column by column, top to bottom: so many pixels outside, so many inside, outside, and so on. The
uncompressed form lists these counts. The compressed one writes them as a string: each count (from the third on less the
one two before it) in pieces of five bits, lowest first, as characters from "0" on; the sixth bit says that more
pieces follow, and the last piece's fifth bit is the sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segreg.errors import SegregError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FIRST = ord("0")
_MOST_BITS = 60


def counts_of(text: str) -> list[int]:
    """Return the counts of a compressed mask.

    Raises:
        SegregError: the text holds a character that is none of the 64, or breaks off inside a count.
    """
    counts: list[int] = []
    value = shift = 0
    for position, character in enumerate(text):
        piece = ord(character) - _FIRST
        if not 0 <= piece < 64:
            raise SegregError(f"its compressed mask holds {character!r} at character {position + 1}")
        value |= (piece & 31) << shift
        shift += 5
        if shift > _MOST_BITS:
            raise SegregError(f"its compressed mask has a number of more than {_MOST_BITS} bits")
        if piece & 32:
            continue
        if piece & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise SegregError("its compressed mask breaks off inside a number")
    return counts


def pixels_of(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of `counts`, bool `[H, W]`.

    Raises:
        SegregError: a count is below 0, or they don't add up to the number of pixels.
    """
    import numpy as np

    height, width = size
    if any(count < 0 for count in counts):
        raise SegregError(f"its mask has a run of {min(counts)} pixels")
    if sum(counts) != height * width:
        raise SegregError(
            f"its mask's runs add up to {sum(counts)} pixels, and {height}x{width} (height x width) are "
            f"{height * width}"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
