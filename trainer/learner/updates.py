"""From scored groups to an optimiser step: advantages, rows, the loss, and what the step reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from torch import Tensor

from trainer.learner import distributed, sums
from trainer.learner.advantages import decoupled_advantages, group_advantages, is_scored, squared_deviations
from trainer.learner.learner import Learner, LossFunction, weighted_token_count
from trainer.learner.losses import cross_entropy_sum, divisor, kl_sum, token_weight
from trainer.learner.objectives import PolicyTokens, objective_of
from trainer.learner.rows import AnswerTokens, MicroBatch, Row
from trainer.learner.schedule import learning_rate_factor
from trainer.learner.scoring import ScoredGroup
from trainer.learner.sft import target_answer
from trainer.settings.grpo import GrpoConfig


@dataclass(frozen=True)
class UpdateReport:
    """What a step's updates did; the same on every rank.

    Args:
        metrics: by the names that they are logged under; empty where no update was taken.
        refused: updates that changed nothing, since their gradient was not finite.
    """

    learning_rate: float
    metrics: dict[str, float] = field(default_factory=dict)
    refused: float = 0.0
    micro_batches: int = 0

    @property
    def skipped(self) -> bool:
        """Whether there was nothing to learn from."""
        return not self.metrics

    def as_metrics(self) -> dict[str, float]:
        """All of it, for the log. What is a mean over no tokens is absent."""
        found = {"learning_rate": self.learning_rate, "perf/skipped_step": float(self.skipped)}
        if self.skipped:
            return found
        counts = {"perf/refused_step": self.refused, "perf/micro_batches": float(self.micro_batches)}
        return found | self.metrics | counts


def advantages_of(scored: Sequence[ScoredGroup], config: GrpoConfig) -> list[np.ndarray]:
    """Each group's advantages (G,), by the configured baseline and scale. A collective."""
    how = config.advantage
    if how.parts:
        compared = [group.compared for group in scored]
        return decoupled_advantages(compared, how.parts, how.scale, how.baseline, total=distributed.total)
    groups = [group.rewards for group in scored]
    squares, count = map(distributed.total, squared_deviations(groups))
    return group_advantages(groups, how.scale, how.baseline, batch_std=math.sqrt(squares / max(count, 1.0)))


def build_rows(
    learner: Learner, scored: Sequence[ScoredGroup], advantages: Sequence[np.ndarray], config: GrpoConfig
) -> list[Row]:
    """Rows for the update: groups with spread, and the right answer beside them where configured.

    A group without spread has no advantage to learn from; it stays out of the loss.

    Raises:
        RuntimeError: learner and worker do not expand a prompt alike.
        ValueError: an answer does not fit a micro-batch.
    """
    frames = learner.frames([group.sample.audio for group in scored])
    rows = []
    for group, values, clip in zip(scored, advantages, frames, strict=True):
        answers = _sampled_answers(group, values, config) if group.teaches else []
        if config.reference_weight > 0:
            answers.append(target_answer(learner.processor, group.sample, exact=True))
        if not answers:
            continue
        prompt = learner.processor.expanded_prompt(group.sample.question, len(clip), group.sample.before)
        if prompt != group.prompt_token_ids:
            raise RuntimeError(
                f"learner and worker expand the prompt of {group.sample.id} differently "
                f"({len(prompt)} and {len(group.prompt_token_ids)} tokens): not the same checkpoint or plugin"
            )
        rows.append(Row(prompt, clip, answers, group.sample.id))
    learner.fitting(rows)  # what cannot fit is found here, where a failure is one of all ranks
    return rows


def _sampled_answers(group: ScoredGroup, advantages: np.ndarray, config: GrpoConfig) -> list[AnswerTokens]:
    weights = answer_weights(group, config)
    return [
        AnswerTokens(answer.token_ids, answer.logprobs, advantage=float(advantage), weight=weight)
        for answer, advantage, weight in zip(group.answers, advantages, weights, strict=True)
    ]


def answer_weights(group: ScoredGroup, config: GrpoConfig) -> list[float]:
    """What a token of each answer counts: nothing where it was not scored, or was cut off and is to be left out."""
    aggregation = config.objective.aggregation
    return [
        token_weight(
            len(answer.token_ids), float(scored and not (answer.truncated and config.mask_truncated)), aggregation
        )
        for answer, scored in zip(group.answers, is_scored(group.rewards), strict=True)
    ]


def whole_divisor(groups: Sequence[ScoredGroup], config: GrpoConfig) -> float | None:
    """What the step's policy loss is divided by where that does not depend on which groups teach. A collective.

    `dr_grpo`'s divisor is constant by definition: it counts all answers of the step, and so does
    `grpo.objective.divisor=all` for the others.

    Returns:
        None where an update is divided by what its own rows weigh.
    """
    aggregation = config.objective.aggregation
    if aggregation != "dr_grpo" and config.objective.divisor == "teaching":
        return None
    lengths = [len(answer.token_ids) for group in groups for answer in group.answers]
    weights = [weight for group in groups for weight in answer_weights(group, config)]
    return distributed.total(divisor(lengths, weights, aggregation, config.groups.max_tokens))


def train_on(
    learner: Learner, groups: Sequence[ScoredGroup], rows: Sequence[Row], config: GrpoConfig, step: int
) -> UpdateReport:
    """The step's updates, `minibatches` of them (PPO, arXiv 1707.06347). A collective.

    From the second update on the weights are no longer those that answered, which the ratio's clipping bounds. Only
    there a ratio between two states of the learner needs the earlier state's log-probabilities: in the first update
    they are the very ones that it computes, and nothing runs twice.

    Args:
        groups: what `rows` was made of, on this rank.
    """
    n, whole = config.minibatches, whole_divisor(groups, config)
    batches = [list(rows[i::n]) for i in range(n)]
    if config.objective.against_learner and n > 1:
        later = iter(learner.with_own([row for batch in batches[1:] for row in batch], config.groups.temperature))
        batches[1:] = [list(islice(later, len(batch))) for batch in batches[1:]]
    parts = [_update(learner, batch, config, step, whole and whole / n, i == 0) for i, batch in enumerate(batches)]
    taken = [part for part in parts if not part.skipped]
    if not taken:
        return parts[0]
    refused, micro_batches = sum(part.refused for part in taken), sum(part.micro_batches for part in taken)
    return UpdateReport(taken[0].learning_rate, sums.averaged([p.metrics for p in taken]), refused, micro_batches)


def _update(
    learner: Learner, rows: Sequence[Row], config: GrpoConfig, step: int, divide: float | None, first: bool
) -> UpdateReport:
    """One optimiser step.

    Args:
        divide: the policy loss's divisor, None for what these rows weigh.
        first: of the step: the weights are those that the learner's own log-probabilities are of.
    """
    optimiser = config.optimiser
    factor = learning_rate_factor(
        step, step / config.max_steps, optimiser.warmup_steps, optimiser.flat, optimiser.floor
    )
    rate = optimiser.learning_rate * factor
    sampled = distributed.total(weighted_token_count(rows, supervised=False))
    supervised = distributed.total(weighted_token_count(rows, supervised=True))
    if sampled + supervised == 0:
        return UpdateReport(rate)
    if divide is None:
        divide = sampled  # each token's weight already holds how answers of different lengths are weighed
    loss = _loss_function(config, max(divide, 1e-9), sampled, supervised, first)
    measure = bool(config.noise_every) and step % config.noise_every == 0
    local = learner.update(rows, loss, config.groups.temperature, rate, measure)
    metrics = sums.over_ranks(local.numbers) | {"grad_norm": local.grad_norm}
    if local.gradient_noise is not None and not local.refused:
        metrics |= local.gradient_noise.as_metrics()
    return UpdateReport(rate, metrics, float(local.refused), local.micro_batches)


def _loss_function(config: GrpoConfig, divide: float, sampled: float, supervised: float, first: bool) -> LossFunction:
    """The loss of a micro-batch and its numbers by name, divided by the counts of the whole global batch."""
    objective, kl = objective_of(config.objective.name), config.kl

    def loss_function(logprobs: Tensor, entropies: Tensor, micro: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        weights = micro.weights * ~micro.supervised
        own = None if first else micro.own_logprobs
        tokens = PolicyTokens(logprobs, micro.sampled_logprobs, micro.advantages, weights, micro.answer_of, own)
        policy, policy_sums = objective(tokens, config.objective)
        loss = policy / divide
        numbers: dict[str, Tensor] = {}
        if sampled:
            numbers["loss/policy"] = policy / divide
            means = policy_sums | {"entropy": (entropies * weights).sum()}
            numbers |= {name: value if sums.takes_largest(name) else value / sampled for name, value in means.items()}
        if supervised:
            right = cross_entropy_sum(logprobs, micro.weights * micro.supervised) / supervised
            loss = loss + config.reference_weight * right
            numbers["loss/reference"] = right
        if kl.coefficient and sampled:
            apart = kl_sum(logprobs, micro.reference_logprobs, weights, kl.estimator)
            loss = loss + kl.coefficient * apart / divide
            numbers["kl"] = apart / sampled
        numbers["loss"] = loss
        return loss, numbers

    return loss_function
