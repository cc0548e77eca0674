"""What this machine trains with: its device, the memory there, and the precision that `auto` takes."""

from __future__ import annotations

from dataclasses import dataclass

from segreg.runtime.device import MIB, available_mib, choose_device, choose_precision


@dataclass(frozen=True)
class Machine:
    """What a run has.

    Attributes:
        device: as `train.device: auto` chooses it.
        gpu: whether it is a GPU.
        memory_mib: MiB that a step may take: what is free on a GPU, half of what is free where it is the system's own.
        half: whether activations take two bytes in place of four.
        precision: the precision with its reason.
    """

    device: str
    gpu: bool
    memory_mib: float
    half: bool
    precision: str

    @classmethod
    def this(cls) -> Machine:
        """Return this machine."""
        import torch

        device = choose_device()
        precision = choose_precision("auto", device)
        free = (available_mib() or 4096.0) / 2
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0] / MIB
        return cls(str(device), device.type != "cpu", free, precision.dtype is not None, precision.reason)
