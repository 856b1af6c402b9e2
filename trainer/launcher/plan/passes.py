"""What one forward and backward pass keeps in memory, counted as autograd saves it.

The count follows Korthikanti et al. (arXiv 2205.05198, section 4) for this decoder as it is written in transformers:
RMSNorm in float32, a gated feed-forward, grouped key-value heads, attention that keeps no scores. In that paper's
notation b is the size of a number, h the width, f the feed-forward's width.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.launcher.plan.architecture import Decoder

_SCORES = 4  # bytes of the statistics that attention keeps a head and token
_LOGIT_COPIES = 3.5  # of a chunk's float32 logits at the same time, see `trainer.learner.head`


@dataclass(frozen=True)
class Pass:
    """One micro-batch.

    Args:
        rows: B.
        width: N, padded tokens of a row.
        answer_tokens: K, tokens to be predicted in all rows.
        branched: whether a row has several answers, so that attention goes by the tree's mask.
    """

    rows: int
    width: int
    answer_tokens: int
    branched: bool

    @property
    def tokens(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True)
class How:
    """What decides how much a pass keeps.

    Args:
        number: bytes of weights and activations, b.
        whole: whether the weights themselves are trained, and not adapters.
        adapter_rank: 0 without adapters; `adapted` is how many of a layer's matrices have one.
        checkpointing: a layer's input alone is kept, and the layer computed again (arXiv 1604.06174).
        dense_mask: whether attention under the tree's mask gets it as a (B, N, N) tensor, and keys and values one a
            query head.
    """

    number: int
    whole: bool
    adapter_rank: int = 0
    adapted: int = 0
    checkpointing: bool = False
    dense_mask: bool = True


def norm_bytes(decoder: Decoder, how: How) -> float:
    """A token's share of one RMSNorm: the input in float32, the output, and the scaled input for the scale's gradient.

    4 h + b h + b h; the last only where the scale is trained.
    """
    return decoder.hidden * (4 + how.number + (how.number if how.whole else 0))


def attention_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """A token's share of one attention: queries, keys, values and the output, and a number a head for the scores.

    b (2 q + 2 k) + 4 heads; under a dense mask k is as wide as q, and the mask itself, N numbers a token, is kept.
    """
    dense = one.branched and how.dense_mask
    queries = decoder.heads * decoder.head_dim
    keys = queries if dense else decoder.key_value_heads * decoder.head_dim
    return how.number * (2 * queries + 2 * keys + (one.width if dense else 0)) + _SCORES * decoder.heads


def feed_forward_bytes(decoder: Decoder, how: How) -> float:
    """A token's share of one gated feed-forward: gate, its activation, up, and their product. 4 b f."""
    return 4 * how.number * decoder.feed_forward


def layer_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """What one layer keeps, a token, without checkpointing."""
    adapters = how.number * how.adapter_rank * how.adapted
    return (
        2 * norm_bytes(decoder, how) + attention_bytes(decoder, how, one) + feed_forward_bytes(decoder, how) + adapters
    )


def last_layer_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """The last layer of all rows: norm, keys and values everywhere, the rest where answers are predicted alone."""
    queries = decoder.heads * decoder.head_dim
    everywhere = norm_bytes(decoder, how) + 2 * how.number * queries
    there = (
        norm_bytes(decoder, how)
        + how.number * (2 * queries + one.width)
        + feed_forward_bytes(decoder, how)
        + norm_bytes(decoder, how)  # the norm behind the layers
        + how.number * decoder.hidden  # the states that the head takes
    )
    return one.tokens * everywhere + one.answer_tokens * there


def kept_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """Everything that waits for the backward pass when it begins: embeddings, layers, last layer."""
    inputs = how.number * decoder.hidden * one.tokens
    a_layer = how.number * decoder.hidden if how.checkpointing else layer_bytes(decoder, how, one)
    return inputs + (decoder.layers - 1) * a_layer * one.tokens + last_layer_bytes(decoder, how, one)


def working_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """The most that the backward pass of one layer needs beside what is kept.

    Gradients of the feed-forward's three inner tensors and of the residual stream, and under checkpointing the layer's
    own part, computed again.
    """
    gradients = how.number * (3 * decoder.feed_forward + 2 * decoder.hidden) * one.tokens
    again = layer_bytes(decoder, how, one) * one.tokens if how.checkpointing else 0.0
    return gradients + again


def logit_bytes(decoder: Decoder, one: Pass, chunk_mib: float) -> float:
    """What the head computes with: a few float32 copies of one chunk of K V logits."""
    chunk = max(1, int(chunk_mib * 2**20) // (4 * decoder.rows))
    return _LOGIT_COPIES * 4 * decoder.rows * min(chunk, one.answer_tokens)
