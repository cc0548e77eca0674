"""What starting costs: the CPU's time until each command starts its work, against importing torch alone.

Each command is started anew, all in turn, and the CPU's time of its process and children is taken, which other
work on the machine disturbs less than the clock's. `run` is stopped after its first optimizer step. A recipe that finds
its images prepared is what is measured: the first turn, which prepares them, is left out.

    python benchmarks/start_up.py recipes/isic_v3plus.yaml dataset=synthetic_lesions encoder.weights=null
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TURNS = 5
TO_FIRST_STEP = """
import sys

def stop(*_):
    raise SystemExit

def listen(event, arguments):
    global waiting
    if waiting and event == "import" and arguments[0].startswith("segreg.training") and "torch.optim" in sys.modules:
        waiting = False
        sys.modules["torch.optim.optimizer"].register_optimizer_step_post_hook(stop)

waiting = True
sys.addaudithook(listen)
from segreg.cli import main
main(sys.argv[1:])
"""
"""Nothing is imported earlier than it would be."""


def main() -> None:
    """Print a line a command."""
    words = sys.argv[1:] or ["recipes/isic_v3plus.yaml", "dataset=synthetic_lesions", "encoder.weights=null"]
    segreg = [sys.executable, "-m", "segreg"]
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "--help": [*segreg, "--help"],
            "list encoder": [*segreg, "list", "encoder"],
            "check": [*segreg, "check", *words],
            "run, to its first step": [sys.executable, "-c", TO_FIRST_STEP, "run", *words, "--quiet", "--out", folder],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for turn in range(TURNS + 1):
            for name, command in commands.items():
                both = started(command)
                if turn:
                    taken[name].append(both)
    processor = {name: statistics.median(used for used, _ in times) for name, times in taken.items()}
    print(f"{'':24}{'CPU':>10}{'x torch':>9}{'fastest':>10}")
    for name, times in taken.items():
        ratio = processor[name] / processor["import torch"]
        print(f"{name:24}{processor[name]:8.2f} s{ratio:9.2f}{min(clock for _, clock in times):8.2f} s")


def started(command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command takes: of CPUs, and by the clock."""
    before, began = os.times(), time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    after = os.times()
    if done.returncode:
        sys.exit(f"{json.dumps(command)} ended with {done.returncode}:\n{done.stderr}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.monotonic() - began


if __name__ == "__main__":
    main()
