"""A run whose images lie on the device is the run whose images are read from files."""

import pytest

import tiny_runs
from segreg.errors import SegregError

SHORT = ("train.epochs=2", "evaluate.overlays=0")


def untimed(values):
    return {name: value for name, value in values.items() if not ("second" in name or "time" in name)}


def test_a_run_on_the_device_is_the_same_run(tmp_path, monkeypatch):
    """On a CPU and with a flip it is the same to the last bit."""
    said = []
    monkeypatch.setattr("segreg.runtime.progress.Quiet.say", lambda self, line: said.append(line))
    runs = {asked: tiny_runs.run(tmp_path, f"train.images_on_device={asked}", *SHORT) for asked in ("true", "false")}
    there, in_files = runs["true"], runs["false"]
    assert [untimed(row) for row in there.history] == [untimed(row) for row in in_files.history]
    assert untimed(there.results) == untimed(in_files.results)
    header = [line for line in said if line.startswith("images")]
    assert header == [
        "images   0.1 MB on cpu, and augmented there, as asked for",
        "images   in files, as asked for",
    ]


def test_an_augmentation_that_is_not_done_there_is_named(tmp_path):
    with pytest.raises(SegregError, match=r'^train.images_on_device: "CLAHE" is not done on the device'):
        tiny_runs.run(tmp_path, "train.images_on_device=true", "augment=[{name: CLAHE}]", *SHORT)
    assert not (tmp_path / "runs").exists()
