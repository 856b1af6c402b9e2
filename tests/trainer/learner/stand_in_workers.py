"""Stand-ins for rollout workers in tests of the weight sync: real HTTP, a real gloo group, no engine behind them."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from rollout import stream
from rollout.checksum import StreamChecksum

CPU = torch.device("cpu")


class StandInWorker:
    """A server with the routes that a sync uses. What it holds and was asked is there to be looked at.

    Attributes:
        calls: routes asked for, in order.
        weights: name -> tensor, as last received whole.
        hangs: its engine answers nothing while this is set, but the server is healthy.
        lonely: it does not come to the rendezvous.
        busy: it cannot reset its prefix cache.
        corrupts: flips a bit of what it receives, once.
    """

    def __init__(self) -> None:
        self.calls, self.weights, self.version, self.paused = [], {}, None, False
        self.hangs, self.lonely = threading.Event(), threading.Event()
        self.busy = self.corrupts = False
        self._group, self._info, self._last = None, None, {}
        worker = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    reply, status = worker.answer(self.path, json.loads(body) if body else {}), 200
                except Exception as error:  # noqa: BLE001 - as vLLM's server does
                    reply, status = {"error": f"{type(error).__name__}: {error}"}, 500
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(reply).encode())

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def restart(self) -> None:
        """What a new process in its place knows."""
        self._leave()
        self.version, self._last, self.paused = None, {}, False

    def close(self) -> None:
        self.hangs.clear()
        self._leave()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path, body):
        route = path.strip("/")
        while self.hangs.is_set():
            time.sleep(0.02)
        self.calls.append(body.get("method", route))
        match self.calls[-1]:
            case "timepro_group":
                return {"results": [self._info["prefix"] if self._group is not None else ""]}
            case "timepro_last_update":
                return {"results": [self._last]}
            case "timepro_abort_update":
                self._leave()
                return {"results": [0]}
            case "init_weight_transfer_engine":
                self._join(body["init_info"])
            case "update_weights":
                self._receive(body["update_info"])
            case "finish_weight_update":
                self.version = body["weight_version"]
            case "reset_prefix_cache":
                return {"success": not self.busy}
            case "resume":
                self.paused = False
            case _ if route.startswith("pause?mode=abort"):
                self.paused = True
        return {}

    def _join(self, info):
        self._leave()
        if self.lonely.is_set():
            time.sleep(info["timeout_s"] + 2.0)
            raise RuntimeError("never went there")
        store = stream.join_store(info["host"], info["port"], info["timeout_s"])
        place, world = info["first_rank"], info["world_size"]
        self._group = stream.join_group(store, info["prefix"], place, world, info["timeout_s"], CPU)
        self._info = info

    def _receive(self, update):
        if not self.paused:
            raise RuntimeError("the engine died: requests may run while weights change")
        dtypes = [getattr(torch, name) for name in update["dtypes"]]
        sizes = [stream.tensor_bytes(d, s) for d, s in zip(dtypes, update["shapes"], strict=True)]
        limit, weights = self._info["timeout_s"], {}
        with StreamChecksum() as checksum:
            for bucket in stream.plan_buckets(sizes, self._info["bucket_bytes"]):
                buffer = torch.empty(bucket.size, dtype=torch.uint8)
                stream.finish(stream.start_broadcast(self._group, buffer, limit), limit)
                if self.corrupts:
                    buffer[0] ^= 1
                    self.corrupts = False
                checksum.add(buffer)
                for slot in bucket.slots:
                    i = slot.tensor
                    weights[update["names"][i]] = stream.view_slot(buffer, slot, dtypes[i], update["shapes"][i])
            sent = torch.empty(1, dtype=torch.int64)
            stream.finish(stream.start_broadcast(self._group, sent, limit), limit)
            if int(sent) != checksum.value():
                raise RuntimeError("checksum mismatch in the weight stream")
        self.weights, self._last = weights, {"version": update["version"], "checksum": int(sent), "dtype": "float32"}

    def _leave(self):
        group, self._group = self._group, None
        if group is not None:
            group.abort()
