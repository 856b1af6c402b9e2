"""Supervised fine-tuning: the right answer after the prompt, cross-entropy on the answer alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from timepro.answers import write_answer
from timepro.features import Processor
from timepro.progress import ProgressBar
from timepro.tasks import Sample
from trainer.learner import distributed
from trainer.learner.checkpoints import Checkpoints
from trainer.learner.cursor import Mixture, share
from trainer.learner.learner import Learner, weighted_token_count
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.rows import AnswerTokens, MicroBatch, Row
from trainer.learner.schedule import learning_rate_factor
from trainer.learner.tracking import Tracker
from trainer.settings.sft import SftConfig


def target_row(processor: Processor, sample: Sample, frames: Tensor, weight: float = 1.0, exact: bool = False) -> Row:
    """A row with the sample's supervised answer.

    Args:
        exact: take the reference instead of the (perhaps lagged) target.
    """
    prompt = processor.expanded_prompt(sample.question, len(frames))
    return Row(prompt, frames, [target_answer(processor, sample, weight, exact)])


def target_answer(processor: Processor, sample: Sample, weight: float = 1.0, exact: bool = False) -> AnswerTokens:
    """The sample's right answer as tokens to be learnt."""
    layout = processor.layout
    events = list(sample.reference if exact else sample.target)
    text = write_answer(events, layout.answer_style, layout.vocabulary)
    return AnswerTokens(processor.answer_ids(text), supervised=True, weight=weight)


def train_sft(
    learner: Learner,
    samples: Sequence[Sample],
    cursor: Mixture,
    validation: Sequence[Sample],
    config: SftConfig,
    checkpoints: Checkpoints,
    checkpoint: Path | None,
    max_seconds: float,
    stop: distributed.StopRequest,
    tracker: Tracker | None,
    title: str,
) -> dict[str, Any]:
    """Fine-tune on all ranks. A collective.

    Args:
        cursor: the order in which `samples` are trained on.
        checkpoint: the one to continue from; None at the beginning.
        max_seconds: bound in time instead of steps (the schedule then follows the clock); 0 for none.
        tracker: on rank 0.

    Returns:
        steps, seconds, final training and validation loss, and the signal that stopped it (0 for none).
    """
    rank, world = distributed.rank(), distributed.world_size()
    optimiser, save_every = config.optimiser, config.checkpoints.save_every
    learner.start()
    step, elapsed_before = 0, 0.0
    if checkpoint is not None:
        state = learner.load(checkpoint, checked=True)
        step, elapsed_before = state["step"], state["elapsed"]
        cursor.restore(state["cursor"])
    if tracker is not None:  # from the beginning, too: its clock is the training's, without the warm-up
        tracker.resume_from(step, elapsed_before)
    started, loss, signal = time.monotonic() - elapsed_before, float("nan"), 0
    total = config.max_steps if not max_seconds else 0
    with ProgressBar(title, total, "steps", visible=rank == 0) as bar:
        bar.done = step
        while True:
            elapsed = distributed.from_first([time.monotonic() - started])[0]
            progress = elapsed / max_seconds if max_seconds else step / config.max_steps
            signal = stop.agreed()
            if progress >= 1.0 or signal:
                break
            factor = learning_rate_factor(step, progress, optimiser.warmup_steps, optimiser.flat, optimiser.floor)
            rate = optimiser.learning_rate * factor
            chosen = [samples[i] for i in share(cursor.take(config.batch_size), rank, world)]
            loss, measured = _step(learner, chosen, rate)
            step += 1
            bar.advance(note=f"loss {loss:.3f}")
            if tracker is not None and step % config.log_every == 0:
                tracker.log(step, {"loss": loss, "learning_rate": rate, "epoch": cursor.epoch} | measured)
            if config.validate_every and step % config.validate_every == 0:
                value = validation_loss(learner, validation)
                if tracker is not None:
                    tracker.log(step, {"eval/validation/loss": value})
            if save_every and step % save_every == 0:
                _save(learner, checkpoints, step, cursor, time.monotonic() - started)
    report = {"steps": step, "seconds": time.monotonic() - started, "loss": loss, "signal": signal}
    if signal:
        _save(learner, checkpoints, step, cursor, report["seconds"])
        return report
    report["validation_loss"] = validation_loss(learner, validation)
    if rank == 0:
        print(f"  {title}: validation loss {report['validation_loss']:.3f}", file=sys.stderr, flush=True)
    return report


def validation_loss(learner: Learner, samples: Sequence[Sample], batch: int = 64) -> float:
    """Mean cross-entropy of the right answers, in the times that training is on. A collective."""
    total = count = 0.0
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        mine = part[distributed.rank() :: distributed.world_size()]
        frames = learner.frames([s.audio for s in mine])
        rows = [target_row(learner.processor, s, f) for s, f in zip(mine, frames, strict=True)]
        total += learner.cross_entropy(rows) * len(part)
        count += len(part)
    return total / max(count, 1.0)


def _step(learner: Learner, samples: Sequence[Sample], rate: float) -> tuple[float, dict[str, float]]:
    frames = learner.frames([s.audio for s in samples])
    rows = [target_row(learner.processor, s, f) for s, f in zip(samples, frames, strict=True)]
    count = distributed.total([weighted_token_count(rows, supervised=True)])[0]

    def loss_function(logprobs: Tensor, entropies: Tensor, micro: MicroBatch) -> tuple[Tensor, dict[str, float]]:
        loss = cross_entropy_sum(logprobs, micro.weights) / count
        return loss, {"loss": float(loss.detach())}

    report = learner.update(rows, loss_function, temperature=1.0, learning_rate=rate)
    loss = distributed.total([report.get("loss", 0.0)])[0]
    return loss, {"grad_norm": report["grad_norm"], "perf/refused_step": report["refused"]}


def _save(learner: Learner, checkpoints: Checkpoints, step: int, cursor: Mixture, elapsed: float) -> None:
    state = {"step": step, "cursor": cursor.state(), "elapsed": elapsed}
    checkpoints.save(learner, step, state, with_encoder=True)  # the warm-up has changed it
