"""Who may call, and what the API says of itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from events_server import EventsServer, ScriptedListener
from rollout.events_api.models import EventsFields, EventsReply
from rollout.events_api.page import FILES

BASE = {
    "openapi": "3.1.0",
    "info": {"title": "another", "version": "1"},
    "paths": {"/v1/chat/completions": {"post": {"responses": {"200": {"description": "chat"}}}}},
    "components": {"schemas": {"ChatRequest": {"type": "object"}}},
}


@pytest.fixture(scope="module")
def closed() -> Iterator[EventsServer]:
    running = EventsServer(ScriptedListener(), token="a secret")
    yield running
    running.close()


@pytest.fixture(scope="module")
def loopback() -> Iterator[EventsServer]:
    running = EventsServer(ScriptedListener(), base=BASE)
    yield running
    running.close()


@pytest.mark.parametrize("path", ["/v1/events", "/metrics", "/v1/anything", "/page/../v1/events", "//v1/events"])
@pytest.mark.parametrize("token", ["", "Bearer", "Bearer a secre", "Bearer a secret2", "a secret", "bearer \xe4"])
def test_nothing_but_the_page_without_the_token(closed: EventsServer, path: str, token: str) -> None:
    headers = {"Authorization": token.encode("latin-1")} if token else {}
    request = requests.Request("GET", closed.url, headers=headers).prepare()
    request.url = closed.url + path  # as it stands: a client would tidy it up
    reply = requests.Session().send(request, timeout=20)
    assert reply.status_code in (401, 404)
    if reply.status_code == 401:
        assert reply.json()["error"]["type"] == "token_required" and "a secret" not in reply.text


def test_with_the_token_all_of_it(closed: EventsServer) -> None:
    headers = {"Authorization": "Bearer a secret"}
    assert requests.get(f"{closed.url}/v1/events", headers=headers, timeout=20).json()["model"] == "scripted"
    assert requests.get(f"{closed.url}/metrics", headers=headers, timeout=20).status_code == 200


def test_the_page_needs_no_token_and_holds_none(closed: EventsServer) -> None:
    for path in ("/", "/openapi.json", *(f"/page/{name}" for name in FILES)):
        reply = requests.get(closed.url + path, timeout=20)
        assert reply.status_code == 200 and "a secret" not in reply.text, path
    policy = requests.get(closed.url, timeout=20).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:1234"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "127.0.0.1:80", "Origin": "http://127.0.0.1:80"}, 200),
    ],
)
def test_without_a_token_no_other_site_gets_through(loopback: EventsServer, headers: dict, status: int) -> None:
    assert requests.get(f"{loopback.url}/v1/events", headers=headers, timeout=20).status_code == status


def test_one_document_describes_everything(loopback: EventsServer) -> None:
    document = requests.get(f"{loopback.url}/openapi.json", timeout=20).json()
    assert {"/v1/chat/completions", "/v1/events", "/v1/events/file"} <= set(document["paths"])
    schemas = document["components"]["schemas"]
    assert {"ChatRequest", "EventsReply", "FoundEvent", "EventsRequest", "ProblemReply"} <= set(schemas)
    bodies = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]
    fields = set(EventsFields.model_fields)
    assert fields | {"file"} == set(bodies["multipart/form-data"]["schema"]["properties"])
    assert fields | {"audio", "filename"} == set(schemas["EventsRequest"]["properties"])
    assert set(schemas["EventsReply"]["properties"]) == set(EventsReply.model_fields)
    assert {"200", "401", "413", "422", "429", "503", "504"} <= set(
        document["paths"]["/v1/events"]["post"]["responses"]
    )
    for name in _references(document):
        assert name.startswith("#/components/schemas/") and name.rpartition("/")[2] in schemas, name


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
