"""What a prediction is answered with: a mask, regions, probabilities or an overlay, as the client accepts."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from fastapi import HTTPException
from PIL import Image

from segreg.data.values import as_shown
from segreg.inference.annotations import coco_regions
from segreg.inference.predictor import InputImage
from segreg.serve.limits import Limits
from segreg.serve.worker import Values, threshold_level
from segreg.task import BACKGROUND, Task, label_names
from segreg.visualize.colours import label_colours
from segreg.visualize.overlay import overlay

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK, REGIONS, PROBABILITIES, OVERLAY = "image/png", "application/json", "application/x-npy", "image/jpeg"
MEDIA_TYPES = {
    MASK: "the mask as `segreg predict` writes it: 0 and 255 for one class, class numbers for several",
    REGIONS: "regions with their class, area, box and outline, as COCO has them",
    PROBABILITIES: "float16 `[K, H, W]` as NumPy saves it",
    OVERLAY: "the image with each class tinted and outlined",
}
Form = Literal["polygons", "rle", "layers"]


def media_type(accept: str) -> str:
    """Return the media type that a header Accept prefers; of equals the first that it names, and the mask for any.

    Raises:
        HTTPException: 406, none of `MEDIA_TYPES`.
    """

    def quality(wanted: str) -> float:
        found = re.search(r";\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", wanted)
        return float(found[1]) if found else 1.0

    for wanted in sorted(accept.lower().split(","), key=quality, reverse=True):
        pattern = wanted.partition(";")[0].strip()
        if found := [media for media in MEDIA_TYPES if quality(wanted) and fnmatchcase(media, pattern)]:
            return found[0]
    raise HTTPException(406, f"answers are {', '.join(MEDIA_TYPES)}; the header Accept names none of them")


def wanted_values(media: str, form: Form, task: Task) -> Values:
    """Return what is collected of a prediction for an answer."""
    if media == PROBABILITIES:
        return "probabilities"
    return "levels" if (media, form) == (REGIONS, "layers") and task.mode != "multiclass" else "labels"


def encode(
    media: str, form: Form, *, task: Task, image: InputImage, values: NDArray[Any], threshold: float,
    layer: int | None, limits: Limits,
) -> bytes:  # fmt: skip
    """Return the content of an answer.

    Args:
        media: one of `MEDIA_TYPES`.
        form: of regions.
        task: the classes.
        image: what was predicted.
        values: what `wanted_values` names.
        threshold: probability from which a pixel is foreground.
        layer: the one class that is asked for.
        limits: those of answers.

    Raises:
        HTTPException: 413 the outlines are too long, or 422 the mask of several classes that overlap is asked for.
    """
    if media == MASK:
        return _image(_mask(task, values, layer), "PNG", compress_level=4)
    if media == PROBABILITIES:
        file = io.BytesIO()
        np.save(file, values)
        return file.getvalue()
    if media == OVERLAY:
        colours = label_colours(task)
        if layer is not None:
            values, name = _mask(task, values, layer) // 255, task.classes[layer]
            colours = [(0, 0, 0), colours[label_names(task).index(name)]]
            task = Task((name,), "binary")
        return _image(overlay(as_shown(image.pixels[0][:, :]), values, colours, task), "JPEG", quality=92)
    height, width = image.size
    content: dict[str, Any] = {"height": height, "width": width}
    if task.mode != "multiclass":
        content["threshold"] = threshold
    if form == "layers":
        layers = values if values.ndim == 3 else values[None]
        pngs = (_image(one, "PNG", compress_level=4) for one in layers)
        content["layers"] = [base64.b64encode(png).decode("ascii") for png in pngs]
        content["level"] = threshold_level(threshold)
    else:
        content["regions"] = list(_regions(form, task, values, layer, limits))
    return json.dumps(content).encode()


def _mask(task: Task, labels: NDArray[np.uint8], layer: int | None) -> NDArray[np.uint8]:
    if layer is not None:
        return _class_masks(task, labels)[layer].astype(np.uint8) * np.uint8(255)
    if task.mode == "multilabel":
        raise HTTPException(422, "the classes overlap, so each has a mask of its own: name one by class=")
    return labels * np.uint8(255) if task.mode == "binary" else labels


def _class_masks(task: Task, labels: NDArray[np.uint8]) -> Sequence[NDArray[np.bool_]]:
    if task.mode == "multiclass":
        return [labels == number for number in range(len(task.classes))]
    return [*labels.astype(np.bool_).reshape(len(task.classes), *labels.shape[-2:])]


def _regions(
    form: Form, task: Task, labels: NDArray[np.uint8], layer: int | None, limits: Limits
) -> Iterator[dict[str, Any]]:
    turns = sum(int(np.count_nonzero(np.diff(labels, axis=axis))) for axis in (-2, -1))
    if turns > limits.corners:
        raise HTTPException(413, f"the mask is too ragged for outlines ({turns:,} edges); ask for {MASK}")
    for number, (name, mask) in enumerate(zip(task.classes, _class_masks(task, labels), strict=True)):
        if number == layer or (layer is None and name != BACKGROUND):
            for region in coco_regions("coco-rle" if form == "rle" else "coco-polygons", mask):
                yield {"class": name, **region}


def _image(pixels: NDArray[np.uint8], form: str, **settings: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, form, **settings)
    return file.getvalue()
