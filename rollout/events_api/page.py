"""The page at `/`: plain files of this folder, which ask nobody but this server."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse

_FOLDER = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _KINDS}
# Nothing from elsewhere, nothing inline; a recording is played from the browser's own memory.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
        "media-src blob:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Add the page's routes."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return _file("index.html")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> FileResponse:
        return _file("icon.svg")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return _file(name) if name in FILES else Response(status_code=404)


def _file(name: str) -> FileResponse:
    return FileResponse(FILES[name], media_type=_KINDS[FILES[name].suffix], headers=_HEADERS)
