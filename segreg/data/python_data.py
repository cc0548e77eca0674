"""Data sets that are Python objects: `(image, mask)` pairs with a length, a segreg `Dataset`, or one for each split.

Sources: the protocol is that of a map-style `torch.utils.data.Dataset`, `__len__` and `__getitem__`.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from segreg.data.images import as_known_type
from segreg.data.split import SPLITS
from segreg.errors import SegregError, listed, with_article
from segreg.registry.entry import Entry
from segreg.registry.protocols import Dataset, Sample
from segreg.task import IGNORE_INDEX, Task

NAME = "python"
"""What a recipe's section dataset has as a name where the data came from Python."""
_MOST_EMPTY = 100
"""Images that are looked at for values other than 0 and 1."""


@dataclass(frozen=True)
class PythonData:
    """A data set made of Python objects.

    Attributes:
        dataset: the data set.
        settings: what a run's recipe keeps of it: its classes and mode, the object's class, its file and its digest.
        split: whether it came as a mapping from splits.
    """

    dataset: Dataset
    settings: Mapping[str, Any]
    split: bool


def adapt(data: Any, classes: Sequence[str] | None = None, mode: str | None = None) -> PythonData:
    """Return a data set of Python objects.

    Args:
        data: a segreg `Dataset`, an object with `__len__` and `__getitem__` of `(image, mask)`, or a mapping from
            "train", "val" and "test" to such.
        classes: class names; None: the object's attribute `classes`.
        mode: of the task; None: multilabel where the first mask is `[K, H, W]`, binary with one class name, or else
            multiclass.

    Raises:
        SegregError: it is none of these, nothing names the classes, or its first sample can't be read.
    """
    by_split = isinstance(data, Mapping)
    if by_split and (wrong := [key for key in data if key not in SPLITS]):
        raise SegregError(f"data has the split {wrong[0]!r}; the splits are {listed(SPLITS)}")
    if by_split and (missing := [split for split in ("train", "val") if split not in data]):
        hint = "a data set that is not in a mapping is split as the recipe's section split says"
        raise SegregError(f"data names its splits, and {listed(missing)} is not among them", hint=hint)
    given: dict[str | None, Any] = dict(data) if by_split else {None: data}
    samples: list[Sample] = []
    readers: dict[str, tuple[Callable[[Sample], Any], Callable[[Sample], Any], Sample]] = {}
    parts: list[Dataset] = []
    for split, one in given.items():
        known = mode or (parts[0].task.mode if parts else None)
        part = _with_source(one) if isinstance(one, Dataset) else _of_pairs(one, split, classes, known)
        if parts and part.task != parts[0].task:
            raise SegregError(f"{split} has other classes: {listed(part.task.classes)} ({part.task.mode})")
        parts.append(part)
        for own in part.samples:
            sample = own if split is None else replace(own, id=f"{split}-{own.id}", split=split)
            samples.append(sample)
            readers[sample.id] = (part.read_image, part.read_mask, own)
    if not samples:
        raise SegregError("data is empty: it has no samples")

    def read(sample: Sample, which: int) -> Any:
        *read_both, own = readers[sample.id]
        return read_both[which](own)

    first = parts[0]
    dataset = replace(
        first,
        samples=samples,
        read_image=lambda sample: read(sample, 0),
        read_mask=lambda sample: read(sample, 1),
        notice="; ".join(dict.fromkeys(part.notice for part in parts if part.notice)),
        reader="; ".join(dict.fromkeys(part.reader for part in parts)) if all(part.reader for part in parts) else "",
        folders=[folder for part in parts for folder in part.folders],
        objects=first.objects if len(parts) == 1 else None,
    )
    origin = _origin(next(iter(given.values())))
    settings = {"classes": list(first.task.classes), "mode": first.task.mode, **origin}
    return PythonData(dataset, settings, by_split)


def entry(dataset: Dataset | None = None) -> Entry:
    """Return the part that a recipe names `python`; without a data set it says that it must be given again."""

    def build(
        *,
        classes: tuple[str, ...] = (),  # noqa: ARG001
        mode: str = "",  # noqa: ARG001
        class_name: str = "",
        file: str = "",
        source: str = "",  # noqa: ARG001
    ) -> Dataset:
        """A data set that a Python process gave.

        Args:
            classes: class names.
            mode: binary, multiclass or multilabel.
            class_name: the class of the object.
            file: where that class is defined.
            source: a digest of that class's source.
        """
        if dataset is not None:
            return dataset
        of = f" ({class_name}{f' of {file}' if file else ''})" if class_name else ""
        raise SegregError(
            f"the data came from Python{of}, and is not kept with the run",
            hint="in Python, give it again: segreg.resume(run, data=...), segreg.evaluate(run, data=...); "
            "`segreg predict` works without it, and `segreg evaluate --data` with a recipe that names other data",
        )

    return Entry("dataset", NAME, build)


def _origin(data: Any) -> dict[str, str]:
    """Return the name of an object's class, its file and a digest of its source, as far as they are known."""
    kind: Any = data.read_image if isinstance(data, Dataset) else type(data)
    kind = kind if hasattr(kind, "__qualname__") else type(kind)
    origin = {"class_name": f"{kind.__module__}.{kind.__qualname__}", "file": "", "source": ""}
    with suppress(OSError, TypeError):  # of a notebook or of C code
        origin["file"] = inspect.getsourcefile(kind) or ""
        origin["source"] = _source_digest(kind)
    return origin


def _with_source(dataset: Dataset) -> Dataset:
    """Return a data set whose reader names the source of its functions too: a script is edited between two runs."""
    with suppress(OSError, TypeError):
        if dataset.reader:
            digests = _source_digest(dataset.read_image), _source_digest(dataset.read_mask)
            return replace(dataset, reader=f"{dataset.reader} (source {' '.join(digests)})")
    return dataset


def _source_digest(of: Any) -> str:
    return hashlib.blake2b(inspect.getsource(getattr(of, "func", of)).encode(), digest_size=16).hexdigest()


def _of_pairs(data: Any, split: str | None, classes: Sequence[str] | None, mode: str | None) -> Dataset:
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or isinstance(data, (str, bytes)):
        raise SegregError(
            f"data is {with_article(type(data).__name__)}, and has no __len__ and __getitem__",
            hint="give a segreg.Dataset, a torch Dataset of (image, mask), or a mapping from splits to such",
        )
    names = classes if classes is not None else getattr(data, "classes", None)
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise SegregError(
            "nothing names the classes of data" if names is None else f"classes are a list of names, not {names!r}",
            hint='give them: classes=["lesion"] for masks of 0 and 1, or ["background", "cat", "dog"] for 0, 1 and 2; '
            "or as the object's attribute `classes`, or as `classes` in the recipe's section dataset",
        )
    pairs = _Pairs(data, f"{split or 'data'}")
    if mode is None:
        several = len(data) > 0 and pairs.read(0)[1].ndim == 3
        mode = "multilabel" if several else "binary" if len(names) == 1 else "multiclass"
    task = Task(tuple(names), mode)  # type: ignore[arg-type]
    numbers = {f"{index:0{len(str(len(data)))}d}": index for index in range(len(data))}

    def read_mask(sample: Sample) -> NDArray[np.uint8]:
        index = numbers[sample.id]
        mask = pairs.read(index)[1]
        shape = "[K, H, W]" if task.mode == "multilabel" else "[H, W]"
        if mask.ndim != len(shape.split(",")) or (mask.ndim == 3 and len(mask) != task.channels):
            count = f", K = {task.channels}" if mask.ndim == 3 and task.mode == "multilabel" else ""
            raise pairs.wrong(index, f"the mask has the shape {list(mask.shape)}; {shape}{count} was expected")
        return mask

    samples = [Sample(name, Path(pairs.name(i)), Path(f"{pairs.name(i)} mask")) for name, i in numbers.items()]
    return Dataset(task, samples, lambda sample: pairs.read(numbers[sample.id])[0], read_mask, reader="(image, mask)")


class _Pairs:
    """Reads pairs as arrays. A thread keeps the last pair, so that an image and its mask are of one reading."""

    def __init__(self, data: Any, title: str) -> None:
        self.data = data
        self.title = title
        self.lock = threading.Lock()
        self.last = threading.local()
        self.digests: dict[int, bytes] = {}

    @cached_property
    def of_to_tensor(self) -> bool:
        """Whether the first image has floating-point values that are all k/255: 8-bit values as ToTensor gives them.

        One of nothing but 0 and 1, such as an empty slice, leaves it open; the first with other values decides then.
        """
        try:
            for index in range(min(len(self.data), _MOST_EMPTY)):
                with self.lock:
                    image = _array(self.data[index][0])
                if image.dtype.kind != "f" and index == 0:
                    return False
                if image.dtype.kind == "f" and not np.isin(image, (0, 1)).all():
                    return _levels(image) is not None
        except Exception:  # reading it as a sample tells what is wrong
            return False
        return True

    def name(self, index: int) -> str:
        return f"{self.title}[{index}]"

    def wrong(self, index: int, what: str, hint: str = "") -> SegregError:
        return SegregError(f"{self.name(index)}: {what}", hint=hint)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return an image `[H, W]` or `[H, W, C]`, uint8, uint16 or float32, and its mask, uint8 `[(K,) H, W]`."""
        if getattr(self.last, "index", None) == index:
            pair: tuple[NDArray[Any], NDArray[np.uint8]] = self.last.pair
            return pair
        try:
            with self.lock:  # it may not be made for threads
                item = self.data[index]
        except SegregError:
            raise
        except Exception as error:
            trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
            raise self.wrong(index, f"__getitem__ raised {type(error).__name__}: {error}", trace) from error
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            found = f"{len(item)} values" if isinstance(item, (tuple, list)) else with_article(type(item).__name__)
            raise self.wrong(index, f"(image, mask) was expected, not {'None' if item is None else found}")
        pair = self._image(index, item[0]), self._mask(index, item[1])
        if pair[0].shape[:2] != pair[1].shape[-2:]:
            sizes = f"the image is {list(pair[0].shape)} and the mask {list(pair[1].shape)}"
            hint = "images are arrays [H, W] or [H, W, C], or tensors [C, H, W], and masks have their height and width"
            raise self.wrong(index, f"{sizes}: the sizes differ", hint)
        digest = hashlib.blake2b(pair[0].tobytes() + pair[1].tobytes(), digest_size=16).digest()
        if self.digests.setdefault(index, digest) != digest:
            hint = "leave random augmentations out of the data set: the recipe's section augment has them"
            raise self.wrong(index, "it gives another image or mask each time", hint)
        self.last.index, self.last.pair = index, pair
        return pair

    def _image(self, index: int, image: Any) -> NDArray[Any]:
        if image is None:
            raise self.wrong(index, "the image is None")
        try:
            values = values_of_image(image)
        except SegregError as error:
            problem = error.problems[0]
            raise self.wrong(index, problem.message, problem.hint) from None
        if values.ndim not in (2, 3) or 0 in values.shape:
            expected = "[H, W] or [C, H, W]" if _is_tensor(image) else "[H, W] or [H, W, C]"
            raise self.wrong(index, f"the image has the shape {list(values.shape)}; {expected} was expected")
        if values.dtype.kind == "f" and self.of_to_tensor:
            levels = _levels(values)
            if levels is None:
                raise self.wrong(
                    index,
                    f"the image is {values.dtype}, and its values are not k/255, as those of the first image are",
                    "give all images as ToTensor does, k/255 in [0, 1], which is taken for the 8-bit image it came "
                    "from; or as uint8; or all in their own units, without normalisation: input.normalize does that",
                )
            values = levels
        if values.dtype.kind != "f" and values.dtype not in (np.uint8, np.uint16):
            raise self.wrong(index, f"the image is {values.dtype}; uint8, uint16 or float32 was expected")
        return np.ascontiguousarray(as_known_type(values, Path(self.name(index))))

    def _mask(self, index: int, mask: Any) -> NDArray[np.uint8]:
        if mask is None:
            raise self.wrong(index, "the mask is None", "leave out samples without a mask")
        values = _array(mask)
        if values.dtype.kind not in "biu":
            hint = f"masks hold class numbers, {IGNORE_INDEX} for what is ignored: mask.long(), or mask > 0.5"
            raise self.wrong(index, f"the mask is {values.dtype}; integers were expected", hint)
        if values.ndim not in (2, 3) or 0 in values.shape:
            raise self.wrong(index, f"the mask has the shape {list(values.shape)}; [H, W] was expected")
        if (low := int(values.min())) < 0 or (high := int(values.max())) > IGNORE_INDEX:
            number = low if low < 0 else high
            hint = f"{IGNORE_INDEX} is what is ignored"
            raise self.wrong(index, f"the mask has the value {number}, which is not a class", hint)
        return np.ascontiguousarray(values, dtype=np.uint8)


def _levels(values: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return k of values that are all exactly k/255, or None."""
    levels = np.round(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    exact = np.array_equal((levels / np.float32(255)).astype(np.float32), values.astype(np.float32))
    return levels if exact else None


def values_of_image(image: Any) -> NDArray[Any]:
    """Return the values of an array, a PIL image or a tensor as an array.

    Shape: tensors `[H, W]` or `[C, H, W]` and anything else `[H, W]` or `[H, W, C]` to `[H, W]` or `[H, W, C]`.

    Raises:
        SegregError: a PIL image is of a mode whose values are no colours.
    """
    mode = image.mode if isinstance(image, PIL.Image.Image) else None
    if mode in ("P", "1"):
        image = image.convert("L" if mode == "1" else "RGB")
    elif mode not in (None, "L", "RGB", "RGBA") and not str(mode).startswith("I;16"):
        raise SegregError(f"the image is a PIL image of mode {mode}", hint='use image.convert("RGB")')
    values = _array(image)
    return values.transpose(1, 2, 0) if _is_tensor(image) and values.ndim == 3 else values


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu().numpy() if _is_tensor(value) else value)
