"""A report as one page that needs nothing else: no network, no other file, no script to be read."""

from __future__ import annotations

import re
import time
from pathlib import Path

from segreg.reports import evaluations, gallery, scores, settings
from segreg.reports.elements import Content, Html, element, joined
from segreg.reports.frame import framed
from segreg.reports.material import Material
from segreg.runtime.progress import duration


def page(material: Material) -> str:
    """Return the page of a run."""
    title = _title(material)
    marked = [warning.partition(":")[0] for warning in material.warnings]
    banners = joined(element("div", warning, class_="banner", role="alert") for warning in material.warnings)
    sections = _sections(material, banners)
    header = [scores.tiles(material.scored), _headline(material)]
    tab = " - ".join([*marked, title, "segreg report"])
    return framed(title, header, sections, tab=tab, banners=banners)


def _sections(material: Material, banners: Html) -> dict[str, Content]:
    """Return what the page has, by heading; what a run does not have is left out."""
    found: dict[str, Html] = {
        "Scores": scores.metrics(material.scored),
        "Classes": scores.classes(material.scored),
        "Diagrams": gallery.diagrams(material.directory.path),
        "Images": gallery.overlays(material),
        "Scores of single images": scores.spread(material.scored),
        "Evaluations": evaluations.evaluations(material),
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
    """Return when the run began, from the name that its folder was given; when it was read in, if it was renamed."""
    stamp = re.match(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)", material.directory.path.absolute().name)
    if stamp:
        return f"{stamp[1]} {stamp[2]}:{stamp[3]}:{stamp[4]}"
    file: Path = material.directory.split
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(file.stat().st_mtime)) if file.is_file() else ""
