"""A report's recipe, with what differs from the defaults marked, and what the run ran on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from segreg.config.resolve import SETTINGS, Choice, Resolved
from segreg.config.yaml_text import to_yaml
from segreg.reports.elements import Content, Html, element, facts, joined
from segreg.reports.material import Material
from segreg.settings import Setting, plain, settings_of

_IsDefault = Callable[[str, Any], bool]


def recipe(material: Material) -> Html:
    """Return the complete recipe; where its parts are installed, what differs from the defaults is marked."""
    if material.recipe is None:
        file = material.directory.resolved
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        return element("pre", text)
    told: list[Content] = ["Every setting. ", element("mark", "Marked"), ": other than the default, or without one."]
    return joined([element("p", told), element("pre", _lines(material.recipe))])


def _lines(resolved: Resolved) -> Iterator[Html | str]:
    """Return the YAML of a recipe, line by line, marked."""
    content = resolved.plain()
    choices: dict[str, list[Choice]] = {
        "dataset": [resolved.dataset], "augment": [*resolved.augment], "encoder": [resolved.encoder],
        "decoder": [resolved.decoder], "auxiliary": [resolved.auxiliary] if resolved.auxiliary else [],
        "loss": [*resolved.loss], "optimizer": [resolved.optimizer],
        "schedule": [resolved.schedule] if resolved.schedule else [],
    }  # fmt: skip
    for section, value in content.items():
        parts = choices.get(section, [])
        if isinstance(value, list) and parts:
            yield f"{section}:\n"
            for item, choice in zip(value, parts, strict=True):
                yield from _settings(item, _default_of(choice.part.settings, weight=1.0), bullet=True)
        elif isinstance(value, Mapping) and parts:
            yield f"{section}:\n"
            yield from _settings(value, _default_of(parts[0].part.settings))
        elif section in SETTINGS:
            yield f"{section}:\n"
            rest = dict(value)
            if section == "evaluate":
                yield "  metrics:\n"
                for item, choice in zip(rest.pop("metrics"), resolved.metrics, strict=True):
                    for line in _settings(item, _default_of(choice.part.settings), bullet=True):
                        yield joined(["  ", line])
            yield from _settings(rest, _default_of(settings_of(SETTINGS[section])))
        else:
            yield to_yaml({section: value})


def _settings(values: Mapping[str, Any], is_default: _IsDefault, *, bullet: bool = False) -> Iterator[Html | str]:
    for place, (name, value) in enumerate(values.items()):
        lines = to_yaml({name: value}).splitlines()
        for number, line in enumerate(lines):
            indent = "- " if bullet and place == 0 and number == 0 else "  "
            yield joined([indent, line if is_default(name, value) else element("mark", line), "\n"])


def _default_of(settings: Mapping[str, Setting], **more: Any) -> _IsDefault:
    def is_default(name: str, value: Any) -> bool:
        if name in more:
            return bool(more[name] == value)
        setting = settings.get(name)
        return setting is not None and not setting.required and plain(setting.hint, setting.default) == value

    return is_default


def environment(material: Material) -> Html:
    """Return packages, plugins, device, commit and command."""
    told = material.environment
    device = told.get("device", {})
    about = ", ".join(f"{key} {value}" for key, value in device.items() if key != "name")
    plugins = [
        f"{plugin['name']} ({plugin['distribution']} {plugin['version']})"
        + (f": not in use: {plugin['error']}" if plugin.get("error") else "")
        for plugin in told.get("plugins", ())
    ]
    packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in told.get("packages", {}).items())
    model = told.get("model", {})
    counts = ", ".join(f"{role} {count:,}" for role, count in model.get("parameters", {}).items())
    rows = [
        ("command", element("code", shlex.join(map(str, told["command"]))) if told.get("command") else ""),
        ("commit", str(told.get("commit") or "not in a git checkout")),
        ("device", f"{device.get('name', '')} ({about})" if device else ""),
        ("precision", str(told.get("precision", ""))),
        ("Python", f"{told['python']} on {told.get('platform', '')}" if "python" in told else ""),
        ("packages", packages),
        ("plugins", [element("div", plugin) for plugin in plugins]),
        ("parameters", counts),
        *((role, _network(model[role])) for role in ("encoder", "decoder", "auxiliary") if role in model),
        ("started from", str(told.get("started_from", ""))),
        ("ran before on", _before(told)),
    ]
    return facts(rows if told else [])


def _network(facts_: Mapping[str, Any]) -> str:
    return "; ".join(f"{key}: {_words(value)}" for key, value in facts_.items() if value not in ("", [], None))


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _before(told: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{before.get('device', {}).get('model', '?')}, torch {before.get('packages', {}).get('torch', '?')}"
        for before in told.get("before", ())
    )
