"""The page in a browser: images are chosen, masks lie over them, sliders move them; names are never HTML."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from test_answers import BINARY, MULTICLASS, MULTILABEL, drawn, encoded, tiff_of

import devtools
import opened
from segreg.inference.predictor import predict_labels, prepare_image
from serving import predictor, serving


def test_the_policy_lets_a_browser_fetch_nothing_from_elsewhere():
    with serving(predictor(BINARY)) as asked:
        page = asked.ask("GET", "/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(rb"https?://", page.body) == []


# What the canvas of areas has at each of its pixels: 1 where something is painted.
PAINTED = """
  (async () => {
    await started;
    await queue;
    const of = (place) => cards.map(({canvases}) => {
      const {width, height} = canvases[place];
      const data = canvases[place].getContext("2d").getImageData(0, 0, width, height).data;
      return Array.from({length: width * height}, (_, pixel) => Number(data[4 * pixel + 3] > 0));
    });
    return {areas: of(1), outlines: of(2), states: cards.map(({state}) => state.textContent),
      captions: [...document.querySelectorAll("figcaption > div:first-child")].map((each) => each.textContent),
      scripts: document.querySelectorAll("main img, main script, #legend b").length,
      wide: document.documentElement.scrollWidth - innerWidth,
      legend: [...document.querySelectorAll("#legend button")].map((each) => each.textContent)};
  })()
"""


def slide(name, value):
    return f'$("{name}").value = {value}; $("{name}").dispatchEvent(new Event("input")); '


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_a_reader_chooses_images_and_moves_sliders(tmp_path, width):
    image, evil = drawn(30, 41), "<img src=x onerror=alert(1)>.png"
    (tmp_path / evil).write_bytes(encoded(image))
    (tmp_path / "scan.tif").write_bytes(tiff_of(image))
    (tmp_path / "broken.png").write_bytes(b"no image")
    one, several, overlapping = (predictor(task, name=f"a/{task.mode}") for task in (BINARY, MULTICLASS, MULTILABEL))
    labels = lambda one, **given: predict_labels([one], prepare_image([one], image, Path("x")), **given)  # noqa: E731
    with (
        serving(one, several, overlapping, notice="SYNTHETIC <i>images</i>") as asked,
        devtools.chromium(opened.browser(), tmp_path / "browser") as tab,
    ):
        tab.open(f"http://127.0.0.1:{asked.port}/", width)
        tab.choose_files("#files", [tmp_path / evil, tmp_path / "scan.tif", tmp_path / "broken.png"])
        found = tab.run(PAINTED)
        assert found["captions"] == ["broken.png", "scan.tif", evil]
        assert found["states"][0].startswith("41 x 30, ")
        assert "is not an image" in found["states"][2]
        expected = labels(one)
        for areas in found["areas"][:2]:
            np.testing.assert_array_equal(np.reshape(areas, (30, 41)), expected)
        assert 0 < np.sum(found["outlines"][0]) < np.sum(expected)
        assert (found["scripts"], found["wide"] <= 0, found["legend"]) == (0, True, ["lesion"])

        # A threshold that is moved paints what the server predicts with it.
        threshold = tab.run(slide("threshold", 180) + "threshold(cards[0])")
        moved = tab.run(PAINTED)
        np.testing.assert_array_equal(np.reshape(moved["areas"][0], (30, 41)), labels(one, threshold=threshold))
        assert 0 < np.sum(moved["areas"][0]) < np.sum(expected)
        assert tab.run(slide("opacity", 80) + "cards[0].canvases[1].style.opacity") == "0.8"
        np.testing.assert_array_equal(tab.run('$("reset").click();' + PAINTED)["areas"][0], expected.ravel())

        chosen = '$("model").selectedIndex = {}; $("model").dispatchEvent(new Event("change"));'
        found = tab.run(chosen.format(1) + PAINTED)
        assert found["legend"] == list(MULTICLASS.classes)
        assert found["scripts"] == 0
        np.testing.assert_array_equal(np.reshape(found["areas"][0], (30, 41)), labels(several) > 0)
        hidden = tab.run('document.querySelectorAll("#legend button")[2].click();' + PAINTED)
        np.testing.assert_array_equal(np.reshape(hidden["areas"][0], (30, 41)), labels(several) == 1)
        found = tab.run(chosen.format(2) + PAINTED)
        np.testing.assert_array_equal(np.reshape(found["areas"][0], (30, 41)), labels(overlapping).any(axis=0))
        refused = [problem for problem in tab.problems if "status of 415" not in str(problem)]
        assert refused == []


@pytest.mark.slow
def test_the_page_asks_for_the_token(tmp_path):
    with (
        serving(predictor(BINARY), token="secret") as asked,
        devtools.chromium(opened.browser(), tmp_path / "browser") as tab,
    ):
        tab.open(f"http://127.0.0.1:{asked.port}/", 800)
        legend = '$("legend").children.length'
        assert tab.run(f'start().then(() => [{legend}, $("access").hidden])') == [0, False]
        assert tab.run(f'$("token").value = "secret"; start().then(() => [{legend}, $("access").hidden])') == [1, True]
