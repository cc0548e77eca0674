"""The report of a run: everything in it, nothing outside it, and no way to break it from recipes, ids or classes."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import small_runs
import tiny_runs
from segreg.errors import SegregError
from segreg.reports import write_report
from segreg.reports.charts import histogram
from segreg.reports.render import embed, number
from segreg.runs.directory import RunDirectory
from segreg.runtime.files import write_json
from segreg.training.checkpoint import read_weights, save_weights

VOID = {"meta", "img"}
EVIL = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """A page taken apart; an element that is not closed in its turn is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.found = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            kind = "banner" if dict(attributes).get("class") == "banner" else tag
            self.found.append([kind, ""])
            self.open.append((tag, self.found[-1]))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1][0] if self.open else "", data))
        for _, around in self.open:
            around[1] += data

    def all(self, kind):
        """Return the texts of the elements of a kind, with what is inside them."""
        return [text for name, text in self.found if name == kind]

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(data for tag, data in self.texts if tag not in ("script", "style"))


def png(file, size=(64, 48), *, noise=False):
    shown = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) if noise else None
    image = Image.fromarray(shown) if noise else Image.new("RGB", size, (200, 10, 10))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


METRICS = ["iou", "accuracy"]


def made_up(folder, *, classes=("ground", "car"), ids=("a", "b", "c"), **changes):
    """Write the folder of a run that nobody ran, and return its directory."""
    directory = RunDirectory(folder / "recipe" / "2026-01-31_12-34-56")
    directory.path.mkdir(parents=True)
    names = [f"iou.class.{name}" for name in classes]
    averages = [f"{metric}.{how}" for metric in METRICS for how in ("pooled", "per_image_mean")]
    values = {name: 0.1 + 0.013 * place for place, name in enumerate([*averages, *names])}
    results = {
        "notice": "", "weights": "", "recipe": "some.yaml", "dataset": "folder", "classes": list(classes), "seed": 5,
        "images": {"train": 9, "val": 3, "test": len(ids)}, "epochs": 2, "stopped_because": "finished",
        "monitor": "val.iou.pooled", "best_epoch": 2, "best_value": 0.25, "training_seconds": 75.0,
        "precision": "float32", "scored_on": "test", "resolution": "input",
        "metrics": {"val": {name: value / 2 for name, value in values.items()}, "test": values},
        "definitions": {name: f"definition of {name}, in one sentence." for name in values}, **changes,
    }  # fmt: skip
    write_json(directory.results, results)
    directory.resolved.write_text("seed: 5\n", encoding="utf-8")
    write_json(
        directory.environment,
        {"python": "3.11", "packages": {"torch": "2.8"}, "device": {"name": "cpu", "model": "chip"}, "commit": "abc",
         "command": ["segreg", "run", "a b.yaml"],
         "plugins": [{"name": "x", "distribution": "segreg-x", "version": "7.1", "error": ""}]},
    )  # fmt: skip
    rows = [
        {"epoch": epoch, "lr.head": 0.00123, "train.loss": 1 / epoch, "val.iou.pooled": math.nan} for epoch in (1, 2)
    ]
    text = "".join(json.dumps({k: None if v != v else v for k, v in row.items()}) + "\n" for row in rows)
    (directory.path / "history.jsonl").write_text(text)
    with directory.per_image.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *METRICS, names[0]])
        for place, name in enumerate(ids):
            writer.writerow([name, 0.2 + 0.1 * place, "nan" if place == 1 else 0.5, 0.3])
    for place, name in enumerate(ids, start=1):
        png(directory.overlays / f"{place:02}_{re.sub(r'[^a-z]+', '_', name)}.png")
    png(directory.curves)
    return directory


def read(directory, recipe=None, file=None):
    return Page(write_report(directory, recipe, file).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


# a run that was run


def test_a_finished_run_has_its_report(finished):
    text = finished.directory.report.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n<html")
    assert page.all("banner") == [finished.results["notice"]] * 2
    assert page.all("title")[0].startswith("SYNTHETIC IMAGES - ")
    headings = ["Scores", "Diagrams", "Images", "Scores of single images", "Training", "Recipe", "Environment"]
    assert page.all("h2") == headings
    marked = page.all("mark")
    assert "channels: 16" in marked
    assert "name: deeplabv3plus" in marked
    assert "output_stride: 16" not in marked
    assert "output_stride: 16" in page.text
    low, high = finished.results["intervals"]["test"]["dice.pooled"]
    dice = f"{finished.results['metrics']['test']['dice.pooled']:.4f} [{low:.4f}, {high:.4f}]"
    assert dice in [" ".join(cell.split()) for cell in page.all("td")]
    for version in ("torch", "timm"):
        assert version in page.text


def test_the_recipe_of_the_report_is_the_whole_recipe(finished, tmp_path):
    page = read(finished.directory, finished.recipe, tmp_path / "report.html")
    shown = re.sub(r"<[^>]+>", "", re.search("<pre>(.*?)</pre>", (tmp_path / "report.html").read_text(), re.DOTALL)[1])
    from segreg.config.recipe import read_recipe

    (tmp_path / "again.yaml").write_text(shown.replace("&#39;", "'").replace("&#34;", '"'))
    assert read_recipe(tmp_path / "again.yaml").values == read_recipe(finished.directory.resolved).values
    assert page.all("h2")


def test_a_report_that_fails_is_a_warning(tmp_path, builtin):
    directory = made_up(tmp_path)
    directory.results.write_text("{")
    (warning,) = builtin.notify("segreg_run_end", run=directory.path, results={})
    assert warning.startswith(
        "segreg_run_end of segreg-toolkit:builtin-reports failed: SegregError: "
        f"no report was written: {directory.results}: damaged: not valid JSON (line 1): Expecting property name "
    )
    assert warning.endswith(f"; segreg report {directory.path} tries again")
    assert not directory.report.exists()


# what is in it


def test_every_metric_is_there_with_its_definition(tmp_path):
    directory = made_up(tmp_path, classes=[f"class {n}" for n in range(11)])
    results = json.loads(directory.results.read_text())
    page = read(directory)
    assert dict(zip(page.all("dt"), page.all("dd"), strict=True)) == results["definitions"]
    assert len(page.all("dt")) == 15
    cells = [text.strip() for text in page.all("td")]
    assert {f"{value:.4f}" for value in results["metrics"]["test"].values()} <= set(cells)
    for value in (f"{results['metrics']['val'][f'iou.{how}']:.4f}" for how in ("pooled", "per_image_mean")):
        assert value in cells


def rows(page_text, heading):
    """Return the rows of the first table behind a heading, as lists of strings."""
    after = page_text.split(heading, 1)[1]
    body = re.search("<tbody>(.*?)</tbody>", after, re.DOTALL)[1]
    lines = re.findall("<tr.*?>(.*?)</tr>", body, re.DOTALL)
    return [[re.sub("<[^>]+>", "", cell) for cell in re.findall("<t[hd].*?>(.*?)</t[hd]>", line)] for line in lines]


def test_pooled_and_per_image_are_columns_of_one_table(tmp_path):
    directory = made_up(tmp_path)
    text = write_report(directory, None).read_text()
    assert rows(text, "<h3>test: 3 images, at input resolution, best weights</h3>") == [
        ["iou", "0.1000", "0.1130"], ["accuracy", "0.1260", "0.1390"],
    ]  # fmt: skip
    assert rows(text, "so its scores are optimistic</h3>")[0] == ["iou", "0.0500", "0.0565"]
    heads = [
        head for head in Page(text).all("th") if head in ("pooledall pixels together", "per imagemean over images")
    ]
    assert heads == ["pooledall pixels together", "per imagemean over images"] * 2
    assert rows(text, '<h2>Classes</h2>') == [["ground", "0.1520"], ["car", "0.1650"]]  # fmt: skip


def test_intervals_are_beside_their_values(tmp_path):
    intervals = {"iou.pooled": [0.05, 0.15]}
    directory = made_up(tmp_path, intervals={"test": intervals})
    text = write_report(directory, None).read_text()
    assert rows(text, "<h3>test: ")[0] == ["iou", "0.1000 [0.0500, 0.1500]", "0.1130"]
    assert "95% intervals" in text
    (tmp_path / "without").mkdir()
    assert "95% intervals" not in write_report(made_up(tmp_path / "without"), None).read_text()


def test_metrics_of_other_names_and_undefined_values_are_there_too(tmp_path):
    values = {"auroc": 0.75, "ece.pooled": None, "a.class.of its own": 0.5}
    directory = made_up(tmp_path, metrics={"test": values}, definitions={"auroc": "torchmetrics AUROC"})
    page = read(directory)
    assert {"0.7500", "undefined", "0.5000"} <= set(page.all("td"))
    assert set(page.all("dt")) == set(values)
    assert page.all("dd").count("no definition") == 2


def test_the_headline_has_recipe_time_and_result(tmp_path):
    text = write_report(made_up(tmp_path), None).read_text()
    reported = dict(rows(text, "<header>"))
    assert reported == {
        "recipe": "some.yaml", "dataset": "folder: 9 train, 3 val, 3 test", "classes": "ground, car",
        "started": "2026-01-31 12:34:56", "trained": "2 epochs in 1 min 15 s, finished",
        "best epoch": "2, with val.iou.pooled 0.2500", "seed": "5",
        "folder": str(tmp_path / "recipe" / "2026-01-31_12-34-56"),
    }  # fmt: skip
    ran_on = dict(rows(text, "<h2>Environment</h2>"))
    assert ran_on["command"] == "segreg run &#39;a b.yaml&#39;"
    assert (ran_on["commit"], ran_on["plugins"]) == ("abc", "x (segreg-x 7.1)")


def test_images_go_from_the_worst_and_the_best_with_their_scores(tmp_path):
    shown = {"worst": ["a"], "best": ["d"], "random": ["c"]}
    page = read(made_up(tmp_path, ids=["a", "b", "c", "d"], overlays=shown))
    captions = [caption for caption in page.all("figcaption") if "from the worst" in caption]
    assert captions == [
        "a iou 0.2000, accuracy 0.5000; 1 of 4 from the worst",
        "d iou 0.5000, accuracy 0.5000; 4 of 4 from the worst",
        "c iou 0.4000, accuracy 0.5000; 3 of 4 from the worst",
        "b iou 0.3000, accuracy undefined; 2 of 4 from the worst",
    ]
    assert page.all("h3")[-4:] == [
        "Worst", "Best", "Sampled at random from the others, with seed 5", "Others, from the worst to the best",
    ]  # fmt: skip


def test_the_worst_are_the_highest_of_a_score_that_is_better_low(tmp_path):
    page = read(made_up(tmp_path, higher_is_better={"iou": False}))
    assert [text.split("; ")[-1] for text in page.all("figcaption") if "from the worst" in text] == [
        "3 of 3 from the worst", "2 of 3 from the worst", "1 of 3 from the worst",
    ]  # fmt: skip
    assert "all 3 images with the highest iou first" in page.text


def test_a_run_knows_which_images_were_sampled_at_random(tmp_path):
    with small_runs.encoder():
        run = small_runs.run(tmp_path, "train.epochs=1", "evaluate.overlays=3")
        page = read(run.directory, run.recipe)
    captions = [caption.split()[0] for caption in page.all("figcaption") if "from the worst" in caption]
    assert captions == [*run.results["overlays"]["worst"], *run.results["overlays"]["best"],
                        *run.results["overlays"]["random"]]  # fmt: skip
    assert "Sampled at random from the others, with seed 3" in page.all("h3")


def test_an_image_whose_file_name_fits_two_ids_is_given_no_scores(tmp_path):
    captions = read(made_up(tmp_path, ids=["a b", "a+b"])).all("figcaption")
    assert "a_b" in captions
    assert not any("from the worst" in caption for caption in captions)


def test_of_many_overlays_some_of_each_kind_are_embedded(tmp_path):
    ids = [f"p{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(60)]
    shown = {"worst": ids[:20], "best": ids[:39:-1], "random": ids[20:40]}
    page = read(made_up(tmp_path, ids=ids, overlays=shown))
    assert len(page.attributes("img")) == 24 + 1
    assert "24 of 60; overlays/ has all." in page.text
    captions = [text.split()[0] for text in page.all("figcaption") if "from the worst" in text]
    assert captions == [*ids[:8], *ids[:51:-1], *ids[20:28]]


def test_diagrams_are_shown_where_the_run_has_them(tmp_path):
    directory = made_up(tmp_path)
    assert "Diagrams" not in read(directory).all("h2")
    for name in ("confusion.png", "roc_pr_curves.png", "reliability.png"):
        png(directory.path / name)
    page = read(directory)
    assert "Diagrams" in page.all("h2")
    assert len(page.attributes("img")) == 1 + 3 + 3


# evaluations


def evaluated(directory, name, **changes):
    """Write what an evaluation leaves into the folder of a run."""
    folder = directory.path / "evaluations" / name
    folder.mkdir(parents=True)
    values = {"iou.pooled": 0.61, "iou.per_image_mean": 0.62, "iou.class.ground": 0.63, "best_threshold.pooled": 0.37}
    reported = {
        "recipe": "some.yaml", "data_recipe": "some.yaml", "weights": "best", "notice": "", "dataset": "folder",
        "classes": ["ground", "car"], "images": {"val": 7}, "scored_on": "val", "resolution": "original",
        "threshold": 0.37, "threshold_is": "the best on the validation split", "metrics": {"val": values},
        "intervals": {"val": {"iou.pooled": [0.58, 0.64]}}, "definitions": {name: f"{name}, here." for name in values},
        "as": {}, **changes,
    }  # fmt: skip
    write_json(folder / "metrics.json", reported)
    return folder


def test_every_evaluation_of_the_run_is_shown(tmp_path):
    directory = made_up(tmp_path)
    assert "Evaluations" not in read(directory).all("h2")
    folder = evaluated(directory, "val_original_threshold-best")
    for name in ("confusion.png", "worst/01_a.png", "worst/02_b.png", "best/01_c.png"):
        png(folder / name)
    evaluated(
        directory, "all", data_recipe="other.yaml", images={"all": 9}, scored_on="all", threshold=None,
        resolution="input", weights="last", metrics={"all": {"iou.pooled": 0.5}}, intervals={},
        notice="SYNTHETIC IMAGES: drawn",
        **{"as": {"smp": {"values": {"iou_score": 0.4321}, "how": "micro, by the sums.", "digits": 4}}},
    )  # fmt: skip
    (directory.path / "evaluations" / "begun").mkdir()
    text = write_report(directory, None).read_text()
    page = Page(text)
    assert page.all("h2")[-4:-2] == ["Evaluations", "Training"]
    assert page.all("article")[0].startswith("allSYNTHETIC IMAGES: drawn")
    first, second = text.split("<article>")[1:]
    assert dict(rows(first, "SYNTHETIC")) == {
        "data": "folder, all: 9 images, of other.yaml", "resolution": "input: masks at the network&#39;s input size",
        "weights": "of the last epoch",
    }  # fmt: skip
    assert rows(first, "as smp would print it") == [["iou_score", "0.4321"]]
    assert "micro, by the sums." in first
    assert dict(rows(second, "threshold-best</h3>")) == {
        "data": "folder, val: 7 images; this split chose the checkpoint, so its scores are optimistic",
        "resolution": "original: each image&#39;s own",
        "threshold": "0.37, the best on the validation split", "weights": "of the best epoch",
    }  # fmt: skip
    after = second.split("</table>", 1)[1]
    assert rows(after, "<table>") == [["iou", "0.6100 [0.5800, 0.6400]", "0.6200"], ["best_threshold", "0.3700", "-"]]
    assert rows(second, "each class") == [["ground", "0.6300"]]
    assert second.partition("</article>")[0].count("<img") == 1 + 3
    assert "iou.class.ground, here." in second


def test_an_evaluation_of_a_run_is_in_its_report_when_that_is_written_again(finished, tmp_path, segreg):
    run = tmp_path / "run"
    shutil.copytree(finished.directory.path, run)
    assert segreg("evaluate", run, "--split", "val", "--as", "smp", "--quiet").status == 0
    assert segreg("report", run).status == 0
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    (article,) = page.all("article")
    assert article.startswith("val")
    reported = json.loads((run / "evaluations" / "val" / "metrics.json").read_text())
    for value in (*reported["metrics"]["val"].values(), *reported["as"]["smp"]["values"].values()):
        assert f"{value:.4f}" in article
    assert "confusion.png" in {file.name for file in (run / "evaluations" / "val").iterdir()}
    assert "Confusion matrix" in article
    assert "of the best epoch" in article
    assert "by now" not in article
    tensors, notes = read_weights(run / "best.safetensors")
    save_weights(tensors, run / "best.safetensors", notes={**notes, "epoch": 9})
    assert segreg("report", run).status == 0
    (article,) = Page((run / "report.html").read_text(encoding="utf-8")).all("article")
    assert f"of the best epoch at that time, {notes['epoch']}, which is 9 by now" in article
    (run / "best.safetensors").write_bytes(b"damaged")
    assert segreg("report", run).status == 0


# what must not be overlooked


def test_synthetic_images_and_random_weights_have_banners_twice(tmp_path):
    page = read(made_up(tmp_path, notice="SYNTHETIC IMAGES: drawn", weights="RANDOM weights: no network"))
    assert page.all("banner") == ["SYNTHETIC IMAGES: drawn", "RANDOM weights: no network"] * 2
    assert page.all("title")[0].startswith("SYNTHETIC IMAGES - RANDOM weights - ")
    (tmp_path / "real").mkdir()
    assert read(made_up(tmp_path / "real")).all("banner") == []


def test_runs_without_an_end_are_reported_as_far_as_they_got(tmp_path):
    directory = made_up(tmp_path, stopped_because="interrupted", metrics={}, definitions={}, scored_on=None)
    curves = read(directory).attributes("img")  # and no diagrams, overlays and images' scores of an earlier end
    directory.per_image.unlink()
    page = read(directory)
    assert page.all("banner") == ["INTERRUPTED after 2 epochs: nothing was scored"] * 2
    assert page.attributes("img") == curves
    assert len(curves) == 1
    write_json(directory.results, {**json.loads(directory.results.read_text()), "epochs": 1})
    assert read(directory).all("banner") == ["NOT FINISHED: the scores are of 1 epoch; 2 are trained"] * 2
    directory.results.unlink()
    environment = json.loads(directory.environment.read_text())
    write_json(directory.environment, {**environment, "model": {"encoder": {"weights": "random: none were had"}}})
    page = read(directory)
    assert page.all("banner") == ["random: none were had", "NOT FINISHED: there are no results yet, after 2 epochs"] * 2
    for file in (
        directory.environment,
        directory.curves,
        directory.path / "history.jsonl",
        *directory.overlays.iterdir(),
    ):
        file.unlink()
    assert "No epoch has finished yet." in read(directory).text


# nothing outside it, nothing that breaks it


def hostile(tmp_path):
    recipe_like = {"recipe": EVIL, "dataset": EVIL, "notice": EVIL, "weights": EVIL, "monitor": EVIL}
    values = {f"iou.class.{EVIL}": 0.5, f"{EVIL}.pooled": 0.5, EVIL: 0.1}
    directory = made_up(
        tmp_path, classes=[EVIL, "b"], ids=[EVIL, "b"], **recipe_like, images={EVIL: 3, "test": 2},
        metrics={"test": values}, definitions=dict.fromkeys(values, EVIL), stopped_because=EVIL, resolution=EVIL,
    )  # fmt: skip
    environment = json.loads(directory.environment.read_text())
    plugin = dict.fromkeys(("name", "distribution", "version", "error"), EVIL)
    model = {"parameters": {EVIL: 3}, "encoder": {EVIL: [EVIL]}}
    changed = {
        "command": [EVIL], "commit": EVIL, "plugins": [plugin], "packages": {EVIL: EVIL}, "initial_weights": EVIL,
        "device": {"name": EVIL, EVIL: EVIL}, "model": model,
    }  # fmt: skip
    write_json(directory.environment, {**environment, **changed})
    directory.resolved.write_text(f"# {EVIL}\n")
    (directory.path / "history.jsonl").write_text(json.dumps({"epoch": 1, EVIL: 1.0}) + "\n")
    return directory


def test_names_from_outside_are_text_and_never_markup(tmp_path):
    text = write_report(hostile(tmp_path), None).read_text()
    page = Page(text)
    assert text.count("<script") == 1
    assert text.count("</script") == 1
    assert "alert(&#39;x&#39;)" in text
    assert page.text.count(EVIL) > 25
    assert page.all("banner")[0] == EVIL
    assert EVIL in page.all("dd")
    assert [a for _, attributes in page.tags for a in attributes if a.startswith("on")] == []


def test_hostile_settings_of_a_recipe_are_text_too(finished, tmp_path):
    choice = dataclasses.replace(finished.recipe.dataset, distribution=EVIL)
    page = read(finished.directory, dataclasses.replace(finished.recipe, dataset=choice), tmp_path / "r.html")
    assert len(page.attributes("script")) == 1
    assert any("<script>alert(" in marked for marked in page.all("mark"))


@pytest.mark.parametrize("make", [made_up, hostile])
def test_it_refers_to_nothing_outside_itself(make, tmp_path):
    directory = make(tmp_path)
    png(directory.path / "confusion.png")
    text = write_report(directory, None).read_text()
    page = Page(text)
    ids = {attributes.get("id") for _, attributes in page.tags}
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "video", "audio", "source")
        for name in {"src", "href", "srcset", "action", "background", "poster", "xlink:href"} & attributes.keys():
            if tag == "use":
                assert attributes[name][1:] in ids
            elif tag == "img":
                assert attributes[name].startswith("data:image/")
            else:
                assert (tag, name) == ("a", "href")
                assert attributes[name][0] == "#"
                assert attributes[name][1:] in ids
    (style,) = [data for tag, data in page.texts if tag == "style"]
    assert not re.search(r"url\(|@import|@font-face|http", style)
    assert set(re.findall(r"url\(([^)]*)\)", text.replace("&quot;", ""))) <= {f"#{name}" for name in ids}
    (script,) = [data for tag, data in page.texts if tag == "script"]
    assert not re.search(r"fetch|XMLHttp|import|http|innerHTML|eval", script)
    (policy,) = [a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy


def test_without_a_script_everything_is_there(tmp_path):
    """The script sorts tables and makes nothing."""
    text = write_report(made_up(tmp_path), None).read_text()
    assert "hidden" not in re.sub(r"<(style|script).*?</\1>", "", text, flags=re.DOTALL)


# its pieces


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.12345, "0.1235"), (0, "0"), (0.0, "0.0000"), (3, "3"), (1e-5, "1e-05"), (123456.0, "1.235e+05"),
     (None, "undefined"), (math.nan, "undefined"), (math.inf, "inf"), (-0.5, "-0.5000")],
)  # fmt: skip
def test_numbers(value, words):
    assert number(value) == words


def test_histograms_count_as_numpy_does():
    values = np.random.default_rng(1).beta(4, 2, 300).tolist()
    about, chart = histogram("dice", [*values, math.nan])
    counts, edges = np.histogram(values, bins=20, range=(0, 1))
    titles = re.findall(r"<title>([\d.]+) to [\d.]+: (\d+)</title>", chart)
    shown = {float(start): int(count) for start, count in titles}
    assert shown == {round(float(edge), 3): count for edge, count in zip(edges, counts, strict=False) if count}
    assert about == f"mean {np.mean(values):.4f}, median {np.median(values):.4f}, 300 images, 1 undefined"


def test_histograms_of_nothing_of_one_value_and_of_other_ranges():
    assert histogram("x", [math.nan, math.nan]) == ("2 undefined", "")
    assert re.findall(r"<title>.*?: (\d+)</title>", histogram("x", [7.0, 7.0])[1]) == ["2"]
    alike = re.findall(r"<title>.*?: (\d+)</title>", histogram("x", [7.0, 7.000000000000001])[1])
    assert sum(map(int, alike)) == 2
    counted = re.findall(r"<title>.*?: (\d+)</title>", histogram("x", [-5.0, 10.0, 15.0])[1])
    assert counted == ["1", "1", "1"]


def embedded(html):
    kind, data = re.search(r'src="data:image/(\w+);base64,([^"]+)"', html).groups()
    return kind, base64.b64decode(data)


def test_small_images_are_embedded_as_they_are(tmp_path):
    png(tmp_path / "a.png")
    shown = embed(tmp_path / "a.png", "<a>")
    assert embedded(shown) == ("png", (tmp_path / "a.png").read_bytes())
    assert 'alt="&lt;a&gt;" width="64" height="48"' in shown


def test_large_images_are_made_smaller(tmp_path):
    png(tmp_path / "a.png", (2400, 800), noise=True)
    kind, data = embedded(embed(tmp_path / "a.png", ""))
    opened = Image.open(io.BytesIO(data))
    assert (kind, opened.format, opened.size) == ("jpeg", "JPEG", (1600, 533))
    assert len(data) < (tmp_path / "a.png").stat().st_size / 3
    png(tmp_path / "wide.png", (3200, 800))
    kind, data = embedded(embed(tmp_path / "wide.png", ""))
    assert (kind, Image.open(io.BytesIO(data)).size) == ("png", (1600, 400))


def test_a_broken_image_is_a_note_and_the_rest_is_there(tmp_path):
    directory = made_up(tmp_path)
    directory.curves.write_bytes(b"no image")
    page = read(directory)
    assert "curves.png can't be shown: " in page.text
    assert page.all("h2")[-1] == "Environment"


def test_a_report_that_cannot_be_written(tmp_path):
    directory = made_up(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SegregError, match=r"the report .*file/r\.html can't be written: "):
        write_report(directory, None, tmp_path / "file" / "r.html")


def test_an_image_too_large_for_a_page_stays_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("segreg.reports.render._MAX_PIXELS", 3000)
    png(tmp_path / "confusion.png")
    assert "confusion.png can't be shown: it has 64 x 48 pixels" in embed(tmp_path / "confusion.png", "a matrix")
    with mock.patch("PIL.Image.open", side_effect=MemoryError):
        assert "can't be shown: MemoryError" in embed(tmp_path / "confusion.png", "a matrix")
