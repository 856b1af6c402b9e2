"""GRPO (arXiv 2402.03300): sample groups, score them, compare within the group, step, send the weights, again.

The loop is `Grpo.train`; each phase it names is a method below it or a module of its own. A group never leaves its
rank: every rank asks the workers for the groups of its own prompts, scores them and trains on them. Across ranks go
gradients, counts and metrics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from timepro.progress import ProgressBar
from trainer.learner import distributed
from trainer.learner.checkpoints import Checkpoints
from trainer.learner.groups import GroupSampler, record
from trainer.learner.learner import Learner
from trainer.learner.noise import Level, Measurements
from trainer.learner.profiling import StepProfiler
from trainer.learner.recovery import Recovery, WorkersLost
from trainer.learner.rows import Row
from trainer.learner.sender import SyncReport
from trainer.learner.step_metrics import PhaseClock, Step, step_metrics
from trainer.learner.tracking import Tracker
from trainer.learner.updates import UpdateReport, advantages_of, build_rows, train_on
from trainer.learner.wandb_tables import completion_rows
from trainer.settings.grpo import GrpoConfig


@dataclass
class GrpoState:
    """Where a run is; saved with every checkpoint."""

    step: int = 0
    version: int = 0
    elapsed: float = 0.0
    syncs: list[float] = field(default_factory=list)
    tokens: float = 0.0  # trained on so far, prompts included
    checksum_failures: int = 0
    measured: Measurements = field(default_factory=Measurements)  # of the gradient's noise

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> GrpoState:
        """What `asdict` has made of one, in a checkpoint."""
        return cls(**{**saved, "measured": Measurements(**saved.get("measured", {}))})


@dataclass
class Grpo:
    """One rank's part of the training. Every method is a collective.

    Args:
        run: the run's folder.
        completions_every: steps between tables of a step's answers in W&B; 0 for none.
        validate: called each `validate_every` steps; says how good the weights are (on rank 0).
    """

    learner: Learner
    sampler: GroupSampler
    recovery: Recovery
    config: GrpoConfig
    run: Path
    state: GrpoState
    stop: distributed.StopRequest
    tracker: Tracker
    checkpoints: Checkpoints
    validate: Callable[[int], float]
    completions_every: int = 0
    profiler: StepProfiler = field(default_factory=StepProfiler)
    _started: float = field(default=0.0, init=False)

    @property
    def noise_level(self) -> Level | None:
        """Where noise and signal of an update would be level, by all measurements so far; None: not measured."""
        return self.state.measured.level(self.config.groups.prompts_per_step / self.config.minibatches)

    def train(self) -> int:
        """Train until `max_steps` or a signal; the workers already have `state.version`.

        Returns:
            the signal that stopped it, 0 for none.

        Raises:
            WorkersLost: the workers are gone for good; there is a checkpoint.
            FailedTogether: a step could not be scored, built or validated on some rank; there is a checkpoint.
            SaveFailed: a checkpoint could not be written, and the configuration says to stop.
        """
        state, sampler = self.state, self.sampler
        self._started = time.monotonic() - state.elapsed
        with self._progress() as bar:
            if self.config.keep_best and state.step == 0:
                self._validate()  # where training makes answers worse, the start is the best
            while state.step < self.config.max_steps:
                if signal := self.stop.agreed():
                    self.save()
                    return signal
                clock = self.profiler.clock(state.step, self._at)
                with self._saved_if_it_fails(step := Step(clock)):
                    with clock("generate"):
                        step.asked = sampler.sample(state.step, state.version)
                    if self.config.ahead and state.step + 1 < self.config.max_steps:
                        sampler.ask_ahead(state.step + 1, state.version)
                    with clock("score"), distributed.together("scoring"):
                        step.drawn = sampler.score_asked(step.asked)
                    with clock("resample"):
                        step.trained = sampler.resample(step.asked, step.drawn, state.version)
                    sampler.observe(step.drawn)
                    advantages = advantages_of(step.trained, self.config)
                    with clock("rows"), distributed.together("building rows"):
                        rows = build_rows(self.learner, step.trained, advantages, self.config)
                    step.report = self._update(step, rows)
                    state.step, state.version = state.step + 1, state.version + 1
                    record(self.run, state.step, step.drawn, step.trained, advantages)
                    self._show_completions(step, advantages)
                    step.sync = self._deliver(clock)
                self._log(step, bar)
                self._validate()
                if self.config.checkpoints.save_every and state.step % self.config.checkpoints.save_every == 0:
                    self.save()
        return 0

    def save(self) -> bool:
        """Write the step's checkpoint, unless it is there; whether it is there now. As `Checkpoints.save`."""
        own = {f"upcoming.{distributed.rank()}.json": self.sampler.ahead_as_json()}
        content = {"grpo": asdict(self.state), "cursor": self.sampler.order.state()}
        return self.checkpoints.save(self.learner, self.state.step, content, own_files=own)

    @contextmanager
    def _saved_if_it_fails(self, step: Step) -> Iterator[None]:
        """What is done is kept: a resumed run asks for the step's groups again, or goes on behind its update."""
        try:
            yield
        except (WorkersLost, distributed.FailedTogether):
            if step.report is not None:
                self._log(step, None)
            elif step.asked is not None:
                self.sampler.give_back(step.asked)
            self.save()
            raise

    def _update(self, step: Step, rows: list[Row]) -> UpdateReport:
        config = self.config
        if config.kl.coefficient:
            with step.clock("reference"):
                rows = self.learner.with_reference(rows, config.groups.temperature)
        with step.clock("train"):
            return train_on(self.learner, step.trained, rows, config, self.state.step)

    def _deliver(self, clock: PhaseClock) -> SyncReport:
        """Send the new weights, once no answer of the old ones is under way."""
        if self.sampler.has_asked_ahead:
            with clock("ahead"):
                self.sampler.finish_ahead(self.state.version)
        with clock("sync"):
            sync = self.recovery.deliver(self.state.version)
        self.state.syncs.append(sync.seconds)
        self.profiler.note("gather", sync.gather_seconds)
        return sync

    def _log(self, step: Step, bar: ProgressBar | None) -> None:
        self.state.elapsed = time.monotonic() - self._started
        self.state.checksum_failures = self.recovery.checksum_failures
        metrics = step_metrics(step, self.sampler.reward.part_names, self.state.version - 1)
        self.state.tokens += metrics["perf/tokens"]
        if "gradient/noise" in metrics:
            self.state.measured.add(metrics["gradient/noise"], metrics["gradient/signal"])
            if (level := self.noise_level) is not None and math.isfinite(level.low):
                metrics["gradient/level_prompts_at_least"] = level.low
        metrics |= {
            "num_tokens": self.state.tokens,
            "epoch": float(self.sampler.order.epoch),
            "perf/recoveries": float(self.recovery.count),
            "perf/failed_saves": float(self.checkpoints.failures),
        }
        self.tracker.log(self.state.step, metrics)
        if bar is not None:
            bar.advance(note=f"reward {metrics.get('reward', float('nan')):.3f}")

    def _show_completions(self, step: Step, advantages: Sequence[np.ndarray]) -> None:
        every = self.completions_every
        if every and self.state.step % every == 0 and self.tracker.records_tables:
            self.tracker.table(self.state.step, "completions", *completion_rows(step.trained, advantages))

    def _validate(self) -> None:
        config, at = self.config, self.state.step
        if not config.validate_every or at % config.validate_every:
            return
        try:
            self._at("validate")
            value = self.validate(at)
        except (WorkersLost, distributed.FailedTogether):
            self.save()
            raise
        if config.keep_best and self.checkpoints.is_best(value) and self.save():
            self.checkpoints.note_best(at, value)

    def _at(self, phase: str) -> None:
        self.tracker.at(self.state.step, self.config.max_steps, phase)

    def _progress(self) -> ProgressBar:
        bar = ProgressBar("GRPO", self.config.max_steps, "steps", visible=distributed.is_first())
        bar.done = self.state.step
        return bar
