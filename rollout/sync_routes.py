"""A worker's own routes for a change of weights, `POST /timepro/update` and `/timepro/finish`, as middleware.

They ask the engine as vLLM's routes do, of which a sync would call seven one after the other, each a request through
the whole server. vLLM's pause also sleeps for 20 ms, so that a caller sees the ends of the requests that it aborts
first; the learner waits for none of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

from rollout.asgi import read_body, reply
from rollout.control import FINISH_ROUTE, UPDATE_ROUTE


class Update(msgspec.Struct):
    """Take in one stream or delta; `rollout.receiver.StreamInfo` says what is in `update_info`."""

    update_info: dict[str, Any]


class Finish(msgspec.Struct):
    """Answer with what came, and generate again. checksum: what every process of the worker must have found."""

    version: int
    checksum: int


class SyncRoutes:
    """ASGI middleware: changes of weights are answered here, all other paths by vLLM."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._vllm = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        work = _WORK.get(scope["path"]) if scope["type"] == "http" else None
        if work is None:
            return await self._vllm(scope, receive, send)
        body = await read_body(receive)
        if body is not None:
            # To its end, also where the learner is gone: the receiver then puts the old weights back.
            await reply(send, *await _outcome(work, scope["app"].state.engine_client, body))
        return None


async def _outcome(work: Callable[[Any, bytes], Awaitable[Any]], engine: Any, body: bytes) -> tuple[int, bytes]:
    """Status and JSON."""
    try:
        return 200, msgspec.json.encode(await work(engine, body))
    except msgspec.DecodeError as error:
        return 400, msgspec.json.encode({"error": str(error)})
    except Exception as error:  # noqa: BLE001 - the learner is told, and says it
        return 500, msgspec.json.encode({"error": f"{type(error).__name__}: {error}"})


async def _update(engine: Any, body: bytes) -> dict[str, Any]:
    """Stop generating, and take weights in.

    Changing weights below a running request would end the engine. Nobody waits for such a request: the learner has all
    groups that it trains on before it sends weights. The caches stay: with them the clips' features would go.
    """
    asked = msgspec.json.decode(body, type=Update)
    await engine.engine_core.pause_scheduler_async(mode="abort", clear_cache=False)
    await engine.start_weight_update()
    await engine.update_weights(WeightTransferUpdateRequest(update_info=asked.update_info))
    return {}


async def _finish(engine: Any, body: bytes) -> dict[str, Any]:
    """Answer with the new weights from now on; what each process of the worker says of them.

    The keys and values that were kept are the old weights'. The encoder's frames stay: it is frozen, and no part of it
    is ever sent.
    """
    asked = msgspec.json.decode(body, type=Finish)
    await engine.finish_weight_update(str(asked.version))
    if not await engine.reset_prefix_cache():
        raise RuntimeError("the prefix cache was not reset: a request still holds keys and values in it")
    reports = await engine.collective_rpc("timepro_last_update")
    for report in reports:
        if (report.get("version"), report.get("checksum")) != (asked.version, asked.checksum):
            raise RuntimeError(f"{report} is not version {asked.version} with checksum {asked.checksum}")
    await engine.resume_generation()
    return {"reports": reports}


_WORK = {UPDATE_ROUTE: _update, FINISH_ROUTE: _finish}
