from __future__ import annotations

import enum
import os
import pickle
import re
import stat
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from segreg.errors import SegregError
from segreg.runtime import files
from segreg.training.checkpoint import (
    State,
    copy_weights,
    load_state,
    load_weights,
    read_notes,
    read_weights,
    replacing,
    save_state,
    save_weights,
)


def state(**given):
    plain = {
        "epoch": 3, "seconds": 1.5, "objective": {"model.weight": torch.arange(4.0)}, "ema": None,
        "ema_steps": 0, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "schedule": {"best": -float("inf")}, "scaler": {}, "random_state": {"python": (3, (1, 2), None)},
        "monitor": "val.loss", "best_epoch": 2, "best_value": None,
        "epochs_without_better": 1, "precision": "float32", "values": {"a": 1.0},
    }  # fmt: skip
    return State(**(plain | given))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3, bias=False)
        self.two = nn.Linear(3, 3, bias=False)
        self.two.weight = self.one.weight
        self.norm = nn.BatchNorm1d(3)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)


def test_a_state_is_loaded_as_it_was_saved(tmp_path):
    strided = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    optimizer = {"average": strided, 1: np.float64(2.5), "momentum_dtype": torch.bfloat16}
    save_state(state(optimizer=optimizer), tmp_path / "state.pt")
    back = load_state(tmp_path / "state.pt")
    assert back.optimizer["momentum_dtype"] is torch.bfloat16  # as timm's adafactorbv has it
    assert torch.equal(back.optimizer["average"], strided)
    assert back.optimizer["average"].stride() == strided.stride()
    assert back.optimizer[1] == 2.5
    assert type(back.optimizer[1]) is float
    assert (back.schedule, back.random_state, back.values) == (
        {"best": -float("inf")},
        state().random_state,
        {"a": 1.0},
    )


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), r"schedule\.inner\[1\] is a builtins\.object"),
        (Colour.RED, r"schedule\.inner\[1\] is a test_checkpoint\.Colour"),
        (print, "builtin_function_or_method"),
    ],
)
def test_what_could_not_be_read_back_is_refused_when_it_is_saved(tmp_path, value, words):
    with pytest.raises(SegregError, match=words):
        save_state(state(schedule={"inner": [1, value]}), tmp_path / "state.pt")
    assert list(tmp_path.iterdir()) == []


class Harmful:
    """Make a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("how", ["torch", "pickle"])
@pytest.mark.parametrize("read", [load_state, read_weights])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, how, read):
    harmful, path = {"format": 1, "objective": Harmful(tmp_path / "harm")}, tmp_path / "state.pt"
    if how == "torch":
        torch.save(harmful, path)
    else:
        path.write_bytes(pickle.dumps(harmful))
    with pytest.raises(SegregError, match=r"state\.pt: .*(refused: .*could run code|damaged)"):
        read(path)
    assert not (tmp_path / "harm").exists()
    # The file is harmful indeed: reading it the usual way runs it.
    with path.open("rb") as file:
        torch.load(file, weights_only=False) if how == "torch" else pickle.load(file)
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("cut", [0, 1, 100, 0.3, 0.6, 0.99])
def test_truncated_files_are_refused(tmp_path, cut):
    save_state(state(objective={"model.weight": torch.randn(300)}), tmp_path / "state.pt")
    save_weights({"weight": torch.randn(300)}, tmp_path / "a.safetensors", notes={})
    for name, read in (("state.pt", load_state), ("a.safetensors", read_weights)):
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[: int(cut * len(whole)) if 0 < cut < 1 else cut])
        with pytest.raises(SegregError, match=f"{name}: "):
            read(path)


@pytest.mark.parametrize("links", [True, False])
def test_copied_weights_outlive_their_source(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("pathlib.Path.hardlink_to", mock.Mock(side_effect=OSError))
    last, best = tmp_path / "last.safetensors", tmp_path / "best.safetensors"
    for value in (1.0, 2.0):
        save_weights({"weight": torch.full((3,), value)}, last, notes={"epoch": value})
        copy_weights(last, best)
        assert best.read_bytes() == last.read_bytes()
        assert best.samefile(last) == links
    save_weights({"weight": torch.zeros(3)}, last, notes={})
    assert read_weights(best)[1] == {"epoch": "2.0"}
    assert sorted(tmp_path.iterdir()) == [best, last]


def test_a_flipped_bit_in_a_state_is_found(tmp_path):
    path = tmp_path / "state.pt"
    save_state(state(objective={"model.weight": torch.full((1000,), 3.25)}), path)
    content = bytearray(path.read_bytes())
    place = content.find(np.float32(3.25).tobytes() * 4)
    content[place + 100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SegregError, match=r"state\.pt: damaged"):
        load_state(path)


def test_damage_that_is_found_while_unpacking_is_reported(tmp_path):
    path = tmp_path / "packed.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data/0", "weights" * 100)
    content = bytearray(path.read_bytes())
    content[50:60] = b"\xff" * 10
    path.write_bytes(content)
    with pytest.raises(SegregError, match=r"packed\.pt: damaged"):
        read_weights(path)
    path = tmp_path / "old.pt"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(SegregError, match=r"old\.pt: "):
            read_weights(path)
    (key,) = set(re.findall(rb"\d{8,}", content))
    path.write_bytes(content.replace(key, key[:-1] + b"x", 1))
    with pytest.raises(SegregError, match=r"old\.pt: damaged"):
        read_weights(path)


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"format": 99}])
def test_other_files_are_not_states(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(SegregError, match=r"other\.pt: (not a training state|a training state of another version)"):
        load_state(tmp_path / "other.pt")
    with pytest.raises(SegregError, match="there is no such file"):
        load_state(tmp_path / "missing.pt")


def test_weights_are_loaded_into_the_layout_of_the_module(tmp_path):
    one, other = network(), network()
    nn.init.zeros_(other[0].weight)
    save_weights(one.state_dict(), tmp_path / "w.safetensors", notes={"epoch": 3, "value": 0.5})
    load_weights(other, tmp_path / "w.safetensors")
    assert read_notes(tmp_path / "w.safetensors") == {"epoch": "3", "value": "0.5"}
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_tensors_that_share_memory_are_saved(tmp_path):
    tied = Tied()
    flat = torch.arange(10.0)
    tensors = {**tied.state_dict(), "left": flat[:5], "right": flat[5:], "all": flat, "empty": flat[:0]}
    save_weights(tensors, tmp_path / "w.safetensors", notes={})
    back, _ = read_weights(tmp_path / "w.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    fresh = Tied()
    save_weights(tied.state_dict(), tmp_path / "w.safetensors", notes={})
    load_weights(fresh, tmp_path / "w.safetensors")
    assert fresh.two.weight is fresh.one.weight
    assert torch.equal(fresh.two.weight, tied.one.weight)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 1}, lambda w: {"model": w}])
def test_pytorch_files_are_read(tmp_path, wrap):
    one = network()
    torch.save(wrap(one.state_dict()), tmp_path / "w.pth")
    other = network()
    nn.init.zeros_(other[0].weight)
    load_weights(other, tmp_path / "w.pth")
    assert torch.equal(other[0].weight, one[0].weight)


def test_what_does_not_fit_is_listed(tmp_path):
    tensors = dict(network().state_dict())
    tensors["0.weight"] = torch.zeros(5, 2, 3, 3)
    tensors["extra"] = tensors.pop("0.bias")
    path = tmp_path / "w.safetensors"
    save_weights(tensors, path, notes={})
    other = network()
    nn.init.constant_(other[1].weight, 7.0)
    with pytest.raises(SegregError) as caught:
        load_weights(other, path)
    assert str(caught.value) == (
        f"{path}: the weights do not fit the network\n"
        "  5 tensors fit\n"
        "  1 missing: 0.bias\n"
        "  1 unexpected: extra\n"
        "  1 of another shape: 0.weight [5, 2, 3, 3] for [3, 2, 3, 3]"
    )
    assert other[1].weight[0] == 7.0, "nothing is loaded from a file that does not fit"


def write_half(path):
    with replacing(path) as aside:
        aside.write_text("ne")
        raise OSError("disk full")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_half(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    order = []
    real = files.sync
    monkeypatch.setattr(
        files, "sync", lambda path: (order.append((path.parent.suffix, (tmp_path / "file").exists())), real(path))
    )
    with replacing(tmp_path / "file") as aside:
        aside.write_text("new")
    assert order == [(".writing", False), (tmp_path.parent.suffix, True)]


def test_what_a_library_makes_beside_a_file_goes_with_it(tmp_path):
    with replacing(tmp_path / "file") as aside:
        (aside.parent / ".tmp0a1b2c").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_umask_decides_who_may_read_weights(tmp_path):
    before = os.umask(0o022)
    try:
        save_weights({"a": torch.zeros(2)}, tmp_path / "w.safetensors", notes={})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == 0o644


def test_equal_weights_are_equal_files(tmp_path):
    """safetensors itself writes the notes in the order of a hash with a random seed."""
    notes = {f"note {i}": 'caf\u00e9 "quoted"\n\t\x01' for i in range(12)}
    tensors = {"b": torch.arange(5), "a": torch.zeros(2, 3)}
    contents = set()
    for number in range(4):
        save_weights(tensors, tmp_path / f"{number}.safetensors", notes=notes)
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1
    back, read = read_weights(tmp_path / "0.safetensors")
    assert read == notes
    assert torch.equal(back["b"], tensors["b"])
