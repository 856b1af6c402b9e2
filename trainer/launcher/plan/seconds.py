"""About how long a step of GRPO takes: each phase by a formula, with the rates of `machine`.

Training takes 6 FLOP a token and weight, 4 where the weights are frozen (no gradients of their own), and 2 more where
layers are computed twice (Kaplan et al., arXiv 2001.08361; Korthikanti et al., arXiv 2205.05198). Generating reads
every weight, and every key and value, once a token that all sequences write together.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.launcher.plan.architecture import Architecture
from trainer.launcher.plan.learner import number_bytes
from trainer.launcher.plan.machine import (
    CPU_ADAMW_NUMBERS_S,
    DECODING_OVERHEAD_S,
    MFU_PREFILL,
    MFU_TRAINING,
    SHARE_DECODING,
    SHARE_LINK,
    SYNC_GB_S,
    Card,
)
from trainer.launcher.plan.tokens import Tokens
from trainer.settings.experiment import ExperimentConfig

_FRAME_POSITIONS = 50  # of the encoder, a second of audio


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of a step's phases."""

    phases: dict[str, float]
    ahead: bool

    @property
    def total(self) -> float:
        """One after the other; with `grpo.ahead` generating runs beside training."""
        rest = sum(self.phases.values()) - self.phases["generate"]
        training = self.phases["train"] + self.phases["optimiser"] + self.phases["encode"]
        return (
            rest - training + max(self.phases["generate"], training) if self.ahead else rest + self.phases["generate"]
        )


def step_seconds(
    config: ExperimentConfig, architecture: Architecture, tokens: Tokens, card: Card, ranks: int, workers: int,
    at_a_time: int, sync_bytes: float, transport: str,
) -> StepSeconds:  # fmt: skip
    """Seconds of every phase.

    Args:
        ranks, workers: on all nodes.
        at_a_time: answers that a worker writes together.
        sync_bytes: of one weight sync; `transport` is nccl or gloo.
    """
    return StepSeconds(
        {
            "generate": generate_seconds(config, architecture, tokens, card, workers, at_a_time),
            "encode": encode_seconds(config, architecture, tokens, card, ranks),
            "train": train_seconds(config, architecture, tokens, card, ranks),
            "optimiser": optimiser_seconds(config, architecture, card, ranks),
            "sync": sync_bytes / (SYNC_GB_S[transport] * 1e9),
        },
        bool(config.grpo.ahead),
    )


def generate_seconds(
    config: ExperimentConfig, architecture: Architecture, tokens: Tokens, card: Card, workers: int, at_a_time: int
) -> float:
    """Prefill of every prompt once, 2 FLOP a token and weight; then a pass over all weights a token of the answers.

    The longest of many answers decides, taken as twice the mean; more answers than fit at a time take turns.
    """
    groups, rollout, decoder = config.grpo.groups, config.rollout, architecture.decoder
    prompts = -(-groups.prompts_per_step // workers)
    answers = prompts * groups.group_size
    heard = 2 * architecture.encoder.parameters * _FRAME_POSITIONS * tokens.seconds
    flop = prompts * (2 * (decoder.parameters - decoder.table) * tokens.prompt + heard)
    prefill = flop / (MFU_PREFILL * card.tflops * 1e12 * rollout.tensor_parallel)
    together = max(1, min(answers, at_a_time))
    turns = -(-answers // together)
    number = 2  # bytes on a card
    read = number * (decoder.parameters + together * decoder.cache_numbers * tokens.row(1))
    a_token = read / (SHARE_DECODING * card.memory_tb_s * 1e12 * rollout.tensor_parallel)
    written = min(2 * tokens.answer, groups.max_tokens)
    return prefill + turns * written * (a_token + DECODING_OVERHEAD_S[rollout.compile])


def encode_seconds(
    config: ExperimentConfig, architecture: Architecture, tokens: Tokens, card: Card, ranks: int
) -> float:
    """The learner's own pass of each clip through the audio encoder: 2 FLOP a position and weight."""
    clips = -(-config.grpo.groups.prompts_per_step // ranks)
    flop = 2 * architecture.encoder.parameters * _FRAME_POSITIONS * tokens.seconds * clips
    return flop / (MFU_TRAINING * card.tflops * 1e12)


def train_flop(config: ExperimentConfig, architecture: Architecture, tokens: Tokens) -> float:
    """Of a row: the layers' weights for every token, attention for every pair of tokens, the head for answers alone."""
    decoder, group = architecture.decoder, config.grpo.groups.group_size
    passes = (2 if config.lora.rank else 3) + (1 if config.grpo.batch.gradient_checkpointing else 0)
    row = tokens.row(group)
    layers = 2 * decoder.layers * decoder.layer_parameters * row
    attention = 4 * decoder.layers * decoder.heads * decoder.head_dim * row * row / 2
    head = 2 * decoder.table * group * tokens.answer
    return passes * (layers + head) + (passes + (1 if config.lora.rank else 0)) * attention


def train_seconds(
    config: ExperimentConfig, architecture: Architecture, tokens: Tokens, card: Card, ranks: int
) -> float:
    """Arithmetic, or gathering the weights over the link where that takes longer: three times a micro-batch."""
    groups, batch = config.grpo.groups, config.grpo.batch
    rows = -(-groups.prompts_per_step // ranks)
    arithmetic = rows * train_flop(config, architecture, tokens) / (MFU_TRAINING * card.tflops * 1e12)
    if ranks == 1:
        return arithmetic
    fit = max(1, batch.micro_batch_tokens // tokens.row(groups.group_size))
    moved = 3 * number_bytes(config, True) * architecture.decoder.parameters * -(-rows // fit)
    return max(arithmetic, moved / (SHARE_LINK * card.link_gb_s * 1e9))


def optimiser_seconds(config: ExperimentConfig, architecture: Architecture, card: Card, ranks: int) -> float:
    """AdamW reads and writes 28 bytes a trained number; in main memory it is the CPU's speed that counts."""
    decoder, lora = architecture.decoder, config.lora
    numbers = decoder.adapter_parameters(lora.rank, lora.targets) if lora.rank else decoder.parameters
    if config.zero.offload_optimiser:
        return numbers / ranks / CPU_ADAMW_NUMBERS_S
    return 28 * numbers / ranks / (SHARE_DECODING * card.memory_tb_s * 1e12)
