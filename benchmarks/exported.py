"""What exporting a network is worth on this CPU: latency and images/s of PyTorch, ONNX Runtime and OpenVINO, in turns.

Each network is DeepLabV3+ with random weights, from uint8 images to float32 logits, as `segreg predict` takes it. All
contestants of a case are loaded in one process, and each round measures every one of them, every other round backwards.
Memory is that of a process of its own for each, at its peak, after a few predictions.

    python benchmarks/exported.py
    python benchmarks/exported.py --sizes 256 --batches 1 --rounds 3 --only eager onnxruntime
    python benchmarks/exported.py --no-memory --json exported.json

`compiled` is left out where there is no C++ compiler, bf16 where the CPU computes it without an instruction for it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from contest import machine, print_table

from segreg import build_part
from segreg.deployment.graph import ExportGraph, trace
from segreg.models.segmenter import Normalize, Segmenter, predict_logits
from segreg.registry.protocols import Calibration
from segreg.runtime.device import choose_precision
from segreg.task import Task

NETWORKS = {"ResNet-50": "resnet50", "MobileNetV3-large": "timm/mobilenetv3_large_100"}
CONTESTANTS = ("eager", "eager bf16", "compiled", "onnxruntime", "openvino", "openvino bf16", "openvino int8")
TASK = Task(("ground", "object"), "multiclass")
SECONDS = 1.5
"""For which a contestant is measured in a round, and at least three predictions."""

Run = Callable[[np.ndarray], Any]


def main() -> None:
    """Print a table for each network and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 513])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--no-memory", action="store_true", help="do not start a process for each contestant")
    parser.add_argument("--json", type=Path, help="keep every sample")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        encoder, size, batch, name = chosen.one
        with tempfile.TemporaryDirectory() as folder:
            print(peak(encoder, int(size), int(batch), name, Path(folder)))
        return
    print(machine())
    names = [name for name in chosen.only if name != "compiled" or shutil.which("g++") or shutil.which("clang++")]
    kept = []
    for title in chosen.networks:
        for size in chosen.sizes:
            with tempfile.TemporaryDirectory() as folder:
                runs = {name: contestant(name, NETWORKS[title], size, Path(folder)) for name in names}
                for batch in chosen.batches:
                    samples = hold(runs, images(batch, size), chosen.rounds)
                    memory = (
                        {} if chosen.no_memory else {n: in_a_process(NETWORKS[title], size, batch, n) for n in names}
                    )
                    show(title, size, batch, samples, memory)
                    kept.append({"network": title, "size": size, "batch": batch, "ms": samples, "mib": memory})
    if chosen.json:
        chosen.json.write_text(json.dumps(kept), encoding="utf-8")


def images(batch: int, size: int) -> np.ndarray:
    """Return noise, uint8 `[B, 3, H, W]`."""
    return np.random.default_rng(0).integers(0, 256, (batch, 3, size, size), np.uint8)


def network(encoder: str) -> tuple[Segmenter, Normalize]:
    """Return the network with random weights."""
    torch.manual_seed(0)
    built = build_part("encoder", encoder, 3, weights=None)
    model = Segmenter(built, build_part("decoder", "deeplabv3plus", built), TASK.channels).eval()
    return model, Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def contestant(name: str, encoder: str, size: int, folder: Path) -> Run:
    """Return what predicts."""
    model, normalize = network(encoder)
    runtime, _, precision = name.partition(" ")
    if runtime in ("eager", "compiled"):
        device = torch.device("cpu")
        computing = choose_precision("bf16" if precision else "float32", device)
        model = model.to(memory_format=torch.channels_last)
        run_model = torch.compile(model) if runtime == "compiled" else model
        return lambda given: predict_logits(run_model, normalize, torch.from_numpy(given), device, computing)
    graph = ExportGraph(model, normalize, TASK, 0.5, labels=False, half=False).eval()
    traced = trace(graph, channels=3, dtype=torch.uint8, size=(size, size), any_size=False)
    exporter = build_part("exporter", {"onnxruntime": "onnx"}.get(runtime, runtime))
    precision, file = precision or "float32", folder / f"{name.replace(' ', '_')}{exporter.suffix}"
    given = [images(1, size) for _ in range(8)]
    calibration = Calibration(given, lambda run: [1.0 + 0 * float(run(one).max()) for one in given], 0.5)
    exporter.write(
        traced.program, file, precision=precision, notes="{}", calibration=calibration if precision == "int8" else None
    )
    return exporter.load(file, precision=precision)


def hold(runs: dict[str, Run], given: np.ndarray, rounds: int) -> dict[str, list[list[float]]]:
    """Return for each contestant the ms of each prediction, round by round; the first round, a warm-up, is left out."""
    samples: dict[str, list[list[float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            times: list[float] = []
            begun = time.perf_counter()
            while len(times) < 3 or time.perf_counter() - begun < SECONDS:
                start = time.perf_counter()
                runs[name](given)
                times.append(1000 * (time.perf_counter() - start))
            if number:
                samples[name].append(times)
    return samples


def show(title: str, size: int, batch: int, samples: dict[str, list[list[float]]], memory: dict[str, float]) -> None:
    """Print a table: p50 and p95 in ms, images/s, how many times as fast as eager, round by round, and memory."""
    first = next(iter(samples))
    rows = []
    for name, rounds in samples.items():
        every = [ms for one in rounds for ms in one]
        ratios = [median(a) / median(b) for a, b in zip(samples[first], rounds, strict=True)]
        rows.append([
            name, f"{median(every):.1f}", f"{quantiles(every, n=20, method='inclusive')[-1]:.1f}",
            f"{1000 * batch / median(every):.1f}",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            *([f"{memory[name]:.0f}"] if memory else []),
        ])  # fmt: skip
    print(f"\n{title}, {size}x{size}, batch {batch}\n")
    heads = ["", "p50 ms", "p95 ms", "images/s", f"times as fast as {first}", *(["peak MiB"] if memory else [])]
    print_table(heads, rows)
    sys.stdout.flush()


def in_a_process(encoder: str, size: int, batch: int, name: str) -> float:
    """Return a contestant's peak memory in MiB, in a process of its own; exports are written in another one."""
    command = [sys.executable, __file__, "--one", encoder, str(size), str(batch), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else float("nan")


def peak(encoder: str, size: int, batch: int, name: str, folder: Path) -> float:
    """Return this process's peak memory in MiB; what an export takes is done in a child, so that it does not count."""
    if name.partition(" ")[0] in ("eager", "compiled"):
        run = contestant(name, encoder, size, folder)
    else:
        if (child := os.fork()) == 0:
            contestant(name, encoder, size, folder)
            os._exit(0)
        os.waitpid(child, 0)
        runtime, _, precision = name.partition(" ")
        exporter = build_part("exporter", {"onnxruntime": "onnx"}.get(runtime, runtime))
        file = next(folder.glob(f"*{exporter.suffix}"))
        run = exporter.load(file, precision=precision or "float32")
    for _ in range(3):
        run(images(batch, size))
    # Of this program alone: what getrusage has is also the process's that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
