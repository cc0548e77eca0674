"""What Albumentations offers, read from its source text: importing it would import torch, which takes seconds.

Works on `albumentations` and on its successor `AlbumentationsX`, which has the same import name and layout.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from segreg.errors import SegregError, did_you_mean
from segreg.settings import REQUIRED, Fraction, Setting, documented_arguments
from segreg.task import IGNORE_INDEX
from segreg_plugins.augmentations.unfit import UNFIT

# Transforms of volumes leave an image as it is without a word; those of spectrograms write 0 into masks.
NOT_FOR_IMAGES = ("transforms3d", "spectrogram")
# These take labels away on purpose: what they fill a mask with is a class, not a border.
FILL_WITH_CLASS = ("MaskDropout",)
# cv2.resize's plain nearest takes pixels' corners, half a pixel beside the image; its exact one takes centres.
# cv2's warps know the plain one only, and there it takes centres.
RESIZING = (
    "CropAndPad", "LongestMaxSize", "RandomResizedCrop", "RandomSizedCrop", "Resize", "SmallestMaxSize",
)  # fmt: skip

# OpenCV's flags, which are the same in every version.
_CV2 = SimpleNamespace(
    INTER_NEAREST=0, INTER_LINEAR=1, INTER_CUBIC=2, INTER_AREA=3, INTER_LANCZOS4=4, INTER_LINEAR_EXACT=5,
    INTER_NEAREST_EXACT=6, BORDER_CONSTANT=0, BORDER_REPLICATE=1, BORDER_REFLECT=2, BORDER_WRAP=3,
    BORDER_REFLECT_101=4,
)  # fmt: skip
_KNOWN: dict[str, Any] = {
    **{kind.__name__: kind for kind in (int, float, bool, str, tuple, list, dict, Path)},
    "Any": Any, "Literal": Literal, "Sequence": Sequence, "cv2": _CV2,
    "np": SimpleNamespace(pi=math.pi), "__builtins__": {},
}  # fmt: skip

_CLASS = re.compile(r"^class (\w+)(?:\(([^)]*)\))?:", re.MULTILINE)
_ALL = re.compile(r"^__all__\s*=\s*[\[(](.*?)[\])]", re.MULTILINE | re.DOTALL)
_TOP_LEVEL = re.compile(r"^[^\s)#]", re.MULTILINE)


@dataclass(frozen=True)
class _Class:
    """A class as its source has it."""

    text: str
    bases: tuple[str, ...]
    offered: bool


def transform_names() -> tuple[str, ...]:
    """Return the name of every transform that a recipe can use, sorted."""
    return tuple(sorted(name for name, found in _classes().items() if found.offered))


def transform_facts(name: str) -> Mapping[str, str]:
    """Return what a list says of a transform: the first sentence of its docstring."""
    words = " ".join((ast.get_docstring(_parsed(name)) or "").partition("\n\n")[0].split())
    sentence = re.match(r".*?\.(?=\s|$)", words)
    return {"": sentence[0] if sentence else words}


@cache
def transform_settings(name: str) -> Mapping[str, Setting]:
    """Return the settings of a transform: its own, but labels are never mixed and filled borders are ignored.

    Raises:
        SegregError: there is no such transform.
    """
    if name not in transform_names():
        raise SegregError(f'Albumentations has no transform "{name}"', hint=did_you_mean(name, transform_names()))
    # The class and those of its ancestors whose source is known.
    own = [_parsed(one) for one in (name, *_ancestors(name, _classes())) if one in _classes()]
    builder = next(found for found in (_builder(node) for node in own) if found)
    # A class without words of its own on a setting has its base's.
    meanings: dict[str, str] = {}
    for node in reversed(own):
        meanings |= _meanings(ast.get_docstring(node) or "")
    settings = (_as_recipes_have_it(name, setting) for setting in _settings(builder, meanings))
    return {setting.name: setting for setting in settings}


def _as_recipes_have_it(transform: str, setting: Setting) -> Setting:
    """Return the setting with a hint that refuses, and a default that avoids, what would falsify a mask."""
    if setting.name == "fill_mask" and type(setting.default) in (int, float) and transform not in FILL_WITH_CLASS:
        note = f"{IGNORE_INDEX}, segreg's default, makes it count for nothing."
        return replace(setting, default=IGNORE_INDEX, meaning=f"{setting.meaning} {note}".strip())
    if setting.name == "mask_interpolation":
        exact = transform in RESIZING
        return replace(
            setting,
            hint=Literal[_CV2.INTER_NEAREST, _CV2.INTER_NEAREST_EXACT] if exact else Literal[_CV2.INTER_NEAREST],
            default=_CV2.INTER_NEAREST_EXACT if exact else _CV2.INTER_NEAREST,
            meaning="OpenCV's flag; only nearest (0), or exact nearest (6) where a crop is resized: labels don't mix.",
        )
    if setting.name == "p" and setting.hint is float:
        return replace(setting, hint=Fraction)
    if setting.name == "area_for_downscale":  # its third choice averages the mask's labels
        return replace(setting, hint=Literal[None, "image"])
    return setting


@cache
def _classes() -> Mapping[str, _Class]:
    spec = importlib.util.find_spec("albumentations")
    if spec is None or not spec.submodule_search_locations:
        return {}
    root = Path(spec.submodule_search_locations[0])
    found: dict[str, _Class] = dict(_classes_in(root / "core" / "transforms_interface.py", images=False))
    for file in sorted((root / "augmentations").rglob("*.py")):
        images = not any(folder in file.parts for folder in NOT_FOR_IMAGES)
        found |= _classes_in(file, images=images)
    transforms = {name for name in found if "BasicTransform" in _ancestors(name, found)}
    return {name: replace(one, offered=one.offered and name in transforms) for name, one in found.items()}


def _classes_in(file: Path, *, images: bool) -> Iterator[tuple[str, _Class]]:
    text = file.read_text(encoding="utf-8")
    exported = _ALL.search(text)
    public = set(re.findall(r"\w+", exported.group(1))) if exported else None
    for match in _CLASS.finditer(text):
        name, bases = match.group(1), match.group(2) or ""
        after = _TOP_LEVEL.search(text, match.end())
        named = name in public if public is not None else not name.startswith("_")
        offered = images and named and name not in UNFIT
        body = text[match.start() : after.start() if after else len(text)]
        yield name, _Class(body, tuple(base.strip() for base in bases.split(",") if base.strip()), offered)


def _ancestors(name: str, classes: Mapping[str, _Class]) -> Iterator[str]:
    for base in classes[name].bases if name in classes else ():
        yield base
        yield from _ancestors(base, classes)


def _parsed(name: str) -> ast.ClassDef:
    node = ast.parse(_classes()[name].text).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def _builder(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)


def _settings(builder: ast.FunctionDef, meanings: Mapping[str, str]) -> Iterator[Setting]:
    given = builder.args
    positional = [*given.posonlyargs, *given.args][1:]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    defaults += given.defaults
    pairs = [*zip(positional, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    for argument, default in pairs:
        if argument.arg == "always_apply":  # what is left of an older interface; it does nothing
            continue
        try:
            value = REQUIRED if default is None else _value(default)
        except (NameError, AttributeError, TypeError):
            continue  # a default that only the import knows: the transform fills it in by itself
        yield Setting(argument.arg, _hint(argument.annotation), value, meanings.get(argument.arg, ""))


def _hint(node: ast.expr | None) -> Any:
    try:
        return Any if node is None else _value(node)
    except (NameError, AttributeError, TypeError):
        return Any


def _value(node: ast.expr) -> Any:
    # Names are looked up in a short list, and the text is that of an installed package.
    return eval(compile(ast.Expression(node), "albumentations", "eval"), dict(_KNOWN))  # noqa: S307


def _meanings(docstring: str) -> dict[str, str]:
    """Return what the Args block says of each setting, whose lines are `name (type): meaning`."""
    return documented_arguments(re.sub(r"^(\s+\w+) ?\(.*?\):", r"\1:", docstring, flags=re.MULTILINE))
