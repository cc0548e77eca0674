"""The built-in datasets: the kind's table of contents."""

from __future__ import annotations

from segreg.registry.entry import Entry
from segreg.registry.hooks import hookimpl
from segreg_plugins.datasets.camvid import camvid
from segreg_plugins.datasets.cityscapes import cityscapes
from segreg_plugins.datasets.coco import coco
from segreg_plugins.datasets.csv_manifest import csv_manifest
from segreg_plugins.datasets.dsb2018 import dsb2018
from segreg_plugins.datasets.folder import folder
from segreg_plugins.datasets.geo_polygons import geo_polygons
from segreg_plugins.datasets.geo_raster import geo_raster
from segreg_plugins.datasets.isic2018 import isic2018
from segreg_plugins.datasets.label_studio import label_studio
from segreg_plugins.datasets.labelme import labelme
from segreg_plugins.datasets.supervisely import supervisely
from segreg_plugins.datasets.synthetic_lesions import synthetic_lesions
from segreg_plugins.datasets.voc import voc
from segreg_plugins.datasets.yolo import yolo


@hookimpl
def segreg_entries() -> list[Entry]:
    """Return the datasets."""
    return [
        Entry("dataset", "camvid", camvid, paper="doi:10.1016/j.patrec.2008.04.005"),
        Entry("dataset", "cityscapes", cityscapes, paper="arXiv:1604.01685"),
        Entry("dataset", "coco", coco, paper="arXiv:1405.0312"),
        Entry("dataset", "csv", csv_manifest),
        Entry("dataset", "dsb2018", dsb2018, paper="doi:10.1038/s41592-019-0612-7"),
        Entry("dataset", "folder", folder),
        Entry("dataset", "geo_polygons", geo_polygons),
        Entry("dataset", "geo_raster", geo_raster),
        Entry("dataset", "isic2018", isic2018, paper="arXiv:1902.03368"),
        Entry("dataset", "label_studio", label_studio),
        Entry("dataset", "labelme", labelme),
        Entry("dataset", "supervisely", supervisely),
        Entry("dataset", "synthetic_lesions", synthetic_lesions),
        Entry("dataset", "voc", voc, paper="doi:10.1007/s11263-014-0733-5"),
        Entry("dataset", "yolo", yolo),
    ]
