"""The dataset `geo_raster`: scenes and masks as rasters of one grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import Problem, SegregError
from segreg.registry.protocols import Dataset, Recognised, Sample
from segreg.settings import NonNegativeInt, PositiveInt
from segreg.task import IGNORE_INDEX
from segreg_plugins.datasets.geo_scenes import Block, Blocks, Scene, beside, blocks_of, find_scenes
from segreg_plugins.datasets.listing import images_below
from segreg_plugins.datasets.mask_guess import guess_masks
from segreg_plugins.datasets.mask_rules import MaskRules, mask_rules
from segreg_plugins.datasets.mask_values import Values
from segreg_plugins.datasets.pair_layout import find_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


def geo_raster(
    *,
    images: Path,
    masks: Path,
    mask_suffix: str = "",
    bands: tuple[PositiveInt | str, ...] | None = None,
    block: tuple[PositiveInt, PositiveInt] = (1024, 1024),
    split_block: PositiveInt = 4,
    guard: NonNegativeInt = 0,
    classes: tuple[str, ...] | None = None,
    values: Values | None = None,
    foreground: Literal["auto", "nonzero", "above_127"] = "auto",
    ignore_index: int | None = None,
) -> Dataset:
    """Scenes as GeoTIFF or VRT of any size with masks as rasters of the same grid, cut into blocks.

    A sample is a block of a scene, read by its window. Pixels without data, by the file's nodata value, mask or alpha
    band, and pixels of the last blocks beyond the scene's border, are ignored. A split takes squares of blocks as a
    whole, so that neighbours don't lie in two splits. It needs rasterio: `pip install "segreg-toolkit[geo]"`.

    Args:
        images: a scene, or a folder of them (.tif, .tiff, .vrt, .jp2).
        masks: its mask, or the folder of the masks, paired with the scenes by name.
        mask_suffix: ending of the mask names, before the extension, that image names don't have.
        bands: numbers of bands, from 1, or their names, such as `[red, green, nir]`; null takes all but alpha.
        block: height and width of a block in pixels.
        split_block: blocks a side of a square that is never in two splits.
        guard: pixels that are left out between those squares.
        classes: class names. One is the foreground of binary masks; several are those of the mask values 0, 1, 2 ...
            Where it is null, those of `values`, and without them one, "foreground".
        values: class names with the values that masks have for them: a number, a range such as "10-20", a list of
            those, or colours such as [128, 0, 128]. `ignore` has the values that count for nothing. Any other value
            of a mask is an error. For a binary task, `classes` names the foreground and `values` it and `background`.
        foreground: which values of a binary mask are foreground. `auto` takes masks of 0/1 or 0/255 and refuses others,
            `nonzero` takes all but 0 (numbered instances), `above_127` those above 127 (soft edges).
        ignore_index: mask value of pixels that count for nothing, besides the masks' own nodata value. Where it is
            null, 255 with several classes and none with one.

    Raises:
        SegregError: rasterio is not installed, files are missing, a mask's grid is not its scene's, or settings don't
            fit. All that is found is reported at once, files by their names.
    """
    rules = mask_rules(classes, foreground, ignore_index, values=values)
    scenes = find_scenes(images, masks, bands, mask_suffix=mask_suffix, vector=False)
    problems: list[Problem] = []
    for scene in scenes:
        try:
            _check_mask(scene, rules)
        except SegregError as error:
            problems += error.problems
    if problems:
        raise SegregError.of(problems, most=20, rest="more masks are wrong")
    samples, by_id = blocks_of(scenes, block=block, split_block=split_block, guard=guard)
    blocks = Blocks(bands, by_id, _RasterLabels(rules))
    reader = f"geo_raster: {rules.reader}, bands {bands}, blocks {block}, guard {guard} each {split_block}"
    reader += beside(file for scene in scenes for file in (scene.image, scene.mask))
    return Dataset(rules.task, samples, blocks.read_image, blocks.read_mask, reader=reader, folders=[images, masks])


@dataclass(frozen=True)
class _RasterLabels:
    rules: MaskRules

    def __call__(self, block: Block) -> NDArray[np.uint8]:
        """Return a block's labels, 255 where the mask has no data."""
        import numpy as np

        from segreg.data.rasters import Raster

        with Raster(block.scene.mask, of_classes=True) as raster:
            pixels, valid = raster.read(block.top, block.left, block.height, block.width)
        labels = np.full(valid.shape, IGNORE_INDEX, np.uint8)
        if not valid.any():
            return labels
        pixels[~valid] = pixels[valid][0]  # a value that has a meaning
        values = pixels if self.rules.table is not None and self.rules.table.colours else pixels[..., 0]
        sample = Sample(block.scene.name, block.scene.image, block.scene.mask)
        labels[valid] = self.rules.read(sample, read=lambda _: values)[valid]
        return labels


def _check_mask(scene: Scene, rules: MaskRules) -> None:
    """Refuse a mask that has not the grid of its scene, or several bands, or a class that counts as no data.

    Raises:
        SegregError: as said; the message names the files and the command that helps.
    """
    from segreg.data.rasters import Raster

    with Raster(scene.mask) as mask:
        size, crs, transform, bands = mask.shape[:2], mask.crs, mask.transform, mask.shape[2]
        nodata, dtype = mask.nodata, mask.dtype
    wanted = 3 if rules.table is not None and rules.table.colours else 1
    if bands != wanted:
        raise SegregError(
            f"{scene.mask}: has {bands} bands, and {'colours have 3' if wanted == 3 else 'a mask of values has 1'}",
            hint=f"gdal_translate -b 1 {scene.mask} one_band.tif" if wanted == 1 else "",
        )
    tolerance = 0.1 * max(abs(number) for number in scene.transform[:2])
    corners = (0, 0), (scene.size[0], 0), (0, scene.size[1])
    aligned = all(
        abs(here - there) <= tolerance
        for corner in corners
        for here, there in zip(replace(scene, transform=transform).place(*corner), scene.place(*corner), strict=True)
    )
    different = [
        f"{what} {ours}, not {theirs}"
        for what, ours, theirs, same in (
            ("CRS", _crs_name(crs), _crs_name(scene.crs), crs == scene.crs),
            ("transform", _shown(transform), _shown(scene.transform), aligned),
            ("size (height x width)", "{}x{}".format(*size), "{}x{}".format(*scene.size), size == scene.size),
        )
        if not same
    ]
    if different:
        left, bottom, right, top = scene.bounds(0, 0, *scene.size)
        source = "" if crs else f"-s_srs {_crs_name(scene.crs)} "
        target = f"-t_srs {_crs_name(scene.crs)} " if scene.crs else ""
        raise SegregError(
            f"{scene.mask}: has another grid than its scene {scene.image}: {'; '.join(different)}",
            hint=f"gdalwarp -r near {source}{target}-te {left!r} {bottom!r} {right!r} {top!r} "
            f"-ts {scene.size[1]} {scene.size[0]} {scene.mask} same_grid.tif",
        )

    if (name := _class_of(nodata, dtype, scene, rules)) is not None:
        shown = [f"{value:g}" for value in nodata if value is not None]
        raise SegregError(
            f'{scene.mask}: its nodata value {", ".join(shown)} is that of "{name}", whose pixels would all be ignored',
            hint=f"if these pixels are {name}: rio edit-info --unset-nodata {scene.mask}; if they count for nothing, "
            "name the classes and their values in values, without this one",
        )


def _class_of(nodata: Sequence[float | None], dtype: np.dtype[Any], scene: Scene, rules: MaskRules) -> str | None:
    """Return the name of the class that the mask's nodata value stands for; None: of no class."""
    import numpy as np

    if any(value is None or not np.isfinite(value) for value in nodata):
        return None
    names = rules.task.classes if rules.task.mode == "multiclass" else ("background", *rules.task.classes)
    if rules.table is None and rules.task.mode == "binary":  # where only a whole mask says what 255 is
        return names[0] if nodata[0] == 0 else None
    value = np.array(nodata).astype(dtype)
    values = value[None, None] if rules.table is not None and rules.table.colours else value[None]
    try:
        label = int(rules.read(Sample(scene.name, scene.image, scene.mask), read=lambda _: values)[0, 0])
    except SegregError:  # not listed
        return None
    return None if label == IGNORE_INDEX else names[label]


def _crs_name(crs: Any) -> str:
    return "none" if not crs else str(crs.to_string())


def _shown(transform: Any) -> str:
    return ", ".join(f"{number:.10g}" for number in transform[:6])


def recognise_geo_raster(root: Path) -> list[Recognised]:
    """Return folders of scenes and masks whose TIFFs say where on the ground they lie."""
    from segreg.data.rasters import is_georeferenced

    found = []
    first = [names[0] for names in images_below(root).values()]
    for pairs in find_pairs(root) if any(name.lower().endswith((".tif", ".tiff")) for name in first) else ():
        plain = isinstance(pairs.images, str) and isinstance(pairs.masks, str) and pairs.search == "folder"
        masks = [root / name for name in pairs.files]
        if not plain or pairs.image_suffix or not all(map(is_georeferenced, masks[:3])):
            continue
        guess = guess_masks(masks, root)
        if guess is not None and not set(guess.settings) - {"classes", "values", "foreground", "ignore_index"}:
            settings = {"images": root / str(pairs.images), "masks": root / str(pairs.masks), **guess.settings}
            settings |= {"mask_suffix": pairs.mask_suffix} if pairs.mask_suffix else {}
            saw = f"{pairs.because}, GeoTIFFs with a grid, {guess.because}"
            found.append(Recognised(settings, saw, instead_of=("folder",)))
    return found
