"""GRPO (arXiv 2402.03300): sample groups, score them, compare within the group, step, send the weights, again.

The loop is `train_grpo`; each phase it names is a function below it or a module of its own. A group never leaves its
rank: every rank asks the workers for the groups of its own prompts, scores them and trains on them. Across ranks go
gradients, counts and metrics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from timepro.progress import ProgressBar
from trainer.learner import distributed
from trainer.learner.advantages import decoupled_advantages, group_advantages, is_scored, squared_deviations
from trainer.learner.checkpoints import Checkpoints
from trainer.learner.cursor import Mixture
from trainer.learner.groups import GroupSampler, ScoredGroup, record
from trainer.learner.learner import Learner, weighted_token_count
from trainer.learner.losses import cross_entropy_sum, divisor, kl_sum, policy_terms, token_weight
from trainer.learner.recovery import WorkersLost
from trainer.learner.rows import AnswerTokens, MicroBatch, Row
from trainer.learner.schedule import learning_rate_factor
from trainer.learner.sender import WeightSender
from trainer.learner.sft import target_answer
from trainer.learner.step_metrics import PhaseClock, collect
from trainer.learner.tracking import Tracker
from trainer.settings.grpo import GrpoConfig

_SUMMED = ("policy_loss", "reference_loss", "kl", "ratio", "clip_low", "clip_high", "drift", "corrected", "entropy")


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
    sampler: GroupSampler,
    sender: WeightSender,
    config: GrpoConfig,
    run: Path,
    state: GrpoState,
    stop: distributed.StopRequest,
    tracker: Tracker | None,
    checkpoints: Checkpoints,
    validate: Callable[[int], float],
) -> int:
    """Train until `max_steps` or a signal. A collective; the workers already have `state.version`.

    Args:
        validate: called on every rank each `validate_every` steps; says on rank 0 how good the weights are.

    Returns:
        the signal that stopped it, 0 for none.

    Raises:
        WorkersLost: the workers are gone for good; there is a checkpoint.
        SaveFailed: a checkpoint could not be written, and the configuration says to stop.
    """
    started = time.monotonic() - state.elapsed
    with ProgressBar("GRPO", config.max_steps, "steps", visible=distributed.rank() == 0) as bar:
        bar.done = state.step
        while state.step < config.max_steps:
            signal = stop.agreed()
            if signal:
                save_checkpoint(learner, checkpoints, state, sampler)
                return signal
            clock, place = PhaseClock(), sampler.cursor.state()
            try:
                drawn, trained = _draw(sampler, state, clock)
            except WorkersLost:
                sampler.cursor.restore(place)  # a resumed run asks for this step's groups again
                save_checkpoint(learner, checkpoints, state, sampler)
                raise
            place = sampler.cursor.state()
            if config.ahead and state.step + 1 < config.max_steps:
                sampler.upcoming = sampler.ask(sampler.next_samples(), state.step + 1, state.version)
            advantages = advantages_of(trained, config)
            rows = clock.time("rows", lambda t=trained, a=advantages: build_rows(learner, t, a, config))
            if config.kl.coefficient:
                rows = clock.time("reference", lambda r=rows: learner.with_reference(r, config.groups.temperature))
            report = clock.time("train", lambda r=rows: update_in_parts(learner, r, config, state.step))
            state.step += 1
            state.version += 1
            record(run, state.step, drawn, trained, advantages)
            sync, lost = None, None
            try:
                if sampler.upcoming is not None:  # an answer's tokens shall all be of the same weights
                    clock.time("ahead", lambda: sampler.answered(sampler.upcoming, state.version))
                sync = clock.time("sync", lambda: sampler.recovery.deliver(state.version))
            except WorkersLost as error:
                lost = error  # the step is done all the same
                if sampler.upcoming is not None and sampler.upcoming.groups is None:
                    sampler.upcoming = None
                    sampler.cursor.restore(place)
            state.syncs += [sync.seconds] if sync else []
            state.checksum_failures = sender.checksum_failures
            state.elapsed = time.monotonic() - started
            metrics = collect(drawn, trained, sampler.reward.part_names, report, clock, sync)
            metrics["perf/recoveries"] = float(sampler.recovery.count)
            metrics["perf/failed_saves"] = float(checkpoints.failures)
            metrics["sampling/staleness"] = staleness(trained, state.version - 1)
            if tracker is not None:
                tracker.log(state.step, metrics)
            if lost is not None:
                save_checkpoint(learner, checkpoints, state, sampler)
                raise lost
            bar.advance(note=f"reward {metrics['reward']:.3f}")
            if config.validate_every and state.step % config.validate_every == 0:
                value = validate(state.step)
                if config.keep_best:
                    _keep_if_best(learner, checkpoints, state, sampler, value)
            if config.checkpoints.save_every and state.step % config.checkpoints.save_every == 0:
                save_checkpoint(learner, checkpoints, state, sampler)
    return 0


def _draw(sampler: GroupSampler, state: GrpoState, clock: PhaseClock) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
    """The step's groups as first drawn, and those to train on."""
    asked = sampler.upcoming or sampler.ask(sampler.next_samples(), state.step, state.version)
    sampler.upcoming = None
    groups = clock.time("generate", lambda: sampler.answered(asked, state.version))
    drawn = clock.time("score", lambda: sampler.score(asked.samples, groups))
    return drawn, clock.time("resample", lambda: sampler.resample(drawn, state.step, state.version))


def build_rows(
    learner: Learner, scored: Sequence[ScoredGroup], advantages: Sequence[np.ndarray], config: GrpoConfig
) -> list[Row]:
    """Rows for the update: groups with spread, and the right answer beside them where configured.

    A group without spread has no advantage to learn from; it stays out of the loss and out of its divisor.
    """
    frames = learner.frames([group.sample.audio for group in scored])
    rows = []
    for group, values, clip in zip(scored, advantages, frames, strict=True):
        answers = []
        if group.teaches:
            answers = [
                AnswerTokens(
                    answer.token_ids,
                    answer.logprobs,
                    advantage=float(value),
                    weight=token_weight(
                        len(answer.token_ids),
                        float(stays and not (answer.truncated and config.mask_truncated)),
                        config.objective.aggregation,
                    ),
                )
                for answer, value, stays in zip(group.answers.answers, values, is_scored(group.rewards), strict=True)
            ]
        if config.reference_weight > 0:
            answers.append(target_answer(learner.processor, group.sample, exact=True))
        if not answers:
            continue
        prompt = learner.processor.expanded_prompt(group.sample.question, len(clip))
        if prompt != group.answers.prompt_token_ids:
            raise RuntimeError(
                f"learner and worker expand the prompt of {group.sample.id} differently "
                f"({len(prompt)} and {len(group.answers.prompt_token_ids)} tokens): not the same checkpoint or plugin"
            )
        rows.append(Row(prompt, clip, answers))
    return rows


def advantages_of(scored: Sequence[ScoredGroup], config: GrpoConfig) -> list[np.ndarray]:
    """Each group's advantages (G,), by the configured baseline and scale. A collective."""
    how = config.advantage
    if how.parts:
        compared = [group.compared for group in scored]
        return decoupled_advantages(compared, how.parts, how.scale, how.baseline, total=distributed.total)
    groups = [group.rewards for group in scored]
    total, count = distributed.total(squared_deviations(groups))
    batch_std = math.sqrt(total / max(count, 1.0))
    return group_advantages(groups, how.scale, how.baseline, batch_std=batch_std)


def update_in_parts(learner: Learner, rows: Sequence[Row], config: GrpoConfig, step: int) -> dict[str, float]:
    """The step's updates, `minibatches` of them (PPO, arXiv 1707.06347); metrics as `update`, their means.

    From the second update on the weights are no longer those that answered, which the ratio's clipping bounds.
    """
    if config.objective.against_learner and config.minibatches > 1:
        rows = learner.with_own(rows, config.groups.temperature)
    parts = [update(learner, rows[i :: config.minibatches], config, step) for i in range(config.minibatches)]
    taken = [part for part in parts if not part["skipped"]]
    if not taken:
        return parts[0]
    means = {key: sum(part[key] for part in taken) / len(taken) for key in taken[0]}
    return means | {
        "ratio_max": max(part["ratio_max"] for part in taken),
        "refused": sum(part["refused"] for part in taken),
        "micro_batches": sum(part["micro_batches"] for part in taken),
    }


def update(learner: Learner, rows: Sequence[Row], config: GrpoConfig, step: int) -> dict[str, float]:
    """One optimiser step; returns metrics that are the same on every rank."""
    optimiser = config.optimiser
    progress = step / config.max_steps
    factor = learning_rate_factor(step, progress, optimiser.warmup_steps, optimiser.flat, optimiser.floor)
    rate = optimiser.learning_rate * factor
    divide, sampled, supervised = distributed.total(
        [
            loss_divisor(rows, config),
            weighted_token_count(rows, supervised=False),
            weighted_token_count(rows, supervised=True),
        ]
    )
    if sampled + supervised == 0:
        return {"learning_rate": rate, "skipped": 1.0}
    divide, sampled, supervised = (max(value, 1e-9) for value in (divide, sampled, supervised))

    def loss_function(logprobs: Tensor, entropies: Tensor, micro: MicroBatch) -> tuple[Tensor, dict[str, float]]:
        weights = micro.weights * ~micro.supervised
        terms = policy_terms(
            logprobs, micro.sampled_logprobs, micro.advantages, weights, micro.answer_of, config.objective,
            own_logprobs=micro.own_logprobs if config.minibatches > 1 else None,
        )  # fmt: skip
        policy = terms.loss / divide
        right = cross_entropy_sum(logprobs, micro.weights * micro.supervised) / supervised
        kl = kl_sum(logprobs, micro.reference_logprobs, weights, config.kl.estimator) if config.kl.coefficient else 0.0
        loss = policy + config.reference_weight * right + config.kl.coefficient * kl / divide
        sums = {
            "policy_loss": policy,
            "reference_loss": right,
            "kl": kl / sampled,
            "ratio": terms.ratio_sum / sampled,
            "ratio_max": terms.ratio_max,
            "clip_low": terms.clipped_low / sampled,
            "clip_high": terms.clipped_high / sampled,
            "drift": terms.drift_sum / sampled,
            "corrected": terms.corrected / sampled,
            "entropy": (entropies * weights).sum() / sampled,
        }
        return loss, {key: float(torch.as_tensor(value).detach()) for key, value in sums.items()}

    local = learner.update(rows, loss_function, config.groups.temperature, rate)
    summed = dict(zip(_SUMMED, distributed.total([local.get(key, 0.0) for key in _SUMMED]), strict=True))
    ratio_max = distributed.largest([local.get("ratio_max", 0.0)])[0]
    return summed | {
        "ratio_max": ratio_max,
        "grad_norm": local["grad_norm"],
        "micro_batches": local["micro_batches"],
        "learning_rate": rate,
        "skipped": 0.0,
        "refused": local["refused"],
    }


def loss_divisor(rows: Sequence[Row], config: GrpoConfig) -> float:
    """This rank's part of the policy loss's divisor."""
    answers = [answer for row in rows for answer in row.answers if not answer.supervised]
    lengths, weights = [len(a.token_ids) for a in answers], [a.weight for a in answers]
    return divisor(lengths, weights, config.objective.aggregation, config.groups.max_tokens)


def staleness(scored: Sequence[ScoredGroup], version: int) -> float:
    """Mean number of updates that answers are behind the weights that they train, over all ranks. A collective."""
    behind = [version - answer.weight_versions[0] for group in scored for answer in group.answers.answers]
    total, count = distributed.total([float(sum(behind)), float(len(behind))])
    return total / max(count, 1.0)


def save_checkpoint(learner: Learner, checkpoints: Checkpoints, state: GrpoState, sampler: GroupSampler) -> bool:
    """Write the step's checkpoint, unless it is there; whether it is there now. A collective; as `Checkpoints.save`."""
    own = {_upcoming_file(): sampler.upcoming_as_json()}
    content = {"grpo": vars(state), "cursor": sampler.cursor.state()}
    return checkpoints.save(learner, state.step, content, own_files=own)


def _keep_if_best(
    learner: Learner, checkpoints: Checkpoints, state: GrpoState, sampler: GroupSampler, value: float
) -> None:
    if checkpoints.is_best(value) and save_checkpoint(learner, checkpoints, state, sampler):
        checkpoints.note_best(state.step, value)


def restore(learner: Learner, folder: Path, cursor: Mixture) -> GrpoState:
    """Load what `Checkpoints.newest` found. A collective."""
    saved = learner.load(folder, checked=True)
    cursor.restore(saved["cursor"])
    return GrpoState(**saved["grpo"])


def restore_upcoming(sampler: GroupSampler, folder: Path) -> None:
    """The groups that the ranks had ahead when the checkpoint was written, however many ranks there were."""
    paths = sorted(folder.glob("upcoming.*.json"), key=lambda path: int(path.name.split(".")[1]))
    sampler.restore_upcoming([path.read_text() for path in paths])


def _upcoming_file() -> str:
    return f"upcoming.{distributed.rank()}.json"
