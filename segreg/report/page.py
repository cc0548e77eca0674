"""A report as one page that needs nothing else: no network, no other file, no script to be read."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from importlib.resources import files
from pathlib import Path

from segreg.progress import duration
from segreg.report import gallery, scores, settings
from segreg.report.elements import Content, Html, element, joined
from segreg.report.material import Material


def page(material: Material) -> str:
    """Gives the page of a run."""
    style, script = _part("style.css"), _part("sort.js")
    # Even if something slipped in, the browser would fetch nothing and run nothing but the script below.
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    title = _title(material)
    marked = [warning.partition(":")[0] for warning in material.warnings]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", " - ".join([*marked, title, "segreg report"])),
        element("style", Html(style)),
    )
    banners = joined(element("div", warning, class_="banner", role="alert") for warning in material.warnings)
    sections = _sections(material, banners)
    links = [element("a", heading, href=f"#{_anchor(heading)}") for heading in sections]
    body = element(
        "body",
        banners,
        element("header", element("h1", title), scores.tiles(material), _headline(material), element("nav", links)),
        (
            element("section", element("h2", heading), content, id=_anchor(heading))
            for heading, content in sections.items()
        ),
        element("footer", element("p", f"Written by segreg {_version()}.", class_="note")),
        element("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en').text}\n"


def _sections(material: Material, banners: Html) -> dict[str, Content]:
    """Gives what the page has, by heading; what a run does not have is left out."""
    found: dict[str, Html] = {
        "Scores": scores.metrics(material),
        "Classes": scores.classes(material),
        "Diagrams": gallery.diagrams(material),
        "Images": gallery.overlays(material),
        "Scores of single images": scores.spread(material),
        "Training": joined([gallery.curves(material), scores.epochs(material)]),
        "Recipe": settings.recipe(material),
        "Environment": settings.environment(material),
    }
    # Who follows a link to the scores must meet the warnings too.
    return {h: [banners, content] if h == "Scores" else content for h, content in found.items() if content}


def _headline(material: Material) -> Html:
    took = duration(material.results.get("training_seconds") or 0)
    return scores.headline(material, _begun(material), took)


def _title(material: Material) -> str:
    return f"{material.directory.path.absolute().parent.name} {material.directory.path.absolute().name}"


def _begun(material: Material) -> str:
    """Gives when the run began, from the name that its folder was given; when it was read in, if it was renamed."""
    stamp = re.match(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)", material.directory.path.absolute().name)
    if stamp:
        return f"{stamp[1]} {stamp[2]}:{stamp[3]}:{stamp[4]}"
    file: Path = material.directory.split
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(file.stat().st_mtime)) if file.is_file() else ""


def _part(name: str) -> str:
    return files("segreg.report").joinpath(name).read_text(encoding="utf-8")


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _version() -> str:
    from importlib.metadata import version

    return version("segreg")
