"""Fetching the ISIC 2018 archives, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from segreg.errors import SegregError
from segreg_plugins.datasets.download import CHECKSUMS, download, fetch, unpack
from segreg_plugins.datasets.isic2018 import isic2018

INPUT, TRUTH = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def encoded(image: Image.Image, kind: str) -> bytes:
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


ARCHIVES = {
    f"{INPUT}.zip": zipped(
        {f"{INPUT}/LICENSE.txt": b"CC-0"}
        | {f"{INPUT}/ISIC_000000{i}.jpg": encoded(Image.new("RGB", (64, 48), (i, 90, 80)), "JPEG") for i in range(4)}
    ),
    f"{TRUTH}.zip": zipped(
        {f"{TRUTH}/ISIC_000000{i}_segmentation.png": encoded(Image.new("L", (64, 48)), "PNG") for i in range(4)}
    ),
}
SUMS = {name.removesuffix(".zip"): hashlib.sha256(data).hexdigest() for name, data in ARCHIVES.items()}


class Server:
    """A file server that can break off, ignore ranges, or answer with errors."""

    def __init__(self) -> None:
        self.files = dict(ARCHIVES)
        self.etag = '"1"'
        self.break_after: list[int] = []
        self.errors: list[int] = []
        self.ranges = True
        self.asked: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/2018"
        self.thread = threading.Thread(target=partial(self.http.serve_forever, poll_interval=0.02))
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        data = self.files.get(request.path.rpartition("/")[2])
        if self.errors or data is None:
            request.send_error(self.errors.pop(0) if self.errors else 404)
            return
        start = 0
        same = request.headers.get("If-Range", self.etag) == self.etag
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(data)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(data) - start))
        request.send_header("ETag", self.etag)
        request.end_headers()
        rest = data[start:]
        request.wfile.write(rest[: self.break_after.pop(0)] if self.break_after else rest)

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def fetch_all(root: Path, server: Server, folders=(INPUT, TRUTH)) -> None:
    download(root, folders, source=server.url, checksums=SUMS, pause=0.0)


def test_what_is_fetched_can_be_read(tmp_path, server, capfd):
    root = tmp_path / "new" / "isic"
    fetch_all(root, server)
    assert sorted(path.name for path in root.iterdir()) == [INPUT, TRUTH]
    dataset = isic2018(root=root)
    assert len(dataset.samples) == 4
    assert dataset.read_mask(dataset.samples[0]).shape == (48, 64)
    reported = capfd.readouterr().err
    assert f"fetching {INPUT}.zip: 100% of" in reported
    assert f"unpacking {TRUTH}.zip: 100% of" in reported


def test_a_broken_connection_goes_on_where_it_stopped(tmp_path, server):
    server.break_after = [100, 50, 0, 7]
    fetch_all(tmp_path, server, [INPUT])
    assert server.asked == [None, "bytes=100-", "bytes=150-", "bytes=150-", "bytes=157-"]
    assert len(list((tmp_path / INPUT).glob("*.jpg"))) == 4


def test_a_later_call_goes_on_where_an_earlier_one_stopped(tmp_path, server):
    server.break_after = [300, 0, 0, 0, 0, 0]
    with pytest.raises(SegregError, match=r"stopped after 300 bytes \(.*\)\n  the same command continues from there"):
        fetch_all(tmp_path, server, [INPUT])
    server.break_after = []
    server.asked.clear()
    fetch_all(tmp_path, server, [INPUT])
    assert server.asked == ["bytes=300-"]
    assert [path.name for path in tmp_path.iterdir()] == [INPUT]


def test_a_changed_file_and_a_server_without_ranges_begin_anew(tmp_path, server):
    target, name = tmp_path / "a.zip", f"{TRUTH}.zip"
    for change in ("etag", "ranges"):
        server.break_after = [10, 0, 0, 0, 0, 0]
        with pytest.raises(SegregError):
            fetch(f"{server.url}/{name}", target, pause=0.0)
        server.break_after = []
        server.etag = '"2"' if change == "etag" else server.etag
        server.ranges = change != "ranges"
        fetch(f"{server.url}/{name}", target, pause=0.0)
        assert target.read_bytes() == ARCHIVES[name]
        target.unlink()
        assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_already_whole_is_taken(tmp_path, server):
    name = f"{TRUTH}.zip"
    (tmp_path / f"{name}.part").write_bytes(ARCHIVES[name])
    fetch(f"{server.url}/{name}", tmp_path / name, pause=0.0)
    assert (tmp_path / name).read_bytes() == ARCHIVES[name]
    (tmp_path / f"{name}.part").write_bytes(ARCHIVES[name] + b"too much")
    fetch(f"{server.url}/{name}", tmp_path / name, pause=0.0)
    assert (tmp_path / name).read_bytes() == ARCHIVES[name]


def test_server_errors_are_tried_again_and_refusals_are_reported(tmp_path, server):
    server.errors = [503, 500]
    fetch_all(tmp_path, server, [TRUTH])
    with pytest.raises(SegregError, match="the server answers 404 Not Found\n  the challenge may have moved its files"):
        fetch(f"{server.url}/nothing.zip", tmp_path / "nothing.zip")
    server.errors = [503] * 5
    with pytest.raises(SegregError, match=r"stopped after 0 bytes \(the server answers 503"):
        fetch_all(tmp_path, server, [INPUT])


def test_a_wrong_checksum_is_refused(tmp_path, server):
    server.files[f"{TRUTH}.zip"] = zipped({"a.png": b"something else"})
    with pytest.raises(SegregError, match=rf"{TRUTH}.zip: its SHA-256 is [0-9a-f]+, not {SUMS[TRUTH]}; it is kept as"):
        fetch_all(tmp_path, server, [TRUTH])
    assert [path.name for path in tmp_path.iterdir()] == [f"{TRUTH}.zip.wrong"]


def test_an_archive_that_was_fetched_by_hand_is_checked_and_unpacked(tmp_path, server):
    (tmp_path / f"{TRUTH}.zip").write_bytes(ARCHIVES[f"{TRUTH}.zip"])
    fetch_all(tmp_path, server, [TRUTH])
    assert server.asked == []
    assert len(list((tmp_path / TRUTH).iterdir())) == 4


def test_offline_what_is_there_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("segreg_plugins.datasets.download._check_reachable", lambda _: pytest.fail("asks the network"))
    (tmp_path / f"{TRUTH}.zip").write_bytes(ARCHIVES[f"{TRUTH}.zip"])
    download(tmp_path, [TRUTH], checksums=SUMS)
    assert [path.name for path in tmp_path.iterdir()] == [TRUTH]


def test_what_a_killed_process_unpacked_goes_and_what_another_one_fetched_stays(tmp_path, server):
    (tmp_path / ".unpacking-abc").mkdir()
    (tmp_path / ".unpacking-abc/half.png").touch()
    (tmp_path / INPUT).mkdir()
    fetch_all(tmp_path, server)
    assert sorted(path.name for path in tmp_path.iterdir()) == [INPUT, TRUTH]
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
def test_nothing_is_unpacked_outside(tmp_path, name):
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / "a.zip"
    archive.write_bytes(zipped({"a/fine.png": b"1", name: b"2"}))
    with pytest.raises(SegregError, match="which leads out of it; nothing was unpacked"):
        unpack(archive, tmp_path / "in" / "a")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["in", "in/a.zip"]


def test_links_doubles_and_damage_are_refused(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(SegregError, match="leads out of it"):
        unpack(archive, tmp_path / "a")
    archive.write_bytes(zipped({"a/x.png": b"1", "b/x.png": b"2"}))
    with pytest.raises(SegregError, match="holds two files of one name"):
        unpack(archive, tmp_path / "a")
    data = bytearray(zipped({"a/x.png": bytes(range(256)) * 20}))
    data[60] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(SegregError, match=r"a.zip: is damaged"):
        unpack(archive, tmp_path / "a")
    archive.write_bytes(b"<html>")
    with pytest.raises(SegregError, match=r"a.zip: is damaged"):
        unpack(archive, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_full_disk_is_reported_before_fetching(tmp_path, server, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(SegregError, match=r"are needed, and 1\.0 kB are free"):
        fetch_all(tmp_path, server, [INPUT])


def test_offline_is_reported_with_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers there
        with pytest.raises(SegregError) as caught:
            download(tmp_path / "isic", [INPUT], source=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "127.0.0.1 can't be reached" in str(caught.value)
    assert "dataset.if_missing: synthetic" in str(caught.value)
    assert not (tmp_path / "isic").exists()


def test_a_name_look_up_that_hangs_ends_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    done = threading.Event()

    def hang(*_, **__):
        done.wait(20)
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setitem(download.__globals__, "_PATIENCE", 0.05)
    try:
        with pytest.raises(SegregError, match=r"example.invalid can't be reached \(no answer\)"):
            download(tmp_path, [INPUT], source="http://example.invalid")
    finally:
        done.set()


def test_a_second_process_is_kept_out(tmp_path, server):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".download.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SegregError, match="another process is downloading into it"):
            fetch_all(tmp_path, server)


def test_isic2018_asks_for_what_is_absent(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setitem(download.__globals__, "download", lambda root, folders: asked.append((root, folders)))
    with pytest.raises(SegregError, match="there is no folder"):
        isic2018(root=tmp_path, if_missing="download")
    assert asked == [(tmp_path, [INPUT, TRUTH])]


def test_every_part_has_a_checksum():
    from segreg_plugins.datasets.challenge import PARTS, input_folder, truth_folder

    assert set(CHECKSUMS) == {name(part) for part in PARTS for name in (input_folder, truth_folder)}
    assert all(len(bytes.fromhex(value)) == 32 for value in CHECKSUMS.values())
