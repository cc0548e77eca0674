"""The JSON Schema of recipes for the plugins that are installed, by which editors complete and check them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from segreg.config.resolve import LARGEST_SEED, NETWORK, PARTS, SECTIONS, SETTINGS
from segreg.config.sections import BESIDE, Ramp
from segreg.errors import SegregError
from segreg.registry.entry import Entry
from segreg.registry.protocols import KINDS
from segreg.registry.registry import Part, Registry
from segreg.settings import Setting, json_schema, nested, plain, settings_of

TITLE = "segreg recipe"
"""The schema's title, by which its file is known."""


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """Return the schema (JSON Schema draft 2020-12) of a whole recipe."""
    seed = {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED, "default": 0}
    sections: dict[str, Any] = {
        "seed": {**seed, "description": "seed of weights, order and drawings"},
        **{name: {"$ref": f"#/$defs/{name}"} for name in PARTS},
        **{name: {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]} for name in NETWORK},
        **{name: {**_object(settings_of(section)), "type": ["object", "null"]} for name, section in SETTINGS.items()},
        "augment": _one_or_many("augmentation"),
        "batch_augment": _one_or_many("batch_augmentation"),
        "schedule": {"anyOf": [{"$ref": "#/$defs/schedule"}, {"type": "null"}]},
        "loss": _one_or_many("loss", needed=True),
    }
    sections["evaluate"]["type"] = "object"
    sections["evaluate"]["properties"]["metrics"] = _one_or_many("metric", needed=True)
    sections["evaluate"]["required"] = ["metrics"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "type": "object",
        "additionalProperties": False,
        "required": [*PARTS, "loss", "evaluate"],
        "anyOf": [_without({"network"}), _without({"encoder", "decoder", "auxiliary"})],
        "properties": {name: sections[name] for name in SECTIONS},
        "$defs": {
            **{kind: _kind(registry, kind, weighted=kind == "loss") for kind in KINDS},
            "auxiliary": _kind(registry, NETWORK["auxiliary"], weighted=True),
        },
    }


def _without(absent: set[str]) -> dict[str, Any]:
    """Return what holds for a recipe whose network has none of these sections and all others it can have."""
    needed = [name for name in NETWORK if name not in {*absent, "auxiliary"}]
    null = {"type": "null"}
    return {
        "required": needed,
        "properties": {**dict.fromkeys(absent, null), **{name: {"not": null} for name in needed}},
    }


def _one_or_many(kind: str, *, needed: bool = False) -> dict[str, Any]:
    one = {"$ref": f"#/$defs/{kind}"}
    several = {"type": "array", "items": one}
    return {"anyOf": [one, {**several, "minItems": 1}] if needed else [one, several, {"type": "null"}]}


def _kind(registry: Registry, kind: str, *, weighted: bool) -> dict[str, Any]:
    """Return a part's schema: a bare name, or a mapping with the name and that part's own settings."""
    parts = [part for part in registry.parts(kind) if _can_be_used(part)]
    count = Counter(part.name for part in parts)

    def written(part: Part) -> str:
        return part.name if count[part.name] == 1 else f"{part.name}@{part.plugin.distribution}"

    alike: dict[int, list[Part]] = {}  # members of a family that have the same settings share a shape
    for part in parts:
        own = isinstance(part.offer, Entry) or part.offer.member_settings is not None
        alike.setdefault(id(part if own else part.offer), []).append(part)
    shapes = []
    for some in alike.values():
        name = {**_name([written(part) for part in some], some), "description": some[0].summary}
        shapes.append(_mapping(kind, name, some[0].settings, weighted=weighted))
    families = [
        (plugin, family, {"type": "string", "pattern": _begins(family.prefix)})
        for plugin, family in registry.families(kind)
    ]
    for plugin, family, name in families:
        if family.member_settings is None and _can_be_used(Part(kind, family.prefix, family, plugin, "")):
            # every member has the same
            shape = _mapping(kind, name, family.settings(""), weighted=weighted)
        else:
            shape = {"type": "object", "properties": {"name": name}, "required": ["name"]}
        shapes.append(shape)
    names: list[dict[str, Any]] = [name for _, _, name in families]
    if bare := [part for part in parts if not any(setting.required for setting in part.settings.values())]:
        names.insert(0, _name([written(part) for part in bare], bare))
    return {"anyOf": [*names, *shapes]} if names or shapes else {"not": {}}


def _name(written: Sequence[str], parts: Sequence[Part]) -> dict[str, Any]:
    """Return the schema of some parts' names, which may have their package behind an @."""
    packages = sorted({part.plugin.distribution for part in parts})
    names = "|".join(sorted({_escaped(part.name) for part in parts}))
    with_package = {"pattern": f"^({names})@({'|'.join(map(_escaped, packages))})$"}
    return {"type": "string", "anyOf": [{"enum": list(written)}, with_package]}


def _begins(prefix: str) -> str:
    return "^" + _escaped(prefix)


def _escaped(text: str) -> str:
    """Return a pattern that JavaScript's strict regular expressions, which editors use, take as well."""
    return re.sub(r"[.*+?^${}()|\[\]\\/]", r"\\\g<0>", text)


def _can_be_used(part: Part) -> bool:
    """Whether a part's settings can be read; a recipe that names it gets the reason."""
    try:
        return part.settings is not None
    except SegregError:
        return False


def _mapping(kind: str, name: dict[str, Any], settings: Mapping[str, Setting], *, weighted: bool) -> dict[str, Any]:
    shape = _object(settings)
    shape["properties"]["name"] = name
    if weighted:
        number = {"type": "number", "exclusiveMinimum": 0}
        weight = {"anyOf": [number, _object(settings_of(Ramp))]} if kind == "loss" else number
        shape["properties"]["weight"] = {**weight, "default": 1.0}
    if kind in BESIDE:
        shape["properties"] |= _object(settings_of(BESIDE[kind]))["properties"]
    shape["required"] = ["name", *shape.get("required", [])]
    return shape


def _object(settings: Mapping[str, Setting]) -> dict[str, Any]:
    properties = {}
    for setting in settings.values():
        section = nested(setting.hint)
        shape: dict[str, Any] = dict(json_schema(setting.hint)) if section is None else {}
        if section is not None:
            shape["anyOf"] = [_object(settings_of(section)), {"type": "null"}]
        if setting.meaning:
            shape["description"] = setting.meaning
        if not setting.required:
            shape["default"] = plain(setting.hint, setting.default)
        properties[setting.name] = shape
    required = [setting.name for setting in settings.values() if setting.required]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": required} if required else {}),
    }
