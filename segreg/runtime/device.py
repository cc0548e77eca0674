"""Where a network computes and in which precision, with the reason; how much memory there is."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import platform
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from segreg.errors import SegregError, did_you_mean, listed

if TYPE_CHECKING:
    import torch

MIB = 2**20
PrecisionName = Literal["auto", "float32", "bf16", "fp16"]


@dataclass(frozen=True)
class Precision:
    """The precision of a network's heavy operations; weights, losses and metrics are float32 in any case.

    Attributes:
        name: "float32", "bf16" or "fp16".
        dtype: what `torch.autocast` computes in, None where everything is float32.
        scaler: whether gradients are scaled, so that fp16 does not lose the small ones.
        reason: why it was chosen, one sentence for the run's header.
        exact: whether predictions do without TF32, which GPUs use for what is float32.
    """

    name: str
    dtype: torch.dtype | None
    scaler: bool
    reason: str
    exact: bool = False

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which the forward pass runs."""
        import torch

        if self.dtype is not None and device.type == "cpu":
            _normalise_layers_in_float32()
        return torch.autocast(device.type, dtype=self.dtype or torch.float32, enabled=self.dtype is not None)

    @contextlib.contextmanager
    def predicting(self, device: torch.device) -> Iterator[None]:
        """Be the context in which predictions and scores are computed: `autocast`, without TF32 where it is exact."""
        import torch

        if not self.exact:
            with self.autocast(device):
                yield
            return
        before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before[0]
            torch.set_float32_matmul_precision(before[1])


@functools.cache
def _normalise_layers_in_float32() -> torch.library.Library:
    """Let LayerNorm compute in float32 under a CPU's autocast, as under a GPU's; its result has the input's type.

    Of bf16 features, torch sums the gradients of its weights over all pixels in bf16, where 256 + 1 is 256.
    """
    import torch

    def layer_norm(x: torch.Tensor, shape: Sequence[int], weight: torch.Tensor | None = None, *rest: Any) -> Any:
        exact = x.float() if weight is not None and weight.dtype == torch.float32 else x
        with torch.autocast("cpu", enabled=False):
            return torch.layer_norm(exact, shape, weight, *rest).to(x.dtype)

    library = torch.library.Library("aten", "IMPL", "AutocastCPU")  # type: ignore[no-untyped-call]
    library.impl("layer_norm", layer_norm)  # type: ignore[no-untyped-call]
    return library


def devices() -> list[str]:
    """Return the devices that this machine has, the preferred first."""
    import torch

    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; for "auto" a CUDA GPU, else Apple's, else the CPU.

    Raises:
        SegregError: the name is not a device or this machine has none of it; the message lists what there is.
    """
    import torch

    present = devices()
    name = present[0] if name == "auto" else name
    if "cuda:0" in present and name == "cuda":
        name = "cuda:0"
    if name not in present:
        known = [*present, "auto", "cuda", "mps"]
        close = "" if name in known else did_you_mean(name, known)
        why = "" if torch.version.cuda or not name.startswith("cuda") else "; this PyTorch is built without CUDA"
        raise SegregError(
            f'there is no device "{name}" here{why}',
            hint="\n".join(filter(None, (close, f"this machine has {listed(present)}"))),
        )
    return torch.device(name)


def scoring_device(device: torch.device) -> torch.device:
    """Return where the outputs of a network on a device are scored: there, but not on Apple's GPUs.

    Scores are sums in float64, which those don't have.
    """
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Return the precision of that name on that device; for "auto" the fastest one that the device computes natively.

    The choice depends on the hardware alone, never on a timing, so that a resumed run makes the same one.

    Raises:
        SegregError: there is no such precision, or fp16 is asked for on a device other than CUDA.
    """
    import torch

    if name not in (names := get_args(PrecisionName)):
        hint = did_you_mean(name, names) or f"there are {listed(names)}"
        raise SegregError(f'there is no precision "{name}"', hint=hint)
    if name == "fp16" and device.type != "cuda":
        raise SegregError(
            f'precision "fp16" needs a CUDA device; this run computes on "{device}"', hint='take "bf16" or "float32"'
        )
    native, hardware = _bf16(device)
    why = "as asked for"
    if name == "auto":
        why = f"because {hardware}"
        name = "bf16" if native else "fp16" if device.type == "cuda" else "float32"
    elif name == "bf16" and not native:
        why = f"as asked for, although {hardware}: it may be slower"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
    scaler = name == "fp16"
    return Precision(name, dtype, scaler, f"{name}{' with a gradient scaler' if scaler else ''}, {why}")


def _bf16(device: torch.device) -> tuple[bool, str]:
    """Whether a device computes bf16 natively, and the reason."""
    import torch

    if device.type == "cuda":
        # Compute capability rather than is_bf16_supported(), which also counts emulation.
        major, minor = torch.cuda.get_device_capability(device)
        has = "has" if major >= 8 else "has no native"
        return major >= 8, f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor}) {has} bf16"
    if device.type == "cpu":
        found = sorted({"avx512_bf16", "amx_bf16"} & processor_flags())
        if found and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return True, f"the CPU has {' and '.join(found)}"
        return False, "the CPU has neither avx512_bf16 nor amx_bf16"
    return False, f"bf16 is not known to be faster on {device.type}"


def cpu_fact(fact: str) -> str:
    """Return what Linux says of the CPU, such as its "model name"; an empty string where that can't be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(fact)), "")


def processor_flags() -> frozenset[str]:
    """Return the instruction sets of the CPU as Linux names them; none where that can't be read."""
    return frozenset(cpu_fact("flags").split())


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Let Python look for no garbage meanwhile: importing PyTorch makes a million objects and none.

    A fifth of the time that imports take goes into looking.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def prepare_process() -> str:
    """Keep freed memory in the process instead of returning it after every batch; return a sentence for the header.

    glibc hands each activation above 32 MB back to the system and faults it in again, page by page, at the next step:
    a third of a training step on a CPU goes there. It is to be called before the first tensor is made. Other C
    libraries are left alone, and SEGREG_MALLOPT=0 switches it off.
    """
    if os.environ.get("SEGREG_MALLOPT", "1") == "0":
        return "memory: the C library's own rules (SEGREG_MALLOPT=0)"
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return "memory: the C library's own rules"
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return "memory: the C library's own rules"
    # The threshold first: if it were refused, mmap would still bound what the process keeps.
    if mallopt(trim_threshold, 2**31 - 1) == 1 and mallopt(mmap_max, 0) == 1:
        return "memory: kept between batches (glibc mallopt; SEGREG_MALLOPT=0 switches it off)"
    return "memory: the C library's own rules (mallopt refused)"


def prepare_device(device: torch.device) -> None:
    """Let a CUDA device search for its fastest convolutions and use TF32 for what remains float32."""
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")


def cores() -> int:
    """Return how many CPUs this process may use: a container or a batch system may lend fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def out_of_memory(error: BaseException) -> bool:
    """Whether an error tells that a device's memory, or the computer's, did not suffice."""
    import torch

    words = (
        "DefaultCPUAllocator: can't allocate memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED",
        "MPS backend out of memory",
    )  # fmt: skip
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def seed_everything(seed: int) -> None:
    """Seeds PyTorch on every device, Python's `random` and NumPy's global generator."""
    import numpy as np
    import torch

    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def peak_rss_mib() -> float | None:
    """Return the largest resident memory that this process has had in MiB, None where it isn't known (Windows).

    It never shrinks. A process that was forked begins with what its parent has just then. One that was started anew
    (`exec`) begins on Linux with its parent's peak, however small it is itself; of such a process it is not a measure.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # macOS tells bytes, the others KiB


def available_mib(
    file: Path = Path("/proc/meminfo"), own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Return the memory that new processes can have without swapping in MiB, None where it isn't known (not Linux).

    That is what a container or a batch system leaves this process, where it gives less than the machine has.
    """
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        free = int(available.split()[1]) / 1024
    except (OSError, StopIteration, ValueError):
        return None
    return min([free, *_left_in_groups(own, groups)])


def _left_in_groups(own: Path, groups: Path) -> Iterator[float]:
    """Yield what is left of the memory of each control group (version 2 and 1) around this process, in MiB."""
    folders = [groups / "memory"]
    with contextlib.suppress(OSError):
        path = next((line[4:] for line in own.read_text().splitlines() if line.startswith("0::/")), "")
        folders += [groups / path, *(groups / above for above in Path(path).parents)]
    for folder in folders:
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError, KeyError):  # not this version; or "max", which is no limit
                most, taken = (int((folder / name).read_text()) for name in (limit, used))
                facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield max(0, most - taken + int(facts[cache])) / MIB
