"""Stand-ins for rollout workers in tests of the weight sync: real HTTP, a real gloo group, no engine behind them."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from torch import nn

from rollout import delta, stream
from rollout.checksum import StreamChecksum
from trainer.learner.lora import Streamed

CPU = torch.device("cpu")


class Policy:
    """Tensors of several shapes, which a slow learner gathers one after the other.

    Args:
        dtype: of all of them but the norm, which is bfloat16.
    """

    adapter_scale = None

    def __init__(self, gather_s=0.0, dtype=torch.float32):
        draw, self.gather_s = torch.Generator().manual_seed(0), gather_s
        shapes = [("embed", (300, 8)), ("norm", (8,)), ("up", (64, 33)), ("head", (300, 8))]
        self.tensors = {name: nn.Parameter(torch.randn(shape, generator=draw).to(dtype)) for name, shape in shapes}
        self.tensors["norm"].data = self.tensors["norm"].data.to(torch.bfloat16)

    def streamed(self):
        for name, tensor in self.tensors.items():
            yield Streamed(name, [tensor], lambda t=tensor: self._slowly(t))

    def _slowly(self, tensor):
        time.sleep(self.gather_s)
        return tensor.data


def has(worker, policy, version):
    """The worker generates with the policy's weights, under their version."""
    assert worker.version == str(version)
    assert worker.weights.keys() == policy.tensors.keys()
    assert all(torch.equal(worker.weights[name], tensor.data) for name, tensor in policy.tensors.items())
    assert not worker.paused
    return True


class StandInWorker:
    """A server with the routes that a sync uses. What it holds and was asked is there to be looked at.

    Attributes:
        calls: routes asked for, in order.
        weights: name -> tensor, as last received whole.
        hangs: its engine answers nothing while this is set, but the server is healthy.
        lonely: it does not come to the rendezvous.
        busy: it cannot reset its prefix cache.
        corrupts: flips a bit of what it receives, once.
        dtype: of its weights, as it says.
        whole_only: why it takes no deltas; empty: it does.
        kinds: "whole" or "delta", of each update that it got to the end of.
    """

    def __init__(self) -> None:
        self.calls, self.weights, self.version, self.paused = [], {}, None, False
        self.hangs, self.lonely = threading.Event(), threading.Event()
        self.busy = self.corrupts = False
        self.dtype, self.whole_only, self.kinds = "float32", "", []
        self._group, self._info, self._last, self._has = None, None, {}, None
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
        self.version, self._last, self._has, self.paused = None, {}, None, False

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
            case "timepro_state":
                group = self._info["prefix"] if self._group is not None else ""
                return {"results": [{"group": group, "version": self._has}]}
            case "timepro_abort_update":
                self._leave()
                return {"results": [False]}
            case "init_weight_transfer_engine":
                self._join(body["init_info"])
            case "timepro/update":
                self.paused = True
                self._receive(body["update_info"])
            case "timepro/finish":
                return self._finish(body["version"], body["checksum"])
            case "resume":
                self.paused = False
        return {}

    def _finish(self, version, checksum):
        self.version, self._has = str(version), version
        if self.busy:
            raise RuntimeError("the prefix cache was not reset")
        report = self.last_update()
        if (report["version"], report["checksum"]) != (version, checksum):
            raise RuntimeError(f"{report} is not version {version}")
        self.paused = False
        return {"reports": [report]}

    def last_update(self):
        return self._last

    def _join(self, info):
        self._leave()
        if self.lonely.is_set():
            time.sleep(info["timeout_s"] + 2.0)
            raise RuntimeError("never went there")
        store = stream.join_store(info["host"], info["port"], info["timeout_s"])
        place, world = info["first_rank"], info["world_size"]
        self._group = stream.join_group(store, info["prefix"], place, world, info["timeout_s"], CPU)
        self._info, self._has = info, None

    def _receive(self, update):
        kind = "whole" if update.get("base_version") is None else "delta"
        checksum = self._receive_whole(update) if kind == "whole" else self._receive_delta(update)
        self.kinds.append(kind)
        self._last = {
            "version": update["version"], "checksum": checksum, "dtype": self.dtype, "device": "cpu",
            "whole_only": self.whole_only,
        }  # fmt: skip

    def _receive_whole(self, update):
        dtypes = [getattr(torch, name) for name in update["dtypes"]]
        sizes = [stream.tensor_bytes(d, s) for d, s in zip(dtypes, update["shapes"], strict=True)]
        buckets, weights = stream.plan_buckets(sizes, self._info["bucket_bytes"]), {}
        buffers, (sent,) = self._incoming([bucket.size for bucket in buckets], 1)
        for bucket, buffer in zip(buckets, buffers, strict=True):
            for slot in bucket.slots:
                i = slot.tensor
                weights[update["names"][i]] = stream.view_slot(buffer, slot, dtypes[i], update["shapes"][i])
        self.weights = weights
        return sent

    def _receive_delta(self, update):
        if update["base_version"] != self._has or self.whole_only:
            raise RuntimeError(f"a delta from {update['base_version']}, but these are {self._has} {self.whole_only}")
        parts, (_, wanted) = self._incoming(update["part_bytes"], 2)
        dtypes = [getattr(torch, name) for name in update["dtypes"]]
        weights = {name: self.weights[name].clone().flatten() for name in update["names"]}
        for part in parts:
            for number, change in delta.unpack(part, dtypes):
                delta.bits(weights[update["names"][number]])[change.indices.long()] = change.values
        with delta.StateChecksum(len(parts)) as checksum:
            for one in weights.values():
                checksum.add(one)
            found = checksum.value()
        if found != wanted:
            raise RuntimeError("checksum mismatch over all weights")
        self.weights = {name: weights[name].view(self.weights[name].shape) for name in weights}
        return found

    def _incoming(self, sizes, numbers):
        """Buffers of these sizes, whose checksum is right, and the numbers that end the stream."""
        limit, buffers = self._info["timeout_s"], []
        with StreamChecksum() as checksum:
            for size in sizes:
                buffers.append(torch.empty(size, dtype=torch.uint8))
                stream.finish(stream.start_broadcast(self._group, buffers[-1], limit), limit)
                if self.corrupts:
                    buffers[-1][0] ^= 1
                    self.corrupts = False
                checksum.add(buffers[-1])
            sent = torch.empty(numbers, dtype=torch.int64)
            stream.finish(stream.start_broadcast(self._group, sent, limit), limit)
            if int(sent[0]) != checksum.value():
                raise RuntimeError("checksum mismatch in the weight stream")
        return buffers, sent.tolist()

    def _leave(self):
        group, self._group = self._group, None
        if group is not None:
            group.abort()
