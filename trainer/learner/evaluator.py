"""Evaluation during training: each rank asks for greedy answers to its part of the samples, rank 0 scores them all."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rollout.client import RolloutPool
from rollout.evaluation import greedy_answers
from timepro.evaluation import Scored, evaluation_metrics, gain_metrics, gains, load_scored, save_scored, score
from timepro.features import Processor
from timepro.progress import ProgressBar
from timepro.runs import classes_of
from timepro.tasks import Sample, find_task
from trainer.learner import distributed
from trainer.learner.recovery import Recovery
from trainer.learner.tracking import Tracker
from trainer.learner.wandb_tables import COLUMNS, clip_rows
from trainer.settings.evaluation import EvaluationConfig

_PER_RANK = 64  # samples between two collectives, so that none of them waits for long


def some(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many of the samples, spread evenly, always the same ones; all of them for 0."""
    n = len(samples)
    return list(samples) if not 0 < count < n else [samples[i * n // count] for i in range(count)]


@dataclass
class Evaluator:
    """What tells how good the weights are. `test` and `validate` are collectives.

    Args:
        run: the run's folder.
        tests, validations: samples, the same on every rank.
    """

    pool: RolloutPool
    processor: Processor
    recovery: Recovery
    config: EvaluationConfig
    run: Path
    tracker: Tracker
    tests: Sequence[Sample]
    validations: Sequence[Sample]

    def test(self, name: str, version: int, step: int) -> None:
        """Evaluate the weights `version` on the test set, and keep the answers as `eval/NAME.jsonl`.

        Raises:
            WorkersLost: the workers failed for good.
        """
        scored = self._scored(self.tests, version, f"evaluating ({name})")
        if scored is not None:
            save_scored(scored, self._path(name))
            self._show(scored, name, step)
            if name == "grpo" and self._path("sft").is_file():
                before = load_scored(self._path("sft"), list(self.tests))
                self.tracker.summary(gain_metrics(gains(before, scored)))
        distributed.barrier()

    def show_earlier(self, name: str) -> bool:
        """Whether a test was done before the run was resumed; a tracker that begins anew is shown it."""
        there = self._path(name).is_file()
        if there and self.tracker.is_new:
            self._show(load_scored(self._path(name), list(self.tests)), name, 0)
        return there

    def _path(self, name: str) -> Path:
        return self.run / "eval" / f"{name}.jsonl"

    def _show(self, scored: Scored, name: str, step: int) -> None:
        """Put an evaluation's numbers and a table of a few clips into W&B."""
        self.tracker.summary(evaluation_metrics(name, scored))
        self.tracker.chart(step, evaluation_metrics("test", scored))
        if self.tracker.records_tables:
            rows = clip_rows(scored, self.config.examples, classes_of(self.run))
            self.tracker.table(step, f"eval/{name}/clips", COLUMNS, rows)

    def validate(self, version: int, step: int) -> float:
        """The mean of the tasks' main metrics on the validation set, on rank 0.

        Raises:
            WorkersLost: the workers failed for good.
        """
        began = time.monotonic()
        scored = self._scored(self.validations, version, "")
        if scored is not None:
            self.tracker.log(step, evaluation_metrics("validation", scored))
            values = ", ".join(f"{find_task(task).main_heading} {value:.3f}" for task, value in scored.main().items())
            seconds = time.monotonic() - began
            distributed.say(f"step {step}: {values} on {len(scored.samples)} validation samples ({seconds:.0f} s)")
        distributed.barrier()
        return scored.mean() if scored is not None else math.nan

    def _scored(self, samples: Sequence[Sample], version: int, title: str) -> Scored | None:
        """Answers of all ranks in the order of the samples, scored on rank 0; None on the others."""
        rank, world = distributed.rank(), distributed.world_size()
        texts: list[str] = []
        with ProgressBar(title, len(samples), "clips", visible=bool(title) and rank == 0) as bar:
            for start in range(0, len(samples), _PER_RANK * world):
                part = samples[start : start + _PER_RANK * world]
                mine = part[rank::world]
                ask = partial(greedy_answers, self.pool, self.processor, mine, self.config.max_tokens, version=version)
                answers = self.recovery.attempt(ask, version)
                everybody = distributed.from_every(answers)
                texts += [everybody[i % world][i // world] for i in range(len(part))]
                bar.advance(len(part))
        return score(list(samples), texts) if rank == 0 else None
