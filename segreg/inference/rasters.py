"""Predict georeferenced rasters by windows, into GeoTIFFs of the same grid."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.data.rasters import GDAL, Raster, need_rasterio
from segreg.errors import SegregError, plural
from segreg.inference.predictor import InferenceConfig, InputImage, Predictor, prepare_image, takes_any_size
from segreg.runtime.files import replacing
from segreg.task import IGNORE_INDEX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.config.sections import Input
    from segreg.data.values import Statistics
    from segreg.inference.predictor import PredictedRows
    from segreg.task import Task

_MOST_AT_ONCE = 1 << 26
"""Values of a raster up to which it is read as a whole, like any image."""
_ROWS = 512
"""Rows that statistics are computed of at once."""


class RasterWindows:
    """A raster as one network takes it, `[H, W, C]`, of which only windows are read."""

    def __init__(self, raster: Raster, input: Input) -> None:
        self.raster, self.input = raster, input
        self.shape = (*raster.shape[:2], input.channels)
        # A dark window of a scene must not be taken for a scene that is too dark for 8 bits.
        self._halved = raster.dtype == "uint16" and input.sixteen_bit == "full_range"

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        import numpy as np

        from segreg.data.values import read_values

        section = replace(self.input, dtype="uint16", sixteen_bit="keep") if self._halved else self.input
        values = read_values(self.raster[window], section, self.raster.path)[0]
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8) if self._halved else values


def read_raster(
    predictors: Sequence[Predictor], file: Path, config: InferenceConfig, *, overlays: bool = False
) -> InputImage:
    """Return a raster as each network takes it: as arrays where it is small, and else as what reads windows.

    Args:
        predictors: the networks.
        file: the raster.
        config: how it is given to them.
        overlays: whether the whole of it is shown too, as in overlays.

    Raises:
        SegregError: it can't be read, its bands don't fit, or it is too large to be seen as a whole, as the networks
            or their settings ask for; it is named.
    """
    bands = {predictor.bands for predictor in predictors}
    rasters = {chosen: Raster(file, chosen) for chosen in bands}
    for predictor in predictors:
        raster = rasters[predictor.bands]
        if raster.shape[2] not in (predictor.input.channels, 1 if predictor.input.channels == 3 else None):
            raise SegregError(
                f"{file}: has {plural(raster.shape[2], 'band')}, and {predictor.name} takes "
                f"{plural(predictor.input.channels, 'channel')}",
                hint="--bands 1,2,3 names those to take, in the order of the channels; the recipe's dataset has the "
                "setting bands for it",
            )
    if max(raster.size for raster in rasters.values()) <= _MOST_AT_ONCE:
        arrays = {chosen: raster[:, :] for chosen, raster in rasters.items()}
        images = [prepare_image([one], arrays[one.bands], file, config) for one in predictors]
        return InputImage(file, tuple(one.pixels[0] for one in images), tuple(one.statistics[0] for one in images))
    if overlays:
        raise SegregError(
            f"{file}: is too large for coloured masks, overlays and strips", hint="its GeoTIFF has the classes' colours"
        )
    if not takes_any_size(predictors, config):
        raise SegregError(
            f"{file}: is too large to be seen as a whole", hint="--tile 512x512 predicts it, at its own size, in tiles"
        )
    for predictor in predictors:
        section = predictor.input
        setting = "sixteen_bit: min_max" if section.sixteen_bit == "min_max" else "clip"
        if section.clip is not None or section.sixteen_bit == "min_max":
            raise SegregError(
                f"{file}: is too large for input.{setting}, which {predictor.name} was trained with and which looks at "
                "all values of an image at once",
                hint="cut it into rasters of the size of the training images",
            )
    windows = [
        RasterWindows(rasters[one.bands], replace(one.input, size=(1, 1), resize="stretch")) for one in predictors
    ]
    return InputImage(file, tuple(windows), tuple(_statistics(one) if one.input.per_image else None for one in windows))


def _statistics(windows: RasterWindows) -> Statistics:
    """Return the statistics of a raster's valid pixels, from those of strips."""
    from segreg.data.values import image_statistics, pooled

    height, width, _ = windows.shape
    strips = []
    for top in range(0, height, _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        strips.append(image_statistics(windows[rows, 0:width], _invalid(windows.raster, rows)))
    return pooled(strips, [1.0] * len(strips))


def _invalid(raster: Raster, rows: slice) -> NDArray[np.bool_] | None:
    """Return which pixels of some rows hold nothing; None where a raster has data everywhere."""
    return ~raster.read(rows.start, 0, rows.stop - rows.start, raster.shape[1])[1] if raster.may_lack_data else None


@contextmanager
def geotiffs(
    raster: Raster,
    files: Mapping[str, Path],
    task: Task,
    colours: Sequence[tuple[int, int, int]],
) -> Iterator[Callable[[PredictedRows], None]]:
    """Open the GeoTIFFs of a prediction, and yield what writes some rows into them; they get their names at the end.

    Masks are uint8 class numbers, 0 and 1 for one class, with nodata 255; probabilities are float32 with a band for
    each class and NaN as nodata. Where the raster has no data, they have none. GDAL may lose the last blocks of a disk
    that fills up without a word, so that all is read again.

    Args:
        raster: what is predicted.
        files: by what they are: `masks`, or `masks/<class>` if multilabel, and `probabilities`.
        task: the classes.
        colours: of each label.

    Raises:
        OSError: a file can't be written.
    """
    import numpy as np

    rasterio = need_rasterio(raster.path)
    height, width, _ = raster.shape
    points, crs_of_points = raster.gcps
    transform = None if raster.transform.is_identity else raster.transform  # of which rasterio warns
    place = {"gcps": points, "crs": crs_of_points} if points else {"crs": raster.crs, "transform": transform}
    grid = {"height": height, "width": width, "rpcs": raster.rpcs, **place}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "bigtiff": "if_safer"}

    sums: dict[str, dict[Any, int]] = {}

    def check(aside: Path) -> None:
        with rasterio.open(aside) as file:
            for window, found in sums[str(aside)].items():
                if zlib.crc32(file.read(window=window)) != found:
                    raise OSError(f"{aside.name} does not hold what was written")

    def opened(stack: ExitStack, file: Path, **options: Any) -> Any:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = stack.enter_context(replacing(file))
        sums[str(aside)] = {}
        stack.push(lambda kind, *_: None if kind else check(aside))
        return stack.enter_context(rasterio.open(aside, "w", "GTiff", **grid, **layout, **options))

    with rasterio.Env(**GDAL), ExitStack() as stack:
        masks = [
            opened(stack, file, count=1, dtype="uint8", nodata=IGNORE_INDEX)
            for kind, file in files.items()
            if kind.startswith("masks")
        ]
        for mask in masks if len(masks) == 1 else ():
            mask.write_colormap(1, {label: (*colour, 255) for label, colour in enumerate(colours)})
            mask.update_tags(CLASSES=", ".join(task.classes))
        kept = None
        if "probabilities" in files:
            kept = opened(
                stack, files["probabilities"], count=task.channels, dtype="float32", nodata=np.nan, predictor=3
            )
            for number in range(task.channels):
                kept.set_band_description(number + 1, task.classes[number])

        def write(rows: PredictedRows) -> None:
            window = ((rows.rows.start, rows.rows.stop), (0, width))
            invalid = _invalid(raster, rows.rows)

            def put(file: Any, values: NDArray[Any], nothing: np.generic) -> None:
                values = values if invalid is None else np.where(invalid, nothing, values)
                values = np.ascontiguousarray(values if values.ndim == 3 else values[None])
                file.write(values, window=window)
                sums[file.name][window] = zlib.crc32(values.data)

            labels = rows.labels[None] if task.mode != "multilabel" else rows.labels
            for mask, values in zip(masks, labels, strict=True):
                put(mask, values, np.uint8(IGNORE_INDEX))
            if kept is not None:
                put(kept, rows.probabilities, np.float32(np.nan))

        yield write
