"""Middleware of a parity worker: gives the prompts that follow another layout, so that one worker serves all of them.

Only a server's prompts know the layout; its engine sees token ids. A worker of a run has no such route.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from timepro.astp import CONFIG_KEY

ROUTE = "/parity/layout"


class SwitchLayout:
    """`POST /parity/layout` with an `astp` entry as it stands in `config.json`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != ROUTE:
            return await self._app(scope, receive, send)
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        config = scope["app"].state.vllm_config.model_config.hf_config
        setattr(getattr(config, "thinker_config", config), CONFIG_KEY, json.loads(body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        return await send({"type": "http.response.body", "body": b""})
