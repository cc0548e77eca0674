"""Scenes, rasters of any size, as samples: blocks that are read by windows, in groups that a split never parts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segreg.errors import Problem, SegregError, listed
from segreg.registry.protocols import Sample
from segreg.runtime.files import expanded, natural_key
from segreg.task import IGNORE_INDEX
from segreg_plugins.datasets.images import missing_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RASTERS = (".tif", ".tiff", ".vrt", ".jp2")
VECTORS = (".geojson", ".json", ".gpkg", ".fgb", ".shp")
Bounds = tuple[float, float, float, float]
"""The least and the largest coordinates: x, y, x, y."""


@dataclass(frozen=True)
class Scene:
    """A raster and the file with its truth.

    Attributes:
        name: the raster's, without extension.
        image: the raster.
        mask: the file of the truth.
        size: height and width in pixels.
        crs: coordinate reference system, as rasterio has it; None where the file has none.
        transform: affine, from (column, row) to the system's coordinates.
    """

    name: str
    image: Path
    mask: Path
    size: tuple[int, int]
    crs: Any
    transform: Any

    def bounds(self, top: float, left: float, height: float, width: float) -> Bounds:
        """Return the bounds of a window; north need not be up."""
        a, b, x, d, e, y = self.place(top, left)[:6]
        xs = x, x + a * width, x + b * height, x + a * width + b * height
        ys = y, y + d * width, y + e * height, y + d * width + e * height
        return min(xs), min(ys), max(xs), max(ys)

    def place(self, top: float, left: float) -> Any:
        """Return the transform of a window that begins there."""
        a, b, c, d, e, f = self.transform[:6]
        return type(self.transform)(a, b, a * left + b * top + c, d, e, d * left + e * top + f)


@dataclass(frozen=True)
class Block:
    """A part of a scene: its first row and column, its height and width in pixels."""

    scene: Scene
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Blocks:
    """Reads the blocks of scenes.

    Attributes:
        bands: of the image.
        by_id: each sample's block.
        labels: returns a block's labels, uint8 `[H, W]` or `[K, H, W]`.
    """

    bands: tuple[int | str, ...] | None
    by_id: dict[str, Block]
    labels: Callable[[Block], NDArray[np.uint8]]

    def read_image(self, sample: Sample) -> NDArray[Any]:
        """Return a block's image `[H, W, C]`, uint8, uint16 or float32."""
        return self._read(sample)[0]

    def read_mask(self, sample: Sample) -> NDArray[np.uint8]:
        """Return a block's labels, 255 where the image's pixels are not valid."""
        import numpy as np

        labels = self.labels(self.by_id[sample.id])
        return np.where(self._read(sample)[1], labels, np.uint8(IGNORE_INDEX))

    def _read(self, sample: Sample) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        from segreg.data.rasters import Raster

        block = self.by_id[sample.id]
        with Raster(sample.image, self.bands) as raster:
            return raster.read(block.top, block.left, block.height, block.width)


def find_scenes(
    images: Path, masks: Path, bands: Sequence[int | str] | None, *, mask_suffix: str, vector: bool
) -> list[Scene]:
    """Return the scenes of a file or a folder with the files of their truth, paired by name.

    Raises:
        SegregError: rasterio is not installed, files are missing or can't be read, or have no such bands; all at once.
    """
    from segreg.data.rasters import Raster, need_rasterio

    need_rasterio(images)
    images, masks = expanded(images), expanded(masks)
    kinds = VECTORS if vector else RASTERS
    scenes, truths = _files(images, "images", RASTERS), _files(masks, "polygons" if vector else "masks", kinds)
    if masks.is_file() and (vector or images.is_file()):
        pairs = dict.fromkeys(scenes, masks)
    else:
        pairs = {name.removesuffix(mask_suffix): file for name, file in truths.items() if name.endswith(mask_suffix)}
        if mask_suffix and images.resolve() == masks.resolve():
            scenes = {name: file for name, file in scenes.items() if not name.endswith(mask_suffix)}
    problems = [
        Problem(
            f"{scenes[name]}: has no mask in {masks}",
            hint=f'it would be named "{name}{mask_suffix}" and end in {listed(list(kinds), quote="", last="or")}',
        )
        for name in scenes
        if name not in pairs
    ]
    if unpaired := [truths[name + mask_suffix] for name in pairs if name not in scenes]:
        problems.append(
            Problem(f"{listed([str(file) for file in unpaired], quote='', most=3)}: has no scene in {images}")
        )
    found: list[Scene] = []
    channels: dict[int, Path] = {}
    for name, file in scenes.items():
        try:
            with Raster(file, bands) as raster:
                found.append(Scene(name, file, pairs.get(name, file), raster.shape[:2], raster.crs, raster.transform))
                channels.setdefault(raster.shape[2], file)
        except SegregError as error:
            problems += error.problems
    if len(channels) > 1:
        counts = " and ".join(f"{file} {count}" for count, file in channels.items())
        problems.append(Problem(f"scenes have different numbers of bands: {counts}", hint="bands: names those to take"))
    if problems:
        raise SegregError.of(problems, most=20, rest="more scenes are wrong")
    return found


def _files(place: Path, what: str, extensions: Sequence[str]) -> dict[str, Path]:
    """Return the files of a folder with one of these extensions, or the file itself, by name without extension."""
    if place.is_file():
        return {place.stem: place}
    if problem := missing_folder(place, what):
        raise SegregError.of([problem])
    files = [file for file in place.iterdir() if file.suffix.lower() in extensions and not file.name.startswith(".")]
    files.sort(key=lambda file: natural_key(file.name))
    if not files:
        raise SegregError(f"{what}: {place} holds no file that ends in {listed(list(extensions), quote='', last='or')}")
    named = {file.stem: file for file in files}
    if len(named) < len(files):
        other = next(file for file in files if named[file.stem] != file)
        raise SegregError(f"{what}: {other} and {named[other.stem]} have one name", hint="name one of them as a file")
    return named


def blocks_of(
    scenes: Sequence[Scene], *, block: tuple[int, int], split_block: int, guard: int
) -> tuple[list[Sample], dict[str, Block]]:
    """Return the samples, row by row, and each one's block by the sample's id.

    A group is a square of `split_block` blocks a side; between groups, `guard` pixels are left out. Groups of several
    scenes that lie on the same ground become one.
    """
    samples: list[Sample] = []
    by_id: dict[str, Block] = {}
    areas: dict[str, tuple[Scene, list[Block]]] = {}
    for scene in scenes:
        height, width = (min(side, own) for side, own in zip(block, scene.size, strict=True))
        for row, top in enumerate(_starts(scene.size[0], height, split_block, guard)):
            for column, left in enumerate(_starts(scene.size[1], width, split_block, guard)):
                name = f"{scene.name}__r{row:03}c{column:03}"
                group = f"{scene.name} {row // split_block} {column // split_block}"
                by_id[name] = Block(scene, top, left, height, width)
                areas.setdefault(group, (scene, []))[1].append(by_id[name])
                samples.append(Sample(name, scene.image, scene.mask, group))
    merged = _merged(areas, guard)
    return [Sample(s.id, s.image, s.mask, merged[str(s.group)]) for s in samples], by_id


def _starts(length: int, side: int, split_block: int, guard: int) -> list[int]:
    starts = (number * side + number // split_block * guard for number in range(math.ceil(length / side)))
    return [start for start in starts if start < length]


def _merged(areas: dict[str, tuple[Scene, list[Block]]], guard: int) -> dict[str, str]:
    """Return the name of each group, one for groups of different scenes that overlap or are nearer than the guard."""
    merged = {name: name for name in areas}
    boxes = [(name, scene, _box(scene, blocks, guard / 2)) for name, (scene, blocks) in areas.items() if scene.crs]
    if not boxes or len({scene.image for scene, _ in areas.values()}) == 1:
        return merged
    import numpy as np

    def joined(name: str) -> str:
        while merged[name] != name:
            name = merged[name]
        return name

    scenes = {image: number for number, image in enumerate(dict.fromkeys(scene.image for _, scene, _ in boxes))}
    systems = {crs: number for number, crs in enumerate(dict.fromkeys(str(scene.crs) for _, scene, _ in boxes))}
    of_scene = np.array([scenes[scene.image] for _, scene, _ in boxes])
    of_system = np.array([systems[str(scene.crs)] for _, scene, _ in boxes])
    own = np.array([box for _, _, box in boxes])
    # Where two systems meet: degrees alone are defined wherever any of them is.
    degrees = np.array([bounds_in("EPSG:4326", scene, box) for _, scene, box in boxes]) if len(systems) > 1 else own
    for number, (name, _, _) in enumerate(boxes):
        same = of_system[:number] == of_system[number]
        meets = np.where(same, _overlap(own[:number], own[number]), _overlap(degrees[:number], degrees[number]))
        for other in np.flatnonzero(meets & (of_scene[:number] != of_scene[number])):
            merged[joined(name)] = joined(boxes[other][0])
    return {name: joined(name) for name in merged}


def _overlap(boxes: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which boxes overlap with one; those that touch it don't."""
    margin = 1e-6 * (one[2:] - one[:2]).max()
    found: NDArray[np.bool_] = ((boxes[:, :2] + margin < one[2:]) & (boxes[:, 2:] - margin > one[:2])).all(axis=1)
    return found


def bounds_in(crs: str, scene: Scene, box: Bounds) -> Bounds:
    """Return a box of a scene in another system; in degrees, of one across the 180th all between 180 west and east."""
    from rasterio.warp import transform_bounds

    left, bottom, right, top = transform_bounds(scene.crs, crs, *box)
    return (left, bottom, right, top) if left <= right else (-180.0, bottom, 180.0, top)


def _box(scene: Scene, blocks: Sequence[Block], margin: float) -> Bounds:
    top, left = min(one.top for one in blocks), min(one.left for one in blocks)
    bottom = min(max(one.top + one.height for one in blocks), scene.size[0])
    right = min(max(one.left + one.width for one in blocks), scene.size[1])
    return scene.bounds(top - margin, left - margin, bottom - top + 2 * margin, right - left + 2 * margin)


def beside(files: Iterable[Path]) -> str:
    """Return the size and time of change of what belongs to rasters and layers, such as a VRT's sources."""
    from segreg.data.rasters import need_rasterio

    parts: dict[Path, None] = {}
    own = dict.fromkeys(files)
    for file in own:
        if file.suffix.lower() in RASTERS:
            with need_rasterio(file).open(file) as opened:
                parts.update(dict.fromkeys(Path(name) for name in opened.files))
        elif file.suffix.lower() == ".shp":
            parts.update(dict.fromkeys(sorted(file.parent.glob(f"{re.escape(file.stem)}.*"))))
    states = [(part.name, part.stat()) for part in parts if part not in own and part.is_file()]
    return "".join(f", {name} {state.st_size} {state.st_mtime_ns}" for name, state in states)
