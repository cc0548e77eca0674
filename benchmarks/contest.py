"""What jobs take in processes of their own, in turns: time, memory, and how much of the machine others had meanwhile.

A job writes what it found itself to a file; the rest is the system's account of its process. Nothing heavy is imported
here, because on Linux a process begins with its parent's peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segreg.benchmark.cost.machine import cpu_seconds

PACKAGES = (
    "segreg-toolkit", "torch", "torchvision", "segmentation-models-pytorch", "pytorch-lightning", "scikit-learn",
)  # fmt: skip
QUIET = 0.06
Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """A script that is given the competitor's name, the file of its case, when it was started, and where to write.

    Attributes:
        case: what is done, as a short description.
        name: the competitor.
        script: the Python file.
        file: with the case, for the script.
    """

    case: str
    name: str
    script: Path
    file: Path


@dataclass(frozen=True)
class Column:
    """A number of the tables.

    Attributes:
        key: its name in a sample.
        title: its heading, with the unit.
        ratio: whether it is compared with the other competitors'.
    """

    key: str
    title: str
    ratio: bool = True


def options(description: str, groups: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with what all contests have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=groups, default=list(groups), help="competitors (all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each takes its turn (5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of the processes (the machine's cores)")
    parser.add_argument("--cold", action="store_true", help="without the round that brings libraries into memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every sample")
    return parser


def hold(chosen: argparse.Namespace, jobs: Sequence[Job], columns: Sequence[Column]) -> None:
    """Run the jobs and prints what they took, segreg against each of the others."""
    print(machine(), flush=True)
    samples = contest(jobs, chosen.rounds, chosen.threads, cold=chosen.cold)
    print_tables(samples, columns, "segreg")
    if chosen.json:
        report = {"machine": machine(), "command": sys.argv[1:], "samples": samples}
        chosen.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if len(samples) < chosen.rounds * len(jobs):
        raise SystemExit("not all of them came to their end; what they said is above")


def contest(jobs: Sequence[Job], rounds: int, threads: int | None, *, cold: bool = False) -> list[Sample]:
    """Run every job once a round, every other round in reverse, and return what each took.

    The first case's jobs run once before that, of which nothing is kept: it brings the libraries' files into memory.
    With `cold` they don't.
    """
    samples: list[Sample] = []
    failed: set[Job] = set()
    for number in range(cold, rounds + 1):
        order = [job for job in jobs if job not in failed and (number or job.case == jobs[0].case)]
        for job in order if number % 2 else reversed(order):
            measured = sample(job, threads)
            if isinstance(measured, str):
                failed.add(job)
                print(f"{job.name} failed and is excluded from: {job.case}\n{measured}", file=sys.stderr)
                continue
            print(f"round {number} of {rounds}: {job.case}, {job.name}, {measured['whole_s']:.1f} s", file=sys.stderr)
            if number:
                samples.append({"case": job.case, "name": job.name, "round": number, **measured})
    return samples


def sample(job: Job, threads: int | None) -> dict[str, Any] | str:
    """Return what one process found and took, seconds, MiB and others' share of the machine; its words if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        found, words = Path(folder, "found.json"), Path(folder, "words.txt")
        environment = {**os.environ, "SEGREG_CACHE": folder}  # empty, so that images are read
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        before, started = cpu_seconds(), time.monotonic()
        command = [sys.executable, str(job.script), job.name, str(job.file), repr(started), str(found)]
        with words.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
            _, status, used = os.wait4(process.pid, 0)  # its resource usage, which Popen does not report
        process.returncode = os.waitstatus_to_exitcode(status)
        whole, after = time.monotonic() - started, cpu_seconds()
        if process.returncode:
            return words.read_text(encoding="utf-8", errors="replace")
        measured = json.loads(found.read_text(encoding="utf-8"))
    own = used.ru_utime + used.ru_stime
    others = (after[0] - before[0] - own) / (after[1] - before[1]) if before and after else None
    return {
        **measured, "whole_s": whole, "cpu_user_s": used.ru_utime, "cpu_system_s": used.ru_stime, "cpu_s": own,
        "peak_rss_mib": used.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024),
        "others": None if others is None else max(others, 0.0),
    }  # fmt: skip


def run_quietly(command: Sequence[str | Path]) -> None:
    """Run a preparation to its end; print its output only if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def machine() -> str:
    """Return the CPU, its cores, the system, the versions and the day."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    versions = ", ".join(f"{name} {number}" for name, number in found.items())
    model = platform.processor() or platform.machine()
    if (file := Path("/proc/cpuinfo")).exists():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    day = time.strftime("%Y-%m-%d")
    return f"{day}, {model}, {cores} cores, {gib:.0f} GiB, Python {platform.python_version()}, {versions}"


def print_tables(samples: Sequence[Sample], columns: Sequence[Column], own: str) -> None:
    """Print a table of medians with what the rounds span, and one of ratios, for each case."""
    for case in dict.fromkeys(sample["case"] for sample in samples):
        of_case = [sample for sample in samples if sample["case"] == case]
        names = list(dict.fromkeys(sample["name"] for sample in of_case))
        print(f"\n{case}\n")
        shown = [c for c in columns if any(sample.get(c.key) is not None for sample in of_case)]
        rows = [[name, *(spread(values(of_case, name, c.key)) for c in shown)] for name in names]
        print_table(["", *(c.title for c in shown)], rows)
        compared = [c for c in shown if c.ratio]
        others = [name for name in names if name != own]
        if others and own in names:
            print(f"\n{own} over another, round by round\n")
            print_table(
                ["", *(c.title for c in compared)],
                [[n, *(spread(ratios(of_case, own, n, c.key)) for c in compared)] for n in others],
            )
    shares = [sample["others"] for sample in samples if sample["others"] is not None]
    noisy = [share for share in shares if share > QUIET]
    highest = f", {100 * max(noisy):.0f}% at the most" if noisy else ""
    print(f"\nOther processes had more than {100 * QUIET:.0f}% of the machine in {len(noisy)} of {len(shares)} "
          f"samples{highest}.")  # fmt: skip


def values(samples: Iterable[Sample], name: str, key: str) -> list[float]:
    """Return a competitor's values of a column, those that it has."""
    return [sample[key] for sample in samples if sample["name"] == name and sample.get(key) is not None]


def ratios(samples: Sequence[Sample], own: str, other: str, key: str) -> list[float]:
    """Return for each round the value of one competitor over another's."""
    by_round = {(sample["name"], sample["round"]): sample.get(key) for sample in samples}
    pairs = [(value, by_round.get((other, number))) for (name, number), value in by_round.items() if name == own]
    return [value / against for value, against in pairs if value is not None and against]


def spread(found: Sequence[float]) -> str:
    """Return "3.61 (3.52 to 3.7)": the median, the least and the largest; "-" of nothing."""
    if not found:
        return "-"
    median, least, most = (f"{value:.4g}" for value in (statistics.median(found), min(found), max(found)))
    return f"{median} ({least} to {most})" if len(found) > 1 else median


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print Markdown."""
    for row in (heading, ["---"] * len(heading), *rows):
        print(f"| {' | '.join(row)} |")
