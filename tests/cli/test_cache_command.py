"""`segreg cache`."""

from __future__ import annotations

import json
from unittest import mock

import pytest

import small_runs
import tiny_runs
from segreg.data.cache_folder import hold


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEGREG_CACHE", str(folder))
    monkeypatch.delenv("SEGREG_CACHE_LIMIT_GB", raising=False)
    return folder


@pytest.fixture
def filled(cache, tmp_path):
    """Two entries, made by preparing one set at two sizes, and their keys."""
    from segreg.config.sections import Input
    from segreg.data import prepare
    from segreg_plugins.datasets.folder import folder

    images, masks = tiny_runs.folder_dataset(tmp_path, count=3)
    dataset = folder(images=images, masks=masks)
    keys = []
    for side in (16, 24):
        prepared = prepare(dataset, Input(size=(side, side)))
        keys.append(prepared.folder.name)
        prepared.held.release()
    return keys


def test_an_empty_cache(segreg, cache):
    printed = segreg("cache")
    assert (printed.status, printed.out) == (0, f"0 entries, 0.0 MB of 20.0 GB in {cache}\n")
    assert segreg("cache", "--json").out == "[]\n"
    assert segreg("cache", "clear").out == "removed 0 entries, 0.0 MB\n"


def test_entries_are_listed_with_what_they_are(filled, segreg, tmp_path):
    lines = segreg("cache", "list").out.splitlines()
    assert len(lines) == 3
    for key, side in zip(filled, (16, 24), strict=True):
        (line,) = [line for line in lines if line.startswith(key[:12])]
        assert line.endswith(f"{tmp_path}/images, {tmp_path}/masks: 3 samples at {side}x{side}x3")
    assert lines[-1].startswith("2 entries, 0.0 MB of 20.0 GB in")


def test_json_is_for_programs(filled, segreg):
    reported = json.loads(segreg("cache", "--json").out)
    assert {entry["key"] for entry in reported} == set(filled)
    assert all(
        entry["samples"] == 3 and entry["in_use"] is False and entry["bytes"] > 3 * 16 * 16 * 4 for entry in reported
    )


def test_keys_choose_what_is_listed_and_cleared(filled, segreg):
    first, second = filled
    assert segreg("cache", "list", second[:8]).out.splitlines()[0].startswith(second[:12])
    assert "1 entry, " in segreg("cache", "list", second).out
    assert segreg("cache", "clear", first).out.splitlines()[-1].startswith("removed 1 entry, ")
    assert {entry["key"] for entry in json.loads(segreg("cache", "--json").out)} == {second}
    assert segreg("cache", "clear").out.splitlines()[-1].startswith("removed 1 entry, ")
    assert segreg("cache", "--json").out == "[]\n"


@pytest.mark.parametrize("action", ["list", "clear"])
def test_a_key_that_is_not_there_is_reported_and_nothing_is_cleared(action, filled, segreg):
    printed = segreg("cache", action, filled[0], "zzz")
    assert printed.status == 2
    assert printed.err == 'error: the cache has no entry "zzz"\n  `segreg cache` lists its entries\n'
    assert len(json.loads(segreg("cache", "--json").out)) == 2


def test_an_empty_word_clears_nothing(filled, segreg):
    printed = segreg("cache", "clear", "")
    assert (printed.status, printed.err.partition("\n")[0]) == (2, "error: an empty word is not the beginning of a key")
    assert not segreg("cache").out.startswith("0 entries")


def test_what_a_run_is_using_stays_and_is_said_to(filled, cache, segreg):
    used = hold(cache / "prepared" / filled[0])
    (line,) = [line for line in segreg("cache").out.splitlines() if line.startswith(filled[0][:12])]
    assert line.endswith("  in use")
    assert segreg("cache", "clear").out.splitlines()[-1].endswith("; 1 in use or not removable")
    assert [entry["key"] for entry in json.loads(segreg("cache", "--json").out)] == [filled[0]]
    used.release()
    assert segreg("cache", "clear").out.splitlines()[-1].startswith("removed 1 entry, ")


def test_a_limit_that_is_no_number_is_reported(segreg, monkeypatch):
    monkeypatch.setenv("SEGREG_CACHE_LIMIT_GB", "much")
    printed = segreg("cache")
    assert printed.status == 2
    assert printed.err.startswith("error: SEGREG_CACHE_LIMIT_GB must be a number")


def test_a_user_without_a_home_is_asked_for_a_folder(segreg, monkeypatch):
    for name in ("SEGREG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", mock.Mock(side_effect=RuntimeError("Could not determine home directory.")))
    printed = segreg("cache")
    assert printed.status == 2
    assert "no folder for the cache" in printed.err
    assert "SEGREG_CACHE names one" in printed.err


def test_a_second_run_takes_what_the_first_prepared(segreg, tmp_path, monkeypatch):
    recipe = small_runs.write_recipe(tmp_path)
    run = ("run", recipe, "train.epochs=1", "evaluate.overlays=0", "--quiet", "--out", tmp_path / "runs")
    with small_runs.encoder(), tiny_runs.undrawn():
        assert segreg(*run).status == 0
    (before,) = json.loads(segreg("cache", "--json").out)
    monkeypatch.setattr("segreg.data.cache.fitted_sample", lambda *_: pytest.fail("it was prepared twice"))
    with small_runs.encoder(), tiny_runs.undrawn():
        assert segreg(*run).status == 0
    (after,) = json.loads(segreg("cache", "--json").out)
    assert after["key"] == before["key"]
    assert after["last_used"] >= before["last_used"]
