"""Checks of exporters: files that predict what the network does, for every depth of images, and that run no code."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from segreg.errors import SegregError
from segreg.testing.check import Rule
from segreg.testing.subject import Broken, NotChecked, Subject, doing

PRECISIONS = ("float32", "bf16", "float16", "int8")
_CLOSE = {"float32": 1e-3, "bf16": 0.1, "float16": 0.02}
"""How far values near 1 may be from the network's."""
_NOTES = json.dumps({"classes": ["ground", "été"], "weights": np.random.default_rng(0).bytes(1 << 17).hex()})
"""What a file must have room for: random digits, which no compression brings below half of their number of bytes."""


class _Network(nn.Module):
    """Two convolutions of an image's values, as logits or as labels."""

    def __init__(self, *, labels: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2)
        )
        self.labels = labels

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images.float() / 100)
        return logits.argmax(dim=1).to(torch.uint8) if self.labels else logits


def it_can_be_built(subject: Subject) -> None:
    """Its builder gives an object with a suffix, precisions, `write` and `load`."""
    exporter = subject.try_to_build()
    suffix, precisions = getattr(exporter, "suffix", None), getattr(exporter, "precisions", None)
    if not isinstance(suffix, str) or not suffix.startswith("."):
        raise Broken(f"its suffix is {suffix!r}; one such as .onnx was expected")
    if not precisions or not set(precisions) <= set(PRECISIONS):
        raise Broken(f"its precisions are {precisions!r}; some of {', '.join(PRECISIONS)} were expected")
    for name in ("write", "load"):
        if not callable(getattr(exporter, name, None)):
            raise Broken(f"it gives {type(exporter).__name__}, which has no method {name}")


def files_predict_what_the_network_does(subject: Subject) -> None:
    """A file has the notes, and gives the network's logits, for one image and for several."""
    _compare(subject)


def labels_are_labels(subject: Subject) -> None:
    """A network that returns uint8 labels still does."""
    _compare(subject, labels=True)


def every_depth_is_taken(subject: Subject) -> None:
    """Images may be uint16 and float32 too."""
    for dtype in (torch.uint16, torch.float32):
        _compare(subject, dtype)


def every_precision_can_be_written(subject: Subject) -> None:
    """What `precisions` has beside float32 and int8 is written, loaded, and near to the network."""
    others = [one for one in subject.built().precisions if one in ("bf16", "float16")]
    if not others:
        raise NotChecked("it writes neither bf16 nor float16")
    for precision in others:
        with doing(f"in {precision}"):
            _compare(subject, precision=precision)


def what_is_not_a_network_is_refused(subject: Subject) -> None:
    """Loading a damaged file raises a SegregError that names it."""
    exporter = subject.built()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"network{exporter.suffix}"
        file.write_bytes(b"nothing of the kind")
        try:
            exporter.load(file, precision="float32")
        except SegregError as error:
            if file.name not in str(error):
                raise Broken("a damaged file is refused, but not named") from error
        except Exception as error:
            raise Broken(f"a damaged file raises {type(error).__name__}, not a SegregError") from error
        else:
            raise Broken("a damaged file is loaded")


def nothing_is_unpickled(subject: Subject) -> None:
    """Loading a file runs none of the code that a pickle may have in it."""
    exporter = subject.built()
    with tempfile.TemporaryDirectory() as folder:
        file, ran = Path(folder) / f"network{exporter.suffix}", Path(folder) / "ran"
        for save in (torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))):
            save(_Code(ran), file)
            with contextlib.suppress(Exception):
                exporter.load(file, precision="float32")
            if ran.exists():
                raise Broken("loading a file runs the code in it: it unpickles", at=exporter.load)


class _Code:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def _compare(
    subject: Subject, dtype: torch.dtype = torch.uint8, *, labels: bool = False, precision: str = "float32"
) -> None:
    """Write a file, look for the notes in it, and compare its predictions with those of the network it is made from."""
    exporter = subject.built()
    if precision not in exporter.precisions:
        raise NotChecked(f"it does not write {precision}")
    network = _Network(labels=labels).eval()
    with torch.no_grad():
        program = torch.export.export(
            network, (_images(dtype, 2),), dynamic_shapes={"images": {0: Dim("batch", min=1, max=64)}}
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"network{exporter.suffix}"
        with doing(f"writing a network of {dtype} images"):
            exporter.write(program, file, precision=precision, notes=_NOTES)
        if not file.is_file():
            raise Broken(f"it writes no file {file.name}")
        size = sum(one.stat().st_size for one in Path(folder).rglob("*"))
        if size < len(_NOTES) // 3:
            text = f"it drops the notes: what it writes has {size:,} bytes, and they have {len(_NOTES):,}"
            raise Broken(text, at=exporter.write)
        with doing("loading what it wrote"):
            run = exporter.load(file, precision=precision)
        for count in (1, 3):
            images = _images(dtype, count)
            with torch.no_grad():
                wanted = network(images).numpy()
            with doing(f"predicting {count} images of {dtype}"):
                found = np.asarray(run(images.numpy()))
            if found.shape != wanted.shape or found.dtype != wanted.dtype:
                raise Broken(
                    f"for {count} images it gives {found.dtype} {list(found.shape)}; {wanted.dtype} "
                    f"{list(wanted.shape)} was expected"
                )
            far = float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max())
            if not far <= _CLOSE[precision]:  # NaN is not
                raise Broken(f"its values differ from the network's by {far:g}")


def _images(dtype: torch.dtype, count: int) -> Tensor:
    values = torch.arange(count * 3 * 16 * 16).reshape(count, 3, 16, 16) * 37 % 251
    return values.to(torch.int32).to(dtype)


RULES = (
    Rule(it_can_be_built, "segreg export names the file by the suffix, and refuses other precisions"),
    Rule(files_predict_what_the_network_does, "a file that predicts something else is worth nothing", slow=True),
    Rule(labels_are_labels, "segreg export --labels folds the labels into the graph", slow=True),
    Rule(every_depth_is_taken, "networks are trained on 16-bit and floating-point images too", slow=True),
    Rule(every_precision_can_be_written, "segreg export offers what it declares", slow=True),
    Rule(nothing_is_unpickled, "files come from elsewhere, and loading one must not run what is in it"),
    Rule(what_is_not_a_network_is_refused, "users have to know which file is broken"),
)
