"""A worker's routes for a change of weights, before a stand-in for vLLM's engine: what it is asked, in which order."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm")

from rollout.control import FINISH_ROUTE, UPDATE_ROUTE
from rollout.sync_routes import SyncRoutes

REPORT = {"version": 3, "checksum": 77, "dtype": "float32"}
FINISH = {"version": 3, "checksum": 77}


class Engine:
    """Writes down what it is asked.

    Attributes:
        breaks: a call that raises.
        reports: of its processes.
        busy: a request holds on to the prefix cache.
    """

    def __init__(self, breaks: str = "", reports=(REPORT, REPORT), busy: bool = False) -> None:
        self.asked, self.breaks, self.reports, self.busy = [], breaks, list(reports), busy
        self.engine_core = SimpleNamespace(pause_scheduler_async=self._pause)

    def _note(self, *call):
        self.asked.append(call)
        if call[0] == self.breaks:
            raise RuntimeError("the receiver says why")

    async def _pause(self, mode, clear_cache):
        self._note("pause", mode, clear_cache)

    async def start_weight_update(self):
        self._note("start")

    async def update_weights(self, request):
        self._note("update", request.update_info)

    async def finish_weight_update(self, version):
        self._note("finish", version)

    async def reset_prefix_cache(self):
        self._note("reset")
        return not self.busy

    async def collective_rpc(self, method):
        self._note(method)
        return self.reports

    async def resume_generation(self):
        self._note("resume")


def post(engine, path, body: bytes):
    """Status and JSON, or what vLLM's server behind it was given."""
    sent, incoming = [], [{"type": "http.request", "body": body[:5], "more_body": True}]
    incoming += [{"type": "http.request", "body": body[5:]}]

    async def behind(scope, receive, send):
        await send({"type": "vllm", "path": scope["path"]})

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "app": SimpleNamespace(state=SimpleNamespace(engine_client=engine))}
    asyncio.run(SyncRoutes(behind)(scope, receive, send))
    if sent[0]["type"] == "vllm":
        return "vllm", sent[0]["path"]
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_weights_come_in_behind_a_pause():
    engine, info = Engine(), {"names": ["a"], "version": 3}
    assert post(engine, UPDATE_ROUTE, json.dumps({"update_info": info}).encode()) == (200, {})
    assert engine.asked == [("pause", "abort", False), ("start",), ("update", info)]


def test_the_worker_generates_again_when_all_is_as_it_should_be():
    engine = Engine()
    assert post(engine, FINISH_ROUTE, json.dumps(FINISH).encode()) == (200, {"reports": [REPORT, REPORT]})
    assert engine.asked == [("finish", "3"), ("reset",), ("timepro_last_update",), ("resume",)]


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (Engine(breaks="finish"), "RuntimeError: the receiver says why"),
        (Engine(busy=True), "a request still holds keys and values"),
        (Engine(reports=[REPORT, REPORT | {"checksum": 78}]), "is not version 3 with checksum 77"),
        (Engine(reports=[REPORT | {"version": 2}]), "is not version 3 with checksum 77"),
        (Engine(reports=[{}]), "is not version 3 with checksum 77"),
    ],
    ids=["finish", "busy", "checksum", "version", "never updated"],
)
def test_it_does_not_generate_with_weights_that_are_in_doubt(engine, said):
    status, reply = post(engine, FINISH_ROUTE, json.dumps(FINISH).encode())
    assert status == 500 and said in reply["error"]
    assert ("resume",) not in engine.asked


@pytest.mark.parametrize("step", ["pause", "start", "update"])
def test_an_update_that_fails_says_why(step):
    engine = Engine(breaks=step)
    assert post(engine, UPDATE_ROUTE, b'{"update_info": {}}') == (500, {"error": "RuntimeError: the receiver says why"})
    assert engine.asked[-1][0] == step


@pytest.mark.parametrize("body", [b"", b"{}", b'{"version": "3", "checksum": 1}', b"\xff\xfe"])
def test_what_is_no_such_request_changes_nothing(body):
    engine = Engine()
    assert [post(engine, route, body)[0] for route in (UPDATE_ROUTE, FINISH_ROUTE)] == [400, 400]
    assert engine.asked == []


def test_other_paths_are_vllms():
    assert post(Engine(), "/health", b"") == ("vllm", "/health")
