"""References of what a run used: those that are known, those of which only the address is, and the libraries."""

from __future__ import annotations

import re

import pytest

import plugged
from planted_runs import plant, recipe


@pytest.fixture
def run(installed, tmp_path):
    installed(*plugged.builtin())
    return plant(tmp_path / "run", settings=recipe(decoder={"name": "smp.manet"}, loss=[{"name": "focal"}]))


def entries(text):
    """Return each entry's kind, key and fields, after a check that BibTeX can read it."""
    found = {}
    for block in re.findall(r"^@.*?^}$", text, flags=re.MULTILINE | re.DOTALL):
        assert block.count("{") == block.count("}")
        kind, key = re.match(r"@(\w+){([\w.-]+),", block).groups()
        found[key] = {"kind": kind, **dict(re.findall(r"^  (\w+) = {(.*)},$", block, flags=re.MULTILINE))}
    outside = re.sub(r"^@.*?^}$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert all(line.startswith("%") for line in outside.splitlines() if line)
    return found


def test_parts_and_libraries_are_cited(run, segreg):
    printed = segreg("cite", run, run)
    assert printed.status == 0, printed.err
    found = entries(printed.out)
    focal = found["lin2017focal"]
    assert focal["kind"] == "inproceedings"
    assert focal["title"] == "{Focal Loss for Dense Object Detection}"
    assert (focal["booktitle"], focal["year"], focal["eprint"]) == ("ICCV", "2017", "1708.02002")
    assert printed.out.count("% loss focal\n") == 1
    (manet,) = [one for one in found.values() if "9201310" in one["url"]]
    assert manet == {
        "kind": "misc", "title": "{decoder smp.manet}", "url": "https://ieeexplore.ieee.org/document/9201310",
    }, "nothing is invented"  # fmt: skip
    assert re.fullmatch(r"version [\d.]+\S*", found["paszke2019pytorch"]["note"])
    assert "without a source: dataset synthetic_lesions" in printed.out


def test_plain_sentences(run, segreg):
    lines = segreg("cite", run, "--format", "text").out.splitlines()
    focal = (
        "Tsung-Yi Lin, Priya Goyal, Ross Girshick, Kaiming He, Piotr Dollár. Focal Loss for Dense Object Detection. "
        "ICCV. 2017. https://arxiv.org/abs/1708.02002 (loss focal)"
    )
    assert focal in lines
    assert "decoder smp.manet. https://ieeexplore.ieee.org/document/9201310" in lines


def test_what_is_no_run_is_reported(installed, segreg, tmp_path):
    assert "there is no run" in segreg("cite", tmp_path / "none").err
