"""A server under load: lost and wrong answers, images/s beside a bare loop, and what bad requests leave behind.

    python benchmarks/serving.py RUN IMAGES --clients 32 --seconds 60 --bad 1000

* The masks of `segreg predict` are what every answer is compared with, byte for byte.
* Two bare loops, in a process of their own before and after the clients, predict the same images in batches of the same
  size: one from images that were decoded beforehand to labels, which is the network and little else, and one from files
  to PNGs, which is what the server answers. The clients run on the same machine.
* Seconds of the CPU for an image are those of the process, whatever else the machine does.
* Bad requests are truncated images, headers of 50,000 x 50,000 pixels, things that are not images, bodies that never
  end, bodies above the limit, and forms with HTML as names. Memory is that of the server's process, which keeps what
  it has once needed; a tenth of them is sent before it is first looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from segreg.cli import SPINS

BARE = """
import io, json, sys, time
from pathlib import Path
import numpy as np
from PIL import Image
from segreg.data.images import ImageBytes, read_image
from segreg.inference.predictor import predict, prepare_image
from segreg.runs.load import load_run
from segreg.runtime.device import prepare_process
prepare_process()
run, batch, seconds, *files = sys.argv[1:]
one = load_run(run).predictor(device="auto", precision="recipe")
from dataclasses import replace
one = replace(one, config=replace(one.config, batch_size=int(batch)))
def read(file):
    return prepare_image([one], read_image(ImageBytes("an image", file)), Path("an image"))
def measured(images, made):
    for _ in predict([one], images()):
        pass
    count, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < float(seconds):
        for _, strips in predict([one], images()):
            count += 1
            for strip in strips:
                made(strip.labels)
    return {"images/s": count / (time.perf_counter() - began), "CPU s": (time.process_time() - cpu) / count}
files = [Path(file).read_bytes() for file in files]
decoded = [read(file) for file in files]
def png(labels):
    Image.fromarray(labels * np.uint8(255)).save(io.BytesIO(), "PNG", compress_level=4)
print(json.dumps({"network": measured(lambda: decoded, len), "files": measured(lambda: map(read, files), png)}))
"""


async def post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes, head: str = ""
) -> tuple[int, bytes]:
    """Send an image over an open connection, and return status and body of the answer."""
    writer.write(f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body)
    await writer.drain()
    return await answer(reader)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(re.search(r"content-length: (\d+)", lines)[1])
    return int(lines.split()[1]), await reader.readexactly(length)


async def load(port: int, images: list[tuple[bytes, bytes]], clients: int, seconds: float) -> dict:
    """Let clients send one image after the other, and return what became of them."""
    end = time.perf_counter() + seconds
    taken: list[float] = []
    wrong = refused = lost = 0

    async def client(number: int) -> None:
        nonlocal wrong, refused, lost
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            number = (number + 1) % len(images)
            sent, expected = images[number]
            began = time.perf_counter()
            try:
                status, mask = await post(reader, writer, sent)
            except (OSError, EOFError):
                lost += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            taken.append(time.perf_counter() - began)
            refused += status != 200
            wrong += status == 200 and mask != expected
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    whole = time.perf_counter() - began
    return {"answers": len(taken), "images/s": (len(taken) - refused) / whole, "lost": lost, "wrong": wrong,
            "refused": refused, **latency(taken)}  # fmt: skip


def latency(taken: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles([1000 * seconds for seconds in taken], n=20)
    return {"p50 ms": cuts[9], "p95 ms": cuts[18]}


def bomb() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(10_000_000))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


async def bad(port: int, image: bytes, count: int, limit: int) -> dict[str, int]:
    """Send bad requests, 16 at once, and return how many got which status."""
    name = '"><script>alert(1)</script>'
    field = f'Content-Disposition: form-data; name="{name}"; filename="{name}"'
    form = f"--x\r\n{field}\r\n\r\n".encode() + image + b"\r\n--x--\r\n"
    multipart = "Content-Type: multipart/form-data; boundary=x\r\n"
    kinds = [
        ("truncated", image[: len(image) // 2], ""), ("bomb", bomb(), ""), ("wrong type", b"%PDF-1.7" + image, ""),
        ("slow", b"", ""), ("oversize", bytes(limit + 1), ""), ("HTML name", form, multipart),
    ]  # fmt: skip
    found: dict[str, int] = {}
    at_once = asyncio.Semaphore(16)

    async def send(number: int) -> None:
        kind, body, head = kinds[number % len(kinds)]
        async with at_once:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                if kind == "slow":
                    writer.write(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
                    status, _ = await answer(reader)
                else:
                    status, _ = await post(reader, writer, body, head)
                writer.close()
            except (OSError, EOFError) as error:
                status = type(error).__name__
            key = f"{kind}: {status}"
            found[key] = found.get(key, 0) + 1

    await asyncio.gather(*(send(number) for number in range(count)))
    return dict(sorted(found.items()))


async def alone(port: int, images: list[tuple[bytes, bytes]], count: int = 100) -> dict[str, float]:
    """Return the latency of one client's requests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    for number in range(count):
        began = time.perf_counter()
        await post(reader, writer, images[number % len(images)][0])
        taken.append(time.perf_counter() - began)
    writer.close()
    return latency(taken)


def cpu_seconds(process: int) -> float:
    """Return the seconds of the CPU that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000


def segreg(*words: object) -> list[str]:
    return [sys.executable, "-m", "segreg", *map(str, words)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run, or a folder with an exported network")
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--batch", type=int, default=8, help="images that are predicted at once")
    parser.add_argument("--bad", type=int, default=1000, help="bad requests")
    chosen = parser.parse_args()

    def bare() -> dict[str, dict[str, float]]:
        words = [chosen.run, chosen.batch, min(20, chosen.seconds), *sorted(chosen.images.iterdir())]
        done = subprocess.run(
            [sys.executable, "-c", BARE, *map(str, words)], stdout=subprocess.PIPE, check=True,
            env={**os.environ, "GOMP_SPINCOUNT": SPINS},  # as the command line has it
        )  # fmt: skip
        return json.loads(done.stdout)

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(segreg("predict", chosen.run, chosen.images, "--out", folder, "--quiet"), check=True)
        images = [
            (file.read_bytes(), (Path(folder) / "masks" / f"{file.stem}.png").read_bytes())
            for file in sorted(chosen.images.iterdir())
        ]
    rates = [bare()]
    words = segreg("serve", chosen.run, "--port", 0, "--batch", chosen.batch, "--body-timeout", 3)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = next(int(line.rsplit(":", 1)[1]) for line in server.stdout if line.startswith("serving on"))
            asyncio.run(ready(port))
            cpu = cpu_seconds(server.pid)
            under_load = asyncio.run(load(port, images, chosen.clients, chosen.seconds))
            under_load["CPU s"] = (cpu_seconds(server.pid) - cpu) / under_load["answers"]
            asyncio.run(bad(port, images[0][0], chosen.bad // 10, 20_000_000))
            before = {"MB": memory_mb(server.pid), **asyncio.run(alone(port, images))}
            answers = asyncio.run(bad(port, images[0][0], chosen.bad, 20_000_000))
            after = {"MB": memory_mb(server.pid), **asyncio.run(alone(port, images))}
        finally:
            server.terminate()
    rates.append(bare())
    shares = {name: under_load["images/s"] / max(rate[name]["images/s"] for rate in rates) for name in rates[0]}
    found = {
        "bare loops": rates, "load": under_load, "share of the loops": shares, "bad requests": answers,
        "before them": before, "after them": after, "exit status": server.returncode,
    }  # fmt: skip
    print(json.dumps(found, indent=2))


async def ready(port: int) -> None:
    """Wait until a server is ready."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            status = (await reader.read()).split()[1]
            if status == b"200":
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    main()
