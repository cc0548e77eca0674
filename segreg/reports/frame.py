"""The frame of a page that needs nothing else: style, script, and a policy by which a browser fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files

from segreg.reports.elements import Content, Html, element


def framed(
    title: str,
    header: Content,
    sections: Mapping[str, Content],
    *,
    tab: str = "",
    banners: Content = "",
    more_style: str = "",
    more_script: str = "",
) -> str:
    """Return a page.

    Args:
        title: heads it.
        header: stands below the title.
        sections: by their headings.
        tab: what the browser's tab shows; the title if left out.
        banners: stand above everything.
        more_style: CSS beside that of all pages.
        more_script: JavaScript beside that of all pages.
    """
    style, script = _part("style.css"), _part("sort.js") + more_script
    # Even if something slipped in, the browser would fetch nothing and run nothing but the script below.
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", tab or title),
        element("style", Html(style + more_style)),
    )
    links = [element("a", heading, href=f"#{_anchor(heading)}") for heading in sections]
    body = element(
        "body",
        banners,
        element("header", element("h1", title), header, element("nav", links)),
        (
            element("section", element("h2", heading), content, id=_anchor(heading))
            for heading, content in sections.items()
        ),
        element("footer", element("p", f"Written by segreg {_version()}.", class_="note")),
        element("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en').text}\n"


def _part(name: str) -> str:
    return files("segreg.reports").joinpath(name).read_text(encoding="utf-8")


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _version() -> str:
    from importlib.metadata import version

    return version("segreg")
