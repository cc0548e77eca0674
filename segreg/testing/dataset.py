"""Checks of datasets: samples as promised, the same at every reading, and words where they are missing."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np

from segreg.config.recipe import as_written
from segreg.data.cache import wrong_labels
from segreg.errors import SegregError, listed
from segreg.registry.entry import Entry
from segreg.registry.protocols import Dataset, Sample
from segreg.settings import check_value
from segreg.task import IGNORE_INDEX, Task, mask_shape
from segreg.testing.check import Rule
from segreg.testing.subject import Broken, NotChecked, Subject, doing, raised

MOST_SAMPLES = 8
"""How many samples are read: from the first to the last, evenly."""
SPLITS = ("train", "val", "test")


def it_can_be_built(subject: Subject) -> None:
    """Its builder gives a segreg.Dataset with samples."""
    _needs_a_place(subject)
    dataset = subject.try_to_build()
    if not isinstance(dataset, Dataset):
        raise Broken(f"it gives {type(dataset).__name__}, which is not a segreg.Dataset")
    if not isinstance(dataset.task, Task):
        raise Broken(f"its task is {type(dataset.task).__name__}, which is not a segreg.Task")
    if not len(dataset.samples):
        raise Broken("it has no samples")
    for sample in dataset.samples:
        if not isinstance(sample, Sample):
            raise Broken(f"among its samples is {type(sample).__name__}, which is not a segreg.Sample")


def ids_are_unique_and_stable(subject: Subject) -> None:
    """No two samples have one id, ids do for file names, and a second building gives the same in the same order."""
    dataset = _dataset(subject)
    ids = [sample.id for sample in dataset.samples]
    if wrong := [i for i in ids if not isinstance(i, str) or not i.strip() or ".." in Path(i).parts or i[:1] == "/"]:
        raise Broken(f"{wrong[0]!r} can't be an id: it names files, below the folder that they are written to")
    if len(set(ids)) < len(ids):
        raise Broken(f'two samples have the id "{next(i for i in ids if ids.count(i) > 1)}"')
    if [sample.id for sample in _dataset(subject).samples] != ids:
        raise Broken("built again, it has other ids, or in another order")


def images_are_what_is_promised(subject: Subject) -> None:
    """Images are uint8, uint16 or float32, masks uint8 as the task has them, and both of one size."""
    dataset = _dataset(subject)
    for sample in _some(dataset):
        image = _read(dataset, sample, "image")
        if image.dtype not in (np.uint8, np.uint16, np.float32) or image.ndim not in (2, 3) or 0 in image.shape:
            raise Broken(
                f'the image of "{sample.id}" is {image.dtype} of shape {list(image.shape)}; uint8, uint16 or float32 '
                "of [H, W] or [H, W, C] was expected",
                at=dataset.read_image,
            )
        if sample.mask is None:
            continue
        mask = _read(dataset, sample, "mask")
        wanted = mask_shape(dataset.task, (image.shape[0], image.shape[1]))
        if mask.dtype != np.uint8 or mask.shape != wanted:
            raise Broken(
                f'the mask of "{sample.id}" is {mask.dtype} of shape {list(mask.shape)}; uint8 of {list(wanted)} was '
                "expected, as its image and its task have it",
                at=dataset.read_mask,
            )


def labels_are_of_the_task(subject: Subject) -> None:
    """Masks hold classes of the task, or 255; and not 255 where an object is meant."""
    dataset = _dataset(subject)
    with_masks = [sample for sample in _some(dataset) if sample.mask is not None]
    if not with_masks:
        raise NotChecked("none of its samples has a mask")
    held: set[int] = set()
    for sample in with_masks:
        mask = _read(dataset, sample, "mask")
        if mask.dtype == np.uint8 and (wrong := wrong_labels(mask, dataset.task)):
            values = listed([str(value) for value in wrong], quote="", most=5)
            raise Broken(
                f'the mask of "{sample.id}" holds {values}, no class of its {dataset.task.mode} task of '
                f"{len(dataset.task.classes)}, nor 255",
                at=dataset.read_mask,
            )
        held |= set(np.unique(mask).tolist())
    if IGNORE_INDEX in held and held <= {0, IGNORE_INDEX}:
        values = " and ".join(map(str, sorted(held)))
        raise Broken(
            f"the masks of {len(with_masks)} samples hold {values} alone, and 255 is ignored: where 255 means an "
            "object, give 1 for it",
            at=dataset.read_mask,
        )


def reading_repeats(subject: Subject) -> None:
    """A sample has the same bytes at every reading, also of a dataset that is built again, and in threads at once."""
    first, second = _dataset(subject), _dataset(subject)
    samples = _some(first)
    for sample in samples:
        for what in ("image", "mask") if sample.mask is not None else ("image",):
            read = [_read(dataset, sample, what) for dataset in (first, first, second)]
            undefined = read[0].dtype.kind == "f"  # such as pixels without data
            if any(not np.array_equal(read[0], other, equal_nan=undefined) for other in read[1:]):
                at = getattr(first, f"read_{what}")
                raise Broken(f'the {what} of "{sample.id}" is another at the second reading', at=at)
    alone = [_read(first, sample, "image") for sample in samples]
    with doing("reading in several threads at once"), ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda sample: _read(first, sample, "image"), [*samples] * 8))
    for sample, found, wanted in zip([*samples] * 8, together, alone * 8, strict=True):
        if not np.array_equal(found, wanted, equal_nan=wanted.dtype.kind == "f"):
            raise Broken(
                f'the image of "{sample.id}" is another one when threads read at once; open a file for each reading, '
                "or hold a lock",
                at=first.read_image,
            )


def splits_are_disjoint(subject: Subject) -> None:
    """Where it says which split a sample is in, no image and no group is in two."""
    samples = _dataset(subject).samples
    named = [sample for sample in samples if sample.split is not None]
    if not named:
        raise NotChecked("it has no split of its own")
    if odd := [sample for sample in named if sample.split not in SPLITS]:
        raise Broken(f'"{odd[0].id}" is in the split "{odd[0].split}"; there is {listed(SPLITS)}')
    for what in ("image", "group"):
        split_of: dict[str, str] = {}
        for sample in named:
            name = str(getattr(sample, what) or "")
            if name and split_of.setdefault(name, str(sample.split)) != sample.split:
                raise Broken(f'the {what} "{name}" is in two splits: {split_of[name]} and {sample.split}')


def missing_data_is_named(subject: Subject) -> None:
    """Where its folder is not there, a SegregError names it and says what to do."""
    paths = _paths(subject)
    if not paths:
        raise NotChecked("none of its settings is a path")
    if others := [name for name in subject.missing if name not in paths]:
        raise NotChecked(f"needs {listed(others)}")
    with tempfile.TemporaryDirectory() as folder:
        gone = Path(folder) / "not_here"
        places = {name: gone / name for name in paths if name in subject.missing or subject.settings[name] is not None}
        places = places or {paths[0]: gone / paths[0]}
        try:
            dataset = subject.part.build(**{**subject.settings, **places})
            dataset.read_image(dataset.samples[0]) if len(dataset.samples) else None
        except SegregError as error:
            if not any(str(path) in str(error) for path in places.values()):
                raise Broken(f"where its folder is missing, its message does not name it: {error}") from error
            if not any(problem.hint for problem in error.problems):
                raise Broken(
                    f"where its folder is missing, its message has no hint that says where to get the data: {error}"
                ) from error
            return
        except Exception as error:
            raise Broken(
                f"where its folder is missing, it raises {raised(error)}, which is not a SegregError"
            ) from error
        if any(path.exists() for path in places.values()):
            raise NotChecked(f"it makes what is not there: {listed(list(places))}")
        raise Broken("where its folder is missing, it says nothing")


def recognise_is_careful(subject: Subject) -> None:
    """Where it has `recognise`, that knows the author's folder by settings that fit, and claims no strange one."""
    offer = subject.part.offer
    if not isinstance(offer, Entry) or offer.recognise is None:
        raise NotChecked("its entry has no recognise, so that `segreg init` does not know it")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "notes.txt").write_text("nothing of interest", encoding="utf-8")
        if found := subject.part.recognise(Path(folder)):
            raise Broken(f"it claims a folder that holds notes.txt alone: {found[0].because}", at=offer.recognise)
    folders = [value for name in _paths(subject) if isinstance(value := subject.settings.get(name), Path)]
    for place in (place for place in folders if place.is_dir() and subject.given):
        for one in subject.part.recognise(place):
            if not one.because:
                raise Broken(f"it recognises {place} without a word of why", at=offer.recognise)
            for name, value in one.settings.items():
                if name not in subject.part.settings:
                    raise Broken(f'it recognises {place} with "{name}", which is not a setting', at=offer.recognise)
                check_value(subject.part.settings[name].hint, as_written(value))


def _dataset(subject: Subject) -> Dataset:
    _needs_a_place(subject)
    dataset = subject.built()
    if not isinstance(dataset, Dataset):
        raise NotChecked("it is not a segreg.Dataset, see it_can_be_built")
    return dataset


def _needs_a_place(subject: Subject) -> None:
    """Stop where the author gave no path: a default is a folder of somebody else's, and some write into it."""
    subject.needs_nothing()
    paths = [name for name in _paths(subject) if subject.settings[name] is not None]
    if paths and not subject.given & set(paths):
        raise NotChecked(f"needs {listed(paths, last='or')}")


def _paths(subject: Subject) -> list[str]:
    """Return the names of the settings that are a path."""
    return [n for n, s in subject.part.settings.items() if s.hint is Path or Path in get_args(s.hint)]


def _some(dataset: Dataset) -> list[Sample]:
    count = len(dataset.samples)
    numbers = np.linspace(0, count - 1, min(count, MOST_SAMPLES)).round().astype(int)
    return [dataset.samples[int(number)] for number in dict.fromkeys(numbers)]


def _read(dataset: Dataset, sample: Sample, what: str) -> Any:
    with doing(f'reading the {what} of "{sample.id}"'):
        return np.asarray(getattr(dataset, f"read_{what}")(sample))


RULES = (
    Rule(it_can_be_built, "everything else is done with its samples"),
    Rule(ids_are_unique_and_stable, "splits, results and file names know samples by their ids, on every machine"),
    Rule(images_are_what_is_promised, "resizing, caching and batching rely on it"),
    Rule(labels_are_of_the_task, "a label that is not a class trains something else, or ends the run"),
    Rule(reading_repeats, "images are cached, and a run is to be repeated"),
    Rule(splits_are_disjoint, "what was trained on must not be scored on"),
    Rule(recognise_is_careful, "`segreg init` asks every dataset about any folder"),
    Rule(missing_data_is_named, "it is the first thing that a new user sees"),
)
