"""The dataset `geo_polygons`: scenes as rasters, masks drawn from polygons of a GeoPackage, GeoJSON or shapefile."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from segreg.errors import Problem, SegregError, did_you_mean, listed
from segreg.registry.protocols import Dataset
from segreg.runtime.files import natural_key
from segreg.settings import NonNegativeInt, PositiveInt
from segreg.task import Task
from segreg_plugins.datasets.class_choice import NOTHING, class_task
from segreg_plugins.datasets.geo_scenes import Block, Blocks, Scene, beside, blocks_of, bounds_in, find_scenes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_AREAS = (3, 6)  # polygons and multipolygons, as shapely numbers kinds


def geo_polygons(
    *,
    images: Path,
    polygons: Path,
    mask_suffix: str = "",
    layer: str | None = None,
    attribute: str | None = None,
    bands: tuple[PositiveInt | str, ...] | None = None,
    block: tuple[PositiveInt, PositiveInt] = (1024, 1024),
    split_block: PositiveInt = 4,
    guard: NonNegativeInt = 0,
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None,
    others: Literal["error", "background", "ignore"] = "error",
    background: str = "background",
    mode: Literal["multiclass", "binary", "multilabel"] = "multiclass",
) -> Dataset:
    """Scenes as GeoTIFF or VRT of any size with masks drawn from polygons, cut into blocks.

    A sample is a block of a scene, read by its window. A pixel belongs to a polygon that its centre lies in; later
    polygons lie on top. Polygons are reprojected to the scene's coordinate reference system, corner by corner. Pixels
    without data, by the file's nodata value, mask or alpha band, and pixels of the last blocks beyond the scene's
    border, are ignored. A split takes squares of blocks as a whole, so that neighbours don't lie in two splits. It
    needs rasterio, pyogrio and shapely: `pip install "segreg-toolkit[geo]"`.

    Args:
        images: a scene, or a folder of them (.tif, .tiff, .vrt, .jp2).
        polygons: a file for all scenes (.geojson, .json, .gpkg, .fgb, .shp), or a folder with one for each, by name.
        mask_suffix: ending of the polygon files' names, before the extension, that image names don't have.
        layer: name of the layer where a file has several.
        attribute: the field that has a polygon's category; null makes one category, "foreground", of all.
        bands: numbers of bands, from 1, or their names, such as `[red, green, nir]`; null takes all but alpha.
        block: height and width of a block in pixels.
        split_block: blocks a side of a square that is never in two splits.
        guard: pixels that are left out between those squares.
        classes: categories in the order of the classes, or the categories that make up each class, as in
            `{road: [motorway, street], water: [river]}`. Null takes all that there are, in natural order.
        others: what categories that `classes` leaves out become: with `background` they are not drawn.
        background: name of what is in no class, the first class of a multiclass task.
        mode: `multiclass` draws the classes over the background, `binary` one class, `multilabel` one layer a class, in
            which classes may overlap.

    Raises:
        SegregError: rasterio, pyogrio or shapely is not installed, files are missing or can't be read, there is no such
            layer or attribute, polygons lie far from all scenes, or settings don't fit. Files are named.
    """
    from segreg.data.rasters import INSTALL

    scenes = find_scenes(images, polygons, bands, mask_suffix=mask_suffix, vector=True)
    for module in ("pyogrio", "shapely"):
        if find_spec(module) is None:
            raise SegregError(f"{polygons}: polygons are read by {module}, which is not installed", hint=INSTALL)
    known: dict[str, None] = {}
    problems: list[Problem] = []
    for file in dict.fromkeys(scene.mask for scene in scenes):
        try:
            known.update(dict.fromkeys(_categories(file, layer, attribute)))
            _check_place(file, layer, [scene for scene in scenes if scene.mask == file])
        except SegregError as error:
            problems += error.problems
    if problems:
        raise SegregError.of(problems, most=20, rest="more files are wrong")
    if not known:
        raise SegregError(f"{polygons}: holds no polygon, so that there is nothing to learn")
    names = sorted(known, key=natural_key)
    task, labels = class_task(names, classes=classes, mode=mode, background=background, others=others)
    samples, by_id = blocks_of(scenes, block=block, split_block=split_block, guard=guard)
    blocks = Blocks(bands, by_id, _PolygonLabels(task, labels, layer, attribute))
    reader = f"geo_polygons: {labels}, layer {layer}, attribute {attribute}"
    reader += f", bands {bands}, blocks {block}, guard {guard} each {split_block}"
    reader += beside(file for scene in scenes for file in (scene.image, scene.mask))
    return Dataset(task, samples, blocks.read_image, blocks.read_mask, reader=reader, folders=[images, polygons])


class _PolygonLabels:
    """Draws the polygons of a block. A file's are read once, and kept in memory; so are those of each scene, moved."""

    def __init__(self, task: Task, labels: Mapping[str, int], layer: str | None, attribute: str | None) -> None:
        self.task, self.labels, self.layer, self.attribute = task, labels, layer, attribute
        self._lock = threading.Lock()
        self._files: dict[Path, _Polygons] = {}
        self._near: dict[Path, _Polygons] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_files": {}, "_near": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __call__(self, block: Block) -> NDArray[np.uint8]:
        """Return a block's labels."""
        import numpy as np
        import shapely
        from rasterio.features import rasterize

        with self._lock:
            tree, labels, _ = self._of(block.scene)
        size = block.height, block.width
        found = np.sort(tree.query(shapely.box(*block.scene.bounds(block.top, block.left, *size))))
        place = block.scene.place(block.top, block.left)

        def drawn(shapes: list[tuple[Any, int]]) -> NDArray[np.uint8]:
            if not shapes:
                return np.zeros(size, np.uint8)
            return rasterize(shapes, out_shape=size, transform=place, dtype="uint8")

        shapes = [(tree.geometries[number], int(labels[number])) for number in found]
        if self.task.mode != "multilabel":
            return drawn(shapes)
        layers = [
            drawn([(shape, 1 if label == wanted else label) for shape, label in shapes if label in (wanted, 255)])
            for wanted in range(self.task.channels)
        ]
        return np.stack(layers)

    def _of(self, scene: Scene) -> _Polygons:
        """Return the polygons to draw in a scene, in its reference system."""
        if scene.image not in self._near:
            if scene.mask not in self._files:
                self._files[scene.mask] = self._drawn(scene.mask)
            self._near[scene.image] = _reprojected(self._files[scene.mask], scene)
        return self._near[scene.image]

    def _drawn(self, file: Path) -> _Polygons:
        """Return the polygons of a file that are drawn."""
        import numpy as np
        import shapely

        names, geometry, crs = _read(file, self.layer, self.attribute, geometry=True)
        labels = np.array([self.labels[name] for name in names], np.int64)
        shapes = shapely.from_wkb(geometry)
        kinds = shapely.get_type_id(shapes)
        if not np.isin(kinds[kinds >= 0], _AREAS).all():
            strange = {str(one.geom_type) for one in shapes if one is not None and one.geom_type[-7:] != "Polygon"}
            raise SegregError(
                f"{file}: holds {listed(sorted(strange), quote='')}, and only polygons have an area",
                hint="keep the polygons alone, or draw around points and lines (buffer) first",
            )
        kept = (labels != NOTHING) & (kinds >= 0) & ~shapely.is_empty(shapes)
        return _Polygons(shapely.STRtree(shapes[kept]), labels[kept], crs)


class _Polygons(NamedTuple):
    """Polygons as a tree, each one's label, and the reference system of their coordinates."""

    tree: Any
    labels: NDArray[np.int64]
    crs: str | None


def _read(
    file: Path, layer: str | None, attribute: str | None, *, geometry: bool = False
) -> tuple[list[str], Any, str | None]:
    """Return each polygon's category, its geometry as WKB where that is asked for, and the reference system."""
    from pyogrio.raw import read

    columns = [] if attribute is None else [attribute]
    meta, fids, shapes, fields = read(
        file, layer=layer, columns=columns, read_geometry=geometry, force_2d=True, return_fids=True
    )
    if attribute is None:
        return ["foreground"] * len(fids), shapes, meta["crs"]
    # Whole numbers beside missing ones are read as floats.
    values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in fields[0].tolist()]
    return [str(value) for value in values], shapes, meta["crs"]


def _categories(file: Path, layer: str | None, attribute: str | None) -> list[str]:
    """Return the categories of a file's polygons.

    Raises:
        SegregError: it can't be read, has several layers, no such layer or attribute, or polygons without a category.
    """
    import pyogrio

    try:
        layers = [str(name) for name in pyogrio.list_layers(file)[:, 0]]
        if layer not in layers if layer is not None else len(layers) > 1:
            what = "has several layers" if layer is None else f'has no layer "{layer}"'
            raise SegregError(f"{file}: {what}: {listed(layers)}", hint="layer: names the one that is meant")
        fields = [str(name) for name in pyogrio.read_info(file, layer=layer)["fields"]]
        if attribute is not None and attribute not in fields:
            hint = did_you_mean(attribute, fields) or f"its attributes are {listed(fields)}"
            raise SegregError(f'{file}: its polygons have no attribute "{attribute}"', hint=hint)
        names = _read(file, layer, attribute)[0]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise SegregError(f"{file}: can't be read as polygons ({error})") from None
    if empty := sum(name in ("None", "nan", "") for name in names):
        raise SegregError(
            f"{file}: {empty} of {len(names)} polygons have no {attribute}", hint="give them one, or take them out"
        )
    return names


def _check_place(file: Path, layer: str | None, scenes: list[Scene]) -> None:
    """Refuse polygons that can't be brought into the scenes' reference system, or lie far from all of them.

    Raises:
        SegregError: as said; the message names both files.
    """
    import pyogrio

    info = pyogrio.read_info(file, layer=layer, force_total_bounds=True)
    crs, bounds = info["crs"], info["total_bounds"]
    for scene in scenes:
        if bool(crs) != bool(scene.crs):
            bare, other = (file, scene.image) if not crs else (scene.image, file)
            command = "ogr2ogr -a_srs EPSG:... with_crs.gpkg" if not crs else "gdal_edit.py -a_srs EPSG:..."
            raise SegregError(
                f"{bare}: has no coordinate reference system, and {other} has one", hint=f"{command} {bare} sets it"
            )
    if bounds is None:
        return
    for scene in scenes:  # whose system may not reach as far as the polygons do
        own = scene.bounds(0, 0, *scene.size)
        left, bottom, right, top = bounds_in(crs, scene, own) if crs else own
        if bounds[0] < right and bounds[2] > left and bounds[1] < top and bounds[3] > bottom:
            return
    raise SegregError(
        f"{file}: its polygons ({crs}, {_shown(bounds)}) lie in none of the scenes, such as {scenes[0].image} "
        f"({scenes[0].crs}, {_shown(scenes[0].bounds(0, 0, *scenes[0].size))})",
        hint="compare the coordinate reference systems that the files name with the coordinates that they have",
    )


def _shown(bounds: Any) -> str:
    return ", ".join(f"{float(number):.8g}" for number in bounds)


def _reprojected(polygons: _Polygons, scene: Scene) -> _Polygons:
    """Return the polygons near a scene in its reference system, corner by corner.

    What is farther away than the scene is large is cut off before: the scene's system need not be defined there.

    Raises:
        SegregError: they can't be brought there; the message names both files.
    """
    import numpy as np
    import shapely
    from rasterio.crs import CRS
    from rasterio.warp import transform

    tree, labels, crs = polygons
    if not crs or CRS.from_user_input(crs) == scene.crs:
        return polygons

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transform(crs, scene.crs, points[:, 0], points[:, 1])[:2])

    left, bottom, right, top = bounds_in(crs, scene, scene.bounds(0, 0, *scene.size))
    reach = max(right - left, top - bottom)
    around = left - reach, bottom - reach, right + reach, top + reach
    near = np.sort(tree.query(shapely.box(*around)))
    shapes, inside = tree.geometries[near], shapely.bounds(tree.geometries[near])
    far = (inside[:, :2] < around[:2]).any(axis=1) | (inside[:, 2:] > around[2:]).any(axis=1)
    shapes[far] = shapely.clip_by_rect(shapes[far], *around)
    try:
        return _Polygons(shapely.STRtree(shapely.transform(shapes, moved)), labels[near], str(scene.crs))
    except Exception as error:  # PROJ's, which rasterio doesn't make its own
        raise SegregError(
            f"{scene.mask}: its polygons can't be brought to the CRS of {scene.image}, {scene.crs} ({error})",
            hint="keep those alone that lie near the scene, or reproject them yourself (ogr2ogr -t_srs)",
        ) from None
