"""Rows and micro-batches: one prompt and its G answers in one row, so that the prompt is computed once a group.

`[prompt | answer 1 | ... | answer G]` with a tree mask: every answer sees the prompt and itself. Positions restart
behind the prompt for every answer, so each answer's log-probabilities are those of the plain sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from timepro.families.parts.tree import PADDING, PROMPT


@dataclass(frozen=True)
class AnswerTokens:
    """One answer as the loss needs it.

    Args:
        token_ids: T tokens, the stop token included.
        sampled_logprobs: T, as returned with the answer; empty for a supervised answer.
        reference_logprobs: T, under the reference model; empty where there is none.
        own_logprobs: T, under the learner's weights before the step's first update; empty where they are not needed.
        advantage: 0 for a supervised answer.
        supervised: cross-entropy instead of the policy gradient.
        weight: 0 leaves the answer out of the loss.
    """

    token_ids: list[int]
    sampled_logprobs: list[float] = field(default_factory=list)
    reference_logprobs: list[float] = field(default_factory=list)
    own_logprobs: list[float] = field(default_factory=list)
    advantage: float = 0.0
    supervised: bool = False
    weight: float = 1.0


@dataclass(frozen=True)
class Row:
    """A prompt (P expanded token ids, F audio placeholders among them) with its answers.

    `frames` are the clip's encoded audio frames (F, H), and `sample` is the sample's id, for messages.
    """

    prompt_ids: list[int]
    frames: Tensor
    answers: list[AnswerTokens]
    sample: str = ""

    @property
    def length(self) -> int:
        """Tokens that the model computes: an answer's last token is only ever predicted."""
        return len(self.prompt_ids) + sum(len(a.token_ids) - 1 for a in self.answers)


@dataclass
class MicroBatch:
    """B rows padded to N tokens, and the K answer tokens to be predicted.

    Args:
        input_ids, positions, segments: (B, N); segments as in `timepro.families.parts.tree`.
        audio_mask: (B, N), where an encoded frame replaces the token's embedding.
        frames: (sum of F, H), in the order of the mask.
        queries: (B, Q), positions whose hidden states are needed: the prompt's last token and all answer inputs.
        sources: (K,) flat indices into (B * Q) of the positions that predict.
        targets: (K,) the tokens predicted.
        answer_of: (K,) number of the answer within the micro-batch.
        sampled_logprobs, reference_logprobs, own_logprobs, advantages, weights: (K,).
        supervised: (K,) bool.
        branched: whether any row has several answers; else plain causal attention is the tree's.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    audio_mask: Tensor
    frames: Tensor
    queries: Tensor
    sources: Tensor
    targets: Tensor
    answer_of: Tensor
    sampled_logprobs: Tensor
    reference_logprobs: Tensor
    own_logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    supervised: Tensor
    branched: bool

    def to(self, device: torch.device) -> MicroBatch:
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def collate(rows: Sequence[Row], audio_token_id: int, pad_token_id: int) -> MicroBatch:
    """Pad rows to a common length and point at every answer token.

    Raises:
        ValueError: a row whose placeholders and frames differ in number.
    """
    width = max(row.length for row in rows)
    shape = (len(rows), width)
    input_ids = torch.full(shape, pad_token_id)
    positions = torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, PADDING)
    audio_mask = torch.zeros(shape, dtype=torch.bool)
    # A row's needed positions are one run, from the prompt's last token to the row's end.
    n_queries = max(row.length - len(row.prompt_ids) + 1 for row in rows)
    starts = torch.tensor([len(row.prompt_ids) - 1 for row in rows])
    queries = (starts[:, None] + torch.arange(n_queries)).clamp(max=width - 1)
    sources: list[int] = []
    tokens: list[tuple[int, int, float, float, float, float, float, bool]] = []
    n_answers = 0
    for b, row in enumerate(rows):
        prompt = torch.tensor(row.prompt_ids)
        p = len(prompt)
        input_ids[b, :p], positions[b, :p], segments[b, :p] = prompt, torch.arange(p), PROMPT
        # The mask covers the prompt alone: a placeholder that slipped into an answer must not take a frame.
        audio_mask[b, :p] = prompt == audio_token_id
        if int(audio_mask[b].sum()) != len(row.frames):
            raise ValueError(f"a prompt has {int(audio_mask[b].sum())} audio placeholders for {len(row.frames)} frames")
        end = p
        for g, answer in enumerate(row.answers):
            inputs = len(answer.token_ids) - 1
            input_ids[b, end : end + inputs] = torch.tensor(answer.token_ids[:-1], dtype=torch.long)
            positions[b, end : end + inputs] = torch.arange(p, p + inputs)
            segments[b, end : end + inputs] = g
            first = b * n_queries + end - (p - 1)
            sources += [b * n_queries] + list(range(first, first + inputs))
            none = [0.0] * len(answer.token_ids)
            known = (answer.sampled_logprobs or none, answer.reference_logprobs or none, answer.own_logprobs or none)
            tokens += [
                (token, n_answers, sampled, reference, own, answer.advantage, answer.weight, answer.supervised)
                for token, sampled, reference, own in zip(answer.token_ids, *known, strict=True)
            ]
            n_answers += 1
            end += inputs
    targets, answer_of, sampled_all, reference_all, own_all, advantages, weights, supervised = zip(*tokens, strict=True)
    return MicroBatch(
        input_ids=input_ids,
        positions=positions,
        segments=segments,
        audio_mask=audio_mask,
        frames=torch.cat([row.frames for row in rows]),
        queries=queries,
        sources=torch.tensor(sources),
        targets=torch.tensor(targets),
        answer_of=torch.tensor(answer_of),
        sampled_logprobs=torch.tensor(sampled_all, dtype=torch.float32),
        reference_logprobs=torch.tensor(reference_all, dtype=torch.float32),
        own_logprobs=torch.tensor(own_all, dtype=torch.float32),
        advantages=torch.tensor(advantages, dtype=torch.float32),
        weights=torch.tensor(weights, dtype=torch.float32),
        supervised=torch.tensor(supervised, dtype=torch.bool),
        branched=any(len(row.answers) > 1 for row in rows),
    )


def split_rows(rows: Sequence[Row], token_budget: int) -> list[Row]:
    """Rows that fit a micro-batch: one whose answers do not fit together becomes several with the same prompt.

    Raises:
        ValueError: a prompt that does not fit with one of its answers; names the sample.
    """
    fitting = []
    for row in rows:
        part: list[AnswerTokens] = []
        length = len(row.prompt_ids)
        for answer in row.answers:
            n = len(answer.token_ids) - 1
            if part and length + n > token_budget:
                fitting.append(replace(row, answers=part))
                part, length = [], len(row.prompt_ids)
            if length + n > token_budget:
                raise ValueError(
                    f"sample {row.sample or 'without a name'}: its prompt of {len(row.prompt_ids)} tokens and one "
                    f"answer of {n + 1} do not fit the {token_budget} tokens of a micro-batch; raise "
                    "batch.micro_batch_tokens, or shorten the clip or the answers"
                )
            part.append(answer)
            length += n
        fitting.append(row if len(part) == len(row.answers) else replace(row, answers=part))
    return fitting


def plan_micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cut rows into micro-batches whose padded size stays within a budget: longest first, first fit.

    Args:
        lengths: tokens of each row, none above the budget (`split_rows`).
        token_budget: most padded tokens (rows x longest row) of a micro-batch.

    Returns:
        lists of row indices; every row is in exactly one.
    """
    assert max(lengths, default=0) <= token_budget, "rows have not been split"
    batches: list[list[int]] = []
    widest: list[int] = []  # the first row of a micro-batch is its longest
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for batch, width in zip(batches, widest, strict=True):
            if (len(batch) + 1) * width <= token_budget:
                batch.append(index)
                break
        else:
            batches.append([index])
            widest.append(lengths[index])
    return batches


def empty_like(row: Row) -> Row:
    """A row that weighs nothing: pads a rank's micro-batches to the number that all ranks run."""
    answer = row.answers[0]
    blank = replace(answer, advantage=0.0, weight=0.0)
    return replace(row, answers=[blank])
