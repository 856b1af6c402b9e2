"""Memory of one learner rank, by part, at the moment when it needs most."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.launcher.plan import passes, states
from trainer.launcher.plan.architecture import Architecture
from trainer.launcher.plan.passes import How, Pass
from trainer.launcher.plan.states import Trained
from trainer.launcher.plan.tokens import Tokens
from trainer.settings.batch import BatchConfig
from trainer.settings.experiment import ExperimentConfig

GIB = 2**30
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
CONTEXT_GIB = 1.2  # of a card: CUDA's context, NCCL, cuBLAS' workspace (assumed)
SLACK = 0.05  # of what is allocated: pieces that torch's allocator cannot use (assumed)
_PROCESS_GIB = 3.0  # main memory of a rank's own: Python, torch, CUDA's libraries (assumed)
_CPU_PROCESS_GIB = 0.9  # the same on a CPU: a run of two ranks and a worker takes 5.9 GiB in all


@dataclass(frozen=True)
class RankMemory:
    """Of one rank, in bytes.

    Args:
        stage: "SFT" or "GRPO".
        parts: of where it computes, by name; together the peak.
        moment: when the peak is.
        host: in main memory besides: the process, one weight at a time while loading, and what is offloaded.
        written: on rank 0 once more in main memory, when it writes the result: the decoder.
        one: the largest micro-batch.
    """

    stage: str
    parts: dict[str, float]
    moment: str
    host: float
    written: float
    one: Pass

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def number_bytes(config: ExperimentConfig, gpu: bool) -> int:
    """Of a weight where the learner computes."""
    return BYTES.get(config.zero.dtype, 2 if gpu else 4)


def trained_of(config: ExperimentConfig, architecture: Architecture, ranks: int, gpu: bool, grpo: bool) -> Trained:
    """How the decoder is trained in a stage."""
    number, decoder, lora = number_bytes(config, gpu), architecture.decoder, config.lora
    adapters = decoder.adapter_parameters(lora.rank, lora.targets)
    return Trained(
        number=number,
        numbers=adapters if lora.rank else decoder.parameters,
        frozen=decoder.parameters if lora.rank else 0,
        trained_number=4 if lora.rank else number,
        ranks=ranks,
        offload=config.zero.offload_optimiser,
        reference=grpo and config.grpo.kl.coefficient > 0 and not lora.rank,
        deltas=grpo and sync_mode(config, gpu) == "delta",
        measured=grpo and config.grpo.noise_every > 0,
        on_cpu=not gpu,
    )


def sync_mode(config: ExperimentConfig, gpu: bool) -> str:
    """dense, delta or adapters."""
    dtype = {2: "bfloat16", 4: "float32"}[number_bytes(config, gpu)]
    return config.sync.resolved_mode(config.lora.rank > 0, dtype)


def how_of(config: ExperimentConfig, batch: BatchConfig, gpu: bool) -> How:
    """How a micro-batch is computed."""
    lora = config.lora
    return How(
        number=number_bytes(config, gpu),
        whole=not lora.rank,
        adapter_rank=lora.rank,
        adapted=len(lora.targets),
        checkpointing=batch.gradient_checkpointing,
        on_card=gpu,
    )


def largest_pass(config: ExperimentConfig, tokens: Tokens, ranks: int, grpo: bool) -> Pass:
    """The largest micro-batch: as many of the longest rows as fit, or as a rank has."""
    if grpo:
        groups, batch, answers = config.grpo.groups, config.grpo.batch, config.grpo.groups.group_size
        has, answer = -(-groups.prompts_per_step // (ranks * config.grpo.minibatches)), tokens.longest_answer
    else:
        batch, answers, answer = config.sft.batch, 1, 2 * tokens.answer  # a long label
        has = -(-config.sft.batch_size // ranks)
    width = min(tokens.longest_prompt + answers * (answer - 1), batch.micro_batch_tokens)
    return Pass(max(1, min(has, batch.micro_batch_tokens // width)), width, answers, answer)


def rank_memory(
    stage: str, config: ExperimentConfig, architecture: Architecture, tokens: Tokens, ranks: int, gpu: bool
) -> RankMemory:
    """What a rank needs at most in a stage.

    Args:
        stage: "SFT" or "GRPO".
        ranks: on all nodes.
    """
    grpo = stage == "GRPO"
    batch = config.grpo.batch if grpo else config.sft.batch
    one, how = largest_pass(config, tokens, ranks, grpo), how_of(config, batch, gpu)
    trained = trained_of(config, architecture, ranks, gpu, grpo)
    parts = held(trained, architecture, how, config.zero.reduce_bucket)
    parts["encoded frames"] = _frames(batch, architecture, tokens, how.number)
    found = moments(trained, architecture, how, one, batch, config.zero.reduce_bucket)
    moment = max(found, key=lambda name: sum(found[name].values()))
    parts |= found[moment]
    if gpu:
        parts["CUDA, allocator"] = CONTEXT_GIB * GIB + SLACK * sum(parts.values())
    written = float(how.number * architecture.decoder.parameters)
    loading = how.number * (architecture.encoder.parameters + architecture.decoder.table)
    read = loading + (_PROCESS_GIB if gpu else _CPU_PROCESS_GIB) * GIB
    return RankMemory(stage, parts, moment, states.offloaded_bytes(trained) + read, written, one)


def moments(
    trained: Trained, architecture: Architecture, how: How, one: Pass, batch: BatchConfig, bucket: int
) -> dict[str, dict[str, float]]:
    """What is needed for a while beside what is held, by part, at each moment of a step that may be the worst."""
    decoder, reduced = architecture.decoder, states.bucket_bytes(trained, bucket)
    kept, last = passes.kept_bytes(decoder, how, one), passes.last_layer_bytes(decoder, how, one)
    if batch.offload_activations:
        kept = last = 0.0
    gathered = {"gathered layers": states.gathered_bytes(trained)}
    head = states.table_gradient_bytes(trained, decoder)
    return {
        "the head's backward": gathered | {
            "activations": kept + last,
            "logits": passes.logit_bytes(decoder, one, batch.logit_chunk_mib),
            "the head's gradient": head,
        },
        "a layer's backward": gathered | {
            "activations": kept,
            "a layer's backward": passes.working_bytes(decoder, how, one),
            "the head's gradient": states.waiting_gradient_bytes(trained, decoder),
            "a reduced bucket": reduced,
        },
        "the embeddings' gradient": {"the embeddings' gradient": states.embedding_gradient_bytes(trained, decoder)},
        "the optimiser's step": {"the optimiser's step": states.step_bytes(trained, decoder)},
    }  # fmt: skip


def held(trained: Trained, architecture: Architecture, how: How, bucket: int) -> dict[str, float]:
    """What a rank holds all the time, by part."""
    parts = {
        "weights": states.weight_bytes(trained),
        "gradients": states.gradient_bytes(trained),
        "optimiser": states.optimiser_bytes(trained),
        "reference": states.reference_bytes(trained),
        "weights as last sent": states.last_sent_bytes(trained),
        "a half's gradients": states.half_gradient_bytes(trained),
        "gradients' bucket": states.bucket_bytes(trained, bucket),
        "audio encoder": float(how.number * architecture.encoder.parameters),  # on every rank, whole
    }
    return {name: size for name, size in parts.items() if size}


def _frames(batch: BatchConfig, architecture: Architecture, tokens: Tokens, number: int) -> float:
    """Encoded audio that is kept: all clips', up to `frame_cache_gib`."""
    limit = batch.frame_cache_gib * GIB
    a_clip = architecture.family.frame_rate * tokens.seconds * architecture.decoder.hidden * number
    return min(limit, tokens.clips * a_clip) if tokens.clips else limit
