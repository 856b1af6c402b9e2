"""Receivers of a monitor's messages for tests: an HTTP one on loopback that fails on purpose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Answers POSTs with the statuses of `answers`, one each, then with 200; keeps what it has got.

    Args:
        port: 0 for any; the same one again for a receiver that comes back.
    """

    def __init__(self, port: int = 0, answers: tuple[int, ...] = (), wait_s: float = 0.0) -> None:
        self.taken: list[dict[str, Any]] = []  # bodies that were answered with 2xx
        self.seen: list[tuple[dict[str, str], bytes]] = []  # headers and body of all requests
        left, receiver = list(answers), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.seen.append((dict(self.headers), body))
                status = left.pop(0) if left else 200
                time.sleep(wait_s)
                if 200 <= status < 300:
                    receiver.taken.append(json.loads(body))
                try:
                    self.send_response(status)
                    if status in (301, 302, 307):
                        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    pass  # whoever asked is gone

            def log_message(self, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/alerts"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def ids(self) -> list[str]:
        return [message["id"] for message in self.taken]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def until(holds: Callable[[], Any], timeout_s: float = 40.0, what: str = "") -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"never: {what or holds}"
        time.sleep(0.01)
