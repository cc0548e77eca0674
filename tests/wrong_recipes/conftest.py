"""What `segreg check` says to a recipe that is right but for one thing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import plugged

RIGHT = (Path(__file__).parent / "right.yaml").read_text(encoding="utf-8")


@pytest.fixture
def complaint(tmp_path, monkeypatch, installed, segreg):
    """Return standard error of `segreg check recipe.yaml OVERRIDES`, after asserting that it was refused.

    The recipe is right.yaml, with `old` (which stands there once) replaced by `new`, or `whole`.
    """
    installed(plugged.STAND_INS)
    monkeypatch.chdir(tmp_path)

    def check(old="", new="", *overrides, whole=None):
        if whole is None:
            assert not old or RIGHT.count(old) == 1
            whole = RIGHT.replace(old, new).encode() if old else RIGHT.encode()
        recipe, before = Path("recipe.yaml"), set(Path().iterdir())
        recipe.write_bytes(whole)
        printed = segreg("check", recipe, *overrides)
        assert printed.status == 2
        assert set(Path().iterdir()) == before | {recipe}, "checking a recipe left a file"
        assert "Traceback" not in printed.err
        return re.sub(r"\S*/stand_ins\.py:\d+", "stand_ins.py", printed.err)

    return check
