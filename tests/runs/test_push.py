"""A run goes to the hub and comes back: what is uploaded, what is left out, the card, and that it predicts the same."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import ModelCard, constants

import exported as small
import segreg as library
import tiny_runs
from segreg.errors import SegregError
from segreg.runs.card import write_card
from segreg.runs.push import pack, private_words, without_paths
from segreg.runs.sidecar import read_sidecar
from segreg.runtime.files import write_json
from segreg.training.checkpoint import read_notes

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


def noise():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_a_pushed_run_predicts_the_same_wherever_it_is_named(finished, hub, segreg, tmp_path):
    done = segreg("push", finished.directory.path, "anna/lesions", "--message", "First")
    assert done.status == 0, done.err
    assert f"{hub.url}/anna/lesions (private)" in done.out
    assert hub.private["anna/lesions"]
    commit = hub.branches["anna/lesions"]["main"]
    assert f"hf://anna/lesions@{commit}" in done.out
    assert set(hub.content("anna/lesions")) == {
        ".gitattributes", "README.md", "best.safetensors", "environment.json", "history.csv", "history.jsonl",
        "network.json", "resolved.yaml", "results.json",
    }  # fmt: skip
    run = library.load_run("hf://anna/lesions")
    assert np.array_equal(run.probabilities(noise()), finished.probabilities(noise()))
    assert run.results["metrics"] == finished.results["metrics"]
    assert run.notice.startswith("SYNTHETIC")
    assert run.history == finished.history
    assert read_sidecar(run.directory.path / "network.json")["classes"] == ["lesion"]

    reference = f"hf://anna/lesions@{commit}"
    images = tmp_path / "images"
    shutil.copytree(finished.recipe.dataset.settings["root"], images)
    assert segreg("predict", reference, images, "--out", "predicted", "--quiet").status == 0
    assert segreg("compare", reference, finished.directory.path, "--no-cost").status != 0  # scores of images stay home
    assert "--out" in segreg("report", reference).err
    assert segreg("report", reference, "--out", "report.html").status == 0
    assert segreg("cite", reference).status == 0
    refused = segreg("run", "--resume", reference)
    assert refused.status == 2
    assert "train.start_from" in refused.err


def test_a_run_on_the_hub_starts_a_training_and_is_noted_with_its_commit(finished, hub, segreg, tmp_path):
    assert segreg("push", finished.directory.path, "anna/lesions", "--samples").status == 0
    pulled = library.load_run("hf://anna/lesions")
    name = f"hf://anna/lesions@{pulled.directory.path.name}"
    assert name in repr(pulled)
    assert pulled.predictor().name == name
    compared = segreg("compare", name, finished.directory.path, "--no-cost", "--out", "compared")
    assert compared.status == 0, compared.err
    commit = hub.branches["anna/lesions"]["main"]
    begun = tiny_runs.run(tmp_path, "train.start_from=hf://anna/lesions", "train.epochs=1")
    assert begun.written.values["train"]["start_from"] == f"hf://anna/lesions@{commit}"
    assert "tensors loaded" in json.loads(begun.directory.environment.read_text())["initial_weights"]
    with pytest.raises(SegregError, match="--out"):
        library.evaluate("hf://anna/lesions", data=library.load_recipe(tmp_path / "tiny.yaml"), device="cpu")
    found = library.evaluate(
        "hf://anna/lesions", data=library.load_recipe(tmp_path / "tiny.yaml"), split="test", out="scored", device="cpu"
    )
    assert found.scores["dice.pooled"] == finished.results["metrics"]["test"]["dice.pooled"]


def test_nothing_of_the_machine_goes_along(finished, tmp_path):
    package = pack(finished, "anna/lesions", tmp_path / "packed")
    everything = b"".join(file.read_bytes() for file in package.folder.rglob("*") if file.is_file())
    for word in (str(finished.directory.path), str(tmp_path.parent), "/home/", "/tmp/"):
        assert word.encode() not in everything
    assert "path/to/root" in read_notes(package.folder / "best.safetensors")["recipe"]
    assert any("dataset.root" in each for each in package.left_out)
    assert any("split.json" in each for each in package.left_out)
    assert package.found == ()
    ids = json.loads(finished.directory.split.read_text())["train"]
    assert not any(f'"{name}"'.encode() in everything for name in ids)
    package = pack(finished, "anna/lesions", tmp_path / "with", samples=True)
    assert json.loads((package.folder / "split.json").read_text())["train"] == ids


def test_what_looks_like_the_machine_or_its_user_stops_the_push(finished, hub, segreg, tmp_path, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "mlange")
    monkeypatch.setattr("socket.gethostname", lambda: "gpu7.lab.example")
    copy = tmp_path / "run"
    shutil.copytree(finished.directory.path, copy)
    (copy / "plugins").mkdir()
    text = ["# by M.Lange", "ROOT = '/data/private/scans'", "# mlange wrote it on GPU7", "# mlange@lab.example"]
    (copy / "plugins" / "own.py").write_text("\n".join([*text, "URL = 'https://me:pw@lab'", "# 1/2, N/A, a/b"]))
    done = segreg("push", copy, "anna/lesions")
    assert done.status == 2
    assert "nothing was uploaded" in done.err
    for place in (
        'plugins/own.py:2: "/data/private/scans"',
        "plugins/own.py:3",
        "plugins/own.py:4",
        "plugins/own.py:5",
    ):
        assert place in done.err
    assert "own.py:1" not in done.err
    assert "own.py:6" not in done.err
    assert "anna/lesions" not in hub.branches
    assert not any(request.startswith("POST") for request in hub.requests)
    allowed = [word for each in ("/data/", "mlange", "gpu7", "@lab", "pw@") for word in ("--allow", each)]
    assert segreg("push", copy, "anna/lesions", *allowed).status == 0


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("root: /mnt/x/y", "/mnt/x/y"),
        (r"root: C:\\Users\\anna", r"C:\\Users\\anna"),
        ("see ~/data/a", "~/data/a"),
        ("token hf_" + "a" * 34, "hf_" + "a" * 34),
        ("TP / (TP + FP), https://example.org/a/b, iou/dice, 3/4", None),
        ("</div>, <br/>, //comment, and/or/both", None),
    ],
)
def test_paths_and_tokens_are_found_and_sentences_are_not(tmp_path, line, found):
    (tmp_path / "a.yaml").write_text(line)
    words = [problem.message for problem in private_words(tmp_path)]
    assert words == [] if found is None else found in words[0]


def test_paths_become_their_keys():
    recipe = {"dataset": {"root": "/x/y", "name": "folder"}, "split": {"lists": {"train": "C:\\a"}}, "n": [1, "~/b"]}
    cleaned, found = without_paths(recipe)
    assert cleaned == {
        "dataset": {"root": "path/to/root", "name": "folder"},
        "split": {"lists": {"train": "path/to/train"}},
        "n": [1, "path/to/n"],
    }
    assert found == ["dataset.root", "split.lists.train", "n[1]"]


def test_a_dry_run_writes_the_folder_and_shows_the_card_without_the_network(finished, segreg, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = segreg("push", finished.directory.path, "anna/lesions", "--dry-run")
    assert done.status == 0, done.err
    assert "library_name: segreg" in done.out
    assert "nothing was uploaded; everything is in hub/lesions" in done.out
    assert library.load_run("hub/lesions").results["metrics"] == finished.results["metrics"]
    again = segreg("push", finished.directory.path, "anna/lesions", "--dry-run")
    assert again.status == 2
    assert "--out" in again.err


def test_the_card_is_written_from_the_run_and_the_hub_understands_it(finished, tmp_path):
    card = ModelCard(pack(finished, "anna/lesions", tmp_path / "packed").card)
    data = card.data.to_dict()
    assert data["library_name"] == "segreg"
    assert data["pipeline_tag"] == "image-segmentation"
    assert {"segreg", "semantic-segmentation", "synthetic-data"} <= set(data["tags"])
    assert "license" not in data
    result = data["model-index"][0]["results"][0]
    assert result["dataset"] == {"name": "synthetic_lesions", "type": "synthetic_lesions", "split": "test"}
    values = {each["name"]: each["value"] for each in result["metrics"]}
    assert values["dice.pooled"] == pytest.approx(finished.results["metrics"]["test"]["dice.pooled"], abs=1e-6)
    low, high = finished.results["intervals"]["test"]["dice.pooled"]
    assert f"[{low:.4f}, {high:.4f}]" in card.text
    assert finished.results["definitions"]["dice.pooled"].split(";")[0] in card.text
    assert "> [!WARNING]\n> SYNTHETIC" in card.text
    assert 'segreg.load_run("hf://anna/lesions")' in card.text
    assert card.text.count("Not stated by the owner yet.") == 2
    assert not card.text.startswith("\n\n\n")


def test_what_the_owner_has_written_stays_when_it_is_pushed_again(finished, hub, segreg):
    assert segreg("push", finished.directory.path, "anna/lesions").status == 0
    card = hub.content("anna/lesions")["README.md"].decode()
    card = card.replace("library_name: segreg", "license: mit\nlibrary_name: segreg").replace(
        "- pytorch", "- pytorch\n- skin"
    )
    card = card.replace(
        "## Intended use\n\nNot stated by the owner yet.",
        "## Intended use\n\nFor research.\n\n### Not for\n\nPatients.",
    )
    card = card.replace("<!-- For the owner: where the images", "Drawn.\n\n<!-- For the owner: where the images")
    hub.commit("anna/lesions", {"README.md": card.encode(), "split.json": b"{}", "notes.txt": b"mine"})
    assert segreg("push", finished.directory.path, "anna/lesions").status == 0
    files = hub.content("anna/lesions")
    again = ModelCard(files["README.md"].decode())
    assert again.data.license == "mit"
    assert "skin" in again.data.tags
    assert again.text.count("For research.\n\n### Not for\n\nPatients.") == 1
    assert again.text.count("Drawn.") == 1
    assert again.text.count("## Results") == 1
    assert "split.json" not in files
    assert files["notes.txt"] == b"mine"


def test_a_public_repository_is_pushed_to_only_where_that_is_said(finished, hub, segreg):
    hub.commit("anna/open", {"a.txt": b""})
    refused = segreg("push", finished.directory.path, "anna/open")
    assert refused.status == 2
    assert "--public" in refused.err
    assert "resolved.yaml" not in hub.content("anna/open")
    done = segreg("push", finished.directory.path, "anna/open", "--public", "--revision", "v2", "--json")
    assert done.status == 0
    pushed = json.loads(done.out)
    assert pushed["public"] is True
    assert pushed["commit"] == hub.branches["anna/open"]["v2"]
    assert "resolved.yaml" in hub.content("anna/open", "v2")
    assert "resolved.yaml" not in hub.content("anna/open")
    assert segreg("push", finished.directory.path, "anna/new", "--public").status == 0
    assert not hub.private["anna/new"]


def test_without_a_token_or_rights_or_a_connection_it_says_what_to_do(finished, hub, segreg, monkeypatch):
    assert "USER/NAME" in segreg("push", finished.directory.path, "lesions").err
    refused = segreg("push", finished.directory.path, "berta/lesions")
    assert refused.status == 2
    assert "rights" in refused.err
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in segreg("push", finished.directory.path, "anna/lesions").err
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 can't be reached" in segreg("push", finished.directory.path, "anna/lesions").err


def test_a_process_of_its_own_finds_the_hub_by_hf_endpoint(finished, hub, tmp_path):
    pack(finished, "anna/lesions", tmp_path / "packed")
    hub.commit_folder("anna/lesions", tmp_path / "packed")
    code = "import segreg; print(segreg.load_run('hf://anna/lesions').results['scored_on'])"
    environment = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PATH": "", "PYTHONPATH": ":".join(sys.path),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "test", done.stderr


def test_an_exported_network_goes_to_the_hub_too(hub, segreg, tmp_path):
    with small.encoder(), small.remembered_operators():
        run = tiny_runs.run(tmp_path, "train.epochs=1", "evaluate.overlays=0", text=small.RECIPE)
        exported = library.export(run, "torch", images=2, out=tmp_path / "exported")
    assert segreg("push", exported.directory.path, "anna/small").status == 0
    assert "best.safetensors" not in hub.content("anna/small")
    assert "`network.pt2`" in hub.content("anna/small")["README.md"].decode()
    run = library.load_run("hf://anna/small")
    assert np.array_equal(run.probabilities(noise()), exported.probabilities(noise()))
    again = library.load_run("hf://anna/small/network.pt2")
    assert again.directory.path == run.directory.path
    # A path that a file holds among its bytes stops it as well.
    with (exported.directory.path / "network.pt2").open("ab") as file:
        file.write(b"\0/home/anna/scans/1.png\0")
    assert 'network.pt2:1: "/home/anna/scans/1.png"' in segreg("push", exported.directory.path, "anna/small").err


def test_a_run_from_the_hub_can_be_pushed_elsewhere(finished, hub, segreg):
    assert segreg("push", finished.directory.path, "anna/lesions").status == 0
    assert segreg("push", "hf://anna/lesions", "anna/again").status == 0
    assert hub.content("anna/again")["best.safetensors"] == hub.content("anna/lesions")["best.safetensors"]


def test_a_card_on_the_hub_that_is_damaged_is_not_replaced(finished, hub, segreg):
    hub.commit("anna/lesions", {"README.md": b"---\nlicense: [mit\n---\n"}, private=True)
    refused = segreg("push", finished.directory.path, "anna/lesions")
    assert refused.status == 2
    assert "README.md in anna/lesions" in refused.err
    assert hub.content("anna/lesions")["README.md"].startswith(b"---")


def test_odd_names_stay_in_their_cells(finished, tmp_path):
    package = pack(finished, "anna/lesions", tmp_path / "packed")
    sidecar = read_sidecar(package.folder / "network.json")
    sidecar["colours"] = {"a|b\n<script>": [1, 2, 3]}
    results = json.loads((package.folder / "results.json").read_text())
    (package.folder / "results.json").write_text(json.dumps(results | {"weights": "RANDOM weights: offline"}))
    text = write_card(library.load_run(package.folder), sidecar, "anna/lesions")
    assert "> [!WARNING]\n> RANDOM weights: offline" in text
    assert "| 0 | a\\|b &lt;script> | `#010203` |" in text


def test_scores_go_along_with_the_weights_that_they_are_of(finished, tmp_path):
    copy = shutil.copytree(finished.directory.path, tmp_path / "run")
    epochs = finished.results["epochs"]
    for best, weights in ((1, "last"), (1, "best"), (epochs, "last")):
        write_json(copy / "results.json", {**finished.results, "best_epoch": best})
        folder = tmp_path / f"{best} {weights}"
        package = pack(library.load_run(copy), "anna/lesions", folder, weights=weights, samples=True)
        scored = (best, weights) != (1, "last")
        assert bool(read_sidecar(folder / "network.json")["scores"]) == scored
        assert bool(json.loads((folder / "results.json").read_text())["metrics"]) == scored
        assert ("It has not been scored." in package.card) != scored
        assert (folder / "per_image.csv").exists() == scored
        assert (folder / "split.json").exists()


def test_a_folder_that_is_a_file_is_reported(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegregError, match="file: can't be written"):
        pack(finished, "anna/lesions", tmp_path / "file")
