"""The HTTP interface: routes, the limit of requests, the deadline, counts for Prometheus."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from time import perf_counter
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from segreg.errors import SegregError, did_you_mean, listed
from segreg.inference.predictor import Predictor
from segreg.registry.compatibility import DISTRIBUTION
from segreg.runtime.device import out_of_memory
from segreg.serve.answers import MASK, MEDIA_TYPES, PROBABILITIES, Form, encode, media_type, wanted_values
from segreg.serve.limits import Limits
from segreg.serve.uploads import FIELD, one_line, open_image, read_upload
from segreg.serve.worker import Job, Worker
from segreg.task import label_names
from segreg.visualize.colours import label_colours

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds of the histogram of what requests take."""
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary"}},
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}
_REFUSALS = {
    401: "the token is missing or wrong", 404: "there is no such model", 406: "no such answer",
    408: "the body came too slowly", 413: "too many bytes or pixels", 415: "not an image that is served",
    422: "a damaged image, another than the network takes, or a wrong parameter", 503: "too many requests",
    504: "not answered before the deadline",
}  # fmt: skip


@dataclass(frozen=True)
class ServedModel:
    """A network that is served.

    Attributes:
        predictor: the network; its name is what requests call it.
        notice: what must not be overlooked of the data that it was trained on.
    """

    predictor: Predictor
    notice: str = ""

    def plain(self) -> dict[str, Any]:
        """Return what clients need to know of it, as JSON holds it."""
        one, task = self.predictor, self.predictor.task
        colours = dict(zip(label_names(task), label_colours(task), strict=True))
        return {
            "name": one.name,
            "mode": task.mode,
            "classes": [
                {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colours[name])} for name in task.classes
            ],
            "threshold": None if task.mode == "multiclass" or one.returns_labels else one.threshold,
            "channels": one.input.channels,
            "device": str(one.device),
            "precision": one.precision.name,
            "notice": self.notice,
        }


class Service:
    """What is behind the routes: the networks with their thread, and the requests that are being answered."""

    def __init__(self, models: Mapping[str, ServedModel], limits: Limits, token: str | None = None) -> None:
        self.models = models
        self.limits = limits
        self.token = token
        self.worker = Worker([model.predictor for model in models.values()])
        self._images = ThreadPoolExecutor(2, "images")  # decode and encode
        self._requests = 0
        self._statuses: Counter[int] = Counter()
        self._seconds: Counter[float] = Counter()
        self._seconds_sum = 0.0

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Run the thread of the networks; by the end of it all requests have been answered."""
        self.worker.start()
        yield
        self.worker.stop()
        self._images.shutdown()

    async def authorize(self, request: Request) -> None:
        """Refuse a request without the token, where there is one."""
        if self.token is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {self.token}".encode()):
            raise HTTPException(401, "the header Authorization must be: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    async def predict(
        self,
        request: Request,
        model: Annotated[str | None, Query(description="of /models; the first if left out")] = None,
        threshold: Annotated[float | None, Query(ge=0, le=1, description="from which a pixel is foreground")] = None,
        label: Annotated[str | None, Query(alias="class", description="only this class")] = None,
        form: Annotated[
            Form, Query(description="of JSON: outlines, run lengths, or PNGs of probabilities")
        ] = "polygons",
    ) -> Response:
        """Predict one image: the body, or the field `image` of a form. The header Accept chooses the answer."""
        media = media_type(request.headers.get("accept", MASK))
        predictor = self._model(model).predictor
        layer = _layer(predictor, label)
        if predictor.returns_labels and (threshold is not None or media == PROBABILITIES):
            raise HTTPException(422, "this network returns labels: it has no probabilities and no other threshold")
        if threshold is not None and predictor.task.mode == "multiclass":
            raise HTTPException(
                422, "these classes exclude each other: the most probable is predicted, by no threshold"
            )
        with self._place():
            try:
                async with asyncio.timeout(self.limits.deadline_seconds):
                    return await self._answer(
                        request, predictor, threshold=threshold, layer=layer, media=media, form=form
                    )
            except TimeoutError:
                reason = f"not answered within {self.limits.deadline_seconds:g} seconds"
                raise HTTPException(504, reason, {"Connection": "close"}) from None

    async def _answer(
        self,
        request: Request,
        predictor: Predictor,
        *,
        threshold: float | None,
        layer: int | None,
        media: str,
        form: Form,
    ) -> Response:
        clock, task = Stages(), predictor.task
        body = await read_upload(request, self.limits)
        clock.ended("read")
        image = await self._in_thread(open_image, predictor, body, self.limits)
        values = wanted_values(media, form, task)
        if values != "labels":
            needed = image.size[0] * image.size[1] * (1 if layer is not None else task.channels) * 2
            if needed > self.limits.answer_bytes:
                raise HTTPException(413, f"the probabilities of all classes take {needed:,} bytes; name one by class=")
        clock.ended("decode")
        job = Job(predictor, image, threshold, values, layer)
        self.worker.submit(job)
        try:
            found = await asyncio.wrap_future(job.done)
        except SegregError as error:
            raise HTTPException(422, one_line(error)) from None
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise HTTPException(503, "the memory does not suffice for this image") from None
        clock.ended("wait", found.waited)
        clock.ended("network", found.computed)
        content = await self._in_thread(
            partial(encode, media, form, task=task, image=image, values=found.values, layer=layer, limits=self.limits,
                    threshold=predictor.threshold if threshold is None else threshold)
        )  # fmt: skip
        clock.ended("encode")
        headers = {"Server-Timing": str(clock), "Cache-Control": "no-store", "Vary": "Accept"}
        return Response(content, media_type=media, headers=headers)

    def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self._images, call, *arguments)

    def _model(self, name: str | None) -> ServedModel:
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise HTTPException(404, f"there is no such model; there is {listed([*self.models])}")
        return self.models[name]

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Count a request while it is answered, or refuse it at once where there are too many."""
        if self._requests >= self.limits.requests:
            raise HTTPException(503, "too many requests; try again", {"Retry-After": "1"})
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def list_models(self) -> list[dict[str, Any]]:
        """Return the models with their classes and colours."""
        return [model.plain() for model in self.models.values()]

    async def live(self) -> str:
        """Return that the server answers."""
        return "ok"

    async def ready(self) -> str:
        """Return that every network has made a trial prediction."""
        if self.worker.not_ready:
            raise HTTPException(503, self.worker.not_ready)
        return "ok"

    async def count(self, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        """Count the requests of `/predict` by status, and sum their seconds."""
        began, status = perf_counter(), 500
        try:
            response = await answer(request)
            status = response.status_code
        finally:
            if request.url.path == "/predict":
                seconds = perf_counter() - began
                self._statuses[status] += 1
                self._seconds[next((bound for bound in _SECONDS if seconds <= bound), float("inf"))] += 1
                self._seconds_sum += seconds
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def metrics(self) -> str:
        """Return counts in the text format of Prometheus."""
        lines = ["# TYPE segreg_requests_total counter"]
        lines += [f'segreg_requests_total{{status="{s}"}} {count}' for s, count in sorted(self._statuses.items())]
        lines += ["# TYPE segreg_request_seconds histogram"]
        below = 0
        for bound in (*_SECONDS, float("inf")):
            below += self._seconds[bound]
            lines.append(f'segreg_request_seconds_bucket{{le="{"+Inf" if bound > _SECONDS[-1] else bound}"}} {below}')
        lines += [f"segreg_request_seconds_sum {self._seconds_sum}", f"segreg_request_seconds_count {below}"]
        for name, kind, value in (
            ("requests_in_progress", "gauge", self._requests),
            ("waiting", "gauge", self.worker.waiting),
            ("images_total", "counter", self.worker.images),
            ("batches_total", "counter", self.worker.batches),
            ("ready", "gauge", int(not self.worker.not_ready)),
        ):
            lines += [f"# TYPE segreg_{name} {kind}", f"segreg_{name} {value}"]
        return "\n".join(lines) + "\n"


class Stages:
    """How long the stages of a request took, as the header Server-Timing has it."""

    def __init__(self) -> None:
        self._began = perf_counter()
        self._stages: list[str] = []

    def ended(self, name: str, seconds: float | None = None) -> None:
        """Note a stage; without seconds, that it ran since the one before."""
        now = perf_counter()
        self._stages.append(f"{name};dur={1000 * (now - self._began if seconds is None else seconds):.1f}")
        self._began = now

    def __str__(self) -> str:
        return ", ".join(self._stages)


def create_app(models: Mapping[str, ServedModel], limits: Limits, token: str | None = None) -> FastAPI:
    """Return the application.

    Args:
        models: by the name that requests call them.
        limits: what is taken of a client.
        token: that requests must have; None: any may come.
    """
    service = Service(models, limits, token)
    app = FastAPI(
        title="segreg", version=version(DISTRIBUTION), lifespan=service.lifespan, docs_url=None, redoc_url=None
    )
    guarded: dict[str, Any] = {"dependencies": [Depends(service.authorize)]}
    app.add_api_route(
        "/predict", service.predict, methods=["POST"], response_class=Response, openapi_extra={"requestBody": _BODY},
        responses={200: {"content": {media: {} for media in MEDIA_TYPES}, "description": "the prediction"},
                   **{status: {"description": text} for status, text in _REFUSALS.items()}}, **guarded,
    )  # fmt: skip
    app.add_api_route("/models", service.list_models, **guarded)
    app.add_api_route("/metrics", service.metrics, response_class=PlainTextResponse, **guarded)
    app.add_api_route("/livez", service.live, response_class=PlainTextResponse)
    app.add_api_route("/readyz", service.ready, response_class=PlainTextResponse)
    content, policy = _page()
    page = HTMLResponse(content, headers={"Content-Security-Policy": policy})
    app.add_api_route("/", lambda: page, include_in_schema=False)
    app.middleware("http")(service.count)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return app


def _layer(predictor: Predictor, label: str | None) -> int | None:
    """Return the number of the class that is asked for."""
    classes = predictor.task.classes
    if label is not None and label not in classes:
        hint = did_you_mean(label, classes) or f"the classes are {listed(classes)}"
        raise HTTPException(422, f"there is no such class; {hint}")
    return None if label is None else classes.index(label)


def _page() -> tuple[str, str]:
    """Return the page and the policy that lets a browser run its script, take its style, and fetch nothing else."""
    content = files("segreg.serve").joinpath("page.html").read_text(encoding="utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for tag, text in re.findall(r"<(script|style)>(.*?)</\1>", content, re.DOTALL)
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, policy


async def _refused(_: Request, error: Any) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _invalid(_: Request, error: Any) -> Response:
    return JSONResponse({"error": "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())}, 422)


async def _failed(*_: Any) -> Response:
    return JSONResponse({"error": "the server failed; its log has the reason"}, 500)
