"""A request's body: to a file on disk, within its limits, whatever the client says about its length."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from rollout.events_api.models import EventsFields, EventsRequest
from rollout.events_api.problems import Problem, of_validation
from rollout.events_api.settings import MIB, ServeSettings

_MOST_JSON_MIB = 64  # base64 is held in memory whole, several times over
_MOST_FIELD = 64 * 1024  # bytes of one form field that is not the file
_LISTS, _FILE = ("labels",), "file"


@dataclass(frozen=True)
class Upload:
    """A recording on disk, and what is asked about it."""

    path: Path
    name: str
    asked: EventsFields
    size: int  # bytes


async def read_upload(request: Request, folder: Path, settings: ServeSettings) -> Upload:
    """Read a request's body.

    Args:
        folder: where the recording is put, under a name of our own.

    Raises:
        Problem: too large, too slow, of an unknown kind, or fields that are not right.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        limit = min(settings.max_upload_mib, _MOST_JSON_MIB)
        return _from_json(await limited(request, limit, settings.idle_s).body(), folder)
    if kind == "multipart/form-data":
        return await _from_form(limited(request, settings.max_upload_mib, settings.idle_s), folder)
    raise Problem(
        415, "unknown_body", f"The body's content type is {kind or 'not given'}.",
        "A recording is sent as multipart/form-data or, in base64, as application/json.",
        "For a file: curl -F file=@clip.wav URL/v1/events",
    )  # fmt: skip


def limited(request: Request, limit_mib: int, idle_s: float) -> Request:
    """The request with a body that ends in a Problem at its limits."""
    most, taken = limit_mib * MIB, 0

    def too_large(size: str) -> Problem:
        how = "Cut it into parts, or compress it (FLAC, Opus)"
        return Problem(
            413, "too_large", f"The body has {size}.", f"This server takes at most {limit_mib} MiB of it.",
            f"{how}, send it as multipart/form-data, or start the server with a larger --max-upload-mib.",
        )  # fmt: skip

    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > most:
        raise too_large(f"{int(stated) / MIB:.1f} MiB")

    async def receive() -> Any:
        nonlocal taken
        try:
            message = await asyncio.wait_for(request.receive(), idle_s)
        except TimeoutError:
            raise Problem(
                408, "too_slow", f"Nothing of the body has come for {idle_s:g} s.",
                "Whoever sends nothing would keep a place of the queue from others.", "Send it again.",
            ) from None  # fmt: skip
        taken += len(message.get("body", b""))
        if taken > most:
            raise too_large(f"more than {limit_mib} MiB")
        return message

    return Request(request.scope, receive)


def _from_json(body: bytes, folder: Path) -> Upload:
    try:
        asked = EventsRequest.model_validate(json.loads(body))
    except ValidationError as error:
        raise of_validation(error) from None
    except (ValueError, RecursionError) as error:
        raise Problem(
            400, "bad_json", f"The body cannot be read as JSON ({error}).", "Its content type says application/json.",
            'Send an object such as {"audio": "BASE64", "query": "glass breaking"}.',
        ) from None  # fmt: skip
    text = asked.audio.partition(",")[2] if asked.audio.startswith("data:") else asked.audio
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(
            422, "bad_base64", f"audio is not base64 ({error}).", "Audio in JSON is text in the base64 alphabet.",
            "Encode the file's bytes, without line breaks (base64 -w0 FILE), or send it as multipart/form-data.",
        ) from None  # fmt: skip
    path = folder / "audio"
    path.write_bytes(content)
    fields = EventsFields.model_validate(asked.model_dump(exclude={"audio", "filename"}))
    return Upload(path, shown_name(asked.filename), fields, len(content))


async def _from_form(request: Request, folder: Path) -> Upload:
    try:
        form = await request.form(max_files=1, max_fields=300, max_part_size=_MOST_FIELD)
    except (MultiPartException, HTTPException) as error:
        detail = getattr(error, "detail", None) or getattr(error, "message", str(error))
        raise Problem(
            400, "bad_form", f"The form cannot be read ({detail}).", "Its content type says multipart/form-data.",
            f"Send the recording as the part {_FILE!r}, with a file name, and what is asked as parts of text.",
        ) from None  # fmt: skip
    except ClientDisconnect:
        raise Problem(
            400, "cut_off", "The body ended early.", "The client has closed the connection.", "Send it again."
        ) from None
    try:
        sent = form.get(_FILE)
        if not isinstance(sent, UploadFile):
            raise Problem(
                422, "no_file", f"The form has no file {_FILE!r}.", "There is nothing to listen to.",
                f"Send the recording as the part {_FILE!r}: curl -F {_FILE}=@clip.wav URL/v1/events",
            )  # fmt: skip
        asked = _fields(form)
        path = folder / "audio"
        size = await asyncio.to_thread(_keep, sent, path)
        return Upload(path, shown_name(sent.filename or "audio"), asked, size)
    finally:
        await form.close()


def _fields(form: FormData) -> EventsFields:
    values: dict[str, Any] = {}
    for key in form:
        given = [value for value in form.getlist(key) if isinstance(value, str)]
        if key == _FILE:
            continue
        if key not in _LISTS and len(given) > 1:
            raise Problem(
                422, "bad_request", f"{key} is given {len(given)} times.", "Only labels may be given again.",
                f"Give {key} once.",
            )  # fmt: skip
        values[key] = given if key in _LISTS else given[0]
    try:
        return EventsFields.model_validate(values)
    except ValidationError as error:
        raise of_validation(error) from None


def _keep(sent: UploadFile, path: Path) -> int:
    with path.open("wb") as out:
        shutil.copyfileobj(sent.file, out, MIB)
        return out.tell()


def shown_name(name: str) -> str:
    """A client's file name without folders and control characters: it is shown and written into files, never opened."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[:200].strip() or "audio"
