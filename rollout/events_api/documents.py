"""What the API says of itself: OpenAPI, added to vLLM's own document so that there is one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from rollout.events_api.models import EventsFields, EventsRequest, FileRequest, Progress, schema_of
from rollout.events_api.problems import ProblemReply
from timepro.data.event_formats import FORMATS

_MEANINGS = {
    400: "The body cannot be read.",
    401: "A token is required.",
    403: "A web page of another site, or another host name, on a server without a token.",
    408: "The body came too slowly.",
    413: "The body or the recording is larger than the server takes.",
    415: "The body's content type is not one of those described.",
    422: "The recording or a field cannot be used, and which.",
    429: "The queue is full; `Retry-After` says when to send it again.",
    503: "The model does not answer, or the request's turn did not come in time.",
    504: "The time limit has passed.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemReply, "description": meaning} for status, meaning in _MEANINGS.items()
}
PROBLEMS[429]["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
FILE_FORMATS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {form.media_type: {"schema": {"type": "string"}} for form in FORMATS.values()},
    }
}


def _form_schema() -> dict[str, Any]:
    schema = deepcopy(EventsFields.model_json_schema(ref_template="#/components/schemas/{model}"))
    about = "The recording: a file of any format that FFmpeg reads."
    schema["properties"] = {
        "file": {"type": "string", "format": "binary", "description": about},
        **schema["properties"],
    }
    schema["required"] = ["file"]
    schema["title"] = "EventsForm"
    return schema


EVENTS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _form_schema()},
            "application/json": {"schema": {"$ref": "#/components/schemas/EventsRequest"}},
        },
    }
}


def described(app: FastAPI, base: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document of an application, added to another one.

    Args:
        base: a document whose paths and schemas stay; empty for none.
    """
    document = deepcopy(app.openapi())
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= schema_of(EventsRequest, FileRequest, Progress)
    _body_of_file(document)
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path in document["paths"].values():
        for operation in path.values():
            operation["security"] = [{"token": []}, {}]
    streamed = {"schema": {"$ref": "#/components/schemas/Progress"}}
    document["paths"]["/v1/events"]["post"]["responses"]["200"]["content"]["application/x-ndjson"] = streamed
    if not base:
        return document
    whole = deepcopy(base)
    whole["info"] = document["info"]
    whole.setdefault("paths", {}).update(document["paths"])
    for kind, entries in document["components"].items():
        whole.setdefault("components", {}).setdefault(kind, {}).update(entries)
    return whole


def _body_of_file(document: dict[str, Any]) -> None:
    document["paths"]["/v1/events/file"]["post"]["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FileRequest"}}},
    }
