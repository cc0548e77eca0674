"""The page of a comparison: everything of it is told, nothing on it can break it, and what is drawn is drawn right."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import itertools
import math
import random
import re
from functools import cache
from importlib.resources import files
from xml.etree import ElementTree as ET

import pytest
from markupsafe import escape
from matplotlib.backends.backend_agg import FigureCanvasAgg

import planted_comparison as planted
from segreg.benchmark.comparison.record import Difference, Value
from segreg.benchmark.cost.record import Cost
from segreg.errors import SegregError
from segreg.reports.charts import Chart, is_log, pareto_front, style
from segreg.reports.comparison import page, score_column, write_comparison
from segreg.reports.render import cut, short

EVIL = "<script>alert('x')</script>\"&]]>"
UNDEFINED = Value(math.nan, None, None, (math.nan, math.nan))


def changed(compared, place, **changes):
    models = list(compared.models)
    models[place] = dataclasses.replace(models[place], **changes)
    return dataclasses.replace(compared, models=tuple(models))


def only(*parts, count=3, **changes):
    """Return a comparison whose models have scores, and of costs, curves and values of images those that are named."""
    models = []
    for one in map(planted.model, range(count)):
        left_out = {name: () for name in ("curves", "per_image") if name not in parts}
        costs = {name: cost for name, cost in one.costs.items() if name in parts}
        models.append(dataclasses.replace(one, costs=costs, **left_out))
    return planted.comparison(models=tuple(models), **changes)


@cache
def page_of_three():
    """Return the page of a comparison that has everything."""
    return page(planted.comparison(3))


def drawings(text):
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def section(text, heading):
    return text.partition(f">{heading}</h2>")[2].partition("</section>")[0]


def rows(text, heading, table=0):
    """Return the words of each cell of a section's table, row by row."""
    body = re.findall("<tbody>(.*?)</tbody>", section(text, heading), re.DOTALL)[table]
    return [[words(found) for found in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
            for row in re.findall("<tr.*?</tr>", body, re.DOTALL)]  # fmt: skip


def words(piece):
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", piece)).split())


# what the page tells


def test_every_number_of_a_model_is_in_its_row():
    found = rows(page_of_three(), "Models")
    assert found[0] == [
        "encoder0, dice_bce", "1 1 to 2", "50%", "0.9000 [0.8800, 0.9200]", "+0.0200 [+0.0100, +0.0300]",
        "0.0200 not significant", "0.9100 [0.8900, 0.9300]", "0.8000", "90 M", "40 37 to 42", "0.025 0.0238 to 0.03",
    ]  # fmt: skip
    assert found[1][:6] == [
        "encoder1, dice_bce baseline",
        "2 1 to 3",
        "25%",
        "0.8800 [0.8600, 0.9000]",
        "baseline",
        "-",
    ]
    assert found[2][4] == "\u22120.0200 [\u22120.0300, \u22120.0100]"


@pytest.mark.parametrize(
    ("mean", "higher", "word"),
    [(0.1, True, "better"), (0.1, False, "worse"), (-0.1, True, "worse"), (-0.1, False, "better")],
)
def test_significant_differences_are_marked(mean, higher, word):
    apart = Difference(mean, mean - 0.01, mean + 0.01, 0.001, 0.002, significant=True)
    text = page(changed(only(count=2, higher_is_better=higher), 0, difference=apart))
    assert rows(text, "Models")[0][5] == f"0.0020 {word}"
    assert f'class="mark {word}"' in text


def test_the_header_has_what_is_compared():
    compared = only(notices=("DRAWN IMAGES: not real",), waiting=2)
    text = page(compared)
    assert [words(found) for found in re.findall('<div class="banner".*?</div>', text)] == [
        "NOT FINISHED: 2 planned runs are still to come", "DRAWN IMAGES: not real",
    ]  # fmt: skip
    head = words(text.partition("<header>")[2].partition("</header>")[0])
    for sentence in (*compared.verdict, "dice.per_image_mean , higher is better. Dice of each image, averaged.",
                     "images 60, the same for all models", "seeds 2 per model: 0, 1", "classes wall, cell",
                     "baseline encoder1, dice_bce"):  # fmt: skip
        assert sentence in head
    fewer = page(changed(only(count=2, waiting=1), 0, seeds=(4,)))
    assert "1 to 2 per model, not the same for all; see Runs" in fewer
    assert "NOT FINISHED: 1 planned run is still to come" in fewer


def test_failures_have_a_table_of_their_own():
    text = page(only(count=2, failures=(planted.failure(),)))
    assert "Runs that failed (1)" in text
    assert rows(text, "Models", 1) == [["encoder9, dice_bce", "1", "out of memory", "runs/9"]]
    assert "--again runs what failed anew" in text
    assert "Runs that failed" not in page_of_three()


def test_definitions_method_and_directories():
    text = page_of_three()
    reported = section(text, "What each number is")
    for name in (planted.METRIC, "dice.pooled", "iou.class.cell", *planted.COSTS):
        assert f"<dt>{name}</dt>" in reported
    assert "<dt>parameters</dt><dd>Trainable weights.</dd>" in reported
    assert "<li>Intervals: 2000 resamples.</li>" in reported
    assert rows(text, "Runs")[0] == [
        "encoder0, dice_bce", "encoder0", "dice_bce", "0, 1", "runs/encoder0/seed0 runs/encoder0/seed1",
    ]  # fmt: skip


def test_the_best_of_each_class_is_marked():
    compared = only()
    text = page(compared)
    assert [row[0] for row in rows(text, "Classes")] == ["wall", "cell"]  # the task's order, not the alphabet's
    marked = re.findall(r'<td class="number plain winner"[^>]*><b>([\d.]+)', section(text, "Classes"))
    assert marked == ["0.9000", "0.9100"]  # of dice; nobody has said which way iou is better
    lower = page(dataclasses.replace(compared, higher_is_better=False))
    assert re.findall(r'winner"[^>]*><b>([\d.]+)', lower) == ["0.8600", "0.8100"]
    assert 'winner"' not in page(only(count=1)).partition("</style>")[2]


def test_single_images_against_the_baseline():
    reported = {0: (0.2, 0.9, math.nan, 0.5), 1: (0.4, 0.5, 0.5, 0.5), 2: (1.0, math.nan, 0.1, 0.5)}
    compared = only("per_image", images=("a", "b", "c", "d"))
    for place, values in reported.items():
        compared = changed(compared, place, per_image=values)
    whole = page(compared)
    text = section(whole, "Single images")
    assert text.count("better in 1, worse in 1, equal in 1 images, undefined in 1") == 2
    assert "<title>a: 0.4000, 0.2000</title>" in text
    assert len(re.findall(r"<title>[abcd]: ", text)) == 6
    assert compared.widest() == [(0, 0.8), (1, pytest.approx(0.4)), (2, pytest.approx(0.4)), (3, 0.0)]
    assert rows(whole, "Single images")[0][:2] == ["a", "0.8000"]
    lower = page(dataclasses.replace(compared, higher_is_better=False))
    assert "Below the diagonal the model is better" in lower


def test_the_table_of_images_has_the_twenty_that_differ_most():
    compared = only("per_image", count=4)
    values = [[model.per_image[place] for model in compared.models] for place in range(len(compared.images))]
    expected = sorted(range(len(values)), key=lambda place: min(values[place]) - max(values[place]))[:20]
    text = page(compared)
    found = rows(text, "Single images")
    assert [row[0] for row in found] == [compared.images[place] for place in expected]
    assert "The 20 of 60 images" in text


def test_so_many_images_that_not_all_are_plotted(monkeypatch):
    monkeypatch.setattr("segreg.reports.comparison._MAX_POINTS", 50)
    text = section(page(only("per_image")), "Single images")
    assert "One of every 3 of the 60 images is shown." in text
    assert len(re.findall(r"<title>image_\d+: ", text)) == 2 * 20


def test_images_on_which_models_disagree():
    compared = only()
    text = page(compared, [planted.disagreement(compared), planted.disagreement(compared, "b/1", truth=False)])
    assert re.findall("<h2>(.*?)</h2>", text)[-3:] == ["Where the models disagree", "What each number is", "Runs"]
    reported = section(text, "Where the models disagree")
    assert [words(found) for found in re.findall("<figcaption>.*?</figcaption>", reported)] == [
        "image", "truth", "encoder0, dice_bce 0.5000", "encoder1, dice_bce 0.5100", "encoder2, dice_bce 0.5200",
        "image and truth", "encoder0, dice_bce 0.5000", "encoder1, dice_bce 0.5100", "encoder2, dice_bce 0.5200",
    ]  # fmt: skip
    assert reported.count('src="data:image/png;base64,') == 9
    broken = dataclasses.replace(planted.disagreement(compared), image=b"no image")
    assert "an image can't be shown: cannot identify image file" in page(compared, [broken])


# what must not break it


SHAPES = {
    "none": planted.comparison(0, images=(), verdict=()),
    "one": only("latency_p50_ms", "curves", "per_image", count=1),
    "two": planted.comparison(2),
    "many": only("latency_p50_ms", count=25),  # some of their names have no place beside their points
    "no costs": only("curves", "per_image"),
    "bare": planted.comparison(models=tuple(
        planted.model(place, costs={}, curves=(), per_image=(), rank=None, difference=None) for place in range(2)
    )),
    "undefined": planted.comparison(models=tuple(
        planted.model(place, values={planted.METRIC: UNDEFINED}, per_image=(math.nan,) * 60,
                      difference=Difference(*[math.nan] * 5, significant=False),
                      curves=({"train.loss": [math.nan, math.inf], "val.loss": []},) * 2,
                      costs={"a": Cost(math.nan, math.nan, math.nan, "s")}) for place in range(3)
    )),
    "no scores": planted.comparison(models=tuple(planted.model(place, values={}) for place in range(2))),
    "unknown baseline": only("per_image", baseline="of another comparison"),
    "long": planted.comparison(models=tuple(
        dataclasses.replace(one, name="x" * 300 + str(place))
        for place, one in enumerate(only("latency_p50_ms", "curves", "per_image").models)
    )),
}  # fmt: skip


@cache
def page_of(kind):
    """Return the page of a comparison of that shape."""
    return page(SHAPES[kind])


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_gives_a_page_with_drawings_that_are_xml(kind):
    compared, text = SHAPES[kind], page_of(kind)
    for drawing in drawings(text):
        for part in drawing.iter():
            for name, value in part.attrib.items():
                if name not in ("data-model", "aria-label"):
                    assert "nan" not in value
                    assert "inf" not in value.replace("interval", "")
    body = text.partition("</style>")[2].partition("<script>")[0]
    for tag in ("table", "tr", "td", "th", "div", "figure", "section", "svg", "g"):
        assert len(re.findall(rf"<{tag}[ >]", body)) == body.count(f"</{tag}>"), tag
    for model in compared.models:
        assert str(escape(model.name)) in text


def test_what_is_not_there_has_no_section():
    bare = page_of("bare")
    assert re.findall("<h2>(.*?)</h2>", bare) == ["Models", "Intervals", "Classes", "What each number is", "Runs"]
    assert "rank" not in words(re.findall("<thead>.*?</thead>", bare)[0])
    assert re.findall("<h2>(.*?)</h2>", page_of("undefined")) == ["Models", "What each number is", "Runs"]
    assert "No model has been scored." in page_of("none")
    assert re.findall("<h2>(.*?)</h2>", page_of("two")) == [
        "Models", "Intervals", "Quality against cost", "Learning curves", "Classes", "Single images",
        "What each number is", "Runs",
    ]  # fmt: skip


def test_undefined_values_are_named_and_sorted_last():
    compared = changed(only(), 2, values={planted.METRIC: UNDEFINED})
    text = page(compared)
    assert rows(text, "Models")[2][3] == "undefined"
    cells = re.findall(r'<td class="number"[^>]*>undefined', text)
    assert cells
    assert all('data-value=""' in cell for cell in cells)
    assert "Without a score: encoder2, dice_bce." in section(text, "Intervals")


def test_names_from_users_are_only_text():
    models = tuple(
        planted.model(
            place, name=f"{EVIL}{place}", settings={EVIL: EVIL}, runs=(EVIL, EVIL),
            values={EVIL: planted.scored(0.5), f"dice.class.{EVIL}": planted.scored(0.5), planted.METRIC:
                    planted.scored(0.4)},
            costs={EVIL: Cost(1.0 + place, 1.0, 3.0, EVIL)},
        )
        for place in range(2)
    )  # fmt: skip
    compared = planted.comparison(
        models=models, title=EVIL, classes=(EVIL,), images=tuple(f"{EVIL}{n}" for n in range(60)), verdict=(EVIL,),
        notices=(EVIL,), method=(EVIL,), definitions={EVIL: EVIL, planted.METRIC: EVIL},
        failures=(planted.failure(name=EVIL, reason=EVIL, run=EVIL),),
    )  # fmt: skip
    text = page(compared, [planted.disagreement(compared, EVIL)])
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    assert html.unescape(text).count(EVIL) > 100
    assert drawings(text)


def test_control_characters_of_names_are_shown_as_escapes():
    text = page(changed(only("parameters", count=2), 0, name="a\x01\x1b[2J caf\udce9"))
    drawn = [text for drawing in drawings(text) for text in drawing.itertext()]
    assert any("a\\x01\\x1b[2J caf\\udce9" in text for text in drawn)


def test_nothing_is_fetched_and_only_the_page_s_own_script_runs():
    text = page_of_three()
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.unescape(re.search('Content-Security-Policy" content="(.*?)"', text)[1])
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert "select.costs" in script
    assert "table.sortable" in script
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\((?!#)|@import""", text)


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    compared = only(count=2)
    write_comparison(compared, tmp_path / "new", [planted.disagreement(compared)])
    text = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert text == page(compared, [planted.disagreement(compared)])
    (tmp_path / "file").write_text("")
    with pytest.raises(SegregError) as caught:
        write_comparison(compared, tmp_path / "file")
    assert str(caught.value) == f"could not create the folder {tmp_path}/file: File exists"
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    with pytest.raises(SegregError) as caught:
        write_comparison(compared, tmp_path / "taken")
    assert str(caught.value).startswith(f"{tmp_path}/taken/report.html: can't be written: it is a folder")


# what is drawn


def dominates(one, other, high_quality, high_cost):
    quality = (one[0] - other[0]) * (1 if high_quality else -1)
    cheapness = (other[1] - one[1]) * (-1 if high_cost else 1)
    return quality >= 0 and cheapness >= 0 and (quality > 0 or cheapness > 0)


@pytest.mark.parametrize(("high_quality", "high_cost"), list(itertools.product([True, False], repeat=2)))
def test_the_front_is_what_nothing_dominates(high_quality, high_cost):
    drawn = random.Random(0)
    for _ in range(300):
        # Few different values, so that ties of one and of both are frequent.
        offers = [(drawn.choice([1, 2, 3, 4, math.nan]), drawn.choice([1, 2, 3, 4, math.inf]))
                  for _ in range(drawn.randrange(9))]  # fmt: skip
        known = [place for place, offer in enumerate(offers) if all(map(math.isfinite, offer))]
        expected = [
            place for place in known
            if not any(dominates(offers[other], offers[place], high_quality, high_cost) for other in known)
        ]  # fmt: skip
        found = pareto_front(offers, high_quality=high_quality, high_cost=high_cost)
        assert sorted(found) == expected
        costs = [offers[place][1] for place in found]
        assert costs == sorted(costs, reverse=high_cost)


def tradeoff(text, cost):
    return re.search(f'<figure class="tradeoff" data-cost="{re.escape(cost)}".*?</figure>', text, re.DOTALL)[0]


def test_each_cost_has_a_drawing_and_the_first_is_shown():
    text = page(only(*planted.COSTS, count=6))
    assert re.findall(r'<option value="(.*?)">(.*?)</option>', text) == [
        ("parameters", "parameters"), ("training_images_per_second", "training_images_per_second (images/s)"),
        ("latency_p50_ms", "latency_p50_ms (s)"),
    ]  # fmt: skip
    figures = {cost: tradeoff(text, cost) for cost in planted.COSTS}
    assert [f'data-cost="{cost}" hidden>' in figure for cost, figure in figures.items()] == [False, True, True]
    assert '<label class="choice" hidden>' in text  # nobody can choose without script
    # Every third model is slow for its score; fast is good by images a second and short by seconds.
    front = "On the front: encoder4, dice_bce; encoder3, dice_bce; encoder1, dice_bce; encoder0, dice_bce."
    assert front in figures["training_images_per_second"]
    assert front in figures["latency_p50_ms"]
    dominated = re.findall(r'<g class="dominated" data-model="(\d)"', figures["latency_p50_ms"])
    assert dominated.count("2") == dominated.count("5") == 4  # a marker, two bars and a name
    assert figures["latency_p50_ms"].count(", dominated") == 2 * 3
    assert "training_images_per_second (images/s), higher is better" in figures["training_images_per_second"]
    assert "parameters, lower is better" in figures["parameters"]


def test_a_cost_that_spans_more_than_twenty_is_logarithmic():
    text = page(only("parameters", "training_images_per_second", count=8))
    assert "(logarithmic)" in tradeoff(text, "parameters")
    assert "(logarithmic)" not in tradeoff(text, "training_images_per_second")


@pytest.mark.parametrize("higher", [True, False])
def test_the_front_is_plotted_as_steps_through_its_models(higher):
    text = tradeoff(page(only("latency_p50_ms", count=4, higher_is_better=higher)), "latency_p50_ms")
    drawing = drawings(text)[0]
    line = next(part for part in drawing.iter("g") if part.get("class") == "front")
    corners = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line.find("path").get("d"))]
    assert all(one[0] == other[0] or one[1] == other[1] for one, other in itertools.pairwise(corners))
    on_front = [
        (float(use.get("x")), float(use.get("y")))
        for part in drawing.iter("g") if part.get("data-model") and part.get("class") != "dominated"
        for use in part.iter("use")
    ]  # fmt: skip
    assert on_front
    assert set(on_front) <= set(corners)


def test_models_without_a_cost_are_named():
    text = page(changed(only("parameters", "latency_p50_ms"), 1, costs={"parameters": Cost(1e6, 1e6, 1e6, "")}))
    assert "Without a score or without this cost: encoder1, dice_bce." in tradeoff(text, "latency_p50_ms")
    assert "Without a score" not in tradeoff(text, "parameters")


def test_the_intervals_are_where_the_axis_says():
    text = section(page_of_three(), "Intervals")
    drawing = next(svg for svg in drawings(text) if "plot" in svg.get("class"))
    ticks = {float(part.text): float(part.get("x")) for part in drawing.iter("text")
             if re.fullmatch(r"[\d.]+", part.text)}  # fmt: skip
    (low, left), (high, right) = min(ticks.items()), max(ticks.items())

    def at(value):
        return left + (right - left) * (value - low) / (high - low)

    def xs(kind, place):
        marks = [part for part in drawing.iter("g") if part.get("class") == kind
                 and part.get("data-model") == str(place)]  # fmt: skip
        uses = [float(use.get("x")) for part in marks for use in part.iter("use")]
        return uses or [float(x) for part in marks for path in part.iter("path")
                        for x in re.findall(r"[ML] ([\d.]+) ", path.get("d"))]  # fmt: skip

    for place in range(3):
        mean = 0.9 - 0.02 * place
        assert xs("interval", place)[:2] == pytest.approx([at(mean - 0.02), at(mean + 0.02)], abs=0.2)
        assert xs("ring", place) == pytest.approx([at(mean + 0.006), at(mean - 0.006)], abs=0.2)
        assert xs("marker", place) == pytest.approx([at(mean)], abs=0.2)
    baseline = next(part for part in drawing.iter("g") if part.get("class") == "baseline")
    assert float(re.search(r"M ([\d.]+) ", baseline.find("path").get("d"))[1]) == pytest.approx(at(0.88), abs=0.2)


def test_curves_have_a_line_for_each_seed():
    text = section(page_of_three(), "Learning curves")
    figures = re.findall("<figure>.*?</figure>", text, re.DOTALL)
    assert [re.search('aria-label="(.*?) over', figure)[1] for figure in figures] == [
        "train.loss", "val.loss", "val.dice.pooled",
    ]  # fmt: skip
    for figure in figures:
        assert figure.count('<g class="curve"') == 3 * 2
    assert "<title>encoder2, dice_bce, seed 1</title>" in text
    assert len(re.findall('<button type="button" class="key" data-model="[012]"', text)) == 3
    sparse = {"train.loss": [1.0, math.nan, 0.5], "val.loss": [math.nan, 0.7, math.nan]}
    alone = section(page(changed(only(count=1), 0, curves=(sparse,))), "Learning curves")
    assert alone.count('<g class="curve"') == 2
    assert alone.count("<use ") == 1  # the only value of val.loss is a dot


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["val.dice.pooled", "val.dice.per_image_mean"], "val.dice.per_image_mean"),
        (["val.dice.class.cell", "val.dice.pooled"], "val.dice.pooled"),
        (["val.dice.class.cell", "val.dice.of_cells"], "val.dice.of_cells"),
        (["val.dicey.pooled", "train.dice.pooled"], ""),
    ],
)
def test_the_curve_is_that_of_the_compared_metric(columns, found):
    curve = dict.fromkeys(columns, (0.5,))
    assert score_column(planted.comparison(models=(planted.model(0, curves=(curve,)),))) == found


def test_names_keep_clear_of_each_other():
    sampler = random.Random(1)
    chart = Chart(960, 500, (30, 30, 20, 30), "names")
    chart.axes.set(xlim=(0, 900), ylim=(0, 450))
    renderer = FigureCanvasAgg(chart.figure).get_renderer()
    points = [(sampler.uniform(50, 850), sampler.uniform(20, 430)) for _ in range(16)]
    boxes = [text.get_window_extent(renderer) for text in chart.names(points, ["a name of a model"] * 16, [])]
    room = chart.axes.get_window_extent(renderer)
    assert all(room.x0 <= box.x0 and box.x1 <= room.x1 + 1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    crowd = chart.names([(450.0, 225.0)] * 30, ["a name of a model"] * 30, [])
    there = [text.get_window_extent(renderer) for text in crowd if text is not None]
    assert 1 < len(there) < 30
    assert not any(one.overlaps(other) for one, other in itertools.combinations(there, 2))


def test_a_name_that_is_too_long_loses_its_middle():
    assert cut("resnet18, dice_bce", 34) == "resnet18, dice_bce"
    short_name = cut("timm/convnextv2_base.fcmae_ft_in22k, deeplabv3plus, dice_bce, lr 0.001", 34)
    assert short_name.startswith("timm/convnext")
    assert short_name.endswith("lr 0.001")
    assert "\u2026" in short_name
    assert len(short_name) <= 34


def test_an_axis_is_logarithmic_where_positive_values_span_more_than_twenty():
    assert is_log([1.0, 100.0])
    assert not is_log([0.0, 100.0])
    assert not is_log([1.0, 20.0])
    assert not is_log([])


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        (23_508_032, "23.5 M"), (999_999, "1000 k"), (9999, "9999"), (999.6, "1000"), (12_345, "12.3 k"),
        (0.000123, "0.000123"),
        (0.025, "0.025"), (3.0, "3"), (-45_000, "-45 k"), (math.nan, "undefined"), (None, "undefined"),
        (math.inf, "inf"), (2.5e12, "2.5 T"), (2.5e16, "25000 T"),
    ],
)  # fmt: skip
def test_large_numbers_are_short(value, reported):
    assert short(value) == reported


# colours


def test_every_model_up_to_24_looks_different():
    assert len({tuple(style(place).values()) for place in range(24)}) == 24
    text = page(only(count=24))
    swatches = re.findall(r'class="swatch (colour\d dash\d)".*?d="(.*?)"', text)
    assert len(set(swatches)) == 24


def linear(colour):
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def lab(rgb):
    """CIE L*a*b* of linear sRGB, for D65."""
    x = (0.4124 * rgb[0] + 0.3576 * rgb[1] + 0.1805 * rgb[2]) / 0.9505
    y = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]
    z = (0.0193 * rgb[0] + 0.1192 * rgb[1] + 0.9505 * rgb[2]) / 1.089
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (max(0.0, t) for t in (x, y, z)))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


# Machado, Oliveira and Fernandes 2009, severity 1.
SIGHT = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("block", "ground"), [(0, "#ffffff"), (1, "#14171b")], ids=["light", "dark"])
def test_colours_are_distinct_with_and_without_colour_blindness(block, ground, sight):
    style = files("segreg.reports").joinpath("templates/page.css").read_text(encoding="utf-8")
    colours = re.findall(r"--colour\d: (#\w{6})", style)[8 * block : 8 * block + 8]
    assert len(colours) == 8
    seen = [lab([sum(a * b for a, b in zip(row, linear(c), strict=True)) for row in SIGHT[sight]]) for c in colours]
    assert min(math.dist(one, other) for one, other in itertools.combinations(seen, 2)) > 25
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05 for r, g, b in map(linear, [ground, *colours])]
    assert min(max(one, light[0]) / min(one, light[0]) for one in light[1:]) >= 3  # WCAG's for graphics
