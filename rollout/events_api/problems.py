"""Errors as the API answers them: JSON that says what is wrong, why, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError


class ProblemDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="What is wrong.")
    why: str = Field(description="Why it is refused, or how it came to it.")
    what_to_do: str = Field(description="What the caller can do about it.")
    type: str = Field(description="A short name for programs, such as `queue_full`.")
    code: int = Field(description="The HTTP status.")


class ProblemReply(BaseModel):
    """The body of every answer that is not 2xx; clients of OpenAI's API find `error.message` where they expect it."""

    error: ProblemDetail


class Problem(Exception):
    """Ends a request with an error.

    Args:
        status: HTTP status.
        kind: a short name for programs.
        message, why, what_to_do: for people, a sentence each.
        headers: of the answer.
    """

    def __init__(
        self, status: int, kind: str, message: str, why: str, what_to_do: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, dict(headers or {})
        self._texts = (message, why, what_to_do)

    def body(self) -> dict[str, Any]:
        message, why, what_to_do = self._texts
        detail = ProblemDetail(message=message, why=why, what_to_do=what_to_do, type=self.kind, code=self.status)
        return ProblemReply(error=detail).model_dump()

    def response(self) -> JSONResponse:
        # A refused body is not read to its end, so the connection cannot be used again.
        return JSONResponse(self.body(), self.status, self.headers | {"Connection": "close"})

    def line(self) -> str:
        """As a line of an answer that has begun already."""
        return json.dumps(self.body()) + "\n"


async def problem_response(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler of `Problem`."""
    assert isinstance(error, Problem)
    return error.response()


def of_validation(error: ValidationError) -> Problem:
    """A request whose fields are not what they must be, every one of them named."""
    found = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "the request"
        found.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
    return Problem(
        422, "bad_request", "; ".join(found), "A field of the request is missing, unknown or out of its range.",
        "Correct the fields named; /docs shows all of them with their ranges.",
    )  # fmt: skip
