"""What one forward and backward pass keeps in memory, counted as autograd saves it.

The count follows Korthikanti et al. (arXiv 2205.05198, section 4) for this decoder: RMSNorm, a gated feed-forward,
grouped key-value heads, attention that keeps no scores; on a card as its own kernels compute them, on a CPU as
transformers does. In that paper's
notation b is the size of a number, h the width, f the feed-forward's width.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.launcher.plan.architecture import Decoder

_SCORES = 4  # bytes of the statistics that attention keeps a head and token
_SEGMENT = 128  # answer tokens that are attended to in one call on a CPU
_LOGIT_COPIES = 3.5  # of a chunk's float32 logits at the same time, see `trainer.learner.head`


@dataclass(frozen=True)
class Pass:
    """One micro-batch.

    Args:
        rows: B.
        width: N, padded tokens of a row.
        answers: G, of a row.
        answer: T, tokens of an answer.
    """

    rows: int
    width: int
    answers: int
    answer: int

    @property
    def tokens(self) -> int:
        return self.rows * self.width

    @property
    def answer_tokens(self) -> int:
        """K, tokens to be predicted in all rows."""
        return self.rows * min(self.width, self.answers * self.answer)

    @property
    def prompt(self) -> int:
        """P, tokens of a row's prompt."""
        return max(1, self.width - self.answers * (self.answer - 1))

    @property
    def branched(self) -> bool:
        """Whether rows have several answers, so that attention goes by a tree and not plainly backwards in time."""
        return self.answers > 1


@dataclass(frozen=True)
class How:
    """What decides how much a pass keeps.

    Args:
        number: bytes of weights and activations, b.
        whole: whether the weights themselves are trained, and not adapters.
        adapter_rank: 0 without adapters; `adapted` is how many of a layer's matrices have one.
        checkpointing: a layer's input alone is kept, and the layer computed again (arXiv 1604.06174).
        on_card: norms, gated feed-forwards and attention over shared prompts have kernels of their own there
            (`timepro.families.parts`).
    """

    number: int
    whole: bool
    adapter_rank: int = 0
    adapted: int = 0
    checkpointing: bool = False
    on_card: bool = False


def norm_bytes(decoder: Decoder, how: How) -> float:
    """A token's share of one RMSNorm: its input and its output, 2 b h.

    On a CPU the input is kept in float32 and, for a trained scale's gradient, once more scaled: 4 h + b h + b h.
    """
    if how.on_card:
        return 2 * how.number * decoder.hidden
    return decoder.hidden * (4 + how.number + (how.number if how.whole else 0))


def attention_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """A token's share of one attention, with queries q and keys k wide, and a number a head for the scores.

    Plain: queries, keys, values, output, b (2 q + 2 k). Over shared prompts a card has the output in two orders,
    b (3 q + 2 k); a CPU repeats keys and values to one a query head, and has those of each part beside, 5 b q and more.
    """
    queries, keys = decoder.heads * decoder.head_dim, decoder.key_value_heads * decoder.head_dim
    if not one.branched:
        numbers: float = 2 * queries + 2 * keys
    elif how.on_card:
        numbers = 3 * queries + 2 * keys
    else:
        numbers = 5 * queries + _segment_numbers(queries, one) / one.width
    return how.number * numbers + _SCORES * decoder.heads


def _segment_numbers(queries: int, one: Pass) -> float:
    """A row's numbers for attention segment by segment: the prompt's keys and values again for each few answers.

    2 q (P + n) and a mask of n (P + n) for each part of n answer tokens.
    """
    inputs = one.answer - 1
    together = max(1, min(one.answers, _SEGMENT // max(1, inputs)))
    parts, n = -(-one.answers // together), together * inputs
    return parts * (one.prompt + n) * (2 * queries + n)


def feed_forward_bytes(decoder: Decoder, how: How) -> float:
    """A token's share of one gated feed-forward: gate, up, their product, 3 b f; on a CPU the gate's activation too."""
    return (3 if how.on_card else 4) * how.number * decoder.feed_forward


def layer_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """What one layer keeps, a token, without checkpointing."""
    adapters = how.number * how.adapter_rank * how.adapted
    return (
        2 * norm_bytes(decoder, how) + attention_bytes(decoder, how, one) + feed_forward_bytes(decoder, how) + adapters
    )


def last_layer_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """The last layer of all rows: norm, keys and values everywhere, the rest where answers are predicted alone."""
    queries, keys = decoder.heads * decoder.head_dim, decoder.key_value_heads * decoder.head_dim
    everywhere = norm_bytes(decoder, how) + 2 * how.number * (keys if how.on_card else queries)
    there = (
        norm_bytes(decoder, how)
        + 3 * how.number * queries
        + feed_forward_bytes(decoder, how)
        + norm_bytes(decoder, how)  # the norm behind the layers
        + how.number * decoder.hidden  # the states that the head takes
    )
    parts = 0.0 if how.on_card else how.number * one.rows * _segment_numbers(queries, one)
    return one.tokens * everywhere + one.answer_tokens * there + parts


def kept_bytes(decoder: Decoder, how: How, one: Pass) -> float:
    """What waits for the backward pass of all layers but the last: embeddings, layers or (checkpointed) inputs."""
    inputs = how.number * decoder.hidden * one.tokens
    a_layer = how.number * decoder.hidden if how.checkpointing else layer_bytes(decoder, how, one)
    return inputs + (decoder.layers - 1) * a_layer * one.tokens


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
