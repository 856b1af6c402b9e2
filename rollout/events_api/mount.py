"""The events API inside vLLM's server, by its `--middleware`: our paths are answered here, all others by vLLM."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from rollout.auth import TOKEN_VARIABLE
from rollout.events_api.app import build_app
from rollout.events_api.checkpoint import CheckpointListener
from rollout.events_api.listening import Listener
from rollout.events_api.problems import Problem
from rollout.events_api.settings import SETTINGS_VARIABLE, ServeSettings, own_address

_OURS = frozenset({"/", "/favicon.ico", "/openapi.json", "/v1/events", "/v1/events/file"})
_WINDOW_S, _HEALTH_S = 120.0, 10.0
_INNER = "timepro.vllm"  # in a request's scope: vLLM's application, as FastAPI puts its own in its place


class EventsRoutes:
    """ASGI middleware: the events API, the page, and a health that only the engine can tell."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._vllm = app
        settings = ServeSettings.from_json(os.environ[SETTINGS_VARIABLE])
        token = os.environ.get(TOKEN_VARIABLE, "")

        @functools.cache
        def listener() -> Listener:
            window_s = min(_WINDOW_S, settings.time_limit_s)
            return CheckpointListener(Path(settings.checkpoint), own_address(settings), token, window_s)

        listener()  # a folder that cannot be read ends the start, not the first request
        self._events = build_app(settings, listener, base=described_by)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http":
            return await self._vllm(scope, receive, send)
        if path == "/health":
            return await (await _health(scope["app"].state.engine_client))(scope, receive, send)
        if path in _OURS or path.startswith("/page/"):
            return await self._events({**scope, _INNER: scope["app"]}, receive, send)
        return await self._vllm(scope, receive, send)


async def _health(engine: Any) -> JSONResponse:
    """Whether the engine answers: the server in front of it stays well when the engine hangs."""
    try:
        await engine.check_health()
        await asyncio.wait_for(engine.is_sleeping(), _HEALTH_S)
    except Exception as error:
        why = f"{type(error).__name__} {error}".strip() if not isinstance(error, TimeoutError) else "no answer"
        return Problem(
            503, "unhealthy", "The model does not answer.", f"The engine, asked for {_HEALTH_S:g} s: {why}.",
            "Start the server again; its log says what happened.",
        ).response()  # fmt: skip
    return JSONResponse({"status": "ok"})


def described_by(request: Request) -> dict[str, Any]:
    """vLLM's own OpenAPI document."""
    document: dict[str, Any] = request.scope[_INNER].openapi()
    return document
