"""What a run ran on: Python, packages, device, the commit of the working folder, and every plugin's version."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segreg.registry.registry import Registry

PACKAGES = (
    "segreg", "torch", "torchvision", "timm", "segmentation-models-pytorch", "albumentations", "torchmetrics", "numpy",
)  # fmt: skip


def environment(registry: Registry, device: Any) -> dict[str, Any]:
    """Return what a later reader needs to know to repeat a run."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "CPUs": os.cpu_count(),
        "device": _device(device),
        "packages": {name: _version(name) for name in PACKAGES},
        "plugins": [
            {"name": p.name, "distribution": p.distribution, "version": p.version, "error": p.error}
            for p in registry.plugins
        ],
        "commit": git_commit(Path.cwd()),
        "command": sys.argv,
    }


def git_commit(folder: Path) -> str | None:
    """Return the commit of the checkout that `folder` is in, with "+changes" where files differ from it, or None."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(folder), *arguments],  # noqa: S607
        capture_output=True, text=True, timeout=5, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device(device: Any) -> dict[str, Any]:
    import torch

    told: dict[str, Any] = {"name": str(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        told |= {"model": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    else:
        told |= {"model": _processor(), "threads": torch.get_num_threads()}
    return told


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
