"""Memory of one rollout worker, and how many answers it writes at a time.

vLLM takes `rollout.gpu_memory_fraction` of each of its cards when it starts: weights, what one pass over
`rollout.max_batched_tokens` needs (it tries one), and all that is left for keys and values (arXiv 2309.06180).
"""

from __future__ import annotations

from dataclasses import dataclass

from rollout.settings import WorkerConfig
from trainer.launcher.plan.architecture import Architecture
from trainer.launcher.plan.tokens import Tokens

GIB = 2**30
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_CONTEXT_GIB, _GRAPHS_GIB = 1.0, 1.0  # CUDA's context; CUDA graphs where the model is compiled (assumed)
_FRAMES_A_CLIP = 750  # of the longest clip that vLLM tries, 30 s
_SAMPLER_COPIES = 4  # of float32 logits of all sequences: raw, processed, sorted, probabilities
_CPU_PROCESS_GIB = 2.8  # of a worker's three processes on a CPU, with a tiny model about 3 GiB in all


@dataclass(frozen=True)
class WorkerMemory:
    """Of one worker on one of its cards (on a CPU: in main memory), in bytes.

    Args:
        parts: by name; together what vLLM takes.
        least: what it cannot start without.
        cache_tokens: that have room in the key-value cache, over all of the worker's cards.
        answers_at_a_time: by that room and `rollout.max_sequences`, with answers as long as they may be.
    """

    parts: dict[str, float]
    least: float
    cache_tokens: int
    answers_at_a_time: int

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def worker_memory(
    config: WorkerConfig, architecture: Architecture, tokens: Tokens, group: int, card_gib: float
) -> WorkerMemory:
    """What a worker takes.

    Args:
        group: answers to a prompt, which share the prompt's keys and values.
        card_gib: memory of each of its cards; 0 for a CPU.
    """
    gpu, width = card_gib > 0, config.tensor_parallel
    number = _BYTES.get(config.dtype, 2 if gpu else 4)
    weights = number * (architecture.decoder.parameters + architecture.encoder.parameters) / width
    working = working_bytes(config, architecture, number)
    other = ((_CONTEXT_GIB + (_GRAPHS_GIB if config.compile else 0)) if gpu else _CPU_PROCESS_GIB) * GIB
    a_token = number * architecture.decoder.cache_numbers / min(width, architecture.decoder.key_value_heads)
    taken = config.gpu_memory_fraction * card_gib * GIB if gpu else weights + working + config.kv_cache_mib * 2**20
    cache = taken - weights - working - (other if gpu else 0)
    parts = {"weights": weights, "a pass": working, "CUDA, graphs" if gpu else "processes": other}
    room = int(max(cache, 0) // a_token)
    a_group = tokens.longest_prompt + group * tokens.longest_answer
    answers = min(config.max_sequences, room * group // a_group)
    least = sum(parts.values()) + a_token * config.max_model_len
    return WorkerMemory(parts | {"key-value cache": max(cache, 0.0)}, least, room, answers)


def working_bytes(config: WorkerConfig, architecture: Architecture, number: int) -> float:
    """What one pass needs, at most: of the decoder or the audio encoder, and of the sampler.

    Decoder, a token: gate and up as one matrix and their product, 3 f, beside the residual stream and a norm's output,
    3 h. Encoder, a position (two a frame): feed-forward and 4 widths. Encoded audio waits for the decoder: h a token.
    """
    decoder, encoder, width = architecture.decoder, architecture.encoder, config.tensor_parallel
    batch = min(config.max_batched_tokens, config.max_sequences * config.max_model_len)
    a_pass = batch * (3 * decoder.feed_forward / width + 3 * decoder.hidden)
    clips = -(-batch // _FRAMES_A_CLIP)
    heard = clips * 2 * _FRAMES_A_CLIP * (2 * encoder.feed_forward / width + 4 * encoder.width)
    waiting = batch * decoder.hidden
    sampling = _SAMPLER_COPIES * 4 * config.max_sequences * decoder.rows
    return number * (max(a_pass, heard) + waiting) + sampling
