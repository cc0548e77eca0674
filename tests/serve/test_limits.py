"""What a server takes, and how it refuses the rest: each limit with its status and one line of reason."""

from __future__ import annotations

import io
import socket
import struct
import tempfile
import threading
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from test_answers import BINARY, FORM, MULTILABEL, as_form, drawn, encoded, pixels, tiff_of

from segreg.data.images import ImageBytes, read_image
from segreg.errors import SegregError
from serving import predictor, serving


def png_of(width, height):
    """Return a PNG whose header names a size, without its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def animation():
    file = io.BytesIO()
    frames = [Image.fromarray(drawn(8, 8, seed=seed)) for seed in range(2)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.fixture(scope="module")
def client():
    with serving(predictor(BINARY), upload_bytes=100_000, pixels=10_000, corners=100) as asked:
        yield asked


PACKBITS, PIXTIFF = 32773, 50013


def tiff_of_more(size, tile, compression=8):
    """Return a TIFF of 16x16 pixels in one tile, whose data become so many bytes."""
    data = b"\x81\0" * (size // 128) if compression == PACKBITS else zlib.compress(bytes(size), 9)
    tags = {256: 16, 257: 16, 258: 8, 259: compression, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


GEOREFERENCED = [(33550, "d", 3, (1.0, 1.0, 0.0), False)]
IMAGE = encoded(drawn(20, 20))


REFUSED = [
    (png_of(50_000, 50_000), "", {}, 413, "more than 10,000 pixels"),
    (png_of(101, 100), "", {}, 413, "at most 10,000"),
    (tiff_of(np.zeros((500, 30, 30), np.uint8), compression="zlib"), "", {}, 413, "x 500 values"),
    (bytes(100_001), "", {}, 413, "100,000 bytes"),
    (as_form(bytes(100_001)), "", {"Content_Type": FORM}, 413, "100,000 bytes"),
    (b"", "", {}, 415, "empty"),
    (b"<html><script>alert(1)</script>", "", {"Content_Type": "text/html"}, 415, "not an image"),
    (b"%PDF-1.7\n", "", {}, 415, "not an image"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "", {"Content_Type": "image/svg+xml"}, 415, "not an image"),
    (animation(), "", {}, 415, "animation"),
    (tiff_of(np.zeros((8, 8, 3), np.uint8), extratags=GEOREFERENCED), "", {}, 415, "georeferenced"),
    (b"II*\0" + bytes(20), "", {}, 415, "damaged"),
    (IMAGE[: len(IMAGE) // 2], "", {}, 422, "damaged"),
    (encoded(np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)), "", {}, 422, "four channels"),
    (tiff_of_more(1 << 24, 16), "", {}, 422, "larger than the image"),
    (tiff_of_more(256, 1 << 14), "", {}, 422, "larger than the image"),
    (tiff_of_more(256, 16, PIXTIFF), "", {}, 422, "is compressed by PIXTIFF; save it uncompressed"),
    (as_form(b"x", field="<script>"), "", {"Content_Type": FORM}, 422, 'field "image"'),
    (b"--other", "", {"Content_Type": FORM}, 422, "form"),
    (b"x", "", {"Content_Type": "multipart/form-data"}, 422, "form"),
    (IMAGE, "model=<b>x</b>", {}, 404, '"a/model"'),
    (IMAGE, "class=lesions", {}, 422, 'did you mean "lesion"?'),
    (IMAGE, "threshold=1.5", {}, 422, "threshold"),
    (IMAGE, "threshold=nan", {}, 422, "threshold"),
    (IMAGE, "form=boxes", {"Accept": "application/json"}, 422, "polygons"),
    (encoded(np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)), "",
     {"Accept": "application/json"}, 413, "too ragged"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "query", "headers", "status", "reason"), REFUSED, ids=[case[-1] for case in REFUSED])
def test_what_is_refused_says_why_in_one_line(client, body, query, headers, status, reason):
    refused = client.predict(body, query, **headers)
    assert (refused.status, refused.headers["X-Content-Type-Options"]) == (status, "nosniff")
    assert reason in refused.error
    assert not set("<>") & set(refused.error)  # nothing that was sent is repeated
    assert client.predict(IMAGE).status == 200


def test_what_is_not_there_is_refused_alike(client):
    assert (client.ask("GET", "/nothing").status, client.ask("GET", "/predict").status) == (404, 405)
    assert client.ask("GET", "/nothing").error == "Not Found"


def test_the_size_is_read_before_anything_is_decoded(client, monkeypatch):
    monkeypatch.setattr("segreg.serve.uploads.read_image", lambda _: pytest.fail("decoded"))
    assert client.predict(encoded(drawn(101, 100))).status == 413


@pytest.mark.parametrize("compression", [8, PIXTIFF, PACKBITS])
def test_a_small_tiff_takes_no_more_memory_than_its_header_says(compression):
    image = ImageBytes("it", tiff_of_more(1 << 24, 16, compression))
    read_image(ImageBytes("imports", tiff_of(np.zeros((8, 8), np.uint8))))
    tracemalloc.start()
    try:
        with suppress(SegregError):
            read_image(image)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_a_body_of_no_stated_length_has_the_same_limit(client):
    assert client.predict(iter([bytes(60_000)] * 5)).status == 413
    assert client.predict(iter([IMAGE[:10], IMAGE[10:]])).status == 200


def test_probabilities_of_all_classes_have_a_limit_of_their_own():
    with serving(predictor(MULTILABEL), answer_bytes=20 * 20 * 2) as asked:
        refused = asked.predict(IMAGE, Accept="application/x-npy")
        assert refused.status == 413
        assert "class=" in refused.error
        assert asked.predict(IMAGE, "class=dog", Accept="application/x-npy").status == 200


def test_the_token_is_asked_for_before_anything_else():
    with serving(predictor(BINARY), token="secret") as asked:
        for path in ("/models", "/metrics"):
            assert asked.ask("GET", path).status == 401
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"Authorization": "\xff"}):
            refused = asked.predict(b"no image", "model=none", **given)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "Bearer TOKEN" in refused.error
        assert asked.predict(IMAGE, Authorization="Bearer secret").status == 200
        assert [asked.ask("GET", path).status for path in ("/", "/livez", "/readyz")] == [200, 200, 200]


def test_a_body_that_comes_too_slowly_is_given_up():
    with serving(predictor(BINARY), body_seconds=0.5) as asked:
        with socket.create_connection(("127.0.0.1", asked.port), timeout=60) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
            answer = b"".join(iter(lambda: slow.recv(4096), b""))  # until the server closes it
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'{"error":"the body did not arrive within 0.5 seconds"}' in answer
        assert asked.predict(IMAGE).status == 200


def test_a_sender_that_leaves_is_no_error(caplog):
    with serving(predictor(BINARY)) as asked:
        with socket.create_connection(("127.0.0.1", asked.port), timeout=60) as left:
            left.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        asked.until("/metrics", b'status="400"} 1')
        assert asked.predict(IMAGE).status == 200
    assert caplog.records == []


def in_threads(*calls):
    """Call each in a thread, and return the threads and the list that their results are appended to."""
    found = []
    threads = [threading.Thread(target=lambda call=call: found.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    return threads, found


def test_too_many_requests_are_refused_at_once_and_the_others_answered():
    one = predictor(BINARY)
    with serving(one, requests=3) as asked:
        one.model.free.clear()
        threads, found = in_threads(*[lambda: asked.predict(IMAGE)] * 3)
        asked.until("/metrics", b"in_progress 3")
        refused = asked.predict(IMAGE)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert "too many requests" in refused.error
        assert asked.ask("GET", "/livez").status == 200
        one.model.free.set()
        for thread in threads:
            thread.join(60)
        assert [answer.status for answer in found] == [200] * 3


def test_a_request_has_a_deadline_and_is_not_predicted_after_it():
    one = predictor(BINARY)
    with serving(one, deadline_seconds=2) as asked:
        one.model.free.clear()
        threads, found = in_threads(lambda: asked.predict(IMAGE))
        assert one.model.reached.acquire(timeout=60)  # this one is in the network
        late = asked.predict(encoded(drawn(24, 20)))  # and this one waits
        threads[0].join(60)
        assert (late.status, found[0].status) == (504, 504)
        assert "2 seconds" in late.error
        one.model.free.set()
        assert asked.predict(IMAGE).status == 200
        assert [shape[-2:] for shape in one.model.batches] == [(20, 20), (20, 20)]  # the late one was left out


def test_waiting_images_of_one_size_are_predicted_at_once():
    one = predictor(BINARY)
    with serving(one) as asked:
        one.model.free.clear()
        images = [drawn(20, 20, seed=0), *(drawn(24, 20 + 4 * (n == 2), seed=n) for n in range(5))]
        first, _ = in_threads(lambda: asked.predict(encoded(images[0])))
        assert one.model.reached.acquire(timeout=60)
        answers = {}
        more, _ = in_threads(
            *(lambda n=n: answers.setdefault(n, asked.predict(encoded(images[n]))) for n in range(1, 6))
        )
        asked.until("/metrics", b"segreg_waiting 5")
        one.model.free.set()
        for thread in (*first, *more):
            thread.join(60)
        assert sorted(one.model.batches[1:]) == [(1, 3, 24, 24), (4, 3, 24, 20)]
        for number, answer in answers.items():
            alone = asked.predict(encoded(images[number]))
            np.testing.assert_array_equal(pixels(answer.body), pixels(alone.body))


def test_nothing_of_a_request_is_written_to_disk(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a temporary file")

    with serving(predictor(BINARY)) as asked:
        for name in ("_TemporaryFileWrapper", "NamedTemporaryFile", "TemporaryFile", "mkstemp", "_mkstemp_inner"):
            monkeypatch.setattr(tempfile, name, refuse)
        noise = np.random.default_rng(0).integers(0, 256, (1200, 1000, 3), dtype=np.uint8)
        for body in (encoded(noise), tiff_of(noise)):  # above the megabyte that a form is kept in memory by itself
            assert len(body) > 3_000_000
            assert asked.predict(as_form(body), Content_Type=FORM).status == 200


def test_it_is_ready_after_a_trial_prediction():
    one = predictor(BINARY)
    one.model.free.clear()
    with serving(one) as asked:
        assert one.model.reached.acquire(timeout=60)
        assert asked.ask("GET", "/livez").body == b"ok"
        waiting = asked.ask("GET", "/readyz")
        assert waiting.status == 503
        assert "trial prediction" in waiting.error
        one.model.free.set()
        asked.until("/readyz", b"ok")
        assert one.model.batches == [(1, 3, 24, 32)]


def test_a_network_that_fails_is_not_ready_and_says_nothing_of_its_inside():
    one = predictor(BINARY)
    one.model.register_buffer("slopes", one.model.slopes.reshape(-1)[:0])
    with serving(one, ready=False) as asked:
        asked.until("/readyz", b"failed")
        failed = asked.predict(IMAGE)
        assert (failed.status, failed.error) == (500, "the server failed; its log has the reason")


def test_images_that_fail_together_are_predicted_one_by_one(monkeypatch):
    one = predictor(BINARY)
    network = one.model
    with serving(one) as asked:
        network.free.clear()
        first, _ = in_threads(lambda: asked.predict(IMAGE))
        assert network.reached.acquire(timeout=60)
        threads, found = in_threads(*[lambda: asked.predict(IMAGE)] * 3)
        asked.until("/metrics", b"segreg_waiting 3")
        forward = network.forward
        monkeypatch.setattr(network, "forward", lambda images: forward(images) if len(images) == 1 else 1 / 0)
        network.free.set()
        for thread in (*first, *threads):
            thread.join(60)
        assert [answer.status for answer in found] == [200] * 3
        assert network.batches == [(1, 3, 20, 20)] * 4
