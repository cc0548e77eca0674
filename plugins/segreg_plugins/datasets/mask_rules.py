"""Which task and which reading of masks the settings `classes`, `values`, `foreground` ... mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError
from segreg.task import Task
from segreg_plugins.datasets.mask_files import Channel, check_orientations, grey_levels_count, read_colours, read_values
from segreg_plugins.datasets.mask_values import Values, ValueTable, value_table
from segreg_plugins.datasets.masks import Foreground, read_binary_mask, read_index_mask, read_valued_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.registry.protocols import Sample


@dataclass(frozen=True)
class MaskRules:
    """What a data set of mask files passes on to segreg.

    Attributes:
        task: the classes.
        read: reads a sample's mask, given the function that reads a file's values as `read`.
        reader: names the rules, for the cache's key.
        channel: the channel of a mask that has its values.
        compares_palettes: whether the palettes of all masks decide between indices and grey levels.
        white_is_one: whether white is class 1 where all palettes are black and white, rather than the value 255.
        table: the label of each value or colour, where the setting `values` names them.
    """

    task: Task
    read: Callable[..., NDArray[np.uint8]]
    reader: str
    channel: Channel | None
    compares_palettes: bool
    white_is_one: bool = False
    table: ValueTable | None = None

    def reading(self, masks: Sequence[Path]) -> tuple[Callable[[Sample], NDArray[np.uint8]], str]:
        """Return the function that reads a mask of these files, and the name of how it does.

        Raises:
            SegregError: the files' palettes contradict each other.
        """
        grey_levels = self.compares_palettes and grey_levels_count(masks, white_is_one=self.white_is_one)
        read: Any = partial(read_values, channel=self.channel, grey_levels=grey_levels)
        if self.table is not None and self.table.colours:
            read = read_colours
        return partial(
            _read_beside_image, read=partial(self.read, read=read)
        ), self.reader + ", grey levels of palettes" * grey_levels


def _read_beside_image(sample: Sample, *, read: Callable[[Sample], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    labels = read(sample)
    if sample.mask is not None:
        check_orientations(sample.image, sample.mask)
    return labels


def mask_rules(
    classes: tuple[str, ...] | None,
    foreground: Foreground,
    ignore_index: int | None,
    *,
    values: Values | None = None,
    mask_channel: Channel | None = None,
    palette: Literal["auto", "indices"] = "auto",
) -> MaskRules:
    """Return the rules: one class is the foreground of binary masks, several are those of the values 0, 1, 2 ...

    Raises:
        SegregError: the settings contradict each other.
    """
    indices = palette == "indices"
    compares = not indices and mask_channel is None
    about = f", values of channel {mask_channel}" * (mask_channel is not None) + ", indices of palettes" * indices
    if isinstance(mask_channel, int) and mask_channel < 0:
        raise SegregError(f"mask_channel: {mask_channel} is below 0, which is the first channel")
    if values is not None:
        if foreground != "auto" or ignore_index is not None:
            setting = f"ignore_index: {ignore_index}" if ignore_index is not None else f"foreground: {foreground}"
            raise SegregError(
                f"{setting}: values says already what each value means",
                hint="name what counts for nothing in values, as in {background: 0, road: 1, ignore: [255, -1]}",
            )
        names, table = value_table(values, classes)
        if table.colours and mask_channel is not None:
            raise SegregError(f"mask_channel: {mask_channel} has one value a pixel, and values names colours")
        task = Task(names, "binary" if len(names) == 1 else "multiclass")
        read = partial(read_valued_mask, table=table, indices=indices)
        return MaskRules(task, read, f"{table}{about}", mask_channel, compares and not table.colours, table=table)
    names = classes if classes is not None else ("foreground",)
    if len(names) == 1:
        if ignore_index == 0:
            raise SegregError("ignore_index: 0 is the background of a binary mask; ignoring it leaves nothing to learn")
        return MaskRules(
            Task(names, "binary"),
            partial(read_binary_mask, foreground=foreground, ignore=ignore_index),
            f"binary, foreground {foreground}, ignored {ignore_index}{about}",
            mask_channel,
            compares,
        )
    if foreground != "auto":
        raise SegregError(f"foreground: {foreground} is for one class, and {len(names)} are named")
    if ignore_index is not None and 0 <= ignore_index < len(names):
        raise SegregError(
            f'ignore_index: {ignore_index} is the number of the class "{names[ignore_index]}"',
            hint="the first class has the number 0; values says it where the masks have other numbers",
        )
    return MaskRules(
        Task(names, "multiclass"),
        partial(read_index_mask, classes=len(names), ignore=ignore_index, indices=indices),
        f"{len(names)} classes, ignored {ignore_index}{about}",
        mask_channel,
        compares,
        white_is_one=len(names) == 2 and ignore_index is None,
    )
