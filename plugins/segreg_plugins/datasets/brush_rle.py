"""Label Studio's run-length encoded brush strokes as pixels.

The bits of the bytes, highest first: 32 for the number of values, 5 for a value's number of bits less one, and four
times 4 for sizes less one. Then chunks follow: one bit that says whether its values are all the same, 2 bits that
choose one of the four sizes, that many bits for the number of its values less one, and its values or the one value.
The values are the bytes of an RGBA image, row by row, whose alpha says where the brush was. The packing is that of
rle-pack (https://github.com/thi-ng/umbrella).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segreg.errors import SegregError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HALF = 128
"""The least alpha, of 255, that a pixel of the brush has: its soft edge counts from the middle on."""


def brush_pixels(data: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels of a brush, bool `[H, W]`.

    Raises:
        SegregError: the bytes are for an image of another size, or break off.
    """
    import numpy as np

    bits = _Bits(data)
    count = bits.take(32)
    width = bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    expected = 4 * size[0] * size[1]
    if count != expected or width != 8:
        raise SegregError(
            f"its rle is of {count} values of {width} bits, and RGBA of {size[0]}x{size[1]} (height x width) has "
            f"{expected} of 8"
        )
    values = np.empty(count, np.uint8)
    done = 0
    while done < count:
        same = bits.take(1)
        length = bits.take(sizes[bits.take(2)]) + 1
        if done + length > count:
            raise SegregError(f"its rle has more than the {count} values that it says")
        values[done : done + length] = bits.take(8) if same else bits.values(length)
        done += length
    return values.reshape(*size, 4)[..., 3] >= HALF


class _Bits:
    """Bytes that are read bit by bit."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        first, last = self.at // 8, -(-(self.at + count) // 8)
        self._refuse_beyond(last)
        number = int.from_bytes(self.data[first:last])
        self.at += count
        return (number >> (8 * last - self.at)) & ((1 << count) - 1)

    def values(self, count: int) -> NDArray[np.uint8]:
        """Return the next `count` bytes, which may begin inside one."""
        import numpy as np

        first, shift = divmod(self.at, 8)
        last = first + count + (shift > 0)
        self._refuse_beyond(last)
        self.at += 8 * count
        found = np.frombuffer(self.data, np.uint8, last - first, first)
        if not shift:
            return found
        pairs = found[:-1].astype(np.uint16) << 8 | found[1:]
        return (pairs >> (8 - shift)).astype(np.uint8)

    def _refuse_beyond(self, last: int) -> None:
        if last > len(self.data):
            raise SegregError(f"its rle breaks off after {len(self.data)} bytes")
