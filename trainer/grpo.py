"""GRPO (arXiv 2402.03300): sample groups, score them, compare within the group, step, send the weights, again.

The loop is `train_grpo`; each phase it names is a function below it or a module of its own. A group never leaves its
rank: every rank asks the workers for the groups of its own prompts, scores them and trains on them. Across ranks go
gradients, counts and metrics.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rewards import Completion, Group
from rewards.registry import BuiltReward
from rollout.client import AnswerGroup, Prompt, RolloutPool, Sampling
from timepro.events import parse_answer
from timepro.progress import ProgressBar
from timepro.tasks import Sample
from trainer import distributed
from trainer.advantages import group_advantages, has_spread, squared_deviations
from trainer.core import BatchConfig, Learner, weighted_token_count
from trainer.cursor import Mixture, share
from trainer.losses import cross_entropy_sum, policy_terms
from trainer.rows import AnswerTokens, MicroBatch, Row
from trainer.schedule import learning_rate_factor
from trainer.sender import SyncReport, WeightSender
from trainer.sft import expanded_prompt, target_answer
from trainer.tracking import Tracker
from trainer.zero import OptimiserConfig


@dataclass
class GrpoConfig(OptimiserConfig):
    """Settings of GRPO (`trainer.*`), the optimiser's among them. A learning rate of 0 measures pure drift."""

    enabled: bool = True
    max_steps: int = 120
    prompts_per_step: int = 24  # over all ranks
    group_size: int = 8
    temperature: float = 1.0
    max_tokens: int = 32
    clip_low: float = 0.2
    clip_high: float = 0.28
    advantage_scale: str = "group"
    reference_weight: float = 0.0  # cross-entropy on the right answer beside the RL loss
    mask_truncated: bool = True  # an answer that was cut off teaches nothing
    batch: BatchConfig = field(default_factory=BatchConfig)
    validate_every: int = 0  # steps between greedy evaluations on the validation set; 0 for none
    save_every: int = 0  # steps between checkpoints; 0: at the end and on a signal


@dataclass(frozen=True)
class ScoredGroup:
    """One group after the rewards: what the loss and the record need."""

    sample: Sample
    answers: AnswerGroup
    texts: list[str]
    rewards: np.ndarray
    parts: dict[str, np.ndarray]


@dataclass
class GrpoState:
    """Where a run is; saved with every checkpoint."""

    step: int = 0
    version: int = 0
    elapsed: float = 0.0
    syncs: list[float] = field(default_factory=list)
    checksum_failures: int = 0


def train_grpo(
    learner: Learner,
    pool: RolloutPool,
    sender: WeightSender,
    reward: BuiltReward,
    samples: Sequence[Sample],
    config: GrpoConfig,
    seed: int,
    run: Path,
    state: GrpoState,
    cursor: Mixture,
    stop: distributed.StopRequest,
    tracker: Tracker | None,
    validate: Callable[[int], None],
) -> int:
    """Train until `max_steps` or a signal. A collective; the workers already have `state.version`.

    Args:
        validate: called on every rank each `validate_every` steps.

    Returns:
        the signal that stopped it, 0 for none.
    """
    started = time.monotonic() - state.elapsed
    with ProgressBar("GRPO", config.max_steps, "steps", visible=distributed.rank() == 0) as bar:
        bar.done = state.step
        while state.step < config.max_steps:
            signal = stop.agreed()
            if signal:
                save_checkpoint(learner, run, state, cursor)
                return signal
            clock = _Clock()
            chosen = [samples[i] for i in share(cursor.take(config.prompts_per_step), *_place())]
            groups = clock.time("generate", lambda c=chosen: generate(learner, pool, c, config, seed, state))
            scored = clock.time("score", lambda s=chosen, g=groups: score_groups(learner, reward, s, g))
            rows = clock.time("rows", lambda s=scored: build_rows(learner, s, config))
            report = clock.time("train", lambda r=rows: update(learner, r, config, state.step))
            state.step += 1
            state.version += 1
            sync = clock.time("sync", lambda: sender.deliver(state.version))
            state.syncs.append(sync.seconds)
            state.checksum_failures = sender.checksum_failures
            state.elapsed = time.monotonic() - started
            record(run, state.step, scored)
            metrics = collect(scored, report, clock, sync)
            if tracker is not None:
                tracker.log(state.step, metrics)
            bar.advance(note=f"reward {metrics['reward']:.3f}")
            if config.validate_every and state.step % config.validate_every == 0:
                validate(state.step)
            if config.save_every and state.step % config.save_every == 0:
                save_checkpoint(learner, run, state, cursor)
    return 0


def generate(
    learner: Learner, pool: RolloutPool, samples: Sequence[Sample], config: GrpoConfig, seed: int, state: GrpoState
) -> list[AnswerGroup]:
    """One group of answers for each of this rank's samples, all of the current weight version.

    Raises:
        RuntimeError: an answer of other weights than the ones sent last.
    """
    eos = (learner.processor.eos_token_id,)
    sampling = Sampling(config.group_size, config.temperature, config.max_tokens, eos)
    prompts = [
        Prompt(s.id, learner.processor.prompt_ids(s.question), s.audio, seed=prompt_seed(seed, state.step, s.id))
        for s in samples
    ]
    groups = pool.generate(prompts, sampling)
    for group in groups:
        for answer in group.answers:
            if answer.weight_versions != (state.version,):
                raise RuntimeError(
                    f"worker {group.worker} answered prompt {group.id} with weights {answer.weight_versions}, "
                    f"not {state.version}: it missed a sync"
                )
    return groups


def prompt_seed(seed: int, step: int, sample_id: str) -> int:
    """A sampling seed that depends on the run's seed, the step and the sample alone: a resumed run repeats it."""
    words = np.frombuffer(sample_id.encode().ljust(-(-len(sample_id.encode()) // 4) * 4, b"\0"), dtype=np.uint32)
    return int(np.random.SeedSequence([seed, step, *words.tolist()]).generate_state(1)[0] >> 1)


def score_groups(
    learner: Learner, reward: BuiltReward, samples: Sequence[Sample], groups: Sequence[AnswerGroup]
) -> list[ScoredGroup]:
    """Read events from the answers and score each group as a whole."""
    scored = []
    for sample, answers in zip(samples, groups, strict=True):
        texts = [learner.processor.answer_text(a.token_ids) for a in answers.answers]
        completions = tuple(
            Completion(text, parse_answer(text), answer.truncated, len(answer.token_ids))
            for text, answer in zip(texts, answers.answers, strict=True)
        )
        group = Group(sample.reference, completions, sample.task, sample.duration, sample.id)
        values = reward(group)
        scored.append(ScoredGroup(sample, answers, texts, values, dict(group.parts)))
    return scored


def build_rows(learner: Learner, scored: Sequence[ScoredGroup], config: GrpoConfig) -> list[Row]:
    """Rows for the update: groups with spread, and the right answer beside them where configured.

    A group without spread has no advantage to learn from; it stays out of the loss and out of its divisor.
    """
    advantages = _advantages(scored, config)
    frames = learner.frames([group.sample.audio for group in scored])
    rows = []
    for group, values, clip in zip(scored, advantages, frames, strict=True):
        answers = []
        if has_spread(group.rewards):
            answers = [
                AnswerTokens(
                    answer.token_ids,
                    answer.logprobs,
                    float(value),
                    weight=0.0 if answer.truncated and config.mask_truncated else 1.0,
                )
                for answer, value in zip(group.answers.answers, values, strict=True)
            ]
        if config.reference_weight > 0:
            answers.append(target_answer(learner.processor, group.sample, exact=True))
        if not answers:
            continue
        prompt = expanded_prompt(learner.processor, group.sample, len(clip))
        if prompt != group.answers.prompt_token_ids:
            raise RuntimeError(
                f"learner and worker expand the prompt of {group.sample.id} differently "
                f"({len(prompt)} and {len(group.answers.prompt_token_ids)} tokens): not the same checkpoint or plugin"
            )
        rows.append(Row(prompt, clip, answers))
    return rows


def _advantages(scored: Sequence[ScoredGroup], config: GrpoConfig) -> list[np.ndarray]:
    groups = [group.rewards for group in scored]
    total, count = distributed.total(squared_deviations(groups))
    return group_advantages(groups, config.advantage_scale, batch_std=math.sqrt(total / max(count, 1.0)))


def update(learner: Learner, rows: Sequence[Row], config: GrpoConfig, step: int) -> dict[str, float]:
    """One optimiser step; returns metrics that are the same on every rank."""
    factor = learning_rate_factor(step, step / config.max_steps, config.warmup_steps, config.flat, config.floor)
    rate = config.learning_rate * factor
    sampled, supervised = distributed.total(
        [weighted_token_count(rows, supervised=False), weighted_token_count(rows, supervised=True)]
    )
    if sampled + supervised == 0:
        return {"learning_rate": rate, "skipped": 1.0}

    def loss_function(logprobs: Tensor, entropies: Tensor, micro: MicroBatch) -> tuple[Tensor, dict[str, float]]:
        weights = micro.weights * ~micro.supervised
        terms = policy_terms(
            logprobs, micro.sampled_logprobs, micro.advantages, weights, config.clip_low, config.clip_high
        )
        loss = terms.loss / max(sampled, 1.0)
        right = cross_entropy_sum(logprobs, micro.weights * micro.supervised) / max(supervised, 1.0)
        sums = {
            "policy_loss": loss,
            "reference_loss": right,
            "ratio": terms.ratio_sum / max(sampled, 1.0),
            "ratio_max": terms.ratio_max,
            "clip_low": terms.clipped_low / max(sampled, 1.0),
            "clip_high": terms.clipped_high / max(sampled, 1.0),
            "drift": terms.drift_sum / max(sampled, 1.0),
            "entropy": (entropies * weights).sum() / max(sampled, 1.0),
        }
        return loss + config.reference_weight * right, {key: float(value.detach()) for key, value in sums.items()}

    local = learner.update(rows, loss_function, config.temperature, rate)
    keys = ("policy_loss", "reference_loss", "ratio", "clip_low", "clip_high", "drift", "entropy")
    summed = dict(zip(keys, distributed.total([local.get(key, 0.0) for key in keys]), strict=True))
    ratio_max = distributed.largest([local.get("ratio_max", 0.0)])[0]
    return summed | {
        "ratio_max": ratio_max,
        "grad_norm": local["grad_norm"],
        "micro_batches": local["micro_batches"],
        "learning_rate": rate,
        "skipped": 0.0,
    }


def collect(
    scored: Sequence[ScoredGroup], report: Mapping[str, float], clock: _Clock, sync: SyncReport
) -> dict[str, float]:
    """The step's metrics over all ranks, under the names that TRL uses where it has one. A collective."""
    names = sorted({name for group in scored for name in group.parts})
    answers = [answer for group in scored for answer in group.answers.answers]
    values = np.concatenate([group.rewards for group in scored])
    sums = [
        float(len(answers)),
        float(len(scored)),
        float(values.sum()),
        float(sum(group.rewards.std() for group in scored)),
        float(sum(not has_spread(group.rewards) for group in scored)),
        float(sum(len(a.token_ids) for a in answers)),
        float(sum(a.truncated for a in answers)),
        *[float(np.concatenate([group.parts[name] for group in scored]).sum()) for name in names],
        *[float(sum(group.parts[name].std() for group in scored)) for name in names],
    ]
    n_answers, n_groups, reward, spread, flat, length, cut, *parts = distributed.total(sums)
    slowest = dict(zip(clock.seconds, distributed.largest(list(clock.seconds.values())), strict=True))
    metrics = {
        "reward": reward / n_answers,
        "reward_std": spread / n_groups,
        "frac_reward_zero_std": flat / n_groups,
        "completions/mean_length": length / n_answers,
        "completions/clipped_ratio": cut / n_answers,
        "sync/bytes": float(sync.bytes),
        "sync/seconds": sync.seconds,
        "sync/gather_seconds": sync.gather_seconds,
        "perf/answers_per_second": n_answers / max(slowest["generate"], 1e-9),
        "learning_rate": report["learning_rate"],
        "perf/skipped_step": report["skipped"],
    }
    for number, name in enumerate(names):
        metrics[f"rewards/{name}/mean"] = parts[number] / n_answers
        metrics[f"rewards/{name}/std"] = parts[len(names) + number] / n_groups
    metrics |= {f"time/{phase}": seconds for phase, seconds in slowest.items()}
    if not report["skipped"]:
        metrics |= {
            "loss/policy": report["policy_loss"],
            "loss/reference": report["reference_loss"],
            "grad_norm": report["grad_norm"],
            "entropy": report["entropy"],
            "clip_ratio/low_mean": report["clip_low"],
            "clip_ratio/high_mean": report["clip_high"],
            "sampling/importance_sampling_ratio/mean": report["ratio"],
            "sampling/importance_sampling_ratio/max": report["ratio_max"],
            "sampling/drift_kl": report["drift"],
            "perf/micro_batches": report["micro_batches"],
        }
    return metrics


def record(run: Path, step: int, scored: Sequence[ScoredGroup]) -> None:
    """Keep every answer of a step with its reward parts and weight version; one file a step and rank."""
    folder = run / "rollouts"
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:06d}.rank{distributed.rank()}.jsonl"
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as out:
        for group in scored:
            line = {
                "id": group.sample.id,
                "worker": group.answers.worker,
                "seconds": round(group.answers.seconds, 4),
                "answers": [
                    {
                        "text": text,
                        "reward": float(value),
                        "parts": {name: float(part[i]) for name, part in group.parts.items()},
                        "token_ids": answer.token_ids,
                        "logprobs": answer.logprobs,
                        "truncated": answer.truncated,
                        "weight_version": answer.weight_versions[0],
                    }
                    for i, (text, value, answer) in enumerate(
                        zip(group.texts, group.rewards, group.answers.answers, strict=True)
                    )
                ],
            }
            out.write(json.dumps(line) + "\n")
    os.replace(partial, path)


def save_checkpoint(learner: Learner, run: Path, state: GrpoState, cursor: Mixture) -> None:
    """Write `checkpoints/step-N`, unless it is there, and remove the ones before it. A collective."""
    folder = run / "checkpoints" / f"step-{state.step:06d}"
    if distributed.from_first([float((folder / "state.json").is_file())])[0]:
        return  # the last regular one was of this very step
    learner.save(folder, {"grpo": vars(state), "cursor": cursor.state()})
    if distributed.rank() == 0:
        for old in sorted((run / "checkpoints").glob("step-*")):
            if old.name < folder.name:
                shutil.rmtree(old)


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    complete = [p for p in sorted((run / "checkpoints").glob("step-*")) if (p / "state.json").is_file()]
    return complete[-1] if complete else None


def restore(learner: Learner, folder: Path, cursor: Mixture) -> GrpoState:
    """Load a checkpoint of this run. A collective."""
    saved = learner.load(folder)
    cursor.restore(saved["cursor"])
    return GrpoState(**saved["grpo"])


def _place() -> tuple[int, int]:
    return distributed.rank(), distributed.world_size()


class _Clock:
    """Seconds of a step's phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, phase: str, work: Any) -> Any:
        begun = time.monotonic()
        result = work()
        self.seconds[phase] = time.monotonic() - begun
        return result
