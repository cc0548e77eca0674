"""What a prediction leaves in a folder: masks, probabilities, coloured masks, overlays and strips, each file whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segreg.errors import SegregError
from segreg.inference.cleaning import Cleaning, clean
from segreg.runtime.files import mapped_array, replacing
from segreg.runtime.output import as_folder_names
from segreg.task import Task, mask_shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segreg.data.rasters import Raster
    from segreg.inference.inputs import TrueMasks
    from segreg.inference.predictor import Pixels, PredictedRows

Kind = Literal["masks", "probabilities", "coloured", "overlays", "strips"]
KINDS: tuple[Kind, ...] = ("masks", "probabilities", "coloured", "overlays", "strips")
"""What can be left, each in a folder of its name."""
Values = Literal["index", "255"]


@dataclass(frozen=True)
class Outputs:
    """What is written for each image, and where.

    Masks are 8-bit grey PNGs at the image's own size, upright: class indices, or 0 and 255. A multilabel task has a
    folder of masks for each class. Probabilities are float16 arrays `[K, H, W]`. Both are GeoTIFFs of class indices and
    of float32 where the image is a georeferenced raster, see `segreg.inference.rasters`.

    Attributes:
        folder: holds a folder for each kind.
        kinds: what is written.
        task: the classes.
        values: what a mask's pixels hold.
        colours: of each label.
        notice: is printed on strips.
        truths: true masks, which strips show too.
        cleaning: what is cleaned of labels; probabilities stay as they are.

    Raises:
        SegregError: a mask of several classes was to hold 0 and 255 alone, or no class is what is cleaned away.
    """

    folder: Path
    kinds: Sequence[Kind]
    task: Task
    values: Values
    colours: Sequence[tuple[int, int, int]]
    notice: str = ""
    truths: TrueMasks | None = None
    cleaning: Cleaning = field(default_factory=Cleaning)

    def __post_init__(self) -> None:
        self.cleaning.check(self.task)
        if self.values == "255" and self.task.mode == "multiclass":
            raise SegregError(
                f"a mask of {len(self.task.classes)} classes can't hold 0 and 255 alone; its values are class indices"
            )

    @classmethod
    def of(
        cls,
        folder: Path,
        task: Task,
        kinds: Iterable[str] = (),
        *,
        values: Values | None = None,
        colours: Sequence[tuple[int, int, int]] | None = None,
        notices: Iterable[str] = (),
        truths: TrueMasks | None = None,
        cleaning: Cleaning | None = None,
    ) -> Outputs:
        """Return what is written by default: masks, of class indices where there are several classes, and more kinds.

        Args:
            folder: holds a folder for each kind.
            task: the classes.
            kinds: what is written beside masks.
            values: what a mask's pixels hold; None: the task's usual ones.
            colours: of each label; None: the task's.
            notices: of the runs.
            truths: true masks.
            cleaning: what is cleaned of labels; None: nothing.
        """
        from segreg.visualize.colours import label_colours

        return cls(
            folder=folder,
            kinds=[kind for kind in KINDS if kind in ("masks", *kinds)],
            task=task,
            values=values or ("index" if task.mode == "multiclass" else "255"),
            colours=label_colours(task) if colours is None else colours,
            notice="; ".join(dict.fromkeys(f"trained on: {notice}" for notice in notices if notice)),
            truths=truths,
            cleaning=cleaning or Cleaning(),
        )

    def files(self, name: str, *, raster: bool = False) -> dict[str, Path]:
        """Return the files of an image by what they are: `masks`, or `masks/<class>` if multilabel, `overlays` ...

        Args:
            name: the image's.
            raster: whether it is a georeferenced raster.
        """
        folders: list[str] = []
        for kind in self.kinds:
            several = kind == "masks" and self.task.mode == "multilabel"
            folders += [f"masks/{folder}" for folder in as_folder_names(self.task.classes)] if several else [kind]
        endings = {"masks": ".png", "probabilities": ".npy"}
        if raster:
            endings = dict.fromkeys(endings, ".tif")
        return {
            folder: self.folder / folder / f"{name}{endings.get(folder.partition('/')[0], '.png')}"
            for folder in folders
        }

    @property
    def overlays(self) -> bool:
        """Whether something is written that shows the whole image."""
        return any(kind not in ("masks", "probabilities") for kind in self.kinds)

    def collect(
        self, name: str, size: tuple[int, int], strips: Iterable[PredictedRows], raster: Raster | None = None
    ) -> NDArray[np.uint8] | None:
        """Return the labels of all strips; probabilities, and all of a raster's, are written as they come.

        Args:
            name: the image's.
            size: its height and width.
            strips: its prediction.
            raster: the image, where it is a georeferenced raster. There are no labels then unless overlays need them.

        Raises:
            OSError: a file can't be written.
        """
        import numpy as np

        labels = None
        if raster is None or self.overlays:
            labels = np.empty(mask_shape(self.task, size), np.uint8)
        with ExitStack() as stack:
            kept: Any = None
            write: Callable[[PredictedRows], None] | None = None
            if raster is not None:
                from segreg.inference.rasters import geotiffs

                files = self.files(name, raster=True)
                write = stack.enter_context(geotiffs(raster, files, self.task, self.colours))
            elif "probabilities" in self.kinds:
                aside = stack.enter_context(replacing(_made(self.files(name)["probabilities"])))
                kept = mapped_array(aside, (self.task.channels, *size), np.float16)
            for strip in strips:
                if labels is not None:
                    labels[..., strip.rows, :] = strip.labels
                if write is not None:
                    write(strip)
                if kept is not None:
                    kept[:, strip.rows] = strip.probabilities
            if kept is not None:
                kept.flush()
                del kept
        return clean(labels, self.task, self.cleaning) if labels is not None and self.cleaning else labels

    def save(self, name: str, pixels: Pixels, labels: NDArray[np.uint8] | None, *, raster: bool = False) -> None:
        """Write all that `collect` has not.

        Args:
            name: the image's.
            pixels: `[H, W, C]` of any type, shown in 8 bits; read where they are shown.
            labels: as `collect` returns them.
            raster: whether it is a georeferenced raster.

        Raises:
            OSError: a file can't be written.
            SegregError: the image's true mask is wrong; nothing has been written then.
        """
        from segreg.data.values import as_shown
        from segreg.visualize.overlay import overlay, paint
        from segreg.visualize.panels import side_by_side

        if labels is None:
            return
        files = self.files(name)
        truth = self.truths.read(name, (pixels.shape[0], pixels.shape[1])) if self.truths else None
        masks = labels if self.task.mode == "multilabel" else labels[None]
        written = [] if raster else [file for kind, file in files.items() if kind.startswith("masks")]
        for file, mask in zip(written, masks, strict=False):
            _save(mask * 255 if self.values == "255" else mask, file)  # uint8, so that 1 becomes 255
        make: dict[str, Callable[[], Any]] = {
            "coloured": lambda: paint(labels, self.colours),
            "overlays": lambda: overlay(as_shown(pixels[:, :]), labels, self.colours, self.task),
            "strips": lambda: side_by_side(
                as_shown(pixels[:, :]), truth, labels, self.task, colours=self.colours, notice=self.notice
            ),
        }
        for kind, image in make.items():
            if kind in files:
                _save(image(), files[kind])


def _save(image: Any, file: Path) -> None:
    """Write an array, or a PIL image, as PNG."""
    import numpy as np
    from PIL import Image

    shown = Image.fromarray(np.ascontiguousarray(image)) if isinstance(image, np.ndarray) else image
    with replacing(_made(file)) as aside:
        shown.save(aside, format="PNG", compress_level=4)  # masks become 2% larger than with 9, in a tenth of the time


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
