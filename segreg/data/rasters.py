"""Georeferenced rasters, such as GeoTIFF and VRT, read by windows, so that they may be larger than memory.

They are read by rasterio, which the extra `geo` installs; without it, nothing here is used.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segreg.data.images import ImageSource, opened, refuse_special
from segreg.errors import SegregError, did_you_mean

INSTALL = 'pip install "segreg-toolkit[geo]"'
GDAL = {"GDAL_CACHEMAX": 256}
"""GDAL's options: MB of decoded blocks that are kept; by itself it takes a twentieth of the machine's memory."""
_GEO_TAGS = (33550, 34264, 34735, 50844)  # ModelPixelScale, ModelTransformation, GeoKeyDirectory, RPCCoefficient


def installed() -> bool:
    """Whether rasterio is there."""
    return find_spec("rasterio") is not None


def need_rasterio(what: object) -> Any:
    """Return rasterio.

    Raises:
        SegregError: it is not installed; the message begins with `what` and has the command that installs it.
    """
    if not installed():
        raise SegregError(f"{what}: georeferenced rasters are read by rasterio, which is not installed", hint=INSTALL)
    import rasterio

    return rasterio


def is_georeferenced(path: ImageSource) -> bool:
    """Whether a file is a VRT, or a TIFF that says where on earth it lies; False where it can't be read."""
    import tifffile

    try:
        if isinstance(path, Path) and path.suffix.lower() == ".vrt":
            return path.is_file()
        if isinstance(path, Path) and (path.suffix.lower() not in (".tif", ".tiff") or not path.is_file()):
            return False
        with tifffile.TiffFile(opened(path)) as file:
            return any(tag in file.pages.first.tags for tag in _GEO_TAGS)
    except Exception:  # decoders raise whatever they stumble over; reading the file tells what is wrong
        return False


def is_raster(path: Path) -> bool:
    """Whether a file is read by rasterio: a VRT, which nothing else reads, or a georeferenced TIFF if it is there."""
    return (installed() or path.suffix.lower() == ".vrt") and is_georeferenced(path)


class Raster:
    """A raster's bands as an array `[H, W, C]`: slicing `[top:bottom, left:right]` reads a window.

    Values are uint8 or uint16 where the file has these, and float32 otherwise. Pixels that are invalid in any of the
    bands, by the file's nodata value, mask or alpha band, are NaN in float32; in integers they have the mean of each
    band's valid pixels in the window. A band that has a name is not taken for alpha, whatever the file calls it.

    It can be used by several threads, and pickled; the file is opened when it is first read.

    Attributes:
        crs: coordinate reference system, as rasterio has it; None where the file has none.
        transform: affine, from (column, row) to the system's coordinates.
        gcps: ground control points and their reference system, which some files have in place of a transform.
        rpcs: rational polynomial coefficients, likewise; None where there are none.
        nodata: each band's value of pixels without data; None where it has none.
    """

    def __init__(self, path: Path, bands: Sequence[int | str] | None = None, *, of_classes: bool = False) -> None:
        """Open a raster and read its header.

        Args:
            path: the file.
            bands: numbers, from 1, or names of bands, in the order in which they are given; None: all but alpha, which
                must be opaque or transparent then, as GDAL also calls a fourth band alpha that is something else.
            of_classes: whether it is a mask: values keep the file's type, as float32 has no room for large numbers, and
                a pixel has no data where all bands have the nodata value, as a colour may have it in one.

        Raises:
            SegregError: rasterio is not installed, the file can't be read, or has no such band; the file is named.
        """
        self.path = path
        self._lock = threading.Lock()
        self._opened: Any = None
        with self._lock:
            file = self._file()
            self.crs, self.transform, self.gcps, self.rpcs = file.crs, file.transform, file.gcps, file.rpcs
            colours = [str(one.name) for one in file.colorinterp]
            described = [text or "" for text in file.descriptions]
            alpha = [n for n, one in enumerate(colours, 1) if one == "alpha" and not described[n - 1]]
            names = [(text or colour).lower() for text, colour in zip(described, colours, strict=True)]
            if bands is None:
                self.indices = [index for index in file.indexes if index not in alpha]
            else:
                self.indices = [_number(band, names, path) for band in bands]
            self._alpha = next((index for index in alpha if index not in self.indices), None)
            self._strict = bands is None
            kinds = {np.dtype(file.dtypes[index - 1]) for index in self.indices}
            self.nodata = tuple(file.nodatavals[index - 1] for index in self.indices)
            flags = {str(flag.name) for index in self.indices for flag in file.mask_flag_enums[index - 1]}
            self._has_mask = flags == {"per_dataset"}
            self.shape: tuple[int, int, int] = (file.height, file.width, len(self.indices))
        if any(kind.kind == "c" for kind in kinds):
            raise SegregError(f"{path}: holds complex values", hint="save amplitude and phase as bands of their own")
        same = len(kinds) == 1 and kinds <= {np.dtype(np.uint8), np.dtype(np.uint16)}
        self.dtype: np.dtype[Any] = np.result_type(*kinds) if same or of_classes else np.dtype(np.float32)
        self._lacks = np.logical_and if of_classes else np.logical_or

    @property
    def may_lack_data(self) -> bool:
        """Whether the file says which pixels are valid, or can by its type of values."""
        return self._has_nodata or self._has_mask or self._alpha is not None or self.dtype.kind == "f"

    @property
    def _has_nodata(self) -> bool:
        return any(one is not None for one in self.nodata)

    @property
    def size(self) -> int:
        """Return how many values it has."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a window's values `[height, width, C]` and which of its pixels are valid, bool `[height, width]`.

        What lies beyond the raster's border is not valid.

        Raises:
            SegregError: it can't be decoded; the message has the window.
        """
        bottom, right = min(top + height, self.shape[0]), min(left + width, self.shape[1])
        with self._lock:
            try:
                window = ((top, bottom), (left, right))
                with need_rasterio(self.path).Env(**GDAL):
                    bands = self._file().read(self.indices, window=window, out_dtype=self.dtype)
                    mask = self._file().read_masks(self.indices[0], window=window) if self._has_mask else None
                    alpha = None if self._alpha is None else self._file().read(self._alpha, window=window)
            except SegregError:
                raise
            except Exception as error:  # RasterioIOError, and whatever a driver stumbles over
                raise SegregError(
                    f"{self.path}: rows {top} to {bottom}, columns {left} to {right} can't be read ({error})",
                    hint="fetch or export it again",
                ) from None
        values = np.zeros((height, width, self.shape[2]), self.dtype)
        valid = np.zeros((height, width), np.bool_)
        inside = slice(0, bottom - top), slice(0, right - left)
        values[inside] = bands.transpose(1, 2, 0)
        valid[inside] = True if mask is None else mask > 0
        if self._has_nodata:
            with np.errstate(over="ignore"):  # the least float64 is minus infinity in float32, as GDAL reads it
                nothing = [np.nan if one is None else one if self.dtype.kind in "iu" else self.dtype.type(one)
                           for one in self.nodata]  # fmt: skip
            valid[inside] &= ~self._lacks.reduce([band == one for band, one in zip(bands, nothing, strict=True)])
        if alpha is not None:
            valid[inside] &= alpha > 0
            if self._strict and ((alpha > 0) & (alpha < alpha.max(initial=1))).any():
                others = ", ".join(map(str, self.indices))
                raise SegregError(
                    f"{self.path}: band {self._alpha} is called alpha, but is neither opaque nor transparent in some "
                    "pixels",
                    hint=f"bands: [{others}, {self._alpha}] takes it as a band, [{others}] what is not transparent",
                )
        if self.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=2)
            values[~valid] = np.nan
        elif not valid.all():
            values[~valid] = np.rint(values[valid].mean(axis=0)) if valid.any() else 0
        return values, valid

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        (top, bottom, _), (left, right, _) = (
            one.indices(side) for one, side in zip(window, self.shape[:2], strict=True)
        )
        return self.read(top, left, bottom - top, right - left)[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:, :].astype(dtype or self.dtype, copy=False)

    def close(self) -> None:
        """Close the file; reading opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = None

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _file(self) -> Any:
        if self._opened is None:
            rasterio = need_rasterio(self.path)
            refuse_special(self.path)
            try:
                self._opened = rasterio.open(self.path)
            except rasterio.errors.RasterioIOError as error:
                raise SegregError(f"{self.path}: can't be read as a raster ({error})") from None
        return self._opened


def _number(band: int | str, names: Sequence[str], path: Path) -> int:
    """Return the number of a band that is named, or given by its number."""
    numbers = range(1, len(names) + 1)
    found = [n for n in numbers if band == n or (isinstance(band, str) and names[n - 1] == band.lower())]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{number} ({name})" for number, name in zip(numbers, names, strict=True))
    raise SegregError(
        f'{path}: has {"several bands" if found else "no band"} "{band}"',
        hint="\n".join(filter(None, [did_you_mean(str(band).lower(), names), f"its bands are {there}"])),
    )
