"""A worker's own route for groups of answers, `POST /timepro/group`, as middleware of vLLM's server.

It asks the engine as vLLM's token route does. That one makes a Pydantic object of every token's log-probability, and
its reply holds each token twice and its log-probability in a record of its own. Here a reply has a list of numbers for
each answer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from vllm import SamplingParams
from vllm.renderers.chat_utils import AsyncMultiModalItemTracker
from vllm.sampling_params import RequestOutputKind

from rollout.asgi import read_body, reply
from rollout.client import GROUP_ROUTE

_numbers = itertools.count()


class Asked(msgspec.Struct):
    """One group's request. audio: of each clip a URL and, for a file, the name under which its features are kept."""

    token_ids: list[int]
    audio: list[dict[str, str | None]]
    sampling: dict[str, Any]


class GroupsRoute:
    """ASGI middleware: groups are answered here, all other paths by vLLM."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._vllm = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != GROUP_ROUTE:
            return await self._vllm(scope, receive, send)
        body = await read_body(receive)
        if body is None:
            return None
        work = asyncio.ensure_future(_answer(scope["app"].state, body))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await reply(send, *work.result())
        finally:  # nobody waits for an answer any more: the engine shall not work on it
            work.cancel()
            gone.cancel()


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(state: Any, body: bytes) -> tuple[int, bytes]:
    """Status and JSON; 400 says that the request cannot be served by any worker."""
    try:
        asked = msgspec.json.decode(body, type=Asked)
        group = await _generated(state.engine_client, asked)
    except ValueError as error:  # also what does not fit the model, an unreadable clip, and what is not a request
        return 400, msgspec.json.encode({"error": str(error)})
    except Exception as error:  # noqa: BLE001 - the client is told, and asks another worker
        return 500, msgspec.json.encode({"error": f"{type(error).__name__} {error}".strip()})
    return 200, msgspec.json.encode(group)


async def _generated(engine: Any, asked: Asked) -> dict[str, Any]:
    """The group, ready for JSON."""
    # One output, when the last answer has ended; parts of n answers would be put together in vain.
    parameters = SamplingParams(**asked.sampling, output_kind=RequestOutputKind.FINAL_ONLY)
    tracker = AsyncMultiModalItemTracker(engine.model_config)
    parser = tracker.create_parser()
    for clip in asked.audio:
        parser.parse_audio(clip["url"], clip.get("uuid"))
    data, names = await tracker.resolve_items()
    prompt = {"prompt_token_ids": asked.token_ids, "multi_modal_data": data, "multi_modal_uuids": names}
    (rendered,) = await engine.renderer.render_cmpl_async([prompt])
    outputs = engine.generate(rendered, parameters, f"group-{os.getpid()}-{next(_numbers)}")
    (found,) = [output async for output in outputs]
    return as_json(found)


def as_json(found: Any) -> dict[str, Any]:
    """What a reply says of an output of vLLM; `rollout.client.read_group` reads it."""
    return {
        "prompt_token_ids": found.prompt_token_ids,
        "answers": [
            {
                "token_ids": list(answer.token_ids),
                "logprobs": answer.logprobs.logprobs,
                "finish_reason": answer.finish_reason,
                "weight_versions": [span.version for span in answer.weight_versions or ()],
            }
            for answer in found.outputs
        ],
    }
