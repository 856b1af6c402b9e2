"""The GRPO job of a rank: from a fine-tuned checkpoint and rollout workers to a post-trained one, evaluated."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from pathlib import Path

from rewards import build_reward
from rollout.auth import TOKEN_VARIABLE
from rollout.client import RolloutPool
from timepro.tasks.samples import evaluation_samples, training_samples
from trainer.learner import distributed
from trainer.learner.checkpoints import Checkpoints
from trainer.learner.evaluator import Evaluator, some
from trainer.learner.groups import GroupSampler
from trainer.learner.grpo import Grpo, GrpoState
from trainer.learner.learner import Learner
from trainer.learner.order import order_of
from trainer.learner.profiling import StepProfiler
from trainer.learner.recovery import Recovery
from trainer.learner.sender import WeightSender
from trainer.learner.tracking import Tracker, tracker_of
from trainer.messages import CHECKPOINTS, JobSpec, write_result
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.profile import FOLDER


def run_grpo(job: JobSpec, config: ExperimentConfig, stop: distributed.StopRequest) -> int:
    """GRPO with evaluation before and after; exports the checkpoint. Returns the signal that stopped it, or 0."""
    # Without dropout: an answer's probability is that of the model that sampled it.
    learner = Learner(
        Path(job.checkpoint), config.grpo.optimiser, config.zero, config.grpo.batch, replace(config.lora, dropout=0.0),
        config.seed, Path(job.adapter) if job.adapter else None, config.data.feature_cache.place(config.runs),
    )  # fmt: skip
    learner.start(reference=config.grpo.kl.coefficient > 0)
    token, rollout = os.environ[TOKEN_VARIABLE], config.rollout
    pool = RolloutPool.of(rollout, job.workers, token, distributed.rank(), distributed.world_size())
    sender = WeightSender(learner.engine, job.workers, token, config.sync, config.cards_apart, rollout.min_workers)
    tracker, exit_code = tracker_of(job, config), 1
    try:
        recovery = Recovery(sender, pool, rollout, stop)
        signal = _train(job, config, stop, learner, pool, sender, recovery, tracker)
        exit_code = 128 + signal if signal else 0
        return signal
    finally:
        sender.close()
        pool.close()
        tracker.finish(exit_code)


def _train(
    job: JobSpec,
    config: ExperimentConfig,
    stop: distributed.StopRequest,
    learner: Learner,
    pool: RolloutPool,
    sender: WeightSender,
    recovery: Recovery,
    tracker: Tracker,
) -> int:
    run = Path(job.work)
    lists, weights = training_samples(job.manifest, config.task, "exact")
    samples = [sample for samples in lists for sample in samples]
    order = order_of(config.grpo.groups.order, [len(samples) for samples in lists], weights, config.seed)
    seed = config.seed if config.rollout.seeded else None
    sampler = GroupSampler(
        learner.processor, pool, build_reward(config.rewards), samples, order, config.grpo, seed, recovery
    )
    checkpoints = Checkpoints(run / CHECKPOINTS, config.grpo.checkpoints)
    state = _restored(learner, sampler, checkpoints.newest() if job.resume else None)
    validations = evaluation_samples(job.validation, config.task)
    evaluator = Evaluator(
        pool, learner.processor, recovery, config.evaluation, run, tracker,
        evaluation_samples(job.test, config.task), some(validations, config.evaluation.validation_clips),
    )  # fmt: skip
    tested = evaluator.show_earlier("sft")
    tracker.resume_from(state.step, state.elapsed)
    # Sent before the first batch, so that a broken path fails in the first minute.
    sender.checksum_failures = state.checksum_failures
    sender.deliver(state.version)
    pool.use(sender.members)
    tracker.at(state.step, config.grpo.max_steps, "evaluate")
    if not distributed.from_first(tested):
        evaluator.test("sft", state.version, state.step)
    training = Grpo(
        learner, sampler, recovery, config.grpo, run, state, stop, tracker, checkpoints,
        validate=lambda step: evaluator.validate(state.version, step),
        completions_every=config.wandb.completions_every,
        profiler=StepProfiler(
            config.profile, run / FOLDER, lambda *what: sender.control.on_all(sender.members, *what)
        ),
    )  # fmt: skip
    began, steps_before = time.monotonic(), state.step
    signal = training.train()
    training.profiler.finish()
    if signal:
        return signal
    seconds = time.monotonic() - began
    training.save()
    if (level := training.noise_level) is not None:
        distributed.say(str(level))
    if config.grpo.keep_best:
        _take_best(learner, checkpoints, recovery, state)
    tracker.at(state.step, config.grpo.max_steps, "evaluate")
    evaluator.test("grpo", state.version, state.step)
    learner.export(Path(job.output))
    if distributed.is_first():
        write_result(run, {"seconds": seconds, "steps": state.step - steps_before, "grpo": asdict(state)})
    return 0


def _restored(learner: Learner, sampler: GroupSampler, checkpoint: Path | None) -> GrpoState:
    """Where the run was when the checkpoint was written, by however many ranks. A collective."""
    if checkpoint is None:
        return GrpoState()
    saved = learner.load(checkpoint, checked=True)
    sampler.order.restore(saved["cursor"])
    ahead = sorted(checkpoint.glob("upcoming.*.json"), key=lambda path: int(path.name.split(".")[1]))
    sampler.restore_ahead([path.read_text(encoding="utf-8") for path in ahead])
    state = GrpoState.of(saved["grpo"])
    distributed.say(f"resumed from {checkpoint} at step {state.step}")
    return state


def _take_best(learner: Learner, checkpoints: Checkpoints, recovery: Recovery, state: GrpoState) -> None:
    """Go back to the weights of the best validation. A collective."""
    best = checkpoints.best()
    if best is None or best == checkpoints.folder / f"step-{state.step:06d}":
        return
    learner.load(best)
    state.version += 1
    recovery.deliver(state.version)
    distributed.say(f"going back to {best.name}, the best on the validation set")
