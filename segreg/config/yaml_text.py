"""The YAML of recipes: YAML 1.2 scalars read, and plain values written so that they read back as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

# YAML 1.2's core schema. PyYAML follows YAML 1.1, where `1e-4` is a text and `on`, `no` and `12:30` are not.
_NULL = re.compile(r"^(?:null|Null|NULL|~|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]{1,4000}$")  # Python refuses to read integers of more than 4300 digits
_BASED_INT = re.compile(r"^(?:0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_NOT_FINITE = re.compile(r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")


def plain_scalar(text: str) -> Any:
    """Return the value of an unquoted YAML scalar by YAML 1.2: `1e-4` is a number, `on` and `no` are strings."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text)
    if _BASED_INT.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if _NOT_FINITE.match(text):
        return float(text.replace(".", "", 1))
    return text


def to_yaml(values: Mapping[str, Any], *, header: str = "") -> str:
    """Return plain values as YAML that `read_recipe` reads back as they are."""
    text = yaml.dump(dict(values), Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=110)
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + text


class _RecipeDumper(yaml.SafeDumper):
    """Write what this module reads: YAML 1.2 scalars, no aliases, short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = {float("inf"): ".inf", float("-inf"): "-.inf"}.get(value) or (".nan" if value != value else repr(value))  # noqa: PLR0124
    if "e" in text and "." not in text:  # 1.0e-05 is a number to YAML 1.1 as well; 1e-05 would be given a tag
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flow = not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    if not value.isprintable():  # single quotes lose some line breaks that aren't \n
        style: str | None = '"'
    else:
        style = None if isinstance(plain_scalar(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_RecipeDumper.add_representer(float, _represent_float)
_RecipeDumper.add_representer(list, _represent_list)
_RecipeDumper.add_representer(str, _represent_str)
