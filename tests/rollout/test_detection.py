"""Windows through a server's chat route. The server is a scripted one (vLLM itself: tests/e2e), as strict as vLLM."""

from __future__ import annotations

import base64
import http.server
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile

from rollout.detection import VllmBackend


class Chat(http.server.BaseHTTPRequestHandler):
    """Answers with the place of the window's first sample as its only token, `n` times; speaks vLLM's JSON."""

    asked: list[dict[str, Any]] = []
    trouble: tuple[int, str] | None = None

    def do_GET(self) -> None:
        self._reply(200, {"data": [{"id": "served"}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer secret":
            return self._reply(401, {"error": "a worker token is required"})
        if self.trouble:
            return self._reply(self.trouble[0], {"error": self.trouble[1]})
        self.asked.append(body)
        audio, question = body["messages"][0]["content"]
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio["input_audio"]["data"])), dtype="float32")
        assert rate == 16000 and question["text"] == "what?" and body["model"] == "served"
        choice = {"token_ids": [int(samples[0]), 7], "logprobs": {"content": [{"logprob": -1.0}, {"logprob": -0.5}]}}
        choices = [{"index": index, **choice} for index in range(body.get("n", 1))]
        self._reply(200, {"choices": choices[::-1]})

    def _reply(self, status: int, value: Any) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Chat, "asked", [])
    monkeypatch.setattr(Chat, "trouble", None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def windows(*firsts: float) -> list[np.ndarray]:
    return [np.full(1600, first, np.float32) for first in firsts]


def test_each_window_gets_its_own_answers_in_order(url: str) -> None:
    backend = VllmBackend(f"{url}/v1/", "secret")
    greedy = backend.write(windows(*range(20)), "what?", 1, 0.0, 32)
    assert [[answer.token_ids for answer in answers] for answers in greedy] == [[[k, 7]] for k in range(20)]
    assert greedy[3][0].logprobs == [-1.0, -0.5]
    assert all(body["temperature"] == 0 and body["max_tokens"] == 32 and "n" not in body for body in Chat.asked)
    drawn = backend.write(windows(4.0), "what?", 3, 0.7, 32)
    assert len(drawn[0]) == 3 and Chat.asked[-1]["temperature"] == 0.7 and Chat.asked[-1]["seed"] == 0


def test_the_samples_arrive_as_they_are(url: str) -> None:
    window = np.random.default_rng(0).normal(0, 2, 1600).astype(np.float32)  # beyond [-1, 1], which 16 bits would clip
    window[0] = 5
    VllmBackend(url, "secret").write([window], "what?", 1, 0.0, 8)
    audio = Chat.asked[0]["messages"][0]["content"][0]["input_audio"]["data"]
    assert np.array_equal(soundfile.read(io.BytesIO(base64.b64decode(audio)), dtype="float32")[0], window)


def test_what_a_server_refuses_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="wants a token that it was not given"):
        VllmBackend(url).write(windows(0), "what?", 1, 0.0, 8)
    backend = VllmBackend(url, "secret")
    for status, kind in ((400, ValueError), (503, RuntimeError)):
        monkeypatch.setattr(Chat, "trouble", (status, "the prompt is too long"))
        with pytest.raises(kind, match=f"/v1/chat/completions refuses with status {status}: .*the prompt is too long"):
            backend.write(windows(0), "what?", 1, 0.0, 8)
    with pytest.raises(RuntimeError, match="does not answer .*is the server up"):
        VllmBackend("http://127.0.0.1:9")
