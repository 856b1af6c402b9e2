"""A learner rank: `python -m trainer.learner.rank JOB.json`, started by the launcher, one process a rank."""

from __future__ import annotations

import atexit
import logging
import math
import os
import random
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from rewards import build_reward
from rollout.auth import TOKEN_VARIABLE
from rollout.client import RolloutPool
from rollout.evaluation import evaluate
from timepro.config import load_resolved
from timepro.data.manifest import read_manifest
from timepro.evaluation import Scored, evaluation_metrics, load_scored, save_scored
from timepro.progress import ProgressBar
from timepro.system.processes import end_with_parent
from timepro.tasks import Sample
from timepro.tasks.base import Times
from timepro.tasks.samples import evaluation_samples, samples_of, training_samples
from trainer.learner import distributed, grpo
from trainer.learner.checkpoints import Checkpoints, disk_trouble
from trainer.learner.cursor import Mixture
from trainer.learner.groups import GroupSampler
from trainer.learner.learner import Learner
from trainer.learner.recovery import Recovery, WorkersLost
from trainer.learner.sender import WeightSender
from trainer.learner.sft import train_sft
from trainer.learner.tracking import Tracker
from trainer.learner.wandb_tables import COLUMNS, clip_rows
from trainer.learner.warmup import all_features, own_share, warm_up
from trainer.messages import CHECKPOINTS, JobSpec, write_result
from trainer.settings.experiment import ExperimentConfig


def run_sft(job: JobSpec, config: ExperimentConfig, stop: distributed.StopRequest) -> int:
    """Supervised fine-tuning; exports the checkpoint. Returns the signal that stopped it, or 0."""
    learner = Learner(Path(job.checkpoint), config.sft.optimiser, config.zero, config.sft.batch, config.lora)
    learner.soften_times(config.sft.soft_time)
    samples, cursor = _mixed(job.manifest, config, config.sft.label_times)
    if config.sft.epochs:
        config.sft.max_steps = math.ceil(config.sft.epochs * len(samples) / config.sft.batch_size)
    validation, _ = _mixed(job.validation, config, config.sft.label_times)
    tracker = _tracker(job, config)
    report: dict[str, Any] = {"signal": 0}
    checkpoints = Checkpoints(Path(job.work) / CHECKPOINTS, config.sft.checkpoints)
    checkpoint = checkpoints.newest() if job.resume else None
    if config.sft.encoder_warmup.steps and checkpoint is None and not job.max_seconds:  # a continuation has it trained
        report["signal"] = _warm_up(learner, job, config, stop)
    if not report["signal"]:
        report = train_sft(
            learner, samples, cursor, validation, config.sft, checkpoints, checkpoint, job.max_seconds, stop, tracker,
            job.title,
        )  # fmt: skip
    if not report["signal"]:
        learner.export(Path(job.output))
        if distributed.rank() == 0:
            write_result(Path(job.work), report)
    if tracker is not None:
        tracker.finish(128 + report["signal"] if report["signal"] else 0)
    return int(report["signal"])


def _warm_up(learner: Learner, job: JobSpec, config: ExperimentConfig, stop: distributed.StopRequest) -> int:
    """Train a random encoder on the clips' events, whatever the task asks of them."""
    events = samples_of(read_manifest(Path(job.manifest)), "sed", config.sft.label_times)
    if not events:
        raise ValueError(
            f"{job.manifest}: no clip serves task sed, whose events the encoder's warm-up is trained on; "
            "set sft.encoder_warmup.steps=0"
        )
    mine = own_share(events)
    features = all_features(mine, learner.processor, visible=distributed.rank() == 0)
    settings = config.sft.encoder_warmup
    signal = warm_up(learner.encoder, learner.processor, events, settings, config.seed, stop, features)
    if not signal:  # the features are at hand, and now the encoder is what it will be
        learner.frames.add([sample.audio for sample in mine], features)
    return signal


def run_grpo(job: JobSpec, config: ExperimentConfig, stop: distributed.StopRequest) -> int:
    """GRPO with evaluation before and after; exports the checkpoint. Returns the signal that stopped it, or 0."""
    run, first = Path(job.work), distributed.rank() == 0
    learner = Learner(Path(job.checkpoint), config.grpo.optimiser, config.zero, config.grpo.batch, config.lora)
    learner.start()
    if config.grpo.kl.coefficient:
        learner.add_reference()
    samples, cursor = _mixed(job.manifest, config, "exact")
    checkpoints = Checkpoints(run / CHECKPOINTS, config.grpo.checkpoints)
    state, checkpoint = grpo.GrpoState(), checkpoints.newest() if job.resume else None
    if checkpoint is not None:
        state = grpo.restore(learner, checkpoint, cursor)
        if first:
            print(f"  resumed from {checkpoint} at step {state.step}", file=sys.stderr, flush=True)
    token = os.environ[TOKEN_VARIABLE]
    rollout = config.rollout
    pool = RolloutPool(
        job.workers, token, rollout.request_timeout_s, rollout.max_in_flight, rollout.retries,
        rank=distributed.rank(), ranks=distributed.world_size(),
    )  # fmt: skip
    own_gpus = not set(config.learner.gpus.split(",")) & set(config.rollout.gpus.split(","))  # both empty: shared
    sender = WeightSender(learner.engine, job.workers, token, config.sync, own_gpus, rollout.min_workers)
    recovery = Recovery(sender, pool, rollout, stop)
    tracker = _tracker(job, config)
    if tracker is not None:
        before = run / "eval" / "sft.jsonl"
        if before.is_file() and tracker.is_new:
            scored = load_scored(before, evaluation_samples(job.test, config))
            _show(tracker, scored, "sft", 0, config.evaluation.examples)
        tracker.resume_from(state.step, state.elapsed)
    exit_code = 1
    try:
        # Sent before the first batch, so that a broken path fails in the first minute.
        sender.checksum_failures = state.checksum_failures
        sender.deliver(state.version)
        pool.use(sender.members)
        if not (run / "eval" / "sft.jsonl").is_file():
            _evaluate(job, config, learner, pool, recovery, state, "sft", tracker)

        def validate(step: int) -> float:
            return _validate(job, config, learner, pool, recovery, state.version, step, tracker)

        reward = build_reward(config.rewards)
        began, steps_before = time.monotonic(), state.step
        sampler = GroupSampler(learner.processor, pool, reward, samples, cursor, config.grpo, config.seed, recovery)
        if checkpoint is not None:
            grpo.restore_upcoming(sampler, checkpoint)
        signal = grpo.train_grpo(
            learner, sampler, sender, config.grpo, run, state, stop, tracker, checkpoints, validate
        )
        if signal:
            exit_code = 128 + signal
            return signal
        seconds = time.monotonic() - began
        grpo.save_checkpoint(learner, checkpoints, state, sampler)
        if config.grpo.keep_best:
            _take_best(learner, checkpoints, recovery, state)
        _evaluate(job, config, learner, pool, recovery, state, "grpo", tracker)
        learner.export(Path(job.output))
        if first:
            write_result(run, {"seconds": seconds, "steps": state.step - steps_before, "grpo": asdict(state)})
        exit_code = 0
        return 0
    finally:
        sender.close()
        pool.close()
        if tracker is not None:
            tracker.finish(exit_code)


def _take_best(learner: Learner, checkpoints: Checkpoints, recovery: Recovery, state: grpo.GrpoState) -> None:
    """Go back to the weights of the best validation. A collective."""
    best = checkpoints.best()
    if best is None or best == checkpoints.folder / f"step-{state.step:06d}":
        return
    learner.load(best)
    state.version += 1
    recovery.deliver(state.version)
    if distributed.rank() == 0:
        print(f"  going back to {best.name}, the best on the validation set", file=sys.stderr, flush=True)


def _evaluate(
    job: JobSpec,
    config: ExperimentConfig,
    learner: Learner,
    pool: RolloutPool,
    recovery: Recovery,
    state: grpo.GrpoState,
    name: str,
    tracker: Tracker | None,
) -> None:
    """Rank 0 evaluates on the test set; the others wait for it."""
    version, step = state.version, state.step

    def work() -> Scored | None:
        if distributed.rank():
            return None
        samples = evaluation_samples(job.test, config.task)
        with ProgressBar(f"evaluating ({name})", len(samples), "clips") as bar:
            return evaluate(pool, learner.processor, samples, config.evaluation.max_tokens, bar.advance, version)

    scored = recovery.attempt(work, version)
    if scored is not None:
        save_scored(scored, Path(job.work) / "eval" / f"{name}.jsonl")
        if tracker is not None:
            _show(tracker, scored, name, step, config.evaluation.examples)
    distributed.barrier()


def _show(tracker: Tracker, scored: Scored, name: str, step: int, examples: int) -> None:
    """Put an evaluation's numbers and a table of a few clips into W&B."""
    tracker.summary(evaluation_metrics(name, scored))
    if tracker.records_tables:
        tracker.table(step, f"eval/{name}/clips", COLUMNS, clip_rows(scored, examples))


def _validate(
    job: JobSpec,
    config: ExperimentConfig,
    learner: Learner,
    pool: RolloutPool,
    recovery: Recovery,
    version: int,
    step: int,
    tracker: Tracker | None,
) -> float:
    """Rank 0 scores greedy answers on the validation set; the others wait for it.

    Returns:
        the mean of the tasks' main metrics, on rank 0.
    """

    def work() -> Scored | None:
        if distributed.rank():
            return None
        samples = evaluation_samples(job.validation, config.task)
        return evaluate(pool, learner.processor, samples, config.evaluation.max_tokens, version=version)

    scored = recovery.attempt(work, version)
    if scored is not None and tracker is not None:
        tracker.log(step, evaluation_metrics("validation", scored))
    distributed.barrier()
    return scored.mean() if scored is not None else math.nan


def _mixed(manifest: str, config: ExperimentConfig, times: Times) -> tuple[list[Sample], Mixture]:
    """The samples of all tasks and the order in which they are trained on."""
    lists, weights = training_samples(manifest, config.task, times)
    mixture = Mixture([len(samples) for samples in lists], weights, config.seed)
    return [sample for samples in lists for sample in samples], mixture


def _tracker(job: JobSpec, config: ExperimentConfig) -> Tracker | None:
    if distributed.rank() != 0:
        return None
    resolved: dict[str, Any] = asdict(config)
    return Tracker(config.wandb, Path(job.work), config.name, job.kind, resolved, job.run_id)


def main() -> NoReturn:
    """Run the job; the exit code is 128 + signal where a signal ended it."""
    end_with_parent()
    # torch announces a renaming once a call that DeepSpeed makes; nothing to do for anybody who reads it here.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    job = JobSpec.load(Path(sys.argv[1]))
    config = load_resolved(Path(job.config), ExperimentConfig)
    stop = distributed.StopRequest()
    torch.set_num_threads(config.learner.threads)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    distributed.join(config.zero.collective_timeout_s)
    try:
        signal = {"sft": run_sft, "grpo": run_grpo}[job.kind](job, config, stop)
    except (ValueError, FileNotFoundError) as error:  # the user's to mend: the message says it all
        print(f"learner rank {distributed.rank()}: {error}", file=sys.stderr, flush=True)
        os._exit(2)  # the other ranks wait in a collective for this one; the launcher ends them
    except OSError as error:
        if not disk_trouble(error):
            raise
        print(
            f"learner rank {distributed.rank()}: {error}. The disk of {job.work} is full; free some space, then the "
            "same command with --resume continues from the last checkpoint",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(2)
    except WorkersLost as error:  # on every rank
        if distributed.rank() == 0:
            print(f"timepro: {error}; the same command with --resume continues this run", file=sys.stderr, flush=True)
        _leave(128 + stop.signal if stop.signal else 1)
    _leave(128 + signal if signal else 0)


def _leave(code: int) -> NoReturn:
    """End this rank, whose work is done and on disk.

    Not by returning: while the interpreter is taken down, threads of gloo or OpenMP can outlive what they use, and the
    rank then ends with SIGABRT ("terminate called without an active exception") after everything has succeeded.
    """
    torch.distributed.destroy_process_group()
    logging.shutdown()
    atexit._run_exitfuncs()  # what libraries have to tidy up: W&B's service, temporary files
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
