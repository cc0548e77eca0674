"""The built-in datasets: the kind's table of contents."""

from __future__ import annotations

from segreg.entry import Entry
from segreg.hooks import hookimpl
from segreg_plugins.datasets.folder import folder
from segreg_plugins.datasets.isic2018 import isic2018
from segreg_plugins.datasets.synthetic_lesions import synthetic_lesions


@hookimpl
def segreg_entries() -> list[Entry]:
    """Gives the datasets."""
    return [
        Entry("dataset", "folder", folder),
        Entry("dataset", "isic2018", isic2018, paper="arXiv:1902.03368"),
        Entry("dataset", "synthetic_lesions", synthetic_lesions),
    ]
