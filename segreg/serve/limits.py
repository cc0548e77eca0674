"""What a server takes of its clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is taken of a client, and how much of it at once.

    Attributes:
        upload_bytes: of a request's body.
        pixels: of an image, by its header.
        answer_bytes: of an answer with probabilities.
        corners: of all polygons, or ends of all runs, of an answer.
        requests: that are read, wait or are answered; more are turned away.
        body_seconds: until the whole body has arrived.
        deadline_seconds: until the request is answered.
    """

    upload_bytes: int = 20_000_000
    pixels: int = 25_000_000
    answer_bytes: int = 256_000_000
    corners: int = 1_000_000
    requests: int = 64
    body_seconds: float = 10
    deadline_seconds: float = 30
