"""Serves the page in a thread of its own. Read only: nothing that a browser sends changes the monitor."""

from __future__ import annotations

import asyncio
import functools
import hmac
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from timepro.data.audio import read_audio
from timepro.inference.monitor.history import History
from timepro.plots.class_styles import class_styles
from timepro.plots.spectrogram import RATE, spectrogram_jpeg
from timepro.system.network import is_loopback, listening_socket

_FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_CLIP = re.compile(r"\d{8}/[\w.+-]+")
_COOKIE = "timepro_token"
_COLUMNS = 800
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Args:
        status: of this moment, see `Monitor.status`.
        history: events of the last hours.
        clips: folder of the clips.
        labels: in a fixed order, each with a colour of its own.
        hours: of the timeline.
        thresholds: confidence from which a label counts.
    """

    status: Callable[[], dict[str, Any]]
    history: History
    clips: Path
    labels: Sequence[str]
    hours: float
    thresholds: Callable[[str], float]


class PageServer:
    """Listens while it is entered as a context.

    Args:
        shown: see `Shown`.
        host, port: to listen on; port 0 for any.
        token: that a browser must give; empty for none, on loopback alone.
    """

    def __init__(self, shown: Shown, host: str, port: int, token: str) -> None:
        self._shown, self._host, self._token = shown, host, token
        try:
            self._socket = listening_socket(host, port)
        except OSError as error:
            raise ValueError(f"key page: cannot listen on {host}:{port}: {error.strerror or error}") from error
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """What to open in a browser."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/"

    def __enter__(self) -> PageServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *error: object) -> None:
        if self._runner is not None:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _start(self) -> None:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        application = web.Application(middlewares=[guard], client_max_size=1024)
        for path in _FILES:
            application.router.add_get(path, self._file)
        application.router.add_get("/api/status", self._status)
        application.router.add_get("/api/events", self._events)
        application.router.add_get("/clips/{path:.+}", self._clip)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who may look: with a token where there is one, else who asks for this machine by its own name."""
        given = request.query.get("token", "")
        if self._token and given and hmac.compare_digest(given, self._token):
            answer: web.StreamResponse = web.HTTPSeeOther(request.path)  # the token does not stay in the address bar
            answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="Strict", max_age=30 * 86400)
            return answer
        if self._token:
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            known = [request.cookies.get(_COOKIE, ""), bearer]
            if not any(hmac.compare_digest(one.encode(), self._token.encode()) for one in known):
                raise web.HTTPUnauthorized(text="open the page once with ?token=...\n")
        elif not is_loopback(request.url.host or ""):  # another site's name that leads here
            raise web.HTTPForbidden(text="open the page by the address that the monitor has printed\n")
        answer = await handler(request)
        answer.headers.update(_HEADERS)
        return answer

    async def _file(self, request: web.Request) -> web.Response:
        path = Path(__file__).parent / _FILES[request.path]
        return web.Response(text=path.read_text(encoding="utf-8"), content_type=_TYPES[path.suffix])

    async def _status(self, request: web.Request) -> web.Response:
        status = self._shown.status()
        for one in status["now"]:
            one["threshold"] = self._shown.thresholds(one["label"])
        return web.json_response(status, headers={"Cache-Control": "no-store"})

    async def _events(self, request: web.Request) -> web.Response:
        events = self._shown.history.since(time.time() - self._shown.hours * 3600)
        labels = list(dict.fromkeys([*self._shown.labels, *(event["label"] for event in events)]))
        styles = class_styles(self._shown.labels, labels).by_label
        colours = {label: styles[label].colour if styles[label].known else "#5B6770" for label in labels}
        body = {
            "hours": self._shown.hours,
            "colours": colours,
            "events": [e | {"clip": e["clip"] if self._is_there(e["clip"]) else ""} for e in events],
        }
        return web.json_response(body, headers={"Cache-Control": "no-store"})

    def _is_there(self, clip: str) -> bool:
        return bool(clip) and (self._shown.clips / clip).is_file()

    async def _clip(self, request: web.Request) -> web.StreamResponse:
        """A clip's sound (.flac), or its picture (.jpg)."""
        name = request.match_info["path"]
        path = (self._shown.clips / name).with_suffix(".flac")
        if not _CLIP.fullmatch(name) or Path(name).suffix not in (".flac", ".jpg") or not path.is_file():
            raise web.HTTPNotFound(text="there is no such clip\n")
        if name.endswith(".flac"):
            return web.FileResponse(path, headers={"Content-Type": "audio/flac"})
        picture = await asyncio.to_thread(_picture, path)
        return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


@functools.lru_cache(maxsize=64)
def _picture(path: Path) -> bytes:
    return spectrogram_jpeg(read_audio(path, RATE), _COLUMNS)
