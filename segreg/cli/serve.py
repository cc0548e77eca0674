"""`segreg serve RUN...`: predictions over HTTP, and a page for trying them."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import math
import os
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from segreg.cli.common import add_device, check_least
from segreg.errors import SegregError, listed
from segreg.runtime.hub import is_reference
from segreg.runtime.layout import banners, complain, show
from segreg.serve.limits import Limits

if TYPE_CHECKING:
    from segreg.serve.app import ServedModel

NAME = "serve"
HELP = "serve the networks of runs over HTTP, with a page for trying them"
EXAMPLES = """examples:
  segreg serve runs/isic_v3plus/2026-01-31_12-00-00
  segreg serve RUN1 RUN2 --device cuda:0 --batch 16
  SEGREG_TOKEN=secret segreg serve RUN --host 0.0.0.0 --port 8080
  curl --data-binary @photo.jpg http://127.0.0.1:8000/predict > mask.png
  curl -F image=@photo.jpg -H 'Accept: application/json' http://127.0.0.1:8000/predict

A model is called by the last two folders of its run, or by its name on the hub. Only this machine can reach the server
unless --host says otherwise. Nothing of a request is written to disk. SIGTERM and Ctrl-C let the requests finish that
have begun.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs, exported networks, or hf://user/name")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="to listen at; 0 takes a free one (8000)")
    parser.add_argument("--token", help="that requests must have as Authorization: Bearer TOKEN (SEGREG_TOKEN)")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="of which epoch (best)")
    add_device(parser, precision="precision of the networks (as in each run's scoring)")
    parser.add_argument("--batch", type=int, default=8, help="waiting images of one size predicted at once (8)")
    for option, default, meaning in (
        ("--max-mb", Limits.upload_bytes / 1e6, "megabytes of an upload"),
        ("--max-megapixels", Limits.pixels / 1e6, "of an image"),
        ("--body-timeout", Limits.body_seconds, "seconds until an upload has arrived"),
        ("--deadline", Limits.deadline_seconds, "seconds until a request is answered"),
    ):
        parser.add_argument(option, type=float, default=default, help=f"{meaning} ({default:g})")
    parser.add_argument(
        "--requests", type=int, default=Limits.requests,
        help=f"answered at once; more are refused ({Limits.requests})",
    )  # fmt: skip


def execute(chosen: argparse.Namespace) -> int:
    if missing := [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]:
        raise SegregError(f"serving needs {listed(missing)}", hint='pip install "segreg-toolkit[serve]"')
    check_least(chosen, 1, "batch", "requests")
    check_least(chosen, 0, "port", most=65535)
    check_least(chosen, 0.001, "max_mb", "max_megapixels", "body_timeout", "deadline", most=1_000_000)
    token = chosen.token or os.environ.get("SEGREG_TOKEN") or None

    import uvicorn

    from segreg.runtime.device import prepare_process
    from segreg.serve.app import create_app

    limits = Limits(
        upload_bytes=round(chosen.max_mb * 1e6), pixels=round(chosen.max_megapixels * 1e6), requests=chosen.requests,
        body_seconds=chosen.body_timeout, deadline_seconds=chosen.deadline,
    )  # fmt: skip
    prepare_process()
    with bound_socket(chosen.host, chosen.port) as listening:
        models = _load(chosen)
        host, port = listening.getsockname()[:2]
        show(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}")
        sys.stdout.flush()
        if token is None and not ipaddress.ip_address(host).is_loopback:
            complain("whoever reaches this address can send images; --token makes them show a token")
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when all requests are finished
        config = uvicorn.Config(
            create_app(models, limits, token), log_level="warning", access_log=False, server_header=False,
            timeout_graceful_shutdown=math.ceil(chosen.deadline) + 1,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that has the address; uvicorn lets it listen."""
    # asyncio sends at once only through sockets that name their protocol; an answer would wait 40 ms otherwise.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise SegregError(
            f"can't listen at {host}, port {port}: {error.strerror}", hint="--port 0 takes a free port"
        ) from None
    return bound


def _load(chosen: argparse.Namespace) -> dict[str, ServedModel]:
    """Return the networks by the names that requests call them, and print what is served."""
    from segreg.runs.load import load_run
    from segreg.serve.app import ServedModel

    models: dict[str, ServedModel] = {}
    for word in chosen.runs:
        run, name = load_run(word), name_of(word)
        if name in models:
            raise SegregError(f'two of the runs are called "{name}", by their last two folders')
        predictor = run.predictor(chosen.weights, device=chosen.device, precision=chosen.precision)
        show(
            *banners(run.notice),
            f"model   {name}",
            f"run     {predictor.name}",
            f"device  {predictor.device}, {predictor.precision.reason}",
        )
        config = dataclasses.replace(predictor.config, batch_size=chosen.batch)
        models[name] = ServedModel(dataclasses.replace(predictor, name=name, config=config), run.notice)
    return models


def name_of(run: str) -> str:
    """Return what requests call a run: its last two folders, or its name on the hub."""
    if is_reference(run):
        return run.removeprefix("hf://")
    path = Path(run).resolve()
    return "/".join((path.parent if path.is_file() else path).parts[-2:])
