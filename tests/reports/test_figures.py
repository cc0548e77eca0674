"""Figures for a paper: fonts, names, widths, and the same bytes again."""

import json
import re
import zlib
from dataclasses import replace

import pytest

import planted_comparison as planted
import planted_runs
from segreg.errors import SegregError
from segreg.reports.figures import comparison_figures, run_figures
from segreg.runs.directory import RunDirectory

COSTS = ("training_images_per_second", "latency_p50_ms")
"""One of which more is better, and one of which less is."""
LONG = "encoder=timm/convnextv2_tiny.fcmae_ft_in22k_in1k, loss=dice_bce & $focal$"


def contents(files):
    return {file.name: file.read_bytes() for file in files}


def fonts(pdf):
    """Return what a PDF says, its compressed streams included."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    return pdf + b"".join(zlib.decompressobj().decompress(one) for one in streams if one[:1] == b"\x78")


@pytest.fixture(scope="module")
def compared():
    models = (planted.model(0), planted.model(1), planted.model(2, name=LONG))
    return planted.comparison(
        models=tuple(replace(one, costs={name: one.costs[name] for name in COSTS}) for one in models)
    )


@pytest.fixture(scope="module")
def written(compared, tmp_path_factory):
    return contents(comparison_figures(compared, tmp_path_factory.mktemp("figures") / "new"))


def test_a_comparison_has_its_figures_in_both_formats(written):
    names = ["scores", *(f"score_against_{cost}" for cost in COSTS), "differences_per_image", "learning_curves"]
    assert set(written) == {f"{name}.{form}" for name in names for form in ("svg", "pdf")}


def test_text_stays_text(written):
    for name, content in written.items():
        if name.endswith(".pdf"):
            assert b"/FontFile2" in content, name
            assert b"/Type3" not in fonts(content), name
        else:
            assert b"<text" in content, name
            assert b"encoder0, dice_bce" in content, name
            assert b"focal$" in content, name  # is not mathematics
            width = float(re.search(rb'width="([\d.]+)pt"', content)[1])
            assert width == (510 if name == "learning_curves.svg" else 245)
            assert re.search(rb"#0\d0[12]\d\d", content) is None, "a placeholder of the page"


def test_what_is_unknown_has_no_figure_and_the_same_comparison_gives_the_same_bytes(tmp_path):
    compared = planted.comparison(models=(planted.model(0, costs={}, curves=(), per_image=()),))
    written = contents(comparison_figures(compared, tmp_path))
    assert set(written) == {"scores.svg", "scores.pdf"}
    (tmp_path / "scores.svg").write_text("older")
    assert contents(comparison_figures(compared, tmp_path)) == written


def test_a_run_has_its_figures(tmp_path):
    run = planted_runs.plant(tmp_path / "run")
    planted_runs.score(run, {"p0": 0.5, "p1": 0.75, "p2": float("nan")})
    results = json.loads((run / "results.json").read_text())
    results["classes"] = ["wall", "cell"]
    results["metrics"]["test"] |= {"dice.class.wall": 0.5, "dice.class.cell": 0.7}
    results["intervals"] = {"test": {"dice.class.wall": [0.4, 0.6]}}
    (run / "results.json").write_text(json.dumps(results))
    files = contents(run_figures(RunDirectory(run), tmp_path / "out"))
    assert set(files) == {
        f"{name}.{form}" for name in ("learning_curves", "per_image", "classes") for form in ("svg", "pdf")
    }
    assert b"mean 0.6250" in files["per_image.svg"]
    assert b"wall" in files["classes.svg"]
    assert b"val.loss" in files["learning_curves.svg"]


def test_names_of_any_characters_are_written(tmp_path):
    models = (planted.model(0, name="a\x01 caf\udce9", costs={}, curves=()), planted.model(1, costs={}, curves=()))
    files = contents(comparison_figures(planted.comparison(models=models), tmp_path))
    assert rb"a\x01 caf\udce9" in files["scores.svg"]


def test_a_figure_of_some_of_many_classes_says_so(tmp_path):
    run = planted_runs.plant(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    results["classes"] = [f"c{number}" for number in range(61)]
    results["metrics"]["test"] = {f"dice.class.{name}": 0.5 for name in results["classes"]}
    (run / "results.json").write_text(json.dumps(results))
    files = contents(run_figures(RunDirectory(run), tmp_path / "out"))
    assert b"(the 60 of 61 classes with the lowest dice)" in files["classes.svg"]


def test_a_folder_that_cannot_be_made_is_an_error(compared, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegregError, match="file/new"):
        comparison_figures(compared, tmp_path / "file" / "new")
