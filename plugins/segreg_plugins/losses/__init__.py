"""The built-in losses."""

from __future__ import annotations

from segreg.registry.entry import Entry
from segreg.registry.hooks import hookimpl
from segreg_plugins.losses import builders, combined


@hookimpl
def segreg_entries() -> list[Entry]:
    """Return every built-in loss."""
    return [
        Entry("loss", "bce", builders.bce),
        Entry("loss", "cross_entropy", builders.cross_entropy),
        Entry("loss", "focal", builders.focal, paper="arXiv:1708.02002"),
        Entry("loss", "dice", builders.dice, paper="arXiv:1606.04797"),
        Entry("loss", "iou", builders.iou, paper="doi:10.1007/978-3-319-50835-1_22"),
        Entry("loss", "tversky", builders.tversky, paper="arXiv:1706.05721"),
        Entry("loss", "lovasz", builders.lovasz, paper="arXiv:1705.08790"),
        Entry("loss", "dice_bce", combined.dice_bce),
        Entry("loss", "dice_ce", combined.dice_ce, paper="arXiv:1809.10486"),
        Entry("loss", "dice_focal", combined.dice_focal),
    ]
