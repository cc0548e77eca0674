from __future__ import annotations

import os
import platform
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from segreg.errors import SegregError
from segreg.runtime import device
from segreg.runtime.device import choose_device, choose_precision, prepare_process, scoring_device, seed_everything

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture
def machine(monkeypatch):
    """Return a function that pretends hardware."""

    def pretend(*, gpus=0, capability=(8, 0), mps=False, flags=()):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda d=None: "GPU X")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(device, "processor_flags", lambda: frozenset(flags))

    return pretend


def test_auto_takes_the_gpu_then_apples_then_the_processor(machine):
    machine(gpus=2, mps=True)
    assert choose_device("auto") == torch.device("cuda:0")
    assert choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == CPU
    machine(mps=True)
    assert choose_device() == torch.device("mps")
    machine()
    assert choose_device() == CPU


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "cuda:5",
            'no device "cuda:5" here\n.*did you mean "cuda:1".*\n.*this machine has "cuda:0", "cuda:1" and "cpu"',
        ),
        ("mps", 'no device "mps" here.*\n.*this machine has'),
        ("cpus", 'did you mean "cpu"'),
        ("gpu", 'no device "gpu" here'),
        ("", 'no device "" here'),
    ],
)
def test_a_device_that_is_not_there_is_reported(machine, name, words):
    machine(gpus=2)
    with pytest.raises(SegregError, match=words):
        choose_device(name)


def test_cuda_on_a_machine_without_is_reported(machine):
    machine()
    with pytest.raises(SegregError, match=r'no device "cuda" here.*\n.*this machine has "cpu"'):
        choose_device("cuda")


def chosen(name, where):
    precision = choose_precision(name, where)
    return precision.name, precision.dtype, precision.scaler


@pytest.mark.parametrize(
    ("capability", "name"), [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_on_gpus_goes_by_what_they_compute_natively(machine, capability, name):
    machine(gpus=1, capability=capability)
    expected = {"fp16": ("fp16", torch.float16, True), "bf16": ("bf16", torch.bfloat16, False)}
    assert chosen("auto", CUDA) == expected[name]
    assert f"compute capability {capability[0]}.{capability[1]}" in choose_precision("auto", CUDA).reason


def test_auto_on_processors_goes_by_their_instructions(machine):
    for flags in ((), ("avx512f", "avx2")):
        machine(flags=flags)
        assert chosen("auto", CPU) == ("float32", None, False)
        assert "neither avx512_bf16 nor amx_bf16" in choose_precision("auto", CPU).reason
    machine(flags=("avx512_bf16",))
    assert chosen("auto", CPU) == ("bf16", torch.bfloat16, False)
    assert choose_precision("auto", CPU).reason == "bf16, because the CPU has avx512_bf16"


def test_what_is_asked_for_is_taken(machine):
    machine(gpus=1, capability=(7, 0))
    assert chosen("float32", CUDA) == ("float32", None, False)
    assert chosen("bf16", CUDA) == ("bf16", torch.bfloat16, False)
    assert "may be slower" in choose_precision("bf16", CUDA).reason
    assert chosen("fp16", CUDA) == ("fp16", torch.float16, True)
    with pytest.raises(SegregError, match='"fp16" needs a CUDA device; this run computes on "cpu"'):
        choose_precision("fp16", CPU)
    with pytest.raises(SegregError, match='there is no precision "bf61"') as raised:
        choose_precision("bf61", CPU)
    assert "bf16" in str(raised.value)


@pytest.mark.parametrize(("name", "place"), [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("mps", "cpu")])
def test_scores_are_computed_where_there_is_float64(name, place):
    assert scoring_device(torch.device(name)) == torch.device(place)


def test_autocast_computes_in_the_precision(machine):
    machine(flags=("amx_bf16",))
    a = torch.randn(2, 2)
    for name, dtype in (("auto", torch.bfloat16), ("float32", torch.float32)):
        with choose_precision(name, CPU).autocast(CPU):
            assert (a @ a).dtype == dtype


def test_layer_norm_sums_its_gradients_in_float32():
    """Over 4,096 pixels; a sum in bf16 would end at 256."""
    norm = torch.nn.LayerNorm(8)
    with choose_precision("bf16", CPU).autocast(CPU):
        out = norm(torch.linspace(-9, 9, 4096 * 8).sin().view(4096, 8).to(torch.bfloat16))
    assert out.dtype == torch.bfloat16
    out.backward(torch.ones_like(out))
    assert norm.bias.grad.tolist() == [4096.0] * 8


FAULTS = """
import resource, sys
from segreg.runtime.device import prepare_process
print(prepare_process())
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(64 << 20)
before = faults()
for _ in range(8):
    bytearray(64 << 20)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_large_memory_is_kept_in_the_process():
    def run(setting):
        environment = {**os.environ, "SEGREG_MALLOPT": setting, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        reported, count = done.stdout.splitlines()
        return reported, int(count)

    reported, with_it = run("1")
    assert reported.startswith("memory: kept between batches")
    reported, without = run("0")
    assert reported == "memory: the C library's own rules (SEGREG_MALLOPT=0)"
    # 8 x 64 MB are 131 072 pages of 4 KB where each is faulted in again (fewer where pages are huge).
    assert with_it < 1000
    assert without > 2 * with_it


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.delenv("SEGREG_MALLOPT", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert prepare_process() == "memory: the C library's own rules"


def test_a_seed_seeds_everything():
    def draw():
        return torch.rand(2).tolist(), random.random(), np.random.rand()

    seed_everything(5)
    first = draw()
    assert draw() != first
    seed_everything(5)
    assert draw() == first
    seed_everything(2**40)  # more than NumPy takes


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/job/step", {"job/memory.max": 300, "job/memory.current": 250, "job/memory.stat": 50}, 100),
        ("0::/", {"memory.max": 30, "memory.current": 50, "memory.stat": 0}, 0),
        ("0::/", {"memory.max": "max", "memory.current": 50, "memory.stat": 0}, 1000),
        (
            "9:memory:/docker/0a1b",
            {"memory/memory.limit_in_bytes": 300, "memory/memory.usage_in_bytes": 250, "memory/memory.stat": 0},
            50,
        ),
    ],
)
def test_a_container_may_have_less_memory_than_the_machine(own, files, left, tmp_path):
    (tmp_path / "meminfo").write_text(f"MemAvailable: {1000 * 1024} kB\n")
    (tmp_path / "own").write_text(f"{own}\n")
    for name, value in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        text = str(value * device.MIB if isinstance(value, int) else value)
        if name.endswith("memory.stat"):
            text = f"anon 1\n{'total_' * name.startswith('memory/')}inactive_file {text}"
        (tmp_path / "groups" / name).write_text(f"{text}\n")
    assert device.available_mib(tmp_path / "meminfo", tmp_path / "own", tmp_path / "groups") == left
