"""Exported networks: what they predict beside the run that they come from, what is noted, what is refused."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import exported as tiny
import plugged
import segreg
import tiny_runs
from exported import RECIPE, SYNTHETIC, alone, folder_run
from segreg.deployment.proof import BOUNDS, Bounds, MetricDifference, Proof, problems
from segreg.errors import SegregError
from segreg.inference.predictor import InferenceConfig
from segreg.models.build import build_model
from segreg.runs.bundle import write_bundle
from segreg.runs.diff import lines, whole_run
from segreg.runs.directory import RunDirectory
from segreg.runs.export_run import ExportRequest, _calibration, _checked_out, export_run, format_export
from segreg.runs.exported_run import ExportedRun
from segreg.runs.sidecar import describe_run
from segreg.runtime.layout import Table
from segreg.runtime.progress import Quiet

pytest.importorskip("onnxruntime", reason="needs the extra `export`")


@pytest.fixture(autouse=True, scope="module")
def _encoder():
    with tiny.encoder(), tiny.remembered_operators():
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("segreg.runs.evaluate_run.plot_metrics", lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, _encoder):
    return tiny_runs.run(tmp_path_factory.mktemp("exported"), "train.epochs=4", "evaluate.overlays=0", text=RECIPE)


@pytest.fixture(scope="module")
def onnx_file(finished, tmp_path_factory):
    return segreg.export(finished, out=tmp_path_factory.mktemp("file") / "exported")


@pytest.fixture
def exported(onnx_file, tmp_path):
    """Return an export of the finished run that the test may change."""
    return segreg.load_run(shutil.copytree(onnx_file.directory.path, tmp_path / "exported"))


def same_predictions(run, exported, image):
    """Compare the probabilities of an image."""
    ours, theirs = (one.probabilities(image) for one in (run, exported))
    np.testing.assert_allclose(theirs, ours, atol=2e-4)
    np.testing.assert_array_equal(exported.predict(image), run.predict(image))


CASES = {
    "letterbox, four bands, each image by itself": (
        {"classes": 3, "channels": 4},
        ["input.resize=letterbox", "input.normalize=per_image", "loss=cross_entropy", "train.epochs=8"],
    ),
    "crops, 16 bits": ({"channels": 1, "dtype": np.uint16}, ["input.resize=crop", "input.normalize=dataset"]),
    "crops, in tiles, each image by itself": (
        {"channels": 2, "dtype": np.float32}, ["input.resize=crop", "input.normalize=per_image"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_onnx_and_bundles_predict_what_the_run_does(tmp_path, case):
    data, overrides = CASES[case]
    run = folder_run(tmp_path, *overrides, **data)
    tiles = "tiles" in case
    exported = segreg.export(run, tile=(32, 32) if tiles else None)
    proof = exported.sidecar["proof"]
    assert proof["images"] == 2
    assert proof["equal_labels"] == 1
    assert 0 < proof["largest_difference"] < 1e-3
    for one in proof["metrics"].values():
        assert one["exported"] == pytest.approx(one["trained"], abs=1e-4)
    image = tifffile.imread(sorted((tmp_path / "data" / "images").iterdir())[3]).squeeze()
    wide = np.tile(image, (2, 3, 1)[: image.ndim])[:61, :97]
    if tiles:
        run = segreg.load_run(run.directory.path)
        run = type(run)(run.directory, ("evaluate.tile=[32,32]",))
    same_predictions(run, exported, image)
    same_predictions(run, exported, wide)
    on_test = segreg.evaluate(exported)
    assert on_test.scores == pytest.approx(dict(segreg.evaluate(run, precision="float32").scores), abs=1e-4)
    if not tiles:
        bundles_predict(run, exported, {"as it is.png": image, "wide.png": wide}, tmp_path)


def bundles_predict(run, exported, photos, folder):
    """Compare the masks of a bundle of an export with the run's; its program knows nothing of segreg and PyTorch."""

    def as_it_is(run, request, progress):
        shutil.copytree(exported.directory.path, request.out)
        return segreg.load_run(request.out), None

    with mock.patch("segreg.runs.bundle.export_run", as_it_is):
        bundle, _, _ = write_bundle(run, ExportRequest(out=folder / "bundle"), Quiet())
    (folder / "photos").mkdir()
    for name, values in photos.items():
        Image.fromarray(values).save(folder / "photos" / name)
    # That there is something of both.
    threshold = float(np.median(run.probabilities(folder / "photos" / "wide.png")))
    done = alone(bundle, folder / "photos", "--out", folder / "masks", "--threshold", threshold)
    assert done.returncode == 0, done.stderr
    for name in photos:
        found = np.asarray(Image.open(folder / "masks" / name))
        several = run.task.mode == "multiclass"
        wanted = run.predict(folder / "photos" / name, threshold=None if several else threshold)
        wanted = wanted * (1 if several else 255)
        assert found.shape == wanted.shape
        assert (found != wanted).mean() < 1e-3
        assert 0 < (found > 0).mean() < 1


def test_the_command_and_labels_of_classes_that_overlap(tmp_path, plugin, installed, capsys):
    import onnx

    from segreg.cli import main

    installed(*plugged.builtin(), plugin(tiny_runs.LAYERS, distribution="segreg-layers"))
    text = RECIPE.replace(SYNTHETIC, "layers")
    run = tiny_runs.run(tmp_path, "loss=bce", "augment=[]", "input.size=[36,36]", "train.epochs=3", text=text)
    out = tmp_path / "exported"
    assert main(["export", str(run.directory.path), "--out", str(out), "--labels", "opset=20"]) == 0
    printed = capsys.readouterr().out
    assert "network.onnx" in printed
    assert "uint8 [B, 3, 36, 36] to labels" in printed
    assert "100.0000% of the labels are equal" in printed
    assert [one.version for one in onnx.load(out / "network.onnx").opset_import if not one.domain] == [20]
    exported = segreg.load_run(out)
    assert exported.sidecar["network"]["output"] == {
        "name": "output", "values": "labels", "dtype": "uint8", "shape": [None, 2, 36, 36],
    }  # fmt: skip
    image = np.zeros((36, 36, 3), np.uint8)
    image[5:15, :, 0] = 200
    np.testing.assert_array_equal(exported.predict(image), run.predict(image))
    assert 0 < exported.predict(image).mean() < 1
    with pytest.raises(SegregError, match=r"roc_auc.* need probabilities.*(?s:.*)evaluate.metrics=\[iou\]"):
        segreg.evaluate(exported, ["evaluate.metrics=[iou, roc_auc]"])
    for threshold in (0.3, "best"):
        with pytest.raises(SegregError, match=r"returns labels, of probability 0\.5 and more"):
            segreg.evaluate(exported, threshold=threshold)
    with pytest.raises(SegregError, match=r"returns labels, of probability 0\.5 and more"):
        exported.predict(image, threshold=0.3)
    np.testing.assert_array_equal(exported.predict(image, threshold=0.5), run.predict(image))
    with pytest.raises(SegregError, match="has no probabilities"):
        exported.probabilities(image)
    photo = tmp_path / "photo.png"
    Image.fromarray(image).save(photo)
    with pytest.raises(SegregError, match="has no probabilities"):
        segreg.predict(exported, photo, out=tmp_path / "predicted", kinds=["probabilities"])
    assert not (tmp_path / "predicted" / "masks").exists()
    command = ["predict", str(out / "network.onnx"), str(photo), "--out", str(tmp_path / "predicted"), "--quiet"]
    assert main(command) == 0
    (mask,) = (tmp_path / "predicted" / "masks" / "row").iterdir()
    np.testing.assert_array_equal(np.asarray(Image.open(mask)) > 0, run.predict(image)[0])


def test_a_file_explains_itself(finished, exported, tmp_path):
    import onnx
    import onnxruntime

    file = tmp_path / "exported" / "network.onnx"
    sidecar = json.loads((tmp_path / "exported" / "network.json").read_text(encoding="utf-8"))
    notes = json.loads({p.key: p.value for p in onnx.load(file).metadata_props}["segreg"])
    assert notes.items() <= (sidecar | {"network": notes["network"]}).items()
    assert sidecar["classes"] == ["lesion"]
    assert sidecar["scores"]["metrics"] == dict(finished.results["metrics"]["test"])
    assert sidecar["scores"]["intervals"]["dice.pooled"]
    assert "SYNTHETIC" in sidecar["provenance"]["notice"]
    assert len(sidecar["provenance"]["weights_sha256"]) == 64
    for name in (str(finished.directory.path), segreg.__file__, np.__file__):  # nothing of the machine that wrote it
        assert str(Path(name).parent).encode() not in file.read_bytes()
    # Any program: the image as it is, in any number.
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    logits = onnxruntime.InferenceSession(file).run(None, {"images": images})[0]
    for image, found in zip(images, logits, strict=True):
        with torch.no_grad():
            wanted = finished.model()(finished.preprocess(image.transpose(1, 2, 0)))
        np.testing.assert_allclose(found, wanted[0], atol=1e-4)
    # A run in every respect: by its folder and by its file.
    for name in (tmp_path / "exported", file, str(file)):
        assert segreg.load_run(name).made_as == exported.made_as == "onnx float32"
    for refused in (exported.model, lambda: exported.predictor(device="cuda"), lambda: segreg.export(exported)):
        with pytest.raises(SegregError, match="exported network"):
            refused()


def test_other_sizes_are_refused(exported):
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    with pytest.raises(SegregError, match=r"images of 32x32 .* this one has 16x16(?s:.*)--any-size"):
        exported.predict(image, config=InferenceConfig(scales=(0.5,)))


def test_compare_takes_an_export_that_was_evaluated(finished, exported, tmp_path):
    with pytest.raises(SegregError, match=r"no scores yet(?s:.*)segreg evaluate .*--split test"):
        segreg.compare(finished, exported)
    segreg.evaluate(exported)
    comparison = segreg.compare(finished, exported, out=tmp_path / "comparison")
    one, other = (model.values["dice.pooled"].mean for model in comparison.models)
    assert one == pytest.approx(other, abs=1e-4)
    assert ["exported as=onnx float32" in model.name for model in comparison.models].count(True) == 1
    assert not any("RANDOM" in notice for notice in comparison.notices)
    paths = finished.directory.path, exported.directory.path
    *_, last = lines(*map(whole_run, paths), (), None)
    assert last.endswith(f"an exported network, whose scores `segreg compare {paths[0]} {paths[1]}` compares")
    file = exported.directory.environment
    environment = json.loads(file.read_text(encoding="utf-8"))
    environment["model"]["encoder"]["weights"] = "RANDOM weights: none to be had"
    file.write_text(json.dumps(environment), encoding="utf-8")
    assert segreg.load_run(exported.directory.path).results["weights"] == "RANDOM weights: none to be had"


def test_a_program_of_pytorch_predicts_with_merged_changes_and_one_with_pickles_is_not_loaded(tmp_path):
    low_rank = "encoder={name: one_convolution, lora: {rank: 2, targets: [mixed]}}"
    run = tiny_runs.run(tmp_path, low_rank, "train.epochs=1", "evaluate.overlays=0", text=RECIPE)
    image = np.random.default_rng(2).integers(0, 256, (50, 70, 3), np.uint8)
    exported = segreg.export(run, "torch", out=tmp_path / "torch", any_size=True)
    same_predictions(run, exported, image)
    both = InferenceConfig(scales=(0.5, 1.3))
    np.testing.assert_array_equal(*(one.predict(image, config=both) for one in (run, exported)))
    program = torch.export.load(exported.weights_file())
    plain = segreg.build_model(tmp_path / "tiny.yaml", [low_rank, "encoder.lora=null"])
    assert sum(p.numel() for p in program.parameters()) == sum(p.numel() for p in plain.parameters())
    file = exported.weights_file()
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data.replace(b'"use_pickle": false', b'"use_pickle": true '))
    with pytest.raises(SegregError, match="pickled objects"):
        segreg.load_run(tmp_path / "torch").predict(image)


def test_openvinos_int8_costs_what_is_allowed_and_takes_any_size(finished, tmp_path):
    pytest.importorskip("nncf", reason="needs the extra `openvino`")
    exported = segreg.export(
        finished, "openvino", precision="int8", any_size=True, most_lost=0.2, calibration=6, images=3,
        out=tmp_path / "int8",
    )  # fmt: skip
    assert exported.sidecar["proof"]["equal_labels"] > 0.9
    assert "FakeQuantize" in (tmp_path / "int8" / "network.xml").read_text(encoding="utf-8")
    image = np.random.default_rng(2).integers(0, 256, (50, 70, 3), np.uint8)
    both = InferenceConfig(scales=(0.5, 1.3))
    assert (exported.predict(image, config=both) == finished.predict(image, config=both)).mean() > 0.9


WRONG = """
from segreg import Entry, hookimpl
from segreg_plugins.exporters.torch_file import TorchExporter

class Noisy(TorchExporter):
    def load(self, file, *, precision):
        run = super().load(file, precision=precision)
        return lambda images: run(images) + 1

@hookimpl
def segreg_entries():
    return [Entry("exporter", "noisy", noisy)]

def noisy():
    \"\"\"A runtime that rounds badly.\"\"\"
    return Noisy()
"""


def test_an_export_that_predicts_something_else_is_refused(finished, tmp_path, plugin, installed):
    installed(*plugged.builtin(), plugin(WRONG, distribution="segreg-noisy"))
    another = tmp_path / "exports" / ".elsewhere.7-ab.beginning"  # machine's, which exports the same
    another.mkdir(parents=True)
    with pytest.raises(SegregError, match="does not predict what the network does") as refused:
        segreg.export(finished, "noisy", out=another.with_name("noisy"))
    assert "of the pixels have another label" in str(refused.value)
    assert [*another.parent.iterdir()] == [another]


def test_what_is_out_of_bounds():
    def proof(equal, trained, exported, difference=0.1):
        metrics = {"iou.pooled": MetricDifference(trained, exported)}
        return Proof(9, "val", 1000, equal, difference, 10.0, metrics)

    assert not problems(proof(1, 0.5, 0.5), BOUNDS["float32"])
    assert not problems(proof(1, None, None), BOUNDS["float32"])
    assert problems(proof(1, 0.5, 0.49), BOUNDS["float32"]) == ["iou.pooled is 0.4900 instead of 0.5000"]
    with_interval = proof(1, 0.5, 0.49)
    with_interval.metrics["iou.pooled"] = MetricDifference(0.5, 0.49, -0.02, 0.001)
    assert problems(with_interval, BOUNDS["float32"]) == [
        "iou.pooled is 0.4900 instead of 0.5000, a difference between -0.0200 and +0.0010 with 95% confidence"
    ]
    assert problems(proof(1, 0.5, None), BOUNDS["float32"]) == ["iou.pooled is undefined instead of 0.5000"]
    assert len(problems(proof(0.9, 0.5, 0.5), BOUNDS["bf16"])) == 1
    assert not problems(proof(1, 0.5, 0.49, difference=None), BOUNDS["float32"])  # labels
    int8 = Bounds(0.05, 0.01, if_better=True)
    for direction, good, bad in ((True, 0.6, 0.4), (False, 0.4, 0.6)):
        for value, bounds, refused in ((good, int8, 0), (bad, int8, 1), (good, BOUNDS["float32"], 1)):
            found = proof(1, 0.5, value)
            found.metrics["iou.pooled"] = MetricDifference(0.5, value, higher_is_better=direction)
            assert len(problems(found, bounds)) == refused
    assert len(problems(proof(1, 0.5, 0.6), int8)) == 1  # of no known direction


def test_what_can_not_be_exported_is_refused_before_anything_is_written(finished, tmp_path, monkeypatch):
    def refused(*arguments, **named):
        with pytest.raises(SegregError) as error:
            segreg.export(finished, *arguments, out=tmp_path / "out", **named)
        assert not (tmp_path / "out").exists()
        return str(error.value)

    assert "onnx can't be written in int8" in (words := refused(precision="int8"))
    assert "--format openvino" in words
    assert "onxx" in (words := refused("onxx"))
    assert "onnx" in words
    assert "resized to 32x32" in refused(tile=(16, 16))
    assert '"opset"' in refused(settings={"opset": 3})
    assert refused(images=0) == "images must be at least 1, not 0"
    monkeypatch.setattr("segreg_plugins.exporters.builders.find_spec", lambda name: None)
    assert 'pip install "segreg-toolkit[export]"' in refused()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    monkeypatch.undo()
    with pytest.raises(SegregError, match="is there already"):
        segreg.export(finished, out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    of_the_hub = tmp_path / "models--anna--lesions" / "snapshots" / ("a" * 40) / "exports"
    for export in (segreg.export, lambda run, out: write_bundle(run, ExportRequest(out=out), Quiet())):
        with pytest.raises(SegregError, match="hub's cache"):
            export(finished, out=of_the_hub / "bundle")


def test_an_operator_that_a_format_lacks_is_named(finished, tmp_path, monkeypatch):
    class Odd(torch.nn.Module):
        size_divisor = 1

        def forward(self, images):
            return torch.fft.rfft2(images)[..., :32].abs()[:, :1].repeat(1, 1, 1, 2)[..., :32]

    monkeypatch.setattr(type(finished), "model", lambda self, weights="best": Odd())
    with pytest.raises(SegregError, match=r"ONNX can't have this network: .*"):
        segreg.export(finished, out=tmp_path / "odd")


def test_build_model_is_not_needed_to_predict(exported, monkeypatch):
    """A file predicts where the plugin of the encoder is gone."""
    monkeypatch.setattr(f"{build_model.__module__}.build_model", None)
    resolved = exported.directory.resolved
    resolved.write_text(resolved.read_text(encoding="utf-8").replace("one_convolution", "gone/net"), encoding="utf-8")
    assert segreg.load_run(exported.directory.path).predict(np.zeros((20, 20, 3), np.uint8)).shape == (20, 20)


@pytest.mark.parametrize(("best", "scored"), [(3, False), (4, True)])
def test_weights_that_were_not_scored_have_no_scores(finished, monkeypatch, best, scored):
    monkeypatch.setitem(vars(finished), "results", {**finished.results, "best_epoch": best})
    assert describe_run(finished)["scores"]["metrics"]
    assert bool(describe_run(finished, "last")["scores"]) == scored


def test_images_and_scores_for_8_bits_are_those_of_the_file(finished):
    run = type(finished)(finished.directory, ("evaluate.threshold=0.9",))
    notes = {
        "input": {"shape": [None, 3, None, None], "multiple": 48, "least": 48, "dtype": "uint8"},
        "output": {"values": "labels"},
    }
    found = _calibration(run, notes, ExportRequest(precision="int8", labels=True, calibration=3), Quiet())
    assert [image.shape for image in found.images] == [(1, 3, 48, 48)] * 3
    scores = found.score(lambda images: np.ones((1, 48, 48), np.uint8))
    assert 0 < min(scores) <= max(scores) < 1


def test_the_proof_sees_images_in_the_tiles_of_the_file_which_a_bundle_has_not(tmp_path, monkeypatch):
    run = folder_run(tmp_path, "input.resize=crop")
    monkeypatch.setattr("segreg.deployment.graph._odd_steps", lambda _: ["ceil"])
    found = []

    def kept(*given):
        found.append(export_run(*given))
        return found[-1]

    monkeypatch.setattr("segreg.runs.bundle.export_run", kept)
    with pytest.raises(SegregError, match="its network takes images of one size"):
        write_bundle(run, ExportRequest(out=tmp_path / "bundle"), Quiet())
    assert not (tmp_path / "bundle").exists()
    ((_, proof),) = found
    assert proof.equal_labels == 1
    for one in proof.metrics.values():
        assert one.exported == pytest.approx(one.trained, abs=1e-6)
        assert one.higher_is_better is True


def test_an_export_is_loaded_with_its_settings(exported, tmp_path, monkeypatch):
    file = tmp_path / "exported" / "network.json"
    notes = json.loads(file.read_text(encoding="utf-8"))
    notes["network"]["settings"] = {"opset": 19}
    notes["evaluate"]["split"] = "val"
    file.write_text(json.dumps(notes), encoding="utf-8")
    choose = mock.Mock(side_effect=SegregError("chosen"))
    monkeypatch.setattr("segreg.runs.exported_run.choose", choose)
    with pytest.raises(SegregError, match="chosen"):
        segreg.load_run(tmp_path / "exported").exported()
    assert choose.call_args.args[:3] == ("exporter", "onnx", {"opset": 19})
    with pytest.raises(SegregError, match=r"no scores yet(?s:.*)segreg evaluate .*--split val"):
        segreg.load_run(tmp_path / "exported").results  # noqa: B018


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"weights": "last"}, "which has the best epoch's weights, not the last one's"),
        ({"precision": "float32"}, "which computes in float16, not in float32"),
        ({"precision": "bf16"}, "which computes in float16, not in bf16"),
        ({"device": "cuda"}, 'which computes on the CPU, not on "cuda"'),
        ({"precision": "fp16"}, "network.onnx: is missing"),
        ({"precision": "auto"}, "network.onnx: is missing"),
    ],
)
def test_what_an_exported_network_does_not_have_is_refused(asked, says, tmp_path):
    network = {"file": "network.onnx", "format": "onnx", "precision": "float16", "output": {"values": "logits"}}
    notes = {"format": 1, "classes": ["a"], "mode": "binary", "input": {}, "evaluate": {}, "network": network}
    (tmp_path / "network.json").write_text(json.dumps({**notes, "provenance": {"weights": "best"}}), encoding="utf-8")
    with pytest.raises(SegregError, match=re.escape(says)):
        ExportedRun(RunDirectory(tmp_path)).predictor(**asked)


def test_a_metric_that_only_the_exported_network_has_is_shown(exported):
    metrics = {"iou.pooled": MetricDifference(None, 0.5), "dice.pooled": MetricDifference(0.5, 0.25, -0.5, 0.1)}
    blocks = format_export(exported, Proof(9, "val", 1000, 1.0, None, 10.0, metrics), Path("network.onnx"))
    assert [block.rows for block in blocks if isinstance(block, Table)] == [[
        ["iou.pooled", "undefined", "0.5000", "", ""],
        ["dice.pooled", "0.5000", "0.2500", "-0.2500", "[-0.5000, +0.1000]"],
    ]]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tile", "whole"], "--tile of an export is a size"),
        (["--most-lost", "0.02"], "--most-lost goes with --precision int8"),
        (["--calibration", "9", "--precision", "float16"], "--calibration goes with --precision int8"),
        (["--out", "."], '"." names no folder that can be written anew'),
        (["--out", ".", "--format", "bundle"], ". is there already, and is not a bundle"),
    ],
)
def test_mistakes(finished, tmp_path, monkeypatch, capsys, words, says):
    from segreg.cli import main

    (tmp_path / "predict.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segreg.runs.export_run.trace", lambda *_, **__: pytest.fail("exported"))
    assert main(["export", str(finished.directory.path), *words]) == 2
    assert says in capsys.readouterr().err
    assert (tmp_path / "predict.py").exists()


def test_a_folder_without_a_name_is_refused_and_a_link_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert _checked_out(tmp_path / "link") == (tmp_path / "folder").resolve()
    for out in (Path(), Path("folder", "..")):
        with pytest.raises(SegregError, match="names no folder that can be written anew"):
            _checked_out(out)


def test_an_export_has_the_scores_of_the_split_that_its_run_is_scored_on(exported):
    file = exported.directory.path / "network.json"
    assert exported.directory.per_image.parent.name == "test"
    sidecar = json.loads(file.read_text())
    sidecar["evaluate"]["split"] = "val"
    file.write_text(json.dumps(sidecar))
    assert segreg.load_run(exported.directory.path).directory.per_image.parent.name == "val"
