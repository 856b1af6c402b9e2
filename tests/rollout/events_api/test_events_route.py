"""`POST /v1/events` over a real socket, a scripted listener behind it: what goes in and out, what is refused."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile

from events_server import EventsServer, ScriptedListener
from rollout.events_api.models import FoundEvent

EVENTS = [
    FoundEvent(onset=0.5, offset=1.25, label="dog_bark", confidence=0.9),
    FoundEvent(onset=3.0, offset=3.5, label="siren", confidence=0.2, kept=False),
]


def wav(seconds: float = 1.0) -> bytes:
    out = io.BytesIO()
    samples = np.random.default_rng(0).normal(0, 0.1, int(16000 * seconds)).astype(np.float32)
    soundfile.write(out, samples, 16000, format="WAV")
    return out.getvalue()


WAV = wav()


@pytest.fixture
def server() -> Iterator[EventsServer]:
    running = EventsServer(ScriptedListener(EVENTS), at_once=1, queue=1, max_upload_mib=1, max_audio_s=60.0)
    yield running
    running.close()


def post(server: EventsServer, headers: dict[str, str] | None = None, **fields: Any) -> requests.Response:
    files = {"file": ("clip.wav", fields.pop("content", WAV))}
    return requests.post(f"{server.url}/v1/events", files=files, data=fields, headers=headers, timeout=20)


def problem(reply: requests.Response, status: int) -> dict[str, str]:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["code"] == status and error["message"] and error["why"] and error["what_to_do"]
    return error


def test_a_file_comes_back_as_events(server: EventsServer) -> None:
    reply = post(server, labels=["dog_bark", "siren"], window="4.5", samples="8", threshold="0.5")
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["events"] == [EVENTS[0].model_dump()]
    assert (body["file"], body["duration"], body["model"], body["task"]) == ("clip.wav", 8.0, "scripted", "sed")
    assert body["notes"] == ["a note"] and body["real_time_factor"] == pytest.approx(body["seconds"] / 8, abs=1e-3)
    (asked,) = server.listener.asked
    assert (asked.labels, asked.window, asked.samples, asked.threshold) == (["dog_bark", "siren"], 4.5, 8, 0.5)
    assert server.listener.heard == [WAV]
    server.until(lambda: not server.listener.paths[0].parent.exists())


def test_the_same_in_json(server: EventsServer) -> None:
    sent = {"audio": base64.b64encode(WAV).decode(), "filename": "../a/b.wav", "query": " glass breaking ", "all": True}
    reply = requests.post(f"{server.url}/v1/events", json=sent, timeout=20)
    assert reply.json()["events"] == [event.model_dump() for event in EVENTS]
    assert reply.json()["file"] == "b.wav"
    assert server.listener.asked[0].query == "glass breaking" and server.listener.heard == [WAV]


def test_lines_tell_how_far_it_is_and_end_with_the_events(server: EventsServer) -> None:
    reply = post(server, {"Accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert [line["object"] for line in lines[:-1]] == ["progress"] * (len(lines) - 1)
    assert lines[-1]["object"] == "events" and lines[-1]["events"][0]["label"] == "dog_bark"
    positions = [line["position"] for line in lines[:-1] if line["waiting"] is None]
    assert positions == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_an_error_after_the_first_line_is_the_last_line(server: EventsServer) -> None:
    server.listener.fails_with = ValueError("RECORDING: has no audio track")
    reply = post(server, {"Accept": "application/x-ndjson"})
    assert json.loads(reply.text.splitlines()[-1])["error"]["message"] == "clip.wav: has no audio track"


def test_a_spectrogram_comes_where_it_is_asked_for(server: EventsServer) -> None:
    assert post(server).json()["spectrogram"] is None
    found = post(server, spectrogram="true").json()["spectrogram"]
    assert base64.b64decode(found["png"]).startswith(b"\x89PNG") and found["seconds_per_column"] == 0.01


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"labels": "a", "query": "b"}, "not both"),
        ({"treshold": "0.5"}, "treshold"),
        ({"threshold": "1.5"}, "threshold"),
        ({"threshold": "nan"}, "threshold"),
        ({"window": "0"}, "window"),
        ({"samples": "65"}, "samples"),
        ({"query": "  "}, "query"),
        ({"query": ["a", "b"]}, "query"),
    ],
)
def test_wrong_fields_are_named(server: EventsServer, fields: dict[str, Any], names: str) -> None:
    assert names in problem(post(server, **fields), 422)["message"]
    assert not server.listener.asked


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 422),
        (b"[" * 100_000, "application/json", 400),
        (b'{"audio": "%%%"}', "application/json", 422),
        (b'{"query": "a"}', "application/json", 422),
        (b"--x--", "multipart/form-data", 400),
        (b"--x--", "multipart/form-data; boundary=x", 422),
        (b"RIFF", "audio/wav", 415),
        (b"", "", 415),
    ],
)
def test_bodies_that_are_no_request(server: EventsServer, body: bytes, kind: str, status: int) -> None:
    headers = {"Content-Type": kind} if kind else {}
    problem(requests.post(f"{server.url}/v1/events", data=body, headers=headers, timeout=20), status)
    assert server.number("timepro_events_requests_total", status=str(status)) == 1
    assert server.number("timepro_events_running") == server.number("timepro_events_waiting") == 0


def test_a_large_body_is_refused_whether_or_not_it_says_its_length(server: EventsServer) -> None:
    large = bytes(2 << 20)
    assert "1 MiB" in problem(post(server, content=large), 413)["why"]

    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(32):
            yield bytes(64 << 10)
        yield b"\r\n--x--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(requests.post(f"{server.url}/v1/events", data=pieces(), headers=kind, timeout=20), 413)
    assert not server.listener.asked


def test_a_long_recording_is_refused(server: EventsServer) -> None:
    server.listener.duration = 61.0
    assert "--max-audio" in problem(post(server), 413)["what_to_do"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no audio track"), 422), (RuntimeError("engine died"), 503), (KeyError("surprise"), 500)],
)
def test_what_the_listener_says_against_it_is_said_on(server: EventsServer, error: Exception, status: int) -> None:
    server.listener.fails_with = error
    found = problem(post(server), status)
    assert str(error) in (found["message"], found["why"]) or status == 500
    assert "surprise" not in json.dumps(found)
    server.until(lambda: not server.number("timepro_events_running"))


def test_a_full_queue_answers_429_with_when_to_come_again(server: EventsServer) -> None:
    server.listener.go_on.clear()
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(post, server)
        server.until(lambda: server.number("timepro_events_running") == 1)
        second = threads.submit(post, server)
        server.until(lambda: server.number("timepro_events_waiting") == 1)
        refused = post(server)
        assert int(refused.headers["Retry-After"]) >= 1
        assert problem(refused, 429)["type"] == "queue_full"
        server.listener.go_on.set()
        assert first.result().status_code == second.result().status_code == 200
    assert post(server).status_code == 200
    assert server.number("timepro_events_requests_total", status="429") == 1
    assert server.number("timepro_events_audio_seconds_total") == 24.0
    assert server.number("timepro_events_upload_bytes_total") == 3 * len(WAV)
    assert server.number("timepro_events_found_total") == 3
    assert server.number("timepro_events_seconds_count") == server.number("timepro_events_waiting_seconds_count") == 3
    metrics = requests.get(f"{server.url}/metrics", timeout=20).text
    assert 'timepro_events_requests_total{status="200"} 3.0' in metrics


def test_waiting_requests_are_told_how_many_are_in_front(server: EventsServer) -> None:
    server.listener.go_on.clear()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(post, server)
        server.until(lambda: server.number("timepro_events_running") == 1)
        second = threads.submit(post, server, {"Accept": "application/x-ndjson"})
        server.until(lambda: server.number("timepro_events_waiting") == 1)
        server.listener.go_on.set()
        lines = [json.loads(line) for line in second.result().text.splitlines()]
        assert first.result().status_code == 200
    assert lines[0]["waiting"] == 0 and lines[-1]["object"] == "events"


def test_the_time_limit_ends_the_work_and_frees_the_place(tmp_path: Path) -> None:
    server = EventsServer(ScriptedListener(EVENTS), at_once=1, queue=1, time_limit_s=1.0)
    try:
        server.listener.go_on.clear()
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(post, server)
            server.until(lambda: server.number("timepro_events_running") == 1)
            time.sleep(0.3)
            second = threads.submit(post, server)
            problem(first.result(), 504)
            assert second.result().status_code in (503, 504)
        server.until(lambda: server.number("timepro_events_running") == 0)
        assert set(server.listener.ended) == {"broken off"}
        server.listener.go_on.set()
        assert post(server).status_code == 200
    finally:
        server.close()


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_client_that_goes_away_stops_the_work(server: EventsServer, accept: str) -> None:
    server.listener.go_on.clear()
    body = json.dumps({"audio": base64.b64encode(WAV).decode()}).encode()
    head = f"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        server.until(lambda: server.number("timepro_events_running") == 1)
    server.until(lambda: server.listener.ended == ["broken off"])
    server.until(lambda: server.number("timepro_events_running") == 0)
    server.listener.go_on.set()
    assert post(server).status_code == 200


def test_a_body_that_stops_coming_is_given_up() -> None:
    server = EventsServer(ScriptedListener(EVENTS), at_once=1, queue=0, idle_s=0.3)
    try:
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            client.sendall(
                b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b'Content-Length: 100\r\n\r\n{"audio": '
            )
            server.until(lambda: server.number("timepro_events_waiting") == 1)
            client.settimeout(10)
            assert b"408" in client.recv(100)
        assert post(server).status_code == 200
    finally:
        server.close()


def test_a_file_in_a_format(server: EventsServer) -> None:
    reply = post(server, all="true").json()
    for form in requests.get(f"{server.url}/v1/events", timeout=20).json()["formats"]:
        file = requests.post(f"{server.url}/v1/events/file?format={form['name']}", json=reply, timeout=20)
        assert file.status_code == 200, file.text
        assert "dog_bark" in file.text and "siren" not in file.text, form["name"]
    table = requests.post(f"{server.url}/v1/events/file?format=tsv", json=reply, timeout=20)
    assert table.text.splitlines()[1] == "clip.wav\t0.500\t1.250\tdog_bark\t0.9"
    wrong = requests.post(f"{server.url}/v1/events/file?format=tvs", json=reply, timeout=20)
    assert "tsv" in problem(wrong, 422)["message"]
    backwards = reply | {"events": [{"onset": 2, "offset": 1, "label": "a", "confidence": None}]}
    problem(requests.post(f"{server.url}/v1/events/file", json=backwards, timeout=20), 422)
