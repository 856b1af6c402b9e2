"""Detection by a vLLM server: the windows of a recording go to its chat route, which answers as it answers anybody."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import requests
import soundfile

from timepro.inference.confidence import Written

TIMEOUT_S = 120.0
_AT_ONCE = 16


class VllmBackend:
    """A checkpoint behind a URL. See `timepro.inference.answering.Backend`.

    Args:
        url: of vLLM's OpenAI-compatible server with this project's plugin (`timepro serve`, or `vllm serve FOLDER`).
        token: sent with every request; None where the server wants none.
        sample_rate: of the windows, in Hz.
        timeout_s: deadline of one request.

    Raises:
        ValueError: no such server, or one that wants another token.
    """

    def __init__(
        self, url: str, token: str | None = None, sample_rate: int = 16000, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._rate, self._timeout_s = sample_rate, timeout_s
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._model = self._ask("GET", "/v1/models")["data"][0]["id"]

    def write(
        self, windows: Sequence[np.ndarray], question: str, n: int, temperature: float, max_tokens: int
    ) -> list[list[Written]]:
        """See `Backend`. Raises ValueError where the server refuses a window, RuntimeError where it fails."""

        def one(window: np.ndarray) -> list[Written]:
            body = self._body(window, question, n, temperature, max_tokens)
            choices = self._ask("POST", "/v1/chat/completions", body)["choices"]
            return [_written(choice) for choice in sorted(choices, key=lambda choice: choice["index"])]

        with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(windows)))) as pool:
            return list(pool.map(one, windows))

    def _body(self, window: np.ndarray, question: str, n: int, temperature: float, max_tokens: int) -> dict[str, Any]:
        clip = io.BytesIO()
        soundfile.write(clip, window, self._rate, format="WAV", subtype="FLOAT")  # the very samples
        audio = {"data": base64.b64encode(clip.getvalue()).decode(), "format": "wav"}
        content = [{"type": "input_audio", "input_audio": audio}, {"type": "text", "text": question}]
        drawing = {"temperature": temperature, "top_p": 1.0, "top_k": 0, "n": n, "seed": 0} if temperature else {}
        return {
            "model": self._model, "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens,
            "temperature": 0, "logprobs": True, "return_token_ids": True, "skip_special_tokens": False, **drawing,
        }  # fmt: skip

    def _ask(self, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
        address = f"{self._url}{route}"
        try:
            reply = requests.request(method, address, json=body, headers=self._headers, timeout=self._timeout_s)
        except requests.RequestException as error:
            raise RuntimeError(
                f"{address} does not answer ({type(error).__name__}: {error}); is the server up?"
            ) from None
        if reply.status_code == 401:
            raise ValueError(f"{self._url} wants a token that it was not given (status 401)")
        if reply.status_code >= 400:
            kind = ValueError if reply.status_code < 500 else RuntimeError
            raise kind(f"{address} refuses with status {reply.status_code}: {reply.text[:300]}")
        try:
            return reply.json()
        except ValueError:
            raise RuntimeError(f"{address} is not a vLLM server: it answers {reply.text[:100]!r}") from None


def _written(choice: dict[str, Any]) -> Written:
    ids = list(choice["token_ids"])
    logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
    if len(ids) != len(logprobs):
        raise RuntimeError(f"the server gave {len(ids)} tokens and {len(logprobs)} log-probabilities; both are needed")
    return Written(ids, logprobs)
