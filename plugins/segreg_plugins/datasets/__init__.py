"""The built-in datasets: the kind's table of contents."""

from __future__ import annotations

from segreg.registry.entry import Entry
from segreg.registry.hooks import hookimpl
from segreg_plugins.datasets.camvid import camvid, recognise_camvid
from segreg_plugins.datasets.cityscapes import cityscapes, recognise_cityscapes
from segreg_plugins.datasets.coco import coco, recognise_coco
from segreg_plugins.datasets.csv_manifest import csv_manifest, recognise_csv
from segreg_plugins.datasets.dsb2018 import dsb2018, recognise_dsb2018
from segreg_plugins.datasets.folder import folder, recognise_folder
from segreg_plugins.datasets.geo_polygons import geo_polygons
from segreg_plugins.datasets.geo_raster import geo_raster, recognise_geo_raster
from segreg_plugins.datasets.isic2018 import isic2018, recognise_isic2018
from segreg_plugins.datasets.label_studio import label_studio, recognise_label_studio
from segreg_plugins.datasets.labelme import labelme, recognise_labelme
from segreg_plugins.datasets.supervisely import recognise_supervisely, supervisely
from segreg_plugins.datasets.synthetic_lesions import synthetic_lesions
from segreg_plugins.datasets.voc import recognise_voc, voc
from segreg_plugins.datasets.yolo import recognise_yolo, yolo


@hookimpl
def segreg_entries() -> list[Entry]:
    """Return the datasets."""
    return [
        Entry("dataset", "camvid", camvid, paper="doi:10.1016/j.patrec.2008.04.005", recognise=recognise_camvid),
        Entry("dataset", "cityscapes", cityscapes, paper="arXiv:1604.01685", recognise=recognise_cityscapes),
        Entry("dataset", "coco", coco, paper="arXiv:1405.0312", recognise=recognise_coco),
        Entry("dataset", "csv", csv_manifest, recognise=recognise_csv),
        Entry("dataset", "dsb2018", dsb2018, paper="doi:10.1038/s41592-019-0612-7", recognise=recognise_dsb2018),
        Entry("dataset", "folder", folder, recognise=recognise_folder),
        Entry("dataset", "geo_polygons", geo_polygons),
        Entry("dataset", "geo_raster", geo_raster, recognise=recognise_geo_raster),
        Entry("dataset", "isic2018", isic2018, paper="arXiv:1902.03368", recognise=recognise_isic2018),
        Entry("dataset", "label_studio", label_studio, recognise=recognise_label_studio),
        Entry("dataset", "labelme", labelme, recognise=recognise_labelme),
        Entry("dataset", "supervisely", supervisely, recognise=recognise_supervisely),
        Entry("dataset", "synthetic_lesions", synthetic_lesions),
        Entry("dataset", "voc", voc, paper="doi:10.1007/s11263-014-0733-5", recognise=recognise_voc),
        Entry("dataset", "yolo", yolo, recognise=recognise_yolo),
    ]
