"""`segreg serve`: what it prints and refuses, and how it ends."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket

import numpy as np
import pytest
from PIL import Image

import tiny_runs

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from segreg.cli.serve import bound_socket, name_of
from serving import Client


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_runs.finished(tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_request_that_has_begun_is_answered_when_the_server_is_stopped(run, tmp_path, number, status):
    image = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(image, "PNG")
    out = tmp_path / "out"
    process = tiny_runs.process("serve", run.directory.path, "--port", 0, out=out)
    try:
        while not (found := re.search(r"^serving on http://127\.0\.0\.1:(\d+)$", text_of(out), re.MULTILINE)):
            assert process.exitcode is None, text_of(out)
            process.join(0.05)
        assert "SYNTHETIC" in text_of(out)
        assert f"model   {'/'.join(run.directory.path.parts[-2:])}\n" in text_of(out)
        client = Client(int(found[1]))
        while not answers(client, "/readyz", b"ok"):
            process.join(0.05)
        with contextlib.closing(client.connect()) as connection:
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Length", str(len(image.getvalue())))
            connection.endheaders(image.getvalue()[:50])
            while not answers(client, "/metrics", b"in_progress 1"):
                process.join(0.05)
            os.kill(process.pid, number)
            while answers(client, "/livez", b"ok"):
                process.join(0.05)
            connection.send(image.getvalue()[50:])
            assert client.answer(connection).status == 200
        process.join(60)
        assert process.exitcode == status
    finally:
        process.kill()


def text_of(file):
    return file.read_text() if file.is_file() else ""


def answers(client, path, text):
    """Whether a server is there and what it answers contains a string."""
    try:
        return text in client.ask("GET", path).body
    except OSError:
        return False


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--batch", "0"], "--batch must be at least 1, not 0"),
        (["--requests", "0"], "--requests must be at least 1, not 0"),
        (["--max-mb", "0"], "--max-mb must be at least 0.001, not 0"),
        (["--max-mb", "inf"], "--max-mb must be at most 1000000, not .inf"),
        (["--deadline", "-1"], "--deadline must be at least 0.001"),
        (["--deadline", "inf"], "--deadline must be at most 1000000, not .inf"),
        (["--port", "70000"], "--port must be at most 65535"),
        (["--host", "256.1.1.1"], "can't listen at 256.1.1.1, port 8000"),
        (["nothing"], "nothing"),
    ],
)
def test_what_can_not_be_served_is_refused(segreg, run, words, reason):
    printed = segreg("serve", run.directory.path, *words)
    assert printed.status == 2
    assert reason in printed.err


def test_a_port_that_is_taken_is_named(segreg, run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        printed = segreg("serve", run.directory.path, "--port", port)
    assert printed.status == 2
    assert f"can't listen at 127.0.0.1, port {port}" in printed.err
    assert "--port 0" in printed.err


def test_two_runs_of_one_name_are_refused(segreg, run):
    printed = segreg("serve", run.directory.path, run.directory.path, "--port", 0)
    assert (printed.status, "two of the runs are called" in printed.err) == (2, True)


@pytest.mark.parametrize(("words", "warned"), [([], True), (["--token", "secret"], False)])
def test_an_address_that_others_reach_wants_a_token(segreg, run, monkeypatch, words, warned):
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    printed = segreg("serve", run.directory.path, "--host", "0.0.0.0", "--port", 0, *words)
    assert printed.status == 0
    assert ("--token" in printed.err) == warned


def test_what_is_missing_is_named_with_the_command_that_installs_it(segreg, run, monkeypatch):
    monkeypatch.setattr("segreg.cli.serve.find_spec", lambda name: None if name == "fastapi" else object())
    printed = segreg("serve", run.directory.path)
    assert printed.status == 2
    assert 'serving needs "fastapi"' in printed.err
    assert "[serve]" in printed.err


def test_a_model_is_called_by_two_folders_or_by_its_name_on_the_hub(tmp_path):
    file = tmp_path / "lesions" / "first" / "network.onnx"
    file.parent.mkdir(parents=True)
    file.touch()
    names = [name_of(word) for word in ("hf://anna/lesions@v1", str(file.parent), str(file))]
    assert names == ["anna/lesions@v1", "lesions/first", "lesions/first"]


def test_answers_are_sent_at_once():
    with bound_socket("127.0.0.1", 0) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # or asyncio leaves TCP_NODELAY off
