"""What a server answers with: `segreg predict`'s masks, regions, probabilities, overlays, for every kind of task."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import tiny_runs

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from segreg.errors import SegregError
from segreg.inference.predictor import InputImage, predict_labels, predict_probabilities, prepare_image
from segreg.serve.answers import encode, media_type
from segreg.serve.limits import Limits
from segreg.serve.worker import collect, threshold_level
from segreg.task import Task
from serving import predictor, serving

BINARY = Task(("lesion",), "binary")
MULTICLASS = Task(("background", "<b>cell</b>", "edge"), "multiclass")
MULTILABEL = Task(("cat", "dog"), "multilabel")
FORM = 'multipart/form-data; boundary="line"'


def drawn(height, width, *, seed=0, channels=3):
    """Return a smooth image of light and dark areas."""
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 5, channels), dtype=np.uint8).squeeze())
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def tiff_of(image, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, image, **options)
    return file.getvalue()


def as_form(data, name="a.png", field="image"):
    head = f'--line\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n--line--\r\n"


def pixels(data):
    return np.array(Image.open(io.BytesIO(data)))


def true_labels(one, image, **given):
    return predict_labels([one], prepare_image([one], image, Path("image")), **given)


@pytest.fixture(scope="module")
def networks():
    return {task.mode: predictor(task, name=f"a/{task.mode}") for task in (BINARY, MULTICLASS, MULTILABEL)}


@pytest.fixture(scope="module")
def client(networks):
    with serving(*networks.values(), notice="SYNTHETIC <i>images</i>") as asked:
        yield asked


def test_masks_are_those_of_segreg_predict(tmp_path, tmp_path_factory, segreg):
    run = tiny_runs.finished(tmp_path_factory)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (kind, options) in enumerate([("png", {}), ("jpg", {"quality": 80}), ("tif", {}), ("webp", {})]):
        Image.fromarray(drawn(40 + number, 60, seed=number)).save(folder / f"{number}.{kind}", **options)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(drawn(30, 50)).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(drawn(30, 50)[..., 0]).save(folder / "grey.png")
    assert segreg("predict", run.directory.path, folder, "--out", tmp_path / "out").status == 0
    with serving(run.predictor(precision="recipe")) as asked:
        for file in sorted(folder.iterdir()):
            sent = file.read_bytes()
            mask = (tmp_path / "out" / "masks" / f"{file.stem}.png").read_bytes()
            assert asked.predict(sent).body == mask
            assert asked.predict(as_form(sent, "../../x.tif"), Content_Type=FORM).body == mask


@pytest.mark.parametrize("query", ["", "&threshold=0.7"])
def test_a_mask_of_one_class_is_0_and_255(client, networks, query):
    image = drawn(30, 41)
    answer = client.predict(encoded(image), f"model=a/binary{query}")
    expected = true_labels(networks["binary"], image, threshold=0.7 if query else None)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(pixels(answer.body), expected * 255)
    stages = [stage.partition(";")[0] for stage in answer.headers["Server-Timing"].split(", ")]
    assert stages == ["read", "decode", "wait", "network", "encode"]


def test_a_mask_of_several_classes_has_their_numbers_and_one_of_a_class_255(client, networks):
    image = drawn(30, 41)
    expected = true_labels(networks["multiclass"], image)
    np.testing.assert_array_equal(pixels(client.predict(encoded(image), "model=a/multiclass").body), expected)
    edge = client.predict(encoded(image), "model=a/multiclass&class=edge")
    np.testing.assert_array_equal(pixels(edge.body), (expected == 2) * 255)


def test_classes_that_overlap_have_a_mask_each(client, networks):
    image = drawn(30, 41)
    expected = true_labels(networks["multilabel"], image)
    assert "class=" in client.predict(encoded(image), "model=a/multilabel").error
    for number, name in enumerate(MULTILABEL.classes):
        answer = client.predict(encoded(image), f"model=a/multilabel&class={name}")
        np.testing.assert_array_equal(pixels(answer.body), expected[number] * 255)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # pycocotools' own
def test_run_lengths_and_polygons_are_the_masks(client, networks, mode):
    coco = pytest.importorskip("pycocotools.mask")
    image, one = drawn(30, 41), networks[mode]
    labels = true_labels(one, image)
    masks = labels if mode == "multilabel" else [labels == n for n in range(3)] if mode == "multiclass" else [labels]
    there = {name: mask for name, mask in zip(one.task.classes, masks, strict=True) if name != "background"}
    runs = client.predict(encoded(image), f"model=a/{mode}&form=rle", Accept="application/json").json
    assert (runs["height"], runs["width"], runs.get("threshold")) == (30, 41, None if mode == "multiclass" else 0.5)
    for region in runs["regions"]:
        np.testing.assert_array_equal(coco.decode(region["segmentation"]), there[region["class"]])
    polygons = client.predict(encoded(image), f"model=a/{mode}", Accept="application/json").json["regions"]
    for name, mask in there.items():
        assert sum(region["area"] for region in polygons if region["class"] == name) == np.sum(mask)
        corners = [len(region["segmentation"][0]) for region in polygons if region["class"] == name]
        assert all(count >= 8 for count in corners)


def test_probabilities_are_a_numpy_array(client, networks):
    image, one = drawn(30, 41), networks["multiclass"]
    expected = predict_probabilities([one], prepare_image([one], image, Path("image"))).astype(np.float16)
    answer = client.predict(encoded(image), "model=a/multiclass", Accept="application/x-npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.body)), expected)
    one_class = client.predict(encoded(image), "model=a/multiclass&class=edge", Accept="application/x-npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(one_class.body)), expected[2:])


def test_an_overlay_has_the_size_of_the_image(client):
    answer = client.predict(encoded(drawn(30, 41)), "model=a/multilabel", Accept="image/jpeg")
    assert pixels(answer.body).shape == (30, 41, 3)


@pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL], ids=["multiclass", "multilabel"])
def test_an_overlay_of_one_class_shows_that_alone(task):
    labels = np.zeros((64, 41), np.uint8)
    labels[:16], labels[48:] = 1, 2
    if task is MULTILABEL:
        labels = np.stack([labels == 1, labels == 2]).astype(np.uint8)
    image = InputImage(Path("image"), (np.zeros((64, 41, 3), np.uint8),), (None,))
    for layer, rows in ((None, [True, False, True]), (len(task.classes) - 1, [False, False, True])):
        drawn = encode(
            "image/jpeg", "polygons", task=task, image=image, values=labels, threshold=0.5, layer=layer, limits=Limits()
        )
        assert (pixels(drawn)[[8, 32, 56]].max(axis=(1, 2)) > 30).tolist() == rows


def test_a_threshold_that_takes_no_part_is_refused(client):
    refused = client.predict(encoded(drawn(30, 41)), "model=a/multiclass&threshold=0.3")
    assert refused.status == 422
    assert "exclude each other" in refused.error


def test_an_image_that_a_network_refuses_is_the_clients_mistake():
    one = predictor(BINARY)

    class Refuses(type(one.model)):
        def forward(self, images):
            if images.shape[-1] == 41:
                raise SegregError("it takes images of 24x32 alone", hint="export it again")
            return super().forward(images)

    with serving(replace(one, model=Refuses(1).eval())) as asked:
        refused = asked.predict(encoded(drawn(30, 41)))
        assert (refused.status, refused.error) == (422, "the image: it takes images of 24x32 alone; export it again")
        assert asked.predict(encoded(drawn(30, 40))).status == 200


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_the_layers_of_the_page_have_the_mask(client, networks, mode):
    image = drawn(30, 41)
    expected = true_labels(networks[mode], image)
    found = client.predict(encoded(image), f"model=a/{mode}&form=layers", Accept="application/json").json
    layers = [pixels(base64.b64decode(layer)) for layer in found["layers"]]
    if mode == "multiclass":
        np.testing.assert_array_equal(layers, [expected])
    else:
        np.testing.assert_array_equal(np.array(layers) >= found["level"], expected.reshape(len(layers), 30, 41))


@pytest.mark.parametrize("threshold", [0.0, 0.25, 100 / 254, 0.4, 0.5, 0.9999, 1.0])
def test_levels_are_above_that_of_the_threshold_where_probabilities_are(threshold):
    import torch

    from segreg.inference.predictor import PredictedRows

    near = np.nextafter(np.float32(threshold), np.float32([0, 1]))
    values = np.clip(np.concatenate([near, [threshold], np.linspace(0, 1, 255)]), 0, 1).astype(np.float32)
    rows = PredictedRows(0, torch.from_numpy(values)[None, None], "probabilities", BINARY, threshold, "a.png")
    levels = collect(BINARY, (1, len(values)), [rows], "levels")[0]
    np.testing.assert_array_equal(levels >= threshold_level(threshold), rows.labels)
    assert (np.diff(levels[0][np.argsort(values)].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("text/html, application/json;q=0.5, image/jpeg;q=0.9, */*;q=0.1", "image/jpeg"),
        ("image/png;q=0, image/*;q=0.3, application/x-npy ; q=0.31", "application/x-npy"),
        ("APPLICATION/JSON", "application/json"),
    ],
)
def test_the_answer_is_what_the_client_prefers(accept, expected):
    assert media_type(accept) == expected


def test_another_answer_is_refused(client):
    refused = client.predict(b"", Accept="text/html")
    assert refused.status == 406
    assert "application/json" in refused.error


def test_models_have_their_classes_and_colours(client):
    found = {model["name"]: model for model in client.ask("GET", "/models").json}
    assert [*found] == ["a/binary", "a/multiclass", "a/multilabel"]
    binary, several = found["a/binary"], found["a/multiclass"]
    assert binary["classes"] == [{"name": "lesion", "colour": "#ff3cc8"}]
    assert (binary["threshold"], several["threshold"]) == (0.5, None)
    assert several["classes"][0] == {"name": "background", "colour": "#000000"}
    assert (several["classes"][1]["name"], several["notice"]) == ("<b>cell</b>", "SYNTHETIC <i>images</i>")


def test_the_interface_is_described(client):
    described = client.ask("GET", "/openapi.json").json
    assert set(described["paths"]) == {"/predict", "/models", "/metrics", "/livez", "/readyz"}
    predict = described["paths"]["/predict"]["post"]
    assert {parameter["name"] for parameter in predict["parameters"]} == {"model", "threshold", "class", "form"}
    assert {"multipart/form-data", "image/*"} == set(predict["requestBody"]["content"])
    assert {"200", "401", "404", "406", "408", "413", "415", "422", "503", "504"} <= set(predict["responses"])


def test_requests_are_counted_for_prometheus(networks):
    with serving(networks["binary"]) as asked:
        for body in (encoded(drawn(8, 8)), encoded(drawn(8, 9)), b"no image"):
            asked.predict(body)
        rows = dict(line.rsplit(" ", 1) for line in asked.ask("GET", "/metrics").body.decode().splitlines())
    assert (rows['segreg_requests_total{status="200"}'], rows['segreg_requests_total{status="415"}']) == ("2", "1")
    assert rows['segreg_request_seconds_bucket{le="+Inf"}'] == rows["segreg_request_seconds_count"] == "3"
    assert (rows["segreg_images_total"], rows["segreg_batches_total"]) == ("2", "2")
    assert (rows["segreg_requests_in_progress"], rows["segreg_ready"]) == ("0", "1")


def test_networks_that_return_labels_have_no_probabilities_and_no_other_threshold():
    of_labels = predictor(BINARY, name="a/labels")
    of_labels.model.returns_labels = True
    with serving(of_labels) as asked:
        (model,) = asked.ask("GET", "/models").json
        assert model["threshold"] is None
        image = encoded(drawn(30, 41))
        assert asked.predict(image).status == 200
        for answer in (asked.predict(image, "threshold=0.7"), asked.predict(image, Accept="application/x-npy")):
            assert answer.status == 422
            assert "returns labels" in answer.error
