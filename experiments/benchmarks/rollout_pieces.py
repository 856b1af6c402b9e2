"""Parts of `rollout.py` without an engine: a group's reply by two routes, and draws with and without seeds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

ANSWERS, TOKENS, PROMPT = 8, 20, 200
ROWS, VOCABULARY = 192, 8448  # of a step of the embedded experiments


def reply_ms() -> dict[str, float]:
    """A group's reply, from vLLM's output to answers in the learner: by vLLM's token route, and by the worker's own."""
    found = {"token_route_ms": cpu_ms(token_route()), "ms": cpu_ms(own_route())}
    return found | {"less": round(found["token_route_ms"] / found["ms"], 1)}


def token_route() -> Callable[[], object]:
    """What vLLM's route does with an output, as its source has it, and reading that."""
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateTokensChoice, GenerateTokensResponse
    from vllm.entrypoints.scale_out.token_in_token_out.serving import ServingTokens
    from vllm.logprobs import Logprob

    tokens = list(range(1000, 1000 + TOKENS))
    logprobs = [{token: Logprob(-1.2345678 / (place + 1), 3)} for place, token in enumerate(tokens)]
    serving = ServingTokens.__new__(ServingTokens)

    def work() -> object:
        choices = [
            GenerateTokensChoice(
                index=number, logprobs=serving._create_tokens_logprobs(tokens, logprobs, 0), finish_reason="stop",
                token_ids=tokens,
            )
            for number in range(ANSWERS)
        ]  # fmt: skip
        reply = GenerateTokensResponse(request_id="r", choices=choices, prompt_token_ids=list(range(PROMPT)))
        body = json.loads(json.dumps(reply.model_dump(), ensure_ascii=False, separators=(",", ":")).encode())
        return [
            (choice["token_ids"], [entry["logprob"] for entry in choice["logprobs"]["content"]])
            for choice in body["choices"]
        ]

    return work


def own_route() -> Callable[[], object]:
    """The same by our route and client."""
    import msgspec
    from vllm.logprobs import FlatLogprobs
    from vllm.outputs import WeightVersionSpan

    from rollout.client import read_group
    from rollout.groups_route import as_json

    flat = FlatLogprobs()
    for place in range(TOKENS):
        flat.append_fast([1000 + place], [-1.2345678 / (place + 1)], iter([3]), [None])
    spans = [WeightVersionSpan("4", 0, TOKENS)]
    answer = SimpleNamespace(token_ids=flat.token_ids, logprobs=flat, finish_reason="stop", weight_versions=spans)
    output = SimpleNamespace(prompt_token_ids=list(range(PROMPT)), outputs=[answer] * ANSWERS)
    return lambda: read_group("p", json.loads(msgspec.json.encode(as_json(output))), ANSWERS, "worker", 0.0)


def sampler_ms() -> dict[str, float]:
    """vLLM's draw on a CPU, for all rows, with and without a generator a row."""
    import torch
    from vllm.platforms import current_platform
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    current_platform.import_kernels()
    torch.set_num_threads(1)
    sampler, logits = TopKTopPSampler("processed_logprobs"), torch.rand(ROWS, VOCABULARY)
    generators = {row: torch.Generator().manual_seed(row) for row in range(ROWS)}
    return {
        "seeded": cpu_ms(lambda: sampler.forward_cpu(logits.clone(), generators, None, None)),
        "unseeded": cpu_ms(lambda: sampler.forward_cpu(logits.clone(), {}, None, None)),
    }


def cpu_ms(work: Callable[[], Any], times: int = 50) -> float:
    """The median, in milliseconds of this thread's CPU time; the first two calls are left out."""
    taken = []
    for _ in range(times + 2):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return round(1000 * statistics.median(taken[2:]), 3)
