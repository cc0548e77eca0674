"""References to the Hugging Face hub: what they name, what is fetched, what is left without a connection."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from segreg.errors import SegregError
from segreg.runtime.hub import Reference, in_cache, is_reference, local_path, pinned, refuse_to_write

FILES = {"resolved.yaml": b"seed: 1\n", "best.safetensors": b"weights", "photo.bin": b"large"}


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("hf://anna/lesions", ("anna/lesions", "", "")),
        ("hf://anna/lesions/", ("anna/lesions", "", "")),
        ("hf://anna/lesions@v2", ("anna/lesions", "v2", "")),
        ("hf://anna/lesions@refs%2Fpr%2F1/a/b.pth", ("anna/lesions", "refs/pr/1", "a/b.pth")),
        ("hf:/anna/lesions", ("anna/lesions", "", "")),
        (Path("hf://anna/lesions@v2/best.safetensors"), ("anna/lesions", "v2", "best.safetensors")),
    ],
)
def test_a_reference_names_repository_revision_and_path(written, parts):
    assert is_reference(written)
    assert Reference.of(written) == Reference(*parts)
    assert Reference.of(str(Reference(*parts))) == Reference(*parts)


@pytest.mark.parametrize("written", ["hf://lesions", "hf:///lesions", "hf://anna/@v2", "hf://"])
def test_what_is_not_a_reference_is_refused_with_how_one_is_written(written):
    with pytest.raises(SegregError, match="hf://user/name"):
        local_path(written)


def test_a_path_stays_a_path(tmp_path):
    assert not is_reference(tmp_path)
    assert not is_reference(None)
    assert local_path(str(tmp_path)) == tmp_path


def test_a_repository_becomes_a_folder_of_its_commit_with_what_a_run_has(hub, capsys):
    first = hub.commit("anna/lesions", FILES)
    folder = local_path("hf://anna/lesions")
    assert folder.name == first
    assert sorted(file.name for file in folder.iterdir()) == ["best.safetensors", "resolved.yaml"]
    assert f"hf://anna/lesions@{first}" in capsys.readouterr().err
    assert in_cache(folder) == f"hf://anna/lesions@{first}"
    with pytest.raises(SegregError, match="--out"):
        refuse_to_write(folder / "evaluations", "--out")
    second = hub.commit("anna/lesions", {"resolved.yaml": b"seed: 2\n"}, "v2")
    assert local_path("hf://anna/lesions@v2").name == second
    assert local_path("hf://anna/lesions").name == first
    assert (local_path(f"hf://anna/lesions@{second}") / "resolved.yaml").read_bytes() == b"seed: 2\n"
    assert pinned("hf://anna/lesions@v2/best.safetensors") == f"hf://anna/lesions@{second}/best.safetensors"


def test_a_single_file_is_fetched_alone(hub):
    hub.commit("anna/lesions", FILES)
    assert local_path("hf://anna/lesions/photo.bin").read_bytes() == b"large"
    assert not any("resolve" in request and "safetensors" in request for request in hub.requests)
    with pytest.raises(SegregError, match=r'did you mean "photo\.bin"'):
        local_path("hf://anna/lesions/foto.bin")


def test_what_is_cached_is_there_without_a_connection(hub, monkeypatch):
    commit = hub.commit("anna/lesions", FILES)
    local_path("hf://anna/lesions")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert local_path("hf://anna/lesions").name == commit
    assert local_path(f"hf://anna/lesions@{commit}").name == commit
    with pytest.raises(SegregError, match="HF_HUB_OFFLINE"):
        local_path("hf://anna/other")
    elsewhere = f"hf://anna/other@{commit}"  # a run that began from it is resumed without it
    assert pinned(elsewhere) == elsewhere
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert local_path("hf://anna/lesions").name == commit
    with pytest.raises(SegregError, match=r"http://127.0.0.1:9 can't be reached") as caught:
        local_path("hf://anna/other")
    assert constants.HF_HUB_CACHE in str(caught.value)


def test_what_is_missing_gated_or_private_is_reported_with_names_and_what_to_do(hub, monkeypatch):
    hub.commit("anna/lesions", FILES)
    hub.commit("anna/secret", FILES, private=True)
    hub.commit("anna/gate", FILES)
    hub.gated.add("anna/gate")
    with pytest.raises(SegregError, match="anna/lesion ") as caught:
        local_path("hf://anna/lesion")
    assert 'did you mean "lesions"' in str(caught.value)
    with pytest.raises(SegregError, match='no revision "man"') as caught:
        local_path("hf://anna/lesions@man")
    assert 'did you mean "main"' in str(caught.value)
    with pytest.raises(SegregError, match="anna/gate is gated") as caught:
        local_path("hf://anna/gate")
    assert f"{hub.url}/anna/gate" in str(caught.value)
    assert local_path("hf://anna/secret").is_dir()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SegregError, match="hf auth login"):
        local_path("hf://anna/hidden")
