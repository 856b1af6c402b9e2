"""Evaluation through the rollout workers: answers to every sample, greedy ones scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rollout.client import Prompt, RolloutPool, Sampling
from timepro.evaluation import Scored, score
from timepro.tasks import Sample

if TYPE_CHECKING:
    from timepro.features import Processor  # which imports torch


def greedy_answers(
    pool: RolloutPool,
    processor: Processor,
    samples: Sequence[Sample],
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
    version: int | None = None,
) -> list[str]:
    """Ask the workers for one greedy answer a sample.

    Args:
        progress: called with the number of answers that have come since the last call.
        version: the weights to be evaluated; None for whatever the workers have.

    Returns:
        the answers' texts, in the order of the samples.
    """
    sampling = Sampling(n=1, temperature=0.0, max_tokens=max_tokens, stop_token_ids=(processor.eos_token_id,))
    prompts = [_prompt(processor, sample) for sample in samples]
    groups = pool.generate(prompts, sampling, progress, version)
    return [processor.answer_text(group.answers[0].token_ids) for group in groups]


def drawn_answers(
    pool: RolloutPool,
    processor: Processor,
    samples: Sequence[Sample],
    n: int,
    temperature: float,
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[list[str]]:
    """Ask the workers for `n` sampled answers a sample, each sample's draws seeded by its place in the list.

    Returns:
        the answers' texts, `n` a sample, in the order of the samples.
    """
    sampling = Sampling(n, temperature, max_tokens, (processor.eos_token_id,))
    prompts = [_prompt(processor, sample, seed) for seed, sample in enumerate(samples)]
    groups = pool.generate(prompts, sampling, progress)
    return [[processor.answer_text(answer.token_ids) for answer in group.answers] for group in groups]


def _prompt(processor: Processor, sample: Sample, seed: int | None = None) -> Prompt:
    clips = sample.audio if sample.earlier is None else (sample.earlier, sample.audio)
    n_clips = 1 if sample.earlier is None else 2
    return Prompt(sample.id, processor.prompt_ids(sample.question, sample.before, n_clips), clips, seed)


def evaluate(
    pool: RolloutPool,
    processor: Processor,
    samples: Sequence[Sample],
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """Ask the workers, whatever weights they have, for one greedy answer a sample and score all of them.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("there is nothing to evaluate: the sample list is empty")
    return score(list(samples), greedy_answers(pool, processor, samples, max_tokens, progress))
