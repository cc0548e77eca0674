"""Text of every script in diagrams and panels."""

from __future__ import annotations

import warnings

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from segreg.runtime.output import say_once
from segreg.visualize import fonts

OTHER = "STIXGeneral"
"""It comes with matplotlib and stands in for a font of another script."""


@pytest.fixture
def letter(monkeypatch):
    """A letter that matplotlib's own font lacks and an installed one has."""
    caches = (fonts.font_families, fonts.font_for, say_once)
    for each in caches:
        each.cache_clear()
    monkeypatch.setattr(fonts, "_OF_OTHER_SCRIPTS", ("No such font", OTHER))
    own, other = (get_font(findfont(name)).get_charmap().keys() for name in ("DejaVu Sans", OTHER))
    yield chr(min(code for code in other - own if chr(code).isprintable()))
    for each in caches:
        each.cache_clear()


def saved(text, file):
    with rc_context(fonts.text_style()), fonts.saying_boxes():
        figure = Figure()
        figure.suptitle(text)
        figure.savefig(file)
    return file.read_bytes()


def test_letters_come_from_an_installed_font_that_has_them(letter, tmp_path, capsys):
    assert fonts.font_families() == ["DejaVu Sans", OTHER]
    assert fonts.font_for(f"a {letter}").getname()[0] == OTHER
    assert fonts.font_for("épithélium Ж").getname()[0] == "DejaVu Sans"
    assert fonts.font_for("lesion").getname()[0] == "Aileron"
    assert saved(letter, tmp_path / "one.png") != saved("\ue123", tmp_path / "box.png")
    assert "boxes" in capsys.readouterr().err


def test_boxes_are_reported_once_and_formulas_are_none(letter, tmp_path, monkeypatch, capsys):
    saved(f"{letter} $1$", tmp_path / "one.png")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(fonts, "_OF_OTHER_SCRIPTS", ())
    fonts.font_families.cache_clear()
    for name in ("two.png", "three.png"):
        saved(letter * 2 + "病変", tmp_path / name)
    said = "diagrams have boxes for letters that no installed font has; Noto Sans CJK would have them\n"
    assert capsys.readouterr().err == said


def test_other_warnings_stay_warnings():
    with pytest.warns(UserWarning, match="something else"), fonts.saying_boxes():
        warnings.warn("something else", stacklevel=1)
