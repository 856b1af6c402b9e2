"""The SFT job of a rank: from a checkpoint and a manifest to a fine-tuned checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

from timepro.data.manifest import read_manifest
from timepro.tasks.samples import samples_of, training_samples
from trainer.learner import distributed
from trainer.learner.checkpoints import Checkpoints
from trainer.learner.learner import Learner
from trainer.learner.order import Mixture
from trainer.learner.sft import Sft
from trainer.learner.tracking import tracker_of
from trainer.learner.warmup import all_features, own_share, warm_up
from trainer.messages import CHECKPOINTS, JobSpec, write_result
from trainer.settings.experiment import ExperimentConfig


def run_sft(job: JobSpec, config: ExperimentConfig, stop: distributed.StopRequest) -> int:
    """Supervised fine-tuning; exports the checkpoint. Returns the signal that stopped it, or 0."""
    settings = config.sft
    learner = Learner(
        Path(job.checkpoint), settings.optimiser, config.zero, settings.batch, config.lora, config.seed,
        Path(job.adapter) if job.adapter else None, config.data.feature_cache.place(config.runs),
    )  # fmt: skip
    learner.soften_times(settings.soft_time)
    lists, weights = training_samples(job.manifest, config.task, settings.label_times)
    samples = [sample for samples in lists for sample in samples]
    validation, _ = training_samples(job.validation, config.task, settings.label_times)
    by_epochs = math.ceil(settings.epochs * len(samples) / settings.batch_size)
    tracker = tracker_of(job, config)
    training = Sft(
        learner=learner,
        samples=samples,
        order=Mixture([len(samples) for samples in lists], weights, config.seed),
        validation=[sample for samples in validation for sample in samples],
        config=settings,
        checkpoints=Checkpoints(Path(job.work) / CHECKPOINTS, settings.checkpoints),
        stop=stop,
        tracker=tracker,
        max_steps=by_epochs if settings.epochs else settings.max_steps,
        max_seconds=job.max_seconds,
        title=job.title,
    )
    exit_code = 1
    try:
        signal = _train(training, job, config, stop)
        exit_code = 128 + signal if signal else 0
        return signal
    finally:
        tracker.finish(exit_code)


def _train(training: Sft, job: JobSpec, config: ExperimentConfig, stop: distributed.StopRequest) -> int:
    checkpoint = training.checkpoints.newest() if job.resume else None
    warms_up = config.sft.encoder_warmup.steps and not job.max_seconds  # a continuation has it trained
    if warms_up and checkpoint is None and (signal := _warm_up(training.learner, job, config, stop)):
        return signal
    report = training.train(checkpoint)
    if report["signal"]:
        return int(report["signal"])
    training.learner.export(Path(job.output))
    if distributed.is_first():
        write_result(Path(job.work), report)
    return 0


def _warm_up(learner: Learner, job: JobSpec, config: ExperimentConfig, stop: distributed.StopRequest) -> int:
    """Train a random encoder on the clips' events, whatever the task asks of them."""
    events = samples_of(read_manifest(Path(job.manifest)), "sed", config.sft.label_times)
    if not events:
        raise ValueError(
            f"{job.manifest}: no clip serves task sed, whose events the encoder's warm-up is trained on; "
            "set sft.encoder_warmup.steps=0"
        )
    mine = own_share(events)
    features = all_features(mine, learner.processor, visible=distributed.is_first())
    settings = config.sft.encoder_warmup
    signal = warm_up(learner.encoder, learner.processor, events, settings, config.seed, stop, features)
    if not signal:  # the features are at hand, and now the encoder is what it will be
        learner.frames.add([sample.audio for sample in mine], features)
    return signal
