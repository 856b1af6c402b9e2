"""A stand-in for W&B's server, as much of it as `wandb sync` asks for: it notes which history rows a run uploads."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BUCKET = {
    "id": "QnVja2V0", "displayName": "run", "description": None, "config": "{}", "sweepName": None,
    "historyLineCount": 0, "project": {"id": "UHJq", "name": "project", "entity": {"id": "RW50", "name": "user"}},
}  # fmt: skip
_VIEWER = {"id": "VXNlcg", "entity": "user", "username": "user", "email": "", "flags": "{}", "teams": {"edges": []}}


class WandbServer:
    """Listens on 127.0.0.1 until `close`.

    rows: for each run's id the history rows, placed as the server places them: a chunk overwrites from its offset on.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[dict]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                answer: dict = {}
                if self.path.endswith("/graphql"):
                    answer = {"data": _graphql(json.loads(body))}
                elif self.path.endswith("/file_stream"):
                    outer._take(self.path.split("/")[-2], json.loads(body))
                content = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_PUT = do_POST

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _take(self, run: str, message: dict) -> None:
        history = (message.get("files") or {}).get("wandb-history.jsonl")
        if history:
            rows = self.rows.setdefault(run, [])
            rows[history["offset"] :] = [json.loads(line) for line in history["content"]]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _graphql(asked: dict) -> dict:
    query = asked.get("query", "")
    if "UpsertBucket" in query:
        bucket = _BUCKET | {"name": asked["variables"].get("name")}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}
    if "createRunFiles" in query:
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}
    return {"viewer": _VIEWER, "serverInfo": {"cliVersionInfo": {}, "features": []}, "model": None}
