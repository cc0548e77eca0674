"""An image that is sent: read into memory within limits, and refused with a status and a reason."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from segreg.data.images import ImageBytes, TooManyPixelsError, read_header, read_image
from segreg.data.rasters import is_georeferenced
from segreg.errors import SegregError
from segreg.inference.predictor import InputImage, Predictor, prepare_image
from segreg.serve.limits import Limits

NAME = "the image"
"""What an image is called in messages: never by a name that was sent."""
FIELD = "image"
"""Of a form, which holds the image."""


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # nothing of a request is written to disk


async def read_upload(request: Request, limits: Limits) -> bytes:
    """Return the file that a request has as its body, or in the field `image` of a form.

    Raises:
        HTTPException: 408 it came too slowly, 413 it is too large, or 422 it is a form without such a file.
    """
    body = await _read_body(request, limits)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return body

    async def content() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await _InMemory(request.headers, content(), max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError) as error:
        raise HTTPException(422, f"the form can't be read: {error}") from None
    try:
        upload = form.get(FIELD)
        if not isinstance(upload, UploadFile):
            raise HTTPException(422, f'the form has no file in the field "{FIELD}"')
        return await upload.read()
    finally:
        await form.close()


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Return the body. What is too much of it is read too, and dropped, or its sender would not read the answer."""
    body, received = bytearray(), 0
    most = limits.upload_bytes
    closing = {"Connection": "close"}
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                received += len(chunk)
                if received <= most:
                    body += chunk
                elif received > 4 * most:
                    break
    except TimeoutError:
        if received <= most:
            reason = f"the body did not arrive within {limits.body_seconds:g} seconds"
            raise HTTPException(408, reason, closing) from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed before the body's end") from None
    if received > most:
        raise HTTPException(413, f"the body has more than {most:,} bytes", closing)
    return bytes(body)


def open_image(predictor: Predictor, data: bytes, limits: Limits) -> InputImage:
    """Return an image as a network takes it; its size is checked before it is decoded.

    Raises:
        HTTPException: 413 it is too large, 415 it is not an image of a kind that is served, or 422 it is damaged, or
            something else than the network takes.
    """
    source = ImageBytes(NAME, data)
    try:
        height, width, values = read_header(source)
    except TooManyPixelsError:
        raise HTTPException(413, f"{NAME} has more than {limits.pixels:,} pixels") from None
    except SegregError as error:
        raise HTTPException(415, one_line(error)) from None
    if is_georeferenced(source):
        raise HTTPException(415, f"{NAME} is a georeferenced raster, which `segreg predict` takes")
    # Of a TIFF a few bytes may stand for thousands of bands.
    if height * width * max(1, values / max(4, predictor.input.channels + 1)) > limits.pixels:
        bands = f" x {values} values" if values > 4 else ""
        raise HTTPException(
            413, f"{NAME} has {width:,} x {height:,}{bands} pixels; at most {limits.pixels:,} are taken"
        )
    try:
        return prepare_image([predictor], read_image(source), source)
    except SegregError as error:
        raise HTTPException(422, one_line(error)) from None


def one_line(error: SegregError) -> str:
    """Return an error with its hints in one line."""
    return "; ".join(line.strip() for line in str(error).splitlines())
