"""The events API as an application of its own, which knows nothing of vLLM: routes, streaming, OpenAPI, the page."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import ValidationError

from rollout.events_api.documents import EVENTS_BODY, FILE_FORMATS, PROBLEMS, described
from rollout.events_api.line import Line
from rollout.events_api.listening import Listener
from rollout.events_api.metrics import Metrics
from rollout.events_api.models import EventsReply, FileFormat, FileRequest, Info, Limits, Look, Progress
from rollout.events_api.page import add_page
from rollout.events_api.problems import Problem, of_validation, problem_response
from rollout.events_api.running import Runner
from rollout.events_api.settings import ServeSettings
from rollout.events_api.uploads import limited, read_upload
from timepro import __version__
from timepro.data.event_formats import FORMATS, events_text
from timepro.plots.class_styles import class_styles

LINES = "application/x-ndjson"
_GONE_STEP_S = 1.0
_FILE_MIB = 32


def build_app(
    settings: ServeSettings,
    listener: Callable[[], Listener],
    registry: CollectorRegistry | None = None,
    base: Callable[[Request], dict[str, Any]] | None = None,
) -> FastAPI:
    """The application.

    Args:
        listener: gives what answers, asked for at every request: the model is loaded after the routes are made.
        registry: for Prometheus; None for the process's own.
        base: gives the OpenAPI document that these routes are added to.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="TimePro-RL", version=__version__)
    line = Line(settings.at_once, settings.queue)
    metrics = Metrics(line, registry)
    runner = Runner(listener, settings, line, metrics)
    app.add_exception_handler(Problem, problem_response)

    @app.post("/v1/events", response_model=EventsReply, responses=PROBLEMS, openapi_extra=EVENTS_BODY)
    async def events(request: Request) -> Response:
        """Find the events of a recording.

        With `Accept: application/x-ndjson` the answer comes line by line: objects of kind `progress` while it is being
        made, then the one of kind `events`, or one with the key `error`.
        """
        try:
            response = await _answer(request, settings, line, runner)
        except Problem as problem:
            response = problem.response()
        metrics.requests.labels(str(response.status_code)).inc()
        return response

    @app.get("/v1/events", response_model=Info, responses=PROBLEMS)
    async def info() -> Info:
        """What is served: tasks, classes, formats, limits."""
        model = listener()
        limits = Limits(
            max_upload_mib=settings.max_upload_mib, max_audio_s=settings.max_audio_s,
            time_limit_s=settings.time_limit_s, queue=settings.queue, at_once=settings.at_once,
        )  # fmt: skip
        styles = class_styles(model.classes, model.classes).by_label
        return Info(
            model=model.name, tasks=list(model.tasks), classes=list(model.classes),
            looks={label: Look(colour=s.colour, hatch=s.hatch, ink=s.ink) for label, s in styles.items() if label},
            formats=[FileFormat(name=form.name, suffix=form.suffix, about=form.about) for form in FORMATS.values()],
            limits=limits, version=__version__,
        )  # fmt: skip

    @app.post("/v1/events/file", responses=PROBLEMS | FILE_FORMATS, response_class=Response)
    async def file(request: Request, format: str = "tsv") -> Response:
        """Write events as a file in one of the formats that `GET /v1/events` names."""
        body = await limited(request, min(_FILE_MIB, settings.max_upload_mib), settings.idle_s).body()
        return _file(body, format)

    if registry is not None:

        @app.get("/metrics", include_in_schema=False)
        async def numbers() -> Response:
            return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> dict[str, Any]:
        return described(app, base(request) if base else {})

    add_page(app)
    return app


async def _answer(request: Request, settings: ServeSettings, line: Line, runner: Runner) -> Response:
    deadline = time.monotonic() + settings.time_limit_s
    place = line.enter()
    folder = Path(tempfile.mkdtemp(prefix="timepro-events-"))
    handed_over = False
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + settings.time_limit_s):
            upload = await read_upload(request, folder, settings)
        handed_over = True
    except TimeoutError:
        raise Problem(
            408, "too_slow", f"The body did not arrive within {settings.time_limit_s:g} s.",
            "That is all the time that a request may take.", "Send it over a faster line, or compress it.",
        ) from None  # fmt: skip
    finally:
        if not handed_over:
            place.leave()
            shutil.rmtree(folder, ignore_errors=True)
    if LINES in request.headers.get("accept", ""):
        told: asyncio.Queue[Progress] = asyncio.Queue()
        # Begun here: nobody would give the place back for a client that is gone before its first line.
        task = asyncio.ensure_future(runner.run(place, upload, folder, deadline, told.put_nowait))
        return StreamingResponse(_lines(task, told), media_type=LINES, headers={"X-Accel-Buffering": "no"})
    reply = await _unless_gone(request, runner.run(place, upload, folder, deadline, lambda _: None))
    return Response(reply.model_dump_json(), media_type="application/json")


async def _unless_gone(request: Request, work: Any) -> EventsReply:
    """The work's result; the work is stopped when the client closes its connection."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_GONE_STEP_S)
            if not task.done() and await request.is_disconnected():
                raise Problem(
                    499, "client_gone", "The client has closed the connection.", "Nobody waits for the answer.",
                    "Send it again.",
                )  # fmt: skip
        reply: EventsReply = task.result()
        return reply
    finally:
        await _end(task)


async def _lines(task: asyncio.Future[EventsReply], told: asyncio.Queue[Progress]) -> AsyncIterator[str]:
    """Progress, then the events or an error, an object a line."""
    try:
        while not task.done() or not told.empty():
            next_one = asyncio.ensure_future(told.get())
            either: list[asyncio.Future[Any]] = [task, next_one]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if next_one.done():
                yield next_one.result().model_dump_json() + "\n"
            else:
                await _end(next_one)
        try:
            yield task.result().model_dump_json() + "\n"
        except Problem as problem:
            yield problem.line()
    finally:
        await _end(task)


async def _end(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _file(body: bytes, form: str) -> Response:
    try:
        asked = FileRequest.model_validate_json(body)
        kept = [event for event in asked.events if event.kept]
        content = events_text(form, {asked.file: kept}, {asked.file: asked.duration})
    except ValidationError as error:
        raise of_validation(error) from None
    except ValueError as error:
        raise Problem(
            422, "cannot_write", str(error), f"These events cannot be written as {form}.",
            f"Formats are {', '.join(FORMATS)}.",
        ) from None  # fmt: skip
    return Response(content.encode(), media_type=FORMATS[form].media_type)
