"""Who may call the server: a token where one is set, and no page of another site where none is."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from rollout.auth import TOKEN_VARIABLE
from rollout.events_api.problems import Problem
from timepro.system.network import is_loopback

OPEN_PATHS = frozenset({"/", "/health", "/openapi.json", "/docs", "/favicon.ico"})
OPEN_FOLDERS = ("/page/", "/static/")  # the page's files, which hold no secret, and those of /docs


class Guard:
    """ASGI middleware around everything, vLLM's own routes too.

    With a token, every path but the open ones wants `Authorization: Bearer TOKEN`. Without one, which is for loopback
    alone, a browser could be made to call by any web site that its user visits; so the request must name this machine
    as its host, and a browser's must come from a page of this server.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], token: str | None = None) -> None:
        self._app = app
        self._token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        problem = self._problem(scope)
        if problem is None:
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        return await problem.response()(scope, receive, send)

    def _problem(self, scope: Any) -> Problem | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._token:
            if _is_open(scope["path"]) or _same(headers.get("authorization", ""), f"Bearer {self._token}"):
                return None
            return Problem(
                401, "token_required", "A token is required.",
                "This server was started with a token, and the request has none or another one.",
                "Send the header 'Authorization: Bearer TOKEN' with the token that `timepro serve` was started with.",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return Problem(
                403, "unknown_host", f"The request is for host {host!r}.",
                "Without a token this server answers for this machine's own names alone, so that no web site can "
                "reach it through a browser.",
                "Call it as 127.0.0.1 or localhost, or start it with --token-file.",
            )  # fmt: skip
        if origin and urlsplit(origin).netloc != host:
            return Problem(
                403, "other_origin", f"The request comes from a page of {origin!r}.",
                "Without a token this server answers to its own page and to programs, not to other web sites.",
                "Start it with --token-file and send the token.",
            )  # fmt: skip
        return None


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
