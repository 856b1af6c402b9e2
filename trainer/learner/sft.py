"""Supervised fine-tuning: the right answer after the prompt, cross-entropy on the answer alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from timepro.features import Processor
from timepro.progress import ProgressBar
from timepro.tasks import Sample, find_task
from trainer.learner import distributed
from trainer.learner.checkpoints import Checkpoints
from trainer.learner.learner import Learner, weighted_token_count
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.order import PromptOrder, share
from trainer.learner.rows import AnswerTokens, MicroBatch, Row
from trainer.learner.schedule import learning_rate_factor
from trainer.learner.tracking import Tracker
from trainer.learner.usage import Usage
from trainer.settings.sft import UNBOUNDED, SftConfig


def target_row(processor: Processor, sample: Sample, frames: Tensor, weight: float = 1.0, exact: bool = False) -> Row:
    """A row with the sample's supervised answer.

    Args:
        exact: take the reference instead of the (perhaps lagged) target.
    """
    prompt = processor.expanded_prompt(sample.question, len(frames), sample.before)
    return Row(prompt, frames, [target_answer(processor, sample, weight, exact)], sample.id)


def target_answer(processor: Processor, sample: Sample, weight: float = 1.0, exact: bool = False) -> AnswerTokens:
    """The sample's right answer as tokens to be learnt."""
    layout = processor.layout
    events = list(sample.reference if exact else sample.target)
    text = find_task(sample.task).write(events, layout.answer_style, layout.vocabulary)
    return AnswerTokens(processor.answer_ids(text), supervised=True, weight=weight)


@dataclass
class Sft:
    """One rank's part of the training. Every method is a collective.

    Args:
        order: in which `samples` are trained on.
        max_steps: where it ends at most, and what the schedule follows.
        max_seconds: bound in time; 0 for none. The schedule follows whichever bound is nearer.
        title: names the progress bar.
    """

    learner: Learner
    samples: Sequence[Sample]
    order: PromptOrder
    validation: Sequence[Sample]
    config: SftConfig
    checkpoints: Checkpoints
    stop: distributed.StopRequest
    tracker: Tracker
    max_steps: int
    max_seconds: float
    title: str
    usage: Usage = field(default_factory=Usage, init=False)

    def train(self, checkpoint: Path | None) -> dict[str, Any]:
        """Fine-tune from the beginning, or from a checkpoint.

        Returns:
            steps, seconds, final training and validation loss, and the signal that stopped it (0 for none).

        Raises:
            FailedTogether: a step or a validation failed on some rank; there is a checkpoint.
        """
        config, optimiser, learner = self.config, self.config.optimiser, self.learner
        learner.start()
        step, elapsed_before = self._restored(checkpoint)
        # From the beginning, too: the tracker's clock is the training's, without the warm-up.
        self.tracker.resume_from(step, elapsed_before)
        started, loss, signal = time.monotonic() - elapsed_before, float("nan"), 0
        if config.keep_best and step == 0:
            self._validate(0, started)  # where training makes answers worse, the start is the best
        with ProgressBar(self.title, self._total(), "steps", visible=distributed.is_first()) as bar:
            bar.done = step
            while True:
                elapsed = distributed.from_first(time.monotonic() - started)
                progress = max(step / self.max_steps, elapsed / self.max_seconds if self.max_seconds else 0.0)
                signal = self.stop.agreed()
                if progress >= 1.0 or signal:
                    break
                factor = learning_rate_factor(step, progress, optimiser.warmup_steps, optimiser.flat, optimiser.floor)
                rate = optimiser.learning_rate * factor
                place = self.order.state()
                self.tracker.at(step, self._total(), "train")
                try:
                    loss, measured = self._step(step, rate)
                    self.usage.add(measured.pop("perf/tokens"))
                except distributed.FailedTogether:
                    self.order.restore(place)  # a resumed run takes this step's samples again
                    self._save(step, time.monotonic() - started)
                    raise
                step += 1
                bar.advance(note=f"loss {loss:.3f}")
                if step % config.log_every == 0:
                    now = {"loss": loss, "learning_rate": rate, "epoch": self.order.epoch}
                    self.tracker.log(step, now | measured | self.usage.metrics())
                if config.validate_every and step % config.validate_every == 0:
                    self._validate(step, started)
                if config.checkpoints.save_every and step % config.checkpoints.save_every == 0:
                    self._save(step, time.monotonic() - started)
        report = {"steps": step, "seconds": time.monotonic() - started, "loss": loss, "signal": signal}
        if signal:
            self._save(step, report["seconds"])
            return report
        if config.keep_best:
            report["kept_step"] = self._take_best(step, started)
        report["validation_loss"] = self._validated(step, started)
        if not config.keep_best and not (config.validate_every and step % config.validate_every == 0):
            self.tracker.log(step, {"eval/validation/loss": report["validation_loss"]})
        kept = f", of step {report['kept_step']} of {step}" if config.keep_best else ""
        distributed.say(f"{self.title}: validation loss {report['validation_loss']:.3f}{kept}")
        return report

    def validation_loss(self, batch: int = 64) -> float:
        """Mean cross-entropy of the right answers' tokens, in the times that training is on."""
        total = count = 0.0  # over tokens: a short batch, or one of short answers, weighs what it holds
        for start in range(0, len(self.validation), batch):
            mine = self.validation[start : start + batch][distributed.rank() :: distributed.world_size()]
            with distributed.together("building validation rows"):
                rows = self._rows(mine)
            loss, tokens = self.learner.cross_entropy(rows)
            total, count = total + loss, count + tokens
        return total / max(count, 1.0)

    def _validate(self, step: int, started: float) -> None:
        loss = self._validated(step, started)
        self.tracker.log(step, {"eval/validation/loss": loss})
        if self.config.keep_best and self.checkpoints.is_best(-loss) and self._save(step, time.monotonic() - started):
            self.checkpoints.note_best(step, -loss)

    def _take_best(self, step: int, started: float) -> int:
        """Go back to the weights of the lowest validation loss; their step."""
        if step % self.config.validate_every:
            self._validate(step, started)  # the last step is a candidate, too
        best = self.checkpoints.best()
        return step if best is None else int(self.learner.load(best, checked=True)["step"])

    def _total(self) -> int:
        """Steps to show; 0 where only time bounds them."""
        return 0 if self.max_seconds and self.max_steps == UNBOUNDED else self.max_steps

    def _validated(self, step: int, started: float) -> float:
        """`validation_loss`, whose failure does not cost what was trained."""
        self.tracker.at(step, self._total(), "validate")
        try:
            return self.validation_loss()
        except distributed.FailedTogether:
            self._save(step, time.monotonic() - started)
            raise

    def _step(self, step: int, rate: float) -> tuple[float, dict[str, float]]:
        self.learner.seed_dropout(step)
        mine = self._take()
        with distributed.together("building rows"):
            rows = self._rows(mine)
        if step + 1 < self.max_steps:
            self.learner.frames.read_ahead([sample.audio for sample in self._upcoming()])
        count = distributed.total(weighted_token_count(rows, supervised=True))

        def loss_function(logprobs: Tensor, entropies: Tensor, micro: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
            loss = cross_entropy_sum(logprobs, micro.weights) / count
            return loss, {"loss": loss}

        done = self.learner.update(rows, loss_function, temperature=1.0, learning_rate=rate)
        loss = distributed.total(done.numbers["loss"])
        tokens = distributed.total(float(sum(row.length for row in rows)))
        return loss, {"grad_norm": done.grad_norm, "perf/refused_step": float(done.refused), "perf/tokens": tokens}

    def _take(self) -> list[Sample]:
        """This rank's part of the next step's samples."""
        indices = self.order.take(self.config.batch_size)
        return [self.samples[i] for i in share(indices, distributed.rank(), distributed.world_size())]

    def _upcoming(self) -> list[Sample]:
        """What `_take` will give the next time."""
        place = self.order.state()
        upcoming = self._take()
        self.order.restore(place)
        return upcoming

    def _rows(self, samples: Sequence[Sample]) -> list[Row]:
        frames = self.learner.frames([sample.audio for sample in samples])
        rows = [target_row(self.learner.processor, s, f) for s, f in zip(samples, frames, strict=True)]
        return self.learner.fitting(rows)  # here, where a failure is one of all ranks

    def _restored(self, checkpoint: Path | None) -> tuple[int, float]:
        """Steps done and seconds taken before."""
        if checkpoint is None:
            return 0, 0.0
        state = self.learner.load(checkpoint, checked=True)
        self.order.restore(state["cursor"])
        self.usage.tokens = state.get("tokens", 0.0)
        return state["step"], state["elapsed"]

    def _save(self, step: int, elapsed: float) -> bool:
        state = {"step": step, "cursor": self.order.state(), "elapsed": elapsed, "tokens": self.usage.tokens}
        return self.checkpoints.save(self.learner, step, state, with_encoder=True)  # the warm-up has changed it
