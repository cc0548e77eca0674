"""The built-in losses."""

from __future__ import annotations

from segreg.registry.entry import Entry
from segreg.registry.hooks import hookimpl
from segreg_plugins.losses import builders, combined, rare, shapes


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
        Entry("loss", "ohem", rare.ohem, paper="arXiv:1604.03540"),
        Entry("loss", "class_balanced_focal", rare.class_balanced_focal, paper="arXiv:1901.05555"),
        Entry("loss", "boundary", shapes.boundary, paper="arXiv:1812.07032"),
        Entry("loss", "hausdorff_dt", shapes.hausdorff_dt, paper="arXiv:1904.10030"),
        Entry("loss", "cldice", shapes.cldice, paper="arXiv:2003.07311"),
        Entry("loss", "dice_bce", combined.dice_bce),
        Entry("loss", "dice_ce", combined.dice_ce, paper="arXiv:1809.10486"),
        Entry("loss", "dice_focal", combined.dice_focal),
    ]
