"""How a step's rows are cut into forward passes: `sft.batch.*`, `grpo.batch.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Count, NotNegative, Positive


@dataclass
class BatchConfig:
    """Micro-batches, and memory for time."""

    micro_batch_tokens: Count = 16384  # padded tokens of one forward pass on one rank
    logit_chunk_mib: Positive = 64.0  # float32 logits made at a time: 110 tokens' at a vocabulary of 152,064
    frame_cache_gib: NotNegative = 2.0  # encoded audio kept in memory, a rank
    gradient_checkpointing: bool = False  # keep what goes into a layer, compute the rest again in the backward pass
    offload_activations: bool = False  # keep what the backward pass needs in main memory
